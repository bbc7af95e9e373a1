"""The run loop: from input lines through a command's generator to output lines.

It opens and closes files, checks records, keeps the order, counts, resumes, and decides what happens
to a row that cannot be processed; no command does any of that itself.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import orjson

from toolroll.errors import RowError, Stopped, ToolrollError
from toolroll.io.files import Reader, Sink, check_distinct
from toolroll.io.rows import (
    BadRow,
    PassedRow,
    Row,
    clean,
    finite,
    is_error_row,
    key_reader,
    read_error,
    row_decoder,
    unknown_field,
)
from toolroll.io.shard import Shard
from toolroll.run.log import Log
from toolroll.run.manifest import Manifest
from toolroll.run.signals import StopFlag

V = TypeVar("V")
SHOWN_ERRORS = 20  #: bad rows told one by one; the rest are counted


class OutputClosed(Exception):
    """Whoever read our output went away."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a command promises about its rows.

    `reads` is the view of an input row, `adds` the names of fields it adds. `key` names the fields
    that identify an output row. A `reducer` gives a result about all rows rather than rows. A command
    that is `slow` hands on each row as it is made. One that `expands` makes several rows of one.
    """

    reads: type | None
    adds: tuple[str, ...] = ()
    key: tuple[str, ...] = ("id", "sample")
    reducer: bool = False
    slow: bool = False
    expands: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run that every command has."""

    inputs: tuple[str, ...] = ()
    output: str | None = None
    errors: str | None = None
    resume: bool = False
    line_buffered: bool = False
    on_error: str = "stop"
    max_errors: int | None = None
    strict: bool = False
    shard: Shard | None = None
    group_by: tuple[str, ...] = ()
    table: bool = False


class Rows(Generic[V]):
    """The rows a command reads: an iterator that also knows whether asking would wait."""

    def __init__(
        self,
        rows: Iterator[Row[V]],
        ready: Callable[[], bool],
        done: Callable[[tuple[bytes, ...]], bool],
        refuse: Callable[[Row[V]], None],
    ) -> None:
        self._rows = rows
        self._ready = ready
        self._done = done
        self._refuse = refuse

    def __iter__(self) -> Iterator[Row[V]]:
        return self._rows

    def __next__(self) -> Row[V]:
        return next(self._rows)

    def ready(self) -> bool:
        """Whether the next row, or the end, can be had without waiting for another process."""
        return self._ready()

    def done(self, *key: object) -> bool:
        """Whether an earlier run, now resumed, has written the row with this key already."""
        return self._done(tuple(orjson.dumps(part) for part in key))

    def refuse(self, row: Row[V], why: str) -> None:
        """For a command that gives no row back: count and tell a row it cannot use. Raises under `stop`."""
        self._refuse(row.fail(why))


