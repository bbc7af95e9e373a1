"""LayerCast's linear layer, weights in bfloat16 and arithmetic in fp32, beside torch's plain fp32 F.linear.

    python bench/linear.py [--rounds 20] [--rows 1,4,8,32,128] [--threads 1] [--json FILE]

Two shapes of a 1B model's feed-forward layer, M rows: from one token to a prompt of 128 at once. Each call takes
another copy of the weights than the last, as a model of many layers does: weights come from memory, not from a cache.
torch's own bfloat16 F.linear is another calculation: x is rounded too. CPU time counts; with several threads, that of
the wall.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import common
import torch
from common import Line
from torch import Tensor
from torch.nn.functional import linear

from toolroll.numerics.upcast import HOW, upcast_linear

SHAPES = ((5632, 2048), (2048, 5632))
CACHE = 96 << 20  #: bytes of weights among which calls alternate, more than a cache holds
PEER = "fp32 F.linear"


def measure(arguments: argparse.Namespace) -> list[Line]:
    """A line for each way, number of threads, shape and number of rows."""
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    lines = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for outputs, inputs in SHAPES:
            weights = _weights(outputs, inputs)
            for rows in arguments.rows:
                calls = _calls(torch.randn(rows, inputs), weights)
                ways = {name: common.timed(call, common.clock_of(threads)) for name, call in calls.items()}
                best = common.least(ways, arguments.rounds)
                where = f"M {rows}, {outputs}x{inputs}" + f", {threads} threads" * (threads > 1)
                unit = "CPU ms" if threads == 1 else "wall ms"
                theirs = 1e3 * best.pop(PEER)
                lines += [Line(f"{way}, {where}", unit, 1e3 * seconds, PEER, theirs) for way, seconds in best.items()]
    return lines


def _weights(outputs: int, inputs: int) -> dict[str, list[Tensor]]:
    """The same weights as fp32 and as bfloat16, each as often as it takes to be larger than the cache."""
    weight = torch.randn(outputs, inputs).bfloat16()
    copies = {"fp32": weight.float(), "bf16": weight}
    return {name: [one.clone() for _ in range(-(-CACHE // one.nbytes))] for name, one in copies.items()}


def _calls(x: Tensor, weights: dict[str, list[Tensor]]) -> dict[str, Callable[[], Tensor]]:
    """What is measured, by name; every call takes the next copy of the weights."""
    plain, stored = (itertools.cycle(weights[name]) for name in ("fp32", "bf16"))
    rounded = x.bfloat16()
    calls: dict[str, Callable[[], Tensor]] = {PEER: lambda: linear(x, next(plain))}
    for how in HOW:
        calls[how] = lambda how=how: upcast_linear(x, next(stored), how=how)
    calls["torch's bf16"] = lambda: linear(rounded, next(stored))
    return calls


if __name__ == "__main__":
    common.run(__doc__, measure, rounds=20, rows=[1, 4, 8, 32, 128], threads=[1])
