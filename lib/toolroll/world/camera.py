"""Where a point of a scene falls in the image, and where the camera stood, found back from that.

Image coordinates are continuous: x runs from 0 at the left edge to the width at the right one, y downward from 0 to
the height, and pixel (column, row) covers [column, column + 1) x [row, row + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolroll.world.constants import CAMERA, FOCAL

if TYPE_CHECKING:
    import numpy as np

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera at `position` that looks at `target` with the horizon level."""

    position: Point = CAMERA
    target: Point = (0.0, 0.0, 0.0)

    def axes(self) -> tuple[Point, Point, Point]:
        """Unit vectors to the right, upward and forward of the image.

        >>> Camera((0, -2, 0)).axes()[2]
        (0.0, 1.0, 0.0)
        """
        forward = _unit(_minus(self.target, self.position))
        right = _unit((forward[1], -forward[0], 0.0))
        return right, _cross(right, forward), forward

    def directions(self) -> dict[str, Point]:
        """CLEVR's six directions along the ground, as this camera sees them."""
        right, _, forward = self.axes()
        behind = _unit((forward[0], forward[1], 0.0))
        found = {"right": right, "behind": behind, "above": (0.0, 0.0, 1.0)}
        opposite = {"left": "right", "front": "behind", "below": "above"}
        return found | {name: _times(-1.0, found[of]) for name, of in opposite.items()}

    def project(self, point: Sequence[float], width: int, height: int) -> Point:
        """Image x, image y and depth (distance along the view) of a point.

        x = width / 2 + F (p - c).right / depth,  y = height / 2 - F (p - c).up / depth,  depth = (p - c).forward,
        with F = 35 / 32 of the longer side of the image, in pixels.

        >>> [round(part, 4) for part in Camera().project((0, 0, 0), 320, 240)]
        [160.0, 120.0, 11.2637]
        """
        right, up, forward = self.axes()
        ray = _minus(point, self.position)
        depth = _dot(ray, forward)
        scale = FOCAL * max(width, height) / depth
        return width / 2 + scale * _dot(ray, right), height / 2 - scale * _dot(ray, up), depth


def recovered(
    points: Sequence[Sequence[float]], seen: Sequence[Sequence[float]], sizes: Sequence[tuple[int, int]]
) -> tuple[Camera, tuple[int, int], float]:
    """The camera that saw `points` at `seen` (image x, y and depth each), the size of its image, and the error.

    CLEVR's cameras look at the origin, so three numbers are to be found; Gauss-Newton finds them from the default
    camera on. The error is the largest distance in pixels. CLEVR rounds x and y to whole pixels, so up to 0.75 is a
    sound answer. Of the `sizes` that which fits best is taken.
    """
    fits = [(*_fit(points, seen, size), size) for size in sizes]
    error, position, size = min(fits, key=lambda fit: fit[0])
    return Camera(position), size, error


def _fit(
    points: Sequence[Sequence[float]], seen: Sequence[Sequence[float]], size: tuple[int, int]
) -> tuple[float, Point]:
    """The largest error in pixels, and the position of the camera."""
    import numpy as np

    target = np.array(seen, dtype=float)
    weights = np.array([1.0, 1.0, 1e4])  # CLEVR's depths are exact to six digits, its pixels are rounded

    def errors(position: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        camera = Camera((float(position[0]), float(position[1]), float(position[2])))
        found: np.ndarray[Any, Any] = np.array([camera.project(point, *size) for point in points]) - target
        found *= weights
        return found

    where = np.array(CAMERA)
    for _ in range(30):
        now = errors(where).ravel()
        step = 1e-6
        slopes = np.stack([(errors(where + step * axis).ravel() - now) / step for axis in np.eye(3)], axis=1)
        move = np.linalg.lstsq(slopes, now, rcond=None)[0]
        where = where - move
        if not np.isfinite(where).all() or np.abs(where).max() > 1e3:
            return math.inf, CAMERA
        if np.abs(move).max() < 1e-9:
            break
    found = errors(where) / weights
    worst = max(float(np.hypot(found[:, 0], found[:, 1]).max()), float(np.abs(found[:, 2]).max()) * 100)
    return worst, (float(where[0]), float(where[1]), float(where[2]))


def _minus(a: Sequence[float], b: Sequence[float]) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _times(factor: float, a: Point) -> Point:
    return factor * a[0], factor * a[1], factor * a[2]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _unit(a: Point) -> Point:
    return _times(1 / math.sqrt(_dot(a, a)), a)
