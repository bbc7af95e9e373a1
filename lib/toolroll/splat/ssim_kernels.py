"""How alike two pictures are, by SSIM, and its gradient: numba.

With E the mean under an 11 x 11 Gaussian of deviation 1.5, m = E x, n = E y, s = E xx - m^2, t = E yy - n^2 and
u = E xy - m n, in [0, 1] with C1 = .01^2, C2 = .03^2:

    SSIM = (2 m n + C1) (2 u + C2) / ((m^2 + n^2 + C1) (s + t + C2))

The gradient is that of E's three means that have x in them, spread back by the same Gaussian. Planes are [C, H, W],
float32; windows are those that lie inside ("valid"): [C, H - 10, W - 10]. A row at a time is blurred down and then
along, all of it vector instructions. Definition: Wang et al. 2004; `toolroll.splat.metrics` has it in plain numpy.
All of it stands in one file, because numba takes cached machine code for stale when this file changes, and no other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolroll.run.compiled import compiled

SIZE = 11
EDGE = SIZE - 1
DEVIATION = 1.5
F = np.float32
TWO, ONE, ZERO = F(2), F(1), F(0)
C1, C2 = F(0.01**2), F(0.03**2)
_BELL = [math.exp(-((i - SIZE // 2) ** 2) / (2 * DEVIATION**2)) for i in range(SIZE)]
TAPS = np.array([value / math.fsum(_BELL) for value in _BELL], np.float32)


@compiled
def _along(row: Any, made: Any) -> None:
    """Blur a row of W + 10 numbers to W."""
    for i in range(len(made)):
        made[i] = ZERO
    for k in range(SIZE):
        weight = TAPS[k]
        part = row[k : k + len(made)]
        for i in range(len(made)):
            made[i] += weight * part[i]


@compiled
def compare(first: int, last: int, x: Any, y: Any, sums: Any, by_mean: Any, by_square: Any, by_product: Any) -> None:
    """Rows `first` to before `last` of all windows, channel after channel: their sums, and what E's means change.

    sums: float64 [C (H - 10)], of SSIM over a row. by_mean, by_square, by_product: [C, H - 10, W - 10].
    """
    height, width = x.shape[1] - EDGE, x.shape[2] - EDGE
    down, blurred = np.empty((5, x.shape[2]), np.float32), np.empty((5, width), np.float32)
    for line in range(first, last):
        channel, j = line // height, line % height
        down[:] = ZERO
        for k in range(SIZE):
            weight = TAPS[k]
            one, two = x[channel, j + k], y[channel, j + k]
            d0, d1, d2, d3, d4 = down[0], down[1], down[2], down[3], down[4]
            for i in range(x.shape[2]):
                a, b = one[i], two[i]
                d0[i] += weight * a
                d1[i] += weight * b
                d2[i] += weight * a * a
                d3[i] += weight * b * b
                d4[i] += weight * a * b
        for q in range(5):
            _along(down[q], blurred[q])
        sums[line] = _score(blurred, by_mean[channel, j], by_square[channel, j], by_product[channel, j])


@compiled
def _score(blurred: Any, by_mean: Any, by_square: Any, by_product: Any) -> Any:
    total = 0.0
    m_row, n_row, xx_row, yy_row, xy_row = blurred[0], blurred[1], blurred[2], blurred[3], blurred[4]
    for i in range(blurred.shape[1]):
        m, n = m_row[i], n_row[i]
        a, b = TWO * m * n + C1, TWO * (xy_row[i] - m * n) + C2
        c, d = m * m + n * n + C1, xx_row[i] - m * m + yy_row[i] - n * n + C2
        below = ONE / (c * d)
        score = a * b * below
        by_mean[i] = TWO * n * (b - a) * below - TWO * m * score * (ONE / c - ONE / d)
        by_square[i] = -score / d
        by_product[i] = TWO * a * below
    for i in range(blurred.shape[1]):
        m, n = m_row[i], n_row[i]
        a, b = TWO * m * n + C1, TWO * (xy_row[i] - m * n) + C2
        c, d = m * m + n * n + C1, xx_row[i] - m * m + yy_row[i] - n * n + C2
        total += a * b / (c * d)
    return total


@compiled
def spread(
    first: int, last: int, x: Any, y: Any, by_mean: Any, by_square: Any, by_product: Any, scale: Any, made: Any
) -> None:
    """The gradient with respect to x, made [C, H, W], of `scale` times the sum of SSIM over all windows.

    Rows `first` to before `last` of all channels, one after the other.
    """
    height, width = x.shape[1], x.shape[2]
    wide = np.zeros((3, width + EDGE), np.float32)
    back = np.empty((3, width), np.float32)
    for line in range(first, last):
        channel, j = line // height, line % height
        wide[:] = ZERO
        w0, w1, w2 = wide[0, EDGE:width], wide[1, EDGE:width], wide[2, EDGE:width]
        for k in range(max(0, j - EDGE), min(height - EDGE, j + 1)):
            weight = TAPS[j - k]
            p0, p1, p2 = by_mean[channel, k], by_square[channel, k], by_product[channel, k]
            for i in range(width - EDGE):
                w0[i] += weight * p0[i]
                w1[i] += weight * p1[i]
                w2[i] += weight * p2[i]
        for q in range(3):
            _along(wide[q], back[q])
        one, two, out = x[channel, j], y[channel, j], made[channel, j]
        b0, b1, b2 = back[0], back[1], back[2]
        for i in range(width):
            out[i] = scale * (b0[i] + TWO * one[i] * b1[i] + two[i] * b2[i])
