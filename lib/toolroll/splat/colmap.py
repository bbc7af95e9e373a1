"""COLMAP's models: cameras, images and points3D, as text and binary, read and written.

Files of newer versions for rigs and frames are not needed: images have their poses. Of images and points, what says
which was seen where (observations, tracks) is passed over in reading, and empty in what is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import reason, write_atomically
from toolroll.splat.colmap_lenses import NUMBERS, OTHERS, READ, lens_of, numbers_of
from toolroll.splat.entries import shown
from toolroll.splat.poses import quaternion, rigid, rotation
from toolroll.splat.scene import Lens, Points


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a model: its name, its pose, world to camera, float64 [4, 4], or None for none, and its camera."""

    name: str
    pose: NDArray[np.float64] | None
    camera: int


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """A model: lenses by their numbers, for the sizes that the images had, images, and points."""

    cameras: dict[int, Lens]
    images: list[Image]
    points: Points


def holds_model(folder: Path) -> bool:
    """Whether a folder has the files of a model."""
    return any((folder / f"cameras{end}").is_file() and (folder / f"images{end}").is_file() for end in (".bin", ".txt"))


def read_model(folder: Path) -> Reconstruction:
    """The model in a folder, binary files before text. ToolrollError for files that are not sound.

    Without points3D there are no points.
    """
    binary = all((folder / f"{name}.bin").is_file() for name in ("cameras", "images"))
    end = ".bin" if binary else ".txt"
    files = [folder / f"{name}{end}" for name in ("cameras", "images", "points3D")]
    points = files[2].is_file()
    if binary:
        cameras, images = _binary_cameras(files[0]), _binary_images(files[1])
        found = _binary_points(files[2]) if points else []
    else:
        cameras, images = _text_cameras(files[0]), _text_images(files[1])
        found = _text_points(files[2]) if points else []
    for image in images:
        if image.camera not in cameras:
            raise ToolrollError(f"{shown(image.name)}: no camera {image.camera}", place=str(files[1]))
    return Reconstruction(cameras, images, _points_of(found))


def write_model(
    folder: Path, images: Sequence[tuple[str, NDArray[np.float64], Lens]], points: Points, *, text: bool
) -> None:
    """Write a model: images by name, pose and lens, and points. Equal lenses become one camera.

    ToolrollError for names that such a file cannot have.
    """
    check_names([name for name, _, _ in images], text=text)
    lenses = list(dict.fromkeys(lens for _, _, lens in images))
    numbers = {lens: number for number, lens in enumerate(lenses, 1)}
    shots = [(name, quaternion(pose[:3, :3]), pose[:3, 3], numbers[lens]) for name, pose, lens in images]
    end, made = (".txt", _as_text(lenses, shots, points)) if text else (".bin", _as_binary(lenses, shots, points))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in zip(("cameras", "images", "points3D"), made, strict=True):
            write_atomically(folder / f"{name}{end}", data)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(folder)) from error


def check_names(names: Sequence[str], *, text: bool) -> None:
    """ToolrollError for a name with a blank, which COLMAP reads up to there in text, or with a line break."""
    for name in names:
        if any(letter in name for letter in (" \t\v\f\r\n" if text else "\r\n")):
            why = "COLMAP's text files have no blanks in names: take binary ones" if text else "has a line break"
            raise ToolrollError(why, place=shown(name))


def _pose(numbers: Sequence[float], shift: Sequence[float]) -> NDArray[np.float64] | None:
    if not np.isfinite([*numbers, *shift]).all() or not any(numbers):
        return None
    return rigid(np.concatenate([rotation(numbers), np.array(shift)[:, None]], 1))


def _points_of(rows: Sequence[tuple[float, ...]]) -> Points:
    if not rows:
        return Points.none()
    table = np.array(rows, float)
    return Points(table[:, :3], table[:, 3:].astype(np.uint8))


# --- binary


