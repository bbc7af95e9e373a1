"""gzip and zstd streams, by suffix or by first bytes."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any, Protocol

CHUNK = 256 * 1024  #: bytes read at a time
BLOCK = 1024 * 1024  #: bytes written at a time
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Stream(Protocol):
    """What decompressed bytes are read from."""

    def read1(self, size: int, /) -> bytes:
        """Up to about `size` bytes, none at the end. EOFError when the stream is cut short."""


def suffix_of(name: str) -> str:
    """The suffix of a file name, in small letters whatever its case.

    >>> suffix_of("runs.v2/ROWS.JSONL.GZ"), suffix_of("rows")
    ('.gz', '')
    """
    return Path(name).suffix.lower()


def is_compressed(name: str) -> bool:
    """Whether a file of this name holds a compressed stream."""
    return suffix_of(name) in (".gz", ".zst")


def decompressed(plain: io.BufferedReader[Any], path: str) -> Stream:
    """The stream behind a suffix, or for stdin behind its first bytes."""
    magic = plain.peek(4)[:4] if path == "-" else b""
    if suffix_of(path) == ".gz" or magic.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=plain)
    if suffix_of(path) == ".zst" or magic == _ZSTD:
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


def writer(name: str, raw: io.FileIO) -> io.BufferedWriter[Any] | Compressor:
    """What writes to `raw`, in blocks, compressed if the name ends in .gz or .zst."""
    buffered = io.BufferedWriter(raw, BLOCK)
    if suffix_of(name) == ".gz":
        return Compressor(zlib.compressobj(6, zlib.DEFLATED, 31), zlib.Z_SYNC_FLUSH, buffered)
    if suffix_of(name) == ".zst":
        import zstandard

        engine = zstandard.ZstdCompressor(level=3).compressobj()
        return Compressor(engine, zstandard.COMPRESSOBJ_FLUSH_BLOCK, buffered)
    return buffered


class Compressor:
    """A compressor over a buffer; `flush` makes all that was written readable, `end` ends the stream."""

    def __init__(self, engine: Any, sync: int, buffered: io.BufferedWriter[Any]) -> None:
        self._engine = engine
        self._sync = sync
        self._buffered = buffered

    def write(self, data: bytes) -> None:
        """Take bytes to compress."""
        self._buffered.write(self._engine.compress(data))

    def flush(self) -> None:
        """Make all that was written readable; the stream goes on."""
        self._buffered.write(self._engine.flush(self._sync))
        self._buffered.flush()

    def end(self) -> None:
        """End the stream."""
        self._buffered.write(self._engine.flush())
        self._buffered.flush()

    def close(self) -> None:
        """Close what is underneath; without `end`, the stream is cut short."""
        self._buffered.close()
