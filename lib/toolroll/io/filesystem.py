"""Small facts about files and errors that inputs and outputs share."""

from __future__ import annotations

import io
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from toolroll.errors import ToolrollError

_OPEN = re.compile(r"/dev/(?:stdout|stderr|fd/([0-9]{1,9}))|/proc/self/fd/([0-9]{1,9})")


def reason(error: Exception) -> str:
    """What went wrong with a file, in words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "cut short or damaged: " + (str(error) or type(error).__name__)


def identity_of(status: os.stat_result) -> tuple[int, int] | None:
    """Device and inode of a regular file, None for anything else."""
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a name stands for what is written into as it is: a device, a pipe, or a file that is open already.

    >>> is_special("/dev/null"), is_special("/dev/stdout"), is_special("new")
    (True, True, False)
    """
    if _open_already(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # not there, or no name of a file
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def opened(path: str | os.PathLike[str]) -> io.FileIO:
    """What is special, open for writing: behind what was written into it already, where it was open before."""
    number = _open_already(path)
    return io.FileIO(path if number is None else os.dup(number), "wb")


def _open_already(path: str | os.PathLike[str]) -> int | None:
    """The number of the open file that a name like /dev/stdout or /dev/fd/3 stands for."""
    found = _OPEN.fullmatch(os.fspath(path))
    if found is None:
        return None
    number = found[1] or found[2]
    return int(number) if number else 1 + found[0].endswith("err")


def read_text(path: Path) -> str:
    """A small file as text, without a byte order mark. ToolrollError where it cannot be read or is no text in UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    except UnicodeDecodeError as error:
        raise ToolrollError("not a text file", place=str(path)) from error
    if "\0" in text:
        raise ToolrollError("not a text file", place=str(path))
    return text


def put(path: Path, data: bytes, *, make_folder: bool = False) -> None:
    """Write a small file as `write_atomically` does; ToolrollError, with its name, where it cannot be."""
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old or the new one, never half; where it cannot be, leave nothing.

    Devices, pipes and open files such as /dev/stdout are written into.
    """
    if is_special(path):
        with io.BufferedWriter(opened(path)) as file:
            file.write(data)
        return
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
