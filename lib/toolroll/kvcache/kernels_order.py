"""Quantiles of each channel of a head, by numba: the same as by sorting, without sorting.

A few tokens tell between which values a quantile will lie. How many tokens lie below either is counted, and the two are
drawn together in proportion, until few tokens are left between them; these are put in order. What a channel has no such
values for, because many of its numbers are equal, is sorted.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np

from toolroll.kvcache import ranges
from toolroll.kvcache.kernels import _exactly
from toolroll.kvcache.ranges import F32, Bounds

FEW = 512  #: tokens from which on this pays
_SAMPLES = 208  #: tokens that are sorted first
_ENOUGH = 48  #: numbers between two values, from which on they are put in order
_ROOM = 256  #: at most so many are
_ROUNDS = 5


def quantiles(x: F32, alpha: float) -> Bounds:
    """What `ranges.quantiles` gives for a head x [T, D]: quantiles alpha and 1 - alpha of its channels, [D] each."""
    tokens = len(x)
    place = alpha * (tokens - 1)
    below = int(place)
    weight = np.float32(place - below)
    if tokens < FEW:
        return ranges.quantiles(x, 0, alpha)
    ranks = np.array([below, tokens - 2 - below])  # of each quantile's lower neighbour
    found = _between(x, ranks)
    (low, next_low), (next_high, high) = found
    return low + (next_low - low) * weight, high + (next_high - high) * weight


def _between(x: F32, ranks: Any) -> F32:
    """The numbers of these ranks [2], and the next ones, of each channel: [2, 2, D]."""
    tokens, channels = x.shape
    low, high = np.full((2, channels), -np.inf, np.float32), np.full((2, channels), np.inf, np.float32)
    under, upto = np.zeros((2, channels), np.int32), np.full((2, channels), tokens, np.int32)
    narrow, gather, in_order = _kernels()
    narrow(x, _guesses(x, ranks).reshape(4, channels), ranks, low, high, under, upto)
    many = (upto - under > _ROOM).any(0)
    low[:, many], high[:, many] = np.inf, -np.inf
    found = np.empty((2, 2, channels), np.float32)
    room, filled = np.empty((2, channels, _ROOM), np.float32), np.zeros((2, channels), np.int32)
    gather(x, low, high, room, filled)
    in_order(room, filled, ranks, under, found)
    if many.any():
        some = np.sort(x[:, many].T, axis=-1).T
        for rank, pair in zip(ranks, found, strict=True):
            pair[:, many] = some[rank : rank + 2]
    return found


def _guesses(x: F32, ranks: Any) -> F32:
    """Values [2, 2, D] between which the numbers of these ranks most probably lie."""
    step = max(1, len(x) // _SAMPLES)
    some = np.ascontiguousarray(x[step // 2 :: step].T)
    some.sort(-1)
    size = some.shape[1]
    wide = np.ptp(some, axis=-1)
    made = np.empty((2, 2, x.shape[1]), np.float32)
    for pair, rank in zip(made, ranks, strict=True):
        share = (rank + 1) / len(x)
        off = 2.5 * np.sqrt(size * share * (1 - share)) + 1
        first, last = int(np.floor(share * size - off)), int(np.ceil(share * size + off))
        pair[0] = some[:, first] if first >= 0 else some[:, 0] - wide
        pair[1] = some[:, last] if last < size else some[:, -1] + wide
    return made


@cache
def _kernels() -> tuple[Any, Any, Any]:
    f2, f3, i2, n1 = numba.float32[:, ::1], numba.float32[:, :, ::1], numba.int32[:, ::1], numba.intp[::1]
    return (
        _exactly(_narrow, numba.void(f2, f2, n1, f2, f2, i2, i2)),
        _exactly(_gather, numba.void(f2, f2, f2, f3, i2)),
        _exactly(_in_order, numba.void(f3, i2, n1, i2, f3)),
    )


# --- what numba compiles; it reads no annotations


def _narrow(x: Any, at: Any, ranks: Any, low: Any, high: Any, under: Any, upto: Any) -> None:  # noqa: C901 - what numba compiles in one piece
    """Draw low and high [2, D] together around numbers of two ranks; `under` and `upto` numbers are below them.

    `at` [4, D] are the values to begin with.
    """
    tokens, channels = x.shape
    counts = np.empty((4, channels), np.int32)
    for _ in range(_ROUNDS):
        counts[:] = 0
        whole = tokens // 4 * 4
        for t in range(0, whole, 4):  # four at a time: a count is fetched and put back once for them
            for k in range(4):
                for i in range(channels):
                    value = at[k, i]
                    two = np.int32(x[t, i] < value) + np.int32(x[t + 1, i] < value)
                    counts[k, i] += two + np.int32(x[t + 2, i] < value) + np.int32(x[t + 3, i] < value)
        for t in range(whole, tokens):
            for k in range(4):
                for i in range(channels):
                    counts[k, i] += np.int32(x[t, i] < at[k, i])
        most = 0
        for q in range(2):
            for i in range(channels):
                wide = at[2 * q + 1, i] - at[2 * q, i]
                for k in range(2 * q, 2 * q + 2):
                    if counts[k, i] <= ranks[q] and at[k, i] > low[q, i]:
                        low[q, i], under[q, i] = at[k, i], counts[k, i]
                    if counts[k, i] >= ranks[q] + 2 and at[k, i] < high[q, i]:
                        high[q, i], upto[q, i] = at[k, i], counts[k, i]
                inside = upto[q, i] - under[q, i]
                most = max(most, inside)
                bottom, top = low[q, i], high[q, i]
                if bottom == -np.inf:
                    at[2 * q, i], at[2 * q + 1, i] = top - wide, top - wide / 4
                elif top == np.inf:
                    at[2 * q, i], at[2 * q + 1, i] = bottom + wide / 4, bottom + wide
                else:
                    step = (top - bottom) / np.float32(inside)
                    middle = bottom + step * np.float32(ranks[q] + 1 - under[q, i])
                    off = step * np.float32(1.5 * np.sqrt(inside) + 0.1 * inside)
                    at[2 * q, i], at[2 * q + 1, i] = middle - off, middle + off
        if most <= _ENOUGH:
            break


def _gather(x: Any, low: Any, high: Any, room: Any, filled: Any) -> None:
    """Put what lies from low to high into `room` [2, D, _ROOM], of which `filled` [2, D] tells how much there is."""
    tokens, channels = x.shape
    pairs = (channels + 1) // 2
    marks = np.zeros(2 * pairs, np.int32)
    words = marks.view(np.int64)
    for t in range(tokens):
        for i in range(channels):
            marks[i] = np.int32(x[t, i] >= low[0, i]) & np.int32(x[t, i] < high[0, i])
        for i in range(channels):
            marks[i] |= np.int32(x[t, i] >= low[1, i]) & np.int32(x[t, i] < high[1, i])
        for m in range(pairs):
            if words[m] == 0:
                continue
            for i in range(2 * m, min(2 * m + 2, channels)):
                one = x[t, i]
                for q in range(2):
                    if (one >= low[q, i]) & (one < high[q, i]):
                        room[q, i, filled[q, i]] = one
                        filled[q, i] += 1


def _in_order(room: Any, filled: Any, ranks: Any, under: Any, found: Any) -> None:
    """Sort the few numbers of each channel [2, D, _ROOM], and take those of the ranks and the next ones."""
    for q in range(room.shape[0]):
        for i in range(room.shape[1]):
            if not filled[q, i]:
                continue
            some = room[q, i]
            for n in range(1, filled[q, i]):
                one, m = some[n], n
                while m > 0 and some[m - 1] > one:
                    some[m] = some[m - 1]
                    m -= 1
                some[m] = one
            place = ranks[q] - under[q, i]
            found[q, 0, i], found[q, 1, i] = some[place], some[place + 1]
