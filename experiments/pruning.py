"""Pruned visual tokens in miniature: what is left of answers and captions without computation, or without tokens?

A model of some millions of weights that answers questions about small rendered scenes and describes them (`sprite`, or
--model) does so with a share of the FLOPs of its visual tokens, by three methods:

    yopo     the plan that vprune-plan's search finds for the share, by other scenes and their true answers
    fastv    behind the first layer, only the visual tokens that the prompt's last token looks at most go on
    pyramid  the same at a quarter, a half and three quarters of the layers, the same share of the rest each time

and as it is (`dense`). Each of them once untrained, and once after a short training of the language model through the
pruned model itself, on further scenes. A seed has its own scenes, for all three purposes, and the same ones for all
methods.

Rows go to a file, one for each method, share, seed and training: the share of answers that are right, the F1 of the
objects that captions name, and the share of visual FLOPs that the plan leaves by the formulas. A share that a method
cannot reach is a row without scores. A row that is there is not made again, so that what was killed goes on, and
several processes may each make some:

    for seed in 41 42 43; do python experiments/pruning.py --first-seed $seed --seeds 1 & done; wait
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from recorded import append, as_read, changed, whole_rows
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.images import with_places
from toolroll.models.load import Loaded, find_model, fingerprint
from toolroll.models.padded import Asked as Prompt
from toolroll.models.padded import Batches
from toolroll.models.vision import chat_text, processed
from toolroll.preference.mentions import Scenes, compared
from toolroll.pruning.answering import Answerer
from toolroll.pruning.heads import voted
from toolroll.pruning.measure import Meter
from toolroll.pruning.opening import batches_of, longest, open_model
from toolroll.pruning.plan import Drop, Plan
from toolroll.pruning.planning import Sample, Search, ladders, sample_of
from toolroll.pruning.plugin import Pruner
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
#: of the scenes that are measured on, that plans are chosen by, and that are learned from: seed of a seed's first
FIRST = {"measured": 70_000_000, "calibration": 80_000_000, "learned": 90_000_000}
FIRST_SEED = 41  #: the settings were chosen on others
METHODS = ("dense", "yopo", "fastv", "pyramid")
LONG = ("caption", "list")  #: kinds of answers that are no words but sentences
Fields = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What a run is set to; the same for all methods, shares and seeds."""

    shares: tuple[float, ...] = (0.5, 0.25, 0.12)
    scenes: int = 60
    calibration: int = 8  #: scenes
    tokens: int = 100  #: longest caption
    updates: int = 40
    batch: int = 16  #: questions of an update; each is learned from once
    rate: float = 2e-4
    warm_up: float = 0.1  #: share of the updates in which the rate grows; then it shrinks to 0
    windows: tuple[int, ...] = (9, 7, 5, 3)
    heads: tuple[float, ...] = (0.75, 0.5, 0.25)
    ffns: tuple[float, ...] = (2, 4, 8, 16)
    protect: int = 1  #: first layers that keep all heads


QUICK = Settings(shares=(0.6, 0.1), scenes=2, calibration=1, tokens=6, updates=2, batch=4, windows=(3,), ffns=(2,))


@dataclass(frozen=True)
class Item:
    """A question about a scene, or the wish for a caption, as the model reads it."""

    scene: Scene
    kind: str
    answer: str
    prompt: Prompt


@dataclass(frozen=True)
class Arm:
    """A row to make."""

    method: str
    share: float
    seed: int
    trained: bool


class Encoder:
    """The image encoder of a model, which encodes a picture once: it is never trained."""

    def __init__(self, tower: Any) -> None:
        self._encode, self._known = tower.forward, dict[bytes, tuple[Tensor, ...]]()
        tower.forward = self

    def __call__(self, pixel_values: Tensor, **settings: Any) -> BaseModelOutputWithPooling:
        """As the model's own, of pictures [n, 3, H, W]."""
        keys = [hashlib.blake2b(one.numpy().tobytes(), digest_size=16).digest() for one in pixel_values]
        with torch.inference_mode(False), torch.no_grad():
            new = {key: place for place, key in enumerate(keys) if key not in self._known}
            if new:
                made = self._encode(pixel_values[list(new.values())], **settings | {"output_hidden_states": True})
                for place, key in enumerate(new):
                    self._known[key] = tuple(layer[place] for layer in made.hidden_states)
            layers = zip(*(self._known[key] for key in keys), strict=True)
            return BaseModelOutputWithPooling(hidden_states=tuple(map(torch.stack, layers)))


