"""SIGTERM and SIGUSR1 ask a run to stop: it finishes what is in hand, keeps it, and exits with 75.

A second signal stops at once. Schedulers send these some time before they kill a job, so a command
that answers them can be resumed later without losing work.
"""

from __future__ import annotations

import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

from toolroll.errors import Stopped

ASKING = (signal.SIGTERM, signal.SIGUSR1)


class Wake(BaseException):
    """Raised out of a blocking read when a signal asks to stop, so that waiting ends."""


class StopFlag:
    """Whether a signal asked this run to stop, and which."""

    def __init__(self) -> None:
        self.asked_by: str | None = None
        self._waiting = False

    def __bool__(self) -> bool:
        return self.asked_by is not None

    def clear(self) -> None:
        """Forget that a signal asked: for a server, being asked to stop is a good end."""
        self.asked_by = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A stretch in which a signal interrupts: around a blocking read, nowhere else."""
        self._waiting = True
        try:
            if self:
                raise Wake
            yield
        finally:
            self._waiting = False

    def handle(self, number: int, _frame: types.FrameType | None) -> None:
        """The signal handler."""
        if self:
            raise Stopped(f"stopped at once by a second {signal.Signals(number).name}")
        self.asked_by = signal.Signals(number).name
        if self._waiting:
            raise Wake

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Answer the signals while the block runs, then restore what was there before."""
        before = {number: signal.signal(number, self.handle) for number in ASKING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
