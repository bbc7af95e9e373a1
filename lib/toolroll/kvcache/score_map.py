"""The map of visual scores that CalibQuant's calibration applies before the softmax, and its choice.

With g, d the least and the largest visual score of a query, [g, d] goes to [g - t1, d - t2]:

    y = (x - g) (d - t2 - g + t1) / (d - g) + g - t1

The slope is negative where d - g < t2 - t1, which reverses the order of the scores. Here t2 is at most d - g + t1, so
that they become equal at worst (`guarded`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Tau = tuple[float, float]
GRID: tuple[Tau, ...] = tuple((float(a), float(b)) for a in range(4) for b in range(4))


def calibrated(scores: Any, tau: Any, *, guarded: bool = True) -> Any:
    """Visual scores [..., Tv], arrays of numpy or of torch, under (t1, t2), which may be arrays [..., 1] each.

    >>> calibrated(np.array([-4.0, 0, 2, 6]), (0, 3)).round(6).tolist()
    [-4.0, -1.2, 0.2, 3.0]
    >>> calibrated(np.array([0.0, 1, 2]), (0, 3)).round(6).tolist()
    [0.0, 0.0, 0.0]
    """
    t1, t2 = tau
    if hasattr(scores, "amin"):
        least, most = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    else:
        least, most = scores.min(-1, keepdims=True), scores.max(-1, keepdims=True)
    wide = most - least
    slope = (wide - t2 + t1) / (wide + 1e-8)
    if guarded:
        slope = slope * (slope > 0)
    return (scores - least) * slope + least - t1
