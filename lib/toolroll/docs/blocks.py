"""Generated blocks inside files that people write: README.md and pyproject.toml."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

from toolroll.cli import Tool
from toolroll.docs.command_page import summary
from toolroll.errors import ToolrollError
from toolroll.roll import SYSTEMS

_README_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TOML_BLOCK = re.compile(r"(# generated: ([\w-]+)\n).*?(# end\b)", re.DOTALL)
_SHARE = {"bash": "bash-completion/completions", "zsh": "zsh/site-functions", "fish": "fish/vendor_completions.d"}


def fill_readme(text: str, tools: Iterable[Tool]) -> str:
    """README.md with its blocks written anew."""
    return _fill(text, _README_BLOCK, {"commands": commands_table(tools)}, "README.md")


def fill_pyproject(text: str, pages: Iterable[str]) -> str:
    """pyproject.toml with its blocks written anew; `pages` are the paths of the manual pages."""
    return _fill(text, _TOML_BLOCK, {"shared-data": shared_data(pages)}, "pyproject.toml")


def commands_table(tools: Iterable[Tool]) -> str:
    """The commands as a Markdown table, by system."""
    lines = ["| system | command | what it does |", "|---|---|---|"]
    for system, members in by_system(tools).items():
        for tool in members:
            shown = system if tool is members[0] else ""
            what = summary(tool).replace("|", r"\|")
            lines.append(f"| {shown} | `{tool.name}` | {what} |")
    return "\n".join(lines) + "\n"


def roll_table(tools: Iterable[Tool]) -> str:
    """What `toolroll.roll` reads: name, system, place and summary of each command, by system."""
    lines = []
    for system, members in by_system(tools).items():
        for tool in members:
            module = sys.modules[tool.function.__module__]
            attribute = next(name for name, value in vars(module).items() if value is tool)
            lines.append("\t".join([str(tool.name), system, f"{module.__name__}:{attribute}", summary(tool)]))
    return "\n".join(lines) + "\n"


def by_system(tools: Iterable[Tool]) -> dict[str, list[Tool]]:
    """The commands of each system, in the order in which they come; systems in that of `roll.SYSTEMS`."""
    systems: dict[str, list[Tool]] = {name: [] for name in SYSTEMS}
    for tool in tools:
        systems.setdefault(tool.system or "all", []).append(tool)
    return {name: members for name, members in systems.items() if members}


def shared_data(pages: Iterable[str]) -> str:
    """What a wheel installs below share/: folders of completions, and each page in the folder of its section."""
    lines = ["[tool.hatch.build.targets.wheel.shared-data]"]
    lines += [f'"completions/{shell}" = "share/{folder}"' for shell, folder in _SHARE.items()]
    for page in sorted(pages):
        lines.append(f'"{page}" = "share/man/man{page[-1]}/{page.removeprefix("man/")}"')
    return "\n".join(lines) + "\n"


def _fill(text: str, pattern: re.Pattern[str], blocks: Mapping[str, str], place: str) -> str:
    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in blocks:
            raise ToolrollError(f"no generated block is named {name}", place=place)
        return begin + blocks[name] + end

    return pattern.sub(block, text)
