"""Captions a second of the embedded image-text model: many pictures at once against one after the other.

    python bench/sprite.py [--scenes 64] [--rounds 3] [--model sprite] [--json FILE]

Both ways go through the same interface and begin with the picture's file; the model is loaded before the clock starts.
They take turns, and the best round of each counts. Pictures are rendered scenes of 320 x 240 pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch

from toolroll.models.base import Completion, Sampling
from toolroll.models.device import choose_device
from toolroll.models.open import open_image_text
from toolroll.models.pictures import ImageTextEngine, Request
from toolroll.world.draws import Draws
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import DESCRIBE
from toolroll.world.render import render

BATCHES = (1, 8, 32)
SIZE = (320, 240)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each batch."""
    torch.set_num_threads(choose_device("cpu").threads)
    engines = {batch: open_image_text(model=arguments.model, device="cpu", batch_size=batch) for batch in BATCHES}
    best: dict[int, float] = {}
    tokens: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as name:
        requests = [asked(seed, Path(name)) for seed in range(arguments.scenes)]
        for engine in engines.values():
            captions(engine, requests[:2])
        for _ in range(arguments.rounds):
            for batch, engine in engines.items():
                start = time.perf_counter()
                tokens[batch] = captions(engine, requests)
                seconds = time.perf_counter() - start
                best[batch] = min(seconds, best.get(batch, seconds))
    return [
        {
            "batch": batch,
            "captions/s": round(arguments.scenes / best[batch], 1),
            "tokens/s": round(tokens[batch] / best[batch]),
            "times one by one": round(best[1] / best[batch], 2),
        }
        for batch in BATCHES
    ]


def asked(seed: int, folder: Path) -> Request:
    """A request for a caption of a scene."""
    path = folder / f"{seed}.png"
    path.write_bytes(png(render(drawn_scene(Draws(seed), 3 + seed % 4, *SIZE), *SIZE)))
    return Request([{"role": "user", "content": DESCRIBE}], Sampling(max_tokens=100), [path])


def captions(engine: ImageTextEngine, requests: list[Request]) -> int:
    """The tokens of all captions."""
    found = engine.answer(requests)
    return sum(len(one.ids) for one in found if isinstance(one, Completion))


if __name__ == "__main__":
    common.run(
        "Captions a second of the embedded image-text model.",
        measure,
        ("--scenes", {"type": int, "default": 64}),
        ("--rounds", {"type": int, "default": 3}),
        ("--model", {"default": "sprite"}),
    )
