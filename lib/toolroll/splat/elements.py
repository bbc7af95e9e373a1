"""PLY files: their elements by name, with the properties of each by name, from texts and binaries of either order.

Lists may stand in elements that nothing is wanted of. What the header claims is believed only as far as there are data,
so that no number in it takes memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import reason

LONGEST_LINE, MOST_LINES = 1024, 4096  #: of a header
_KINDS = "i1 char int8  u1 uchar uint8  i2 short int16  u2 ushort uint16"
_KINDS += "  i4 int int32  u4 uint uint32  f4 float float32  f8 double float64"
TYPES = {name: code for code, *names in map(str.split, _KINDS.split("  ")) for name in names}
ORDERS = {b"ascii": "", b"binary_little_endian": "<", b"binary_big_endian": ">"}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Property:
    """A number, or a list of numbers, whose length has a type of its own."""

    kind: str
    length: str | None = None


@dataclass(slots=True)
class Element:
    """Things of one kind: their name, how many there are, and their properties by name."""

    name: str
    count: int
    properties: dict[str, Property] = field(default_factory=dict)

    @property
    def has_lists(self) -> bool:
        """Whether a property is a list."""
        return any(one.length is not None for one in self.properties.values())

    def row(self, order: str) -> np.dtype[Any]:
        """One of them in a binary, without lists."""
        return np.dtype([(name, order + one.kind) for name, one in self.properties.items()])


@dataclass(frozen=True, slots=True)
class Header:
    """What a PLY says of itself. order: '<', '>', or '' for text."""

    order: str
    elements: Sequence[Element]
    comments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ply:
    """What was read: elements by name, and in each its properties by name, [count] of the type they have."""

    elements: dict[str, Columns]
    comments: tuple[str, ...]


def read_ply_elements(path: str | Path, wanted: Iterable[str] = ("vertex",)) -> Ply:
    """Those of the wanted elements that a PLY has; a file that can be read once, such as a pipe, is enough.

    ToolrollError for what is no PLY, is cut short, or has lists in an element that is wanted.
    """
    try:
        with open(path, "rb") as file:
            header = read_header(file)
            names = {element.name for element in header.elements} & set(wanted)
            read = _from_binary if header.order else _from_text
            return Ply(read(file, header, names), header.comments)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(path)) from error


# --- the header


def read_header(file: IO[bytes]) -> Header:
    """The header of a PLY, behind which the file then is. ToolrollError for what is none."""
    if file.readline(LONGEST_LINE).strip() != b"ply":
        raise ToolrollError("not a PLY file")
    order: str | None = None
    elements: list[Element] = []
    comments: list[str] = []
    for _ in range(MOST_LINES):
        line = file.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            break
        words = line.split()
        match words:
            case [b"end_header"]:
                if order is None:
                    raise ToolrollError("its header has no format")
                return Header(order, elements, tuple(comments))
            case [b"format", name, _] if name in ORDERS:
                order = ORDERS[name]
            case [b"comment" | b"obj_info", *_]:
                comments.append(line.strip().partition(b" ")[2].decode(errors="replace").strip())
            case []:
                continue
            case _:
                _add(words, elements)
    raise ToolrollError("its header does not end")


def _add(words: list[bytes], elements: list[Element]) -> None:
    """An element, or a property of the last one."""
    here = elements[-1].properties if elements else None
    match [word.decode(errors="replace") for word in words]:
        case ["element", name, count] if _is_count(count) and all(one.name != name for one in elements):
            elements.append(Element(name, int(count)))
        case ["property", kind, name] if kind in TYPES and here is not None and name not in here:
            here[name] = Property(TYPES[kind])
        case ["property", "list", length, kind, name] if (
            here is not None and name not in here and _are_list(length, kind)
        ):
            here[name] = Property(TYPES[kind], TYPES[length])
        case text:
            raise ToolrollError(f"its header has a line that cannot be: {' '.join(text)[:60]!r}")


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 19


def _are_list(length: str, kind: str) -> bool:
    return kind in TYPES and TYPES.get(length, "f")[0] != "f"


# --- the data


def _checked(element: Element) -> None:
    """ToolrollError for a wanted element with lists."""
    if element.has_lists:
        raise ToolrollError(f"has lists in its {_plural(element)}")


def _short(element: Element) -> ToolrollError:
    return ToolrollError(f"cut short: no room for {element.count} {_plural(element)}")


def _plural(element: Element) -> str:
    return "vertices" if element.name == "vertex" else f"elements {element.name[:60]}"


def _from_binary(file: IO[bytes], header: Header, wanted: set[str]) -> dict[str, Columns]:
    data, at, found = file.read(), 0, dict[str, Columns]()
    for element in header.elements:
        if found.keys() == wanted:
            break
        if element.name in wanted:
            _checked(element)
        if element.has_lists:
            at = _behind_lists(data, at, header.order, element)
            continue
        row = element.row(header.order)
        end = at + element.count * row.itemsize
        if end > len(data):
            raise _short(element)
        if element.name in wanted and element.properties:
            table = np.frombuffer(data, row, element.count, at)
            found[element.name] = {name: table[name].astype(row[name].newbyteorder("=")) for name in row.names or ()}
        elif element.name in wanted:
            found[element.name] = {}
        at = end
    return found


def _behind_lists(data: bytes, at: int, order: str, element: Element) -> int:
    """Where an element with lists ends."""
    endian: Any = "little" if order == "<" else "big"
    parts = []
    for one in element.properties.values():
        length = one.length or ""
        parts.append((int(length[1:] or 0), length.startswith("i"), int(one.kind[1:])))
    for _ in range(element.count):
        for wide, signed, size in parts:
            times = int.from_bytes(data[at : at + wide], endian, signed=signed) if wide else 1
            at += wide + max(times, 0) * size
            if at > len(data) or times < 0:
                raise _short(element)
    return at


def _from_text(file: IO[bytes], header: Header, wanted: set[str]) -> dict[str, Columns]:
    """Each of an element is in a line of its own."""
    found: dict[str, Columns] = {}
    for element in header.elements:
        if found.keys() == wanted:
            break
        if element.name in wanted:
            _checked(element)
            found[element.name] = _columns(file, element)
        elif element.properties:
            for _ in range(element.count):
                if not _line(file):
                    raise _short(element)
    return found


def _columns(file: IO[bytes], element: Element) -> Columns:
    wide = len(element.properties)
    lines = []
    for _ in range(element.count if wide else 0):
        lines.append(_line(file))
        if not lines[-1]:
            raise _short(element)
    try:
        table = np.fromstring(b" ".join(lines), sep=" ")
    except ValueError as error:
        raise ToolrollError(f"has {_plural(element)} that are not numbers") from error
    if table.size < len(lines) * wide:
        raise _short(element)
    if table.size > len(lines) * wide:
        raise ToolrollError(f"has {_plural(element)} of more than {wide} numbers")
    table = table.reshape(len(lines), wide)
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: table[:, i].astype(one.kind) for i, (name, one) in enumerate(element.properties.items())}


def _line(file: IO[bytes]) -> bytes:
    """The next line that is not blank; empty at the end."""
    while line := file.readline():
        if not line.isspace():
            return line
    return b""
