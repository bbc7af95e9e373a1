"""Games of who is the spy as one page to look at: a summary of all, then each with pictures, clues, votes, rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolroll.run.groups import Groups
from toolroll.run.page import head, safe, table
from toolroll.spygame.replay_game import STYLE, Album, Shown, page_of
from toolroll.spygame.rewards import Vote, Winner, tally
from toolroll.spygame.scoring import votes_of_game
from toolroll.spygame.stats import Sums, for_people

SEATS = ("spy", "civilians")  #: the models of the summary, by side


@dataclass(slots=True)
class Replay:
    """Gathers games; the first `most` of them are shown, all are counted.

    `failed` counts those that came to no end, or are none.
    """

    album: Album
    most: int = 200
    games: int = 0
    failed: int = 0
    shown: list[Shown] = field(default_factory=list)
    sums: Groups[Sums] = field(default_factory=lambda: Groups(Sums))

    def add(self, seen: Any, place: str) -> None:
        """A game that was played, of which `seen` is the view, read at `place`. RowError where it is none."""
        votes = votes_of_game(seen)
        told: list[tuple[int | str, Vote]] = [(voter, vote) for voter, vote, _ in votes]
        counted = tally([vote for _, vote in told], seen.n_players)
        winner: Winner = counted.winner(seen.spy, seen.winner or "spy")
        sums = self.sums.of((seen.spy_model, seen.civ_model))
        sums.add(seen.n_players, seen.spy, told, undecided=winner)
        sums.hear(turn.clue for turn in seen.turns or () if turn.stage == "clue")
        self._show(Shown(self.games, seen, place, votes=told, counted=counted, winner=winner))

    def add_failed(self, seen: Any, why: str, place: str) -> None:
        """A game that came to no end, with what is known of it, which may be nothing (None)."""
        self.failed += 1
        self._show(Shown(self.games, seen, place, why=why))

    def _show(self, game: Shown) -> None:
        self.games += 1
        if len(self.shown) < self.most:
            self.shown.append(game)

    def page(self) -> Iterator[str]:
        """The page, in pieces of whole lines."""
        yield head("Who is the spy", STYLE, images=True) + self._summary()
        for game in self.shown:
            yield page_of(game, self.album)
        yield "</html>\n"

    def _summary(self) -> str:
        count = "1 game" if self.games == 1 else f"{self.games} games"
        parts = [f"<h1>Who is the spy: {count}</h1>\n"]
        groups = list(self.sums)
        if groups:
            named = any(name is not None for key, _ in groups for name in key)
            rows = [_row(key if named else (), sums.report(), sums.games) for key, sums in groups]
            parts.append(table(rows))
        if self.failed:
            some = "1 game" if self.failed == 1 else f"{self.failed} games"
            parts.append(f'<p class="failed">{some} failed; the table has the others.</p>\n')
        if self.games > len(self.shown):
            parts.append(f'<p class="soft">The first {len(self.shown)} are shown (--shown).</p>\n')
        if len(self.shown) > 1:
            links = "".join(
                f'<a class="{game.colour}" href="#game-{game.number}" title="{safe(game.title)}: '
                f'{safe(game.outcome)}">{game.number + 1}</a>\n'
                for game in self.shown
            )
            parts.append(
                f'<nav>\n{links}</nav>\n<p class="soft">Won by <b class="civilian">civilians</b> or '
                f'<b class="spy">spy</b>.</p>\n'
            )
        return "".join(parts)


def _row(key: Sequence[Any], report: dict[str, Any], games: int) -> dict[str, Any]:
    """A line of the summary: who played, how many games, and the shares with what each is of."""
    record = {**dict(zip(SEATS, key, strict=False)), **report}
    told = for_people(record, SEATS if key else ())
    return {**{name: told.pop(name) for name in SEATS if key}, "games": games, **told}
