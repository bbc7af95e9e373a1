"""The roll of commands: which there are, what each does, and how to get one.

Read from a table beside this module, which `python -m toolroll.docs` makes from the declarations, so that nobody who
asks has to load them all.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from toolroll.errors import UsageError

_HERE = os.path.dirname(os.path.realpath(__file__))
TABLE = os.path.join(_HERE, "commands.tsv")
DATA = os.path.join(_HERE, "data")  #: what comes with the commands
#: The systems in the order of every list: those of papers, what several of them share, and toolroll itself.
SYSTEMS = (
    *("HiPRAG", "DUMP", "GEAR", "LayerCast", "Vision-Zero", "Judge-free", "YOPO", "CalibQuant", "PMP", "DL3DV"),
    *("Training", "toolroll"),
)
OWN = "toolroll"  #: the command that runs the others; those that begin with it and a hyphen go by the rest alone


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its name, the system it belongs to, where its function is, what it does in a line."""

    name: str
    system: str
    place: str
    summary: str

    @property
    def short(self) -> str:
        """What `toolroll` is told to run it."""
        return self.name.removeprefix(f"{OWN}-")

    def load(self) -> Any:
        """The command itself."""
        module, _, function = self.place.partition(":")
        return getattr(import_module(module), function)


def entries() -> list[Entry]:
    """All commands, by system and name."""
    with open(TABLE, encoding="utf-8") as file:
        return [Entry(*line.rstrip("\n").split("\t")) for line in file]


def find(name: str) -> Entry:
    """The command of that name, which for `toolroll-doctor` may be `doctor`. UsageError where there is none."""
    known = [entry for entry in entries() if entry.name != OWN]
    for entry in known:
        if name in (entry.name, entry.short):
            return entry
    import difflib

    close = difflib.get_close_matches(name, [entry.short for entry in known], n=1)
    hint = f"; is it {close[0]}?" if close else f" ({OWN} lists them)"
    raise UsageError(f"no such command{hint}", place=name)


def manual(name: str) -> str | None:
    """The file of a command's manual page."""
    pages = (os.path.join(folder, name) for folder in (manual_folder(), os.path.join(manual_folder(), "man1")))
    return next((page for page in (f"{one}.1" for one in pages) if os.path.isfile(page)), None)


def manual_folder() -> str:
    """Where the manual pages are: in the source tree, or where an installation puts them."""
    tree = os.path.join(os.path.dirname(os.path.dirname(_HERE)), "man")
    return tree if os.path.isdir(tree) else os.path.join(sys.prefix, "share", "man")
