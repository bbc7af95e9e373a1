"""Bytes out: atomic output that can be resumed.

`-o FILE` is written as `FILE.part` in the same folder, synced and renamed when the run is complete, so a killed job
never leaves half a file that looks whole; `--resume` goes on from `FILE.part`. Devices, named pipes and stdout are
written directly.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.compression import CHUNK, Compressor, decompressed, is_compressed, writer
from toolroll.io.filesystem import identity_of, is_special, opened, reason
from toolroll.io.inputs import InputFile

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
        self._out: io.BufferedWriter[Any] | Compressor | None = None
        try:
            if self.path is None:
                self._raw = io.FileIO(1, "wb", closefd=False)
            elif is_special(self.path):
                self._raw = opened(self.path)
            elif os.path.isdir(self.path):  # noqa: PTH112
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            else:
                self._part = Path(self.path + ".part" if atomic else os.path.realpath(self.path))
                self._is_new = not self._part.exists()
                self._raw = _locked(self._part)
        except OSError as error:
            raise ToolrollError(reason(error), place=self.name) from error
        self.identity = identity_of(os.fstat(self._raw.fileno()))

    @property
    def is_file(self) -> bool:
        """Whether this is a plain file, written as `.part` first."""
        return self._part is not None

    def start(self, resume: Key | None = None) -> None:
        """Make ready to write. With `resume`, a key function, an earlier run's rows stay; `kept` counts their keys."""
        if self._part is None:
            self._out = writer(self.name, self._raw)
        elif resume is None:
            Path(f"{self._part}.old").unlink(missing_ok=True)
            self._raw.truncate(0)
            self._out = writer(self.name, self._raw)
        elif is_compressed(self.name):
            self._recompress(resume)
        else:
            end = sum(len(line) + 1 for line in self._keep(self._part, resume))
            self._raw.truncate(end)
            self._raw.seek(end)
            self._out = writer(self.name, self._raw)

    @property
    def is_new(self) -> bool:
        """Whether no earlier run left anything here."""
        return self._is_new

    @property
    def is_whole(self) -> bool:
        """Whether a complete output is there, and nothing of an unfinished one."""
        return self._part is not None and Path(str(self.path)).is_file() and not os.fstat(self._raw.fileno()).st_size

    def take_up(self) -> None:
        """Before `start`: go on from the complete output as from an unfinished one. It stays until it is replaced."""
        assert self._part is not None
        copy = Path(f"{self._part}.copy")
        shutil.copyfile(str(self.path), copy)
        raw = _locked(copy)
        copy.replace(self._part)
        self._raw.close()
        self._raw, self._is_new = raw, False
        self.identity = identity_of(os.fstat(raw.fileno()))

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
        if isinstance(self._out, Compressor):
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
            shutil.copyfile(str(self._part), copy)
            copy.replace(old)
        self._raw.truncate(0)
        self._out = out = writer(self.name, self._raw)
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


@contextmanager
def held(path: str | None) -> Iterator[None]:
    """Have the file `path`, which is replaced now and then, alone among processes; None is no file.

    While it is held there is a `path.lock` beside it; one that a killed process left is no hindrance.
    """
    if path is None:
        yield
        return
    lock = Path(path + ".lock")
    try:
        raw = _locked(lock, told=path)
    except OSError as error:
        raise ToolrollError(reason(error), place=path) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        raw.close()


def _locked(part: Path, told: str = "") -> io.FileIO:
    """Open for writing without truncating, and refuse when another process has it, as `told` or `part`."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ToolrollError("another process is writing it", place=told or str(part)) from None
        except OSError:
            pass  # a file system without locks
        if part.exists() and os.path.samestat(os.stat(part), os.fstat(descriptor)):
            return io.FileIO(descriptor, "r+b")
        os.close(descriptor)  # another process has just completed and renamed it


def _whole_lines(part: Path) -> Iterator[bytes]:
    """The complete lines of an unfinished output; a cut last line, or cut compressed tail, is dropped."""
    with open(part, "rb") as file:
        stem = part.name.removesuffix(".old").removesuffix(".part")
        stream: Any = decompressed(file, stem) if is_compressed(stem) else file
        pending = b""
        try:
            while chunk := stream.read1(CHUNK):
                *lines, pending = (pending + chunk).split(b"\n")
                yield from lines
        except (EOFError, OSError, zlib.error):
            return


def check_distinct(
    inputs: list[InputFile],
    outputs: list[Sink],
    kept: Iterable[tuple[str, str]] = (),
    given: Iterable[str] = (),
) -> None:
    """Refuse to write into a file that is being read, whatever its name, or twice into one file.

    `kept` are options, and the files that they name, which the command writes of its own accord. `given` are names of
    what it reads besides, if there are such files.
    """
    if len(outputs) == 2 and _same(*outputs):
        raise UsageError("rows and errors cannot go to the same place", place=outputs[1].name)
    own = [(option, path, _identities(path)) for option, path in kept]
    read = {_identity(path) for path in given} - {None}
    for sink in outputs:
        if {sink.identity, _identity(sink.path)} & read:
            raise UsageError("input and output are the same file", place=sink.name)
        names = {sink.identity, *_identities(sink.path)} - {None}
        for file in inputs:
            if file.identity in names:
                raise UsageError("input and output are the same file", place=file.name)
        for option, path, its in own:
            if not names.isdisjoint(its):
                raise UsageError(f"{option} and the output are the same file", place=path)
    for file in inputs:
        for option, path, its in own:
            if file.identity is not None and file.identity in its:
                raise UsageError(f"{option} and the input are the same file", place=path)


def _same(first: Sink, second: Sink) -> bool:
    if first.path is None and second.path is None:
        return True
    if first.identity is not None and first.identity == second.identity:
        return True
    return first.is_file and second.is_file and os.path.realpath(first.name) == os.path.realpath(second.name)


def _identities(path: str | None) -> set[Any]:
    """What tells the file of this name from others: where it is, and device and inode of one that exists."""
    return set() if path is None else {os.path.realpath(path), _identity(path)} - {None}


def _identity(path: str | None) -> tuple[int, int] | None:
    """Device and inode of the regular file of this name, if there is one."""
    try:
        return None if path is None else identity_of(os.stat(path))
    except (OSError, ValueError):  # a name that no file can have
        return None
