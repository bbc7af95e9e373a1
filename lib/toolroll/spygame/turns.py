"""The turns of a game as rows of their own, each with what its reward is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.records import view
from toolroll.records.spygame import SpyTurn
from toolroll.spygame.game import Rules

OF_GAME = ("n_players", "rounds", "spy", "votes")  #: fields of the game that its turns have, too
_TURN = view(SpyTurn, "stage", "round", "player", "vote_number")
_LIKE_A_NUMBER = re.compile(r'"|-?(?:0|[1-9][0-9]*)\Z')


def name_of(identity: str | int, sample: int | None, draw: int | None = None) -> str:
    """What names a game in the rows of its turns. No two games have the same; a text that is a number has quotes.

    `draw`: a curriculum may draw one pair several times, and each is another game.

    >>> name_of("scenes-000000", 0), name_of(7, 1), name_of("7", 1), name_of("p", 1, draw=3)
    ('scenes-000000#0', '7#1', '"7"#1', 'p#1@3')
    """
    if isinstance(identity, str) and _LIKE_A_NUMBER.match(identity):
        identity = json.dumps(identity, ensure_ascii=False)
    return f"{identity}#{sample or 0}" + ("" if draw is None else f"@{draw}")


def checked_turns(game: Mapping[str, Any]) -> list[Any]:
    """The turns of a game's record: `stage`, `round`, `player` and `vote_number` of each. RowError for what is none."""
    if not isinstance(game.get("turns"), list):
        raise RowError("no `turns` in this game")
    try:
        return msgspec.convert(game["turns"], list[_TURN])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise RowError(f"`turns`: {str(error).replace('Object missing', 'missing')}") from error


def turn_rows(game: Mapping[str, Any], turns: Sequence[Mapping[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """A row (`records.spygame.SpyTurnRow`) for each turn of a game's record, or for `turns`, which then are its own."""
    name = name_of(game["id"], game.get("sample"), game.get("draw"))
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


def keys(identity: Any, sample: int, draw: int | None, rules: Rules) -> list[str]:
    """The ids of the rows of all turns of a game.

    >>> keys("p", 0, None, Rules(n_players=2, rounds=1))
    ['p#0/clue.1.1', 'p#0/clue.1.2', 'p#0/vote.0']
    """
    name = name_of(identity, sample, draw)
    clues = [
        _place("clue", number, player, None)
        for number in range(1, rules.rounds + 1)
        for player in range(1, rules.n_players + 1)
    ]
    votes = {"judge": rules.judge_votes, "civilians": rules.n_players - 1, "all": rules.n_players}[rules.voters]
    return [f"{name}/{place}" for place in (*clues, *(_place("decision", None, None, i) for i in range(votes)))]


def _place(stage: str, number: Any, player: Any, vote: Any) -> str:
    return f"clue.{number}.{player}" if stage == "clue" else f"vote.{vote}"
