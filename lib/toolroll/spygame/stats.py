"""Many games in numbers, each with the number of games, votes or clues behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolroll.spygame.rewards import NA, Vote, Winner, tally


@dataclass(slots=True)
class Sums:
    """What is counted of a group of games.

    >>> sums = Sums()
    >>> sums.add(4, 2, [(1, 2), (3, 2), (4, "N/A")])
    >>> {name: value for name, value in sums.report().items() if name in ("accuracy", "vote_accuracy", "na_share")}
    {'accuracy': 1.0, 'vote_accuracy': 0.6666666666666666, 'na_share': 0.3333333333333333}
    """

    games: int = 0
    spy: int = 0
    civilians: int = 0
    right: int = 0
    undecided: int = 0
    votes: int = 0
    named: int = 0
    na: int = 0
    invalid: int = 0
    clues: int = 0
    no_clue: int = 0

    def add(self, n_players: int, spy: int, votes: list[tuple[int | str, Vote]], *, undecided: Winner = "spy") -> None:
        """Count a game and its votes: (voter, vote). The spy's own vote counts for the outcome only."""
        counted = tally([vote for _, vote in votes], n_players)
        self.games += 1
        winner = counted.winner(spy, undecided)
        self.spy += winner == "spy"
        self.civilians += winner == "civilians"
        self.right += counted.accused == spy
        self.undecided += counted.accused is None
        of_others = [vote for voter, vote in votes if voter != spy]
        self.votes += len(of_others)
        self.named += sum(vote == spy for vote in of_others)
        self.na += sum(vote == NA for vote in of_others)
        self.invalid += tally(of_others, n_players).invalid

    def hear(self, clues: Iterable[str | None]) -> None:
        """Count the clues of a game; None and blank ones are none."""
        for clue in clues:
            self.clues += 1
            self.no_clue += says_nothing(clue)

    def report(self) -> dict[str, Any]:
        """The shares; None where they are of nothing."""

        def share(part: int, whole: int) -> float | None:
            return part / whole if whole else None

        return {
            "n_games": self.games,
            "spy_win_rate": share(self.spy, self.games),
            "civilian_win_rate": share(self.civilians, self.games),
            "accuracy": share(self.right, self.games),
            "n_undecided": self.undecided,
            "n_votes": self.votes,
            "vote_accuracy": share(self.named, self.votes),
            "na_share": share(self.na, self.votes),
            "invalid_share": share(self.invalid, self.votes),
            "n_clues": self.clues,
            "no_clue_share": share(self.no_clue, self.clues),
        }


def says_nothing(clue: str | None) -> bool:
    """Whether a clue is missing or empty."""
    return clue is None or not clue.strip()


def for_people(record: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A record as a row of a table: each share with what it is of in brackets."""

    def told(name: str, whole: str) -> str:
        return "-" if record[name] is None else f"{record[name]:.3f} (n={record[whole]})"

    return {
        **{name: record[name] for name in names},
        "spy wins": told("spy_win_rate", "n_games"),
        "civilians win": told("civilian_win_rate", "n_games"),
        "spy found": told("accuracy", "n_games"),
        "right votes": told("vote_accuracy", "n_votes"),
        "N/A": told("na_share", "n_votes"),
        "unreadable": told("invalid_share", "n_votes"),
        "no clue": told("no_clue_share", "n_clues"),
    }
