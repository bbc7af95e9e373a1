"""The generated files of a source tree: what they should be, which are stale, writing them."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from toolroll.cli import Tool
from toolroll.docs.blocks import fill_pyproject, fill_readme, roll_table
from toolroll.docs.command_page import command_page
from toolroll.docs.completions import completion_files
from toolroll.docs.options_page import options_page
from toolroll.docs.records_page import records_page
from toolroll.docs.shared_page import shared_page
from toolroll.errors import ToolrollError

_OWNED = ("man", "completions/bash", "completions/zsh", "completions/fish")  #: folders with nothing else in them


def installed_tools(root: Path) -> list[Tool]:
    """The commands that pyproject.toml installs, in its order."""
    try:
        project = tomllib.loads(_text(root / "pyproject.toml"))["project"]
    except (OSError, KeyError, ValueError) as error:
        raise ToolrollError(f"cannot be read: {error}", place="pyproject.toml") from error
    return [_tool(name, entry) for name, entry in project.get("scripts", {}).items()]


def generated(root: Path, tools: Iterable[Tool]) -> dict[str, str]:
    """Path below `root` and text of every generated file, and of the files that have generated blocks."""
    tools = list(tools)
    files = {f"man/{tool.name}.1": command_page(tool) for tool in tools}
    files["man/toolroll.7"] = shared_page()
    files["man/toolroll-options.7"] = options_page(tools)
    files["man/toolroll-records.5"] = records_page()
    pages = list(files)
    for tool in tools:
        files.update(completion_files(tool))
    files["lib/toolroll/commands.tsv"] = roll_table(tools)
    if (root / "README.md").exists():
        files["README.md"] = fill_readme(_text(root / "README.md"), tools)
    if (root / "pyproject.toml").exists():
        files["pyproject.toml"] = fill_pyproject(_text(root / "pyproject.toml"), pages)
    return files


def stale(root: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) for every generated file that is not as it should be."""
    for name, text in files.items():
        path = root / name
        if not path.exists():
            yield name, "missing"
        elif path.read_bytes() != text.encode():
            yield name, "out of date"
    for name in _strangers(root, files):
        yield name, "belongs to no command"


def write(root: Path, files: Mapping[str, str]) -> list[str]:
    """Bring the tree up to date; the paths that were written or removed."""
    changed = [name for name, _ in stale(root, files)]
    for name in changed:
        path = root / name
        if name in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name].encode())
        else:
            path.unlink()
    return changed


def _strangers(root: Path, files: Mapping[str, str]) -> Iterator[str]:
    for folder in _OWNED:
        for path in sorted((root / folder).glob("*")):
            name = path.relative_to(root).as_posix()
            if name not in files:
                yield name


def _text(path: Path) -> str:
    return path.read_bytes().decode()


def _tool(name: str, entry: str) -> Tool:
    module, _, attribute = entry.partition(":")
    try:
        tool = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ToolrollError(f"{entry}: {error}", place=f"pyproject.toml: {name}") from error
    if not isinstance(tool, Tool) or tool.name != name:
        raise ToolrollError(f"{entry} is not the command of that name", place=f"pyproject.toml: {name}")
    return tool
