"""safetensors files as arrays of numpy, bfloat16 included, read where they lie and written piece by piece.

numpy has no bfloat16: such a tensor is an array of uint16, and `as_floats` and `as_stored` go between it and fp32. A
file is not copied into memory; a header that does not fit its file is told in one line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import is_special
from toolroll.io.tensors import head_of

Array = NDArray[Any]
TYPES: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "F64": np.float64,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "BOOL": np.bool_,
}
FLOATS = ("F32", "F16", "BF16")
_MOST = 100_000_000  #: bytes of a header, as safetensors itself has it
_NO_DIGEST = "0" * 32


def as_floats(array: Array, kind: str) -> NDArray[np.float32]:
    """The values of a tensor of type `kind` in fp32; the array itself where it is that."""
    if kind == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32, copy=False)


def as_stored(values: NDArray[np.float32], kind: str) -> Array:
    """fp32 values in the type `kind`, rounded to the nearest, ties to even."""
    if kind == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
            np.uint16
        )
    return values.astype(TYPES[kind])


class TensorFile:
    """A safetensors file of `size` bytes: `kinds` and `shapes` of its tensors, and `about`, the texts in its header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.about: dict[str, str] = {}
        self._places: dict[str, int] = {}
        try:
            with open(path, "rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                self._read_header(file, self.size)
            self._bytes = np.memmap(path, np.uint8, "r") if self.size else np.zeros(0, np.uint8)
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(path)) from error

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def array(self, name: str) -> Array:
        """A tensor, in the file itself; bfloat16 as uint16."""
        kind, shape = TYPES[self.kinds[name]], self.shapes[name]
        start = self._places[name]
        count = int(np.prod(shape, dtype=np.int64))
        data: Array = self._bytes[start : start + count * np.dtype(kind).itemsize]
        if start % np.dtype(kind).itemsize:
            data = data.copy()
        made: Array = data.view(kind).reshape(shape)
        return made

    def check_digest(self) -> None:
        """ToolrollError where the tensors are not those that were written."""
        digest = hashlib.blake2b(self._bytes[self._start :].data, digest_size=16).hexdigest()
        if digest != self.about.get("digest"):
            raise self.wrong("its tensors are not what was written: the digest in the header is another")

    def wrong(self, why: str) -> ToolrollError:
        """An error about this file."""
        return ToolrollError(why, place=str(self.path))

    def _read_header(self, file: Any, size: int) -> None:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > _MOST:
            raise self.wrong("is no safetensors file")
        if 8 + length > size:
            raise self.wrong("is no safetensors file, or it is cut short within its header")
        try:
            header = json.loads(file.read(length))
            self.about = {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}
            tensors = {
                name: (
                    one["dtype"],
                    tuple(map(int, one["shape"])),
                    int(one["data_offsets"][0]),
                    int(one["data_offsets"][1]),
                )
                for name, one in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise self.wrong("is no safetensors file: its header is damaged") from error
        self._start = 8 + length
        end = 0
        for name, (kind, shape, start, stop) in sorted(tensors.items(), key=lambda item: item[1][2:]):
            if kind not in TYPES:
                raise self.wrong(f"{name} has the type {kind}, which is not known here")
            wanted = int(np.prod(shape, dtype=object)) * np.dtype(TYPES[kind]).itemsize
            if start != end or min(shape, default=0) < 0 or stop - start != wanted:
                raise self.wrong(f"its header is damaged: {name} is not {wanted} bytes from {end} on")
            end = stop
            self.kinds[name], self.shapes[name], self._places[name] = kind, shape, self._start + start
        if self._start + end != size:
            few = "cut short" if self._start + end > size else "damaged"
            raise self.wrong(f"{few}: {size} bytes, and its header says {self._start + end}")


class TensorWriter:
    """Writes a safetensors file piece by piece; it appears when it is complete, and not at all if it fails.

    `tensors` are names, types and shapes in the order in which their data will come. `about` are texts for the header,
    to which a digest of the data is added. One that is `synced` outlives a failure of power.
    """

    def __init__(
        self,
        path: Path,
        tensors: Iterable[tuple[str, str, tuple[int, ...]]],
        about: Mapping[str, str],
        *,
        synced: bool = True,
    ) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        header: dict[str, Any] = {"__metadata__": {**about, "digest": _NO_DIGEST}}
        end = 0
        for name, kind, shape in tensors:
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(TYPES[kind]).itemsize
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        self._head = head_of(header)
        self._end = end
        self._digest = hashlib.blake2b(digest_size=16)
        self._written = 0
        self._synced = synced

    def __enter__(self) -> Self:
        if is_special(self.path):
            raise ToolrollError("is no regular file", place=str(self.path))
        try:
            self._file = open(self._part, "wb")
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(self.path)) from error
        try:
            self._file.write(self._head)
        except OSError as error:
            self._drop()
            raise ToolrollError(error.strerror or str(error), place=str(self.path)) from error
        return self

    def write(self, array: Array) -> None:
        """The next piece of the data."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._digest.update(data)
        self._written += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(self.path)) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._drop()
            return
        assert self._written == self._end, "a file of tensors got other data than its header says"
        digest = self._digest.hexdigest().encode()
        try:
            self._file.seek(0)
            self._file.write(self._head.replace(_NO_DIGEST.encode(), digest, 1))
            self._file.flush()
            if self._synced:
                os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
        except OSError as failure:
            self._drop()
            raise ToolrollError(failure.strerror or str(failure), place=str(self.path)) from failure

    def _drop(self) -> None:
        """Close what was written and leave none of it."""
        with suppress(OSError):  # what a full disk did not take, it does not take now
            self._file.close()
        self._part.unlink(missing_ok=True)


def check_apart(source: Path, target: Path) -> None:
    """UsageError where a file would be written over the one that is read."""
    if target.exists() and source.exists() and source.samefile(target):
        raise UsageError("input and output are the same file", place=str(target))
    if target.is_dir():
        raise ToolrollError("Is a directory", place=str(target))
