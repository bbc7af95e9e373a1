"""What a command is given: its rows, one by one or many at a time, and what it can ask about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import orjson

from toolroll.io.rows import Row

V = TypeVar("V")


class Block(Generic[V]):
    """Rows that came together, all of them sound: some fields of their `views`, and the rows themselves."""

    __slots__ = ("_rows", "views")

    def __init__(self, views: list[Any], rows: Callable[[], Iterator[Row[V]]]) -> None:
        self.views = views
        self._rows = rows

    def rows(self) -> Iterator[Row[V]]:
        """One row for each view."""
        return self._rows()


class Rows(Generic[V]):
    """The rows a command reads: an iterator that also knows whether asking would wait."""

    def __init__(
        self,
        rows: Iterator[Row[V]],
        ready: Callable[[], bool],
        done: Callable[[tuple[bytes, ...]], bool],
        refuse: Callable[[Row[V]], None],
        cut: Callable[[], bool] = lambda: False,
        written: Callable[[Row[V]], bool] = lambda _: False,
        blocks: Callable[[Iterable[str]], Iterator[Block[V] | Row[V]]] | None = None,
        more_written: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows = rows
        self._blocks = blocks
        self._ready = ready
        self._done = done
        self._refuse = refuse
        self._cut = cut
        self._written = written
        self._more_written = more_written

    def __iter__(self) -> Iterator[Row[V]]:
        return self._rows

    def __next__(self) -> Row[V]:
        return next(self._rows)

    def blocks(self, *names: str) -> Iterator[Block[V] | Row[V]]:
        """The rows, many at a time where that is possible: for a command that gives none of them back.

        `names` are the fields of the view that a block's views have.
        """
        return self._rows if self._blocks is None else self._blocks(names)

    def ready(self) -> bool:
        """Whether the next row, or the end, can be had without waiting for another process."""
        return self._ready()

    @property
    def cut(self) -> bool:
        """Whether the rows end before their time, by a signal or a bad row: what is incomplete then stays so."""
        return self._cut()

    def done(self, *key: object) -> bool:
        """Whether an earlier run, now resumed, has written the row with this key already."""
        return self._done(tuple(orjson.dumps(part) for part in key))

    def written(self, row: Row[V]) -> bool:
        """Whether an earlier run, now resumed, has written the row made of this one already."""
        return self._written(row)

    def more_written(self) -> bool:
        """Whether an earlier run, now resumed, has written more than was asked about so far: rows that come later."""
        return self._more_written()

    def refuse(self, row: Row[V], why: str) -> None:
        """For a command that gives no row back: count and tell a row it cannot use. Raises under `stop`."""
        self._refuse(row.fail(why))
