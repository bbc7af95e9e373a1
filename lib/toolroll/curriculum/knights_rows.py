"""Knights and Knaves: a puzzle out of a row, in the forms that data sets have it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from toolroll.errors import RowError

_NUMBER = re.compile(r"\A\(?\d++[.)]\s*+")
_ROLES = {"knight": True, "knave": False}


class Known(NamedTuple):
    """Names, the role of each (true = knight), and the statements as text if they stand in the same place."""

    names: list[str]
    solution: list[bool]
    statements: str | None = None


def known_puzzle(row: Any) -> Known:
    """The puzzle of a row: its `names` and `solution`, or else what `reward_model.ground_truth` tells.

    RowError where neither is there, or where they do not fit together.
    """
    if row.names is not None and row.solution is not None:
        found = Known(row.names, row.solution)
    elif row.reward_model is not None:
        found = _ground_truth(row.reward_model)
    else:
        missing = "names" if row.names is None else "solution"
        raise RowError(f"no `{missing}`: a puzzle has `names` and `solution`, or `reward_model`")
    if not found.names or len(found.names) != len(found.solution):
        raise RowError(f"{len(found.names)} names, but a solution for {len(found.solution)}")
    return found


def _ground_truth(reward_model: Mapping[str, Any]) -> Known:
    """What verl's place for the truth says: an object, its JSON text, or the solution in words alone."""
    given = reward_model.get("ground_truth")
    truth = _truth_of_text(given) if isinstance(given, str) else given
    words = truth.get("solution_text_format") if isinstance(truth, dict) else None
    if not isinstance(truth, dict) or not isinstance(words, str):
        raise RowError("no solution in `reward_model.ground_truth`")
    statements = truth.get("statements")
    return Known(*_solution_of_words(words), statements if isinstance(statements, str) else None)


@lru_cache(maxsize=64)
def _truth_of_text(text: str) -> dict[str, Any]:
    import msgspec

    try:
        truth = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        truth = text
    return truth if isinstance(truth, dict) else {"solution_text_format": text}


@lru_cache(maxsize=64)
def _solution_of_words(words: str) -> tuple[list[str], list[bool]]:
    names, solution = [], []
    for line in filter(str.strip, words.splitlines()):
        name, _, called = line.strip().rpartition(" is a ")
        name, knight = _NUMBER.sub("", name).strip(), _ROLES.get(called.strip(" .,;").lower())
        if not name or knight is None:
            raise RowError(f"a line of the solution says of nobody what they are: {line.strip()[:60]!r}")
        names.append(name)
        solution.append(knight)
    return names, solution
