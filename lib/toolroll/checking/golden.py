"""The accepted answers of a question, under whichever name a row has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Gold = str | int | float
Golds = Gold | Sequence[Gold]


def golden_answers(row: Any, *, parsed: bool = False) -> list[str] | None:
    """The accepted answers of a row, None when it has none.

    Names, the first that is there: `golden_answers`, `answers`, `reward_model.ground_truth`, which may hold a `target`
    (Search-R1, verl), and, in a row that step-parse has not seen, `answer`; in a `parsed` one, `answer` is the model's
    own. Numbers become text.
    """
    target = row.reward_model
    for name in ("ground_truth", "target"):
        target = target.get(name) if isinstance(target, dict) else target
    for value in (row.golden_answers, row.answers, target, None if parsed else row.answer):
        if (golds := texts(value)) is not None:
            return golds
    return None


def texts(value: Any) -> list[str] | None:
    """Accepted answers as texts; None where there are none, or something else than texts and numbers.

    >>> texts(7), texts(["a", 0.5]), texts(None), texts({"a": 1})
    (['7'], ['a', '0.5'], None, None)
    """
    many = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(one, Gold) and not isinstance(one, bool) for one in many):
        return [str(one) for one in many]
    return None
