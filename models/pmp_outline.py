"""Make the segmenter that ships, `outline`, and measure it: `python models/pmp_outline.py [--camvid DIR]`.

It learns from drawn streets and drawn shapes alone. The training is pmp-train's, of the command below; it goes on where
it was stopped. Scores are those of pmp-data, pmp-seg and pmp-eval. With --camvid it is also measured on real street
photos, CamVid's validation images (--split), of which it has seen none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
OUT = HERE.parent / "lib/toolroll/data/outline"
TRAIN = (
    *("pmp-train", "--data", "streets:1", "--data", "shapes:2", "--size", "160x128", "--steps", "2500", "--seed", "1"),
    *("--device", "cpu"),
)
FIRST_TEST = 1_000_000  #: scenes from this number on are measured on
Row = dict[str, Any]


def train(folder: Path, steps: int | None, size: str | None) -> list[str]:
    """Train, or go on with it; the command."""
    line = list(TRAIN)
    for option, value in (("--steps", steps), ("--size", size)):
        if value is not None:
            line[line.index(option) + 1] = str(value)
    subprocess.run([BIN / line[0], *line[1:], "--save-every", "50", "--out", str(folder)], check=True)
    return line


def score(model: Path, *data: str) -> Row:
    """What pmp-eval says of the model on a set."""
    made = subprocess.run([BIN / "pmp-data", "-q", *data], check=True, capture_output=True).stdout
    seg = [BIN / "pmp-seg", "-q", "--model", str(model), "--device", "cpu", "--proposals"]
    found = subprocess.run(seg, check=True, capture_output=True, input=made).stdout
    done = subprocess.run([BIN / "pmp-eval", "-q"], check=True, capture_output=True, input=found).stdout
    scores: Row = json.loads(done)
    return scores


def scores_of(model: Path, count: int, size: str, camvid: Path | None, split: str) -> dict[str, Row]:
    """The scores on scenes that were not learned from."""
    sets = {
        "drawn streets": ("streets:1",),
        "drawn shapes, one prompt at a time": ("shapes:2", "--ask", "each", "--held-out", "without"),
        "drawn shapes, with held-out names": ("shapes:2", "--ask", "present", "--held-out", "only"),
    }
    found = {}
    for name, data in sets.items():
        with tempfile.TemporaryDirectory() as scratch:
            drawn = ("-n", str(count), "--first", str(FIRST_TEST), "--size", size, "--out", scratch)
            found[name] = score(model, *data, *drawn)
    if camvid is not None:
        found["CamVid, real photos"] = score(model, f"camvid:{camvid}", "--split", split)
    return found


def card(command: list[str], scores: dict[str, Row], about: Row, digest: str, parameters: int) -> str:
    """The model's page."""
    lines = []
    for name, row in scores.items():
        alone = name.endswith("at a time")  # every pixel is given to that one class: the map says nothing
        cells = [None if alone else row["miou"], None if alone else row["pixel_accuracy"]]
        cells += [row["proposal_recall"], row["selected_iou"]]
        lines.append(f"| {name} | {row['n_images']} | {' | '.join(map(_cell, cells))} |")
    real, shape = scores.get("CamVid, real photos"), about["shape"]
    ious = "" if real is None else _by_class(real)
    return f"""\
---
license: mit
library_name: toolroll
pipeline_tag: image-segmentation
---
# outline

A segmenter of {parameters:,} weights whose masks listen to prompts (`toolroll.segment.model`): convolutions, a feature
pyramid, {shape["layers"]} decoder layers, {shape["queries"]} queries. Prompts are read by the table of words `lexicon`.
It has learned from streets and shapes that a program drew, and from no photo. On photos of streets it says roughly
where sky, road, cars, buildings and trees are. It finds no small or thin things and nothing that does not stand in
streets, and for a word that it was not trained with it gives a mask all the same: of what the word is nearest to.

An image is seen with its longer side at {about["side"]} pixels.

| not learned from | images | mIoU (gt) | pixel accuracy | recall of proposals | IoU of the selected mask |
|---|---:|---:|---:|---:|---:|
{chr(10).join(lines)}
{ious}
Measured by `python models/pmp_outline.py --camvid DIR`, with pmp-data, pmp-seg and pmp-eval. CamVid has eleven classes,
and its photos may not be passed on.

Made by `{" ".join(command)} --out outline`:
{about["training"]["steps"]} updates of {about["training"]["batch_size"]} images.

`model.safetensors` has SHA-256 {digest}.
"""


def _by_class(row: Row) -> str:
    named = sorted(((value, name) for name, value in row["class_iou"].items() if value is not None), reverse=True)
    said = ", ".join(f"{name} {value:.2f}" for value, name in named)
    return f"\nIoU by class on CamVid:\n{said}.\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> None:
    """Train, write, measure, write the card."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--camvid", type=Path, help="folder with val and valannot")
    asked.add_argument("--split", default="val")
    asked.add_argument("--work", type=Path, default=HERE / "out" / "outline", help="checkpoints, to go on from")
    asked.add_argument("--out", type=Path, default=OUT)
    asked.add_argument("--steps", type=int, help="fewer, to show that it works")
    asked.add_argument("--size", help="smaller, likewise")
    asked.add_argument("--scenes", type=int, default=50, help="drawn scenes that are measured on")
    given = asked.parse_args()
    command = train(given.work, given.steps, given.size)
    from toolroll.segment.model import open_model, save

    opened = open_model(str(given.work))
    save(given.out, opened.model, opened.about, half=True)
    size = given.size or TRAIN[TRAIN.index("--size") + 1]
    scores = scores_of(given.out, given.scenes, size, given.camvid, given.split)
    about = json.loads((given.out / "segmenter.json").read_text())
    digest = hashlib.sha256((given.out / "model.safetensors").read_bytes()).hexdigest()
    parameters = sum(parameter.numel() for parameter in opened.model.parameters())
    (given.out / "README.md").write_text(card(command, scores, about, digest, parameters))
    (given.out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
