"""Pruned visual tokens in miniature: what is left of answers and captions without computation, or without tokens?

A model that answers questions about small rendered scenes and describes them (`sprite`, or --model) does so with a
share of the FLOPs of its visual tokens, untrained, by three methods:

    yopo     the plan that vprune-plan's search finds for the share, by other scenes and their true answers
    fastv    behind the first layer, only the visual tokens that the prompt's last token looks at most go on
    pyramid  the same at a quarter, a half and three quarters of the layers, the same share of the rest each time

Rows go to a file, one for each method and share: the share of answers that are right, the F1 of the objects that
captions name, and the share of visual FLOPs that the plan leaves by the formulas. A share that a method cannot reach is
a row without scores. A row that is there is not made again.

    python experiments/pruning.py [--model NAME] [--scenes 100] [--calibration 24] [--shares 1,0.5,0.25,0.12]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.images import with_places
from toolroll.models.load import Loaded
from toolroll.models.padded import Asked as Prompt
from toolroll.models.vision import chat_text, processed
from toolroll.preference.mentions import Scenes, compared
from toolroll.pruning.answering import Answerer
from toolroll.pruning.heads import voted
from toolroll.pruning.measure import Meter
from toolroll.pruning.opening import longest, open_model
from toolroll.pruning.plan import Drop, Plan
from toolroll.pruning.planning import Sample, Search, ladders, sample_of
from toolroll.pruning.shape import Shape
from toolroll.pruning.support import parts_of
from toolroll.world.clevr import scene_json
from toolroll.world.draws import Draws
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import questions_about
from toolroll.world.render import render
from toolroll.world.scene import Scene

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "pruning.jsonl"
SIZE = (320, 240)
FIRST, OTHERS = 9_700_000, 9_800_000  #: seeds of the scenes that are measured on, and of those that plans are chosen by
METHODS = ("yopo", "fastv", "pyramid")
BATCH = 16
Fields = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A question about a scene, or the wish for a caption, as the model reads it."""

    scene: Scene
    kind: str
    answer: str
    prompt: Prompt


def items(loaded: Loaded, first: int, count: int, folder: Path) -> list[Item]:
    """All that is asked about `count` scenes of 3 to 6 objects."""
    made = []
    for i in range(count):
        scene = drawn_scene(Draws(first + i), 3 + i % 4, *SIZE)
        path = folder / f"{first + i}.png"
        path.write_bytes(png(render(scene, *SIZE)))
        for one in questions_about(scene, Draws(first + i)):
            text = chat_text(loaded.processor, with_places([{"role": "user", "content": one.question}], 1))
            ids, features = processed(loaded.processor, text, [path])
            tokens = 100 if one.kind in ("caption", "list") else 16
            made.append(
                Item(scene, one.kind, one.answer, Prompt(ids, Sampling(temperature=0, max_tokens=tokens), features))
            )
    return made


def scores(loaded: Loaded, plan: Plan, asked: Sequence[Item]) -> Fields:
    """How good the answers under a plan are."""
    answerer = Answerer(loaded, plan, lambda: False)
    right: list[float] = []
    captions: list[float] = []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        answers = answerer([one.prompt for one in some]) or []
        for one, answer in zip(some, answers, strict=True):
            if one.kind == "caption":
                objects = scene_json(one.scene, *SIZE)["objects"]
                captions.append(float(compared(Scenes(), answer.text, objects).scores()["f1"] or 0.0))
            elif one.kind != "list":
                right.append(float(answer.text == one.answer))
    answerer.pause()
    return {
        "accuracy": sum(right) / len(right) if right else None,
        "caption_f1": sum(captions) / len(captions) if captions else None,
        "n_questions": len(right),
        "n_captions": len(captions),
    }


def plan_for(method: str, share: float, search: Search, shape: Shape, heads: list[list[float]]) -> Plan | None:
    """A method's plan that leaves at most `share` of the visual FLOPs; None where it has none."""
    if share >= 1:
        return Plan()
    if method == "yopo":
        rungs = ladders(
            shape,
            windows=(9, 7, 5, 3),
            shares=(0.75, 0.5, 0.25),
            ratios=(2, 4, 8),
            cuts=[(layer + 1) / shape.layers for layer in range(shape.layers - 1)],
            scores=heads,
            protect=1,
        )
        try:
            return list(search.steps(rungs, Plan(), share))[-1].plan
        except ToolrollError:
            return None
    low, high = 0.0, 1.0
    if search.visual_ratio(dropping(method, 0.0, shape.layers)) > share:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        if search.visual_ratio(dropping(method, middle, shape.layers)) > share:
            high = middle
        else:
            low = middle
    return dropping(method, low, shape.layers)


def dropping(method: str, keep: float, layers: int) -> Plan:
    """A plan that drops tokens; `keep` is the share of them that goes on at each of its layers."""
    if method == "fastv":
        return Plan(drops=(Drop(1, keep),))
    at = sorted({max(1, layers * i // 4) for i in (1, 2, 3)})
    return Plan(drops=tuple(Drop(layer, keep ** (i + 1)) for i, layer in enumerate(at)))


@torch.inference_mode()
def main() -> None:
    """Make the rows that are not there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="sprite")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--shares", default="1,0.5,0.25,0.12")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    loaded = open_model(given.model, "cpu", "float32", notify=lambda _: None, trust_remote_code=False)
    shape = parts_of(loaded.model, Plan()).shape
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(row["method"], row["share"], row["model"]) for row in rows}
    with tempfile.TemporaryDirectory() as name:
        asked = items(loaded, FIRST, given.scenes, Path(name))
        others = items(loaded, OTHERS, given.calibration, Path(name))
        samples = [one for item in others if (one := sample_of(loaded, item.prompt, item.answer, longest(loaded)))]
        search = Search(loaded, shape, samples, batch=BATCH, stopped=lambda: False)
        heads = measured(loaded, samples)
        for share in map(float, given.shares.split(",")):
            for method in METHODS:
                if (method, share, given.model) in done or (share >= 1 and method != "yopo"):
                    continue
                plan = plan_for(method, share, search, shape, heads)
                row: Fields = {"method": method, "share": share, "model": given.model, "scenes": given.scenes}
                if plan is not None:
                    row |= {"visual_ratio": search.visual_ratio(plan), "plan": plan.as_dict()}
                    row |= scores(loaded, plan, asked)
                given.out.parent.mkdir(exist_ok=True)
                with given.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                shown = {name: row.get(name) for name in ("method", "share", "visual_ratio", "accuracy", "caption_f1")}
                sys.stderr.write(json.dumps(shown) + "\n")


def measured(loaded: Loaded, samples: Sequence[Sample]) -> list[list[float]]:
    """The ratio that decides for each head."""
    with Meter(loaded.model) as meter:
        found = [one for sample in samples if (one := meter(sample.asked)) is not None]
    return [voted([sample[layer] for sample in found], 0.4) for layer in range(len(found[0]))]


if __name__ == "__main__":
    main()
