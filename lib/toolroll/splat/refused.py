"""Rows of pictures and scenes that could not be made: counted, told one by one up to a limit, or the end of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolroll.errors import ToolrollError
from toolroll.run.log import Log
from toolroll.run.writing import SHOWN_ERRORS


@dataclass
class Refused:
    """What becomes of them under --on-error `mode`: stop, skip or keep."""

    log: Log
    mode: str
    most: int | None = None  #: --max-errors
    _told: int = field(default=0, init=False)

    def __call__(self, error: ToolrollError) -> bool:
        """Count and tell one; whether to leave it out. Under stop, or where it is one too many, it is raised."""
        self.log.counts.errors += 1
        if self.mode == "stop":
            raise error
        if self._told < SHOWN_ERRORS:
            self._told += 1
            more = "" if self._told < SHOWN_ERRORS else " (further bad rows are counted, not shown)"
            self.log.error(error.why + more, error.place)
        if self.most is not None and self.log.counts.errors > self.most:
            raise ToolrollError(f"more than {self.most} bad rows", place=error.place)
        return self.mode == "skip"
