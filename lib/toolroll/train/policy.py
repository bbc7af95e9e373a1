"""The policy directory, as a trainer writes it; `toolroll.models.policy` is how a rollout reads it.

    DIR/v000012/        the model after 12 updates, complete from the moment it has this name
    DIR/current         a symbolic link to the version in use, swapped by rename
    DIR/state/          what training goes on from; see `toolroll.train.checkpoint`
    DIR/state/lock      held by the one trainer at work

Everything is written under another name, synced and renamed, so that a kill or a full disk at any moment leaves the
version before in place.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, first_line

_VERSION = re.compile(r"v(\d{6,})")


def version_name(step: int) -> str:
    """The name of the version after `step` updates.

    >>> version_name(12)
    'v000012'
    """
    return f"v{step:06d}"


def version_number(name: str) -> int | None:
    """The updates a version has seen, None for a name that is no version's.

    >>> version_number("v000012"), version_number("final")
    (12, None)
    """
    match = _VERSION.fullmatch(name)
    return int(match[1]) if match else None


class PolicyDirectory:
    """A policy directory that this process alone may write, from `open` until `close`."""

    def __init__(self, path: Path, *, keep: int = 2) -> None:
        self.path = path
        self.state = path / "state"
        self.keep = keep
        self._lock: Any = None

    def open(self) -> PolicyDirectory:
        """Make the directory if need be, lock it, and remove what a killed trainer left half-made."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.state / "lock", "w")  # noqa: SIM115 - held while the trainer runs
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ToolrollError("another trainer is at work on it", place=str(self.path)) from error
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(self.path)) from error
        for part in self.path.glob(".*.part"):
            remove(part)
        return self

    def close(self) -> None:
        """Let another trainer in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def published(self) -> int | None:
        """The updates the current version has seen; None when nothing was published yet."""
        if not os.path.lexists(self.path / "current"):
            return None
        from toolroll.models.policy import current_policy

        version = current_policy(self.path)
        number = version_number(version.name)
        if number is None:
            raise ToolrollError(f"`current` is {version.name}, not a version like v000012", place=str(self.path))
        return number

    def publish(self, step: int, write: Callable[[Path], None], *, also_keep: tuple[int, ...] = ()) -> str:
        """Make what `write` writes into a folder the current version; its name. Old versions go, but `also_keep`."""
        name = version_name(step)
        install(self.path, name, write)
        point(self.path / "current", name)
        self._drop_old(step, also_keep)
        return name

    def _drop_old(self, current: int, also_keep: tuple[int, ...]) -> None:
        versions = sorted(
            (number for path in self.path.iterdir() if (number := version_number(path.name)) is not None), reverse=True
        )
        kept = {current, *also_keep, *[number for number in versions if number != current][: self.keep - 1]}
        for number in versions:
            if number not in kept:
                remove(self.path / version_name(number))


def install(parent: Path, name: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, sync it to disk, and give it its name within `parent`.

    A folder that has the name already is replaced. ToolrollError, with nothing changed, when the disk is full.
    """
    part = parent / f".{name}.part"
    try:
        remove(part)
        part.mkdir(mode=0o755)
        write(part)
        for file in part.rglob("*"):
            if file.is_file():
                file.chmod(0o644)
            _sync(file)
        _sync(part)
        remove(parent / name)
        part.rename(parent / name)
        _sync(parent)
    except Exception as error:
        with suppress(OSError):
            remove(part)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise ToolrollError(f"cannot be written: {_reason(error)}", place=str(parent / name)) from error
        raise


def point(link: Path, name: str) -> None:
    """Make `link` a symbolic link to `name` beside it, in one move."""
    part = link.with_name(f".{link.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.symlink_to(name)
        part.replace(link)
        _sync(link.parent)
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(link)) from error


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there. A folder first loses its name, so that none is ever half."""
    if path.is_dir() and not path.is_symlink():
        if not path.name.endswith(".part"):
            path = path.rename(path.with_name(f".{path.name}.old.part"))
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
