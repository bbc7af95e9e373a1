"""What a row says about a trajectory, and the cases its steps make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from toolroll.checking.golden import golden_answers
from toolroll.errors import RowError
from toolroll.rag.dialects import DIALECTS
from toolroll.rag.judges.base import Case
from toolroll.rag.parse import parse

__all__ = ["Trajectory", "cases_of", "trajectory"]


class Trajectory(msgspec.Struct, gc=False):
    """What is known of a row. `made` are the fields that parsing it here gave it."""

    golds: Sequence[str]
    answer: str | None
    valid: bool
    steps: Sequence[Any]
    made: dict[str, Any]


class ParsedStep(msgspec.Struct, gc=False):
    """A step parsed here, under the names a row's steps have."""

    kind: str
    reasoning: str | None
    query: str | None
    conclusion: str | None
    verdict: str | None = None


def _golden(view: Any, *, parsed: bool) -> Sequence[str]:
    """The accepted answers of a row; RowError when there are none: no gold is no zero."""
    golds = golden_answers(view, parsed=parsed)
    if not golds:
        raise RowError("no accepted answers (golden_answers)")
    return golds


def trajectory(view: Any) -> Trajectory:
    """What a row says; what step-parse would have added and is missing is parsed here, under the strictness `paper`."""
    if view.format_valid is not None and view.steps is not None and view.answer is not msgspec.UNSET:
        if isinstance(view.answer, list):
            raise RowError("`answer` is a list in a parsed row: it should be what the model answered")
        return Trajectory(_golden(view, parsed=True), view.answer, view.format_valid, view.steps, {})
    if view.response is None:
        raise RowError("neither a `response` nor the `steps`, `answer` and `format_valid` that step-parse makes of it")
    golds = _golden(view, parsed=False)
    dialect = view.dialect or "hiprag"
    if dialect not in DIALECTS:
        raise RowError(f"unknown dialect {dialect!r}; known: {', '.join(DIALECTS)}")
    found = parse(view.response, dialect=dialect, truncated=view.finish == "token_limit")
    made = {
        "golden_answers": list(golds),
        **({"steps": found.steps} if view.steps is None else {}),
        "answer": found.answer,
        "format_valid": found.valid,
        "format_strictness": "paper",
        "format_problems": found.problems,
    }
    if view.steps is not None:  # steps of the row's own, perhaps with verdicts, are not replaced
        return Trajectory(golds, found.answer, found.valid, view.steps, made)
    steps = [ParsedStep(step["kind"], step["reasoning"], step["query"], step["conclusion"]) for step in found.steps]
    return Trajectory(golds, found.answer, found.valid, steps, made)


def cases_of(view: Any, known: Trajectory) -> Iterator[Case]:
    """A case for each step; a search's closed-book answer is that of the turn it was made in."""
    answer_of = _closed_book(view.turns or ())
    n_search = 0
    for i, step in enumerate(known.steps):
        query = (step.query or "").strip()
        searches = step.kind == "search"
        yield Case(
            role="over" if searches else "under",
            conclusion=step.conclusion or "",
            reasoning=step.reasoning or "",
            query=query,
            closed_book=answer_of(n_search, query) if searches else None,
            given=step.verdict,
            id=view.id if view.id is not None else "",
            sample=view.sample,
            step=i,
        )
        n_search += searches


def _closed_book(turns: Sequence[Any]) -> Callable[[int, str], str | None]:
    """A function from the number of a search step and its query to what the policy says to it closed-book.

    The k-th search step belongs to the k-th turn if both have the same query, else to a turn that has it.
    """
    said = {turn.query.strip(): turn.closed_book.text for turn in reversed(turns) if turn.closed_book is not None}

    def answer(number: int, query: str) -> str | None:
        if number < len(turns) and turns[number].query.strip() == query and turns[number].closed_book is not None:
            text: str = turns[number].closed_book.text
            return text
        return said.get(query)

    return answer
