"""What `plain` defines, on a CPU by numba: one thread, machine code kept in numba's cache.

dot with 1 or 2 bits looks up, for each byte of a key, the sum that its codes make with the query: 256 sums for each
byte of a row. mix turns that about: each token adds its probability to one of 256 sums for each byte of a row, and
what these sums stand for is worked out once at the end. So a byte costs one look-up and one addition in both, whatever
codes are in it. With 4 or 8 bits, tables would not stay in the nearest cache, and codes are multiplied as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

from toolroll.kvcache import plain, ranges
from toolroll.kvcache.ranges import F32, U8, Bounds
from toolroll.kvcache.scheme import Order, Scheme

_ROUNDING = np.float32(12582912.0)  # 1.5 x 2^23: a float32 that was added to it is an integer, ties to even
_BLOCK = 256  #: tokens whose codes are made before they are packed, so that they are still in the cache
_FEW = 96  #: rows from which on tables pay
# Codes that lie a byte each in a word, times this, are side by side in the byte above the `8 (per - 1)`th bit: no two
# of the products overlap.
_MAGIC = {
    (2, "msb"): 1 << 30 | 1 << 20 | 1 << 10 | 1,
    (2, "lsb"): 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6,
    (4, "msb"): 1 << 12 | 1,
    (4, "lsb"): 1 << 8 | 1 << 4,
}
_WORD = {1: np.uint64, 2: np.uint32, 4: np.uint16, 8: np.uint8}


def encode(x: F32, lo: F32, scale: F32, scheme: Scheme) -> U8:
    """The bytes [rows, row bytes] of a head x [T, D], lo and scale as `ranges` gives them."""
    tokens, channels = x.shape
    codes: U8
    if scheme.packed_along == "channels":
        codes = np.empty((min(tokens, _BLOCK), channels), np.uint8)
        made = np.empty((tokens, channels * scheme.bits // 8), np.uint8)
        for start in range(0, tokens, _BLOCK):
            block = codes[: min(_BLOCK, tokens - start)]
            _encode_kernel()(x, lo, scale, *_steps(scheme, tokens, channels), scheme.bits, start, block)
            made[start : start + len(block)] = pack(block, scheme.bits, scheme.order)
        return made
    codes = np.zeros((channels, -(-tokens // scheme.unit) * scheme.unit), np.uint8)
    _encode_kernel()(x, lo, scale, *_steps(scheme, tokens, channels), scheme.bits, 0, codes[:, :tokens].T)
    return pack(codes, scheme.bits, scheme.order)


def pack(codes: U8, bits: int, order: Order) -> U8:
    """Codes [..., K] in bytes [..., K bits / 8]."""
    if bits == 8:
        return codes
    if bits == 1:
        return plain.pack(codes, bits, order)  # numpy has it as fast
    word = _WORD[bits]
    flat = np.ascontiguousarray(codes).reshape(-1).view(word)
    made = np.empty(len(flat), np.uint8)
    _pack_kernel()[bits](flat, word(_MAGIC[bits, order]), word(8 * (8 // bits - 1)), made)
    return made.reshape(*codes.shape[:-1], codes.shape[-1] * bits // 8)


def unpack(data: U8, bits: int, order: Order) -> U8:
    """The codes [..., M 8 / bits] of bytes [..., M]: a table of what each byte holds."""
    if bits == 8:
        return data
    flat = np.ascontiguousarray(data).reshape(-1)
    table = _table(bits, order)
    made = np.empty(len(flat), table.dtype)
    _look_up()[bits](flat, table, made)
    return made.view(np.uint8).reshape(*data.shape[:-1], data.shape[-1] * 8 // bits)


def dot(data: U8, w: F32, bits: int, order: Order) -> F32:
    """out[h, r, n] = sum_k w[h, r, k] code[h, n, k]: data [H, N, M], w [H, R, K]; [H, R, N]."""
    heads, rows, _ = data.shape
    out = np.empty((heads, w.shape[1], rows), np.float32)
    kernel = _compiled(_dot_by_tables if _tables_pay(bits, rows) else _dot_by_codes, _SUMS)
    kernel(np.ascontiguousarray(data), np.ascontiguousarray(w), bits, order == "msb", out)
    return out


def mix(data: U8, p: F32, bits: int, order: Order) -> F32:
    """out[h, r, k] = sum_n p[h, r, n] code[h, n, k]: data [H, N, M], p [H, R, N]; [H, R, K]."""
    heads, rows, row_bytes = data.shape
    out = np.zeros((heads, p.shape[1], row_bytes * 8 // bits), np.float32)
    kernel = _compiled(_mix_by_tables if _tables_pay(bits, rows) else _mix_by_codes, _SUMS)
    kernel(np.ascontiguousarray(data), np.ascontiguousarray(p), bits, order == "msb", out)
    return out


def bounds(x: F32, axis: int, scheme: Scheme) -> Bounds:
    """What `ranges.bounds` gives; faster over all tokens, but for mse."""
    if axis != 1 or len(x) != 1 or scheme.rule == "mse":
        return ranges.bounds(x, axis, scheme)
    if scheme.rule == "quantile" and scheme.the_alpha:
        from toolroll.kvcache.kernels_order import quantiles

        low, high = quantiles(x[0], scheme.the_alpha)
        return low[None], high[None]
    low, high = np.empty(x.shape[2], np.float32), np.empty(x.shape[2], np.float32)
    kernel = _spread_kernel() if scheme.rule == "lloyd1" else _extremes_kernel()
    kernel(x[0], low, high)
    if scheme.rule == "calibquant":
        low, high = low * np.float32(scheme.the_shrink), high * np.float32(scheme.the_shrink)
    return low[None], high[None]


def sums(x: F32) -> F32:
    """The sum of each channel of a head [T, D]: not finite where a value is not."""
    made = np.empty(x.shape[1], np.float64)
    _sums_kernel()(x, made)
    return made.astype(np.float32)


def _tables_pay(bits: int, rows: int) -> bool:
    return bits <= 2 and rows >= _FEW


def _steps(scheme: Scheme, tokens: int, channels: int) -> tuple[int, int]:
    """So many tokens, and so many channels, share a place in lo and scale."""
    if scheme.along == "tokens":
        return scheme.group or max(tokens, 1), 1
    return 1, scheme.group or channels


@cache
def _table(bits: int, order: Order) -> Any:
    codes = plain.unpack(np.arange(256, dtype=np.uint8)[:, None], bits, order)
    return np.ascontiguousarray(codes).view(f"<u{8 // bits}").reshape(-1)


@cache
def _compiled(source: Callable[..., None], *signatures: Any, fastmath: Any = frozenset({"reassoc", "contract"})) -> Any:
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath) if fastmath else False}
    try:
        return numba.njit(list(signatures), cache=True, **settings)(source)
    except (RuntimeError, OSError):  # no folder that can be written to, or no room in it
        return numba.njit(list(signatures), **settings)(source)


def _exactly(source: Callable[..., None], *signatures: Any) -> Any:
    """Compiled so that every step rounds as it stands."""
    return _compiled(source, *signatures, fastmath=False)


_f2, _f3 = numba.float32[:, ::1], numba.float32[:, :, ::1]
_u2, _u3 = numba.uint8[:, ::1], numba.uint8[:, :, ::1]
_n, _yes = numba.intp, numba.boolean
_SUMS = numba.void(_u3, _f3, _n, _yes, _f3)


@cache
def _encode_kernel() -> Any:
    return _exactly(_encode, *[numba.void(_f2, _f2, _f2, _n, _n, _n, _n, out) for out in (_u2, numba.uint8[:, :])])


@cache
def _pack_kernel() -> dict[int, Any]:
    kinds = {2: numba.uint32, 4: numba.uint16}
    return {bits: _exactly(_pack, numba.void(kind[::1], kind, kind, numba.uint8[::1])) for bits, kind in kinds.items()}


@cache
def _look_up() -> dict[int, Any]:
    kinds = {1: numba.uint64, 2: numba.uint32, 4: numba.uint16}
    return {bits: _exactly(_copied, numba.void(numba.uint8[::1], kind[::1], kind[::1])) for bits, kind in kinds.items()}


@cache
def _spread_kernel() -> Any:
    return _compiled(_spread, numba.void(_f2, numba.float32[::1], numba.float32[::1]))


@cache
def _extremes_kernel() -> Any:
    return _compiled(_extremes, numba.void(_f2, numba.float32[::1], numba.float32[::1]))


@cache
def _sums_kernel() -> Any:
    return _compiled(_sums, numba.void(_f2, numba.float64[::1]))


# --- what numba compiles; it reads no annotations


def _encode(x: Any, lo: Any, scale: Any, step: Any, wide: Any, bits: Any, start: Any, out: Any) -> None:
    tokens, channels = out.shape
    top = np.float32((1 << bits) - 1)
    zero, size = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(tokens):
        t = start + n
        if n == 0 or t % step == 0:
            for i in range(channels):
                row, column = (t // step, i) if wide == 1 else (t, i // wide)
                size[i] = scale[row, column] if scale[row, column] > 0 else np.float32(np.inf)
                zero[i] = -lo[row, column] / size[i]
        if bits == 1:
            for i in range(channels):
                out[n, i] = x[t, i] / size[i] + zero[i] > np.float32(0.5)
        else:
            for i in range(channels):
                place = x[t, i] / size[i] + zero[i]
                place = place if place > np.float32(0) else np.float32(0)  # noqa: FURB136 - numba's max branches
                place = place if place < top else top  # noqa: FURB136
                out[n, i] = np.uint8(np.int32((place + _ROUNDING) - _ROUNDING))


def _pack(words: Any, magic: Any, shift: Any, out: Any) -> None:
    for m in range(len(words)):
        out[m] = np.uint8(((words[m] * magic) >> shift) & 255)


def _copied(data: Any, table: Any, out: Any) -> None:
    for i in range(len(data)):
        out[i] = table[data[i]]


def _dot_by_tables(data: Any, w: Any, bits: Any, msb: Any, out: Any) -> None:
    heads, rows, width = data.shape
    half = 4 // bits
    mask = (1 << bits) - 1
    table = np.empty((width, 256), np.float32)
    low, high = np.empty(16, np.float32), np.empty(16, np.float32)
    for h in range(heads):
        for r in range(w.shape[1]):
            for m in range(width):
                for c in range(16):  # the codes of half a byte: in its higher bits, or in its lower ones
                    above = below = np.float32(0)
                    for j in range(half):
                        code = np.float32((c >> (bits * (half - 1 - j) if msb else bits * j)) & mask)
                        first, second = w[h, r, 2 * m * half + j], w[h, r, (2 * m + 1) * half + j]
                        above += code * (first if msb else second)
                        below += code * (second if msb else first)
                    high[c], low[c] = above, below
                for c in range(256):
                    table[m, c] = high[c >> 4] + low[c & 15]
            for n in range(rows):
                one = np.float32(0)
                for m in range(width):
                    one += table[m, data[h, n, m]]
                out[h, r, n] = one


def _dot_by_codes(data: Any, w: Any, bits: Any, msb: Any, out: Any) -> None:
    heads, rows, width = data.shape
    per = 8 // bits
    mask = (1 << bits) - 1
    split = np.empty((per, width), np.float32)
    for h in range(heads):
        for r in range(w.shape[1]):
            for m in range(width):
                for j in range(per):
                    split[j, m] = w[h, r, m * per + j]
            for n in range(rows):
                one = np.float32(0)
                for j in range(per):
                    shift = bits * (per - 1 - j) if msb else bits * j
                    for m in range(width):
                        one += split[j, m] * np.float32((data[h, n, m] >> shift) & mask)
                out[h, r, n] = one


def _mix_by_tables(data: Any, p: Any, bits: Any, msb: Any, out: Any) -> None:
    heads, rows, width = data.shape
    per = 8 // bits
    mask = (1 << bits) - 1
    table = np.empty((width, 256), np.float32)
    for h in range(heads):
        for r in range(p.shape[1]):
            table[:] = 0
            for n in range(rows):
                share = p[h, r, n]
                for m in range(width):
                    table[m, data[h, n, m]] += share
            for m in range(width):
                for j in range(per):
                    shift = bits * (per - 1 - j) if msb else bits * j
                    one = np.float32(0)
                    for c in range(256):
                        one += np.float32((c >> shift) & mask) * table[m, c]
                    out[h, r, m * per + j] = one


def _mix_by_codes(data: Any, p: Any, bits: Any, msb: Any, out: Any) -> None:
    heads, rows, width = data.shape
    per = 8 // bits
    mask = (1 << bits) - 1
    split = np.empty((per, width), np.float32)
    for h in range(heads):
        for r in range(p.shape[1]):
            split[:] = 0
            for n in range(rows):
                share = p[h, r, n]
                for j in range(per):
                    shift = bits * (per - 1 - j) if msb else bits * j
                    for m in range(width):
                        split[j, m] += share * np.float32((data[h, n, m] >> shift) & mask)
            for m in range(width):
                for j in range(per):
                    out[h, r, m * per + j] = split[j, m]


def _spread(x: Any, low: Any, high: Any) -> None:
    tokens, channels = x.shape
    mean = np.zeros(channels, np.float64)
    spread = np.zeros(channels, np.float64)
    part = np.empty(channels, np.float32)
    for start in range(0, tokens, 64):
        part[:] = 0
        for t in range(start, min(start + 64, tokens)):
            for i in range(channels):
                part[i] += x[t, i]
        mean += part
    mean /= tokens
    middle = mean.astype(np.float32)
    for start in range(0, tokens, 64):
        part[:] = 0
        for t in range(start, min(start + 64, tokens)):
            for i in range(channels):
                part[i] += abs(x[t, i] - middle[i])
        spread += part
    for i in range(channels):
        half = np.float32(spread[i] / tokens)
        low[i], high[i] = middle[i] - half, middle[i] + half


def _extremes(x: Any, low: Any, high: Any) -> None:
    tokens, channels = x.shape
    for i in range(channels):
        low[i] = high[i] = x[0, i]
    for t in range(1, tokens):
        for i in range(channels):
            low[i] = min(low[i], x[t, i])
            high[i] = max(high[i], x[t, i])


def _sums(x: Any, out: Any) -> None:
    tokens, channels = x.shape
    part = np.empty(channels, np.float32)
    out[:] = 0
    for start in range(0, tokens, 64):
        part[:] = 0
        for t in range(start, min(start + 64, tokens)):
            for i in range(channels):
                part[i] += x[t, i]
        for i in range(channels):
            out[i] += part[i]
