"""The accepted answers of a question, under whichever name a row has them."""

from __future__ import annotations

from typing import Any


def golden_answers(row: Any, *, parsed: bool = False) -> list[str] | None:
    """The accepted answers of a row, None when it has none.

    Names, the first that is there: `golden_answers`, `answers`, `reward_model.ground_truth.target` (Search-R1, verl)
    and, in a row that step-parse has not seen, `answer`; in a `parsed` one, `answer` is the model's own.
    """
    target = row.reward_model
    for name in ("ground_truth", "target"):
        target = target.get(name) if isinstance(target, dict) else None
    for value in (row.golden_answers, row.answers, target, None if parsed else row.answer):
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(answer, str) for answer in value):
            return value
    return None
