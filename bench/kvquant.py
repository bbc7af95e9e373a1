"""Keys and values in 1 to 8 bits: packing them once, and one query's attention by codes, on one thread.

    python bench/kvquant.py [--heads 32] [--tokens 3328] [--rounds 10] [--json FILE]

Keys are heads x tokens x 128 normal numbers in fp32, as 13 tiles of InternVL have them. CPU time of the one thread.
The peers are fp32 attention by torch's scaled_dot_product_attention, two passes that read the keys, and the bandwidth
floor: the time in which memory, at the pace of such a pass, gives and takes the bytes that the work must read and
write. "dequantize, then SDPA" is what a cache does that unpacks itself for every token. Memory is what is in use at
most while keys are quantized, their codes apart.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import common
import torch
from common import Line
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from toolroll.kvcache import kernels
from toolroll.kvcache.block import dequantize, quantize
from toolroll.kvcache.cache import Item, attend_item
from toolroll.kvcache.postscale import codes_of, outputs, scores
from toolroll.kvcache.scheme import Scheme

SIZE = 128
PASS, SDPA, FLOOR = "one read pass", "attention, fp32 SDPA", "bandwidth floor"
SCHEMES = {
    "1 bit": (Scheme("k", 1, "lloyd1"), Scheme("v", 1, "lloyd1")),
    "2 bits": (Scheme("k", 2, "minmax"), Scheme("v", 2, "minmax")),
    "4 bits": (Scheme("k", 4, "minmax"), Scheme("v", 4, "minmax")),
    "8 bits": (Scheme("k", 8, "minmax"), Scheme("v", 8, "minmax")),
    "KIVI's 2 bits": (
        Scheme("k", 2, "minmax", group=32, layout="kivi32"),
        Scheme("v", 2, "minmax", group=32, along="channels", layout="kivi32"),
    ),
}


@dataclass(frozen=True)
class Way:
    """Something to measure, and the bytes that it must read and write."""

    work: Callable[[], Any]
    bytes: int


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Lines for each way, one of them beside the bandwidth floor; and one for the memory."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = (arguments.heads, arguments.tokens, SIZE)
    keys, values = torch.randn(shape), torch.randn(shape)
    blocks = {
        name: [_quantized(one, scheme) for one, scheme in zip((keys, values), pair, strict=True)]
        for name, pair in SCHEMES.items()
    }
    ways = {**_attention(keys, values, blocks), **_packing(keys, blocks)}
    best = common.least(
        {name: common.timed(way.work, time.thread_time) for name, way in ways.items()}, arguments.rounds
    )
    floor = {name: best[PASS] * way.bytes / keys.nbytes for name, way in ways.items()}
    peers = {"attention": {SDPA: best[SDPA]}, "quantize": {"two read passes": 2 * best[PASS]}}
    lines = []
    for name, seconds in best.items():
        for peer, other in {**peers.get(name.split()[0].strip(","), {}), FLOOR: floor[name]}.items():
            if name.startswith(("pack", "unpack")):
                count = keys.numel() / 1e9
                lines.append(Line(name, "G elements/CPU s", count / seconds, peer, count / other))
            elif name not in (peer, PASS):
                lines.append(Line(name, "CPU ms", 1e3 * seconds, peer, 1e3 * other))
    one_head = keys.nbytes / arguments.heads
    beside = _memory(keys) - _bytes(blocks["1 bit"][0])
    return [*lines, Line("memory beside the keys", "MB", beside / 1e6, "one head", one_head / 1e6)]


def _attention(keys: Tensor, values: Tensor, blocks: dict[str, list[Any]]) -> dict[str, Way]:
    """Ways to attend with one query."""
    heads, tokens, size = keys.shape
    query, shares, none = torch.randn(heads, 1, size), torch.rand(heads, 1, tokens), keys[:, :0]
    ways = {
        PASS: Way(lambda: [kernels.sums(one) for one in keys.numpy()], keys.nbytes),
        SDPA: Way(lambda: scaled_dot_product_attention(query[None], keys[None], values[None]), 2 * keys.nbytes),
    }
    for name, both in blocks.items():
        codes = tuple(codes_of(one, keys.device) for one in both)
        item = Item([codes], torch.arange(tokens), none, none)  # type: ignore[list-item]
        ways[f"attention, {name}"] = Way(partial(attend_item, query, item, size**-0.5, None, None), _bytes(*both))
        if name == "1 bit":
            k, v = both
            ways[f"attention, {name}: scores alone"] = Way(partial(scores, codes[0], query), _bytes(k))
            ways[f"attention, {name}: output alone"] = Way(partial(outputs, codes[1], shares), _bytes(v))

    def unpacked() -> Any:
        made = (torch.from_numpy(dequantize(part, backend="numba"))[None] for part in blocks["1 bit"])
        return scaled_dot_product_attention(query[None], *made)

    ways["attention, 1 bit: dequantize, then SDPA"] = Way(unpacked, _bytes(*blocks["1 bit"]))
    return ways


def _packing(keys: Tensor, blocks: dict[str, list[Any]]) -> dict[str, Way]:
    """Ways to codes and back."""
    ways: dict[str, Way] = {}
    for rule, bits in (("lloyd1", 1), ("minmax", 1), ("quantile", 2), ("minmax", 4)):
        scheme = Scheme("k", bits, rule)  # type: ignore[arg-type]
        name = f"quantize once, {rule}, {bits} bit{'s' * (bits > 1)}"
        ways[name] = Way(partial(_quantized, keys, scheme), keys.nbytes + keys.numel() * bits // 8)
    for bits in (1, 2):
        name = f"{bits} bit{'s' * (bits > 1)}"
        packed = blocks[name][0].codes
        codes = kernels.unpack(packed, bits, "msb")
        size = packed.nbytes + codes.nbytes
        ways[f"pack, {name}"] = Way(partial(kernels.pack, codes, bits, "msb"), size)
        ways[f"unpack, {name}"] = Way(partial(kernels.unpack, packed, bits, "msb"), size)
    return ways


def _bytes(*blocks: Any) -> int:
    """The bytes of codes and ranges."""
    return sum(one.codes.nbytes + one.lo.nbytes + one.scale.nbytes for one in blocks)


def _quantized(states: Tensor, scheme: Scheme) -> Any:
    array = states.numpy()
    return quantize(lambda h: array[h], tuple(array.shape), scheme, backend="numba")  # type: ignore[arg-type]


def _memory(keys: Tensor) -> int:
    """The most bytes in use while keys are quantized, of arrays made meanwhile."""
    tracemalloc.start()
    _quantized(keys, Scheme("k", 1, "lloyd1"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    common.run(__doc__, measure, heads=32, tokens=3328, rounds=10)
