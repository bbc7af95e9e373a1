"""What a game is worth: votes counted, rewards of clues that add up to 0, rewards of votes.

Paper: arXiv:2509.25541, equations 1, 4 and 5; what is said of code is about the authors' release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from toolroll.train.advantage import grpo

NA = "N/A"  #: a vote for nobody
EPS = 1e-8  #: added to the standard deviation, and the least one that is divided by
Vote: TypeAlias = int | str | None  #: the number of a player, NA, or None where the answer could not be read
Rule = Literal["paper", "code"]
Spread = Literal["population", "sample", "none"]
Winner = Literal["spy", "civilians", "nobody"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes counted: `counts[i]` are those for player i + 1; `invalid` ones name no player, or nothing at all."""

    counts: tuple[int, ...]
    na: int
    invalid: int

    @property
    def accused(self) -> int | None:
        """The player with more votes than any other, None without votes and where the most votes are shared."""
        most = max(self.counts)
        return self.counts.index(most) + 1 if most and self.counts.count(most) == 1 else None

    def winner(self, spy: int, undecided: Winner = "spy") -> Winner:
        """The civilians where the spy is accused, the spy where another is, `undecided` where nobody is."""
        if self.accused is None:
            return undecided
        return "civilians" if self.accused == spy else "spy"


def tally(votes: Sequence[Vote], n_players: int) -> Tally:
    """Count the votes of a game of `n_players` players, 1 to n.

    >>> tally([2, 2, "N/A", 7], 4)
    Tally(counts=(0, 2, 0, 0), na=1, invalid=1)
    """
    counts = [0] * n_players
    na = invalid = 0
    for vote in votes:
        if isinstance(vote, int) and 1 <= vote <= n_players:
            counts[vote - 1] += 1
        elif vote == NA:
            na += 1
        else:
            invalid += 1
    return Tally(tuple(counts), na, invalid)


def clue_rewards(counts: Sequence[int], spy: int, *, beta: float = 0.1, lam: float = 0.1) -> list[float]:
    """Rewards of players 1 to n for their clues, from the votes `counts` that each got; they add up to 0.

    With v_s votes for the spy, v_j for civilian j of n_c, and v their mean:

        spy          -beta (v_s - v)
        civilian j    beta (v_s - v) / n_c - lam (v_j - v)

    Equation 1. beta, lam >= 0, in reward a vote.

    >>> [round(reward, 6) for reward in clue_rewards([1, 2, 0, 0], 2)]
    [-0.011111, -0.166667, 0.088889, 0.088889]
    """
    civilians = len(counts) - 1
    votes = counts[spy - 1]
    mean = (sum(counts) - votes) / civilians
    gap = votes - mean
    share = beta * gap / civilians
    rewards = [share - lam * (count - mean) + 0.0 for count in counts]  # + 0.0 turns -0.0 into 0.0
    rewards[spy - 1] = -beta * gap + 0.0
    return rewards


def as_cast(vote: Vote, n_players: int) -> Vote:
    """A vote as it counts: a number that is no player's cannot be read, either.

    >>> as_cast(4, 4), as_cast(7, 4), as_cast("N/A", 4)
    (4, None, 'N/A')
    """
    return None if isinstance(vote, int) and not 1 <= vote <= n_players else vote


def accuracy(vote: Vote, spy: int, *, of_spy: bool = False) -> float:
    """How good a vote is: 1 for the spy, -0.5 for nobody, -1 for another or unreadable. Equation 4.

    `vote` is one `as_cast`. `of_spy`: the spy's own vote, as the authors' older game has it: 0.5 for another player,
    0.2 for nobody, -1 for itself or unreadable.

    >>> accuracy(3, 3), accuracy("N/A", 3), accuracy(None, 3), accuracy(1, 3, of_spy=True)
    (1.0, -0.5, -1.0, 0.5)
    """
    if vote == NA:
        return 0.2 if of_spy else -0.5
    if of_spy:
        return 0.5 if isinstance(vote, int) and vote != spy else -1.0
    return 1.0 if vote == spy else -1.0


def decision_reward(
    vote: Vote, spy: int, *, rule: Rule = "paper", format_ok: bool = True, of_spy: bool = False
) -> float:
    """The reward of a vote.

    paper: its `accuracy`. code: 0.3 (2 f - 1) + 1.2 a + 0.99 [a > 0], with f = 1 where the format is right, else 0,
    and a the accuracy.

    >>> [round(decision_reward(vote, 3, rule="code"), 2) for vote in (3, "N/A", 1)]
    [2.49, -0.3, -0.9]
    """
    good = accuracy(vote, spy, of_spy=of_spy)
    if rule == "paper":
        return good
    return 0.3 * (2 * format_ok - 1) + 1.2 * good + 0.99 * (good > 0)


def decision_advantages(
    rewards: Sequence[float], spread: Spread = "population", *, keep_lone: bool = False
) -> list[float]:
    """Advantages of the votes of one game: (r - mean) / (sd + 1e-8), equation 5.

    `spread`: squares are divided by G (the code's trainer) or by G - 1 (a helper of it), or nothing is divided or
    subtracted. Where all are within 1e-8, they are only centred. A lone vote gets 0, or with `keep_lone` its reward,
    as in the code.

    >>> [round(a, 6) for a in decision_advantages([1, -0.5, -1, -1])]
    [1.677484, -0.152499, -0.762493, -0.762493]
    """
    if spread == "none" or (keep_lone and len(rewards) == 1):
        return list(rewards)
    return grpo(rewards, spread=spread, eps=EPS, least_spread=EPS)
