"""The embedded image-text model: captions a second, many pictures at once against one after the other; its training.

    python bench/sprite.py [--scenes 64] [--rounds 3] [--model sprite] [--size full] [--steps 12] [--threads 0]
                           [--json FILE]

Both ways go through the same interface and begin with the picture's file; the model is loaded before the clock starts.
Pictures are rendered scenes of 320 x 240 pixels. All cores work, or so many --threads: the wall clock counts, or the
CPU time of one thread.

Training is a few steps of each stage of models/make.py, at the size of what ships: how long it waits for its data.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import common
import torch
from common import Line

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


def measure(arguments: argparse.Namespace) -> list[Line]:
    """A line for each batch, and one for each stage of training."""
    threads = arguments.threads or choose_device("cpu").threads
    with tempfile.TemporaryDirectory() as name:
        return [*batched(Path(name), threads, arguments), *trained(Path(name), arguments)]


def batched(folder: Path, threads: int, arguments: argparse.Namespace) -> Iterator[Line]:
    """Captions a second of many pictures at a time."""
    engines = {batch: open_image_text(model=arguments.model, device="cpu", batch_size=batch) for batch in BATCHES}
    torch.set_num_threads(threads)  # opening a model sets them, too
    requests = [asked(seed, folder) for seed in range(arguments.scenes)]
    for engine in engines.values():
        captions(engine, requests[:2])
    ways = {
        batch: common.timed(partial(captions, engine, requests), common.clock_of(threads))
        for batch, engine in engines.items()
    }
    best = common.least(ways, arguments.rounds, warm_up=False)
    rate = {batch: arguments.scenes / seconds for batch, seconds in best.items()}
    for batch in BATCHES[1:]:
        yield Line(f"captions, {batch} at a time", "captions/s", rate[batch], "one by one", rate[1])


def asked(seed: int, folder: Path) -> Request:
    """A request for a caption of a scene."""
    path = folder / f"{seed}.png"
    path.write_bytes(png(render(drawn_scene(Draws(seed), 3 + seed % 4, *SIZE), *SIZE)))
    return Request([{"role": "user", "content": DESCRIBE}], Sampling(max_tokens=100), [path])


def captions(engine: ImageTextEngine, requests: list[Request]) -> None:
    """Write all captions."""
    for one in engine.answer(requests):
        if not isinstance(one, Completion):
            raise SystemExit(f"sprite.py: no caption: {one}")


def trained(folder: Path, asked: argparse.Namespace) -> Iterator[Line]:
    """The share of the time that each stage of the model's training waits for its data."""
    sys.path.insert(0, str(common.ROOT / "models"))
    import data
    import sizes
    import sprite
    import tower
    import words

    stages = ("tower", "sprite", "answers", "practice")
    size = {"full": sizes.FULL, "tiny": sizes.TINY}[asked.size]
    size = replace(size, **{name: replace(getattr(size, name), steps=asked.steps) for name in stages})
    with redirect_stdout(sys.stderr):
        pictures = data.made(folder, "train", 4 * size.tower.batch, size.tower.batch, os.cpu_count() or 1)
        seeing, logged = tower.taught(size, pictures, folder, 0)
        _, logs = sprite.taught(size, pictures, seeing, words.learned(pictures.about), folder, 0)
    for stage, told in {"tower": logged, **logs}.items():
        waited = told["data share"] * told["seconds"]
        yield Line(f"training, {stage}: waiting for data", "wall s", waited, "all of it", told["seconds"])


if __name__ == "__main__":
    common.run(__doc__, measure, scenes=64, rounds=3, model="sprite", size="full", steps=12, threads=0)
