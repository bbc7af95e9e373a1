"""What the options do that answer at once, --version and --schema, and those that are about settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolroll import __version__
from toolroll.cli.options import setting_of
from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.run.contract import Contract


def remember_json(_context: click.Context, _param: click.Parameter, value: bool) -> None:
    """--json: it goes with --version alone."""
    if value and "--version" not in sys.argv:
        raise click.UsageError("--json goes with --version")


def print_version(context: click.Context, _param: click.Parameter, value: bool) -> None:
    """--version: print it, with --json what it runs on, and end."""
    if not value or context.resilient_parsing:
        return
    if "--json" in sys.argv:
        import json

        from toolroll.run.manifest import environment

        click.echo(json.dumps({"command": context.info_name, "toolroll": __version__, **environment()}))
    else:
        click.echo(f"{context.info_name} (toolroll) {__version__}")
    context.exit()


def print_schema(context: click.Context, _param: click.Parameter, value: bool) -> None:
    """--schema: print what a command reads and adds, and end."""
    if not value or context.resilient_parsing:
        return
    from toolroll.records import schema_text

    contract: Contract = context.command.contract  # type: ignore[attr-defined]
    click.echo(schema_text(contract.reads, dict(contract.adds)))
    context.exit()


def load_config(context: click.Context, _param: click.Parameter, path: str | None) -> None:
    """--config: take defaults from a file. UsageError where it cannot be read or has a setting that is none."""
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
