"""Gaussians in the plane drawn by tiles of 16 x 16 pixels, and what a change of the picture means for each: numba.

A Gaussian is a row of `flat` [N, 10], float32:

    0, 1  its mean, in pixels; pixel (i, j) has its middle at (i + .5, j + .5)
    2-4   a, b, c of sigma = .5 (a dx^2 + c dy^2) + b dx dy, (dx, dy) from the mean to the middle of the pixel
    5     opacity o; 6-8 colour
    9     2 ln(255 o): where sigma is half of that, alpha is 1/255

From front to back, with T = 1 at first: alpha = min(.999, o exp(-sigma)); a Gaussian with sigma < 0 or alpha < 1/255
does nothing; where T (1 - alpha) <= 1e-4 the pixel is done, without this one; else colour += T alpha c and
T *= 1 - alpha. What is left goes to the background. The rules, and the numbers in them, are those of gsplat's kernels.

A tile is one task, all of its state in the nearest cache. Gaussians are the outer loop and a row of 16 pixels the inner
one, of a fixed length and with distances that the compiler knows, so that it becomes vector instructions; the rows of a
tile outside of the ellipse alpha = 1/255 are not looked at. Gradients, too, are made from front to back: with Q the
part of the gradient behind the Gaussian in hand, no division by what is left of T is needed. Each pair of tile and
Gaussian has its own row of gradients, and they are added up in a fixed order: the result does not depend on threads.

All of it stands in one file, because numba takes cached machine code for stale when this file changes, and no other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from toolroll.run.compiled import compiled

SIDE = 16  #: of a tile, in pixels
F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
MOST = F(0.999)  #: alpha at most
LEAST = F(1 / 255)  #: and at least
DIGIT, PASSES = 11, 3  #: of sorting: bits of a digit, and digits of a number of 32 bits
DIGITS = 1 << DIGIT
DONE = F(1e-4)  #: a pixel that would keep no more of what is behind is done
FAR = F(1e9)  #: pixels away from which a mean is nowhere
LOG2E, LOWEST, BIAS, MANTISSA = F(math.log2(math.e)), F(-126), np.int32(127), np.int32(23)
# 2^f for f in [0, 1): the polynomial of degree 6 whose greatest relative error is least, 2e-9; 8e-8 in float32
E0, E1, E2, E3 = F(1.0000000018560888), F(0.693146983827284), F(0.24022983644710638), F(0.05548334116222853)
E4, E5, E6 = F(0.009678842711165023), F(0.0012439671743857518), F(0.00021702310979098124)
# The state of a row of 16 pixels, at these places in a row of floats. Drawing: T, colour, whether it goes on.
RED, GREEN, BLUE, LIVE, DRAWN = 16, 32, 48, 64, 80
# Gradients: T, the gradient of the pixel's colour, whether it goes on, Q.
BEHIND, TRACED = 80, 96
# Sums over rows, for each of 16 columns: of v = dL/dsigma, v dy, v dy^2, and of the colour's gradient.
BY_Y, BY_YY, BY_RED, BY_GREEN, BY_BLUE, SUMS = 16, 32, 48, 64, 80, 96


def _bits_as_float() -> Any:
    """What numba replaces by nothing: the float32 with the bits of an int32."""

    def reading(typing: Any, bits: Any) -> Any:
        del typing, bits

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del context, signature
            return builder.bitcast(arguments[0], ir.FloatType())

        return types.float32(types.int32), generate

    return intrinsic(reading)


_as_float = _bits_as_float()


@compiled
def _exp(x: Any) -> Any:
    """e^x for x <= 0, to 3e-7; libm's would keep the loop from becoming vector instructions."""
    y = max(x * LOG2E, LOWEST)
    whole = np.floor(y)
    f = y - whole
    power = E6 * f + E5
    power = power * f + E4
    power = power * f + E3
    power = power * f + E2
    power = power * f + E1
    power = power * f + E0
    return power * _as_float((np.int32(whole) + BIAS) << MANTISSA)


# --- which Gaussians are in which tile


