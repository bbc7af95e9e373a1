"""What pairs without a judge cost: two branches decoded in a batch, and texts scored by their images.

    python bench/judgefree.py [--prompts 16] [--images 64] [--tokens 48] [--rounds 2] [--threads 1] [--json FILE]

Decoding is greedy, with h next to 0, so that two branches, plain decoding and the classifier-free guidance of
transformers (which takes one prompt at a time, and no image on the other side) all write the same answers; the pictures
are read and prepared before the clock starts. The peer of clip-score is a loop that gives transformers' processor and
model an image with one sentence at a time. CPU time counts.
"""

from __future__ import annotations

import argparse
import operator
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import common
import torch
from common import Line

from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.pictures import Request
from toolroll.models.vision import chat_text, load_image_text, processed
from toolroll.preference.branches import HFBranches, Mixed
from toolroll.preference.encoders import open_encoder
from toolroll.preference.foreign import asked
from toolroll.preference.mixing import Mixing
from toolroll.preference.scores import Job, Scorer
from toolroll.preference.unseeing import Unseeing
from toolroll.world.draws import Draws
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import DESCRIBE
from toolroll.world.render import render
from toolroll.world.words import caption, relations

R = TypeVar("R")

H = 1e-6
SIZE = (96, 72)
SENTENCES = 6  #: of a text, at most
OURS, PLAIN, ALONE, GUIDED = "two branches", "plain decoding", "one by one", "guidance of transformers, one by one"


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Lines for decoding, then for scoring."""
    with tempfile.TemporaryDirectory() as name:
        scenes = [drawn_scene(Draws(seed), 4, *SIZE) for seed in range(arguments.images)]
        paths = [Path(name) / f"{place}.png" for place in range(len(scenes))]
        for scene, path in zip(scenes, paths, strict=True):
            path.write_bytes(png(render(scene, *SIZE)))
        texts = [
            " ".join([caption(scene), *(f"{said[3]}." for said in list(relations(scene))[: SENTENCES - 1])])
            for scene in scenes
        ]
        prompts = paths[: arguments.prompts]
        return [*decoding(arguments.model, prompts, arguments), *scoring(arguments.clip, paths, texts, arguments)]


def decoding(model: str, paths: list[Path], given: argparse.Namespace) -> Iterator[Line]:
    """Tokens a second of two branches in a batch, and of what they are compared with."""
    loaded = load_image_text(model, choose_device("cpu"))
    engine = HFBranches(loaded, mixing=Mixing(), batch=len(paths))
    how = Sampling(temperature=0, max_tokens=given.tokens)
    plain = [Request(asked(DESCRIBE, 1), how, [path]) for path in paths]
    mixed = [Unseeing("drop")(request, H) for request in plain]
    two = [engine._read(0, one, None).asked for one in mixed]
    one = [engine._read(0, one, None).asked for one in plain]

    def written(batch: list[Any]) -> list[list[int]]:
        found = engine._ready().write(batch)
        assert found is not None
        return [one.ids for one in found]

    ways = {
        OURS: lambda: written(two),
        PLAIN: lambda: written(one),
        ALONE: lambda: [ids for one in two for ids in written([one])],
        GUIDED: Guided(loaded, mixed, given.tokens),
    }
    best, answers = turns(ways, given)
    for name, found in answers.items():
        if sum(map(operator.eq, found, answers[OURS])) < 0.75 * len(paths):
            raise SystemExit(f"{name}: other answers than two branches write")
    rate = {name: sum(map(len, answers[name])) / seconds for name, seconds in best.items()}
    for peer in (GUIDED, ALONE):
        yield Line(f"{OURS}, {len(paths)} at a time", "tokens/CPU s", rate[OURS], peer, rate[peer])
    yield Line(f"{OURS}, {len(paths)} at a time", "CPU ms/token", 1e3 / rate[OURS], PLAIN, 1e3 / rate[PLAIN])


class Guided:
    """The guidance of transformers' `generate`, a prompt at a time."""

    def __init__(self, loaded: Any, mixed: list[Mixed], tokens: int) -> None:
        self.model = loaded.model
        self.tokens = tokens
        self.ends = sorted(loaded.codec.eos_ids)
        self.inputs = []
        for request in mixed:
            ids, features = processed(loaded.processor, chat_text(loaded.processor, request.messages), request.images)
            other = loaded.codec.encode(chat_text(loaded.processor, request.other.messages))
            self.inputs.append((torch.tensor([ids]), features, torch.tensor([other])))

    def __call__(self) -> list[list[int]]:
        """The answers."""
        found = []
        for ids, features, other in self.inputs:
            made = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                negative_prompt_ids=other,
                negative_prompt_attention_mask=torch.ones_like(other),
                guidance_scale=1 - H,
                do_sample=False,
                max_new_tokens=self.tokens,
                eos_token_id=self.ends or None,
                pad_token_id=self.ends[0] if self.ends else 0,
                **features,
            )
            found.append(made[0, ids.shape[1] :].tolist())
        return found


def scoring(clip: str, paths: list[Path], texts: list[str], given: argparse.Namespace) -> Iterator[Line]:
    """Images and sentences a second of clip-score's scorer, a row at a time, and of a loop."""
    encoder = open_encoder(clip, choose_device("cpu", "float32"))
    jobs = [Job([path], [text]) for path, text in zip(paths, texts, strict=True)]
    many, single = Scorer(encoder), Scorer(encoder, batch=1)
    whole = many.score(jobs)
    assert whole is not None
    split = [[one.text for one in found[0].sentences] for found in whole if isinstance(found, list)]
    ways: dict[str, Callable[[], Any]] = {
        "batched": lambda: many.score(jobs),
        "a row at a time": lambda: [single.score([job]) for job in jobs],
        "transformers, a sentence at a time": lambda: loop(encoder, paths, split),
    }
    best, _ = turns(ways, given)
    ours, *peers = best
    for unit, count in (("images", len(jobs)), ("sentences", sum(map(len, split)))):
        for peer in peers:
            yield Line(f"clip-score, {ours}", f"{unit}/CPU s", count / best[ours], peer, count / best[peer])


def loop(encoder: Any, paths: list[Path], split: list[list[str]]) -> list[float]:
    """What one writes in ten lines: each sentence with its image through the whole model."""
    from PIL import Image

    made = []
    for path, sentences in zip(paths, split, strict=True):
        for sentence in sentences:
            words = encoder._words(sentence, return_tensors="pt", truncation=True)
            pictures = encoder._pictures(images=Image.open(path).convert("RGB"), return_tensors="pt")
            with torch.inference_mode():
                made.append(float(encoder._model(**words, **pictures).logits_per_image))
    return made


def turns(ways: dict[str, Callable[[], R]], given: argparse.Namespace) -> tuple[dict[str, float], dict[str, R]]:
    """CPU seconds of the best of so many rounds, and what each made in the last."""
    torch.set_num_threads(given.threads)  # whoever chooses a device sets them, too
    made: dict[str, R] = {}

    def kept(name: str) -> None:
        made[name] = ways[name]()

    return common.least({name: common.timed(partial(kept, name)) for name in ways}, given.rounds), made


if __name__ == "__main__":
    common.run(__doc__, measure, prompts=16, images=64, tokens=48, rounds=2, threads=1, model="sprite", clip="glance")
