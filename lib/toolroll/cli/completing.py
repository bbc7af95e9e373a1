"""What a shell offers behind the cursor: click's completion, with files of the right kind.

A shell's script (`toolroll.docs.completions`) calls the command with _COMMAND_COMPLETE set and gets a line for each
thing to offer: its kind, its value and what it is, with tabs between. A `plain` value stands for itself; for a `dir`
the shell offers folders, for a `file` folders and the files with one of the suffixes in the value, or all where it is
empty.

Which files an option takes is read from what its help says of them, as `files_of` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    _resolve_context,
    _resolve_incomplete,
    add_completion_class,
)

SHELLS = ("bash", "zsh", "fish")
_COMPRESSED = (".gz", ".zst")
_SUFFIX = re.compile(r"(?<![\w.])\.[a-z]\w+")
_WORD = re.compile(r"`([a-z]\w*)`")
_MODELS = frozenset(["embedded", "sprite", "glance", "outline", "lexicon", "rules"])  # that need no download


def register() -> None:
    """Have click complete in this way."""
    for shell, base in zip(SHELLS, (BashComplete, ZshComplete, FishComplete), strict=True):
        add_completion_class(type(f"{shell}_complete", (_Lines, base), {"name": shell}))


def files_of(param: click.Parameter) -> Iterator[CompletionItem]:
    """What a parameter that takes files, folders or names of models may be given.

    DIR in the metavar is a folder, FILE a file, a small word one of several values: `none|vild|FILE`. Suffixes in the
    metavar or the help are those of its files, and "JSON lines" are such, compressed or not. A NAME is the embedded
    model that is the default or named in the help, and a folder or a .gguf file where the help speaks of it.

    >>> [item.value for item in files_of(click.Option(["--plot"], metavar="FILE", help="Draw bars (.png, .svg)."))]
    ['.png .svg']
    >>> [item.value for item in files_of(click.Option(["--pool"], metavar="FILE", help="Rows, JSON lines."))]
    ['.jsonl .jsonl.gz .jsonl.zst']
    """
    metavar, text = param.metavar or "", getattr(param, "help", None) or ""
    for word in metavar.split("|") if "|" in metavar else ():
        if word.islower():
            yield CompletionItem(word)
    if metavar == "NAME":
        names = dict.fromkeys([str(param.default), *_WORD.findall(text)])
        yield from (CompletionItem(name) for name in names if name in _MODELS)
        if "hub id" in text or text.startswith("A folder"):
            yield CompletionItem(".gguf", type="file") if ".gguf" in text else CompletionItem("", type="dir")
    elif "DIR" in metavar and "FILE" not in metavar:
        yield CompletionItem("", type="dir")
    elif isinstance(param.type, click.Path) or "FILE" in metavar:
        yield CompletionItem(" ".join(_suffixes(metavar, text)), type="file")


def _suffixes(metavar: str, text: str) -> list[str]:
    found = _SUFFIX.findall(f"{metavar.replace('.', ' .').removesuffix(' . . .')} {text}")
    plain = [suffix for suffix in found if suffix not in _COMPRESSED]
    lines = [".jsonl", *(f".jsonl{suffix}" for suffix in _COMPRESSED)] if "JSON lines" in text else []
    return list(dict.fromkeys([*lines, *plain]))


class _Lines(ShellComplete):
    """How commands answer, whichever shell asks."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        return [arg for arg in args if arg != "="], incomplete  # bash has --option=value in three words

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        inner = getattr(self.cli, "inner", None)
        command, args = inner(args) if inner is not None else (self.cli, args)
        context = _resolve_context(command, {}, str(command.name), args)
        found, incomplete = _resolve_incomplete(context, args, incomplete)
        if isinstance(found, click.Parameter) and (files := _offered(found, incomplete)):
            return files
        return found.shell_complete(context, incomplete)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return "\t".join([item.type, str(item.value), " ".join((item.help or "").split())])


def _offered(param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    if isinstance(param.type, click.Choice):
        return []
    return [item for item in files_of(param) if item.type != "plain" or item.value.startswith(incomplete)]
