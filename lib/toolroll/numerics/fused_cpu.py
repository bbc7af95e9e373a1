"""x Wᵀ with W in 16 bit and fp32 arithmetic on a CPU: a numba kernel in which each sum has one order.

Weights are raised in the registers, so that 2 bytes a weight come from memory and an fp32 copy never exists. A dot
product of length K is, whatever is computed beside it:

    lane l of 16 = fma(x[16 j + l], w[16 j + l], lane l) for j = 0, 1, ..., elements beyond K counting as zeros;
    then lanes l and l + 8 are added, l and l + 4, l and l + 2, l and l + 1.

Every step rounds once (IEEE fp32, a true fused multiply-add), so the bits do not depend on the batch, on the number of
threads, which split N only, on the tile a dot falls into, or on the width of the machine's vectors.

The loop over K is written as LLVM vector code, since the order of what a compiler vectorises by itself is the
compiler's. A tile of several rows of x and of W shares what it loads: `ROWS` x `COLUMNS` accumulators have to fit into
the registers, 32 of 16 floats with AVX-512, else 16 of 8. Blocks of W stay in the cache while rows of x pass over them.

All of it stands in one file, because numba takes cached machine code for stale when this file changes, and no other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core.cgutils import get_or_insert_function
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch import Tensor

from toolroll.errors import UsageError
from toolroll.run.shares import pool

LANES = 16
STEP = 2 * LANES  #: elements of a turn of the loop: one cache line of W
BLOCK = 1 << 18  #: bytes of W that rows of x pass over, to stay in the second-level cache
PANEL = 128  #: rows of x that pass over a block; with more of them x would come from memory again for each block
UNIT = 8  #: shares and blocks are multiples of so many rows of W, which all tiles divide
ALONE = 4 << 20  #: multiplications and loads of weights below which another thread costs more than it saves
SHARES = 8  #: into so many times the number of threads N is cut

# What numba keys its cached machine code by, so that the code and the choice of tiles always belong together.
_TRIPLE, _, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
ROWS, COLUMNS, PAIR_COLUMNS, ROW_COLUMNS = (4, 4, 8, 8) if "+avx512f" in _FEATURES else (3, 2, 2, 4)

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_BYTE = ir.IntType(8)
_INT = ir.IntType(32)
_LONG = ir.IntType(64)
_ZERO = ir.Constant(_FLOATS, [0.0] * LANES)


def fused_linear(x: Tensor, weight: Tensor) -> Tensor:
    """The product x Wᵀ: x [M, K] fp32, weight [N, K] bfloat16 or float16, both on the CPU; [M, N] fp32.

    Uses up to `torch.get_num_threads()` threads. Rows that are not contiguous are copied first.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    (rows, size), columns = x.shape, weight.shape[0]
    out = x.new_empty(rows, columns)
    threads = max(1, min(torch.get_num_threads(), columns * size * (rows + 4) // ALONE))
    # Threads take their next share of N from a counter: one that comes late, or not at all, holds up nobody.
    taken = array("q", [0])
    share = max(UNIT, columns // (SHARES * threads) // UNIT * UNIT) if threads > 1 else columns
    matrices = (x.data_ptr(), 4 * x.stride(0), weight.data_ptr(), 2 * weight.stride(0), out.data_ptr())
    work = (*matrices, rows, size, columns, share, taken.buffer_info()[0], weight.dtype == torch.float16)
    kernel = _kernel()
    helpers = [pool().submit(kernel, *work) for _ in range(threads - 1)]
    kernel(*work)
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    return out


def is_possible() -> bool:
    """Whether this processor has a fused multiply-add; those that are not x86 do."""
    return "x86" not in _TRIPLE or "+fma" in _FEATURES


@cache
def _kernel() -> Callable[..., None]:
    """The machine code of `_product`, kept in numba's cache where there is a place to write."""
    if not is_possible():
        raise UsageError("fused needs a processor with fused multiply-add: take blocked", place="how")
    signature = numba.void(*[numba.intp] * 10, numba.boolean)
    try:
        kernel: Callable[..., None] = numba.njit(signature, nogil=True, cache=True)(_product)
    except (RuntimeError, OSError):  # no folder that can be written to, or no room in it
        kernel = numba.njit(signature, nogil=True)(_product)
    return kernel


def _product(
    x: int,
    x_stride: int,
    w: int,
    w_stride: int,
    out: int,
    rows: int,
    size: int,
    columns: int,
    share: int,
    taken: int,
    half: bool,
) -> None:
    """What numba compiles: takes shares of the columns of out = x Wᵀ until all are taken, and computes them.

    Addresses and strides are in bytes; size is K, columns N. `taken` is the address of the number of columns that some
    thread has taken. A tile that would stick out starts earlier and computes some dots again, to the same bits.
    """
    block = max(UNIT, BLOCK // max(1, 2 * size) // UNIT * UNIT)
    first = _take(taken, share)
    while first < columns:
        last = min(columns, first + share)
        for top in range(0, rows, PANEL):
            bottom = min(rows, top + PANEL)
            for start in range(first, last, block):
                stop = min(last, start + block)
                row = top
                while row < bottom:
                    high, wide = 1, ROW_COLUMNS
                    if bottom - row >= ROWS:
                        high, wide = ROWS, COLUMNS
                    elif bottom - row >= 2:
                        high, wide = 2, PAIR_COLUMNS
                    if columns < wide:
                        high, wide = 1, 1
                    x_row, y_row = x + row * x_stride, out + 4 * row * columns
                    for column in range(start, stop, wide):
                        place = min(column, columns - wide)
                        w_row, y = w + place * w_stride, y_row + 4 * place
                        if wide == 1:
                            _dot(x_row, x_stride, w_row, w_stride, y, 4 * columns, size, half)
                        elif high == ROWS:
                            _tile(x_row, x_stride, w_row, w_stride, y, 4 * columns, size, half)
                        elif high == 2:
                            _pair(x_row, x_stride, w_row, w_stride, y, 4 * columns, size, half)
                        else:
                            _row(x_row, x_stride, w_row, w_stride, y, 4 * columns, size, half)
                    row += high
        first = _take(taken, share)


def _taking() -> Any:
    """What numba replaces by an atomic addition: f(taken, share) adds to the number at `taken`, gives what it was."""

    def take(typing: Any, taken: Any, share: Any) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del context, signature
            address, amount = arguments
            return builder.atomic_rmw("add", builder.inttoptr(address, _LONG.as_pointer()), amount, "monotonic")

        return numba.intp(taken, share), generate

    return intrinsic(take)


def _addresses(builder: Any, start: Any, stride: Any, count: int) -> list[Any]:
    """start, start + stride, ...: `count` of them."""
    found = [start]
    while len(found) < count:
        found.append(builder.add(found[-1], stride))
    return found


def _raised_bfloat(builder: Any, vector: Any) -> Any:
    """A bfloat16 is the upper half of the float it stands for."""
    wide = builder.zext(vector, _INTS)
    return builder.bitcast(builder.shl(wide, ir.Constant(_INTS, [16] * LANES)), _FLOATS)


def _raised_half(builder: Any, vector: Any) -> Any:
    return builder.fpext(builder.bitcast(vector, _HALVES), _FLOATS)


def _dots(builder: Any, x_rows: list[Any], w_rows: list[Any], ahead: list[Any], size: Any, raised: Any) -> list[Any]:
    """The lanes of all dot products of these rows over K = `size`, those of a row of x side by side.

    `ahead` are the rows of W of the next tile. They are asked for while these are worked on, since processors do not
    look ahead beyond a page of memory, which may be a row; an address that does not exist does no harm.
    """

    def step(k: Any, sums: Sequence[Any]) -> list[Any]:
        for row in ahead:
            _prefetch(builder, builder.add(row, _times(builder, k, 2)))
        for lanes in (k, builder.add(k, ir.Constant(_LONG, LANES))):
            sums = _multiply_add(
                builder,
                [builder.load(_at(builder, row, lanes, 4, _FLOATS), align=4) for row in x_rows],
                [raised(builder, builder.load(_at(builder, row, lanes, 2, _SHORTS), align=2)) for row in w_rows],
                sums,
            )
        return list(sums)

    def masked_step(k: Any, sums: Sequence[Any]) -> list[Any]:
        mask = _first_lanes(builder, builder.sub(size, k))
        return _multiply_add(
            builder,
            [_masked_load(builder, _at(builder, row, k, 4, _FLOATS), mask, _FLOATS, "f32") for row in x_rows],
            [
                raised(builder, _masked_load(builder, _at(builder, row, k, 2, _SHORTS), mask, _SHORTS, "i16"))
                for row in w_rows
            ],
            sums,
        )

    even = builder.and_(size, ir.Constant(_LONG, -STEP))
    sums = [_ZERO] * (len(x_rows) * len(w_rows))
    sums = _loop(builder, ir.Constant(_LONG, 0), even, STEP, sums, step)
    return _loop(builder, even, size, LANES, sums, masked_step)


def _loop(
    builder: Any, start: Any, stop: Any, step: int, sums: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """The sums of `sums = body(k, sums)` for k in range(start, stop, step), kept in registers."""
    before = builder.block
    head, turn, after = (builder.append_basic_block(name) for name in ("head", "turn", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    k, *kept = (builder.phi(value.type) for value in (start, *sums))
    builder.cbranch(builder.icmp_signed("<", k, stop), turn, after)
    builder.position_at_end(turn)
    following = [builder.add(k, ir.Constant(_LONG, step)), *body(k, kept)]
    for phi, first, value in zip((k, *kept), (start, *sums), following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return kept


def _multiply_add(builder: Any, xs: Sequence[Any], ws: Sequence[Any], sums: Sequence[Any]) -> list[Any]:
    fma = get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32")
    pairs = [(x, w) for x in xs for w in ws]
    return [builder.call(fma, [x, w, kept]) for (x, w), kept in zip(pairs, sums, strict=True)]


def _store(builder: Any, sums: Sequence[Any], y_rows: Sequence[Any], columns: int) -> None:
    """Adds up the lanes of all dots at once, 16 vectors of 16 lanes becoming one of 16 dots, and writes it by rows."""
    vectors, lanes = list(sums), LANES
    while lanes > 1:
        half = lanes // 2
        if len(vectors) % 2:
            vectors.append(_ZERO)
        starts = [group + lane for group in range(0, 2 * LANES, lanes) for lane in range(half)]
        vectors = [
            builder.fadd(_shuffled(builder, a, b, starts), _shuffled(builder, a, b, [start + half for start in starts]))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        lanes = half
    for number, row in enumerate(y_rows):
        dots = list(range(number * columns, (number + 1) * columns))
        part = _shuffled(builder, vectors[0], vectors[0], dots)
        builder.store(part, builder.inttoptr(row, part.type.as_pointer()), align=4)


def _shuffled(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(lanes)), lanes))


def _first_lanes(builder: Any, count: Any) -> Any:
    """The mask of the first `count` lanes, of all when it is larger."""
    numbers = ir.VectorType(_LONG, LANES)
    one = builder.insert_element(ir.Constant(numbers, ir.Undefined), count, ir.Constant(_INT, 0))
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), _shuffled(builder, one, one, [0] * LANES))


def _masked_load(builder: Any, pointer: Any, mask: Any, kind: Any, name: str) -> Any:
    """The lanes of the mask, zeros in the others, for which no memory is touched."""
    form = ir.FunctionType(kind, [pointer.type, _INT, _BITS, kind])
    load = get_or_insert_function(builder.module, form, f"llvm.masked.load.v{LANES}{name}.p0")
    return builder.call(load, [pointer, ir.Constant(_INT, 2), mask, ir.Constant(kind, None)])


def _prefetch(builder: Any, address: Any) -> None:
    form = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
    call = get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
    read, second_level, data = (ir.Constant(_INT, number) for number in (0, 2, 1))
    builder.call(call, [builder.inttoptr(address, _BYTE.as_pointer()), read, second_level, data])


def _at(builder: Any, row: Any, k: Any, width: int, kind: Any) -> Any:
    """A pointer to the vector that starts at element k of a row, elements being `width` bytes wide."""
    return builder.inttoptr(builder.add(row, _times(builder, k, width)), kind.as_pointer())


def _times(builder: Any, k: Any, width: int) -> Any:
    return builder.mul(k, ir.Constant(_LONG, width))


def _tile_of(rows: int, columns: int) -> Any:
    """What numba replaces by a tile: f(x, x_stride, w, w_stride, out, out_stride, size, half) writes rows x columns."""

    def tile(
        typing: Any, x: Any, x_stride: Any, w: Any, w_stride: Any, out: Any, out_stride: Any, size: Any, half: Any
    ) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del signature
            x, x_stride, w, w_stride, out, out_stride, size, half = arguments
            x_rows = _addresses(builder, x, x_stride, rows)
            w_rows = _addresses(builder, w, w_stride, columns)
            ahead = _addresses(builder, w_rows[-1], w_stride, columns + 1)[1:]
            y_rows = _addresses(builder, out, out_stride, rows)
            with builder.if_else(half) as (is_half, is_bfloat):
                for branch, raised in ((is_half, _raised_half), (is_bfloat, _raised_bfloat)):
                    with branch:
                        sums = _dots(builder, x_rows, w_rows, ahead, size, raised)
                        _store(builder, sums, y_rows, columns)
            return context.get_dummy_value()

        return numba.void(x, x_stride, w, w_stride, out, out_stride, size, half), generate

    return intrinsic(tile)


_take = _taking()
_tile, _pair, _row, _dot = (
    _tile_of(rows, columns) for rows, columns in ((ROWS, COLUMNS), (2, PAIR_COLUMNS), (1, ROW_COLUMNS), (1, 1))
)