@compiled
def nearest_first(depths: Any) -> Any:
    """The places [N] of depths [N], int64: smaller depths first, those with the same bits as they stand.

    A radix sort by 11 bits at a time of the bits of the numbers, turned so that they are in the order of the numbers.
    """
    count = len(depths)
    bits = depths.view(np.uint32)
    keys, order = np.empty((2, count), np.uint32), np.empty((2, count), np.int64)
    for g in range(count):
        keys[0, g] = ~bits[g] if bits[g] >> np.uint32(31) else bits[g] | np.uint32(0x80000000)
        order[0, g] = g
    starts = np.zeros((PASSES, DIGITS + 1), np.int64)
    for g in range(count):
        for k in range(PASSES):
            starts[k, ((keys[0, g] >> np.uint32(DIGIT * k)) & np.uint32(DIGITS - 1)) + 1] += 1
    for k in range(PASSES):
        old, new = k % 2, 1 - k % 2
        filled = starts[k]
        for digit in range(DIGITS):
            filled[digit + 1] += filled[digit]
        for g in range(count):
            key = keys[old, g]
            digit = (key >> np.uint32(DIGIT * k)) & np.uint32(DIGITS - 1)
            at = filled[digit]
            filled[digit] = at + 1
            keys[new, at], order[new, at] = key, order[old, g]
    return order[PASSES % 2]


