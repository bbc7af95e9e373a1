"""How the probabilities came about: computed anew from the journal, and kept when that is cut down."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import orjson

from toolroll.curriculum.state import HISTORY, State
from toolroll.errors import ToolrollError
from toolroll.io.filesystem import put


def rows_of_history(directory: Path, frozen: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """A row of `records.ArmHistory` for each batch of feedback and each arm, in order."""
    known = 0
    for row in _kept(directory / HISTORY):
        known = row["state_seq"]
        yield row
    state = State(directory, use_snapshot=False)
    for entry in state.replay():
        if entry.seq is not None and entry.seq > known:
            yield from _rows(state, frozen)


def compact(state: State) -> None:
    """Keep what the journal says of the past as history, and cut it down to a line that says where it led to."""
    with state.writing():
        rows = b"".join(orjson.dumps(row) + b"\n" for row in rows_of_history(state.directory))
        put(state.directory / HISTORY, rows)
        state.compact()


def check_replay(state: State) -> None:
    """Raise ToolrollError unless the whole journal leads to the state as it is."""
    anew = State.open(state.directory, use_snapshot=False)
    state.refresh()
    anew.refresh()
    if anew.image("") != state.image(""):
        raise ToolrollError(
            "the snapshot is not what the journal leads to; remove snapshot.json", place=str(state.directory)
        )


def _rows(state: State, frozen: Collection[str]) -> Iterator[dict[str, Any]]:
    bandit = state.bandit
    probabilities, scores = bandit.probabilities(frozen), bandit.scores()
    for i, name in enumerate(bandit.arms):
        yield {
            "state_seq": state.seq,
            "step": state.step,
            "distribution": name,
            "p": probabilities[i],
            "ucb": scores[i],
            "mean_abs_advantage": bandit.means[i],
            "n": bandit.counts[i],
        }


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    try:
        with open(path, "rb") as file:
            for line in file:
                yield orjson.loads(line)
    except (OSError, orjson.JSONDecodeError) as error:
        raise ToolrollError(f"cannot be read: {error}", place=str(path)) from error
