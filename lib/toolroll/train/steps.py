"""A file with one row an update that fits the weights: what a killed run wrote of updates it did not save is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import write_atomically


class StepsFile:
    """Rows of updates 1 to now, kept in `path`; nothing happens when it is None.

    Opened by a trainer that has made `step` updates; `last` is the row of the last one, which may not be in it yet.
    """

    def __init__(self, path: Path | None, step: int, last: dict[str, Any] | None = None) -> None:
        self._file: Any = None
        if path is None:
            return
        try:
            kept = _rows(path, step) if path.exists() else []
            if last is not None and last["step"] not in {row["step"] for row in kept}:
                kept.append(last)
            write_atomically(path, b"".join(orjson.dumps(row) + b"\n" for row in kept))
            self._file = open(path, "ab")  # noqa: SIM115 - written to until the process ends
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(path)) from error

    def write(self, row: dict[str, Any]) -> None:
        """Add the row of an update."""
        if self._file is not None:
            self._file.write(orjson.dumps(row) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """End it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _rows(path: Path, step: int) -> list[dict[str, Any]]:
    kept = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = orjson.loads(line)
            if row["step"] <= step:
                kept.append(row)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number < len(lines):  # the last line may be cut off by a kill
                raise ToolrollError("not rows of updates", place=f"{path}:{number}") from error
    return kept
