"""toolroll-options(7): what the options mean that several commands have, and which commands these are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from toolroll.cli import Tool
from toolroll.cli.options import setting_of
from toolroll.docs.roff import Page, bold, inline

_TEXT = Path(__file__).with_name("toolroll-options.7.txt")
_ABOUT = """
An option means the same in every command that has it, so that it can be set for all of them at once, in the environment
or in a settings file; see toolroll(7). The few of which this is not so have a variable of their own in each command.
This page has those that more than one command has, with the commands, but for the ones that all have. How much a
command's own option leaves open, its choices and its default, is on its page.
"""


def long_name(option: click.Option) -> str:
    """The name of an option in full.

    >>> long_name(click.Option(["-n", "--max-rows"]))
    '--max-rows'
    """
    return "--" + setting_of(option).replace("_", "-")


def meanings() -> dict[str, str]:
    """What options mean of which commands say it in different words."""
    entries = _TEXT.read_text(encoding="utf-8").split("* ")[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition("\n") for entry in entries)}


def shared_options(tools: Iterable[Tool]) -> dict[str, list[tuple[str, click.Option]]]:
    """The options that more than one command has, by name: each command with its own."""
    found: dict[str, list[tuple[str, click.Option]]] = {}
    for tool in tools:
        for option in _own_options(tool):
            found.setdefault(long_name(option), []).append((str(tool.name), option))
    return {name: found[name] for name in sorted(found) if len(found[name]) > 1}


def options_page(tools: Iterable[Tool]) -> str:
    """The page."""
    page = Page("toolroll-options", 7, "what the options mean that several commands of toolroll have")
    page.heading("DESCRIPTION")
    page.prose(_ABOUT)
    page.heading("OPTIONS")
    said = meanings()
    for name, uses in shared_options(tools).items():
        text = said.get(name) or uses[0][1].help or ""
        commands = ", ".join(bold(command) for command, _ in uses)
        page.item(bold(name), f"{inline(text)} Of {commands}.")
    page.heading("SEE ALSO")
    page.text(inline("toolroll(7)"))
    return page.render()


def _own_options(tool: Tool) -> Iterator[click.Option]:
    for param in tool.params:
        if isinstance(param, click.Option) and param.name not in tool.standard and not param.hidden:
            yield param
