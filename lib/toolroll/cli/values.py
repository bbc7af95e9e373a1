"""From the values of a command's options to the settings of a run, and to what of them shapes its rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli.options import setting_of
from toolroll.errors import UsageError
from toolroll.run.contract import Settings
from toolroll.run.log import Log

if TYPE_CHECKING:
    from toolroll.cli.tool import Tool

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


def settings_of(tool: Tool, values: dict[str, Any], log: Log) -> Settings:
    """What the common options of a run say. UsageError where they do not go together."""
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
    known["given"] = tuple(_files_given(tool.params, values))
    is_file = any(param.name == "state" and param.metavar == "FILE" for param in tool.params)
    known["state"] = os.fspath(files["--state"]) if is_file and files["--state"] else None  # folders have own locks
    known["group_by"] = tuple(filter(None, (values.get("group_by") or "").split(",")))
    for name in ("output", "errors"):
        known[name] = _with_shard(known.get(name), shard)
    if tool.contract.distributed and os.environ.get("RANK", "0") != "0":
        known |= {"inputs": (os.devnull,), "output": os.devnull, "errors": None, "resume": False}
        log.level = min(log.level, 0) - 1  # rank 0 speaks for all
    if known.get("resume") and known["output"] in (None, "-"):
        raise UsageError("needs an output file (-o)", place="--resume")
    if known["group_by"] and shard is None:
        raise UsageError("goes with --shard", place="--group-by")
    return Settings(**known)


def _files_given(params: Iterable[click.Parameter], values: dict[str, Any]) -> Iterator[str]:
    """The files that exist and that options and arguments name, to be read."""
    for param in params:
        if param.name in WRITTEN or param.name in KEPT or param.name == "files":
            continue
        value = values.get(str(param.name))
        for name in value if isinstance(value, tuple) else (value,):
            if isinstance(name, os.PathLike):
                yield os.fspath(name)
            elif isinstance(name, str) and NAMES_FILE.search(str(param.metavar)):
                yield from (name, name.partition("=")[2])  # --space DATASET=FILE


def shaping(context: click.Context) -> dict[str, Any]:
    """The settings that decide what comes out: a run that is resumed must have the same."""
    settings = {param.name: setting_of(param) for param in context.command.params}
    given = {settings.get(name, name): value for name, value in context.params.items()}
    return {name: value for name, value in given.items() if name not in EXECUTION}


def _with_shard(path: str | None, shard: Any) -> str | None:
    if path is None or "{shard}" not in path:
        return path
    if shard is None:
        raise UsageError("{shard} in a file name needs --shard", place=path)
    return path.replace("{shard}", str(shard.index))
