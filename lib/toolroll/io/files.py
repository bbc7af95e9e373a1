"""Bytes in and bytes out: stdin and files, gzip and zstd, atomic output that can be resumed.

Input: files in order; `-` or none is stdin. `.gz` and `.zst` are read by suffix, stdin by its first
bytes. Output: `-o FILE` is written as `FILE.part` in the same folder, synced and renamed when the
run is complete, so a killed job never leaves half a file that looks whole; `--resume` goes on from
`FILE.part`. Devices, named pipes and stdout are written directly.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.rows import split_lines, strip_bom
from toolroll.run.signals import StopFlag, Wake

CHUNK = 256 * 1024
BLOCK = 1024 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


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
            raise ToolrollError(_reason(error), place=self.name) from error
        self.identity = _identity(status)

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
    """

    def __init__(
        self, paths: tuple[str, ...], *, stop: StopFlag, before_wait: Callable[[], None], hashed: bool = False
    ) -> None:
        self.files = [InputFile(path, hashed=hashed) for path in paths or ("-",)]
        self._stop = stop
        self._before_wait = before_wait
        self._current: InputFile | None = None
        self._in_hand = 0  # lines of the last chunk that nobody asked for yet

    def lines(self) -> Iterator[tuple[str, int, bytes]]:
        """(name, line number from 1, line without newline)."""
        for file in self.files:
            self._current = file
            number = 0
            for lines in split_lines(self._chunks(file)):
                self._in_hand = len(lines)
                for line in lines:
                    if self._stop:  # the last line may be half a line then
                        return
                    number += 1
                    self._in_hand -= 1
                    yield file.name, number, line
            file.close()
        self._current = None

    def ready(self) -> bool:
        """Whether asking for a line would not wait: False only on a pipe or terminal with nothing in it."""
        return self._current is None or self._in_hand > 0 or not self._current.waits

    def close(self) -> None:
        """Close all inputs."""
        for file in self.files:
            file.close()

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
                stream = _decompressed(io.BufferedReader(_Counted(file), CHUNK), file.path)
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
            raise ToolrollError(_reason(error), place=file.name) from error


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def _decompressed(plain: io.BufferedReader[Any], path: str) -> _Stream:
    """The stream behind a suffix, or for stdin behind its first bytes."""
    magic = plain.peek(4)[:4] if path == "-" else b""
    if path.endswith(".gz") or magic.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=plain)
    if path.endswith(".zst") or magic == _ZSTD:
        return _ZstdStream(plain)
    return plain


