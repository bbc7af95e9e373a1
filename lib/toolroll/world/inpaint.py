"""A hole in an image, filled with pieces of what is around it (compiled by numba).

Exemplar-based filling after Criminisi, Perez and Toyama (IEEE TIP 2004): again and again the point of the hole's edge
with the highest priority (how much around it is known, times how strongly an edge runs into the hole) gets the missing
pixels of the patch that fits best. Smooth filling leaves a smear that a player would see at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.run.compiled import compiled

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

HALF = 4  #: patches are 9 x 9
SEARCH = 90  #: pixels around the hole's point in which a patch is looked for, in each direction


def filled(image: Array, hole: Array) -> Array:
    """An image, uint8 (height, width, 3), whose pixels in `hole` are made up; all others are as they were.

    Where no whole patch is known anywhere near, a pixel becomes the mean of its known neighbours.
    """
    colors = image.astype(np.float32)
    known = ~hole
    _fill(colors, known.copy(), known.astype(np.float32), whole_patches(known))
    result = image.copy()
    result[hole] = np.clip(np.rint(colors[hole]), 0, 255).astype(np.uint8)
    return result


def whole_patches(known: Array) -> Array:
    """At which pixels a patch lies within the image and is known throughout, boolean (height, width)."""
    size = 2 * HALF + 1
    height, width = known.shape
    found = np.zeros((height, width), bool)
    if height < size or width < size:
        return found
    sums = np.pad(known.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    found[HALF : height - HALF, HALF : width - HALF] = inside == size * size
    return found


@compiled
def _fill(colors: Any, known: Any, trust: Any, whole: Any) -> None:
    while True:
        row, column = _most_urgent(colors, known, trust)
        if row < 0:
            return
        certain = _certainty(known, trust, row, column)
        sy, sx = _best_patch(colors, known, whole, row, column)
        if sy < 0:
            _mean_of_neighbours(colors, known, row, column)
            known[row, column] = True
            trust[row, column] = certain
        else:
            _copy_patch(colors, known, trust, row, column, sy, sx, certain)


@compiled
def _most_urgent(colors: Any, known: Any, trust: Any) -> tuple[int, int]:
    """The point of the hole's edge with the highest priority; -1 where no hole is left."""
    height, width = known.shape
    row, column, best = -1, -1, -1.0
    for y in range(height):
        for x in range(width):
            if not known[y, x] and _at_edge(known, y, x):
                worth = _priority(colors, known, trust, y, x)
                if worth > best:
                    row, column, best = y, x, worth
    return row, column


@compiled
def _copy_patch(colors: Any, known: Any, trust: Any, row: int, column: int, sy: int, sx: int, certain: float) -> None:
    """Take the unknown pixels of a patch from the one around (sy, sx), which is whole."""
    height, width = known.shape
    for dy in range(-HALF, HALF + 1):
        for dx in range(-HALF, HALF + 1):
            y, x = row + dy, column + dx
            if y < 0 or x < 0 or y >= height or x >= width or known[y, x]:
                continue
            for c in range(3):
                colors[y, x, c] = colors[sy + dy, sx + dx, c]
            trust[y, x] = certain
            known[y, x] = True


@compiled
def _at_edge(known: Any, y: int, x: int) -> bool:
    height, width = known.shape
    return bool(
        (y > 0 and known[y - 1, x])
        or (x > 0 and known[y, x - 1])
        or (y + 1 < height and known[y + 1, x])
        or (x + 1 < width and known[y, x + 1])
    )


@compiled
def _certainty(known: Any, trust: Any, row: int, column: int) -> float:
    """Mean trust in a patch; what is unknown or outside counts as 0."""
    height, width = known.shape
    total = 0.0
    for y in range(max(row - HALF, 0), min(row + HALF + 1, height)):
        for x in range(max(column - HALF, 0), min(column + HALF + 1, width)):
            if known[y, x]:
                total += trust[y, x]
    return total / ((2 * HALF + 1) * (2 * HALF + 1))


@compiled
def _priority(colors: Any, known: Any, trust: Any, row: int, column: int) -> float:
    """Certainty times how strong an edge runs across the hole's edge near this point."""
    height, width = known.shape
    away_y, away_x = 0.0, 0.0  # out of the hole
    strong_y, strong_x, strong = 0.0, 0.0, 0.0
    for y in range(max(row - HALF, 1), min(row + HALF + 1, height - 1)):
        for x in range(max(column - HALF, 1), min(column + HALF + 1, width - 1)):
            if not known[y, x]:
                continue
            away_y += y - row
            away_x += x - column
            if known[y - 1, x] and known[y + 1, x] and known[y, x - 1] and known[y, x + 1]:
                gy, gx = 0.0, 0.0
                for c in range(3):
                    gy += colors[y + 1, x, c] - colors[y - 1, x, c]
                    gx += colors[y, x + 1, c] - colors[y, x - 1, c]
                if gy * gy + gx * gx > strong:
                    strong_y, strong_x, strong = gy, gx, gy * gy + gx * gx
    size = (away_y * away_y + away_x * away_x) ** 0.5
    along = abs(strong_x * away_y - strong_y * away_x) / size if size > 0.0 else 0.0
    return float(_certainty(known, trust, row, column) * (along / 1530.0 + 0.02))


@compiled
def _best_patch(colors: Any, known: Any, whole: Any, row: int, column: int) -> tuple[int, int]:
    """Where the patch is that differs least from what is known here; -1 where there is none to choose from."""
    height, width = known.shape
    found_y, found_x, least = -1, -1, 1e30
    for sy in range(max(row - SEARCH, HALF), min(row + SEARCH + 1, height - HALF)):
        for sx in range(max(column - SEARCH, HALF), min(column + SEARCH + 1, width - HALF)):
            if not whole[sy, sx]:
                continue
            off = 0.0
            for dy in range(-HALF, HALF + 1):
                y = row + dy
                if y < 0 or y >= height:
                    continue
                for dx in range(-HALF, HALF + 1):
                    x = column + dx
                    if x < 0 or x >= width or not known[y, x]:
                        continue
                    for c in range(3):
                        gap = colors[y, x, c] - colors[sy + dy, sx + dx, c]
                        off += gap * gap
                if off >= least:
                    break
            if off < least:
                found_y, found_x, least = sy, sx, off
    return found_y, found_x


@compiled
def _mean_of_neighbours(colors: Any, known: Any, row: int, column: int) -> None:
    height, width = known.shape
    for c in range(3):
        total, number = 0.0, 0
        for y in range(max(row - 1, 0), min(row + 2, height)):
            for x in range(max(column - 1, 0), min(column + 2, width)):
                if known[y, x]:
                    total += colors[y, x, c]
                    number += 1
        colors[row, column, c] = total / max(number, 1)
