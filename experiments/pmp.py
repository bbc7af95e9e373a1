"""Prompt-guided mask proposals in miniature: does a decoder that listens to its prompts propose better masks?

The same small model, with attention to the prompts in each layer of its decoder and without, the same number of
updates, by two tasks:

    shapes   scenes of eight coloured shapes, four queries: there are fewer masks than things, so which of them are
             proposed has to depend on the prompts. Trained with 1 to 6 prompts a scene; asked for one thing at a
             time, for all things at once, and for names that were held out in training, whose colours and shapes
             were seen
    camvid   street photos, twenty queries, always the same eleven prompts, which therefore say nothing (--camvid DIR;
             not run without it)

Rows go to a file, one for each task, model and seed, with all scores of pmp-eval. A row that is there is not made
again, and a run that was stopped goes on where it was.

    python experiments/pmp.py [--tasks shapes,camvid] [--camvid DIR] [--seeds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from toolroll.records.segment import SegmentedImage
from toolroll.segment.evaluating import Scores
from toolroll.segment.masks import encode
from toolroll.segment.model import About, Opened, Shape, build
from toolroll.segment.predicting import Predictor
from toolroll.segment.prompts import Prompts, given_prompts
from toolroll.segment.proposals import record_of, segments_of, selected
from toolroll.segment.sampling import Asking, Drawer
from toolroll.segment.scene_rows import rows_of
from toolroll.segment.scenes import Scenes, Settings, open_scenes
from toolroll.segment.text import Reader, open_text
from toolroll.segment.training import Plan, Training
from toolroll.train.team import Team

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "pmp.jsonl"
TEST_SEED = 1_000_000  #: of the drawn scenes that are measured on
BACKGROUND = 0.5  #: pixels where no class scores higher are of none, where everything drawn is not asked for
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is trained and measured: the same for both models and all seeds."""

    width: int
    height: int
    queries: int
    steps: int
    batch: int = 8
    least: int = 1
    most: int = 6
    drop: float = 0.3
    objects: int = 8
    scenes: int = 100  #: that are measured on, at most

    @property
    def asking(self) -> Asking:
        """How prompts are drawn in training."""
        return Asking(self.least, self.most, self.drop) if self.most else Asking(0, 0, 0.0)


PLANS = {
    "full": {
        "shapes": Task(64, 64, 4, 3000),
        "camvid": Task(128, 96, 20, 1000, least=0, most=0, drop=0.0, scenes=101),
    },
    "tiny": {
        "shapes": Task(32, 32, 2, 3, batch=2, objects=3, scenes=2),
        "camvid": Task(32, 32, 4, 3, batch=2, least=0, most=0, drop=0.0, scenes=2),
    },
}


def tests(name: str, task: Task, camvid: Path | None) -> dict[str, tuple[Scenes, str, float]]:
    """What a model is measured on: scenes, which prompts they are asked with, and the score of the background."""
    size = {"width": task.width, "height": task.height, "objects": task.objects}
    if name == "camvid":
        return {"all": (open_scenes(f"camvid:{camvid}", Settings(split="val")), "all", 0.0)}
    known = open_scenes(f"shapes:{TEST_SEED}", Settings(held_out="without", **size))  # type: ignore[arg-type]
    rare = open_scenes(f"shapes:{TEST_SEED + 1}", Settings(held_out="only", **size))  # type: ignore[arg-type]
    return {
        "one": (known, "each", BACKGROUND),
        "at once": (known, "present", BACKGROUND),
        "held out": (rare, "held out", BACKGROUND),
    }


def rows_asked(scenes: Scenes, ask: str, number: int) -> Iterator[tuple[Any, Row]]:
    """A scene's image and the rows that ask for things in it."""
    from PIL import Image

    from toolroll.segment.shapes import HELD_OUT

    scene = scenes.scene(number)
    image = Image.fromarray(scene.image)
    for row in rows_of(scene, scenes.classes, scene.id, "each" if ask == "held out" else ask):
        if ask != "held out" or row["prompts"][0] in HELD_OUT:
            yield image, row


