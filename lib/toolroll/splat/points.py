"""Points from and to PLY files, read by the names of properties: text and binary of both ends, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import reason, write_atomically
from toolroll.splat.scene import Points

SH0 = 0.28209479177387814
GREY = 128  #: of points without a colour
_HEADER = 1 << 16  # bytes in which a header ends
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONG = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
_SIZED = {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES = {**_LONG, **_SIZED, "float32": "f4", "float64": "f8"}


@dataclass(slots=True)
class _Element:
    """Things of one kind: how many, and their properties: name, type, and for a list the type of its length."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(length for _, _, length in self.properties)

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype([(name, order + kind) for name, kind, _ in self.properties])


def read_points(path: Path) -> Points:
    """The vertices of a PLY file with their colours. ToolrollError where it is not sound.

    Colours are red, green, blue: 0 to 255, or 0 to 1 where they are not whole numbers; or those of 3D Gaussians, f_dc_0
    to 2; without any, points are grey. Points that are not finite are left out.
    """
    columns = read_vertices(path)
    missing = [name for name in "xyz" if name not in columns]
    if missing:
        raise ToolrollError(f"no property {missing[0]} of a vertex", place=str(path))
    places = np.stack([columns[name].astype(np.float64) for name in "xyz"], 1)
    colours = _colours(columns, len(places))
    sound = np.isfinite(places).all(1)
    return Points(places[sound], colours[sound])


def _colours(columns: dict[str, NDArray[Any]], count: int) -> NDArray[np.uint8]:
    if all(name in columns for name in ("red", "green", "blue")):
        given = np.stack([columns[name] for name in ("red", "green", "blue")], 1)
        if np.issubdtype(given.dtype, np.floating):
            given = given * 255
        elif columns["red"].dtype.itemsize == 2:
            given = given / 257
    elif all(f"f_dc_{i}" in columns for i in range(3)):
        given = (0.5 + SH0 * np.stack([columns[f"f_dc_{i}"] for i in range(3)], 1)) * 255
    else:
        return np.full((count, 3), GREY, np.uint8)
    made: NDArray[np.uint8] = np.clip(np.rint(np.nan_to_num(given)), 0, 255).astype(np.uint8)
    return made


def read_vertices(path: Path) -> dict[str, NDArray[Any]]:
    """The properties of the vertices of a PLY file by name, [P] each. ToolrollError where it is not sound."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    order, elements, start = _header(data, path)
    if not any(one.name == "vertex" for one in elements):
        raise ToolrollError("no vertices", place=str(path))
    try:
        table = _text(data[start:], elements) if not order else _binary(data, start, order, elements)
    except (ValueError, IndexError) as error:
        raise ToolrollError("cut short or damaged", place=str(path)) from error
    except _ListError:
        raise ToolrollError("vertices have a list, which is not supported", place=str(path)) from None
    return table


class _ListError(Exception):
    pass


def _header(data: bytes, path: Path) -> tuple[str, list[_Element], int]:
    """The order of bytes ("" for text), the elements, and where they begin."""
    end = data.find(b"end_header", 0, _HEADER)
    if not data.startswith((b"ply\n", b"ply\r")) or end < 0:
        raise ToolrollError("not a PLY file", place=str(path))
    start = end + len(b"end_header")
    start += 2 if data[start : start + 2] == b"\r\n" else 1
    elements: list[_Element] = []
    order = None
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", kind, _] if kind in _FORMATS:
                order = _FORMATS[kind]
            case ["element", name, count] if count.isdigit():
                elements.append(_Element(name, int(count)))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= _TYPES.keys():
                elements[-1].properties.append((name, _TYPES[kind], _TYPES[length]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append((name, _TYPES[kind], None))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ToolrollError(f"a line of its header is not known: {line[:60]}", place=str(path))
    if order is None:
        raise ToolrollError("its header names no format", place=str(path))
    return order, elements, start


def _binary(data: bytes, at: int, order: str, elements: list[_Element]) -> dict[str, NDArray[Any]]:
    for element in elements:
        if element.name == "vertex":
            if element.has_lists:
                raise _ListError
            table = np.frombuffer(data, element.dtype(order), element.count, at)
            return {name: table[name].astype(table[name].dtype.newbyteorder("=")) for name in table.dtype.names or ()}
        at = _behind(data, at, order, element)
    raise AssertionError


def _behind(data: bytes, at: int, order: str, element: _Element) -> int:
    """Where the bytes of an element end."""
    if not element.has_lists:
        return at + element.count * element.dtype(order).itemsize
    for _ in range(element.count):
        for _, kind, length in element.properties:
            times = 1
            if length is not None:
                times = int(np.frombuffer(data, order + length, 1, at)[0])
                at += np.dtype(length).itemsize
            if times < 0:
                raise ValueError
            at += times * np.dtype(kind).itemsize
    return at


def _text(data: bytes, elements: list[_Element]) -> dict[str, NDArray[Any]]:
    lines = data.split(b"\n")
    for element in elements:
        if element.name != "vertex":
            lines = lines[element.count :]
            continue
        if element.has_lists:
            raise _ListError
        chosen = lines[: element.count]
        width = len(element.properties)
        table = np.array(b" ".join(chosen).split(), float)
        if len(chosen) != element.count or table.size != element.count * width:
            raise ValueError
        table = table.reshape(element.count, width)
        return {name: table[:, i].astype(kind) for i, (name, kind, _) in enumerate(element.properties)}
    raise AssertionError


def write_points(path: Path, points: Points) -> None:
    """Write points as a binary PLY: x, y, z and red, green, blue.

    x, y, z are float where that has the digits, as in nearly all scenes, and double in one far from its origin.
    """
    narrow = points.places.astype(np.float32).astype(np.float64)
    spread = float(np.ptp(points.places, axis=0).max()) if len(points) else 0.0
    fine = bool(len(points) == 0 or np.abs(narrow - points.places).max() <= 1e-6 * spread)
    name, kind = ("float", "<f4") if fine else ("double", "<f8")
    table = np.zeros(len(points), [(axis, kind) for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for i, axis in enumerate("xyz"):
        table[axis] = points.places[:, i]
    for i, colour in enumerate(("red", "green", "blue")):
        table[colour] = points.colours[:, i]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {name} {axis}" for axis in "xyz"]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    header = "\n".join([*lines, "end_header", ""]).encode()
    try:
        write_atomically(path, header + table.tobytes())
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
