"""LayerCast's linear layer, weights in bfloat16 and arithmetic in fp32, beside torch's plain fp32 F.linear.

    python bench/linear.py [--rounds 20] [--rows 1,4,8,32,128] [--threads 1,2] [--json FILE]

Two shapes of a 1B model's feed-forward layer, one token to a prompt of 128 at once. All ways take turns within a round
and the best of each counts, so that a busy machine slows them alike. Each call takes another copy of the weights than
the last, as a model of many layers does: weights come from memory, not from a cache. torch's own bfloat16 F.linear, the
last column, is another calculation: x is rounded too.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor
from torch.nn.functional import linear

from toolroll.numerics.upcast import HOW, upcast_linear

SHAPES = ((5632, 2048), (2048, 5632))
CACHE = 96 << 20  #: bytes of weights among which calls alternate, more than a cache holds
WAYS = ("fp32", *HOW, "bf16")


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each number of threads, shape and number of rows."""
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    records = []
    for threads in _numbers(arguments.threads):
        torch.set_num_threads(threads)
        for outputs, inputs in SHAPES:
            weights = _weights(outputs, inputs)
            for rows in _numbers(arguments.rows):
                best = _best(_calls(torch.randn(rows, inputs), weights), arguments.rounds)
                records.append(
                    {
                        "threads": threads,
                        "W": f"{outputs}x{inputs}",
                        "M": rows,
                        "fp32 ms": best["fp32"] * 1e3,
                        **{f"{name}, times fp32": best[name] / best["fp32"] for name in WAYS[1:]},
                    }
                )
    return records


def _weights(outputs: int, inputs: int) -> dict[str, list[Tensor]]:
    """The same weights as fp32 and as bfloat16, each as often as it takes to be larger than the cache."""
    weight = torch.randn(outputs, inputs).bfloat16()
    copies = {"fp32": weight.float(), "bf16": weight}
    return {name: [one.clone() for _ in range(-(-CACHE // one.nbytes))] for name, one in copies.items()}


def _calls(x: Tensor, weights: dict[str, list[Tensor]]) -> dict[str, Callable[[], Tensor]]:
    """What is measured, by name; every call takes the next copy of the weights."""
    plain, stored = (itertools.cycle(weights[name]) for name in ("fp32", "bf16"))
    rounded = x.bfloat16()
    calls: dict[str, Callable[[], Tensor]] = {"fp32": lambda: linear(x, next(plain))}
    for how in HOW:
        calls[how] = lambda how=how: upcast_linear(x, next(stored), how=how)
    calls["bf16"] = lambda: linear(rounded, next(stored))
    return calls


def _best(calls: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The least seconds of each, after a round that warms up."""
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    common.run(
        "LayerCast's linear layer.",
        measure,
        ("--rounds", {"type": int, "default": 20}),
        ("--rows", {"default": "1,4,8,32,128"}),
        ("--threads", {"default": "1,2"}),
    )
