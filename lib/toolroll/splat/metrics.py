"""PSNR and SSIM of two pictures, in plain numpy and double precision.

A picture is [H, W, 3] in [0, 1]; values beyond are clipped. Means are over all pixels and channels, or over those of a
mask, bool [H, W].
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import RowError

Border = Literal["valid", "same"]
BORDERS: tuple[Border, ...] = ("valid", "same")
Array = NDArray[Any]
SIZE, DEVIATION = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
_BELL = np.exp(-((np.arange(SIZE) - SIZE // 2) ** 2) / (2 * DEVIATION**2))
TAPS = _BELL / _BELL.sum()


def in_bytes(picture: Array) -> Array:
    """The picture as one of 8 bits would have it: rounded to multiples of 1/255."""
    rounded: Array = np.round(np.clip(picture, 0, 1) * 255) / 255
    return rounded


def mse(one: Array, other: Array, mask: Array | None = None) -> float:
    """Mean squared error. RowError for pictures of different sizes, or a mask without a pixel."""
    a, b = _pair(one, other)
    squares = (a - b) ** 2
    return float(squares.mean() if mask is None else _masked(squares, mask).mean())


def psnr(one: Array, other: Array, mask: Array | None = None) -> float:
    """Peak signal to noise in dB, -10 log10(MSE); infinite for equal pictures.

    >>> round(psnr(np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.1)), 6)
    20.0
    """
    error = mse(one, other, mask)
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(one: Array, other: Array, border: Border = "valid", mask: Array | None = None) -> float:
    """Structural similarity under an 11 x 11 Gaussian of deviation 1.5, K1 .01, K2 .03 (Wang et al. 2004).

    border: valid takes windows that lie inside, same one at each pixel, with zeros around the picture, as the code of
    3D Gaussian splatting does. With a mask, windows count whose middle is in it. RowError for pictures of less than
    11 x 11 with valid, and for a mask without such a middle: see `has_window`.
    """
    a, b = _pair(one, other)
    if border == "same":
        edge = ((SIZE // 2, SIZE // 2), (SIZE // 2, SIZE // 2), (0, 0))
        a, b = np.pad(a, edge), np.pad(b, edge)
    if min(a.shape[:2]) < SIZE:
        raise RowError(f"a picture of {one.shape[1]} x {one.shape[0]} has no window of {SIZE} x {SIZE} for SSIM")
    m, n = _blurred(a), _blurred(b)
    s, t, u = _blurred(a * a) - m * m, _blurred(b * b) - n * n, _blurred(a * b) - m * n
    made = (2 * m * n + C1) * (2 * u + C2) / ((m * m + n * n + C1) * (s + t + C2))
    return float(made.mean() if mask is None else _masked(made, _middles(mask, border)).mean())


def has_window(height: int, width: int, border: Border, mask: Array | None = None) -> bool:
    """Whether `ssim` has a window to look at.

    >>> has_window(11, 11, "valid"), has_window(10, 64, "valid"), has_window(10, 64, "same")
    (True, False, True)
    """
    if border == "valid" and min(height, width) < SIZE:
        return False
    return mask is None or bool(_middles(mask, border).any())


def _middles(mask: Array, border: Border) -> Array:
    """The mask where windows have their middles."""
    edge = SIZE // 2
    return mask if border == "same" else mask[edge : len(mask) - edge, edge : mask.shape[1] - edge]


def _pair(one: Array, other: Array) -> tuple[Array, Array]:
    if one.shape != other.shape:
        sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in (one, other))
        raise RowError(f"the pictures are of different sizes, {sizes}")
    return np.clip(one.astype(np.float64), 0, 1), np.clip(other.astype(np.float64), 0, 1)


def _masked(values: Array, mask: Array) -> Array:
    if not mask.any():
        raise RowError("the mask has no pixel that counts")
    found: Array = values[mask]
    return found


def _blurred(picture: Array) -> Array:
    height, width = picture.shape[0] - SIZE + 1, picture.shape[1] - SIZE + 1
    down = sum(tap * picture[k : k + height] for k, tap in enumerate(TAPS))
    made: Array = sum(tap * down[:, k : k + width] for k, tap in enumerate(TAPS))
    return made
