"""Tokens a second that layercast-run's batches write, in each precision, with the embedded model.

    python bench/decode.py [--tokens 24] [--rounds 3] [--threads 2] [--json FILE]

Every precision has the same prompts of 32 tokens and writes so many tokens for each; the prompts are read before the
clock starts. They take turns, and the best round of each counts. LayerCast holds half the bytes of fp32 and computes
the same; what counts is its speed beside fp32's.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import common
import torch

from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.padded import Asked, Batches
from toolroll.numerics.load import Precision, load

KINDS = {
    "fp32": Precision("fp32"),
    "layercast, blocked": Precision("layercast", how="blocked"),
    "layercast, fused": Precision("layercast", how="fused"),
    "bf16": Precision("bf16"),
}
PROMPT = 32


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each precision and batch."""
    device = choose_device("cpu")
    torch.set_num_threads(arguments.threads or device.threads)
    models = {name: load("embedded", device, kind) for name, kind in KINDS.items()}
    best: dict[tuple[str, int], float] = {}
    for turn in range(arguments.rounds + 1):
        for batch in arguments.batches:
            for name, ready in models.items():
                seconds = decode(ready.loaded.model, batch, arguments.tokens if turn else 2)
                if turn:  # the first round compiles and warms up
                    best[name, batch] = min(seconds, best.get((name, batch), seconds))
    return [
        {
            "precision": name,
            "batch": batch,
            "weights MB": round(models[name].weight_bytes / 1e6, 1),
            "tokens/s": batch * arguments.tokens / best[name, batch],
            "times fp32": round(best["fp32", batch] / best[name, batch], 2),
        }
        for batch in arguments.batches
        for name in KINDS
    ]


def decode(model: Any, batch: int, tokens: int) -> float:
    """Seconds to write `tokens` tokens for each of `batch` prompts that have been read."""
    started: list[float] = []
    steps = 0

    def clock() -> bool:
        nonlocal steps
        steps += 1
        if steps == 2:  # before the first step that reads one token only
            started.append(time.perf_counter())
        return False

    asked = [
        Asked([1000 + 37 * i + j for j in range(PROMPT)], Sampling(temperature=0, max_tokens=tokens + 1))
        for i in range(batch)
    ]
    Batches(model, frozenset(), most=None, stopped=clock).write(asked)
    return time.perf_counter() - started[0]


if __name__ == "__main__":
    common.run(
        "Tokens a second of layercast-run's batches.",
        measure,
        ("--tokens", {"type": int, "default": 24}),
        ("--rounds", {"type": int, "default": 3}),
        ("--threads", {"type": int}),
        ("--batches", {"type": int, "nargs": "+", "default": [1, 8, 16]}),
    )
