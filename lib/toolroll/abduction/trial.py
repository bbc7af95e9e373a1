"""One hypothesis put to the test: run on the observations and on the sample space, and what came of it.

The outputs of all hypotheses about a problem are numbered, so that what is kept of a hypothesis is a row of integers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from toolroll.abduction.equality import CHECKS, json_equal, pair_input, python_check
from toolroll.abduction.execution import Executor, Outcome
from toolroll.abduction.problems import Pair
from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.abduction.lookup import Lookup
    from toolroll.abduction.matrix import Matrix

__all__ = ["Bench", "Outputs", "Status", "Trial", "check_python_equality"]

#: How a hypothesis did. The first two ran; `lookup` agrees with the observations, but is left out for looking them up.
Status = Literal["consistent", "inconsistent", "lookup", "parse_error", "timeout", "killed"]
NOT_RUN = {"syntax_error", "no_function", "many_functions", "failed"}
SHOWN = 200  #: characters of an output that are shown
SHORT = 64  #: bytes of an output that is kept as it is, rather than its digest


@dataclass(slots=True)
class Trial:
    """What is known of a hypothesis.

    failed: numbers of the observations it contradicts. passes: whether it gets all test pairs right; None without any.
    ids: [S] the number of its output for each input of the space, -1 where undefined; None if it did not run.
    timeouts: calls that were cut short.
    """

    status: Status
    why: str = ""
    failed: list[int] = field(default_factory=list)
    passes: bool | None = None
    ids: Matrix | None = None
    timeouts: int = 0
    lookups: list[Lookup] = field(default_factory=list)

    @property
    def ran(self) -> bool:
        """Whether it could be run, whatever came of it."""
        return self.status in ("consistent", "inconsistent", "lookup")

    def look_up(self, code: str, inputs: Sequence[Any], *, exclude: bool) -> None:
        """Find the observations that `code` looks up by their `inputs`; with `exclude` it is not consistent then."""
        from toolroll.abduction.lookup import lookups

        if not self.ran:
            return
        self.lookups = lookups(code, inputs)
        if self.lookups and exclude and self.status == "consistent":
            first = self.lookups[0]
            self.status = "lookup"
            self.why = f"line {first.line} looks up observation {first.observation} by {first.by}"


class Outputs:
    """Numbers for the outputs of a problem's hypotheses. Several threads may ask at once.

    shown: keep the texts, for people. blank: an output that counts as none.
    """

    def __init__(self, *, shown: bool = False, blank: bytes | None = None) -> None:
        self._numbers: dict[bytes, int] = {}
        self._texts: list[str] | None = [] if shown else None
        self._blank = blank
        self._lock = threading.Lock()

    def ids(self, texts: Sequence[bytes | None]) -> Matrix:
        """The numbers of these outputs, -1 for none."""
        import numpy as np

        with self._lock:
            numbers = [-1 if text is None or text == self._blank else self._number(text) for text in texts]
        return np.array(numbers, dtype=np.int32)

    def _number(self, text: bytes) -> int:
        key = text if len(text) <= SHORT else b"#" + blake2b(text, digest_size=16).digest()
        number = self._numbers.setdefault(key, len(self._numbers))
        if self._texts is not None and number == len(self._texts):
            self._texts.append(_cut(text))
        return number

    def text(self, number: int) -> str | None:
        """What output has a number, as JSON text, cut where it is long; None for -1."""
        return None if number < 0 or self._texts is None else self._texts[number]


@dataclass(frozen=True, slots=True)
class Bench:
    """What the hypotheses about one problem are put to.

    inputs: those of the observations, of the test pairs and of the sample space, in this order. authors: agreement is
    Python's equality, and a program that was stopped is undefined where it was not called.
    """

    observations: tuple[Pair, ...]
    test: tuple[Pair, ...]
    inputs: Sequence[bytes]
    outputs: Outputs
    authors: bool = False

    def test_of(self, executor: Executor, code: str) -> Trial:
        """Put a program to the test."""
        outcome = executor.run(code, self.inputs)
        if outcome.status in NOT_RUN or (self.authors and _never_called(outcome)):
            return Trial("parse_error", _reason(outcome))
        timeouts = sum(fault in ("timeout", "killed") for fault in outcome.faults.values())
        if outcome.status != "ok" and not self.authors:
            return Trial(_stopped(outcome), outcome.why or outcome.status, timeouts=timeouts)
        pairs = (*self.observations, *self.test)
        agrees = self._python(executor, code, pairs) if self.authors else _json(outcome, pairs)
        failed = [number for number in range(len(self.observations)) if not agrees[number]]
        return Trial(
            status="inconsistent" if failed else "consistent",
            why=_told(failed[0], self.observations[failed[0]], outcome) if failed else "",
            failed=failed,
            passes=all(agrees[len(self.observations) :]) if self.test else None,
            ids=self.outputs.ids(outcome.outputs[len(pairs) :]),
            timeouts=timeouts,
        )

    @staticmethod
    def _python(executor: Executor, code: str, pairs: Sequence[Pair]) -> list[bool]:
        verdicts = executor.run(python_check(code), [pair_input(*pair) for pair in pairs])
        return [verdict == b"true" for verdict in verdicts.outputs] or [False] * len(pairs)


def check_python_equality(executor: Executor) -> None:
    """See that an executor can compare Python values. Raises UsageError if it cannot."""
    for code, given, wanted, expected in CHECKS:
        (verdict,) = executor.run(python_check(code), [pair_input(given, wanted)]).outputs or [None]
        if verdict != (b"true" if expected else b"false"):
            raise UsageError(
                "this sandbox cannot compare Python values; seccomp and bwrap can", place="--compat authors"
            )


def _json(outcome: Outcome, pairs: Sequence[Pair]) -> list[bool]:
    return [json_equal(output, wanted) for output, (_, wanted) in zip(outcome.outputs, pairs, strict=False)]


def _never_called(outcome: Outcome) -> bool:
    """Whether a program was stopped before it was a function."""
    return outcome.status in ("timeout", "killed") and set(outcome.faults.values()) <= {"skipped"}


def _stopped(outcome: Outcome) -> Status:
    return "killed" if outcome.status == "killed" else "timeout"


def _reason(outcome: Outcome) -> str:
    what = outcome.status.replace("_", " ")
    return f"{what}: {outcome.why}" if outcome.why else what


def _told(number: int, pair: Pair, outcome: Outcome) -> str:
    """Why an observation is contradicted, in words."""
    output = outcome.outputs[number]
    if output is None:
        return f"observation {number}: no output ({outcome.faults.get(number, 'error')})"
    if json_equal(output, pair[1]):
        return f"observation {number}: gave {_cut(output)}, but as another value of Python"
    return f"observation {number}: gave {_cut(output)}, not {_cut(pair[1])}"


def _cut(text: bytes) -> str:
    said = text.decode(errors="replace")
    return said if len(said) <= SHOWN else said[: SHOWN - 3] + "..."
