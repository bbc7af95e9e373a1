"""Lenses: where rays meet a photo, the way back, and photos as a pinhole would have taken them.

Points are in the plane z = 1 of the camera, (x / z, y / z), before distortion and after; a pixel is (fx x + cx, fy y +
cy) of the latter. r^2 = x^2 + y^2. With k1, k2, p1, p2, k3, ... as FULL_OPENCV has them, and 0 where a model lacks one:

    bent = (x D + 2 p1 x y + p2 (r^2 + 2 x^2), y D + p1 (r^2 + 2 y^2) + 2 p2 x y)
    D = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)

OPENCV_FISHEYE: with t the angle to the axis, bent = (x, y) / r t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.splat.scene import Lens

Floats = NDArray[np.float64]
WIDEST = np.tan(np.radians(70))  #: half the field of view of a straightened fisheye is at most 70 degrees
BORDER = 65  #: points looked at on each side of a photo
ROWS = 64  #: rows of a photo that are straightened at a time
_ANGLES = np.linspace(0, np.radians(86), 2000)  # of the table that distortion is first inverted by
MOST = 1 << 24  #: pixels along a side of a photo, at most
LARGEST = 1e15  #: of the other numbers of a lens; the least of a focal length is 1 / LARGEST
_NUMBERS = {"SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "OPENCV_FISHEYE": 4, "FULL_OPENCV": 8}


def is_fisheye(lens: Lens) -> bool:
    """Whether angles are what is distorted."""
    return lens.model == "OPENCV_FISHEYE"


def eight(lens: Lens) -> Floats:
    """The distortion as eight numbers, 0 for those the model lacks."""
    return np.array([*lens.distortion, *[0.0] * 8][:8])


def checked(lens: Lens, place: str) -> Lens:
    """The same lens. ToolrollError where it can be none: sizes, focal lengths, or the number of its numbers."""
    limits = {"width": MOST, "height": MOST, "fx": LARGEST, "fy": LARGEST}
    wrong = next((name for name, most in limits.items() if not 1 / LARGEST <= getattr(lens, name) <= most), None)
    if wrong is not None:
        raise ToolrollError(f"{wrong} of a lens is {float(min(getattr(lens, wrong), 10**300)):g}", place=place)
    if not all(abs(number) <= LARGEST for number in (lens.cx, lens.cy, *lens.distortion)):
        raise ToolrollError(f"a lens has a number that is not finite, or beyond {LARGEST:g}", place=place)
    want = _NUMBERS.get(lens.model, 0)
    if len(lens.distortion) != want:
        raise ToolrollError(f"{lens.model} has {want} numbers of distortion, not {len(lens.distortion)}", place=place)
    return lens


def scaled(lens: Lens, width: int, height: int) -> Lens:
    """The lens for photos of another size. Each axis has a factor of its own.

    >>> scaled(Lens("PINHOLE", 3840, 2160, 3000.0, 3000.0, 1920.0, 1080.0), 960, 270)
    Lens(model='PINHOLE', width=960, height=270, fx=750.0, fy=375.0, cx=480.0, cy=135.0, distortion=())
    """
    if (width, height) == (lens.width, lens.height):
        return lens
    x, y = width / lens.width, height / lens.height
    return replace(lens, width=width, height=height, fx=lens.fx * x, fy=lens.fy * y, cx=lens.cx * x, cy=lens.cy * y)


def distort(lens: Lens, points: Floats) -> Floats:
    """Where points [..., 2] in front of a camera come to lie.

    >>> lens = Lens("SIMPLE_RADIAL", 4, 4, 1.0, 1.0, 2.0, 2.0, (0.2,))
    >>> distort(lens, np.array([0.5, 0.0])).tolist()
    [0.525, 0.0]
    """
    if is_fisheye(lens):
        radius = np.hypot(points[..., 0], points[..., 1])
        bent = _bend(lens, np.arctan(radius))
        return points * np.where(radius > 0, bent / np.where(radius > 0, radius, 1), 1)[..., None]
    return _bent(eight(lens), points)[0]


def undistort(lens: Lens, points: Floats) -> Floats:
    """The points [..., 2] that come to lie at `points`; NaN where none in front of the camera does."""
    if lens.straight:
        return points
    radius = np.hypot(points[..., 0], points[..., 1])
    straight = _unbend(lens, radius)
    if is_fisheye(lens):
        straight = np.where(straight < np.pi / 2, np.tan(straight), np.nan)
    start = points * np.where(radius > 0, straight / np.where(radius > 0, radius, 1), 1)[..., None]
    return start if is_fisheye(lens) else _newton(eight(lens), points, start)


def rays(lens: Lens, pixels: Floats) -> Floats:
    """Directions [..., 3] of length 1, in the camera's axes, of places [..., 2] in a photo. NaN where it has none.

    A fisheye sees behind itself, too.
    """
    points = (pixels - (lens.cx, lens.cy)) / (lens.fx, lens.fy)
    if not is_fisheye(lens):
        made = np.concatenate([undistort(lens, points), np.ones((*points.shape[:-1], 1))], -1)
        return np.asarray(made / np.linalg.norm(made, axis=-1, keepdims=True))
    radius = np.hypot(points[..., 0], points[..., 1])
    angle = _unbend(lens, radius)
    side = np.where(radius > 0, np.sin(angle) / np.where(radius > 0, radius, 1), 0)
    return np.concatenate([points * side[..., None], np.cos(angle)[..., None]], -1)


def pixels_of(lens: Lens, points: Floats) -> Floats:
    """Places [..., 2] in a photo of points [..., 2] in the plane z = 1, before distortion."""
    return np.asarray(distort(lens, points) * (lens.fx, lens.fy) + (lens.cx, lens.cy))


def straightened(lens: Lens) -> Lens:
    """The pinhole whose photo of the same size shows as much as it can without a pixel that the photo lacks.

    That is the rule that OpenCV calls alpha 0: the largest upright rectangle within the photo's straightened border.
    Photos keep their size, so that there is nothing to crop. ToolrollError where the axis is outside the photo.
    """
    if lens.straight:
        return replace(lens, model="PINHOLE", distortion=())
    wide, high = np.linspace(0, lens.width, BORDER), np.linspace(0, lens.height, BORDER)
    low, right, bottom = np.zeros(BORDER), np.full(BORDER, lens.width), np.full(BORDER, lens.height)
    sides = [(low, high), (right, high), (wide, low), (wide, bottom)]  # left, right, top, bottom
    border = (np.stack([np.stack(side, -1) for side in sides]) - (lens.cx, lens.cy)) / (lens.fx, lens.fy)
    reach = _reach(lens)
    found = undistort(lens, border)
    length = np.linalg.norm(border, axis=-1, keepdims=True)
    found = np.where(np.isnan(found), border / np.where(length > 0, length, 1) * reach, found)
    x0, x1, y0, y1 = found[0, :, 0].max(), found[1, :, 0].min(), found[2, :, 1].max(), found[3, :, 1].min()
    if not (x0 < 0 < x1 and y0 < 0 < y1):
        raise ToolrollError("its lens looks past its photo, or distorts it beyond repair")
    corner = np.hypot(max(-x0, x1), max(-y0, y1))
    fit = min(1.0, reach / corner)
    x0, x1, y0, y1 = (float(np.clip(side * fit, -WIDEST, WIDEST)) for side in (x0, x1, y0, y1))
    fx, fy = lens.width / (x1 - x0), lens.height / (y1 - y0)
    return replace(lens, model="PINHOLE", fx=fx, fy=fy, cx=-x0 * fx, cy=-y0 * fy, distortion=())


def straighten(photo: NDArray[Any], lens: Lens, *, nearest: bool = False) -> NDArray[Any]:
    """A photo [H, W] or [H, W, C] as `straightened(lens)` would have taken it. Masks want `nearest`, others bilinear.

    Integers are rounded. A pinhole's photo comes back as it is.
    """
    if lens.straight:
        return photo
    target = straightened(lens)
    made = np.empty_like(photo)
    across = np.arange(target.width) + 0.5
    for first in range(0, target.height, ROWS):
        rows = np.arange(first, min(first + ROWS, target.height)) + 0.5
        x, y = np.broadcast_arrays((across - target.cx) / target.fx, ((rows - target.cy) / target.fy)[:, None])
        places = pixels_of(lens, np.stack([x, y], -1))
        made[first : first + len(rows)] = (_nearest if nearest else _bilinear)(photo, places)
    return made


def _nearest(photo: NDArray[Any], places: Floats) -> NDArray[Any]:
    height, width = photo.shape[:2]
    x = np.clip(np.floor(places[..., 0]), 0, width - 1).astype(np.intp)
    y = np.clip(np.floor(places[..., 1]), 0, height - 1).astype(np.intp)
    return np.asarray(photo[y, x])


def _bilinear(photo: NDArray[Any], places: Floats) -> NDArray[Any]:
    height, width = photo.shape[:2]
    x = np.clip(places[..., 0] - 0.5, 0, width - 1)
    y = np.clip(places[..., 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left).astype(np.float32), (y - top).astype(np.float32)
    if photo.ndim == 3:
        u, v = u[..., None], v[..., None]
    upper = photo[top, left] * (1 - u) + photo[top, right] * u
    lower = photo[low, left] * (1 - u) + photo[low, right] * u
    mixed = upper * (1 - v) + lower * v
    return np.asarray(np.rint(mixed) if np.issubdtype(photo.dtype, np.integer) else mixed)


def _bend(lens: Lens, rho: Floats) -> Floats:
    """The distorted radius by the radius, or for a fisheye by the angle, along a ray without tangential distortion."""
    k = eight(lens)
    q = rho * rho
    if is_fisheye(lens):
        return np.asarray(rho * (1 + q * (k[0] + q * (k[1] + q * (k[2] + q * k[3])))))
    with np.errstate(all="ignore"):
        return np.asarray(rho * (1 + q * (k[0] + q * (k[1] + q * k[4]))) / (1 + q * (k[5] + q * (k[6] + q * k[7]))))


def _table(lens: Lens) -> tuple[Floats, Floats]:
    """Radii, or angles, and where they come to lie, as far as the latter grow."""
    rho = 2 * _ANGLES if is_fisheye(lens) else np.tan(_ANGLES)  # a fisheye may see what is behind it
    bent = _bend(lens, rho)
    with np.errstate(invalid="ignore"):
        falls = np.flatnonzero(~(np.diff(bent) > 0))
    end = int(falls[0]) + 1 if len(falls) else len(rho)
    return rho[:end], bent[:end]


def _reach(lens: Lens) -> float:
    """The radius in the plane z = 1 from which on distortion folds the picture over, or beyond which nothing counts."""
    rho, _ = _table(lens)
    last = float(rho[-1])
    return float(np.tan(min(last, float(_ANGLES[-1])))) if is_fisheye(lens) else last


def _unbend(lens: Lens, bent: Floats) -> Floats:
    """The inverse of `_bend`, NaN where there is none: exact to the last digits for a fisheye, else a start."""
    rho, table = _table(lens)
    found = np.interp(bent, table, rho, right=np.nan)
    if not is_fisheye(lens):
        return np.asarray(found)
    k = eight(lens)[:4]
    for _ in range(6):
        q = found * found
        slope = 1 + q * (3 * k[0] + q * (5 * k[1] + q * (7 * k[2] + q * 9 * k[3])))
        found = found - (_bend(lens, found) - bent) / np.where(slope > 1e-9, slope, 1)
    return np.asarray(found)


def _bent(k: Floats, points: Floats) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """Distorted points, and their derivatives dx/dx, dx/dy = dy/dx, dy/dy."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    x, y = points[..., 0], points[..., 1]
    q = x * x + y * y
    above, below = 1 + q * (k1 + q * (k2 + q * k3)), 1 + q * (k4 + q * (k5 + q * k6))
    d = above / below
    slope = (k1 + q * (2 * k2 + q * 3 * k3) - d * (k4 + q * (2 * k5 + q * 3 * k6))) / below
    made = np.stack([x * d + 2 * p1 * x * y + p2 * (q + 2 * x * x), y * d + p1 * (q + 2 * y * y) + 2 * p2 * x * y], -1)
    by_x = d + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    by_y = d + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return made, (by_x, mixed, by_y)


def _newton(k: Floats, target: Floats, start: Floats) -> Floats:
    """The points that come to lie at `target`, by Newton's steps from points near them; NaN where that fails."""
    points = start
    with np.errstate(all="ignore"):
        for _ in range(12):
            made, (a, b, c) = _bent(k, points)
            miss = made - target
            if np.nan_to_num(np.abs(miss)).max(initial=0) < 1e-14:
                break
            det = a * c - b * b
            step = np.stack([c * miss[..., 0] - b * miss[..., 1], a * miss[..., 1] - b * miss[..., 0]], -1)
            points = points - step / det[..., None]
        miss = np.abs(_bent(k, points)[0] - target).max(-1)
        return np.where((miss < 1e-9)[..., None], points, np.nan)