def measured(predictor: Predictor, scenes: Scenes, ask: str, background: float, most: int) -> Row:
    """The scores of a model."""
    scores = Scores()
    for number in range(min(most, scenes.size or most)):
        for image, row in rows_asked(scenes, ask, number):
            prompts: Prompts = given_prompts(row["prompts"])
            said = predictor.said(image, prompts)
            found = segments_of(said, "semantic", 0.0, 0, background)
            names = [words[0] for words in prompts]
            made = {
                "width": image.width,
                "height": image.height,
                "mode": "semantic",
                "segmenter": "",
                "segments": [record_of(one, names, said) for one in found],
                "proposals": [encode(said.mask(query)) for query in range(len(said.masks))],
                "selected": selected(said),
            }
            scores.add(msgspec.convert({**row, **made}, SegmentedImage))
    return scores.report("gt")


def run(name: str, task: Task, *, pmp: bool, seed: int, camvid: Path | None, folder: Path) -> Row:
    """Train a model, or go on with it, and measure it."""
    text = open_text("lexicon")
    torch.manual_seed(seed)
    about = About(shape=Shape(queries=task.queries, text_width=text.width, pmp=pmp), side=max(task.width, task.height))
    model = build(about.shape)
    size = {"width": task.width, "height": task.height, "objects": task.objects}
    data = f"camvid:{camvid}" if name == "camvid" else "shapes:1"
    drawer = Drawer([open_scenes(data, Settings(**size))], task.asking, (task.width, task.height), seed)  # type: ignore[arg-type]
    team = Team("cpu", "float32")
    training = Training(model, about, Plan(task.steps, task.batch), drawer, Reader(text), team, folder)
    training.resume({"task": asdict(task), "pmp": pmp, "seed": seed}, frozenset({"task", "pmp", "seed"}), tell)
    began = time.process_time()
    told: Row = {}
    for told in training.rows(lambda: False, report_every=200, save_every=200):
        tell(f"{folder.name} {told['step']} loss {told['loss']:.2f}")
    seconds = time.process_time() - began
    predictor = Predictor(Opened(model, about, folder.name, ""))
    scores = {
        test: measured(predictor, scenes, ask, background, task.scenes)
        for test, (scenes, ask, background) in tests(name, task, camvid).items()
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "task": name,
        "pmp": pmp,
        "seed": seed,
        "plan": asdict(task),
        "parameters": parameters,
        "loss": told.get("loss"),
        "train_cpu_s": round(seconds, 1),
        "scores": scores,
    }


def main(arguments: list[str] | None = None) -> None:
    """Make the rows that are not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tasks", default="shapes,camvid")
    parser.add_argument("--camvid", type=Path, help="folder with train, trainannot, val and valannot")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", choices=tuple(PLANS), default="full", help="tiny shows that it works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=HERE / "out" / "pmp", help="models, to go on from")
    options = parser.parse_args(arguments)
    names = options.tasks.split(",")
    if unknown := set(names) - set(PLANS["full"]):
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    if options.camvid is None and "camvid" in names:
        tell("no --camvid: that task is left out")
        names.remove("camvid")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {key(json.loads(line)) for line in options.out.read_text().splitlines()} if options.out.exists() else set()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in names:
            for pmp in (True, False):
                task = PLANS[options.size][name]
                if (name, pmp, seed) in done:
                    continue
                folder = options.work / f"{options.size}-{name}-{'on' if pmp else 'off'}-{seed}"
                team_threads(options.threads)
                row = run(name, task, pmp=pmp, seed=seed, camvid=options.camvid, folder=folder)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    sys.stderr.write(text + "\n")


def team_threads(threads: int) -> None:
    """How many threads the models of this process get."""
    os.environ["SLURM_CPUS_PER_TASK"] = str(threads)


def key(row: Row) -> tuple[str, bool, int]:
    """What names a row."""
    return row["task"], row["pmp"], row["seed"]


if __name__ == "__main__":
    main()