class Run:
    """One run of one command."""

    def __init__(
        self, contract: Contract, settings: Settings, *, log: Log, stop: StopFlag, manifest: Manifest | None
    ) -> None:
        self.contract = contract
        self.settings = settings
        self.log = log
        self.stop = stop
        self.manifest = manifest if settings.output not in (None, "-") else None
        self._index = 0
        self._aside: deque[BadRow | PassedRow] = deque()
        self._failure: ToolrollError | None = None
        self._table: list[dict[str, Any]] = []
        self._shown = 0
        self._keys = key_reader(contract.key)
        self._kept: Counter[tuple[bytes, ...]] = Counter()

    def execute(self, make: Callable[[Rows[Any]], Iterable[Any] | None]) -> None:
        """Run `make(rows)` to its end and complete the output. Raises what should end the process."""
        settings = self.settings
        each_row = settings.line_buffered or self.contract.slow
        self.reader = Reader(settings.inputs, stop=self.stop, before_wait=self._flush, hashed=self.manifest is not None)
        try:
            self.sink = Sink(settings.output, resume=self._keys if settings.resume else None, each_row=each_row)
            self.error_sink = Sink(settings.errors, each_row=True) if settings.errors else None
            self._kept = self.sink.kept
            self._loop(make)
        finally:
            self.reader.close()

    def _loop(self, make: Callable[[Rows[Any]], Iterable[Any] | None]) -> None:
        sinks = [self.sink, *([self.error_sink] if self.error_sink else [])]
        complete = False
        try:
            check_distinct(self.reader.files, sinks)
            if self.manifest is not None and self.sink.is_file:
                self.manifest.begin(str(self.settings.output), resume=self.settings.resume)
            rows = Rows(self._rows(), self.reader.ready, self._is_done, self._refuse_row)
            for item in make(rows) or ():
                self._take(item)
            self._finish()
            complete = True
        except BrokenPipeError as error:
            raise OutputClosed from error
        finally:
            for sink in () if complete else sinks:
                sink.abandon()

    def _finish(self) -> None:
        if self._failure is not None and self.contract.reducer:
            raise self._failure
        self._emit_aside(None)
        if self._table:
            from toolroll.run.table import render

            for line in render(self._table):
                self.sink.write(line.encode())
        if self._failure is not None:
            self._flush()
            raise self._failure
        if self.stop:
            self._flush()
            resumable = "; --resume continues it" if self.sink.is_file else ""
            raise Stopped(f"stopped by {self.stop.asked_by}{resumable}")
        self._commit()
        self.log.summary()

    def _commit(self) -> None:
        with _told(self.sink):
            self.sink.commit()
        if self.error_sink is not None:
            with _told(self.error_sink):
                self.error_sink.commit()
        if self.manifest is not None and self.sink.is_file:
            inputs = [{"name": file.name, "bytes": file.size, "blake2b": file.digest} for file in self.reader.files]
            shard = str(self.settings.shard) if self.settings.shard else None
            self.manifest.finish(
                str(self.settings.output), inputs=inputs, counts=self.log.counts.as_dict(), shard=shard
            )

    # --- reading

    def _rows(self) -> Iterator[Row[Any]]:
        assert self.contract.reads is not None
        decode: Callable[[bytes], tuple[Any, bool, bool]] = row_decoder(self.contract.reads, self.contract.adds)
        counts = self.log.counts
        whole = self.settings.shard is None and not self.settings.strict
        skipping = self.settings.resume and not self.contract.expands
        for name, number, line in self.reader.lines():
            line = line.strip()
            if not line:
                continue
            index = self._index
            self._index += 1
            if not whole and not self._is_ours(line, index):
                continue
            counts.read += 1
            try:
                view, is_error, known = decode(line)
                if self.settings.strict:
                    _refuse_unknown(line, f"{name}:{number}")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RowError) as error:
                if not self._set_aside(line, error, f"{name}:{number}", index):
                    return
                continue
            if is_error:
                self._pass_on(line, index)
            elif skipping and self._is_done(self._keys(line)):
                counts.skipped += 1
            else:
                yield Row(line, view, index, name, number, known)

    def _is_ours(self, line: bytes, index: int) -> bool:
        shard = self.settings.shard
        if shard is None:
            return True
        if not self.settings.group_by:
            return shard.takes(index)
        try:
            return shard.takes_group(key_reader(self.settings.group_by)(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return shard.takes_group((line,))

    def _set_aside(self, line: bytes, error: Exception, place: str, index: int) -> bool:
        """Deal with a line that is no such record; False ends the input."""
        if is_error_row(line):
            self._pass_on(line, index)
            return True
        if self._is_done(self._keys_or_none(line)):
            self.log.counts.skipped += 1
            return True
        bad = BadRow(line, error.why if isinstance(error, RowError) else read_error(line, error), place, index)
        failure = self._refuse(bad.why, place, bad.encode)
        if failure is not None:
            if self.contract.reducer:
                raise failure
            self._failure = failure
            return False
        if self.settings.on_error == "keep" and not self.contract.reducer:
            self._aside.append(bad)
        return True

    def _pass_on(self, line: bytes, index: int) -> None:
        self.log.counts.passed += 1
        if not self.contract.reducer and not (self.settings.resume and self._is_done(self._keys_or_none(line))):
            self._aside.append(PassedRow(line, index))

    def _keys_or_none(self, line: bytes) -> tuple[bytes, ...]:
        try:
            return self._keys(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ()

    def _is_done(self, key: tuple[bytes, ...]) -> bool:
        if self._kept[key] <= 0:
            return False
        self._kept[key] -= 1
        return True

    # --- writing

    def _take(self, item: Any) -> None:
        """Write one thing a command yielded: a row, a failed row, or a new record as a dict."""
        if isinstance(item, Row):
            if self._aside:
                self._emit_aside(item.index)
            try:
                line = item.encode()
            except RowError as error:
                item = item.fail(error.why)
                line = item.encode()
            if item.error is not None:
                self._refuse_row(item)
                if self.settings.on_error != "keep":
                    return
        else:
            if not finite(item):
                raise ToolrollError("a result is not finite (NaN or Infinity)")
            if self.settings.table:
                self._table.append(item)
                self.log.counts.written += 1
                return
            line = orjson.dumps(item)
        self._put(line)

    def _put(self, line: bytes) -> None:
        with _told(self.sink):
            self.sink.write(line)
        self.log.counts.written += 1
        self.log.advance()

    def _emit_aside(self, before: int | None) -> None:
        while self._aside and (before is None or self._aside[0].index < before):
            self._put(self._aside.popleft().encode())

    def _refuse(self, why: str, place: str, encode: Callable[[], bytes]) -> ToolrollError | None:
        """Count and tell a row that cannot be processed; an error to raise when it ends the run."""
        settings, counts = self.settings, self.log.counts
        counts.errors += 1
        if self.error_sink is not None:
            self.error_sink.write(encode())
        if settings.on_error == "stop":
            return ToolrollError(why, place=place)
        if self._shown < SHOWN_ERRORS:
            self._shown += 1
            more = "" if self._shown < SHOWN_ERRORS else " (further bad rows are counted, not shown)"
            self.log.error(why + more, place)
        if settings.max_errors is not None and counts.errors > settings.max_errors:
            return ToolrollError(f"more than {settings.max_errors} bad rows", place=place)
        return None

    def _refuse_row(self, row: Row[Any]) -> None:
        assert row.error is not None
        failure = self._refuse(row.error["why"], row.error["where"], row.encode)
        if failure is not None:
            raise failure

    def _flush(self) -> None:
        if hasattr(self, "sink"):
            with _told(self.sink):
                self.sink.flush()


class _told:  # noqa: N801
    """Turns an OSError of an output into one that names it; leaves a broken pipe as it is."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ToolrollError(error.strerror or str(error), place=self._sink.name) from error


def each(rows: Iterable[Row[V]], function: Callable[[Row[V]], Row[V]]) -> Iterator[Row[V]]:
    """`function` of every row; where it raises RowError, that row fails and the run goes on."""
    for row in rows:
        try:
            yield function(row)
        except RowError as error:
            yield row.fail(clean(error.why))


def _refuse_unknown(line: bytes, place: str) -> None:
    from toolroll.records import field_names

    complaint = unknown_field(line, field_names())
    if complaint is not None:
        raise RowError(complaint, place=place)


__all__ = ["Contract", "OutputClosed", "Rows", "Run", "Settings", "each"]
