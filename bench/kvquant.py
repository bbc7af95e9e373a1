"""Keys and values in 1 to 8 bits: packing them once, and one query's attention by codes, on one thread.

    python bench/kvquant.py [--heads 32] [--tokens 3328] [--rounds 10] [--json FILE]

Keys are heads x tokens x 128 normal numbers in fp32, as 13 tiles of InternVL have them. All ways take turns within a
round, and the best of each counts, in CPU time of the one thread, so that a busy machine disturbs them least. `times`
compares with what `of` says: fp32 attention by torch's scaled_dot_product_attention, two read passes over the keys, or
elements a second. "dequantize, then SDPA" is what a cache does that unpacks itself for every token. The read pass is
the floor that memory sets; codes of 1 bit are a 32nd of it.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import common
import torch
from torch.nn.functional import scaled_dot_product_attention

from toolroll.kvcache import kernels
from toolroll.kvcache.block import dequantize, quantize
from toolroll.kvcache.cache import Item, attend_item
from toolroll.kvcache.postscale import codes_of, outputs, scores
from toolroll.kvcache.scheme import Scheme

SIZE = 128
TARGETS = {
    "attention, 1 bit": 0.5,
    "quantize once, lloyd1": 5.0,
    "quantize once, quantile 2 bits": 5.0,
    "pack, 1 bit": 0.5,
    "unpack, 1 bit": 2.0,
    "memory beside the keys": 1.0,
}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each thing that is measured."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = (arguments.heads, arguments.tokens, SIZE)
    keys, values = torch.randn(shape), torch.randn(shape)
    ways, packed = _ways(keys, values)
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(arguments.rounds + 1):
        for name, way in ways.items():
            started = time.thread_time()
            way()
            if turn:
                best[name] = min(best[name], time.thread_time() - started)
    elements = keys.numel()
    records = [_record("one read pass", best, "GB/s", 4 * elements / best["one read pass"] / 1e9)]
    for name, seconds in best.items():
        if name.startswith(("attention", "dequantize")):
            records.append(_record(name, best, "fp32 SDPA", seconds / best["attention, fp32 SDPA"]))
        elif name.startswith("quantize"):
            records.append(_record(name, best, "two read passes", seconds / best["one read pass"] / 2))
        elif name.startswith(("pack", "unpack")):
            records.append(_record(name, best, "G elements/s", elements / seconds / 1e9))
    beside = _memory(keys) - packed
    one_head = 4 * elements / arguments.heads
    records.append(_line("memory beside the keys", None, "one head, codes apart", beside / one_head))
    return records


def _ways(keys: torch.Tensor, values: torch.Tensor) -> tuple[dict[str, Callable[[], Any]], int]:
    """What is measured, by name, and the bytes of the keys' codes at 1 bit."""
    heads, tokens, size = keys.shape
    query = torch.randn(heads, 1, size)
    schemes = {
        "1 bit": (Scheme("k", 1, "lloyd1"), Scheme("v", 1, "lloyd1")),
        "2 bits": (Scheme("k", 2, "minmax"), Scheme("v", 2, "minmax")),
        "4 bits": (Scheme("k", 4, "minmax"), Scheme("v", 4, "minmax")),
        "8 bits": (Scheme("k", 8, "minmax"), Scheme("v", 8, "minmax")),
        "KIVI's 2 bits": (
            Scheme("k", 2, "minmax", group=32, layout="kivi32"),
            Scheme("v", 2, "minmax", group=32, along="channels", layout="kivi32"),
        ),
    }
    none, shares = keys[:, :0], torch.rand(heads, 1, tokens)
    ways: dict[str, Callable[[], Any]] = {
        "one read pass": lambda: [kernels.sums(one) for one in keys.numpy()],
        "attention, fp32 SDPA": lambda: scaled_dot_product_attention(query[None], keys[None], values[None]),
    }
    blocks = {}
    for name, pair in schemes.items():
        both = [_quantized(one, scheme) for one, scheme in zip((keys, values), pair, strict=True)]
        blocks[name] = both
        codes = tuple(codes_of(one, keys.device) for one in both)
        item = Item([codes], torch.arange(tokens), none, none)  # type: ignore[list-item]
        ways[f"attention, {name}"] = lambda item=item: attend_item(query, item, size**-0.5, None, None)
        if name == "1 bit":
            ways["attention, 1 bit: scores alone"] = lambda codes=codes: scores(codes[0], query)
            ways["attention, 1 bit: output alone"] = lambda codes=codes: outputs(codes[1], shares)
    one = blocks["1 bit"]

    def unpacked() -> Any:
        made = (torch.from_numpy(dequantize(part, backend="numba"))[None] for part in one)
        return scaled_dot_product_attention(query[None], *made)

    ways["dequantize 1 bit, then SDPA"] = unpacked
    for rule, bits in (("lloyd1", 1), ("minmax", 1), ("quantile", 2), ("minmax", 4)):
        name = f"quantize once, {rule}" + (f" {bits} bits" if bits > 1 else "")
        ways[name] = partial(_quantized, keys, Scheme("k", bits, rule))  # type: ignore[arg-type]
    for bits in (1, 2):
        data = blocks["1 bit" if bits == 1 else "2 bits"][0].codes
        codes_now = kernels.unpack(data, bits, "msb")
        plural = "s" * (bits > 1)
        ways[f"pack, {bits} bit{plural}"] = lambda c=codes_now, b=bits: kernels.pack(c, b, "msb")
        ways[f"unpack, {bits} bit{plural}"] = lambda d=data, b=bits: kernels.unpack(d, b, "msb")
    return ways, one[0].codes.nbytes + one[0].lo.nbytes + one[0].scale.nbytes


def _quantized(states: torch.Tensor, scheme: Scheme) -> Any:
    array = states.numpy()
    return quantize(lambda h: array[h], tuple(array.shape), scheme, backend="numba")  # type: ignore[arg-type]


def _memory(keys: torch.Tensor) -> int:
    """The most bytes in use while keys are quantized, of arrays made meanwhile."""
    tracemalloc.start()
    _quantized(keys, Scheme("k", 1, "lloyd1"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def _record(name: str, best: dict[str, float], of: str, times: float) -> dict[str, Any]:
    return _line(name, 1e3 * best[name], of, times)


def _line(name: str, ms: float | None, of: str, times: float) -> dict[str, Any]:
    return {"what": name, "ms": ms, "of": of, "times": times, "target": TARGETS.get(name)}


if __name__ == "__main__":
    common.run(
        "Keys and values in few bits.",
        measure,
        ("--heads", {"type": int, "default": 32}),
        ("--tokens", {"type": int, "default": 3328}),
        ("--rounds", {"type": int, "default": 10}),
    )
