"""Tokens a second that layercast-run's batches write, in each precision, with the embedded model; and its memory.

    python bench/decode.py [--tokens 24] [--rounds 3] [--threads 0] [--batches 1,8,16] [--model embedded]
                           [--json FILE]

Every precision has the same prompts of 32 tokens and writes so many tokens for each; the prompts are read before the
clock starts. All cores work, or so many --threads: the wall clock counts, or the CPU time of one thread. LayerCast
holds half the bytes of fp32 and computes the same. What is held is resident memory, after the model has written a
token, above what was there before it was loaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import common
import torch
from common import Line

from toolroll.models.base import Sampling
from toolroll.models.device import Device, choose_device
from toolroll.models.padded import Asked, Batches
from toolroll.numerics.load import Precision, load
from toolroll.numerics.runner import forget_peak, peak

KINDS = {
    "fp32": Precision("fp32"),
    "bf16": Precision("bf16"),
    "layercast, blocked": Precision("layercast", how="blocked"),
    "layercast, fused": Precision("layercast", how="fused"),
}
PEERS, OURS = list(KINDS)[:2], list(KINDS)[2:]
PROMPT = 32
SMALL = common.ROOT / "tests/data/tiny-llama"


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Lines for what is held, and for each batch."""
    device = choose_device("cpu")
    threads = arguments.threads or device.threads
    torch.set_num_threads(threads)
    made = {name: loaded(arguments.model, device, kind) for name, kind in KINDS.items()}
    ways = {
        (name, batch): partial(decode, model, batch, arguments.tokens, common.clock_of(threads))
        for batch in arguments.batches
        for name, (model, _) in made.items()
    }
    best = common.least(ways, arguments.rounds)
    rate = {(name, batch): batch * arguments.tokens / seconds for (name, batch), seconds in best.items()}
    return [
        *(Line(f"{name}: memory held", "MB", made[name][1], "fp32", made["fp32"][1]) for name in OURS),
        *(
            Line(f"{name}, batch {batch}", "tokens/s", rate[name, batch], peer, rate[peer, batch])
            for batch in arguments.batches
            for name in OURS
            for peer in PEERS
        ),
    ]


def loaded(name: str, device: Device, kind: Precision) -> tuple[Any, float]:
    """The model in a precision, and the MB it holds when what is compiled and loaded once is there already."""
    decode(load(str(SMALL), device, kind).loaded.model, 1, 1, time.perf_counter)
    forget_peak(device)
    before = peak(device)
    model = load(name, device, kind).loaded.model
    decode(model, 1, 1, time.perf_counter)
    forget_peak(device)
    return model, (peak(device) - before) / 1e6


def decode(model: Any, batch: int, tokens: int, now: Callable[[], float]) -> float:
    """Seconds to write `tokens` tokens for each of `batch` prompts that have been read."""
    started: list[float] = []
    steps = 0

    def clock() -> bool:
        nonlocal steps
        steps += 1
        if steps == 2:  # before the first step that reads one token only
            started.append(now())
        return False

    asked = [
        Asked(
            [(37 * i + j) % model.config.vocab_size for j in range(PROMPT)],
            Sampling(temperature=0, max_tokens=tokens + 1),
        )
        for i in range(batch)
    ]
    Batches(model, frozenset(), most=None, stopped=clock).write(asked)
    return now() - started[0]


if __name__ == "__main__":
    common.run(__doc__, measure, tokens=24, rounds=3, threads=0, batches=[1, 8, 16], model="embedded")
