"""How far a program has come with its inputs, and when that is the end of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from toolroll.abduction.execution import Fault, Limits, Outcome, Status
from toolroll.abduction.sandbox.wire import Answer, Loaded, printable

HARD_CPU = 1.5  #: times the time limit that a process may compute in one call; its own timer cuts earlier
HARD_WALL = 6.0  #: the same on the clock
SLACK_S = 0.1


@dataclass(slots=True)
class Progress:
    """A program on `count` inputs.

    >>> progress = Progress(Limits(max_timeouts=1), count=3)
    >>> progress.take([Loaded("ok", ""), b"1", "timeout"])
    >>> progress.ended, progress.result().status, progress.result().outputs, progress.result().faults
    (True, 'timeout', [b'1', None, None], {1: 'timeout', 2: 'skipped'})
    """

    limits: Limits
    count: int
    outcome: Outcome = field(default_factory=lambda: Outcome("ok"))
    loaded: bool = False
    ended: bool = False
    losses: int = 0  #: zygotes that died while it ran
    suspect: int = 0  #: inputs to ask one by one (monty)
    deadline: float = field(init=False)
    _cuts: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.limits.total_s

    @property
    def done(self) -> int:
        """How many inputs have been answered, which is also the index of the one at hand."""
        return len(self.outcome.outputs)

    def take(self, said: Iterable[Loaded | Answer]) -> None:
        """What the program's process said."""
        outputs, faults, most = self.outcome.outputs, self.outcome.faults, self.limits.total_bytes
        for answer in said:
            if isinstance(answer, Loaded):
                self._load(answer)
            elif isinstance(answer, bytes):
                outputs.append(answer)
                self._bytes += len(answer)
                if self._bytes > most:
                    self.stop("killed", f"more than {most} bytes of outputs")
            else:
                faults[len(outputs)] = answer
                outputs.append(None)
                if answer in ("timeout", "killed"):
                    self._cut(answer)
            if self.ended or len(outputs) == self.count:
                self.ended = True
                return

    def _load(self, loaded: Loaded) -> None:
        self.loaded = True
        if loaded.status != "ok":
            self.stop(loaded.status, loaded.why)

    def _cut(self, kind: Fault) -> None:
        self._cuts += 1
        if self._cuts >= self.limits.max_timeouts:
            calls = "a call was" if self._cuts == 1 else f"{self._cuts} calls were"
            self.stop("killed" if kind == "killed" else "timeout", f"{calls} cut short")

    def interrupted(self, fault: Fault, why: str) -> None:
        """The process has ended or had to be: before it was loaded, or before it answered the input at hand."""
        if self.loaded:
            self.take([fault])
        else:
            self.stop("timeout" if fault == "timeout" else "killed", printable(why))

    def overdue(self) -> None:
        """The time for all inputs is over."""
        if self.loaded:
            self.take(["timeout"])
        self.stop("timeout", f"{self.limits.total_s:g} s for all inputs were not enough")

    def stop(self, status: Status, why: str) -> None:
        """Ask no more."""
        self.outcome.status, self.outcome.why, self.ended = status, why, True

    def result(self) -> Outcome:
        """What came of it; inputs that were not asked are "skipped"."""
        rest = range(self.done, self.count)
        self.outcome.outputs += [None] * len(rest)
        self.outcome.faults |= dict.fromkeys(rest, "skipped")
        return self.outcome


class Stall:
    """Whether a process has been too long without finishing a call: by its CPU time, or much later by the clock."""

    def __init__(self, limits: Limits, cpu: Callable[[], float | None]) -> None:
        self._most_cpu_s = HARD_CPU * limits.timeout_s + SLACK_S
        self._most_s = HARD_WALL * limits.timeout_s + SLACK_S
        self._cpu = cpu
        self._since: tuple[float | None, float] | None = None

    def moved(self) -> None:
        """It has finished something."""
        self._since = None

    def over(self) -> bool:
        """It has not; is that enough?"""
        cpu, now = self._cpu(), time.monotonic()
        if self._since is None:
            self._since = cpu, now
        before, when = self._since
        used = 0.0 if cpu is None or before is None else cpu - before
        return used > self._most_cpu_s or now - when > self._most_s
