"""Games and turns to rewards and advantages: what spy-reward does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from toolroll.errors import RowError
from toolroll.spygame import legacy
from toolroll.spygame.rewards import (
    NA,
    Rule,
    Spread,
    Vote,
    as_cast,
    clue_rewards,
    decision_advantages,
    decision_reward,
    tally,
)
from toolroll.spygame.turns import checked_turns, name_of, turn_rows
from toolroll.train.advantage import RoleBaselines
from toolroll.train.grouping import RoleState

MOST_PLAYERS = 999


@dataclass(frozen=True, slots=True)
class Worth:
    """How things are valued. beta, lam: reward a vote. `advantages`: whether these are made, too.

    `clues`: the advantage of a clue is its reward less a running mean of its role's (rae), or the reward (raw).
    """

    rule: Rule = "paper"
    beta: float = 0.1
    lam: float = 0.1
    also: tuple[str, ...] = ()
    advantages: bool = False
    clues: Literal["rae", "raw"] = "rae"
    spread: Spread = "population"
    keep_lone: bool = False


class Valued(NamedTuple):
    """A game with its rewards: of players 1 to n for their clues, and of each vote."""

    clue: list[float]
    decision: list[float]
    clue_advantages: list[float] | None
    decision_advantages: list[float] | None
    baselines: dict[str, float] | None


class Scorer:
    """Values games. `state` holds the running means of roles, and knows games that were counted before."""

    def __init__(self, worth: Worth, state: RoleState) -> None:
        self.worth = worth
        self.state = state

    def game(self, seen: Any, fields: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is added to the row of a game, of which `seen` is the view and `fields` gives all."""
        legacy_ones = {
            name: _legacy(name, seen, fields) for name in self.worth.also
        }  # a game without them is not counted
        found = self.value(seen)
        added: dict[str, Any] = {"rewards": {"clue": found.clue, "decision": found.decision, **legacy_ones}}
        if found.clue_advantages is not None:
            added["advantages"] = {"clue": found.clue_advantages, "decision": found.decision_advantages}
            if found.baselines is not None:
                added["baselines"] = found.baselines
        return added

    def turn(self, seen: Any) -> dict[str, Any]:
        """What is added to the row of a turn."""
        if self.worth.also:
            raise RowError("--also is about rows of games, and this is one of a turn")
        votes = checked_votes(seen)
        place = _place(seen, seen.n_players, len(votes))
        return _worth(seen, place, self._value(seen, votes), seen.spy)

    def turns(self, seen: Any, fields: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of all turns of a game, with what is added to them. RowError where one of them is no turn of it."""
        votes = checked_votes(seen)
        if fields.get("id") is None:
            raise RowError("no `id`, which names the turns")
        turns = checked_turns(fields)
        places = [_place(turn, seen.n_players, len(votes)) for turn in turns]
        found = self._value(seen, votes)
        worth = (_worth(turn, place, found, seen.spy) for turn, place in zip(turns, places, strict=True))
        return [{**row, **added} for row, added in zip(turn_rows(fields), worth, strict=True)]

    def value(self, seen: Any) -> Valued:
        """The rewards of a game, from its row or from that of one of its turns. RowError where it is no such game."""
        return self._value(seen, checked_votes(seen))

    def _value(self, seen: Any, votes: list[tuple[int | str, Vote, bool]]) -> Valued:
        worth = self.worth
        counted = tally([vote for _, vote, _ in votes], seen.n_players)
        clue = clue_rewards(counted.counts, seen.spy, beta=worth.beta, lam=worth.lam)
        if not all(map(math.isfinite, clue)):
            raise RowError("with this --beta and --lambda, rewards are too large for a number")
        decision = [
            decision_reward(
                as_cast(vote, seen.n_players), seen.spy, rule=worth.rule, format_ok=format_ok, of_spy=voter == seen.spy
            )
            for voter, vote, format_ok in votes
        ]
        if not worth.advantages:
            return Valued(clue, decision, None, None, None)
        of_votes = decision_advantages(decision, worth.spread, keep_lone=worth.keep_lone)
        if worth.clues == "raw":
            return Valued(clue, decision, clue, of_votes, None)
        players = [("spy" if i == seen.spy else "civilian", reward) for i, reward in enumerate(clue, 1)]
        used = dict(self.state.baselines(self._name(seen), players))
        return Valued(clue, decision, RoleBaselines.given(players, used), of_votes, used)

    def _name(self, seen: Any) -> str | None:
        """What names a game for the baselines: with another seed, or by another policy, it is another game.

        None for a game without `id`, which is another one than any. RowError where that cannot be.
        """
        if seen.stage is not None:
            if seen.game_id is None:
                raise RowError("no `game_id`, by which the turns of a game count as one")
            return "\x1f".join(map(str, (seen.game_id, seen.game_seed, seen.game_version)))
        if seen.id is not None:
            return "\x1f".join(map(str, (name_of(seen.id, seen.sample, seen.draw), seen.seed, seen.policy_version)))
        if self.state.path is not None:
            raise RowError("no `id`, by which --state knows the games that it has counted")
        return None


def _place(turn: Any, players: int, votes: int) -> int:
    """The place of a turn among the rewards of clues or of votes."""
    if turn.stage == "clue":
        if turn.player is None or not 1 <= turn.player <= players:
            raise RowError("`player` is none of the players")
        return int(turn.player) - 1
    if turn.vote_number is None or not 0 <= turn.vote_number < votes:
        raise RowError("`vote_number` is none of the votes")
    return int(turn.vote_number)


def _worth(turn: Any, place: int, found: Valued, spy: int) -> dict[str, Any]:
    """What is added to the row of a turn."""
    rewards, advantages = (
        (found.clue, found.clue_advantages) if turn.stage == "clue" else (found.decision, found.decision_advantages)
    )
    role = "spy" if turn.player == spy else "judge" if turn.player is None else "civilian"
    added: dict[str, Any] = {"role": role, "reward": rewards[place]}
    if advantages is not None:
        added |= {"advantage": advantages[place], "group_size": len(advantages)}
    return added


def votes_of_game(seen: Any) -> list[tuple[int | str, Vote, bool]]:
    """The `checked_votes` of a row that is to be a game's. RowError for that of a turn, which has them, too."""
    if seen.stage is not None:
        raise RowError("a turn, not a game: play without --turns")
    return checked_votes(seen)


def checked_votes(seen: Any) -> list[tuple[int | str, Vote, bool]]:
    """The votes of a game's row: voter, vote, whether the answer was well-formed. RowError where they cannot be."""
    players, spy = seen.n_players, seen.spy
    if players is None or spy is None or seen.votes is None:
        missing = next(name for name in ("n_players", "spy", "votes") if getattr(seen, name) is None)
        raise RowError(f"no `{missing}`: not a game that was played to its end")
    if not 2 <= players <= MOST_PLAYERS:
        raise RowError(
            f"`n_players` is {players}: a game has a spy, one civilian or more, and up to {MOST_PLAYERS} in all"
        )
    if not 1 <= spy <= players:
        raise RowError(f"`spy` is {spy}, not one of the {players} players")
    votes = []
    voters = set()
    for vote in seen.votes:
        if vote.voter != "judge":
            if not 1 <= vote.voter <= players:
                raise RowError(f"`voter` is {vote.voter}, not one of the {players} players")
            if vote.voter in voters:
                raise RowError(f"player {vote.voter} votes twice")
            voters.add(vote.voter)
        votes.append((vote.voter, _vote(vote.vote), vote.format_ok))
    return votes


def _vote(vote: Any) -> Vote:
    if isinstance(vote, str):
        if vote.strip().upper() not in ("N/A", "NA"):
            raise RowError(f"`vote` is {vote!r}: it is a number, N/A or null")
        return NA
    return vote  # type: ignore[no-any-return]


def _legacy(name: str, seen: Any, fields: Callable[[], dict[str, Any]]) -> list[float]:
    """One of the rewards of `legacy`: of each vote, of each clue, or of each player."""
    votes = checked_votes(seen)
    if name == "clevr_decision_accuracy":
        return [
            legacy.decision_accuracy(as_cast(vote, seen.n_players), seen.spy, of_spy=voter == seen.spy)
            for voter, vote, _ in votes
        ]
    if name == "calculate_game_rewards":
        by_voter = {voter: vote for voter, vote, _ in votes}
        if set(by_voter) != set(range(1, seen.n_players + 1)):
            raise RowError("calculate_game_rewards wants a vote of every player (spy-game --voters all)")
        return legacy.game_rewards([by_voter[player] for player in range(1, seen.n_players + 1)], seen.spy)
    turns = fields().get("turns")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowError(f"no `turns`: {name} reads responses")
    if name == "clevr_decision_format":
        return [
            legacy.decision_format(str(turn.get("response", ""))) for turn in turns if turn.get("stage") == "decision"
        ]
    counts = tally([vote for _, vote, _ in votes], seen.n_players).counts
    return list(_clues(turns, counts if name == "clevr_clue_format_with_votes" else None, len(votes)))


def _clues(turns: Sequence[Mapping[str, Any]], counts: Sequence[int] | None, voters: int) -> Iterator[float]:
    earlier: list[str] = []
    for turn in turns:
        if turn.get("stage") != "clue":
            continue
        player = turn.get("player")
        if not isinstance(player, int):
            raise RowError("a clue without `player`")
        worth = partial(legacy.clue_format, str(turn.get("response", "")), earlier)
        if counts is None:
            yield worth()
        elif 1 <= player <= len(counts):
            yield worth(votes=counts[player - 1], voters=voters)
        else:
            raise RowError(f"`player` is {player}, not one of the {len(counts)} players")
        earlier.append(str(turn.get("clue") or ""))
