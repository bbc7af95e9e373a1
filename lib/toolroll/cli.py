"""How a command is declared: `command()` and the option groups.

A command is one click declaration and one generator from rows to rows. Everything that commands
have in common (files, bad rows, shards, resuming, signals, messages, exit codes, settings from the
environment or a file) is here and in `toolroll.run.loop`; toolroll(7) tells users about it.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from toolroll.errors import FAILED, INTERRUPTED, OK, STOPPED, USAGE, Stopped, ToolrollError, UsageError
from toolroll.options import (
    GroupedOption,
    config_text,
    files_argument,
    metavar_of,
    section_of,
    setting_of,
    standard_options,
)
from toolroll.run.contract import Contract, OutputClosed, Settings, each
from toolroll.run.log import DEBUG, Log

if TYPE_CHECKING:
    from toolroll.run.manifest import Manifest
    from toolroll.run.signals import StopFlag

F = TypeVar("F", bound=Callable[..., Any])
__all__ = [
    "Tool",
    "command",
    "declares",
    "each",
    "offers_table",
    "option_group",
    "uses_device",
    "uses_images",
    "uses_model",
    "uses_policy",
    "uses_prompt",
    "uses_sampling",
    "uses_seed",
]

#: Options that say how to run, not what to compute: they may differ when a run is resumed.
EXECUTION = frozenset(
    [
        "files",
        "output",
        "report",
        "errors",
        "resume",
        "no_meta",
        "line_buffered",
        "max_errors",
        "log",
        "quiet",
        "verbose",
        "config",
        "show_config",
        "version",
        "version_json",
        "schema",
        "device",
        "batch_size",
        "concurrency",
        "timeout",
        "judge_cache",
        "search_cache",
        "api_key_file",
        "threads",
        "workers",
        "base_url",
        "clip_batch",
        "clip_cache",
        "clip_device",
    ]
)

#: Options that name a file which a command writes beside its output.
KEPT = ("state", "clip_cache", "judge_cache", "search_cache")
#: Options that name a file which a command writes and does not read.
WRITTEN = frozenset(
    ["output", "errors", "report", "out", "html", "plot", "contact", "table", "video", "save_verdicts", "steps_file"]
)
NAMES_FILE = re.compile("FILE|DIR|NAME|MODEL|SPEC")  #: in the metavar of an option whose text may name a file


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
                param.envvar = f"TOOLROLL_{setting_of(param).upper()}"

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
            from toolroll.completing import register

            register()
        self._main_shell_completion({}, str(self.name), complete_var)
        _hold_standard_streams()
        code = self.run(list(sys.argv[1:] if args is None else args))
        sys.exit(code)

    def run(self, args: list[str]) -> int:
        """Run with `args`; the exit code. A broken pipe ends the process by SIGPIPE instead."""
        name = str(self.name)
        log = Log(name)
        try:
            with self.make_context(name, args, obj=log) as context:
                self.invoke(context)
            click.echo(nl=False)  # flushes
        except (click.exceptions.Exit, click.exceptions.Abort) as error:
            return int(getattr(error, "exit_code", INTERRUPTED))
        except click.ClickException as error:
            log.error(f"{_usage_why(error)} (see {name} --help)")
            return USAGE
        except ToolrollError as error:
            _trace(log)
            log.close()
            if isinstance(error, Stopped):
                log.warn(error.why)
                return STOPPED
            log.error(error.why, error.place)
            return error.exit_code
        except (OutputClosed, BrokenPipeError):
            _die_of_sigpipe()
        except KeyboardInterrupt:
            return INTERRUPTED
        except OSError as error:
            _trace(log)
            log.error(error.strerror or str(error), str(error.filename or ""))
            _drop_stdout()  # what it could not take, it cannot take at exit either
            return FAILED
        except MemoryError:
            _trace(log)
            log.error("out of memory")
            return FAILED
        except Exception as error:  # the last resort: a defect is told in one line too
            _trace(log)
            log.error(f"internal error: {type(error).__name__}: {error} (run with -v -v for the traceback)")
            return FAILED
        return FAILED if log.failed else OK

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `args`, the environment and the settings file. No option that is a number takes NaN or Infinity."""
        rest = super().parse_args(ctx, args)
        for param in self.params:
            value = ctx.params.get(str(param.name))
            if isinstance(param.type, click.types.FloatParamType) and not _finite(value):
                raise click.BadParameter("expected a finite number", ctx=ctx, param=param)
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

        settings = self._settings(values, log)
        manifest = (
            None if values["no_meta"] else Manifest(str(self.name), [str(self.name), *sys.argv[1:]], _shaping(context))
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

    def _settings(self, values: dict[str, Any], log: Log) -> Settings:
        from toolroll.io.shard import parse_shard

        shard = parse_shard(values["shard"], os.environ) if values.get("shard") is not None else None
        if shard is not None:
            log.shard = str(shard)
            if values["shard"] == "slurm":
                log.note(f"slurm: this is shard {shard}")
        wanted = {field.name for field in dataclass_fields(Settings)}
        known = {name: value for name, value in values.items() if name in wanted}
        known["inputs"] = tuple(values.get("files", ()))
        known["shard"] = shard
        files = {f"--{name.replace('_', '-')}": values.get(name) for name in KEPT}
        known["kept"] = tuple((name, str(path)) for name, path in files.items() if isinstance(path, str | os.PathLike))
        known["given"] = tuple(self._files_given(values))
        is_file = any(param.name == "state" and param.metavar == "FILE" for param in self.params)
        known["state"] = os.fspath(files["--state"]) if is_file and files["--state"] else None  # folders have own locks
        known["group_by"] = tuple(filter(None, (values.get("group_by") or "").split(",")))
        for name in ("output", "errors"):
            known[name] = _with_shard(known.get(name), shard)
        if self.contract.distributed and os.environ.get("RANK", "0") != "0":
            known |= {"inputs": (os.devnull,), "output": os.devnull, "errors": None, "resume": False}
            log.level = min(log.level, 0) - 1  # rank 0 speaks for all
        if known.get("resume") and known["output"] in (None, "-"):
            raise UsageError("needs an output file (-o)", place="--resume")
        if known["group_by"] and shard is None:
            raise UsageError("goes with --shard", place="--group-by")
        return Settings(**known)

    def _files_given(self, values: dict[str, Any]) -> Iterator[str]:
        """The files that exist and that options and arguments name, to be read."""
        for param in self.params:
            if param.name in WRITTEN or param.name in KEPT or param.name == "files":
                continue
            value = values.get(str(param.name))
            for name in value if isinstance(value, tuple) else (value,):
                if isinstance(name, os.PathLike):
                    yield os.fspath(name)
                elif isinstance(name, str) and NAMES_FILE.search(str(param.metavar)):
                    yield from (name, name.partition("=")[2])  # --space DATASET=FILE

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


def command(
    name: str,
    *,
    system: str = "",
    reads: type | None = None,
    adds: dict[str, Any] | None = None,
    key: tuple[str, ...] = ("id", "sample"),
    reducer: bool = False,
    slow: bool = False,
    expands: bool = False,
    consumes: bool = False,
    source: bool = False,
    sees_errors: bool = False,
    distributed: bool = False,
    opens: dict[str, str] | None = None,
    document: bool = False,
    makes_file: bool = False,
    epilog: str = "See toolroll(7).",
    kind: type[Tool] = Tool,
) -> Callable[[Callable[..., Any]], Tool]:
    """Declare a command. The function gets `rows` (when it reads any) and its own options by name.

    It may also name `log` (messages), `stop` (was the run asked to stop?) and `manifest` among its
    parameters. `system` is the paper's system it belongs to. `adds` maps the fields it adds to rows
    to their types. `kind` is the class of the command. The rest: see `Contract`.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        contract = Contract(
            reads, adds or {}, key, reducer, slow, expands, consumes, source, sees_errors, distributed, opens or {},
            document, makes_file,
        )  # fmt: skip
        return kind(name, function, contract, system=system, epilog=epilog)

    return decorate


def option_group(keyword: str, kind: type, options: Iterable[click.Option]) -> Callable[[F], F]:
    """Add `options` to a command; their values reach it as one frozen `kind`, named `keyword`."""
    options = list(options)

    def decorate(function: F) -> F:
        groups = dict(getattr(function, "__toolroll_groups__", {}))
        groups[keyword] = (kind, tuple(str(option.name) for option in options))
        function.__toolroll_groups__ = groups  # type: ignore[attr-defined]
        params = getattr(function, "__click_params__", [])
        function.__click_params__ = [*reversed(options), *params]  # type: ignore[attr-defined]
        return function

    return decorate


def declares(*options: click.Option) -> Callable[[F], F]:
    """Add options that are made elsewhere; their values reach the command one by one."""

    def decorate(function: F) -> F:
        params = getattr(function, "__click_params__", [])
        function.__click_params__ = [*params, *reversed(options)]  # type: ignore[attr-defined]
        return function

    return decorate


def uses_images(function: F) -> F:
    """Add `--images`: where the images of rows are."""
    from toolroll.models.single_options import images_option

    return declares(images_option(GroupedOption))(function)


def uses_device(function: F) -> F:
    """Add `--device`: where a model in this process runs."""
    from toolroll.models.single_options import device_option

    return declares(device_option(GroupedOption))(function)


def uses_seed(function: F) -> F:
    """Add `--seed`. Each record's own seed comes from it by `toolroll.run.seeds.record_seed`."""
    text = (
        "Seed of all randomness. A record's own seed is derived from it, the record's id and the sample, "
        "never from order."
    )
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=text)(function)


