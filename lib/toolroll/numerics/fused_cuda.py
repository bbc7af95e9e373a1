"""The product x Wᵀ with W in 16 bit and fp32 arithmetic on a GPU: a Triton kernel in which each sum has one order.

Checked in Triton's interpreter; not run on a GPU here.

A program computes ROWS x COLUMNS dot products and goes through K in steps of `DEPTH`, raising each tile of W in
registers. There is one path and one tile for every number of rows, K is not split among programs, nothing is tuned by
the shape, and the kernel is not compiled anew for what the batch changes (the number of rows, where x lies): the same
machine code adds in the same order whatever the batch. A single row pays for a whole tile, 16 multiplications a weight,
about what a GPU does in the time that 2 bytes take to arrive; a path of its own would have another order.

`input_precision="ieee"`, because the default rounds both factors to TF32, of 10 mantissa bits. The interpreter raises
subnormal bfloat16 to 0 and an infinite float16 to 65536; a GPU does neither.
"""

# No `from __future__ import annotations`: Triton reads the annotations `tl.constexpr`.

from contextlib import nullcontext
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

ROWS, COLUMNS, DEPTH = 16, 64, 64


def fused_linear(x: Tensor, weight: Tensor) -> Tensor:
    """The product x Wᵀ: x [M, K] fp32, weight [N, K] bfloat16 or float16, on the same GPU; [M, N] fp32.

    In Triton's interpreter (TRITON_INTERPRET=1) both are on the CPU.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    (rows, size), columns = x.shape, weight.shape[0]
    out = x.new_empty(rows, columns)
    if out.numel():
        grid = (triton.cdiv(columns, COLUMNS), triton.cdiv(rows, ROWS))
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            _product[grid](x, weight, out, rows, columns, size, x.stride(0), weight.stride(0), ROWS, COLUMNS, DEPTH)
    return out


def _product_source(
    x: Any,
    w: Any,
    out: Any,
    rows: Any,
    columns: Any,
    size: Any,
    x_stride: Any,
    w_stride: Any,
    high: tl.constexpr,
    wide: tl.constexpr,
    deep: tl.constexpr,
) -> None:
    """What Triton compiles: one tile of out, high x wide; elements beyond K count as zeros."""
    row = tl.program_id(1) * high + tl.arange(0, high)
    column = tl.program_id(0) * wide + tl.arange(0, wide)
    x_rows = x + row.to(tl.int64)[:, None] * x_stride
    w_rows = w + column.to(tl.int64)[None, :] * w_stride
    sums = tl.zeros((high, wide), dtype=tl.float32)
    for start in range(0, size, deep):
        k = start + tl.arange(0, deep)
        part = tl.load(x_rows + k[None, :], mask=(row < rows)[:, None] & (k < size)[None, :], other=0.0)
        stored = tl.load(w_rows + k[:, None], mask=(column < columns)[None, :] & (k < size)[:, None], other=0.0)
        sums = tl.dot(part, stored.to(tl.float32), sums, input_precision="ieee")
    y = out + row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(y, sums, mask=(row < rows)[:, None] & (column < columns)[None, :])


_product = triton.jit(
    _product_source,
    do_not_specialize=["rows", "x_stride"],
    do_not_specialize_on_alignment=["x", "x_stride", "out"],
)
