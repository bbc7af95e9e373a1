"""Getting what was written to a file to the disk: now, or soon and without waiting."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from toolroll.errors import ToolrollError


class Syncer:
    """Syncs a file after it was written to (`wrote`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_behind = False
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: Future[None] | None = None

    def wrote(self) -> None:
        """Something was written that is not yet on the disk."""
        self._is_behind = True

    def sync(self) -> None:
        """Return when all that was written is on the disk. Raises ToolrollError."""
        if self._under_way is not None:
            self._under_way.result()
        if self._is_behind:
            self._is_behind = False
            self._to_disk()

    def sync_soon(self) -> None:
        """See to it that what was written gets to the disk, without waiting. Raises what went wrong before."""
        before = self._under_way
        if before is not None and before.done():
            before.result()
        elif before is not None and not before.running():
            return  # one that is still to begin covers this too
        if self._is_behind:
            self._is_behind = False
            self._pool = self._pool or ThreadPoolExecutor(1)
            self._under_way = self._pool.submit(self._to_disk)

    def _to_disk(self) -> None:
        try:
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(self._path)) from error
