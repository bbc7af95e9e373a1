"""What pairs without a judge cost: two branches decoded in a batch, and texts scored by their images.

    python bench/judgefree.py [--prompts 16] [--images 64] [--tokens 48] [--rounds 3] [--threads 1] [--json FILE]

Decoding is greedy, with h next to 0, so that two branches, plain decoding and the classifier-free guidance of
transformers (which takes one prompt at a time, and no image on the other side) all write the same answers; the pictures
are read and prepared before the clock starts. The peer of clip-score is a loop that gives transformers' processor and
model an image with one sentence at a time. What counts is CPU time, of the best of several rounds, in which all take
their turn; the first warms up. "times slower" is beside the first row of the same kind.

The models are sprite and glance, which ship; where an installation has none, random ones of the tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import common
import torch

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.load import SHIPPED, find_model
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
SENTENCES = 6  #: of a text, at most


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each way of decoding, then for each way of scoring."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [drawn_scene(Draws(seed), 4, 96, 72) for seed in range(arguments.images)]
        paths = [folder / f"{place}.png" for place in range(len(scenes))]
        for scene, path in zip(scenes, paths, strict=True):
            path.write_bytes(png(render(scene, 96, 72)))
        texts = [
            " ".join([caption(scene), *(f"{said[3]}." for said in list(relations(scene))[: SENTENCES - 1])])
            for scene in scenes
        ]
        model, clip = (shipped(wanted, folder) for wanted in (arguments.model, arguments.clip))
        return [
            *decoding(model, paths[: arguments.prompts], arguments),
            *scoring(clip, paths, texts, arguments),
        ]


def decoding(model: str, paths: list[Path], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens a second of two branches in a batch, and of what they are compared with."""
    loaded = load_image_text(model, choose_device("cpu"))
    engine = HFBranches(loaded, mixing=Mixing(), batch=len(paths))
    how = Sampling(temperature=0, max_tokens=given.tokens)
    plain = [Request(asked(DESCRIBE, 1), how, [path]) for path in paths]
    mixed = [Unseeing("drop")(request, H) for request in plain]
    read = {"two": [engine._read(0, one, None) for one in mixed], "one": [engine._read(0, one, None) for one in plain]}

    def batch(kind: str) -> list[list[int]]:
        found = engine._ready().write([job.asked for job in read[kind]])
        assert found is not None
        return [one.ids for one in found]

    def one_by_one() -> list[list[int]]:
        return [engine._ready().write([job.asked])[0].ids for job in read["two"]]  # type: ignore[index]

    guided = Guided(loaded, mixed, given.tokens)
    ways: dict[str, Callable[[], list[list[int]]]] = {
        f"two branches, {len(paths)} at a time": lambda: batch("two"),
        f"plain decoding, {len(paths)} at a time": lambda: batch("one"),
        "two branches, one by one": one_by_one,
        "guidance of transformers, one by one": guided,
    }
    best, answers = turns(ways, given)
    first = next(iter(answers.values()))
    for name, found in answers.items():
        if sum(one == other for one, other in zip(found, first, strict=True)) < 0.75 * len(first):
            raise SystemExit(f"{name}: other answers than two branches write")
    return [record(name, "tokens", sum(map(len, answers[name])), best) for name in ways]


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


def scoring(clip: str, paths: list[Path], texts: list[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Sentences a second, images among the work, of clip-score's scorer and of a loop."""
    encoder = open_encoder(clip, choose_device("cpu", "float32"))
    jobs = [Job([path], [text]) for path, text in zip(paths, texts, strict=True)]
    many, single = Scorer(encoder), Scorer(encoder, batch=1)
    whole = many.score(jobs)
    assert whole is not None
    split = [[one.text for one in found[0].sentences] for found in whole if isinstance(found, list)]
    ways = {
        "clip-score, batched": lambda: many.score(jobs),
        "clip-score, a row at a time": lambda: [single.score([job]) for job in jobs],
        "transformers, a sentence at a time": lambda: loop(encoder, paths, split),
    }
    best, _ = turns(ways, given)
    count = sum(map(len, split))
    return [record(name, f"sentences of {len(jobs)} images", count, best, whose="clip-score, batched") for name in ways]


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
    """CPU seconds of the best of so many rounds, in which all have their turn, and what each made in the last."""
    torch.set_num_threads(given.threads)  # whoever chooses a device sets them, too
    best = dict.fromkeys(ways, float("inf"))
    made: dict[str, R] = {}
    for _ in range(given.rounds):
        for name, run in ways.items():
            started = time.process_time()
            made[name] = run()
            best[name] = min(best[name], time.process_time() - started)
    return best, made


def record(name: str, of: str, count: int, best: dict[str, float], whose: str | None = None) -> dict[str, Any]:
    """A row of the table."""
    first = best[whose or next(iter(best))]
    return {
        "what": name,
        "of": of,
        "n": count,
        "CPU s": best[name],
        "a second": count / best[name],
        "times slower": round(best[name] / first, 2),
    }


def shipped(name: str, folder: Path) -> str:
    """The model of this name, or a random one of the tests where this installation does not have the one that ships."""
    try:
        find_model(name, lambda _: None)
    except ToolrollError:
        if name not in SHIPPED:
            raise
        sys.path.insert(0, str(common.ROOT / "tests"))
        import tiny_clip_models
        import tiny_pairs

        sys.stderr.write(f"no {name}: a random model instead\n")
        made = folder / name
        return str(tiny_pairs.write_image_model(made) if name == "sprite" else tiny_clip_models.write(made))
    return name


if __name__ == "__main__":
    common.run(
        "Two branches decoded in a batch, and texts scored by their images.",
        measure,
        ("--prompts", {"type": int, "default": 16}),
        ("--images", {"type": int, "default": 64}),
        ("--tokens", {"type": int, "default": 48}),
        ("--rounds", {"type": int, "default": 3}),
        ("--threads", {"type": int, "default": 1}),
        ("--model", {"default": "sprite"}),
        ("--clip", {"default": "glance"}),
    )
