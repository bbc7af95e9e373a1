"""transforms.json as nerfstudio, instant-ngp and Blender's scenes have it, read; and as nerfstudio has it, written.

Matrices are camera to world, in the axes of OpenGL: x right, y up, z back. The lens is for photos of `w` x `h`, which
are often larger than those on the disk. Where there is no `fl_x`, `camera_angle_x` gives the focal length for any size.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import put, reason
from toolroll.splat.entries import Entry, bare, is_name, name_of, shown
from toolroll.splat.lenses import checked, eight, scaled
from toolroll.splat.poses import FAR, from_opengl, rigid, to_opengl
from toolroll.splat.scene import Lens, Part, Shot
from toolroll.splat.splitting import PARTS, matched

#: Of files from before 19 January 2024, and what nerfstudio takes for one that does not say.
OLD = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
NEW = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])  #: of later files
BLENDER = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_PERSPECTIVE = ("", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_CROP = "fisheye_crop_radius"


@dataclass(frozen=True, slots=True)
class Transforms:
    """What a file says. applied: [3, 4], COLMAP's world to this one, then times scale; points: name of a PLY file.

    cropped: whether it says how much of a fisheye's photos counts.
    """

    source: str
    frames: list[Entry]
    applied: NDArray[np.float64] | None = None
    scale: float = 1.0
    points: str | None = None
    cropped: bool = False


def read_transforms(path: Path, part: Part | None = None) -> Transforms:
    """What is in a transforms.json. ToolrollError where it is not sound; poses that are none are None in their frames.

    `part` is that of all frames of the file; else it is in the file's lists. Without one to train on, that is for all
    that are in no other.
    """
    data = _object(path)
    place = str(path)
    frames = data.get("frames")
    if not isinstance(frames, list) or not all(isinstance(one, dict) for one in frames):
        raise ToolrollError("no list of `frames`", place=place)
    parts = _parts(data, [frame.get("file_path") for frame in frames], place)
    found = []
    for number, frame in enumerate(frames):
        file, mask = frame.get("file_path"), frame.get("mask_path")
        if not is_name(file):
            raise ToolrollError("no `file_path`", place=f"{place}: frame {number}")
        matrix = rigid(frame.get("transform_matrix"))
        found.append(
            Entry(
                file,
                None if matrix is None else from_opengl(matrix),
                *lens_rule({**data, **frame}, f"{place}: {shown(file)}"),
                mask if is_name(mask) else None,
                part or parts.get(name_of(file)),
            )
        )
    ply = data.get("ply_file_path")
    return Transforms(
        _source(path, data),
        found,
        _applied(data, place),
        _scale(data, place),
        ply if is_name(ply) else None,
        _CROP in data or any(_CROP in frame for frame in frames),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    except UnicodeDecodeError as error:
        raise ToolrollError("not JSON: not a text file", place=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ToolrollError(f"not JSON: {error}", place=str(path)) from error
    if not isinstance(data, dict):
        raise ToolrollError("not an object of JSON", place=str(path))
    return data


def _source(path: Path, data: Mapping[str, Any]) -> str:
    if path.name in BLENDER:
        return "blender"
    own = "aabb_scale" in data or ("camera_angle_x" in data and "applied_transform" not in data)
    return "instant-ngp" if own else "nerfstudio"


def _parts(data: Mapping[str, Any], files: Sequence[Any], place: str) -> dict[str, Part]:
    """The parts of photos by their names, as far as the file says."""
    lists: dict[Part, list[str]] = {}
    for part in PARTS:
        listed = data.get(f"{part}_filenames", [])
        if not isinstance(listed, list) or not all(isinstance(file, str) for file in listed):
            raise ToolrollError(f"{part}_filenames is not a list of names", place=place)
        lists[part] = listed
    names = [name_of(file) for file in files if is_name(file)]
    found = matched(names, lists)
    return found if lists["train"] or not found else {name: found.get(name, "train") for name in names}


def _applied(data: Mapping[str, Any], place: str) -> NDArray[np.float64] | None:
    if "applied_transform" not in data:
        return None
    try:
        step = np.asarray(data["applied_transform"], float)
    except (TypeError, ValueError, OverflowError):
        step = np.zeros(0)
    if step.shape not in ((3, 4), (4, 4)) or not (np.abs(step) <= FAR).all():
        raise ToolrollError("applied_transform is not 3x4 numbers", place=place)
    return step[:3]


def _scale(data: Mapping[str, Any], place: str) -> float:
    scale = _number(data, "applied_scale", place)
    if scale is not None and not 0 < scale <= FAR:
        raise ToolrollError(f"applied_scale is {scale:g}", place=place)
    return 1.0 if scale is None else scale


def _number(data: Mapping[str, Any], name: str, place: str, default: float | None = None) -> float | None:
    value = data.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ToolrollError(f"{name} is not a number", place=place)
    return float(value)


# --- lenses


def lens_rule(data: Mapping[str, Any], place: str) -> tuple[Callable[[int, int], Lens], tuple[int, int] | None]:
    """What the lens of a frame is, by the real size of its photo, and the size it is told for, or None.

    ToolrollError for numbers that can be no lens.

    >>> rule, _ = lens_rule({"w": 200, "h": 100, "fl_x": 50, "k1": 0.1, "camera_model": "SIMPLE_RADIAL"}, "")
    >>> rule(100, 50)
    Lens(model='SIMPLE_RADIAL', width=100, height=50, fx=25.0, fy=25.0, cx=50.0, cy=25.0, distortion=(0.1,))
    """
    numbers = {name: _number(data, name, place) for name in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    angles = (_number(data, "camera_angle_x", place), _number(data, "camera_angle_y", place))
    if numbers["fl_x"] is None and numbers["fl_y"] is None and angles == (None, None):
        raise ToolrollError("no focal length: neither fl_x nor camera_angle_x", place=place)
    if any(angle is not None and not 0 < angle < math.pi for angle in angles):
        raise ToolrollError("camera_angle_x and _y are not from 0 to pi", place=place)
    model, distortion = _bending(data, place)
    if (numbers["w"] is None) != (numbers["h"] is None):
        raise ToolrollError("one of w and h is missing", place=place)
    make = partial(_lens, model, distortion, numbers, angles, place)
    if numbers["w"] is None or numbers["h"] is None:
        return make, None
    width, height = int(numbers["w"]), int(numbers["h"])
    return partial(scaled, make(width, height)), (width, height)


def _lens(
    model: Any,
    distortion: tuple[float, ...],
    numbers: Mapping[str, float | None],
    angles: Sequence[float | None],
    place: str,
    width: int,
    height: int,
) -> Lens:
    fx, fy = numbers["fl_x"], numbers["fl_y"]
    if fx is None and angles[0] is not None:
        fx = width / 2 / math.tan(angles[0] / 2)
    if fy is None and angles[1] is not None:
        fy = height / 2 / math.tan(angles[1] / 2)
    fx, fy = (fy if fx is None else fx), (fx if fy is None else fy)
    assert fx is not None
    assert fy is not None
    cx, cy = numbers["cx"], numbers["cy"]
    cx, cy = (width / 2 if cx is None else cx), (height / 2 if cy is None else cy)
    return checked(Lens(model, width, height, fx, fy, cx, cy, distortion), place)


def _bending(data: Mapping[str, Any], place: str) -> tuple[str, tuple[float, ...]]:
    """The model and its numbers: the one that is named, or one that has all the numbers there are."""
    name = data.get("camera_model", "OPENCV_FISHEYE" if data.get("is_fisheye") else "")
    named = str(name).upper()
    k = [_number(data, key, place, 0.0) or 0.0 for key in _DISTORTION]
    if named in _FISHEYE:
        return "OPENCV_FISHEYE", (k[0], k[1], k[4], k[5])
    if named not in _PERSPECTIVE:
        known = ", ".join([*_PERSPECTIVE[1:-1], _FISHEYE[0]])
        raise ToolrollError(f"camera_model {shown(str(name))} is not supported, but {known}", place=place)
    needs = next((count for count, rest in ((0, k), (1, k[1:]), (2, k[2:]), (4, k[4:])) if not any(rest)), 8)
    has = {"SIMPLE_PINHOLE": 0, "PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "FULL_OPENCV": 8}.get(named)
    if has is not None and needs <= has:
        return named, tuple(k[:has])
    model, size = next(pair for pair in (("PINHOLE", 0), ("OPENCV", 4), ("FULL_OPENCV", 8)) if needs <= pair[1])
    return model, tuple(k[:size])


# --- writing


def write_transforms(
    path: Path, shots: Sequence[Shot], *, folder: str = "images", masks: str = "masks", points: str | None = None
) -> None:
    """Write a transforms.json as nerfstudio has it, for photos in `folder`/name and masks in `masks`/name.

    The world stays the one of the shots, so that applied_transform is written as one that does nothing. Parts become
    train_filenames and so on. Lenses are in the frames where there is more than one.
    """
    lenses = {shot.lens for shot in shots}
    data: dict[str, Any] = _keys(shots[0].lens) if len(lenses) == 1 else {}
    data["applied_transform"] = np.eye(4)[:3].tolist()
    if points is not None:
        data["ply_file_path"] = points
    for part in ("train", "val", "test"):
        if any(shot.part is not None for shot in shots):
            data[f"{part}_filenames"] = [f"{folder}/{shot.name}" for shot in shots if shot.part == part]
    data["frames"] = [
        {
            "file_path": f"{folder}/{shot.name}",
            "transform_matrix": to_opengl(shot.pose).tolist(),
            **({} if shot.mask is None else {"mask_path": f"{masks}/{mask}"}),
            **({} if len(lenses) == 1 else _keys(shot.lens)),
        }
        for shot, mask in zip(shots, mask_names(shots), strict=True)
    ]
    put(path, json.dumps(data, indent=1).encode("utf-8", "surrogateescape") + b"\n")


def mask_names(shots: Sequence[Shot]) -> list[str]:
    """What the masks of shots are called: as their photos, but with a mask's own suffix.

    That is put behind the photo's where two would have one name, as COLMAP has it.

    >>> lens = Lens("PINHOLE", 2, 2, 1, 1, 1, 1)
    >>> shots = [Shot(name, Path(name), np.eye(4), lens, Path("m.png")) for name in ("l/a.jpg", "b.jpg", "b.png")]
    >>> mask_names(shots)
    ['l/a.png', 'b.jpg.png', 'b.png.png']
    """
    suffixes = ["" if shot.mask is None else shot.mask.suffix for shot in shots]
    short = [bare(shot.name) + suffix for shot, suffix in zip(shots, suffixes, strict=True)]
    count = Counter(name for shot, name in zip(shots, short, strict=True) if shot.mask is not None)
    alike = zip(shots, short, suffixes, strict=True)
    return [f"{shot.name}{suffix}" if count[name] > 1 else name for shot, name, suffix in alike]


def _keys(lens: Lens) -> dict[str, Any]:
    made: dict[str, Any] = {
        "w": lens.width,
        "h": lens.height,
        "fl_x": lens.fx,
        "fl_y": lens.fy,
        "cx": lens.cx,
        "cy": lens.cy,
    }
    numbers = eight(lens).tolist()
    if lens.model == "OPENCV_FISHEYE":
        made |= dict(zip(("k1", "k2", "k3", "k4"), numbers, strict=False))
        return {**made, "camera_model": lens.model}
    wide = len(lens.distortion) > 4 and any(numbers[4:])
    made |= dict(zip(_DISTORTION, numbers[: 8 if wide else 4], strict=False))
    model = "OPENCV" if lens.model == "FULL_OPENCV" and not any(numbers[6:]) else lens.model
    return {**made, "camera_model": model}
