"""Many games side by side: each turn of all of them is one batch for whoever plays it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toolroll.errors import RowError, Stopped
from toolroll.io.rows import Row
from toolroll.spygame.game import Ask, Game
from toolroll.spygame.pictures import Pair
from toolroll.spygame.players import Player, Said, Turn
from toolroll.spygame.rewards import Winner, tally

Side = Literal["spy", "civilians"]


@dataclass(slots=True)
class Match:
    """One game of a row: number `sample` of those that are played with its pair.

    `why` tells why it could not be played to its end. `turns` are the records of its turns so far, `written` the names
    of turns that are in the output already; `done` tells that all of it is.
    """

    row: Row[Any]
    sample: int
    game: Game
    pair: Pair | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""
    written: frozenset[str] = frozenset()
    done: bool = False

    @property
    def going_on(self) -> bool:
        """Whether a turn is to come."""
        return not self.why and bool(self.game.asks())


@dataclass(frozen=True, slots=True)
class Seats:
    """Who plays for each side; a judge belongs to the civilians. `versions` are those of a policy, by side."""

    players: Mapping[Side, Player]
    versions: Mapping[Side, str | None]

    def begin(self) -> None:
        """Games begin that do not depend on earlier ones."""
        for player in self.each():
            player.begin()

    def close(self) -> None:
        """Free the players."""
        for player in self.each():
            player.close()

    def each(self) -> list[Player]:
        """The players, one that sits on both sides once."""
        return list({id(player): player for player in self.players.values()}.values())


def play(
    matches: Sequence[Match],
    seats: Seats,
    *,
    status: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Play all to their ends, turn by turn. Stopped is raised between two turns when `stopped` says so.

    A player who fails ends its own game only.
    """
    number = 0
    while going_on := [match for match in matches if match.going_on]:
        if stopped():
            raise Stopped("stopped while games were played")
        number += 1
        status(f"turn {number} of {len(going_on)} games")
        _one_turn(going_on, seats)


def _one_turn(matches: Sequence[Match], seats: Seats) -> None:
    wanted = [(match, ask) for match in matches for ask in match.game.asks()]
    answers: dict[int, Said | Exception] = {}
    for player in seats.each():
        places = [i for i, (_, ask) in enumerate(wanted) if seats.players[_side(ask)] is player]
        if places:
            said = player.answer([_turn(*wanted[i]) for i in places])
            answers.update(zip(places, said, strict=True))
    first = 0
    for match in matches:
        asks = match.game.asks()
        told = [answers[first + i] for i in range(len(asks))]
        first += len(asks)
        _hear(match, asks, told, seats)


def _hear(match: Match, asks: Sequence[Ask], told: Sequence[Said | Exception], seats: Seats) -> None:
    texts = []
    for ask, said in zip(asks, told, strict=True):
        if isinstance(said, Said):
            texts.append(said.text)
            continue
        if not isinstance(said, RowError):
            raise said
        who = "the judge" if ask.player is None else f"player {ask.player}"
        where = "its vote" if ask.round is None else f"round {ask.round}"
        match.why = f"{who}, {where}: {said}"
        return
    match.game.tell(texts)
    heard = match.game.heard[-len(asks) :]
    for number, (ask, said, one) in enumerate(zip(asks, told, heard, strict=True)):
        assert isinstance(said, Said)
        match.turns.append(
            {
                "stage": ask.stage,
                **({"round": ask.round} if ask.stage == "clue" else {}),
                "player": ask.player,
                "role": ask.role,
                "model": seats.players[_side(ask)].name,
                "policy_version": seats.versions[_side(ask)],
                "seed": ask.seed,
                **said.fields,
                "thinking": one.answer.thinking,
                **({"clue": one.clue} if ask.stage == "clue" else {"vote": one.vote, "vote_number": number}),
            }
        )


def _turn(match: Match, ask: Ask) -> Turn:
    assert match.pair is not None
    picture = match.pair.spy if ask.role == "spy" else match.pair.civilian
    return Turn(ask, match.game.rules, picture, match.pair.domain, match.pair.kind)


def _side(ask: Ask) -> Side:
    return "spy" if ask.role == "spy" else "civilians"


def votes_of(game: Game) -> list[dict[str, Any]]:
    """The votes of a game, as records."""
    return [
        {
            "voter": "judge" if heard.ask.player is None else heard.ask.player,
            "vote": heard.vote,
            "format_ok": heard.answer.format_ok,
        }
        for heard in game.heard
        if heard.ask.stage == "decision"
    ]


def game_fields(match: Match, seats: Seats, *, spy_image: str, undecided: Winner) -> dict[str, Any]:
    """The fields of a game's record (`records.spygame.SpyGame`), as far as it was played."""
    game = match.game
    version = next((seats.versions[side] for side in ("spy", "civilians") if seats.versions[side] is not None), None)
    fields: dict[str, Any] = {
        "sample": match.sample,
        "prompt_id": match.row.view.id,
        "spy_image": spy_image,
        "n_players": game.rules.n_players,
        "rounds": game.rules.rounds,
        "voters": game.rules.voters,
        "spy": game.spy,
        "spy_model": seats.players["spy"].name,
        "civ_model": seats.players["civilians"].name,
        "policy_version": version,
        "seed": game.seed,
        "turns": match.turns,
    }
    if match.why:
        return fields
    counted = tally(game.votes, game.rules.n_players)
    return {
        **fields,
        "votes": votes_of(game),
        "tally": list(counted.counts),
        "n_na": counted.na,
        "n_invalid": counted.invalid,
        "accused": counted.accused,
        "winner": counted.winner(game.spy, undecided),
    }
