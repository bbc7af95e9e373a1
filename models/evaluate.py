"""What the models get right on scenes and charts they have never seen, asked as users ask them: from files, in batches.

`python models/evaluate.py [--sprite FOLDER] [--glance FOLDER] [--scenes 400]` prints both models' scores as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentences import caption_pair, pair

from toolroll.models.base import Completion, Sampling
from toolroll.models.device import choose_device
from toolroll.models.open import open_image_text
from toolroll.models.pictures import Request
from toolroll.preference.encoders import open_encoder
from toolroll.preference.mentions import Scenes, compared
from toolroll.spygame.parse import answer as boxed_answer
from toolroll.world import charts, tables
from toolroll.world.clevr import scene_json
from toolroll.world.draws import Draws
from toolroll.world.game import clue_turn, fits, vote_turn
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import Asked, chart_questions, questions_about
from toolroll.world.render import render
from toolroll.world.scene import Scene

SIZE = (320, 240)  #: as `pair-make` draws
FIRST = 9_600_000  #: seed of the first scene; nothing was learned from any near it
ATTRIBUTES = ("color", "shape", "size", "material")
ANSWERS = (*ATTRIBUTES, "position", "place", "count", "existence", "lists")
ROOM = {"caption": 100, "list": 100, "clue": 40, "vote": 80}  #: tokens of an answer, 16 otherwise


def shown(count: int, folder: Path) -> tuple[list[Scene], list[Path]]:
    """Scenes of 3 to 6 objects, and their pictures in files."""
    scenes = [drawn_scene(Draws(FIRST + i), 3 + i % 4, *SIZE) for i in range(count)]
    paths = []
    for i, scene in enumerate(scenes):
        paths.append(folder / f"scene-{i}.png")
        paths[-1].write_bytes(png(render(scene, *SIZE)))
    return scenes, paths


def answered(model: str, asked: Sequence[tuple[Path, Asked]]) -> list[str]:
    """The model's greedy answers."""
    engine = open_image_text(model=model, device="cpu")
    requests = [
        Request([{"role": "user", "content": one.question}], Sampling(max_tokens=ROOM.get(one.kind, 16)), [path])
        for path, one in asked
    ]
    replies = engine.answer(requests)
    engine.close()
    return [reply.text if isinstance(reply, Completion) else "" for reply in replies]


def sprite_scores(model: str, count: int) -> dict[str, Any]:
    """Shares of right answers by kind of question, captions' F1, and how the game's turns go; on `count` scenes."""
    with tempfile.TemporaryDirectory() as name:
        scenes, paths = shown(count, Path(name))
        asked: list[tuple[Path, Asked, int]] = []
        for i, (scene, path) in enumerate(zip(scenes, paths, strict=True)):
            draws = Draws(FIRST + i)
            turns = [*questions_about(scene, draws), clue_turn(scene, draws), vote_turn(scene, draws)]
            asked += [(path, one, i) for one in turns]
        for i in range(count // 4):
            draws = Draws(FIRST + 500_000 + i)
            table = tables.drawn_table(draws)
            path = Path(name) / f"chart-{i}.png"
            Image.fromarray(charts.draw(table, charts.drawn_style(draws), *SIZE)).save(path)
            asked += [(path, one, i) for one in chart_questions(table, draws)]
        replies = answered(model, [(path, one) for path, one, _ in asked])
    right: dict[str, list[float]] = {}
    for (_, one, number), reply in zip(asked, replies, strict=True):
        for kind, value in judged(one, reply, scenes[number]).items():
            right.setdefault(kind, []).append(value)
    scores: dict[str, Any] = {kind: round(sum(values) / len(values), 3) for kind, values in sorted(right.items())}
    for name, kinds in (("attributes", ATTRIBUTES), ("answers", ANSWERS)):
        values = [value for kind in kinds for value in right[kind]]
        scores[name] = round(sum(values) / len(values), 3)
    return scores | {"scenes": count, "turns": len(asked)}


def judged(asked: Asked, reply: str, scene: Scene) -> dict[str, float]:
    """Numbers from 0 to 1 by what they are of."""
    if asked.kind in ("caption", "list"):
        objects = scene_json(scene, *SIZE)["objects"]
        f1 = compared(Scenes(), reply, objects).scores()["f1"]
        return {f"{asked.kind} F1": float(f1 or 0.0), f"{asked.kind} exact": float(reply == asked.answer)}
    if asked.kind == "clue":
        clue = boxed_answer(reply).text
        return {"clue in its form": float(clue is not None), "clue fits": float(clue is not None and fits(clue, scene))}
    if asked.kind == "vote":
        given, wanted = boxed_answer(reply).text, boxed_answer(asked.answer).text
        none = {"vote N/A": float(given == "N/A"), "N/A is right": float(wanted == "N/A")}
        return {"vote": float(given == wanted), **none}
    return {asked.kind: float(reply == asked.answer)}


def glance_scores(model: str, count: int) -> dict[str, Any]:
    """Shares of pairs of sentences of which the true one is nearer to the picture, by how the other is false."""
    encoder = open_encoder(model, choose_device("cpu", "auto"))
    with tempfile.TemporaryDirectory() as name:
        scenes, paths = shown(count, Path(name))
        images = torch.cat([encoder.images([Image.open(path)]) for path in paths])
    scores: dict[str, Any] = {}
    for kind in ("color", "shape", "material", "size", "object", "caption"):
        draws = Draws(FIRST)
        of, texts = [], []
        for number, scene in enumerate(scenes):
            for _ in range(3):
                made = caption_pair(scene, draws) if kind == "caption" else pair(scene, kind, draws)
                if made is not None:
                    of.append(number)
                    texts += made
        vectors = encoder.texts([encoder.encode(text) for text in texts])
        cosines = (vectors.view(len(of), 2, -1) * images[of][:, None]).sum(-1)
        scores[kind] = round(float((cosines[:, 0] > cosines[:, 1]).float().mean()), 3)
    return scores | {"scenes": count}


def main() -> None:
    """Print the scores."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--sprite", default="sprite")
    asked.add_argument("--glance", default="glance")
    asked.add_argument("--scenes", type=int, default=400)
    asked.add_argument("--only", choices=("sprite", "glance"))
    given = asked.parse_args()
    if given.only != "glance":
        print(json.dumps({"model": "sprite", **sprite_scores(given.sprite, given.scenes)}), flush=True)
    if given.only != "sprite":
        print(json.dumps({"model": "glance", **glance_scores(given.glance, given.scenes)}), flush=True)


if __name__ == "__main__":
    main()
