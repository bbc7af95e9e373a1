"""What `plain` defines, on a GPU by Triton. Checked in Triton's interpreter; not run on a GPU here.

pack, unpack, dot and mix are those of `plain`, for tensors. Codes are taken from their bytes in registers and never
lie in memory unpacked. A program of dot has the scores of `ROWS` tokens, one of mix the sums of a block of channels
over all tokens, so that every sum has one order.
"""

# No `from __future__ import annotations`: Triton reads the annotations `tl.constexpr`.

from contextlib import nullcontext
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

ROWS, BYTES = 64, 32


def pack(codes: Tensor, bits: int, order: str) -> Tensor:
    """Codes [..., K] uint8 in bytes [..., K bits / 8]."""
    flat = codes.contiguous()
    out = flat.new_empty((*codes.shape[:-1], codes.shape[-1] * bits // 8))
    if out.numel():
        with _device(flat):
            _pack[(triton.cdiv(out.numel(), 1024),)](flat, out, out.numel(), bits, order == "msb", 1024)
    return out


def unpack(data: Tensor, bits: int, order: str) -> Tensor:
    """The codes [..., M 8 / bits] of bytes [..., M]."""
    flat = data.contiguous()
    out = flat.new_empty((*data.shape[:-1], data.shape[-1] * 8 // bits))
    if out.numel():
        with _device(flat):
            _unpack[(triton.cdiv(flat.numel(), 1024),)](flat, out, flat.numel(), bits, order == "msb", 1024)
    return out


def dot(data: Tensor, w: Tensor, bits: int, order: str) -> Tensor:
    """out[h, r, n] = sum_k w[h, r, k] code[h, n, k]: data [H, N, M] uint8, w [H, R, K] fp32; [H, R, N]."""
    data, w = data.contiguous(), w.contiguous()
    (heads, rows, width), each = data.shape, w.shape[1]
    out = w.new_empty(heads, each, rows)
    if out.numel():
        with _device(data):
            grid = (triton.cdiv(rows, ROWS), each, heads)
            _dot[grid](data, w, out, rows, width, each, bits, order == "msb", ROWS, triton.next_power_of_2(width))
    return out


def mix(data: Tensor, p: Tensor, bits: int, order: str) -> Tensor:
    """out[h, r, k] = sum_n p[h, r, n] code[h, n, k]: data [H, N, M] uint8, p [H, R, N] fp32; [H, R, K]."""
    data, p = data.contiguous(), p.contiguous()
    (heads, rows, width), each = data.shape, p.shape[1]
    out = p.new_empty(heads, each, width * 8 // bits)
    if out.numel():
        with _device(data):
            grid = (triton.cdiv(width, BYTES), each, heads)
            _mix[grid](data, p, out, rows, width, each, bits, order == "msb", ROWS, BYTES)
    return out


def _device(tensor: Tensor) -> Any:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _shift_of(j: Any, bits: Any, msb: Any) -> Any:
    """By how many bits code j of a byte is shifted."""
    return tl.where(msb, 8 - bits - bits * j, bits * j)


_shift = triton.jit(_shift_of)


def _pack_source(codes: Any, out: Any, size: Any, bits: tl.constexpr, msb: tl.constexpr, block: tl.constexpr) -> None:
    """What Triton compiles: `block` bytes, each of 8 / bits codes."""
    m = tl.program_id(0) * block + tl.arange(0, block)
    made = tl.zeros((block,), dtype=tl.int32)
    for j in range(8 // bits):
        code = tl.load(codes + m.to(tl.int64) * (8 // bits) + j, mask=m < size, other=0).to(tl.int32)
        made = made | (code << _shift(j, bits, msb))
    tl.store(out + m, made.to(tl.uint8), mask=m < size)


def _unpack_source(data: Any, out: Any, size: Any, bits: tl.constexpr, msb: tl.constexpr, block: tl.constexpr) -> None:
    """What Triton compiles: the codes of `block` bytes."""
    m = tl.program_id(0) * block + tl.arange(0, block)
    byte = tl.load(data + m, mask=m < size, other=0).to(tl.int32)
    for j in range(8 // bits):
        code = (byte >> _shift(j, bits, msb)) & ((1 << bits) - 1)
        tl.store(out + m.to(tl.int64) * (8 // bits) + j, code.to(tl.uint8), mask=m < size)


def _dot_source(
    data: Any,
    w: Any,
    out: Any,
    rows: Any,
    width: Any,
    each: Any,
    bits: tl.constexpr,
    msb: tl.constexpr,
    high: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """What Triton compiles: the sums of `high` rows with one row of w, whose codes are in `wide` bytes or fewer."""
    n = tl.program_id(0) * high + tl.arange(0, high)
    r, h = tl.program_id(1), tl.program_id(2)
    m = tl.arange(0, wide)
    place = h.to(tl.int64) * rows * width + n.to(tl.int64)[:, None] * width + m[None, :]
    byte = tl.load(data + place, mask=(n < rows)[:, None] & (m < width)[None, :], other=0).to(tl.int32)
    sums = tl.zeros((high,), dtype=tl.float32)
    for j in range(8 // bits):
        code = (byte >> _shift(j, bits, msb)) & ((1 << bits) - 1)
        share = tl.load(w + ((h * each + r) * width + m) * (8 // bits) + j, mask=m < width, other=0.0)
        sums += tl.sum(code.to(tl.float32) * share[None, :], axis=1)
    tl.store(out + (h * each + r).to(tl.int64) * rows + n, sums, mask=n < rows)


def _mix_source(
    data: Any,
    p: Any,
    out: Any,
    rows: Any,
    width: Any,
    each: Any,
    bits: tl.constexpr,
    msb: tl.constexpr,
    high: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """What Triton compiles: the sums over all rows, `high` at a time, of the codes in `wide` bytes."""
    m = tl.program_id(0) * wide + tl.arange(0, wide)
    r, h = tl.program_id(1), tl.program_id(2)
    for j in range(8 // bits):
        sums = tl.zeros((wide,), dtype=tl.float32)
        for start in range(0, rows, high):
            n = start + tl.arange(0, high)
            place = h.to(tl.int64) * rows * width + n.to(tl.int64)[:, None] * width + m[None, :]
            byte = tl.load(data + place, mask=(n < rows)[:, None] & (m < width)[None, :], other=0).to(tl.int32)
            code = (byte >> _shift(j, bits, msb)) & ((1 << bits) - 1)
            share = tl.load(p + (h * each + r).to(tl.int64) * rows + n, mask=n < rows, other=0.0)
            sums += tl.sum(code.to(tl.float32) * share[:, None], axis=0)
        tl.store(out + ((h * each + r) * width + m) * (8 // bits) + j, sums, mask=m < width)


_pack, _unpack, _dot, _mix = (triton.jit(source) for source in (_pack_source, _unpack_source, _dot_source, _mix_source))
