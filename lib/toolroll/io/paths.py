"""Files that a command writes beside its rows, and files that its options name: none of them may be another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import identity_of, is_special, reason

Name = str | os.PathLike[str]


def same_file(one: Name, other: Name) -> bool:
    """Whether two names are one file, or would be if it were written.

    >>> same_file("a/../b", "./b"), same_file("a", "b")
    (True, False)
    """
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def check_apart(written: Iterable[Name | None], read: Iterable[Name | None]) -> None:
    """UsageError where a file that is to be written is one that is read, or written twice. "-" is stdin in `read`.

    None, and "-" in `written`, are no files.
    """
    outputs = [name for name in written if name is not None and os.fspath(name) != "-" and not is_special(name)]
    for number, name in enumerate(outputs):
        if any(same_file(name, other) for other in outputs[:number]):
            raise UsageError("two outputs cannot be the same file", place=str(name))
    for given in read:
        for name in outputs:
            if given is not None and (_is_stdin(name) if os.fspath(given) == "-" else same_file(name, given)):
                raise UsageError("input and output are the same file", place=str(name))


def check_writable(path: Path) -> None:
    """ToolrollError where a file cannot be written whole at `path`: told before the work, not behind it."""
    if is_special(path):
        return
    if path.is_dir():
        raise ToolrollError("Is a directory", place=str(path))
    part = path.with_name(path.name + ".part")
    try:
        was = part.exists()
        with open(part, "ab"):
            pass
        if not was:
            part.unlink()
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error


def _is_stdin(name: Name) -> bool:
    try:
        mine, other = identity_of(os.fstat(0)), identity_of(os.stat(name))
    except OSError:
        return False
    return mine is not None and mine == other
