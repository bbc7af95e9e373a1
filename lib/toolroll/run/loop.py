"""The run loop: from input lines through a command's generator to output lines.

It opens and closes files, checks records, keeps the order, counts, resumes, and decides what happens
to a row that cannot be processed; no command does any of that itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from toolroll.errors import RowError, Stopped, ToolrollError
from toolroll.io.decoding import (
    block_decoder,
    holds_floats,
    is_error_row,
    key_reader,
    read_error,
    row_decoder,
    unknown_field,
)
from toolroll.io.inputs import Reader
from toolroll.io.outputs import check_distinct, held
from toolroll.io.rows import BadRow, PassedRow, Row, Shape
from toolroll.run.contract import Contract, Settings
from toolroll.run.log import Log
from toolroll.run.manifest import Manifest
from toolroll.run.rows import Block, Rows
from toolroll.run.signals import StopFlag
from toolroll.run.writing import Writer


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
        self._failure: ToolrollError | None = None

    def execute(self, make: Callable[[Rows[Any]], Iterable[Any] | None]) -> None:
        """Run `make(rows)` to its end and complete the output. Raises what should end the process."""
        paths = (self.settings.inputs or ("-",)) if self.contract.reads is not None else ()
        self.reader = Reader(
            paths,
            stop=self.stop,
            before_wait=lambda: self.writer.before_wait(),
            hashed=self.manifest is not None,
            opens=self.contract.opens,
        )
        complete = False
        try:
            self.writer = Writer(self.contract, self.settings, self.log)
            self._start()
            self._read_line = self._line_decoder()
            rows = Rows(
                self._rows(self.reader.lines()),
                self.reader.ready,
                self.writer.is_done,
                self.writer.refuse_row,
                self._is_cut,
                self._was_written,
                self._blocks,
                lambda: bool(self.writer.sink.kept),
            )
            with held(self.settings.state):
                take = self.writer.take
                for item in make(rows) or ():
                    take(item)
            self._finish()
            complete = True
        except BrokenPipeError as error:  # of something else than our outputs, which raise OutputClosed
            raise ToolrollError(error.strerror or "broken pipe") from error
        finally:
            self.reader.close()
            if not complete:
                self._abandon()

    def _start(self) -> None:
        settings, sink = self.settings, self.writer.sink
        check_distinct(self.reader.files, self.writer.sinks, settings.kept, settings.given)
        if self.manifest is not None and sink.is_file:
            stateful = settings.state is not None or self.contract.consumes
            if settings.resume and sink.is_whole and self.manifest.is_of(sink.name, stateful=stateful):
                self.writer.take_up()
            self.manifest.begin(sink.name, resume=settings.resume and not sink.is_new)
        self.writer.start()

    def _abandon(self) -> None:
        if hasattr(self, "writer") and not self.writer.abandon():
            sink = self.writer.sink
            if self.manifest is not None and sink.is_file:
                self.manifest.forget(sink.name)

    def _finish(self) -> None:
        if self._failure is not None and self.contract.reducer:
            raise self._failure
        self.writer.finish()
        if self._failure is not None:
            self.writer.flush()
            raise self._failure
        if self.stop and not self.contract.reducer:
            self.writer.flush()
            resumable = "; --resume continues it" if self.contract.resumes and self.writer.sink.is_file else ""
            raise Stopped(f"stopped by {self.stop.asked_by}{resumable}")
        self._commit()
        self.log.summary()

    def _commit(self) -> None:
        self.writer.commit()
        if self.manifest is not None and self.writer.sink.is_file:
            inputs = [{"name": file.name, "bytes": file.size, "blake2b": file.digest} for file in self.reader.files]
            shard = str(self.settings.shard) if self.settings.shard else None
            counts = self.log.counts.as_dict()
            self.manifest.finish(self.writer.sink.name, inputs=inputs, counts=counts, shard=shard)

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
            elif skipping and self.writer.is_done(self._named(line, f"{name}:{number}")):
                counts.skipped += 1
            else:
                self.writer.given = index
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
        known = self.settings.resume and self.writer.is_done(self.writer.keys(row.raw))
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
        if keeps and self.writer.is_done(self.writer.keys(bad.encode())):
            self.log.counts.skipped += 1
            return None
        failure = self.writer.refuse(bad.why, place, bad.encode)
        if failure is not None:
            if self.contract.reducer:
                raise failure
            self._failure = failure
            return None
        if self.contract.sees_errors:
            return self._failed(bad.encode(), place, index, dropped=not keeps)
        if keeps:
            self.writer.hand_over(bad)
        return None

    def _pass_on(self, line: bytes, place: str, index: int) -> Row[Any] | None:
        self.log.counts.passed += 1
        wanted = self.contract.passes_rows and not (
            self.settings.resume and self.writer.is_done(self.writer.keys(line))
        )
        if self.contract.sees_errors:
            return self._failed(line, place, index, dropped=not wanted)
        if wanted:
            self.writer.hand_over(PassedRow(line, index))
        return None

    def _failed(self, line: bytes, place: str, index: int, *, dropped: bool) -> Row[Any]:
        """A row that failed, for a command that sees those too."""
        self.writer.given = index
        name, _, number = place.rpartition(":")
        row: Row[Any] = Row(line, None, index, name, int(number))
        row.failed = True
        row.dropped = dropped
        return row

    def _named(self, line: bytes, place: str) -> tuple[bytes, ...]:
        """The key of a row, which it must have for `--resume` to tell whether it is done."""
        key = self.writer.keys(line)
        if not any(key):
            raise ToolrollError(f"no `{self.contract.key[0]}` to resume by", place=place)
        return key


def _refuse_unknown(line: bytes, place: str) -> None:
    from toolroll.records import field_names

    complaint = unknown_field(line, field_names())
    if complaint is not None:
        raise RowError(complaint, place=place)
