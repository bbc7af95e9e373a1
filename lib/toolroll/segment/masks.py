"""Masks as COCO writes them: run lengths, plain or as text, and polygons.

A mask [H, W] is read column by column. Run lengths begin with the number of pixels that are off. As text each number,
from the fourth on as its difference to the one before the last, is in groups of five bits, lowest first, in characters
from "0" on; bit 5 says that more follow. The rules are those of COCO's maskApi.c, to the pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import RowError

Mask = NDArray[np.bool_]
Rle = dict[str, Any]
FAR = 2**17  #: pixels; a polygon is drawn point by point, so one that goes further is taken for an attack
MOST = 2**28  #: pixels of a mask; as of an image, more are taken for an attack


def counts_of(mask: Mask) -> list[int]:
    """The run lengths of a mask, pixels that are off first.

    >>> counts_of(np.array([[0, 1], [1, 1]], bool))
    [1, 3]
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def text_of(counts: Sequence[int]) -> str:
    """Run lengths as COCO's text.

    >>> text_of([1, 3])
    '13'
    """
    made = []
    for place, count in enumerate(counts):
        number = int(count) - (int(counts[place - 2]) if place > 2 else 0)
        while True:
            bits = number & 31
            number >>= 5
            done = number == (-1 if bits & 16 else 0)
            made.append(chr(48 + (bits if done else bits | 32)))
            if done:
                break
    return "".join(made)


def read_counts(text: str) -> list[int]:
    """Run lengths out of COCO's text. RowError for what is none."""
    counts: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise RowError("a mask's run lengths have a character that is none of COCO's")
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise RowError("a mask's run lengths end within a number")
    return counts


def encode(mask: Mask) -> Rle:
    """A mask [H, W] as {"size": [H, W], "counts": text}."""
    height, width = mask.shape
    return {"size": [int(height), int(width)], "counts": text_of(counts_of(mask))}


def decode(rle: Mapping[str, Any]) -> Mask:
    """The mask [H, W] of run lengths, as text or as a list. RowError where they are not sound."""
    try:
        height, width = (int(side) for side in rle["size"])
        given = rle["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RowError("a mask has no `size` [height, width] and `counts`") from error
    counts = read_counts(given) if isinstance(given, str) else given
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise RowError("a mask's `counts` are no run lengths")
    if height * width > MOST:
        raise RowError(f"a mask of {height} x {width} pixels is too large")
    if min(height, width) < 1 or sum(counts) != height * width:
        raise RowError(f"a mask of {height} x {width} pixels has run lengths of {sum(counts)}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((width, height)).T


def fill(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The mask [H, W] that lies in any of the polygons, each x, y, x, y, ... in pixels from the upper left corner.

    As COCO does it, on a grid five times as fine: not what most drawing libraries fill.
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        try:
            points = np.asarray(polygon, float)
        except (TypeError, ValueError, OverflowError) as error:
            raise RowError("a polygon is no list of three or more points x, y") from error
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
            raise RowError("a polygon is no list of three or more points x, y")
        if np.abs(points).max() > FAR:
            raise RowError(f"a polygon has a point {np.abs(points).max():g} pixels away")
        mask |= _filled(points.reshape(-1, 2), height, width)
    return mask


def _filled(points: NDArray[np.float64], height: int, width: int) -> Mask:
    scale = 5.0
    fine = np.trunc(scale * points + 0.5).astype(np.int64)
    pieces = [_line(begin, end) for begin, end in zip(fine, np.roll(fine, -1, axis=0), strict=True)]
    across = np.concatenate([piece[0] for piece in pieces])
    down = np.concatenate([piece[1] for piece in pieces])
    now, before = across[1:], across[:-1]
    columns = (np.where(now < before, now, now - 1) + 0.5) / scale - 0.5
    rows = (np.minimum(down[1:], down[:-1]) + 0.5) / scale - 0.5
    kept = (now != before) & (np.floor(columns) == columns) & (columns >= 0) & (columns <= width - 1)
    places = columns[kept].astype(np.int64) * height + np.ceil(np.clip(rows[kept], 0, height)).astype(np.int64)
    switched = np.bincount(places, minlength=height * width + 1)[: height * width].cumsum() % 2 == 1
    filled: Mask = switched.reshape((width, height)).T
    return filled


def _line(begin: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All points of the fine grid on a line, from `begin` to `end`."""
    x0, y0, x1, y1 = int(begin[0]), int(begin[1]), int(end[0]), int(end[1])
    dx, dy = abs(x1 - x0), abs(y1 - y0)
    flat = dx >= dy
    flip = x0 > x1 if flat else y0 > y1
    if flip:
        x0, y0, x1, y1 = x1, y1, x0, y0
    steps = np.arange((dx if flat else dy) + 1)
    if flip:
        steps = steps[::-1]
    if flat:
        slope = (y1 - y0) / dx if dx else 0.0
        return steps + x0, np.trunc(y0 + slope * steps + 0.5).astype(np.int64)
    slope = (x1 - x0) / dy
    return np.trunc(x0 + slope * steps + 0.5).astype(np.int64), steps + y0


def read_segmentation(given: Any, height: int, width: int) -> Mask:
    """The mask of COCO's `segmentation`, whichever of its three forms it has, in an image of this size."""
    if isinstance(given, list):
        return fill(given, height, width)
    if not isinstance(given, dict):
        raise RowError("a segmentation is neither polygons nor run lengths")
    mask = decode(given)
    if mask.shape != (height, width):
        raise RowError(f"a mask of {mask.shape[0]} x {mask.shape[1]} pixels in an image of {height} x {width}")
    return mask


def box_of(mask: Mask) -> list[int]:
    """Left, top, right, bottom of a mask in pixels, the last two outside; zeros where it is empty.

    >>> box_of(np.array([[0, 0, 0], [0, 1, 1]], bool))
    [1, 1, 3, 2]
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not columns.size:
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
