"""Verdicts that stand in a file, or in the rows themselves: people's labels, and runs that are repeated.

A recorded verdict is a JSON line `{"role", "conclusion", "other", "verdict", "why"}`, where `other` is the closed-book
answer (role over) or the text of the step (role under). It is found again by those three texts alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self, get_args

import orjson

from toolroll.errors import ToolrollError
from toolroll.rag.judges.base import ROLES, Case, Finding, Role, Verdict, text_key

__all__ = ["GivenJudge", "ReplayJudge", "VerdictFile"]


class GivenJudge:
    """Takes the verdicts the steps have already; a step without one is unknown."""

    name = identity = "given"
    roles: frozenset[Role] = frozenset(ROLES)
    recorded = True

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """The verdict of each case as it stands."""
        return [_given(case.given) for case in cases]

    def close(self) -> None:
        """Nothing to free."""


def _given(verdict: str | None) -> Finding:
    for known in get_args(Verdict):
        if verdict == known:
            return Finding(known, "as given in the row")
    return Finding("unknown", "the row has no verdict")


class ReplayJudge:
    """Verdicts recorded in the JSONL file `path`; of several lines for the same texts the last one counts."""

    name = "replay"
    roles: frozenset[Role] = frozenset(ROLES)
    recorded = True

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(path)) from error
        self.identity = f"replay/1 {blake2b(data, digest_size=16).hexdigest()}"
        lines = enumerate(data.splitlines(), start=1)
        self._findings = dict(_recorded(line, f"{path}:{number}") for number, line in lines if line.strip())

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """The recorded finding of each case; unknown where there is none."""
        nothing = Finding("unknown", "no verdict recorded for these texts")
        return [self._findings.get(text_key(case.role, case.conclusion, case.other), nothing) for case in cases]

    def close(self) -> None:
        """Nothing to free."""


def _recorded(line: bytes, place: str) -> tuple[str, Finding]:
    try:
        entry: dict[str, Any] = orjson.loads(line)
        role, conclusion, other, verdict = (entry[name] for name in ("role", "conclusion", "other", "verdict"))
        if role not in ROLES or not isinstance(conclusion, str) or not isinstance(other, str):
            raise TypeError
        if verdict not in ("ok", "unknown", role):
            raise ToolrollError(f"the verdict of role {role!r} is ok, {role} or unknown, not {verdict!r}", place=place)
        return text_key(role, conclusion, other), Finding(verdict, str(entry.get("why", "recorded")))
    except orjson.JSONDecodeError as error:
        raise ToolrollError(f"not JSON ({error})", place=place) from error
    except (KeyError, TypeError) as error:
        raise ToolrollError(
            'a recorded verdict has "role", "conclusion", "other" and "verdict"', place=place
        ) from error


class VerdictFile:
    """Appends verdicts to a JSONL file that `ReplayJudge` reads; what stands in it is kept."""

    def __init__(self, path: Path) -> None:
        self._place = str(path)
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=self._place) from error

    def write(self, judged: Iterable[tuple[Case, Finding, str]]) -> None:
        """Add a line for each case, its finding and the name of the judge that found it."""
        lines = [
            orjson.dumps(
                {
                    "role": case.role,
                    "conclusion": case.conclusion,
                    "other": case.other,
                    "verdict": finding.verdict,
                    "why": finding.why,
                    "judge": judge,
                    "raw": finding.raw,
                    "id": case.id,
                    "sample": case.sample,
                    "step": case.step,
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for case, finding, judge in judged
        ]
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=self._place) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
