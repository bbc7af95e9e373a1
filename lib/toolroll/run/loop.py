"""The run loop: from input lines through a command's generator to output lines.

It opens and closes files, checks records, keeps the order, counts, resumes, and decides what happens
to a row that cannot be processed; no command does any of that itself.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import orjson

from toolroll.errors import RowError, Stopped, ToolrollError
from toolroll.io.inputs import Reader
from toolroll.io.outputs import Sink, check_distinct, held
from toolroll.io.rows import (
    BadRow,
    PassedRow,
    Row,
    Shape,
    block_decoder,
    finite,
    holds_floats,
    is_error_row,
    key_reader,
    plain,
    read_error,
    row_decoder,
    unknown_field,
)
from toolroll.run.contract import Contract, OutputClosed, Settings
from toolroll.run.log import Log
from toolroll.run.manifest import Manifest
from toolroll.run.signals import StopFlag

V = TypeVar("V")
SHOWN_ERRORS = 20  #: bad rows told one by one; the rest are counted


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
        if self.manifest is not None and settings.shard is not None:
            self.manifest.settings["shard"] = str(settings.shard)  # arrays of other sizes are other shares
        self._index = 0
        self._aside: deque[BadRow | PassedRow] = deque()
        self._failure: ToolrollError | None = None
        self._table: list[dict[str, Any]] = []
        self._shown = 0
        self._keys = key_reader(contract.key)
        self._given = self._taken = -1  # index of the last row the command got, and gave back
        self.error_sink: Sink | None = None

    def execute(self, make: Callable[[Rows[Any]], Iterable[Any] | None]) -> None:
        """Run `make(rows)` to its end and complete the output. Raises what should end the process."""
        paths = (self.settings.inputs or ("-",)) if self.contract.reads is not None else ()
        self.reader = Reader(
            paths,
            stop=self.stop,
            before_wait=self._before_wait,
            hashed=self.manifest is not None,
            opens=self.contract.opens,
        )
        complete = False
        try:
            self.sink = Sink(self.settings.output, each_row=self.settings.line_buffered or self.contract.slow)
            if self.settings.errors:
                self.error_sink = Sink(self.settings.errors, each_row=True, atomic=False)
            self._start()
            self._read_line = self._line_decoder()
            rows = Rows(
                self._rows(self.reader.lines()),
                self.reader.ready,
                self._is_done,
                self._refuse_row,
                self._is_cut,
                self._was_written,
                self._blocks,
                lambda: bool(self.sink.kept),
            )
            with held(self.settings.state):
                for item in make(rows) or ():
                    self._take(item)
            self._finish()
            complete = True
        except BrokenPipeError as error:  # of something else than our outputs, which raise OutputClosed
            raise ToolrollError(error.strerror or "broken pipe") from error
        finally:
            self.reader.close()
            if not complete:
                self._abandon()

    def _start(self) -> None:
        settings = self.settings
        sinks = [self.sink, *([self.error_sink] if self.error_sink else [])]
        check_distinct(self.reader.files, sinks, settings.kept, settings.given)
        if self.manifest is not None and self.sink.is_file:
            stateful = settings.state is not None or self.contract.consumes
            if settings.resume and self.sink.is_whole and self.manifest.is_of(str(settings.output), stateful=stateful):
                with _told(self.sink):
                    self.sink.take_up()
            self.manifest.begin(str(settings.output), resume=settings.resume and not self.sink.is_new)
        for sink in sinks:
            with _told(sink):
                sink.start(self._keys if settings.resume else None)

    def _abandon(self) -> None:
        if self.error_sink is not None:
            self.error_sink.abandon()
        if hasattr(self, "sink") and not self.sink.abandon() and self.manifest is not None and self.sink.is_file:
            self.manifest.forget(str(self.settings.output))

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
        if self.stop and not self.contract.reducer:
            self._flush()
            resumable = "; --resume continues it" if self.sink.is_file else ""
            raise Stopped(f"stopped by {self.stop.asked_by}{resumable}")
        self._commit()
        self.log.summary()

    def _commit(self) -> None:
        if self.error_sink is not None:
            with _told(self.error_sink):
                self.error_sink.commit()
        with _told(self.sink):
            self.sink.commit()
        if self.manifest is not None and self.sink.is_file:
            inputs = [{"name": file.name, "bytes": file.size, "blake2b": file.digest} for file in self.reader.files]
            shard = str(self.settings.shard) if self.settings.shard else None
            self.manifest.finish(
                str(self.settings.output), inputs=inputs, counts=self.log.counts.as_dict(), shard=shard
            )

    # --- reading

    def _line_decoder(self) -> Callable[[bytes], tuple[Any, bool, Shape]]:
        if self.contract.reads is None:
            return lambda line: (line, False, Shape())
        adds = self.contract.adds
        exact = frozenset(name for name, kind in adds.items() if not holds_floats(kind))
        return row_decoder(self.contract.reads, adds, exact)

    def _blocks(self, names: Iterable[str]) -> Iterator[Block[Any] | Row[Any]]:
        assert self.contract.reads is not None
        decode = block_decoder(self.contract.reads, names)
        settings, counts = self.settings, self.log.counts
        simple = settings.shard is None and not settings.strict and not settings.resume
        for name, first, lines in self.reader.blocks():
            views = decode(lines) if simple else None
            if views is None:
                yield from self._rows(self.reader.each(name, first, lines))
                if self._failure is not None:
                    return
                continue
            counts.read += len(views)
            start, self._index = self._index, self._index + len(views)
            yield Block(views, partial(self._rows_of_block, name, first, lines, start))
        self._end_of_rows()

    def _rows_of_block(self, name: str, first: int, lines: list[bytes], index: int) -> Iterator[Row[Any]]:
        for number, line in enumerate(map(bytes.strip, lines), first):
            if line:
                yield Row(line, self._read_line(line)[0], index, name, number)
                index += 1

    def _end_of_rows(self) -> None:
        if self.stop and self.contract.reducer:
            raise Stopped(f"stopped by {self.stop.asked_by}")

    def _rows(self, lines: Iterable[tuple[str, int, bytes]]) -> Iterator[Row[Any]]:
        decode = self._read_line
        counts = self.log.counts
        whole = self.settings.shard is None and not self.settings.strict
        skipping = self.settings.resume and self.contract.passes_rows and not self.contract.expands
        for name, number, line in lines:
            line = line.strip()
            if not line:
                continue
            index = self._index
            self._index += 1
            if not whole and not self._is_ours(line, index):
                continue
            counts.read += 1
            try:
                view, is_error, shape = decode(line)
                if self.settings.strict:
                    _refuse_unknown(line, f"{name}:{number}")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RowError) as error:
                refused = self._set_aside(line, error, f"{name}:{number}", index)
                if self._failure is not None:
                    return
                if refused is not None:
                    yield refused
                continue
            if is_error:
                if (passed := self._pass_on(line, f"{name}:{number}", index)) is not None:
                    yield passed
            elif skipping and self._is_done(self._named(line, f"{name}:{number}")):
                counts.skipped += 1
            else:
                self._given = index
                yield Row(line, view, index, name, number, shape)
        self._end_of_rows()

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

    def _was_written(self, row: Row[Any]) -> bool:
        known = self.settings.resume and self._is_done(self._keys(row.raw))
        self.log.counts.skipped += known
        return known

    def _is_cut(self) -> bool:
        return self._failure is not None or bool(self.stop)

    def _set_aside(self, line: bytes, error: Exception, place: str, index: int) -> Row[Any] | None:
        """Deal with a line that is no such record; a row where the command wants to see it."""
        if is_error_row(line):
            return self._pass_on(line, place, index)
        bad = BadRow(line, error.why if isinstance(error, RowError) else read_error(line, error), place, index)
        keeps = self.settings.on_error == "keep" and self.contract.passes_rows
        if keeps and self._is_done(self._keys(bad.encode())):
            self.log.counts.skipped += 1
            return None
        failure = self._refuse(bad.why, place, bad.encode)
        if failure is not None:
            if self.contract.reducer:
                raise failure
            self._failure = failure
            return None
        if self.contract.sees_errors:
            return self._failed(bad.encode(), place, index, dropped=not keeps)
        if keeps:
            self._hand_over(bad)
        return None

    def _pass_on(self, line: bytes, place: str, index: int) -> Row[Any] | None:
        self.log.counts.passed += 1
        wanted = self.contract.passes_rows and not (self.settings.resume and self._is_done(self._keys(line)))
        if self.contract.sees_errors:
            return self._failed(line, place, index, dropped=not wanted)
        if wanted:
            self._hand_over(PassedRow(line, index))
        return None

    def _failed(self, line: bytes, place: str, index: int, *, dropped: bool) -> Row[Any]:
        """A row that failed, for a command that sees those too."""
        self._given = index
        name, _, number = place.rpartition(":")
        row: Row[Any] = Row(line, None, index, name, int(number))
        row.failed = True
        row.dropped = dropped
        return row

    def _named(self, line: bytes, place: str) -> tuple[bytes, ...]:
        """The key of a row, which it must have for `--resume` to tell whether it is done."""
        key = self._keys(line)
        if not any(key):
            raise ToolrollError(f"no `{self.contract.key[0]}` to resume by", place=place)
        return key

    def _is_done(self, key: tuple[bytes, ...]) -> bool:
        return _take_one(self.sink.kept, key)

    # --- writing

    def _take(self, item: Any) -> None:
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
                self._emit_aside(item.index)
            try:
                line = item.encode()
            except RowError as error:
                item = item.bare().fail(error.why)
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
            try:
                line = orjson.dumps(item)
            except TypeError:  # for the name of a file that is not UTF-8
                line = orjson.dumps(plain(item))
        self._put(line)

    def _put(self, line: bytes) -> None:
        try:
            self.sink.write(line)
        except OSError as error:
            raise _output_error(error, self.sink) from error
        self.log.counts.written += 1
        self.log.advance()

    def _hand_over(self, item: BadRow | PassedRow) -> None:
        """Write a row that the command does not see, now or when the rows before it are written."""
        if self._nothing_in_hand():
            self._put(item.encode())
        else:
            self._aside.append(item)

    def _nothing_in_hand(self) -> bool:
        """Whether the command has surely given back all it will make of the rows it got."""
        return self._given == self._taken and (self._given < 0 or not self.contract.expands)

    def _emit_aside(self, before: int | None) -> None:
        while self._aside and (before is None or self._aside[0].index < before):
            self._put(self._aside.popleft().encode())

    def _refuse(self, why: str, place: str, encode: Callable[[], bytes]) -> ToolrollError | None:
        """Count and tell a row that cannot be processed; an error to raise when it ends the run."""
        settings, counts = self.settings, self.log.counts
        counts.errors += 1
        if self.error_sink is not None:
            record = encode()
            if not _take_one(self.error_sink.kept, self._keys(record)):
                with _told(self.error_sink):
                    self.error_sink.write(record)
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

    def _before_wait(self) -> None:
        if self._nothing_in_hand():
            self._emit_aside(None)
        self._flush()

    def _flush(self) -> None:
        with _told(self.sink):
            self.sink.flush()


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


def _refuse_unknown(line: bytes, place: str) -> None:
    from toolroll.records import field_names

    complaint = unknown_field(line, field_names())
    if complaint is not None:
        raise RowError(complaint, place=place)
