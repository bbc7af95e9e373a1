"""The rules that give each group of values its lo and scale. Plain numpy.

minmax      the smallest and the largest value
calibquant  both times a factor, as CalibQuant's code does: towards zero, not towards the channel's centre
quantile    the quantiles alpha and 1 - alpha (the first version of the paper names quantiles, and no alpha)
lloyd1      1 bit: mean -+ mean |x - mean|, which is the best pair of levels for what lies symmetrically
mse         minimum and maximum both drawn towards the mean, by the one of `SHARES` that has the least squared error
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.kvcache.scheme import Scheme

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bounds = tuple[F32, F32]
SHARES = np.linspace(1.0, 0.05, 39, dtype=np.float32)
_TYPES: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}


def ranges(x: F32, scheme: Scheme, rule: Callable[[F32, int, Scheme], Bounds] | None = None) -> Bounds:
    """The lo and scale of a head x [T, D], of the shape `scheme.groups(T, D)`; rounded to what is stored, as fp32.

    A group whose values are equal has scale 0 and that value as lo. ToolrollError where float16 is too small for them.
    `rule` gives lo and hi in place of `bounds`.

    >>> lo, scale = ranges(np.float32([[1, 5], [3, 5]]), Scheme("k", 1, "minmax"))
    >>> lo.tolist(), scale.tolist()
    ([[1.0, 5.0]], [[2.0, 0.0]])
    """
    parts = [(rule or bounds)(part, axis, scheme) for part, axis in _grouped(x, scheme)]
    joined = 0 if scheme.along == "tokens" else 1
    lo, hi = (np.concatenate(some, axis=joined) if len(some) > 1 else some[0] for some in zip(*parts, strict=True))
    with np.errstate(over="ignore"):
        wide = (hi - lo) / np.float32(scheme.levels)
    return stored(lo, wide, scheme)


def stored(lo: F32, scale: F32, scheme: Scheme) -> Bounds:
    """The lo and scale as they come back from a file, in fp32."""
    kind = _TYPES[scheme.meta]
    with np.errstate(over="ignore"):
        low, wide = lo.astype(kind), scale.astype(kind)
    if not (np.isfinite(low).all() and np.isfinite(wide).all()):
        instead = ": store ranges as fp32" if scheme.meta == "fp16" else ""
        raise ToolrollError(f"its range is too large for float{scheme.meta[2:]}{instead}")
    return low.astype(np.float32), wide.astype(np.float32)


def bounds(x: F32, axis: int, scheme: Scheme) -> Bounds:
    """The lo and hi of the groups that lie along `axis` of x, by the scheme's rule."""
    if scheme.rule == "quantile":
        alpha = scheme.the_alpha
        return quantiles(x, axis, alpha)
    if scheme.rule == "lloyd1":
        mean = x.mean(axis, keepdims=True, dtype=np.float64).astype(np.float32)
        spread = np.abs(x - mean).mean(axis, dtype=np.float64).astype(np.float32)
        mean = mean.squeeze(axis)
        return mean - spread, mean + spread
    lo, hi = x.min(axis), x.max(axis)
    if scheme.rule == "calibquant":
        factor = np.float32(scheme.the_shrink)
        return lo * factor, hi * factor
    if scheme.rule == "mse":
        return _least_error(x, axis, lo, hi, scheme)
    return lo, hi


def quantiles(x: F32, axis: int, alpha: float) -> Bounds:
    """The quantiles alpha and 1 - alpha along `axis`, between neighbours in proportion (numpy's `linear`)."""
    size = x.shape[axis]
    place = alpha * (size - 1)
    below = int(place)
    above = min(below + 1, size - 1)
    weight = np.float32(place - below)
    ordered = np.array(np.moveaxis(x, axis, -1), order="C")
    ordered.sort(-1)  # faster side by side than choosing some in their columns
    low, next_low, next_high, high = (ordered[..., at] for at in (below, above, size - 1 - above, size - 1 - below))
    return low + (next_low - low) * weight, high + (next_high - high) * weight


def _least_error(x: F32, axis: int, lo: F32, hi: F32, scheme: Scheme) -> Bounds:
    mean = x.mean(axis, dtype=np.float64).astype(np.float32)
    best = np.full(lo.shape, np.inf)
    share_of = np.ones_like(lo)
    for share in SHARES:
        low, wide = stored(mean + share * (lo - mean), share * (hi - lo) / np.float32(scheme.levels), scheme)
        low, wide = np.expand_dims(low, axis), np.expand_dims(wide, axis)
        found = low + wide * codes_of(x, low, wide, scheme.bits)
        error = np.square(found - x).mean(axis, dtype=np.float64)
        better = error < best
        best, share_of = np.where(better, error, best), np.where(better, share, share_of)
    return mean + share_of * (lo - mean), mean + share_of * (hi - mean)


def codes_of(x: F32, lo: F32, scale: F32, bits: int) -> U8:
    """The codes of x, lo and scale in shapes that go together; ties to even, 0 where scale is 0.

    Computed as x / scale + (- lo / scale) in fp32, each step rounded, as CalibQuant's code does: that decides ties.

    >>> codes_of(np.float32([0.5, 1.5, 9, -1]), np.float32(0), np.float32(1), 2).tolist()
    [0, 2, 3, 0]
    """
    wide = np.where(scale > 0, scale, np.float32(np.inf))
    place = x / wide
    place += -lo / wide
    if bits == 1:
        return (place > np.float32(0.5)).view(np.uint8)
    np.rint(place, out=place)
    np.clip(place, 0, (1 << bits) - 1, out=place)
    return place.astype(np.uint8)


def spread_out(values: F32, scheme: Scheme, tokens: int, channels: int) -> F32:
    """The lo or scale [rows, columns] of groups, in a shape that goes together with a head [T, D]."""
    if scheme.along == "tokens":
        return values if len(values) == 1 else np.repeat(values, scheme.group, axis=0)[:tokens]
    return np.repeat(values, scheme.group or channels, axis=1)[:, :channels]


def _grouped(x: F32, scheme: Scheme) -> list[tuple[F32, int]]:
    """Parts of a head [T, D] with a further axis along which groups lie, and that axis."""
    tokens, channels = x.shape
    if scheme.along == "tokens":
        size = min(scheme.group, tokens) or tokens
        whole = tokens // size * size
        parts = [(x[:whole].reshape(-1, size, channels), 1), (x[whole:].reshape(1, -1, channels), 1)]
    else:
        size = min(scheme.group, channels) or channels
        whole = channels // size * size
        parts = [(x[:, :whole].reshape(tokens, -1, size), 2), (x[:, whole:].reshape(tokens, 1, -1), 2)]
    return [(part, axis) for part, axis in parts if part.shape[axis]]
