"""Heads as codes: quantized once, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from toolroll.errors import ToolrollError
from toolroll.kvcache import plain
from toolroll.kvcache.ranges import F32, U8, ranges, spread_out
from toolroll.kvcache.scheme import Scheme

Backend = Literal["auto", "numpy", "numba"]
_LARGE = 1 << 22  #: elements from which on loading numba pays


@dataclass(frozen=True, slots=True)
class Block:
    """H heads of `tokens` tokens: codes [H, rows, row bytes], lo and scale [H, ...] in fp32 as they are stored."""

    scheme: Scheme
    tokens: int
    channels: int
    codes: U8
    lo: F32
    scale: F32

    @property
    def stored_bytes(self) -> int:
        """Bytes of codes, lo and scale."""
        heads = len(self.codes)
        scheme = self.scheme
        return heads * (scheme.code_bytes(self.tokens, self.channels) + scheme.range_bytes(self.tokens, self.channels))


def kernels_for(backend: Backend, elements: int) -> Any:
    """The module with the kernels: `plain`, or `kernels` (numba), which `auto` takes for much data."""
    if backend == "numba" or (backend == "auto" and elements >= _LARGE):
        from toolroll.kvcache import kernels

        return kernels
    return plain


def quantize(
    head: Callable[[int], F32],
    shape: tuple[int, int, int],
    scheme: Scheme,
    *,
    backend: Backend = "auto",
    place: str = "",
    keep: Callable[[int, F32, F32, F32, F32], None] | None = None,
) -> Block:
    """Heads as codes; one head at a time is in memory beside the result.

    `head(h)` gives the values [T, D] of a head in fp32; `shape` is H, T, D. `keep(h, x, x^, lo, scale)` may look at
    each. Raises ToolrollError, with head and channel behind `place`, for what is not finite.
    """
    heads, tokens, channels = shape
    scheme.check_channels(channels)
    kernels = kernels_for(backend, heads * tokens * channels)
    codes = np.zeros((heads, *scheme.packed(tokens, channels)), np.uint8)
    lo, scale = (np.zeros((heads, *scheme.groups(tokens, channels)), np.float32) for _ in range(2))
    for h in range(heads if tokens else 0):
        x = np.ascontiguousarray(head(h))
        check_finite(x, f"{place} head {h}".strip(), kernels)
        try:
            lo[h], scale[h] = ranges(x, scheme, getattr(kernels, "bounds", None))
        except ToolrollError as error:
            raise ToolrollError(error.why, place=f"{place} head {h}".strip()) from error
        codes[h] = kernels.encode(x, lo[h], scale[h], scheme)
        if keep is not None:
            found = decoded(codes[h], lo[h], scale[h], scheme, (tokens, channels), kernels)
            keep(h, x, found, lo[h], scale[h])
    return Block(scheme, tokens, channels, codes, lo, scale)


def check_finite(x: F32, place: str, kernels: Any = plain) -> None:
    """ToolrollError where a value of a head [T, D] is NaN or infinite; it names the channel."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = kernels.sums(x) if hasattr(kernels, "sums") else x.sum(0)
    if np.isfinite(total).all():
        return
    wrong = np.argwhere(~np.isfinite(x.T))
    if len(wrong):
        channel, token = map(int, wrong[0])
        what = "NaN" if np.isnan(x[token, channel]) else "infinite"
        raise ToolrollError(f"a value is {what} (of token {token})", place=f"{place} channel {channel}")


def decoded(codes: U8, lo: F32, scale: F32, scheme: Scheme, shape: tuple[int, int], kernels: Any = plain) -> F32:
    """The values x^ [T, D] of a head."""
    tokens, channels = shape
    found = kernels.unpack(codes, scheme.bits, scheme.order)
    if scheme.packed_along == "tokens":
        found = found[:, :tokens].T
    low, wide = (spread_out(part, scheme, tokens, channels) for part in (lo, scale))
    made: F32 = found.astype(np.float32)
    made *= wide
    made += low
    return made


def dequantize(block: Block, *, backend: Backend = "auto") -> F32:
    """All values [H, T, D] of a block."""
    shape = (block.tokens, block.channels)
    kernels = kernels_for(backend, len(block.codes) * block.tokens * block.channels)
    made = np.empty((len(block.codes), *shape), np.float32)
    for h in range(len(made) if block.tokens else 0):
        made[h] = decoded(block.codes[h], block.lo[h], block.scale[h], block.scheme, shape, kernels)
    return made
