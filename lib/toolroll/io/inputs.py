"""Bytes in: stdin and files in order, plain, gzip or zstd.

`-` or no file is stdin. `.gz` and `.zst` are read by suffix, stdin by its first bytes. A command may say how files of
other suffixes become lines.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from toolroll.errors import ToolrollError
from toolroll.io.compression import CHUNK, decompressed, suffix_of
from toolroll.io.filesystem import identity_of, reason
from toolroll.io.lines import split_lines, strip_bom
from toolroll.run.signals import StopFlag, Wake


class InputFile:
    """One input: `name` as the user gave it ("stdin" for `-`), its size and hash once it was read.

    It is looked at when the run starts and opened when its turn comes.
    """

    def __init__(self, path: str, *, hashed: bool = False) -> None:
        self.name = "stdin" if path == "-" else path
        self.path = path
        self.size = 0
        self._hash = _new_hash() if hashed else None
        self._raw: io.FileIO | None = None
        try:
            status = os.fstat(0) if path == "-" else os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if path != "-" and not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ToolrollError(reason(error), place=self.name) from error
        self.identity = identity_of(status)

    def open(self) -> None:
        """Open it; for a named pipe, this waits until somebody writes to it."""
        self._raw = io.FileIO(0 if self.path == "-" else self.path, "rb", closefd=self.path != "-")

    @property
    def waits(self) -> bool:
        """Whether reading now may wait for another process."""
        if self._raw is None:
            return self.identity is None
        return not _has_data(self._raw.fileno())

    @property
    def digest(self) -> str | None:
        """blake2b-128 of the bytes read so far, in hex, if it was asked for."""
        return self._hash.hexdigest() if self._hash else None

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read bytes as they are on disk, counting and hashing them."""
        assert self._raw is not None
        count = self._raw.readinto(buffer) or 0
        self.size += count
        if self._hash is not None:
            self._hash.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        """Close the file (stdin stays open)."""
        if self._raw is not None:
            self._raw.close()


class _Counted(io.RawIOBase):
    """An InputFile as Python's io stack wants it."""

    def __init__(self, file: InputFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


class Reader:
    """The lines of several inputs, one after the other.

    `before_wait` is called when the next read may block, so that a resident command in a pipe hands
    on what it has before it waits. A signal ends the lines early, like an end of input.

    `opens` maps the suffixes, in small letters, of files that are not lines to functions, each a text `module:name` so
    that it is loaded when such a file is there: `name(path, chunks, paths)` gives the lines, without newline, that
    stand for a file with these bytes among the inputs `paths`. Bytes that it does not take are read past. It raises
    ToolrollError for a file it cannot read.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        *,
        stop: StopFlag,
        before_wait: Callable[[], None],
        hashed: bool = False,
        opens: Mapping[str, str] | None = None,
    ) -> None:
        self.files = [InputFile(path, hashed=hashed) for path in paths or ("-",)]
        self._stop = stop
        self._before_wait = before_wait
        self._opens = opens or {}
        self._current: InputFile | None = None
        self._in_hand = 0  # lines of the last chunk that nobody asked for yet

    def blocks(self) -> Iterator[tuple[str, int, list[bytes]]]:
        """(name, number of the first line from 1, lines without newline): as many lines as came at a time."""
        for file in self.files:
            self._current = file
            number = 1
            pieces = iter(self._pieces(file))
            while True:
                try:
                    lines = next(pieces, None)
                except OverflowError as error:
                    raise ToolrollError(str(error), place=f"{file.name}:{number}") from error
                if lines is None:
                    break
                if self._stop:  # the last line may be half a line then
                    return
                yield file.name, number, lines
                number += len(lines)
            file.close()
        self._current = None

    def lines(self) -> Iterator[tuple[str, int, bytes]]:
        """(name, line number from 1, line without newline)."""
        for name, first, lines in self.blocks():
            yield from self.each(name, first, lines)

    def each(self, name: str, first: int, lines: list[bytes]) -> Iterator[tuple[str, int, bytes]]:
        """The lines of a block; a signal ends them early."""
        self._in_hand = len(lines)
        for number, line in enumerate(lines, first):
            if self._stop:
                self._in_hand = 0
                return
            self._in_hand -= 1
            yield name, number, line

    def ready(self) -> bool:
        """Whether asking for a line would not wait: False only on a pipe or terminal with nothing in it."""
        return self._current is None or self._in_hand > 0 or not self._current.waits

    def close(self) -> None:
        """Close all inputs."""
        for file in self.files:
            file.close()

    def _pieces(self, file: InputFile) -> Iterable[list[bytes]]:
        """The lines of a file, some at a time."""
        made_by = self._opens.get(suffix_of(file.path))
        return split_lines(self._chunks(file)) if made_by is None else self._made(file, made_by)

    def _made(self, file: InputFile, made_by: str) -> Iterator[list[bytes]]:
        """The lines that a function makes of a file."""
        module, _, name = made_by.partition(":")
        chunks = self._whole(file)
        try:
            lines = getattr(import_module(module), name)(file.path, chunks, tuple(one.path for one in self.files))
            made = [[line] for line in lines]
            for _ in chunks:
                pass
        except Wake:
            return
        yield from made

    def _whole(self, file: InputFile) -> Iterator[bytes]:
        """The chunks of a file; Wake where a signal came, and there may be half of it."""
        yield from self._chunks(file)
        if self._stop:
            raise Wake

    def _chunks(self, file: InputFile) -> Iterator[bytes]:
        first = True
        try:
            if file.waits:
                self._before_wait()
            with self._stop.waiting():
                file.open()
            if file.waits:
                self._before_wait()
            with self._stop.waiting():
                stream = decompressed(io.BufferedReader(_Counted(file), CHUNK), file.path)
            while True:
                if file.waits:
                    self._before_wait()
                with self._stop.waiting():
                    chunk = stream.read1(CHUNK)
                if not chunk:
                    return
                yield strip_bom(chunk) if first else chunk
                first = False
        except Wake:
            return
        except (OSError, EOFError, zlib.error) as error:
            raise ToolrollError(reason(error), place=file.name) from error


def _new_hash() -> Any:
    import hashlib  # loads OpenSSL, which --help should not wait for

    return hashlib.blake2b(digest_size=16)


def _has_data(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    except (OSError, ValueError):
        return True