def offers_table(function: F) -> F:
    """Add `--table`: results as an aligned table instead of JSON lines."""
    return click.option("--table", is_flag=True, help="Print an aligned table instead of JSON lines.")(function)


def uses_model(function: F) -> F:
    """Add the options that choose and run a text model, as one `model: ModelOptions`."""
    from toolroll.models.options import ModelOptions, model_options

    return option_group("model", ModelOptions, model_options(GroupedOption))(function)


def uses_prompt(function: F) -> F:
    """Add the options that say what a row asks, as one `asking: PromptOptions`."""
    from toolroll.models.options import PromptOptions, prompt_options

    return option_group("asking", PromptOptions, prompt_options(GroupedOption))(function)


def uses_policy(function: F) -> F:
    """Add `--policy` and `--follow`, the model of a training loop, as one `policy: PolicyOptions`."""
    from toolroll.models.options import PolicyOptions, policy_options

    return option_group("policy", PolicyOptions, policy_options(GroupedOption))(function)


def uses_sampling(function: F) -> F:
    """Add the options of how tokens are drawn, as one `sampling: SamplingOptions`."""
    from toolroll.models.options import SamplingOptions, sampling_options

    return option_group("sampling", SamplingOptions, sampling_options(GroupedOption))(function)


def _shaping(context: click.Context) -> dict[str, Any]:
    settings = {param.name: setting_of(param) for param in context.command.params}
    shaping = {settings.get(name, name): value for name, value in context.params.items()}
    return {name: value for name, value in shaping.items() if name not in EXECUTION}


def _parameter_names(function: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """The names of a function's parameters, and whether it takes any others."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _with_shard(path: str | None, shard: Any) -> str | None:
    if path is None or "{shard}" not in path:
        return path
    if shard is None:
        raise UsageError("{shard} in a file name needs --shard", place=path)
    return path.replace("{shard}", str(shard.index))


def _usage_why(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text[:1].lower() + text[1:].rstrip(".") if text[1:2].islower() else text.rstrip(".")


def _finite(value: Any) -> bool:
    """Whether numbers, however many an option takes, are neither NaN nor infinite."""
    return all(map(_finite, value)) if isinstance(value, tuple) else value is None or math.isfinite(value)


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def _stdin_is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _trace(log: Log) -> None:
    if log.level >= DEBUG:
        import traceback

        log.debug(traceback.format_exc())


def _hold_standard_streams() -> None:
    """Where stdin, stdout or stderr is closed, make its number fail to use, so that no file opened later gets it."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _die_of_sigpipe() -> NoReturn:
    """End as a Unix filter does when its reader went away: quietly, by SIGPIPE (the shell sees 141)."""
    _drop_stdout()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    raise SystemExit(128 + signal.SIGPIPE)
