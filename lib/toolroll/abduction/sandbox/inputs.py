"""The inputs of programs, checked once and laid out so that a sandboxed process reads them without the parent's help.

Inputs that many programs share (a sample space) are kept as one `Inputs` and joined with a problem's own by `+`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import overload

from toolroll.errors import ToolrollError

MOST_PARTS = 64  #: files that are handed to a process


class Part:
    """A block of inputs in a file that has no name: one JSON text a line. Closed when nothing uses it any more."""

    def __init__(self, texts: Iterable[bytes], *, check: bool = True) -> None:
        self.texts = tuple(_checked(i, text) for i, text in enumerate(texts)) if check else tuple(texts)
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The file, which cannot be written through this descriptor, made when first asked for."""
        if self._fd is None:
            self._fd = unnamed(b"\n".join(self.texts))
            weakref.finalize(self, os.close, self._fd)
        return self._fd


class Inputs(Sequence[bytes]):
    r"""JSON texts that programs are run on, in order.

    >>> space = Inputs([b"[]", b" [1,\n2]"])
    >>> list(space + Inputs([b"3"]))
    [b'[]', b'[1, 2]', b'3']
    """

    def __init__(self, texts: Iterable[bytes] = (), *, parts: Iterable[Part] = ()) -> None:
        own = Part(texts)
        self.parts = tuple(part for part in (*parts, own) if part.texts)
        self._texts = tuple(chain.from_iterable(part.texts for part in self.parts))
        if len(self.parts) > MOST_PARTS:
            self.parts = (Part(self._texts, check=False),)

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Inputs:
        """These inputs, as they are when they are `Inputs` already."""
        return texts if isinstance(texts, cls) else cls(texts)

    def __add__(self, other: Inputs) -> Inputs:
        return Inputs(parts=(*self.parts, *other.parts))

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._texts[index]


def unnamed(data: bytes) -> int:
    """A descriptor of a file with this content and no name, which whoever gets it can read but not change."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        return _in_memory(data)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)


def _in_memory(data: bytes) -> int:
    import fcntl

    fd = os.memfd_create("toolroll", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def _checked(index: int, text: bytes) -> bytes:
    """The text without line ends, which JSON has between its tokens only."""
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ToolrollError(f"not JSON: {error}", place=f"input {index}") from error
    return text.strip().replace(b"\r", b" ").replace(b"\n", b" ")
