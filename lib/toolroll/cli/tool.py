"""A command: how it reads its options, runs its function, and tells what it is for."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli.at_once import config_text
from toolroll.cli.ending import exit_code, hold_standard_streams
from toolroll.cli.options import metavar_of, section_of
from toolroll.cli.standard import files_argument, standard_options
from toolroll.cli.values import settings_of, shaping
from toolroll.cli.variables import is_apart, variable_of
from toolroll.errors import Stopped
from toolroll.run.contract import Contract, Settings
from toolroll.run.log import DEBUG, Log

if TYPE_CHECKING:
    from toolroll.run.manifest import Manifest
    from toolroll.run.signals import StopFlag


class Tool(click.Command):
    """A command of toolroll."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        contract: Contract,
        *,
        system: str,
        epilog: str,
    ) -> None:
        self.system = system
        self.contract = contract
        self.function = function
        self.groups: dict[str, tuple[type, tuple[str, ...]]] = getattr(function, "__toolroll_groups__", {})
        self.examples: str = getattr(sys.modules[function.__module__], "EXAMPLES", "").strip("\n")
        own = list(reversed(getattr(function, "__click_params__", [])))
        if contract.reads is not None and not any(isinstance(param, click.Argument) for param in own):
            own.insert(0, files_argument(contract.opens))
        help_text = (function.__doc__ or "").strip()
        standard = standard_options(contract)
        self.standard = frozenset(["files", *(str(option.name) for option in standard)])
        super().__init__(
            name,
            params=[*own, *standard],
            callback=self._call,
            help=help_text,
            epilog=epilog,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )
        for param in self.params:
            param.metavar = param.metavar or metavar_of(param)
            if isinstance(param, click.Option) and param.allow_from_autoenv:
                param.envvar = variable_of(name, param)
                param.allow_from_autoenv = not is_apart(name, param)  # there it is not made of the option's name alone

    # --- running

    def main(
        self,
        args: Any = None,
        prog_name: Any = None,
        complete_var: Any = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run with `args` and end the process with the right exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        if os.environ.get(f"_{self.name}_COMPLETE".replace("-", "_").upper()):
            from toolroll.cli.completing import register

            register()
        self._main_shell_completion({}, str(self.name), complete_var)
        hold_standard_streams()
        code = self.run(list(sys.argv[1:] if args is None else args))
        sys.exit(code)

    def run(self, args: list[str]) -> int:
        """Run with `args`; the exit code. A broken pipe ends the process by SIGPIPE instead."""
        name = str(self.name)
        log = Log(name)

        def work() -> None:
            with self.make_context(name, args, obj=log) as context:
                self.invoke(context)
            click.echo(nl=False)  # flushes

        return exit_code(name, log, work)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `args`, the environment and the settings file.

        No option that is a number takes NaN or Infinity, nor a whole number that no record of it could hold.
        """
        rest = super().parse_args(ctx, args)
        for param in self.params:
            value = ctx.params.get(str(param.name))
            if isinstance(param.type, click.types.FloatParamType) and not _finite(value):
                raise click.BadParameter("expected a finite number", ctx=ctx, param=param)
            if isinstance(param.type, click.types.IntParamType) and not _fits(value):
                raise click.BadParameter("expected a number of 64 bits", ctx=ctx, param=param)
        return rest

    def _call(self, **values: Any) -> None:
        context = click.get_current_context()
        log: Log = context.obj
        if values.pop("show_config"):
            click.echo(config_text(context), nl=False)
            return
        log.level = DEBUG if values["verbose"] >= DEBUG else values["verbose"] - values["quiet"]
        log.json = values["log"] == "json"
        wanted, _ = _parameter_names(self.function)
        if not self.contract.writes and not {"stop", "manifest"} & set(wanted):
            self.function(**self._own_values(values, {"log": log}))  # it needs nothing of a run
            return
        from toolroll.run.manifest import Manifest
        from toolroll.run.signals import StopFlag

        settings = settings_of(self, values, log)
        manifest = (
            None if values["no_meta"] else Manifest(str(self.name), [str(self.name), *sys.argv[1:]], shaping(context))
        )
        stop = StopFlag()
        with stop.installed():
            self._run(values, settings, log, stop, manifest)

    def _run(
        self, values: dict[str, Any], settings: Settings, log: Log, stop: StopFlag, manifest: Manifest | None
    ) -> None:
        own = self._own_values(values, {"log": log, "stop": stop, "manifest": manifest})
        if not self.contract.writes:
            self.function(**own)
            if stop:
                raise Stopped(f"stopped by {stop.asked_by}")
            return
        if not self.contract.source and settings.inputs in ((), ("-",)) and _stdin_is_terminal():
            log.note("reading from the terminal; end with Ctrl-D, or name a file")
        log.start_bar(None)
        from toolroll.run.loop import Run

        run = Run(self.contract, settings, log=log, stop=stop, manifest=manifest)
        try:
            run.execute(lambda rows: self.function(*([] if self.contract.reads is None else [rows]), **own))
        finally:
            log.close()

    def _own_values(self, values: dict[str, Any], services: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the command's own function."""
        grouped = {name for _, names in self.groups.values() for name in names}
        wanted, takes_rest = _parameter_names(self.function)
        own = {
            name: value
            for name, value in values.items()
            if name not in grouped and (name in wanted or (takes_rest and name not in self.standard))
        }
        for keyword, (kind, names) in self.groups.items():
            own[keyword] = kind(**{name: values[name] for name in names})
        own.update({name: service for name, service in services.items() if name in wanted})
        return own

    # --- help

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the command does in a line, how to call it, examples, then the rest."""
        first, _, rest = (self.help or "").partition("\n\n")
        formatter.write(first.replace("\n", " ") + "\n\n")
        self.format_usage(ctx, formatter)
        if self.examples:
            formatter.write("\nExamples:\n" + self.examples + "\n")
        if rest:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(_dedented(rest))
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, the common ones after."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(section_of(param), []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _parameter_names(function: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """The names of a function's parameters, and whether it takes any others."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _finite(value: Any) -> bool:
    """Whether numbers, however many an option takes, are neither NaN nor infinite."""
    return all(map(_finite, value)) if isinstance(value, tuple) else value is None or math.isfinite(value)


def _fits(value: Any) -> bool:
    """Whether whole numbers, however many an option takes, have 64 bits."""
    return all(map(_fits, value)) if isinstance(value, tuple) else value is None or -(2**63) <= value < 2**63


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def _stdin_is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
