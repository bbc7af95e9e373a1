"""Parts of an HTML page that is whole in itself: its head, tables, and texts made fit to stand in it.

The page loads nothing, and its policy forbids it to. All that comes from rows goes through `safe`: it is escaped, and
characters that would act on the text around them (controls, marks of direction) are shown by their number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["cell", "head", "safe", "table"]

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'%(images)s">
<meta name="viewport" content="width=device-width">
<title>%(title)s</title>
<style>
:root { color-scheme: light dark; --line: #8885; --mark: #ffd54a; --soft: #777; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; }
.soft { color: var(--soft); }
%(style)s</style>
"""
_ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def head(title: str, style: str = "", *, images: bool = False) -> str:
    """The begin of a page; `style` is CSS besides what all pages have. `images`: whether it has some, as data: URLs."""
    return _HEAD % {"title": safe(title), "style": style, "images": "; img-src data:" if images else ""}


def safe(text: str) -> str:
    r"""Text as it may stand in the page, between tags and in a quoted attribute.

    >>> safe("a <b> \u202e\x00")
    'a &lt;b&gt; \\u202e\\u0000'
    """
    return escape(_ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows that all have the fields of the first; at least one."""
    names = "".join(f"<th>{safe(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(cell, row.values()))}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{names}</tr>\n{body}</table></div>\n'


def cell(value: Any) -> str:
    """One value in a table, `-` for null."""
    return f"<td>{'-' if value is None else safe(str(value))}</td>"
