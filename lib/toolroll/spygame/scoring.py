"""Games and turns to rewards and advantages: what spy-reward does."""

from __future__ import annotations

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
    clue_rewards,
    decision_advantages,
    decision_reward,
    tally,
)
from toolroll.spygame.turns import name_of, turn_rows
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
        found = self.value(seen)
        rewards = {"clue": found.clue, "decision": found.decision}
        for name in self.worth.also:
            rewards[name] = _legacy(name, seen, fields)
        added: dict[str, Any] = {"rewards": rewards}
        if found.clue_advantages is not None:
            added["advantages"] = {"clue": found.clue_advantages, "decision": found.decision_advantages}
            if found.baselines is not None:
                added["baselines"] = found.baselines
        return added

    def turn(self, seen: Any) -> dict[str, Any]:
        """What is added to the row of a turn."""
        if self.worth.also:
            raise RowError("--also is about rows of games, and this is one of a turn")
        return self._turn(self.value(seen), seen.stage, seen.player, seen.vote_number, seen.spy)

    def turns(self, seen: Any, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows of all turns of a game, with what is added to them."""
        found = self.value(seen)
        if not isinstance(fields.get("turns"), list):
            raise RowError("no `turns` in this game")
        for row in turn_rows(fields):
            yield {**row, **self._turn(found, row["stage"], row.get("player"), row.get("vote_number"), seen.spy)}

    def value(self, seen: Any) -> Valued:
        """The rewards of a game, from its row or from that of one of its turns. RowError where it is no such game."""
        votes = checked_votes(seen)
        worth = self.worth
        counted = tally([vote for _, vote, _ in votes], seen.n_players)
        clue = clue_rewards(counted.counts, seen.spy, beta=worth.beta, lam=worth.lam)
        decision = [
            decision_reward(vote, seen.spy, rule=worth.rule, format_ok=format_ok, of_spy=voter == seen.spy)
            for voter, vote, format_ok in votes
        ]
        if not worth.advantages:
            return Valued(clue, decision, None, None, None)
        of_votes = decision_advantages(decision, worth.spread, keep_lone=worth.keep_lone)
        if worth.clues == "raw":
            return Valued(clue, decision, clue, of_votes, None)
        players = [("spy" if i == seen.spy else "civilian", reward) for i, reward in enumerate(clue, 1)]
        of_clues = self.state.advantages(_name(seen), players)
        return Valued(clue, decision, of_clues, of_votes, dict(self.state.games[_name(seen)]))

    def _turn(self, found: Valued, stage: str, player: Any, number: Any, spy: int) -> dict[str, Any]:
        of_clue = stage == "clue"
        place = (player - 1 if player is not None else -1) if of_clue else (number if number is not None else -1)
        rewards = found.clue if of_clue else found.decision
        if not 0 <= place < len(rewards):
            raise RowError("`player` is none of the players" if of_clue else "`vote_number` is none of the votes")
        role = "spy" if player == spy else "judge" if player is None else "civilian"
        added: dict[str, Any] = {"role": role, "reward": rewards[place]}
        advantages = found.clue_advantages if of_clue else found.decision_advantages
        if advantages is not None:
            added |= {"advantage": advantages[place], "group_size": len(advantages)}
        return added


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


def _name(seen: Any) -> str:
    """What names a game for the baselines: with another seed, or by another policy, it is another game."""
    if seen.stage is None:
        return "\x1f".join(map(str, (name_of(seen.id, seen.sample), seen.seed, seen.policy_version)))
    return "\x1f".join(map(str, (seen.game_id, seen.game_seed, seen.game_version)))


def _legacy(name: str, seen: Any, fields: Callable[[], dict[str, Any]]) -> list[float]:
    """One of the rewards of `legacy`: of each vote, of each clue, or of each player."""
    votes = checked_votes(seen)
    if name == "clevr_decision_accuracy":
        return [legacy.decision_accuracy(vote, seen.spy, of_spy=voter == seen.spy) for voter, vote, _ in votes]
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
