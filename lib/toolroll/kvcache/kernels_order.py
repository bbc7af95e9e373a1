"""Quantiles of each channel of a head, by numba: the same as by sorting, without sorting.

A few tokens that are sorted, then every fourth, tell between which two values a quantile will lie. A pass counts how
many tokens lie below either, and thereby where between them it is. The next pass gathers what lies near that place,
and counts what is below: so it is known whether the numbers wanted are among it, and these are put in order. A channel
where they are not, or that has too many equal numbers, is sorted.
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
_MANY = 2048  #: tokens from which on every fourth tells more than those that are sorted
_SAMPLES = 208  #: tokens that are sorted first
_CLOSE = 384  #: as many numbers between two values are few enough to gather those nearest to the place wanted
#: fewer than so many may be gathered; of 17 lines of the cache, so that channels have different places there
_ROOM = 272
_ROUNDS = 5
_WHICH = np.uint64(0x0001020304050607)  # 256^k times this has k in its highest byte


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
    sample, narrow, gather, take = _kernels()
    step = max(1, tokens // _SAMPLES)
    some = np.empty((channels, len(range(step // 2, tokens, step))), np.float32)
    sample(x, step, some)
    some.sort(-1)
    at = np.empty((4, channels), np.float32)
    narrow(x, some, ranks, at)
    room, filled = np.empty((channels, _ROOM), np.float32), np.zeros(channels, np.intp)
    under = np.zeros((2, channels), np.int32)
    gather(x, at, room, filled, under)
    room = np.sort(room[:, : filled.max()], axis=-1)
    found, sound = np.empty((2, 2, channels), np.float32), np.ones(channels, np.bool_)
    take(room, filled, at, under, ranks, found, sound)
    if not sound.all():
        whole = np.sort(x.T[~sound], axis=-1).T
        for pair, rank in zip(found, ranks, strict=True):
            pair[:, ~sound] = whole[rank : rank + 2]
    return found


@cache
def _kernels() -> tuple[Any, Any, Any, Any]:
    n, n1, i2, bools = numba.intp, numba.intp[::1], numba.int32[:, ::1], numba.boolean[::1]
    f2, f3 = numba.float32[:, ::1], numba.float32[:, :, ::1]
    return (
        _exactly(_sample, numba.void(f2, n, f2)),
        _exactly(_narrow, numba.void(f2, f2, n1, f2)),
        _exactly(_gather, numba.void(f2, f2, f2, n1, i2)),
        _exactly(_take, numba.void(f2, n1, f2, i2, n1, f3, bools)),
    )


# --- what numba compiles; it reads no annotations


def _sample(x: Any, step: Any, some: Any) -> None:
    """Every `step`th token of x [T, D], as [D, n]."""
    channels, count = some.shape
    for j in range(count):
        t = step // 2 + j * step
        for i in range(channels):
            some[i, j] = x[t, i]


def _narrow(x: Any, some: Any, ranks: Any, at: Any) -> None:  # noqa: C901 - what numba compiles in one piece
    """Values `at` [4, D], two of either rank, that most probably lie on either side of its number and of the next one.

    `some` [D, n] are numbers of each channel, in order, to begin with.
    """
    tokens, channels = x.shape
    few = some.shape[1]
    quarter = tokens >= _MANY
    for q in range(2):
        share = (ranks[q] + 1) / tokens
        off = (1.25 if quarter else 3.0) * np.sqrt(few * share * (1 - share)) + 1
        first, last = int(np.floor(share * few - off)), int(np.ceil(share * few + off))
        for i in range(channels):
            wide = some[i, few - 1] - some[i, 0]
            at[2 * q, i] = some[i, first] if first >= 0 else some[i, 0] - wide
            at[2 * q + 1, i] = some[i, last] if last < few else some[i, few - 1] + wide
    counts = np.empty((4, channels), np.int32)
    low, high = np.full((2, channels), -np.inf, np.float32), np.full((2, channels), np.inf, np.float32)
    under, upto = np.zeros((2, channels), np.int32), np.full((2, channels), tokens, np.int32)
    for turn in range(0 if quarter else 1, _ROUNDS):
        step = 1 if turn else 4
        count = tokens // step
        counts[:] = 0
        whole = count // 4 * 4
        for n in range(0, whole, 4):  # four at a time: a count is fetched and put back once for them
            t = n * step
            for k in range(4):
                for i in range(channels):
                    value = at[k, i]
                    two = np.int32(x[t, i] < value) + np.int32(x[t + step, i] < value)
                    counts[k, i] += two + np.int32(x[t + 2 * step, i] < value) + np.int32(x[t + 3 * step, i] < value)
        for n in range(whole, count):
            for k in range(4):
                for i in range(channels):
                    counts[k, i] += np.int32(x[n * step, i] < at[k, i])
        if turn == 0:
            for q in range(2):
                share = (ranks[q] + 1) / tokens
                off = np.float32(3.25 * np.sqrt(count * share * (1 - share)) + 1)
                for i in range(channels):
                    bottom, inside = at[2 * q, i], counts[2 * q + 1, i] - counts[2 * q, i]
                    step_up = (at[2 * q + 1, i] - bottom) / np.float32(max(inside, 1))
                    middle = bottom + step_up * np.float32(share * count - counts[2 * q, i])
                    at[2 * q, i], at[2 * q + 1, i] = middle - step_up * off, middle + step_up * off
            continue
        wide_ones = 0
        for q in range(2):
            for i in range(channels):
                wide = at[2 * q + 1, i] - at[2 * q, i]
                for k in range(2 * q, 2 * q + 2):
                    if counts[k, i] <= ranks[q] and at[k, i] > low[q, i]:
                        low[q, i], under[q, i] = at[k, i], counts[k, i]
                    if counts[k, i] >= ranks[q] + 2 and at[k, i] < high[q, i]:
                        high[q, i], upto[q, i] = at[k, i], counts[k, i]
                inside = upto[q, i] - under[q, i]
                wide_ones += inside > _CLOSE
                bottom, top = low[q, i], high[q, i]
                if bottom == -np.inf:
                    at[2 * q, i], at[2 * q + 1, i] = top - wide, top - wide / 4
                elif top == np.inf:
                    at[2 * q, i], at[2 * q + 1, i] = bottom + wide / 4, bottom + wide
                else:
                    # shares of a bell's tail are nearly even in log p / (1 - p), in p they are not
                    left = np.log((under[q, i] + 0.5) / (tokens - under[q, i] + 0.5))
                    right = np.log((upto[q, i] + 0.5) / (tokens - upto[q, i] + 0.5))
                    here = (np.log((ranks[q] + 1.5) / (tokens - ranks[q] - 0.5)) - left) / (right - left)
                    middle = bottom + (top - bottom) * np.float32(here)
                    off = (top - bottom) * np.float32(1.25 / np.sqrt(inside) + 0.06)
                    at[2 * q, i], at[2 * q + 1, i] = max(middle - off, bottom), min(middle + off, top)
        if wide_ones <= channels // 64:
            break


def _gather(x: Any, at: Any, room: Any, filled: Any, under: Any) -> None:  # noqa: C901
    """Put what lies between two values of either pair into `room` [D, R], `filled` [D] of it, in no order.

    `under` [2, D] numbers lie below either pair.
    """
    tokens, channels = x.shape
    most = room.shape[1]
    one_bit, seven_bytes = np.uint64(1), np.uint64(56)
    low, high, low2, high2 = at[0].copy(), at[1].copy(), at[2].copy(), at[3].copy()
    below, below2 = np.zeros(channels, np.int32), np.zeros(channels, np.int32)
    marks = np.zeros(-(-channels // 8) * 8, np.bool_)
    words = marks.view(np.uint64)
    whole = tokens // 4 * 4
    for t in range(0, tokens, 4):
        if t < whole:
            for i in range(channels):
                two = np.int32(x[t, i] < low[i]) + np.int32(x[t + 1, i] < low[i])
                below[i] += two + np.int32(x[t + 2, i] < low[i]) + np.int32(x[t + 3, i] < low[i])
            for i in range(channels):
                two = np.int32(x[t, i] < low2[i]) + np.int32(x[t + 1, i] < low2[i])
                below2[i] += two + np.int32(x[t + 2, i] < low2[i]) + np.int32(x[t + 3, i] < low2[i])
        for n in range(t, min(t + 4, tokens)):
            if n >= whole:
                for i in range(channels):
                    below[i] += np.int32(x[n, i] < low[i])
                    below2[i] += np.int32(x[n, i] < low2[i])
            for i in range(channels):
                one = x[n, i]
                marks[i] = ((one >= low[i]) & (one < high[i])) | ((one >= low2[i]) & (one < high2[i]))
            for m in range(len(words)):
                word = words[m]
                while word:  # a byte of eight channels each that is 1
                    last = word & (~word + one_bit)
                    channel = 8 * m + np.intp((last * _WHICH) >> seven_bytes)
                    word ^= last
                    if filled[channel] < most:
                        room[channel, filled[channel]] = x[n, channel]
                        filled[channel] += 1
    under[0], under[1] = below, below2
    longest = filled.max()
    for i in range(channels):
        room[i, filled[i] : longest] = np.inf


def _take(room: Any, filled: Any, at: Any, under: Any, ranks: Any, found: Any, sound: Any) -> None:
    """The numbers of the ranks, and the next ones, of what was gathered and is in order; whether they are among it."""
    for q in range(2):
        for i in range(len(sound)):
            place = ranks[q] - under[q, i]
            fits = place >= 0 and filled[i] < _ROOM
            n = 0
            while n < filled[i] and room[i, n] < at[2 * q, i]:  # of the other pair
                n += 1
            place += n
            if fits and place + 1 < filled[i] and room[i, place + 1] < at[2 * q + 1, i]:
                found[q, 0, i], found[q, 1, i] = room[i, place], room[i, place + 1]
            else:
                sound[i] = False
