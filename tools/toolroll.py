"""toolroll: run the commands of toolroll, and say which there are.

The roll: toolroll.roll.
"""

from __future__ import annotations

import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from toolroll import roll
from toolroll.cli import GroupedOption, Tool, command, declares
from toolroll.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = """
  Which commands there are, by system:
    toolroll
  What one does: its page on a terminal, its --help elsewhere:
    toolroll help step-parse
  Run it:
    echo '{"id": "q1", "response": "<answer>Paris</answer>"}' | toolroll step-parse
  What this machine can do, and what to install for the rest:
    toolroll doctor --table
  The data that comes with the commands:
    head -n 1 "$(toolroll --data-path)/hotpotqa/questions.jsonl"
"""

NOTES = """
toolroll COMMAND is COMMAND, in the same process: with its arguments, its messages, its exit codes and its place in a
pipe. Options of a command stand behind its name.
"""


class Roll(Tool):
    """The command that runs the others: what stands behind a command's name is that command's."""

    allow_interspersed_args = False  #: from the first word on, all is left as it is

    def inner(self, args: list[str]) -> tuple[Tool, list[str]]:
        """For completion: the command that `args` belong to, and its part of them."""
        if not args or args[0].startswith("-") or args[0] == "help":
            return self, args
        try:
            return roll.find(args[0]).load(), args[1:]
        except UsageError:
            return self, args


def _names(_context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    first = param.name == "name"
    items = [CompletionItem(entry.short, help=entry.summary) for entry in roll.entries() if entry.name != roll.OWN]
    own = [CompletionItem("help", help="show the page of a command")] if first else []
    return [item for item in (*items, *own) if item.value.startswith(incomplete)]


def _path_option(name: str, path: Callable[[], str], text: str) -> click.Option:
    def show(context: click.Context, _param: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            click.echo(path())
            context.exit()

    return GroupedOption(
        [name], is_flag=True, is_eager=True, expose_value=False, allow_from_autoenv=False, callback=show, help=text
    )


@command("toolroll", system="toolroll", kind=Roll, epilog="See toolroll-doctor(1), toolroll(7).")
@click.argument("name", metavar="[COMMAND]", required=False, shell_complete=_names, help="A command, help or doctor.")
@click.argument(
    "args",
    metavar="[ARG]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=_names,
    help="Arguments of that command.",
)
@declares(
    _path_option("--data-path", lambda: roll.DATA, "Print the folder of the data that comes with the commands."),
    _path_option("--man-path", roll.manual_folder, "Print the folder of the manual pages."),
)
def main(*, name: str | None, args: tuple[str, ...]) -> None:
    """Run the commands of toolroll, and say which there are.

    Without a COMMAND, it lists them. `toolroll help COMMAND` shows the page of one.
    """
    if name is None or (name == "help" and not args):
        _list()
    elif name == "help":
        _help(*args)
    else:
        _refuse_before(name)
        _become(roll.find(name).load(), list(args))


def _refuse_before(name: str) -> None:
    """UsageError for options in front of a command, which it would not hear of."""
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        if isinstance(param, click.Option) and source is ParameterSource.COMMANDLINE:
            raise UsageError(f"goes behind the command: {roll.OWN} {name} {param.opts[-1]}", place=param.opts[-1])


def _list() -> None:
    """All commands, by system, as --help lists options."""
    context = click.get_current_context()
    formatter = context.make_formatter()
    formatter.write("Small commands that exchange JSON lines on pipes, by system:\n")
    for system, members in groupby(roll.entries(), key=lambda entry: entry.system):
        rows = [(entry.short, entry.summary) for entry in members if entry.name != roll.OWN]
        if rows:
            with formatter.section(system):
                formatter.write_dl(rows)
    formatter.write("\n`toolroll help COMMAND` shows the page of one, `toolroll doctor --table` what runs here.\n")
    click.echo(formatter.getvalue(), nl=False)


def _help(name: str, *more: str) -> None:
    """The manual page of a command on a terminal; elsewhere, and where that cannot be shown, its --help."""
    if more:
        raise UsageError("one command at a time", place="help")
    tool = main if name == roll.OWN else roll.find(name).load()
    page = roll.manual(str(tool.name))
    if page is not None and os.isatty(1):
        import shutil
        import subprocess

        if shutil.which("man") is not None and subprocess.run(["man", page], check=False).returncode == 0:
            return
    _become(tool, ["--help"])


def _become(tool: Tool, args: list[str]) -> None:
    """Run a command to its end, in this process and as if it had been started itself."""
    sys.argv = [str(tool.name), *args]
    sys.exit(tool.run(args))
