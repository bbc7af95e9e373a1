"""Which sequence has which row of the slots, and what a row without a sequence still remembers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from toolroll.models.base import Sampling
from toolroll.models.constraint import Constraint
from toolroll.models.sampling import StopWatch
from toolroll.models.slots import Slots


@dataclass(slots=True)
class Turn:
    """A completion under way: it begins at token `begin` of its line."""

    sampling: Sampling
    constraint: Constraint | None
    watch: StopWatch
    begin: int
    logprobs: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Line:
    """A sequence: all its token ids, of which the first `cached` have keys and values in `row`.

    `turn` is None while nobody asks for a continuation. `unread`: the last token was sampled and not yet read.
    """

    key: Hashable
    ids: list[int] = field(default_factory=list)
    row: int | None = None
    cached: int = 0
    turn: Turn | None = None
    unread: bool = False

    @property
    def pending(self) -> int:
        """Tokens to read before the next one can be drawn, at least 1 while a turn is under way."""
        return len(self.ids) - self.cached


class RowTable:
    """Gives lines their rows. A row whose line has left keeps its contents, as a prefix for others, until it is needed.

    At most `limit` rows. `clock` orders rows by their last use.
    """

    def __init__(self, slots: Slots, limit: int) -> None:
        self.slots = slots
        self.limit = limit
        self._owners: list[Line | None] = []
        self._memory: list[Sequence[int]] = []
        self._used: list[int] = []
        self._clock = count()

    def __len__(self) -> int:
        return len(self._owners)

    def place(self, line: Line) -> int | None:
        """Give `line` a row and return how many of its tokens the row holds already (read before, by any line).

        At least the last token is left to read. None when every row belongs to a line with a turn under way.
        """
        known, source = max((self._known(line, row), row) for row in range(len(self))) if len(self) else (0, 0)
        row = self._choose(source if known else None)
        if row is None:
            return None
        self.reserve(known)
        if known and row != source:
            self.slots.copy(source, row, known)
        evicted = self._owners[row]
        if evicted is not None:
            evicted.row, evicted.cached = None, 0
        self._owners[row], self._memory[row], self._used[row] = line, (), next(self._clock)
        line.row, line.cached = row, known
        return known

    def reserve(self, length: int) -> None:
        """Have room for `length` tokens in every row there is."""
        self.slots.reserve(len(self), length, most_rows=self.limit)

    def release(self, line: Line) -> None:
        """Take the row of `line` back and remember what it holds."""
        if line.row is not None:
            self._memory[line.row] = line.ids[: line.cached]
            self._owners[line.row] = None
            self._used[line.row] = next(self._clock)
            line.row, line.cached = None, 0

    def clear(self) -> None:
        """Take every row back, remember nothing and free the memory."""
        for line in self._owners:
            if line is not None:
                line.row, line.cached = None, 0
        self._owners, self._memory, self._used = [], [], []
        self.slots.clear()

    def compact(self, lines: list[Line]) -> None:
        """Sort `lines` by row; move some so that they fill the first rows but for an eighth (at least 1) of holes."""
        lines.sort(key=_row)
        taken = {_row(line) for line in lines}
        most = len(lines) + max(1, len(lines) // 8)
        while lines and _row(lines[-1]) >= most:
            hole = next(row for row in range(most) if row not in taken)
            taken.remove(_row(lines[-1]))
            taken.add(hole)
            self._exchange(_row(lines[-1]), hole)
            lines.sort(key=_row)

    def _known(self, line: Line, row: int) -> int:
        owner = self._owners[row]
        if owner is None:
            return common_prefix(line.ids, self._memory[row], len(line.ids) - 1)
        return common_prefix(line.ids, owner.ids, min(len(line.ids) - 1, owner.cached))

    def _choose(self, source: int | None) -> int | None:
        """A row to overwrite: the source itself when free, the free row unused longest, a new one, an idle line's."""
        if source is not None and self._owners[source] is None:
            return source
        free = [row for row, owner in enumerate(self._owners) if owner is None]
        if not free and len(self) < self.limit:
            self._owners.append(None)
            self._memory.append(())
            self._used.append(0)
            return len(self) - 1
        idle = [row for row, owner in enumerate(self._owners) if owner is not None and owner.turn is None]
        return min(free or idle, key=self._used.__getitem__, default=None)

    def _exchange(self, high: int, low: int) -> None:
        """Exchange two rows of which `high` belongs to a line."""
        upper, lower = self._owners[high], self._owners[low]
        held = lower.cached if lower is not None else len(self._memory[low])
        length = max(held, upper.cached if upper is not None else 0)
        if held:
            self.slots.swap(high, low, length)
        else:
            self.slots.copy(high, low, length)
        tables: tuple[list[Any], ...] = (self._owners, self._memory, self._used)
        for table in tables:
            table[high], table[low] = table[low], table[high]
        for row in (high, low):
            owner = self._owners[row]
            if owner is not None:
                owner.row = row


def common_prefix(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many leading ids, at most `most` of them, `one` and `other` share.

    >>> common_prefix([5, 6, 7, 8], [5, 6, 9], 4)
    2
    """
    low, high = 0, min(most, len(one), len(other))
    while low < high:  # the first `low` are equal; more than `high` are not
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _row(line: Line) -> int:
    assert line.row is not None
    return line.row
