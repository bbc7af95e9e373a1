"""COLMAP's models of cameras: their numbers in files, and lenses from and to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolroll.errors import ToolrollError
from toolroll.splat.entries import shown
from toolroll.splat.lenses import checked, eight
from toolroll.splat.scene import Lens

#: COLMAP's numbers of models; how many focal lengths and how many numbers of distortion.
MODELS: dict[int, tuple[str, int, int]] = {
    0: ("SIMPLE_PINHOLE", 1, 0),
    1: ("PINHOLE", 2, 0),
    2: ("SIMPLE_RADIAL", 1, 1),
    3: ("RADIAL", 1, 2),
    4: ("OPENCV", 2, 4),
    5: ("OPENCV_FISHEYE", 2, 4),
    6: ("FULL_OPENCV", 2, 8),
}
#: Models that are read as OPENCV_FISHEYE, whose other numbers of distortion are 0.
FISHEYES: dict[int, tuple[str, int, int]] = {
    8: ("SIMPLE_RADIAL_FISHEYE", 1, 1),
    9: ("RADIAL_FISHEYE", 1, 2),
    14: ("SIMPLE_FISHEYE", 1, 0),
    15: ("FISHEYE", 2, 0),
}
READ = {**MODELS, **FISHEYES}
OTHERS = {
    7: "FOV",
    10: "THIN_PRISM_FISHEYE",
    11: "RAD_TAN_THIN_PRISM_FISHEYE",
    12: "SIMPLE_DIVISION",
    13: "DIVISION",
    16: "EUCM",
    17: "EQUIRECTANGULAR",
}
NUMBERS = {name: number for number, (name, _, _) in READ.items()}
_WIDE = {"SIMPLE_PINHOLE": "PINHOLE", "SIMPLE_RADIAL": "OPENCV", "RADIAL": "OPENCV"}  # with two focal lengths


def lens_of(model: str, width: int, height: int, numbers: Sequence[float], place: str) -> Lens:
    """The lens of COLMAP's numbers. ToolrollError, at `place`, for models and numbers that cannot be."""
    if model not in NUMBERS:
        raise ToolrollError(f"camera model {shown(model)} is not supported, but {', '.join(NUMBERS)}", place=place)
    _, focals, more = READ[NUMBERS[model]]
    if len(numbers) != focals + 2 + more:
        raise ToolrollError(f"{model} has {focals + 2 + more} numbers, not {len(numbers)}", place=place)
    fx, fy, (cx, cy) = numbers[0], numbers[focals - 1], numbers[focals : focals + 2]
    distortion = tuple(numbers[focals + 2 :])
    if NUMBERS[model] in FISHEYES:
        model, distortion = "OPENCV_FISHEYE", (*distortion, *[0.0] * 4)[:4]
    return checked(Lens(model, width, height, fx, fy, cx, cy, distortion), place)  # type: ignore[arg-type]


def numbers_of(lens: Lens) -> tuple[str, list[float]]:
    """COLMAP's model and numbers of a lens. Models with one focal length become wider ones where it has two."""
    if lens.fx != lens.fy and lens.model in _WIDE:
        wide = _WIDE[lens.model]
        more = MODELS[NUMBERS[wide]][2]
        lens = replace(lens, model=wide, distortion=tuple(eight(lens)[:more].tolist()))  # type: ignore[arg-type]
    focals = [lens.fx] if MODELS[NUMBERS[lens.model]][1] == 1 else [lens.fx, lens.fy]
    return lens.model, [*focals, lens.cx, lens.cy, *lens.distortion]
