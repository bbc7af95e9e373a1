"""The manual page of a command, from its click declaration."""

from __future__ import annotations

import inspect
import re
import sys

import click

from toolroll.cli import Tool
from toolroll.cli.options import section_of
from toolroll.cli.variables import variable_of
from toolroll.docs.fields import Field, description_of, fields_of, type_text
from toolroll.docs.records_page import add_field, meaning_of
from toolroll.docs.roff import Page, bold, escape, inline, italic

_REFERENCE = re.compile(r"\b([a-z][\w-]*)\(([157])\)")
_EXIT = """
* 0
  Done{tolerated}.

* 1
  Failed; the reason is on stderr.

* 2
  The command line or a setting is wrong.
"""
_EXIT_ROWS = """
* 75
  Stopped by SIGTERM or SIGUSR1 before the end of the input{resumable}.

* 130
  Stopped by Ctrl-C.

* 141
  Whoever read the output went away.
"""


def command_page(tool: Tool) -> str:
    """The page."""
    context = _context(tool)
    page = Page(str(tool.name), 1, summary(tool))
    page.heading("SYNOPSIS")
    pieces = " ".join(map(italic, tool.collect_usage_pieces(context)))
    page.text(f"{bold(str(tool.name))} {pieces}")
    page.heading("DESCRIPTION")
    first, _, rest = inspect.cleandoc(tool.help or "").partition("\n\n")
    page.prose(rest or first)
    module = sys.modules[tool.function.__module__]
    if safety := getattr(module, "SAFETY", ""):
        page.heading("SAFETY")
        page.prose(safety)
    _add_options(page, tool, context)
    if tool.examples:
        page.heading("EXAMPLES")
        page.prose(tool.examples)
    _add_fields(page, tool)
    if notes := getattr(module, "NOTES", ""):
        page.heading("NOTES")
        page.prose(notes)
    _add_exit_status(page, tool)
    _add_environment(page, tool, context)
    _add_see_also(page, tool)
    return page.render()


def summary(tool: Tool) -> str:
    """What a command does, in a line that begins small and has no full stop."""
    first = " ".join(inspect.cleandoc(tool.help or "").partition("\n\n")[0].split()).rstrip(".")
    return first[:1].lower() + first[1:] if first[1:2].islower() else first


def _context(tool: Tool) -> click.Context:
    """What click wants to know of a run before it describes an option."""
    return click.Context(tool, info_name=tool.name, show_default=True, help_option_names=["-h", "--help"])


def _add_options(page: Page, tool: Tool, context: click.Context) -> None:
    sections: dict[str, list[click.Parameter]] = {"Arguments": [], "Options": []}
    for param in tool.get_params(context):
        if not getattr(param, "hidden", False):
            sections.setdefault(section_of(param), []).append(param)
    page.heading("OPTIONS")
    for title, params in sections.items():
        if params:
            page.subheading(escape(title))
        for param in params:
            page.item(_tag(param, context), _help(param, context))


def _tag(param: click.Parameter, context: click.Context) -> str:
    metavar = param.make_metavar(context)
    if not isinstance(param, click.Option):
        return italic(metavar)
    names = ", ".join(map(bold, sorted(param.opts, key=lambda name: name.startswith("--"))))
    if param.secondary_opts:
        names += " / " + ", ".join(map(bold, param.secondary_opts))
    return names if param.is_flag or param.count else f"{names} {italic(metavar)}"


def _help(param: click.Parameter, context: click.Context) -> str:
    text = inline(getattr(param, "help", None) or "")
    if not isinstance(param, click.Option) or param.count:
        return text
    extra = param.get_help_extra(context)
    notes = [extra[name] for name in ("range", "required") if name in extra]
    if "default" in extra:
        notes.insert(0, f"default: {extra['default']}")
    return f"{text} [{escape('; '.join(notes))}]" if notes else text


def _add_fields(page: Page, tool: Tool) -> None:
    contract = tool.contract
    if not contract.writes or not (contract.reads or contract.adds):
        return
    page.heading("OUTPUT FIELDS" if contract.reads is None else "INPUT AND OUTPUT FIELDS")
    if contract.reads is not None:
        page.text("Of each row these fields are read and checked:")
        for field in fields_of(contract.reads):
            add_field(page, field)
    if contract.adds:
        added = "These fields are added; one that exists is replaced where it stands:"
        page.text(added if contract.passes_rows else "The rows it writes have these fields:")
        for name, kind in contract.adds.items():
            add_field(page, Field(name, type_text(kind), "", description_of(kind) or meaning_of(name)))
    page.text(_about_output(tool))


def _about_output(tool: Tool) -> str:
    contract = tool.contract
    if contract.document:
        return "The rows themselves are not passed on: the output is one document about all of them."
    if contract.reducer:
        return "The rows themselves are not passed on: the output is a result about all of them."
    words = []
    if contract.passes_rows:
        words.append("All other fields are passed on as they are.")
    elif contract.consumes:
        words.append("The rows themselves are not passed on.")
    if contract.expands:
        words.append("One row may become several.")
    if contract.sees_errors:
        words.append("Rows that failed before count where rows are counted.")
    if contract.slow:
        words.append("Each row is handed on as soon as it is made.")
    if not contract.source:
        names = " and ".join(f"`{name}`" for name in contract.key)
        verb = "together name" if contract.key[1:] else "names"
        words.append(f"For `--resume`, {names} {verb} a row of the output.")
    return inline(" ".join(words))


def _add_exit_status(page: Page, tool: Tool) -> None:
    page.heading("EXIT STATUS")
    reads = tool.contract.reads is not None
    tolerated = "; with `--on-error` skip or keep, also when there were bad rows" if reads else ""
    resumable = "" if tool.contract.reducer or tool.contract.source else "; with `-o`, `--resume` continues"
    text = _EXIT + _EXIT_ROWS if reads else _EXIT
    page.prose(text.format(tolerated=tolerated, resumable=resumable))


def _add_environment(page: Page, tool: Tool, context: click.Context) -> None:
    options = [param for param in tool.get_params(context) if isinstance(param, click.Option)]
    own = [param for param in options if param.name not in tool.standard and "--help" not in param.opts]
    page.heading("ENVIRONMENT")
    if own:
        names = ", ".join(f"`{variable_of(str(tool.name), param)}`" for param in own)
        page.text(inline(f"{names} {'set the options of these names' if own[1:] else 'sets the option of that name'}."))
    page.prose("The command line goes before the environment, and that before `--config`; see toolroll(7).")


def _add_see_also(page: Page, tool: Tool) -> None:
    found = {(section, name) for name, section in _REFERENCE.findall(f"{tool.epilog} toolroll(7)")}
    page.heading("SEE ALSO")
    page.text(inline(", ".join(f"{name}({section})" for section, name in sorted(found))))
