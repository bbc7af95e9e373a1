"""How much fine detail a scene's photos have: the frequency of DL3DV-10K, section 3.2.

A photo is grey, from 0 to 1. One level of a two-dimensional biorthogonal wavelet gives it four bands; the metric is

    sqrt(sum of LH^2 + HL^2 + HH^2) / number of pixels

and that of a scene is the mean over up to 100 photos, evenly spread. The paper does not say which wavelet; this is
bior2.2, with half-sample symmetric borders, as PyWavelets has it. The metric falls as photos grow, so that scenes can
be compared at one size alone: the paper's limit, 2.6e-6, is for its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from toolroll.splat.photos import load_photo

Floats = NDArray[np.float64]
PHOTOS = 100
_ROOT = float(np.sqrt(2))
LOW = np.array([-1, 2, 6, 2, -1]) * _ROOT / 8  #: bior2.2, analysis; both filters without their zeros
HIGH = np.array([1, -2, 1]) * _ROOT / 4
GREY = np.array([0.299, 0.587, 0.114])


def bands(grey: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The bands LL, LH, HL, HH of a picture [H, W], each about half as high and wide; L and H are down, then across."""
    low, high = _halves(grey, 0)
    return *_halves(low, 1), *_halves(high, 1)


def _halves(plane: Floats, axis: int) -> tuple[Floats, Floats]:
    """Both bands along an axis. Number k of the coarse one is made around place 2 k - 2, of the fine one 2 k - 1."""
    plane = np.moveaxis(plane, axis, 0)
    padded = np.pad(plane, [(6, 6), *[(0, 0)] * (plane.ndim - 1)], mode="symmetric")
    count = (len(plane) + 5) // 2

    def filtered(taps: Floats, first: int) -> Floats:
        made = sum(tap * padded[first + i : first + i + 2 * count : 2][:count] for i, tap in enumerate(taps))
        return np.moveaxis(np.asarray(made), 0, axis)

    return filtered(LOW, 2), filtered(HIGH, 4)


def detail(grey: Floats) -> float:
    """The metric of a photo [H, W], 0 to 1.

    >>> detail(np.full((8, 8), 0.5))
    0.0
    """
    _, *fine = bands(grey)
    return float(np.sqrt(sum(float((band**2).sum()) for band in fine)) / grey.size)


def scene_frequency(photos: Sequence[Path]) -> float:
    """The metric of a scene: the mean over its photos, or 100 of them. ToolrollError for what is no photo."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(len(photos), PHOTOS)).round().astype(int))
    return float(np.mean([detail(load_photo(photos[number])[0].astype(np.float64) @ GREY) for number in chosen]))


def by_median(frequencies: Mapping[str, float], split: float | None = None) -> dict[str, str]:
    """high_freq or low_freq for scenes by their frequencies: above the median, or above `split`.

    >>> by_median({"a": 1.0, "b": 3.0, "c": 2.0})
    {'a': 'low_freq', 'b': 'high_freq', 'c': 'low_freq'}
    """
    limit = median(frequencies.values()) if split is None and frequencies else split
    return {name: "high_freq" if limit is not None and f > limit else "low_freq" for name, f in frequencies.items()}
