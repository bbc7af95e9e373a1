"""Completion scripts for bash, zsh and fish: click's own, one file a command, under the names the shells look for."""

from __future__ import annotations

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from toolroll.cli import Tool

_SHELLS: tuple[tuple[type[ShellComplete], str], ...] = (
    (BashComplete, "completions/bash/{}.bash"),
    (ZshComplete, "completions/zsh/_{}"),
    (FishComplete, "completions/fish/{}.fish"),
)


def completion_files(tool: Tool) -> dict[str, str]:
    """Path in the source tree and text of each script of a command."""
    name = str(tool.name)
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    files: dict[str, str] = {}
    for shell, path in _SHELLS:
        script = shell(tool, {}, name, variable)
        # `source()` would run the bash of this machine to ask for its version.
        text = script.source_template % script.source_vars()
        files[path.format(name)] = text.rstrip("\n") + "\n"
    return files