class _Bytes:
    """What is in a file, from its beginning to its end. ToolrollError where that comes too soon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise ToolrollError(reason(error), place=str(path)) from error
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Numbers, as struct names them."""
        form = struct.Struct("<" + layout)
        self.skip(form.size)
        return form.unpack_from(self.data, self.at - form.size)

    def skip(self, size: int) -> None:
        """Pass over some bytes."""
        if size > len(self.data) - self.at:
            raise ToolrollError("cut short", place=str(self.path))
        self.at += size

    def text(self) -> str:
        """A text that ends with a zero."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ToolrollError("cut short", place=str(self.path))
        found = self.data[self.at : end]
        self.at = end + 1
        return found.decode("utf-8", "surrogateescape")

    def count(self, least: int, what: str) -> int:
        """How many things follow, of `least` bytes or more each."""
        (count,) = self.take("Q")
        room = (len(self.data) - self.at) // least
        if count > room:
            why = f"says it has {count} {what}, and has room for {room}: cut short or damaged"
            raise ToolrollError(why, place=str(self.path))
        return int(count)


def _binary_cameras(path: Path) -> dict[int, Lens]:
    data = _Bytes(path)
    found = {}
    for _ in range(data.count(48, "cameras")):
        number, model, width, height = data.take("IiQQ")
        name = READ[model][0] if model in READ else OTHERS.get(model, f"number {model}")
        size = sum(READ[model][1:]) + 2 if model in READ else 0
        found[number] = lens_of(name, width, height, data.take(f"{size}d"), f"{path}: camera {number}")
    return found


def _binary_images(path: Path) -> list[Image]:
    data = _Bytes(path)
    found = []
    for _ in range(data.count(73, "images")):
        _, *numbers, camera = data.take("I7dI")
        name = data.text()
        found.append(Image(name, _pose(numbers[:4], numbers[4:]), camera))
        data.skip(24 * data.count(24, f"observations in {shown(name)}"))
    return found


def _binary_points(path: Path) -> list[tuple[float, ...]]:
    data = _Bytes(path)
    found = []
    for _ in range(data.count(51, "points")):
        _, *point, _ = data.take("Q3d3Bd")
        data.skip(8 * data.count(8, "steps of a track"))
        found.append(tuple(point))
    return found


def _as_binary(lenses: Sequence[Lens], shots: Sequence[Any], points: Points) -> tuple[bytes, bytes, bytes]:
    cameras, images = [struct.pack("<Q", len(lenses))], [struct.pack("<Q", len(shots))]
    for number, lens in enumerate(lenses, 1):
        model, numbers = numbers_of(lens)
        head = struct.pack("<IiQQ", number, NUMBERS[model], lens.width, lens.height)
        cameras.append(head + struct.pack(f"<{len(numbers)}d", *numbers))
    for number, (name, turn, shift, camera) in enumerate(shots, 1):
        head = struct.pack("<I7dI", number, *turn, *shift, camera)
        images.append(head + name.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<Q", 0))
    fields = [("id", "<u8"), ("place", "<f8", 3), ("colour", "u1", 3), ("error", "<f8"), ("track", "<u8")]
    table = np.zeros(len(points), fields)
    table["id"] = np.arange(1, len(points) + 1)
    table["place"], table["colour"] = points.places, points.colours
    return b"".join(cameras), b"".join(images), struct.pack("<Q", len(points)) + table.tobytes()


# --- text


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are no comments, with their numbers. Empty ones mean something in images.txt."""
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    if "\0" in text:
        raise ToolrollError("not a text file", place=str(path))
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#"):
            yield number, line.strip()


def _fields(path: Path, number: int, line: str, least: int) -> list[str]:
    fields = line.split()
    if len(fields) < least:
        raise ToolrollError(f"{len(fields)} fields, not {least}", place=f"{path}:{number}")
    return fields


def _numbers(path: Path, number: int, words: Sequence[str], kind: type[Any] = float) -> list[Any]:
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        raise ToolrollError(f"not a number in {' '.join(words)[:60]!r}", place=f"{path}:{number}") from error


def _text_cameras(path: Path) -> dict[int, Lens]:
    found = {}
    for number, line in _lines(path):
        if line:
            fields = _fields(path, number, line, 4)
            camera, width, height = _numbers(path, number, [fields[0], *fields[2:4]], int)
            numbers = _numbers(path, number, fields[4:])
            found[camera] = lens_of(fields[1], width, height, numbers, f"{path}:{number}")
    return found


def _text_images(path: Path) -> list[Image]:
    found = []
    lines = _lines(path)
    for number, line in lines:
        if line:
            _fields(path, number, line, 10)
            *fields, name = line.split(maxsplit=9)
            (camera,) = _numbers(path, number, fields[8:], int)
            numbers = _numbers(path, number, fields[1:8])
            found.append(Image(name, _pose(numbers[:4], numbers[4:]), camera))
            _observations(path, *next(lines, (number + 1, "")))
    return found


def _observations(path: Path, number: int, line: str) -> None:
    """The line behind an image: x, y and a point's number each, or empty. It must not be left out."""
    last = line.rpartition(" ")[2]
    even = (line.count(" ") + 1) % 3 == 0 or len(line.split()) % 3 == 0  # the former is fast, and mostly enough
    if line and not (even and last.lstrip("-").isdecimal()):
        why = "no observations, x, y and a number each: is the line behind an image, which may be empty, left out?"
        raise ToolrollError(why, place=f"{path}:{number}")


def _text_points(path: Path) -> list[tuple[float, ...]]:
    found = []
    for number, line in _lines(path):
        if line:
            fields = _fields(path, number, line, 8)
            place, colour = _numbers(path, number, fields[1:4]), _numbers(path, number, fields[4:7], int)
            if not all(0 <= one <= 255 for one in colour):
                raise ToolrollError("a colour that is not from 0 to 255", place=f"{path}:{number}")
            found.append((*place, *colour))
    return found


def _as_text(lenses: Sequence[Lens], shots: Sequence[Any], points: Points) -> tuple[bytes, bytes, bytes]:
    cameras, images, places = (
        ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"],
        [],
        ["# POINT3D_ID X Y Z R G B ERROR TRACK[]"],
    )
    for number, lens in enumerate(lenses, 1):
        model, numbers = numbers_of(lens)
        cameras.append(f"{number} {model} {lens.width} {lens.height} {_joined(numbers)}")
    images.append("# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a line of X Y POINT3D_ID")
    for number, (name, turn, shift, camera) in enumerate(shots, 1):
        images += [f"{number} {_joined([*turn, *shift])} {camera} {name}", ""]
    rows = zip(points.places.tolist(), points.colours.tolist(), strict=True)
    places += [f"{number} {_joined(place)} {_joined(colour)} 0" for number, (place, colour) in enumerate(rows, 1)]
    made = ("\n".join([*part, ""]).encode("utf-8", "surrogateescape") for part in (cameras, images, places))
    return tuple(made)  # type: ignore[return-value]


def _joined(numbers: Any) -> str:
    return " ".join(repr(float(one)) if isinstance(one, float) else str(int(one)) for one in numbers)
