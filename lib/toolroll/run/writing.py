"""What becomes of a command's rows: written in their order, set aside, told as bad, or the end of the run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import orjson

from toolroll.errors import RowError, ToolrollError
from toolroll.io.decoding import key_reader
from toolroll.io.outputs import Sink
from toolroll.io.rows import BadRow, PassedRow, Row, finite, plain
from toolroll.run.contract import Contract, OutputClosed, Settings
from toolroll.run.log import Log

SHOWN_ERRORS = 20  #: bad rows told one by one; the rest are counted


class Writer:
    """The outputs of a run: its rows, and with --errors those that failed.

    Rows that the command does not see (bad ones that are kept, and those that failed earlier) keep their place among
    those it gives back: `given` is the index of the last row that the command got.
    """

    def __init__(self, contract: Contract, settings: Settings, log: Log) -> None:
        self.contract = contract
        self.settings = settings
        self.log = log
        self.keys = key_reader(contract.key)
        self.given = -1
        self._taken = -1  # index of the last row that the command gave back
        self._aside: deque[BadRow | PassedRow] = deque()
        self._table: list[dict[str, Any]] = []
        self._shown = 0
        self._errors: Sink | None = None
        self.sink = Sink(settings.output, each_row=settings.line_buffered or contract.slow)
        if settings.errors:
            try:
                self._errors = Sink(settings.errors, each_row=True, atomic=False)
            except ToolrollError:
                self.sink.abandon()
                raise

    @property
    def sinks(self) -> list[Sink]:
        """The output, and the file of errors where there is one."""
        return [self.sink, *([self._errors] if self._errors else [])]

    def take_up(self) -> None:
        """Before `start`: go on from the complete output of an earlier run."""
        with _told(self.sink):
            self.sink.take_up()

    def start(self) -> None:
        """Make ready to write, behind what an earlier run left where this one resumes it."""
        for sink in self.sinks:
            with _told(sink):
                sink.start(self.keys if self.settings.resume else None)

    def is_done(self, key: tuple[bytes, ...]) -> bool:
        """Whether an earlier run has written a row with this key; each such row is told once."""
        return _take_one(self.sink.kept, key)

    def take(self, item: Any) -> None:
        """Write one thing a command yielded: a row, a failed row, a new record as a dict, a piece of a document."""
        if self.contract.document:
            self._put(item.removesuffix("\n").encode(errors="replace"))
            self.log.counts.written = 1
            return
        if isinstance(item, Row):
            self._taken = item.index
            if item.dropped:
                return
            if self._aside:
                self._write_aside(item.index)
            try:
                line = item.encode()
            except RowError as error:
                item = item.bare().fail(error.why)
                line = item.encode()
            if item.error is not None:
                self.refuse_row(item)
                if self.settings.on_error != "keep":
                    return
        else:
            if not finite(item):
                raise ToolrollError("a result is not finite (NaN or Infinity)")
            if self.settings.table:
                self._table.append(item)
                self.log.counts.written += 1
                return
            try:
                line = orjson.dumps(item)
            except TypeError:  # for the name of a file that is not UTF-8
                line = orjson.dumps(plain(item))
        self._put(line)

    def hand_over(self, item: BadRow | PassedRow) -> None:
        """Write a row that the command does not see, now or when the rows before it are written."""
        if self._nothing_in_hand():
            self._put(item.encode())
        else:
            self._aside.append(item)

    def refuse(self, why: str, place: str, encode: Callable[[], bytes]) -> ToolrollError | None:
        """Count and tell a row that cannot be processed; an error to raise when it ends the run."""
        settings, counts = self.settings, self.log.counts
        counts.errors += 1
        if self._errors is not None:
            record = encode()
            if not _take_one(self._errors.kept, self.keys(record)):
                with _told(self._errors):
                    self._errors.write(record)
        if settings.on_error == "stop":
            return ToolrollError(why, place=place)
        if self._shown < SHOWN_ERRORS:
            self._shown += 1
            more = "" if self._shown < SHOWN_ERRORS else " (further bad rows are counted, not shown)"
            self.log.error(why + more, place)
        if settings.max_errors is not None and counts.errors > settings.max_errors:
            return ToolrollError(f"more than {settings.max_errors} bad rows", place=place)
        return None

    def refuse_row(self, row: Row[Any]) -> None:
        """Count and tell a row that failed. Raises where it ends the run."""
        assert row.error is not None
        failure = self.refuse(row.error["why"], row.error["where"], row.encode)
        if failure is not None:
            raise failure

    def before_wait(self) -> None:
        """Hand on all that can be: the run is about to wait for its input."""
        if self._nothing_in_hand():
            self._write_aside()
        self.flush()

    def flush(self) -> None:
        """Hand on what is buffered."""
        with _told(self.sink):
            self.sink.flush()

    def finish(self) -> None:
        """Write what waits for the end of the rows."""
        self._write_aside()
        if self._table:
            from toolroll.run.table import render

            with _told(self.sink):
                for line in render(self._table):
                    self.sink.write(line.encode())

    def commit(self) -> None:
        """The outputs are complete."""
        for sink in reversed(self.sinks):
            with _told(sink):
                sink.commit()

    def abandon(self) -> bool:
        """Close without completing; whether something stays for --resume."""
        if self._errors is not None:
            self._errors.abandon()
        return self.sink.abandon()

    def _put(self, line: bytes) -> None:
        try:
            self.sink.write(line)
        except OSError as error:
            raise _output_error(error, self.sink) from error
        self.log.counts.written += 1
        self.log.advance()

    def _nothing_in_hand(self) -> bool:
        """Whether the command has surely given back all it will make of the rows it got."""
        return self.given == self._taken and (self.given < 0 or not self.contract.expands)

    def _write_aside(self, before: int | None = None) -> None:
        while self._aside and (before is None or self._aside[0].index < before):
            self._put(self._aside.popleft().encode())


class _told:  # noqa: N801
    """Turns an OSError of an output into one that names it, and a broken pipe into OutputClosed."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise _output_error(error, self._sink) from error


def _output_error(error: OSError, sink: Sink) -> Exception:
    if isinstance(error, BrokenPipeError):
        return OutputClosed()
    return ToolrollError(error.strerror or str(error), place=sink.name)


def _take_one(counter: Counter[tuple[bytes, ...]], key: tuple[bytes, ...]) -> bool:
    if key not in counter:
        return False
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
    return True
