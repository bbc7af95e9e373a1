"""One run of spy-game: pairs of images in, games or their turns out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolroll.errors import RowError, UsageError
from toolroll.io.rows import Row
from toolroll.models.base import Sampling
from toolroll.models.options import ModelOptions, PolicyOptions
from toolroll.models.policy import PolicyVersion, current_policy
from toolroll.run.blocks import in_blocks, to_do
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed
from toolroll.run.signals import StopFlag
from toolroll.spygame.game import Game, Rules
from toolroll.spygame.pictures import Pair, Pictures
from toolroll.spygame.play import Match, Seats, Side, game_fields, play
from toolroll.spygame.players import RULES, ModelPlayer, Player, RulePlayer, Sight
from toolroll.spygame.prompts import Templates
from toolroll.spygame.rewards import Winner
from toolroll.spygame.turns import keys, row_of, turn_rows


@dataclass(frozen=True, slots=True)
class Casting:
    """Who plays: the names of models by side, RULES, or None for the model of `model` or of the policy."""

    names: dict[Side, str | None]
    model: ModelOptions
    policy: PolicyOptions
    templates: Templates
    sampling: Sampling
    sight: Sight = "auto"
    system: str | None = None
    copy: float = 0.0

    def __post_init__(self) -> None:
        if self.policy.policy is not None and all(self.names.values()):
            raise UsageError("plays on no side: leave out --spy-model or --civ-model", place="--policy")

    def version(self) -> PolicyVersion | None:
        """The current version of the policy, if there is one."""
        return current_policy(self.policy.policy) if self.policy.policy is not None else None

    def seats(self, version: PolicyVersion | None, log: Log, before: Seats | None = None) -> Seats:
        """Open the players. A model that plays on both sides is opened once.

        Of the seats `before`, those of the policy are closed, and the others kept.
        """
        opened: dict[str | None, Player] = {}
        known = {self.names[side]: player for side, player in before.players.items()} if before is not None else {}
        for name, player in known.items():
            if name is None:
                player.close()
            else:
                opened[name] = player
        for name in self.names.values():
            if name not in opened:
                opened[name] = self._player(name, version, log)
        return Seats(
            {side: opened[name] for side, name in self.names.items()},
            {side: None if name or version is None else version.name for side, name in self.names.items()},
        )

    def _player(self, name: str | None, version: PolicyVersion | None, log: Log) -> Player:
        chosen = name if name is not None or version is None else str(version.path)
        if chosen == RULES or (chosen is None and self.model.model == RULES):
            return RulePlayer(copy=self.copy)
        engine = self.model.open_image_text(log.note, model=chosen)
        return ModelPlayer(engine, self.templates, self.sampling, sight=self.sight, system=self.system)


@dataclass(slots=True)
class Session:
    """Plays `samples` games with each pair, `at_once` of them side by side.

    The seed, the pair's id, its draw and the number of the sample determine each game's own seed.
    """

    rules: Rules
    pictures: Pictures
    casting: Casting
    samples: int
    seed: int
    at_once: int
    as_turns: bool
    undecided: Winner
    log: Log
    stop: StopFlag
    _left: int = 0
    _ended: int = 0

    def run(self, rows: Rows[Any], note: Callable[[dict[str, Any]], None]) -> Iterator[Row[Any]]:
        """A row for each game, or for each turn of each. `note` hears who plays."""
        version = self.casting.version()
        seats = self.casting.seats(version, self.log)
        note({side: getattr(player, "identity", player.name) for side, player in seats.players.items()})
        try:
            for block in in_blocks(self._matches(rows), lambda: self.at_once, lambda: self._left > 0 or rows.ready()):
                matches = to_do(block, lambda match: match.done, more=rows.more_written())
                if not matches:
                    continue
                if self.casting.policy.follow and (newest := self.casting.version()) != version:
                    version = newest
                    seats = self.casting.seats(version, self.log, seats)
                yield from self._played(matches, seats)
        finally:
            seats.close()

    def _played(self, matches: Sequence[Match], seats: Seats) -> Iterator[Row[Any]]:
        """Play games to their ends, whoever asks to stop meanwhile; the rows of those not written yet."""
        seats.begin()
        self._deal(matches)
        for match in matches:
            _check(match, seats)
        play(
            [match for match in matches if not match.why],
            seats,
            status=lambda what: self.log.status(f"{self._ended} games ended; {what}"),
        )
        for match in matches:
            self._ended += 1
            if not match.done:
                yield from self._told(match, seats)

    def _matches(self, rows: Rows[Any]) -> Iterator[Match]:
        """All games, those that stand in the output among them, in order."""
        for row in rows:
            for sample in range(self.samples):
                self._left = self.samples - sample - 1
                if self.stop:
                    return
                written = self._written(row, sample, rows)
                self.log.counts.skipped += written is None
                draw = () if row.view.draw is None else (row.view.draw,)
                game = Game(self.rules, record_seed(self.seed, row.view.id, sample, *draw))
                yield Match(row, sample, game, written=written or frozenset(), done=written is None)

    def _deal(self, matches: Sequence[Match]) -> None:
        """Give each game its pictures, or tell why it has none."""
        known: dict[int, Pair | str] = {}
        for match in matches:
            row = match.row
            if row.index not in known:
                known[row.index] = self._pair(row)
            found = known[row.index]
            if isinstance(found, str):
                match.why = found
            else:
                match.pair = found

    def _pair(self, row: Row[Any]) -> Pair | str:
        """The pictures of a row, or why there are none."""
        try:
            return self.pictures.pair(row.view, row.place)
        except RowError as error:
            return str(error)

    def _written(self, row: Row[Any], sample: int, rows: Rows[Any]) -> frozenset[str] | None:
        """The turns of a game that an earlier run, now resumed, has written; None where the whole game is done."""
        if rows.done(row.view.id, sample):
            return None
        if not self.as_turns:
            return frozenset()
        names = keys(row.view.id, sample, row.view.draw, self.rules)
        written = frozenset(name for name in names if rows.done(name, sample))
        return None if len(written) == len(names) else written

    def _told(self, match: Match, seats: Seats) -> Iterator[Row[Any]]:
        fields = game_fields(match, seats, spy_image=self.pictures.spy_image, undecided=self.undecided)
        row = match.row
        if match.why:
            yield row.fail(match.why, **fields)
        elif self.as_turns:
            for turn in turn_rows({"id": row.view.id, "draw": row.view.draw, **fields}):
                if turn["id"] not in match.written:
                    yield row_of(row, turn)
        else:
            yield row.add(**fields)


def _check(match: Match, seats: Seats) -> None:
    """Fail a game before it begins if a player cannot look at its picture."""
    if match.pair is None:
        return
    try:
        seats.players["spy"].look(match.pair.spy)
        seats.players["civilians"].look(match.pair.civilian)
    except RowError as error:
        match.why = str(error)
