"""A game as a machine: it says what it wants to know from whom, and is told what they said.

Players 1 to n take turns in this order; after the last round of clues all votes are cast at once. What a player is
asked holds all it may know: the clues of all, and of its own turns what it thought. Nobody's thoughts reach another,
and voters, the spy's fellows as well as a judge, get clues alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from toolroll.run.seeds import record_seed
from toolroll.spygame.parse import Answer, Mode, answer, clue, vote
from toolroll.spygame.rewards import Vote

Voters = Literal["civilians", "judge", "all"]
Role = Literal["spy", "civilian", "judge"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a game is played: `n_players` with the spy, `rounds` of clues, who votes.

    `judge_votes`: samples of the judge's vote. `parse`: how answers are read.
    """

    n_players: int
    rounds: int = 2
    voters: Voters = "civilians"
    judge_votes: int = 8
    parse: Mode = "strict"


class Remark(NamedTuple):
    """What a player hears of an earlier turn; `clue` None where there was none. `thinking` only of its own turns."""

    round: int
    player: int
    clue: str | None
    thinking: str | None


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted: a clue in `round`, or a vote. `heard` is all that is known of earlier turns."""

    stage: Literal["clue", "decision"]
    role: Role
    player: int | None  #: None for a judge
    seed: int
    heard: tuple[Remark, ...]
    round: int | None = None
    sample: int = 0  #: number of a judge's vote


class Heard(NamedTuple):
    """What came of an `Ask`: the answer, and the clue or the vote in it."""

    ask: Ask
    answer: Answer
    clue: str | None = None
    vote: Vote = None


@dataclass(slots=True)
class Game:
    r"""One game; `seed` determines who is the spy and the seeds of all turns.

    >>> game = Game(Rules(n_players=2, rounds=1), seed=1)
    >>> while asks := game.asks():
    ...     game.tell([f"I think of this. \\boxed{{{ask.player}}}" for ask in asks])
    >>> [heard.clue for heard in game.heard], game.votes == [2 if game.spy == 1 else 1]
    (['1', '2', None], True)
    """

    rules: Rules
    seed: int
    spy: int = 0
    heard: list[Heard] = field(default_factory=list)
    _wanted: list[Ask] | None = None  # what is wanted now, where that was asked before
    _public: list[Remark] = field(default_factory=list)  # each clue as the others hear it
    _private: list[Remark] = field(default_factory=list)  # the same as its own player remembers it

    def __post_init__(self) -> None:
        self.spy = self.spy or 1 + record_seed(self.seed, "spy") % self.rules.n_players

    @property
    def votes(self) -> list[Vote]:
        """The votes, in the order of their voters."""
        return [heard.vote for heard in self.heard if heard.ask.stage == "decision"]

    def asks(self) -> list[Ask]:
        """What is wanted now: one clue, all votes, or nothing, at the end."""
        if self._wanted is None:
            self._wanted = self._next()
        return self._wanted

    def _next(self) -> list[Ask]:
        rules = self.rules
        said = len(self.heard)
        if said < rules.rounds * rules.n_players:
            number, player = divmod(said, rules.n_players)
            return [self._clue(number + 1, player + 1)]
        return self._votes() if said == rules.rounds * rules.n_players else []

    def tell(self, responses: Sequence[str]) -> None:
        """What was said to `asks`, in their order."""
        for ask, response in zip(self.asks(), responses, strict=True):
            found = answer(response, self.rules.parse)
            if ask.stage == "clue":
                said = clue(found, self.rules.parse)
                self.heard.append(Heard(ask, found, clue=said))
                place = (ask.round or 0, ask.player or 0, said)
                self._public.append(Remark(*place, None))
                self._private.append(Remark(*place, found.thinking))
            else:
                players = range(1, self.rules.n_players + 1)
                self.heard.append(Heard(ask, found, vote=vote(found, players, self.rules.parse)))
        self._wanted = None

    def _role(self, player: int) -> Role:
        return "spy" if player == self.spy else "civilian"

    def _clue(self, number: int, player: int) -> Ask:
        heard, own = list(self._public), slice(player - 1, None, self.rules.n_players)
        heard[own] = self._private[own]
        return Ask(
            "clue", self._role(player), player, record_seed(self.seed, "clue", number, player), tuple(heard), number
        )

    def _votes(self) -> list[Ask]:
        heard = tuple(self._public)
        if self.rules.voters == "judge":
            return [
                Ask("decision", "judge", None, record_seed(self.seed, "judge", number), heard, sample=number)
                for number in range(self.rules.judge_votes)
            ]
        return [
            Ask("decision", self._role(player), player, record_seed(self.seed, "vote", player), heard)
            for player in range(1, self.rules.n_players + 1)
            if self.rules.voters == "all" or player != self.spy
        ]