@compiled
def _reach(flat: Any, g: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The tiles from (0, 1) to before (2, 3) that the ellipse of Gaussian g has to do with."""
    mx, my, a, b, c, twice = flat[g, 0], flat[g, 1], flat[g, 2], flat[g, 3], flat[g, 4], flat[g, 9]
    det = a * c - b * b
    if not (twice > ZERO and det > ZERO and abs(mx) < FAR and abs(my) < FAR):
        return 0, 0, 0, 0
    half_x, half_y = math.sqrt(twice * c / det) + HALF, math.sqrt(twice * a / det) + HALF
    if not (half_x < FAR and half_y < FAR):
        half_x = half_y = FAR
    left, right = max(mx - half_x, ZERO), min(mx + half_x, F(width))
    top, bottom = max(my - half_y, ZERO), min(my + half_y, F(height))
    if left >= right or top >= bottom:
        return 0, 0, 0, 0
    return int(left) // SIDE, int(top) // SIDE, (int(right - ONE) // SIDE) + 1, (int(bottom - ONE) // SIDE) + 1


@compiled
def reaches(flat: Any, width: int, height: int, spans: Any) -> int:
    """The tiles of each Gaussian, spans [N, 4]; how many pairs of Gaussian and tile there are."""
    total = 0
    for g in range(len(flat)):
        x0, y0, x1, y1 = _reach(flat, g, width, height)
        spans[g, 0], spans[g, 1], spans[g, 2], spans[g, 3] = x0, y0, x1, y1
        total += (x1 - x0) * (y1 - y0)
    return total


@compiled
def listed(order: Any, spans: Any, across: int, starts: Any, ids: Any, firsts: Any, slots: Any) -> None:
    """The Gaussians of each tile, in the order of `order` (all of them, the nearest first).

    Those of tile t are ids[starts[t] : starts[t + 1]], starts [T + 1]; the places in `ids` where Gaussian g stands are
    slots[firsts[g] : firsts[g + 1]], firsts [N + 1].
    """
    starts[:] = 0
    firsts[0] = 0
    for g in range(len(spans)):
        x0, y0, x1, y1 = spans[g, 0], spans[g, 1], spans[g, 2], spans[g, 3]
        firsts[g + 1] = firsts[g] + (x1 - x0) * (y1 - y0)
        for y in range(y0, y1):
            for x in range(x0, x1):
                starts[y * across + x + 1] += 1
    for tile in range(len(starts) - 1):
        starts[tile + 1] += starts[tile]
    filled = starts[:-1].copy()
    for g in order:
        at = firsts[g]
        for y in range(spans[g, 1], spans[g, 3]):
            for x in range(spans[g, 0], spans[g, 2]):
                tile = y * across + x
                ids[filled[tile]] = g
                slots[at] = filled[tile]
                filled[tile] += 1
                at += 1


# --- drawing


@compiled
def _rows(one: Any, top: int) -> tuple[int, int]:
    """The rows of the tile whose first is `top` that the ellipse reaches."""
    half = math.sqrt(one[9] * one[2] / (one[2] * one[4] - one[3] * one[3])) + HALF
    low, high = F(top), F(top + SIDE)
    return int(max(one[1] - half, low) - low), math.ceil(min(one[1] + half, high) - low)


@compiled
def _misses(one: Any, dy: Any, left: Any) -> Any:
    """Whether the ellipse has nothing in the row, dy from the mean, of the 16 pixels from `left` on."""
    a, b = one[2], one[3]
    inside = b * b * dy * dy - a * (one[4] * dy * dy - one[9])
    if inside < ZERO:
        return True
    middle, half = one[0] - b * dy / a, math.sqrt(inside) / a + HALF
    return middle + half < left or middle - half > left + F(SIDE)


@compiled
def _all_done(state: Any) -> Any:
    most = ZERO
    for j in range(SIDE):
        row = state[j]
        for i in range(SIDE):
            most = max(most, row[LIVE + i])
    return most == ZERO


@compiled
def _draw_row(row: Any, one: Any, dx: Any, dy: Any) -> None:
    """A Gaussian onto 16 pixels; the first is (dx, dy) from its mean."""
    half_a, b, c, o = HALF * one[2], one[3] * dy, HALF * one[4] * dy * dy, one[5]
    red, green, blue = one[6], one[7], one[8]
    for i in range(SIDE):
        x = dx + F(i)
        sigma = (half_a * x + b) * x + c
        alpha = min(o * _exp(-sigma), MOST)
        kept = row[i] * (ONE - alpha)
        counts = (sigma >= ZERO) & (alpha >= LEAST) & (row[LIVE + i] > ZERO)
        drawn = counts & (kept > DONE)
        weight = row[i] * alpha if drawn else ZERO
        row[i] = kept if drawn else row[i]
        row[LIVE + i] = ZERO if counts & (kept <= DONE) else row[LIVE + i]
        row[RED + i] += weight * red
        row[GREEN + i] += weight * green
        row[BLUE + i] += weight * blue


@compiled
def draw(
    first: int, last: int, across: int, starts: Any, ids: Any, flat: Any, background: Any, image: Any, left: Any
) -> None:
    """The tiles from `first` to before `last`: image [H, W, 3], and what is left of the background, left [H, W]."""
    height, width = left.shape
    state = np.empty((SIDE, DRAWN), np.float32)
    for tile in range(first, last):
        state[:, :RED] = ONE
        state[:, RED:LIVE] = ZERO
        state[:, LIVE:] = ONE
        x0, y0 = (tile % across) * SIDE, (tile // across) * SIDE
        for k in range(starts[tile], starts[tile + 1]):
            if (k - starts[tile]) % SIDE == SIDE - 1 and _all_done(state):
                break
            one = flat[ids[k]]
            low, high = _rows(one, y0)
            for j in range(low, high):
                dy = F(y0 + j) + HALF - one[1]
                if not _misses(one, dy, F(x0)):
                    _draw_row(state[j], one, F(x0) + HALF - one[0], dy)
        for j in range(min(SIDE, height - y0)):
            row = state[j]
            for i in range(min(SIDE, width - x0)):
                image[y0 + j, x0 + i, 0] = row[RED + i] + row[i] * background[0]
                image[y0 + j, x0 + i, 1] = row[GREEN + i] + row[i] * background[1]
                image[y0 + j, x0 + i, 2] = row[BLUE + i] + row[i] * background[2]
                left[y0 + j, x0 + i] = row[i]


# --- gradients


@compiled
def _trace_row(row: Any, sums: Any, one: Any, dx: Any, dy: Any) -> None:
    """What 16 pixels add to a Gaussian's sums; the same steps as `_draw_row`."""
    half_a, b, c, o = HALF * one[2], one[3] * dy, HALF * one[4] * dy * dy, one[5]
    red, green, blue = one[6], one[7], one[8]
    for i in range(SIDE):
        x = dx + F(i)
        sigma = (half_a * x + b) * x + c
        whole = o * _exp(-sigma)
        alpha = min(whole, MOST)
        through = ONE - alpha
        kept = row[i] * through
        counts = (sigma >= ZERO) & (alpha >= LEAST) & (row[LIVE + i] > ZERO)
        drawn = counts & (kept > DONE)
        weight = row[i] * alpha if drawn else ZERO
        shade = row[RED + i] * red + row[GREEN + i] * green + row[BLUE + i] * blue
        behind = row[BEHIND + i] - weight * shade
        by_alpha = row[i] * shade - behind / through
        v = -alpha * by_alpha if drawn & (whole <= MOST) else ZERO
        row[BEHIND + i] = behind
        row[i] = kept if drawn else row[i]
        row[LIVE + i] = ZERO if counts & (kept <= DONE) else row[LIVE + i]
        sums[i] += v
        sums[BY_Y + i] += v * dy
        sums[BY_YY + i] += v * dy * dy
        sums[BY_RED + i] += weight * row[RED + i]
        sums[BY_GREEN + i] += weight * row[GREEN + i]
        sums[BY_BLUE + i] += weight * row[BLUE + i]


@compiled
def _add_up(sums: Any, one: Any, dx: Any, made: Any) -> None:
    """The gradients of a Gaussian in a tile, made [9], of sums over rows; columns begin dx from its mean."""
    v = x = xx = y = xy = yy = red = green = blue = ZERO
    for i in range(SIDE):
        at = dx + F(i)
        v += sums[i]
        x += sums[i] * at
        xx += sums[i] * at * at
        y += sums[BY_Y + i]
        xy += sums[BY_Y + i] * at
        yy += sums[BY_YY + i]
        red += sums[BY_RED + i]
        green += sums[BY_GREEN + i]
        blue += sums[BY_BLUE + i]
    made[0] = -(one[2] * x + one[3] * y)
    made[1] = -(one[4] * y + one[3] * x)
    made[2] = HALF * xx
    made[3] = xy
    made[4] = HALF * yy
    made[5] = -v / one[5]
    made[6], made[7], made[8] = red, green, blue


@compiled
def _begin_tracing(
    state: Any, x0: int, y0: int, image: Any, left: Any, image_gradient: Any, alpha_gradient: Any
) -> None:
    height, width = left.shape
    state[:, :RED] = ONE
    state[:, RED:] = ZERO
    for j in range(min(SIDE, height - y0)):
        row = state[j]
        for i in range(min(SIDE, width - x0)):
            red, green, blue = image_gradient[y0 + j, x0 + i]
            row[RED + i], row[GREEN + i], row[BLUE + i], row[LIVE + i] = red, green, blue, ONE
            shade = image[y0 + j, x0 + i, 0] * red + image[y0 + j, x0 + i, 1] * green + image[y0 + j, x0 + i, 2] * blue
            row[BEHIND + i] = shade - alpha_gradient[y0 + j, x0 + i] * left[y0 + j, x0 + i]


@compiled
def trace(
    first: int,
    last: int,
    across: int,
    starts: Any,
    ids: Any,
    flat: Any,
    image: Any,
    left: Any,
    image_gradient: Any,
    alpha_gradient: Any,
    made: Any,
) -> None:
    """The gradients of each pair of tile and Gaussian, made [pairs, 9]: mean, conic, opacity, colour.

    `image` and `left` are those of `draw`; the gradients are those of the image [H, W, 3] and of 1 - left [H, W].
    """
    state = np.empty((SIDE, TRACED), np.float32)
    sums = np.empty(SUMS, np.float32)
    for tile in range(first, last):
        x0, y0 = (tile % across) * SIDE, (tile // across) * SIDE
        _begin_tracing(state, x0, y0, image, left, image_gradient, alpha_gradient)
        done = False
        for k in range(starts[tile], starts[tile + 1]):
            if not done and (k - starts[tile]) % SIDE == SIDE - 1:
                done = _all_done(state)
            if done:
                made[k] = ZERO
                continue
            one = flat[ids[k]]
            dx = F(x0) + HALF - one[0]
            sums[:] = ZERO
            low, high = _rows(one, y0)
            for j in range(low, high):
                dy = F(y0 + j) + HALF - one[1]
                if not _misses(one, dy, F(x0)):
                    _trace_row(state[j], sums, one, dx, dy)
            _add_up(sums, one, dx, made[k])


@compiled
def gathered(first: int, last: int, firsts: Any, slots: Any, pairs: Any, made: Any) -> None:
    """Gradients [N, 9] of Gaussians from `first` on: those of their tiles, added in the order of tiles."""
    for g in range(first, last):
        row = made[g]
        row[:] = ZERO
        for k in range(firsts[g], firsts[g + 1]):
            pair = pairs[slots[k]]
            for i in range(9):
                row[i] += pair[i]