class _ZstdStream:
    """zstd frames one after the other; unlike zstandard's own reader, a cut frame is an error."""

    def __init__(self, plain: io.BufferedReader[Any]) -> None:
        self._plain = plain
        self._frame: Any = None

    def read1(self, _size: int) -> bytes:
        while True:
            data = self._plain.read1(CHUNK // 8)
            if not data:
                if self._frame is not None:
                    raise EOFError("the last zstd frame has no end")
                return b""
            pieces: list[bytes] = []
            while data:
                data = self._feed(data, pieces)
            if any(pieces):
                return b"".join(pieces)

    def _feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            pieces.append(self._frame.decompress(data))
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if not self._frame.eof:
            return b""
        rest: bytes = self._frame.unused_data
        self._frame = None
        return rest


Key = Callable[[bytes], tuple[bytes, ...]]


class Sink:
    """Where the rows go: stdout, a device, or a file that appears only when it is complete.

    One that is not `atomic` is written in place. Nothing is changed before `start`.
    """

    def __init__(self, path: str | None, *, each_row: bool = False, atomic: bool = True) -> None:
        self.path = None if path in (None, "-") else path
        self.name = self.path or "stdout"
        self.each_row = each_row
        self.kept: Counter[tuple[bytes, ...]] = Counter()
        self._part: Path | None = None
        self._is_new = False
        self._used = False  # is there a row in it?
        self._out: io.BufferedWriter[Any] | _Compressor | None = None
        try:
            if self.path is None:
                self._raw = io.FileIO(1, "wb", closefd=False)
            elif _is_special(self.path):
                self._raw = io.FileIO(self.path, "wb")
            else:
                self._part = Path(self.path + ".part" if atomic else os.path.realpath(self.path))
                self._is_new = not self._part.exists()
                self._raw = _locked(self._part)
        except OSError as error:
            raise ToolrollError(_reason(error), place=self.name) from error
        self.identity = _identity(os.fstat(self._raw.fileno()))

    @property
    def is_file(self) -> bool:
        """Whether this is a plain file, written as `.part` first."""
        return self._part is not None

    def start(self, resume: Key | None = None) -> None:
        """Make ready to write. With `resume`, a key function, an earlier run's rows stay; `kept` counts their keys."""
        if self._part is None:
            self._out = _writer(self.name, self._raw)
        elif resume is None:
            Path(f"{self._part}.old").unlink(missing_ok=True)
            self._raw.truncate(0)
            self._out = _writer(self.name, self._raw)
        elif self.name.endswith((".gz", ".zst")):
            self._recompress(resume)
        else:
            end = sum(len(line) + 1 for line in self._keep(self._part, resume))
            self._raw.truncate(end)
            self._raw.seek(end)
            self._out = _writer(self.name, self._raw)

    @property
    def is_new(self) -> bool:
        """Whether no earlier run left anything here."""
        return self._is_new

    def write(self, line: bytes) -> None:
        """One record, without its newline."""
        assert self._out is not None
        self._used = True
        self._out.write(line + b"\n")
        if self.each_row:
            self._out.flush()

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self._out is not None:
            self._out.flush()

    def commit(self) -> None:
        """The output is complete: sync it and give it its name."""
        assert self._out is not None
        if isinstance(self._out, _Compressor):
            self._out.end()
        else:
            self._out.flush()
        if self._part is not None:
            os.fsync(self._raw.fileno())
            self._part.replace(str(self.path))
        self._out.close()

    def abandon(self) -> bool:
        """Close without completing; whether a `.part` stays for `--resume`, as it does if there is anything in it."""
        unused = self._is_new if self._out is None else not self._used
        if self._part is not None and unused:
            self._part.unlink(missing_ok=True)
        try:
            if self._out is not None:
                self._out.flush()
                self._out.close()
        except (OSError, ValueError):
            pass
        self._raw.close()
        return self._part is not None and not unused

    def _recompress(self, resume: Key) -> None:
        """A compressed stream cannot be cut and continued, so its whole rows are written anew."""
        old, copy = Path(f"{self._part}.old"), Path(f"{self._part}.copy")
        if not old.exists():
            import shutil

            shutil.copyfile(str(self._part), copy)
            copy.replace(old)
        self._raw.truncate(0)
        self._out = out = _writer(self.name, self._raw)
        for line in self._keep(old, resume):
            out.write(line + b"\n")
        out.flush()
        old.unlink()

    def _keep(self, part: Path, resume: Key) -> Iterator[bytes]:
        for line in _whole_lines(part):
            try:
                self.kept[resume(line)] += 1
            except (msgspec.MsgspecError, RecursionError) as error:
                raise ToolrollError("cannot be resumed: not JSON lines", place=str(part)) from error
            self._used = True
            yield line


def _locked(part: Path) -> io.FileIO:
    """Open for writing without truncating, and refuse when another process has it."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ToolrollError("another process is writing it", place=str(part)) from None
        except OSError:
            pass  # a file system without locks
        if part.exists() and os.path.samestat(os.stat(part), os.fstat(descriptor)):
            return io.FileIO(descriptor, "r+b")
        os.close(descriptor)  # another process has just completed and renamed it


def _whole_lines(part: Path) -> Iterator[bytes]:
    """The complete lines of an unfinished output; a cut last line, or cut compressed tail, is dropped."""
    with open(part, "rb") as file:
        stem = part.name.removesuffix(".old").removesuffix(".part")
        stream: Any = _decompressed(file, stem) if stem.endswith((".gz", ".zst")) else file
        pending = b""
        try:
            while chunk := stream.read1(CHUNK):
                *lines, pending = (pending + chunk).split(b"\n")
                yield from lines
        except (EOFError, OSError, zlib.error):
            return


def _writer(name: str, raw: io.FileIO) -> io.BufferedWriter[Any] | _Compressor:
    buffered = io.BufferedWriter(raw, BLOCK)
    if name.endswith(".gz"):
        return _Compressor(zlib.compressobj(6, zlib.DEFLATED, 31), zlib.Z_SYNC_FLUSH, buffered)
    if name.endswith(".zst"):
        import zstandard

        engine = zstandard.ZstdCompressor(level=3).compressobj()
        return _Compressor(engine, zstandard.COMPRESSOBJ_FLUSH_BLOCK, buffered)
    return buffered


class _Compressor:
    """A compressor over a buffer; `flush` makes all that was written readable, `end` ends the stream."""

    def __init__(self, engine: Any, sync: int, buffered: io.BufferedWriter[Any]) -> None:
        self._engine = engine
        self._sync = sync
        self._buffered = buffered

    def write(self, data: bytes) -> None:
        self._buffered.write(self._engine.compress(data))

    def flush(self) -> None:
        self._buffered.write(self._engine.flush(self._sync))
        self._buffered.flush()

    def end(self) -> None:
        self._buffered.write(self._engine.flush())
        self._buffered.flush()

    def close(self) -> None:
        self._buffered.close()


def check_distinct(inputs: list[InputFile], outputs: list[Sink]) -> None:
    """Refuse to write into a file that is being read, whatever its name, or twice into one file."""
    if len(outputs) == 2:
        first, second = outputs
        same = first.path is None and second.path is None
        same = same or (first.identity is not None and first.identity == second.identity)
        if first.is_file and second.is_file:
            same = same or os.path.realpath(first.name) == os.path.realpath(second.name)
        if same:
            raise UsageError("rows and errors cannot go to the same place", place=second.name)
    for sink in outputs:
        names = {sink.identity}
        if sink.path is not None and Path(sink.path).exists():
            names.add(_identity(os.stat(sink.path)))
        for file in inputs:
            if file.identity is not None and file.identity in names:
                raise UsageError("input and output are the same file", place=file.name)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old or the new one, never half."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _new_hash() -> Any:
    import hashlib  # loads OpenSSL, which --help should not wait for

    return hashlib.blake2b(digest_size=16)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "cut short or damaged: " + (str(error) or type(error).__name__)


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    """Device and inode of a regular file, None for anything else."""
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise ToolrollError(os.strerror(errno.EISDIR), place=path)
    return not stat.S_ISREG(mode)


def _has_data(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    except (OSError, ValueError):
        return True
