"""Points from and to PLY files, read by the names of properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import put
from toolroll.splat.elements import Columns, read_ply_elements
from toolroll.splat.poses import FAR
from toolroll.splat.scene import Points

SH0 = 0.28209479177387814
GREY = 128  #: of points without a colour


def read_points(path: Path) -> Points:
    """The vertices of a PLY file with their colours. ToolrollError where it is not sound.

    Colours are red, green, blue: 0 to 255, or 0 to 1 where they are not whole numbers; or those of 3D Gaussians, f_dc_0
    to 2; without any, points are grey. Points may be nowhere: see `somewhere`.
    """
    try:
        return _vertices(read_ply_elements(path).elements)
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(path)) from error


def points_of(elements: dict[str, Columns]) -> Points:
    """The points of what was read of a PLY that are somewhere. ToolrollError where there are no vertices."""
    return somewhere(_vertices(elements))[0]


def somewhere(points: Points) -> tuple[Points, int]:
    """Points without those that are not finite, or beyond `FAR`; and how many these are."""
    sound = (np.abs(points.places) <= FAR).all(1)
    lost = len(points) - int(sound.sum())
    return Points(points.places[sound], points.colours[sound]) if lost else points, lost


def _vertices(elements: dict[str, Columns]) -> Points:
    if "vertex" not in elements:
        raise ToolrollError("no vertices")
    columns = elements["vertex"]
    missing = [name for name in "xyz" if name not in columns]
    if missing:
        raise ToolrollError(f"no property {missing[0]} of a vertex")
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are none, which `somewhere` leaves out
        places = np.stack([columns[name].astype(np.float64) for name in "xyz"], 1)
        return Points(places, colours_of(columns, len(places)))


def colours_of(columns: Columns, count: int) -> NDArray[np.uint8]:
    """The colours of vertices, [count, 3]; see `read_points`."""
    factor, offset, names = 1.0, 0.0, ("red", "green", "blue")
    if not all(name in columns for name in names):
        factor, offset, names = 255 * SH0, 127.5, ("f_dc_0", "f_dc_1", "f_dc_2")
        if not all(name in columns for name in names):
            return np.full((count, 3), GREY, np.uint8)
    elif np.issubdtype(columns["red"].dtype, np.floating):
        factor = 255.0
    elif columns["red"].dtype.itemsize == 2:
        factor = 1 / 257
    with np.errstate(invalid="ignore"):
        given = np.stack([columns[name].astype(np.float64) for name in names], 1)
    made: NDArray[np.uint8] = np.clip(np.rint(np.nan_to_num(factor * given + offset)), 0, 255).astype(np.uint8)
    return made


def write_points(path: Path, points: Points) -> None:
    """Write points as a binary PLY: x, y, z and red, green, blue.

    x, y, z are float where that has the digits, as in nearly all scenes, and double in one far from its origin.
    """
    with np.errstate(over="ignore"):
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
    put(path, header + table.tobytes())
