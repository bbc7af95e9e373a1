"""Small facts about files and errors that inputs and outputs share."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def reason(error: Exception) -> str:
    """What went wrong with a file, in words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "cut short or damaged: " + (str(error) or type(error).__name__)


def identity_of(status: os.stat_result) -> tuple[int, int] | None:
    """Device and inode of a regular file, None for anything else."""
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old or the new one, never half."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
