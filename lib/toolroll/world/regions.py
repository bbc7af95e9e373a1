"""Pieces of a mask, and how much two images differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.world.render import Box, box_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NOTICED = 8  #: of 255: a pixel has changed if a channel differs by more


def difference(one: Array, other: Array) -> Array:
    """The largest difference of a channel at each pixel, 0 .. 255, (height, width)."""
    found: Array = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=2)
    return found


def changed(one: Array, other: Array, more_than: int = NOTICED) -> Array:
    """Which pixels of two images of one size differ by more than this, boolean (height, width)."""
    found: Array = difference(one, other) > more_than
    return found


def labelled(mask: Array) -> tuple[Array, int]:
    """The pieces of a mask that hang together (by sides): their numbers from 1, 0 outside; and how many there are.

    Two passes: runs of a row get a label and join with the runs they touch in the row above.

    >>> labelled(np.array([[1, 0, 1], [1, 0, 0]], bool))[0].tolist()
    [[1, 0, 2], [1, 0, 0]]
    """
    height, width = mask.shape
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(rows, np.arange(height + 1))
    for row in range(1, height):
        above, run = int(first[row - 1]), int(first[row])
        last_above, last = int(first[row]), int(first[row + 1])
        while above < last_above and run < last:
            if starts[above] < ends[run] and starts[run] < ends[above]:
                a, b = root(above), root(run)
                parent[max(a, b)] = min(a, b)
            if ends[above] < ends[run]:
                above += 1
            else:
                run += 1
    numbers: dict[int, int] = {}
    labels = np.zeros((height, width), np.int32)
    for run, (line, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        labels[line, start:end] = numbers.setdefault(root(run), len(numbers) + 1)
    return labels, len(numbers)


def dilated(mask: Array, by: int) -> Array:
    """A mask grown by `by` pixels in the eight directions.

    >>> dilated(np.array([[0, 0, 0, 1]], bool), 2).astype(int).tolist()
    [[0, 1, 1, 1]]
    """
    found = mask
    for axis in (0, 1):
        grown = found.copy()
        for step in range(1, by + 1):
            if step < found.shape[axis]:
                ahead, behind = _slices(axis, step)
                grown[ahead] |= found[behind]
                grown[behind] |= found[ahead]
        found = grown
    return found


def _slices(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    everything = slice(None)
    ahead, behind = slice(step, None), slice(None, -step)
    return ((ahead, everything), (behind, everything)) if axis == 0 else ((everything, ahead), (everything, behind))


def boxes_of(mask: Array, *, near: int = 4) -> list[Box]:
    """The boxes of a mask's pieces, where pieces within 2 `near` pixels count as one, the largest first."""
    labels, count = labelled(dilated(mask, near))
    found = [
        (int((mask & (labels == number)).sum()), box_of(mask & (labels == number))) for number in range(1, count + 1)
    ]
    return [box for _, box in sorted(found, key=lambda pair: -pair[0]) if box is not None]
