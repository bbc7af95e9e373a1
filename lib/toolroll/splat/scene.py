"""A scene: photos, the cameras that took them, and points that were found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Model = Literal[
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV"
]  # as COLMAP names them; with the focal lengths and the distortion spelled out, the first two are one
Part = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens, for pictures of width x height pixels.

    fx, fy, cx, cy in pixels; pixel (i, j) has its middle at (i + .5, j + .5). distortion: the numbers of `model`, in
    COLMAP's order: () | (k,) | (k1, k2) | (k1, k2, p1, p2) | (k1, k2, k3, k4) | (k1, k2, p1, p2, k3, k4, k5, k6).
    """

    model: Model
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @property
    def straight(self) -> bool:
        """Whether it is a pinhole."""
        return self.model != "OPENCV_FISHEYE" and not any(self.distortion)


@dataclass(frozen=True, slots=True)
class Shot:
    """A photo and its camera.

    name: of the file, as the scene has it, without its folder. pose: float64 [4, 4], world to camera; the camera looks
    along +z, x right, y down. lens: for the size that the photo has on disk. mask: a picture that is black where the
    photo does not count, or None.
    """

    name: str
    path: Path
    pose: NDArray[np.float64]
    lens: Lens
    mask: Path | None = None
    part: Part | None = None  #: what the scene itself says


@dataclass(frozen=True, slots=True)
class Points:
    """Points in the world: places float64 [P, 3] and colours uint8 [P, 3]."""

    places: NDArray[np.float64]
    colours: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def none(cls) -> Points:
        """No points."""
        return cls(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene in the world that its files have. Shots are sorted by name.

    source: what kind of files it was read from. warnings: what was found wrong with it and passed over.
    """

    root: Path
    source: str
    shots: Sequence[Shot]
    points: Points
    warnings: Sequence[str] = field(default=())
