"""The options that every command has, and what those that answer at once do.

Files, records, messages and settings: one definition each, so that an option means the same everywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolroll import __version__
from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.run.contract import Contract


class GroupedOption(click.Option):
    """An option of a group that has its own section in the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class GreedyOption(GroupedOption):
    """An option that also takes the NAME=VALUE words that follow its value: `--grid batch=1,8 tp=1,2`."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser hand on all the words as one value."""
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            option = parser._long_opt[name]
            option.process = _greedy(option.process)


def _greedy(process: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take(value: Any, state: Any) -> None:
        words = [value]
        while state.rargs and re.fullmatch(r"[a-z]+=[\w,]+", state.rargs[0]):
            words.append(state.rargs.pop(0))
        process(" ".join(words), state)

    return take


def section_of(param: click.Parameter) -> str:
    """The section of the help and the man page that a parameter belongs to."""
    if isinstance(param, click.Argument):
        return "Arguments"
    return getattr(param, "section", "Common options" if "--help" in param.opts else "Options")


def setting_of(param: click.Parameter) -> str:
    """The name of an option in a settings file, and behind TOOLROLL_ in the environment: that of its long form."""
    long = next((name for name in param.opts if name.startswith("--")), f"--{param.name}")
    return long[2:].replace("-", "_")


def metavar_of(param: click.Parameter) -> str | None:
    """What stands for a number that has no name of its own, N for a whole one, X for any; else None."""
    letter = {click.types.IntParamType: "N", click.types.FloatParamType: "X"}
    found = next((name for kind, name in letter.items() if isinstance(param.type, kind)), None)
    is_value = not (getattr(param, "is_flag", False) or getattr(param, "count", False))
    return " ".join([found] * param.nargs) if found and is_value else None


def files_argument(opens: Iterable[str] = ()) -> click.Argument:
    """The input files; `opens` are the suffixes of those that are not JSON lines but become such."""
    return click.Argument(
        ["files"],
        nargs=-1,
        type=click.Path(),
        metavar="[FILE]...",
        help=f"JSON lines to read, in order; none or - is stdin. {', '.join(['.gz', *opens])} and .zst are read too.",
    )


def standard_options(contract: Contract) -> list[click.Option]:
    """The options of a command with this contract, beside its own."""
    files, rows, logs = "Input and output", "Records", "Common options"
    options: list[click.Option] = []
    if contract.writes:
        options += [
            GroupedOption(
                ["--report", "output"] if contract.makes_file else ["-o", "--output"],
                metavar="FILE",
                type=click.Path(),
                section=files,
                help=("Write the rows here; " if contract.makes_file else "Write here instead of stdout; ")
                + "the file appears when it is complete. - is stdout, {shard} the share's number, .gz and .zst "
                "compress.",
            ),
            GroupedOption(
                ["--no-meta"],
                is_flag=True,
                section=files,
                help="Do not write FILE.meta.json (command, versions, inputs, settings, counts).",
            ),
            GroupedOption(["--line-buffered"], is_flag=True, section=files, help="Hand on every row at once."),
        ]
    if contract.reads is not None:
        options += [
            GroupedOption(
                ["--on-error"],
                type=click.Choice(["stop", "skip", "keep"]),
                default="stop",
                show_default=True,
                section=rows,
                help="A row that cannot be processed: stop; skip it; or keep it with an `error` field, which later "
                "commands pass on.",
            ),
            GroupedOption(
                ["-e", "--errors"],
                metavar="FILE",
                type=click.Path(),
                section=rows,
                help="Collect the rows that failed here, with the reason.",
            ),
            GroupedOption(
                ["--max-errors"],
                type=click.IntRange(min=0),
                metavar="N",
                section=rows,
                help="Give up after more than N bad rows.",
            ),
            GroupedOption(
                ["--strict"],
                is_flag=True,
                section=rows,
                help="Refuse rows with a top-level field that no record of toolroll has.",
            ),
        ]
        if not (contract.reducer or contract.source):
            options += [
                GroupedOption(
                    ["--resume"],
                    is_flag=True,
                    section=files,
                    help="Go on with an unfinished FILE.part: rows whose key stands there are skipped.",
                )
            ]
        if contract.passes_rows:
            options += [
                GroupedOption(
                    ["--shard"],
                    metavar="I/N",
                    section=rows,
                    help="Take only the records whose index modulo N is I (from 0). slurm reads a job array's "
                    "environment.",
                ),
                GroupedOption(
                    ["--group-by"],
                    metavar="FIELD,...",
                    section=rows,
                    help="With --shard: keep rows with the same value of FIELD in one shard.",
                ),
            ]
    if contract.writes:
        options.append(
            GroupedOption(
                ["--schema"],
                is_flag=True,
                allow_from_autoenv=False,
                is_eager=True,
                expose_value=False,
                callback=_print_schema,
                section=logs,
                help="Print the JSON Schema of the rows that are read and of the fields that are added.",
            )
        )
    else:
        options.append(
            GroupedOption(["--no-meta"], is_flag=True, section=files, hidden=True, help="Write no manifest.")
        )
    return [
        *options,
        GroupedOption(
            ["--config"],
            metavar="FILE",
            type=click.Path(),
            is_eager=True,
            expose_value=False,
            callback=_load_config,
            section=logs,
            help="Take settings from a TOML file (.toml): at its top level, or in a table named after the command.",
        ),
        GroupedOption(
            ["--show-config"],
            is_flag=True,
            allow_from_autoenv=False,
            section=logs,
            help="Print the settings in force and where each comes from, and exit.",
        ),
        GroupedOption(["-q", "--quiet"], is_flag=True, section=logs, help="Say only errors."),
        GroupedOption(["-v", "--verbose"], count=True, section=logs, help="Say more; twice: with tracebacks."),
        GroupedOption(
            ["--log"],
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            section=logs,
            help="Messages on stderr as text or as one JSON object a line.",
        ),
        GroupedOption(
            ["--json"],
            "version_json",
            is_flag=True,
            allow_from_autoenv=False,
            is_eager=True,
            expose_value=False,
            hidden=True,
            callback=_remember_json,
            help="With --version.",
        ),
        GroupedOption(
            ["--version"],
            is_flag=True,
            allow_from_autoenv=False,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            section=logs,
            help="Print the version and exit; with --json also those of packages, CUDA and devices.",
        ),
    ]


def _remember_json(_context: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and "--version" not in sys.argv:
        raise click.UsageError("--json goes with --version")


def _print_version(context: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    if "--json" in sys.argv:
        import json

        from toolroll.run.manifest import environment

        click.echo(json.dumps({"command": context.info_name, "toolroll": __version__, **environment()}))
    else:
        click.echo(f"{context.info_name} (toolroll) {__version__}")
    context.exit()


def _print_schema(context: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from toolroll.records import schema_text

    contract: Contract = context.command.contract  # type: ignore[attr-defined]
    click.echo(schema_text(contract.reads, dict(contract.adds)))
    context.exit()


def _load_config(context: click.Context, _param: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    import tomllib

    known = {setting_of(param): str(param.name) for param in context.command.get_params(context)}
    if path.lower().endswith(".json") and "model_config" in known:
        context.default_map = {"model_config": path}
        return
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise UsageError(error.strerror or str(error), place=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not TOML: {error}", place=path) from error
    shared = {name.replace("-", "_"): value for name, value in data.items() if not isinstance(value, dict)}
    table = data.get(str(context.info_name), {})
    if not isinstance(table, dict):
        raise UsageError(f"{context.info_name} is not a table", place=path)
    own = {name.replace("-", "_"): value for name, value in table.items()}
    for name in own:
        if name not in known:
            raise UsageError(f"[{context.info_name}] has no setting {name!r}", place=path)
    settings = {**{name: value for name, value in shared.items() if name in known}, **own}
    context.default_map = {known[name]: value for name, value in settings.items()}


def config_text(context: click.Context) -> str:
    """The settings as TOML that --config reads back, each with its source."""
    lines = [f"[{context.info_name}]"]
    sources = {
        ParameterSource.COMMANDLINE: "flag",
        ParameterSource.ENVIRONMENT: "environment",
        ParameterSource.DEFAULT_MAP: "config",
    }
    settings = {param.name: setting_of(param) for param in context.command.params if isinstance(param, click.Option)}
    for param, value in context.params.items():
        if param == "show_config" or param not in settings:
            continue
        name, source = settings[param], context.get_parameter_source(param)
        text = '""' if value is None else _toml(value)
        comment = sources.get(source, "default") if source else "default"
        lines.append(f"{'# ' if value is None else ''}{name} = {text}  # {comment}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    import json

    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