class Learner(Batches):
    """Batches to learn from."""

    def loss(self, batch: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> Tensor:
        """The cross-entropy of the answers, read behind the prompts as they would be written.

        An answer of T tokens counts as much as sqrt(T) of one token.
        """
        ids, mask, features = self._read(batch)
        positions, offset = self._positions(ids, mask, features)
        cache = self._cache()
        first = self._step(ids, mask, positions, cache, features, 1)
        most = max(map(len, answers))
        given = torch.tensor([[*answer, *[0] * (most - len(answer))] for answer in answers])
        real = torch.tensor([[1] * len(answer) + [0] * (most - len(answer)) for answer in answers])
        mask = torch.cat([mask, real[:, :-1]], 1)
        positions = (mask.cumsum(-1) - 1)[:, ids.shape[1] :].clamp(min=0) + offset
        rest = self._step(given[:, :-1], mask, self._in_space(positions), cache, {}, most - 1)
        logits = torch.cat([first, rest], 1)
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), given, reduction="none")
        weight = real * real.sum(1, keepdim=True) ** -0.5
        return (each * weight).sum() / weight.sum()


class Trial:
    """A seed: its scenes, the search by them, and the model, which is as it was loaded between trainings."""

    def __init__(self, loaded: Loaded, settings: Settings, seed: int, folder: Path) -> None:
        self.loaded, self.settings, self.seed, self.folder = loaded, settings, seed, folder
        self.parts = parts_of(loaded.model, Plan())
        self.start = {name: value.clone() for name, value in loaded.model.state_dict().items()}

    def items(self, purpose: str, count: int) -> list[Item]:
        """All that is asked about `count` scenes of 3 to 6 objects."""
        made = []
        for i in range(count):
            number = FIRST[purpose] + 10_000 * self.seed + i
            scene = drawn_scene(Draws(number), 3 + i % 4, *SIZE)
            path = self.folder / f"{number}.png"
            path.write_bytes(png(render(scene, *SIZE)))
            for one in questions_about(scene, Draws(number)):
                text = chat_text(self.loaded.processor, with_places([{"role": "user", "content": one.question}], 1))
                ids, features = processed(self.loaded.processor, text, [path])
                tokens = self.settings.tokens if one.kind in LONG else min(16, self.settings.tokens)
                prompt = Prompt(ids, Sampling(temperature=0, max_tokens=tokens), features)
                made.append(Item(scene, one.kind, one.answer, prompt))
        return made

    @cached_property
    def measured(self) -> list[Item]:
        """What the scores are of; answers of about one length stand together."""
        found = self.items("measured", self.settings.scenes)
        return sorted(found, key=lambda one: one.kind in LONG)

    @cached_property
    def lessons(self) -> list[list[Item]]:
        """What is learned from, update by update."""
        wanted = self.settings.updates * self.settings.batch
        found = self.items("learned", -(-wanted // 8))
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(self.seed)).tolist()[:wanted]
        batches = range(0, wanted, self.settings.batch)
        return [[found[place] for place in order[start : start + self.settings.batch]] for start in batches]

    @cached_property
    def samples(self) -> list[Sample]:
        """What plans are judged by: questions with a word for an answer."""
        items = [item for item in self.items("calibration", self.settings.calibration) if item.kind not in LONG]
        most = longest(self.loaded)
        return [one for item in items if (one := sample_of(self.loaded, item.prompt, item.answer, most))]

    @cached_property
    def search(self) -> Search:
        """The search for plans. What it finds out about one is known for all shares."""
        return Search(self.loaded, self.parts.shape, self.samples, batch=32, stopped=lambda: False)

    @cached_property
    def scores_of_heads(self) -> list[list[float]]:
        """The ratio that decides for each head."""
        with Meter(self.loaded.model) as meter:
            found = [one for sample in self.samples if (one := meter(sample.asked)) is not None]
        return [voted([sample[layer] for sample in found], 0.4) for layer in range(len(found[0]))]

    def plan(self, method: str, share: float) -> Plan | None:
        """A method's plan that leaves at most `share` of the visual FLOPs; None where it has none."""
        if method == "dense":
            return Plan()
        if method != "yopo":
            return self._dropping(method, share)
        layers, settings = self.parts.shape.layers, self.settings
        rungs = ladders(
            self.parts.shape,
            windows=settings.windows,
            shares=settings.heads,
            ratios=settings.ffns,
            cuts=[layer / layers for layer in range(1, layers)],
            scores=self.scores_of_heads,
            protect=settings.protect,
        )
        try:
            return list(self.search.steps(rungs, Plan(), share))[-1].plan
        except ToolrollError:
            return None

    def _dropping(self, method: str, share: float) -> Plan | None:
        layers = self.parts.shape.layers
        low, high = 0.0, 1.0
        if self.search.visual_ratio(dropping(method, low, layers)) > share:
            return None
        for _ in range(20):
            middle = (low + high) / 2
            if self.search.visual_ratio(dropping(method, middle, layers)) > share:
                high = middle
            else:
                low = middle
        return dropping(method, low, layers)

    def train(self, plan: Plan) -> list[float]:
        """Train the language model through the plan; the loss of each update."""
        settings, model = self.settings, self.loaded.model
        weights = [one.requires_grad_() for one in self.parts.text.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=settings.rate, weight_decay=0.0)
        factor = rates(settings.updates, settings.warm_up)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        learner: Learner = batches_of(self.loaded, lambda: False, Learner)
        end = min(self.loaded.codec.eos_ids)
        losses = []
        with Pruner(model, plan):
            for lesson in self.lessons:
                answers = [[*self.loaded.codec.encode(one.answer), end] for one in lesson]
                loss = learner.loss([one.prompt for one in lesson], answers)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(round(float(loss.detach()), 4))
        for one in weights:
            one.requires_grad_(requires_grad=False)
        return losses

    def row(self, arm: Arm) -> Fields:
        """A row: the model under a plan, as it is or trained."""
        started = time.process_time()
        plan = self.plan(arm.method, arm.share)
        found: Fields = {"visual_ratio": None, "pruning": None}
        if plan is not None:
            found = {"visual_ratio": self.search.visual_ratio(plan), "pruning": plan.as_dict()}
            losses = self.train(plan) if arm.trained else None
            found |= {"losses": losses, **scores(self.loaded, plan, self.measured, self.settings.batch * 4)}
            if arm.trained:
                self.loaded.model.load_state_dict(self.start)
        return {**found, "duration_s": round(time.process_time() - started, 1)}


def dropping(method: str, keep: float, layers: int) -> Plan:
    """A plan that drops tokens; `keep` is the share of them that goes on at each of its layers.

    >>> [(drop.layer, drop.keep) for drop in dropping("pyramid", 0.5, 4).drops]
    [(1, 0.5), (2, 0.25), (3, 0.125)]
    """
    if method == "fastv":
        return Plan(drops=(Drop(1, keep),))
    at = sorted({max(1, layers * i // 4) for i in (1, 2, 3)})
    return Plan(drops=tuple(Drop(layer, keep ** (i + 1)) for i, layer in enumerate(at)))


def rates(updates: int, warm_up: float) -> Callable[[int], float]:
    """The factor of the rate at each update: up in a line for a share of them, then down to 0."""
    rising = max(1, round(warm_up * updates))
    return lambda step: min((step + 1) / rising, (updates - step) / max(1, updates - rising))


def scores(loaded: Loaded, plan: Plan, asked: Sequence[Item], batch: int) -> Fields:
    """How good the answers under a plan are."""
    answerer = Answerer(loaded, plan, lambda: False)
    right: dict[str, list[float]] = {}
    captions: list[float] = []
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        answers = answerer([one.prompt for one in some]) or []
        for one, answer in zip(some, answers, strict=True):
            if one.kind == "caption":
                objects = scene_json(one.scene, *SIZE)["objects"]
                captions.append(float(compared(Scenes(), answer.text, objects).scores()["f1"] or 0.0))
            elif one.kind not in LONG:
                right.setdefault(one.kind, []).append(float(answer.text == one.answer))
    answerer.pause()
    every = [value for values in right.values() for value in values]
    return {
        "accuracy": sum(every) / len(every),
        "caption_f1": sum(captions) / len(captions),
        "by_kind": {kind: round(sum(values) / len(values), 4) for kind, values in sorted(right.items())},
        "n_questions": len(every),
        "n_captions": len(captions),
    }


def arms_of(settings: Settings, methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Arm]:
    """All rows there are to make, seed by seed."""
    for seed in seeds:
        for method in methods:
            for share in (1.0,) if method == "dense" else settings.shares:
                yield from (Arm(method, share, seed, trained) for trained in (False, True))


def missing(rows: Sequence[Mapping[str, Any]], arms: Iterator[Arm], settings: Settings, weights: str) -> list[Arm]:
    """Those that have no row with these settings and this model yet."""
    wanted = as_read(settings)
    there = {
        Arm(row["method"], row["share"], row["seed"], row["trained"])
        for row in rows
        if row["settings"] == wanted and row["weights"] == weights
    }
    return [arm for arm in arms if arm not in there]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the rows that are not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy that shows only that it runs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--model", default="sprite", help="sprite, or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the settings")
    options = parser.parse_args(arguments)
    base = QUICK if options.quick else Settings()
    settings: Settings = changed(base, options.set)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    weights = fingerprint(Path(find_model(options.model, lambda _: None)) / "model.safetensors")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    arms = missing(whole_rows(options.out), arms_of(settings, options.methods, seeds), settings, weights)
    if not arms:
        return
    loaded = open_model(options.model, "cpu", "float32", notify=lambda _: None, trust_remote_code=False)
    torch.set_num_threads(1)  # whoever opens a model sets them, too
    loaded.model.requires_grad_(requires_grad=False)
    if hasattr(loaded.model.model, "vision_tower"):
        Encoder(loaded.model.model.vision_tower)
    about = {
        "model": loaded.name, "weights": weights, "parameters": sum(one.numel() for one in loaded.model.parameters()),
        "torch": torch.__version__, "settings": asdict(settings),
    }  # fmt: skip
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(loaded, settings, seed, Path(folder))
            for arm in (one for one in arms if one.seed == seed):
                row = {**asdict(arm), **trial.row(arm), **about}
                append(row, options.out)
                shown = {name: row.get(name) for name in ("visual_ratio", "accuracy", "caption_f1", "duration_s")}
                sys.stderr.write(f"{json.dumps({**asdict(arm), **shown})}\n")


if __name__ == "__main__":
    main()
