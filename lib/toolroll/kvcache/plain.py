"""The definition, in plain numpy, of what kernels do: codes into bytes, and sums over codes that stay in bytes.

Codes lie in rows of bytes: data [H, N, M] uint8, of M bytes with `per` = 8 / bits codes each, so of K = M per codes.

    pack, unpack     codes [..., K] <-> bytes [..., M]
    encode           a head's values x [T, D] -> its bytes
    dot(data, w)     out[h, r, n] = sum_k w[h, r, k] code[h, n, k]       queries times keys
    mix(data, p)     out[h, r, k] = sum_n p[h, r, n] code[h, n, k]       probabilities times values

Where codes lie along tokens, the two change places. `kernels` are the same on a CPU by numba, `kernels_cuda` on a GPU.
"""

from __future__ import annotations

import numpy as np

from toolroll.kvcache.ranges import F32, U8, codes_of, spread_out
from toolroll.kvcache.scheme import Order, Scheme


def shifts(bits: int, order: Order) -> list[int]:
    """By how many bits each code of a byte is shifted, the first code first.

    >>> shifts(2, "msb"), shifts(4, "lsb")
    ([6, 4, 2, 0], [0, 4])
    """
    places = list(range(0, 8, bits))
    return places[::-1] if order == "msb" else places


def pack(codes: U8, bits: int, order: Order) -> U8:
    """Codes [..., K] in bytes [..., K bits / 8].

    >>> pack(np.uint8([1, 0, 1, 1, 0, 0, 1, 0]), 1, "msb").tolist()
    [178]
    """
    if bits == 8:
        return codes
    if bits == 1:
        return np.packbits(codes, axis=-1, bitorder="big" if order == "msb" else "little")
    parts = codes.reshape(*codes.shape[:-1], codes.shape[-1] * bits // 8, 8 // bits)
    made: U8 = np.zeros(parts.shape[:-1], np.uint8)
    for j, shift in enumerate(shifts(bits, order)):
        made |= parts[..., j] << np.uint8(shift)
    return made


def unpack(data: U8, bits: int, order: Order) -> U8:
    """The codes [..., M 8 / bits] of bytes [..., M]."""
    if bits == 8:
        return data
    if bits == 1:
        return np.unpackbits(data, axis=-1, bitorder="big" if order == "msb" else "little")
    made = np.empty((*data.shape, 8 // bits), np.uint8)
    for j, shift in enumerate(shifts(bits, order)):
        made[..., j] = (data >> np.uint8(shift)) & np.uint8((1 << bits) - 1)
    return made.reshape(*data.shape[:-1], data.shape[-1] * 8 // bits)


def encode(x: F32, lo: F32, scale: F32, scheme: Scheme) -> U8:
    """The bytes [rows, row bytes] of a head x [T, D], lo and scale as `ranges` gives them."""
    tokens, channels = x.shape
    low, wide = (spread_out(part, scheme, tokens, channels) for part in (lo, scale))
    codes = codes_of(x, low, wide, scheme.bits)
    if scheme.packed_along == "tokens":
        codes = np.pad(codes.T, ((0, 0), (0, -tokens % scheme.unit)))
    return pack(codes, scheme.bits, scheme.order)


def dot(data: U8, w: F32, bits: int, order: Order) -> F32:
    """out[h, r, n] = sum_k w[h, r, k] code[h, n, k]: data [H, N, M], w [H, R, K]; [H, R, N]."""
    made = [w[h] @ unpack(data[h], bits, order).T.astype(np.float32) for h in range(len(data))]
    return np.stack(made) if made else np.zeros((0, w.shape[1], data.shape[1]), np.float32)


def mix(data: U8, p: F32, bits: int, order: Order) -> F32:
    """out[h, r, k] = sum_n p[h, r, n] code[h, n, k]: data [H, N, M], p [H, R, N]; [H, R, K]."""
    made = [p[h] @ unpack(data[h], bits, order).astype(np.float32) for h in range(len(data))]
    return np.stack(made) if made else np.zeros((0, p.shape[1], data.shape[2] * 8 // bits), np.float32)
