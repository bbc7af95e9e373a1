"""The turns of a game as rows of their own, each with what its reward is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from toolroll.io.rows import Row
from toolroll.spygame.game import Rules

OF_GAME = ("n_players", "rounds", "spy", "votes")  #: fields of the game that its turns have, too


def name_of(identity: Any, sample: int | None) -> str:
    """What names a game in the rows of its turns.

    >>> name_of("scenes-000000", 0)
    'scenes-000000#0'
    """
    return f"{identity}#{sample or 0}"


def turn_rows(game: Mapping[str, Any], turns: Sequence[Mapping[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """A row (`records.spygame.SpyTurnRow`) for each turn of a game's record, or for `turns`, which then are its own."""
    name = name_of(game.get("id"), game.get("sample"))
    shared = {"game_seed": game.get("seed"), "game_version": game.get("policy_version")}
    shared |= {field: game.get(field) for field in OF_GAME}
    for turn in game["turns"] if turns is None else turns:
        place = _place(turn["stage"], turn.get("round"), turn.get("player"), turn.get("vote_number"))
        yield {
            "id": f"{name}/{place}",
            "sample": game.get("sample") or 0,
            "prompt_id": f"{name}/{turn['stage']}",
            "game_id": name,
            **turn,
            **shared,
        }


def row_of(source: Row[Any], fields: dict[str, Any]) -> Row[Any]:
    """A row with these fields in the place of `source`, from which it was made."""
    return Row(orjson.dumps(fields), source.view, source.index)


def keys(identity: Any, sample: int, rules: Rules) -> list[str]:
    """The ids of the rows of all turns of a game.

    >>> keys("p", 0, Rules(n_players=2, rounds=1))
    ['p#0/clue.1.1', 'p#0/clue.1.2', 'p#0/vote.0']
    """
    name = name_of(identity, sample)
    clues = [
        _place("clue", number, player, None)
        for number in range(1, rules.rounds + 1)
        for player in range(1, rules.n_players + 1)
    ]
    votes = {"judge": rules.judge_votes, "civilians": rules.n_players - 1, "all": rules.n_players}[rules.voters]
    return [f"{name}/{place}" for place in (*clues, *(_place("decision", None, None, i) for i in range(votes)))]


def _place(stage: str, number: Any, player: Any, vote: Any) -> str:
    return f"clue.{number}.{player}" if stage == "clue" else f"vote.{vote}"
