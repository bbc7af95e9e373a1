"""CalibQuant's claim in miniature: what is left of a model's answers when a part of its prompt is kept in few bits?

Three tasks, with each cache in turn, by range rule and width, and beside KIVI and the caches of transformers:

    passages   a language model is to repeat a passage of its prompt word for word; the passage is packed. Who cannot
               read the packed tokens cannot repeat them: the perplexity of the passage tells what is left
    captions   an image-text model describes rendered scenes; what stands for the image is packed. F1 of the objects
               that the caption names, by the scene
    answers    the same model answers short questions about the same scenes, which have one right answer each

KL to the dense cache, and how often both have the same most probable token, are taken at the same tokens for every
cache: those of the passage, or those that the model writes with the dense cache. The bits are what is held of a packed
key or value, ranges and padding included; those of the prompt count what is not packed with 16.

A prompt is read once, exactly, and its keys and values go into every cache as the model would give them. Passages are
cut so that prompts are of one length, which suits everybody's groups. Rows go to a file, one for each task,
set of prompts and cache; a row that is there for these weights is not made again. Caches of packages that are not
installed are left out; `pip install hqq optimum-quanto` brings both.

    python experiments/kvquant.py --tasks passages
    python experiments/kvquant.py --tasks captions answers
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recorded import append, changed, whole_rows

from toolroll.kvcache.cache import PackedLayer, packed_attention
from toolroll.kvcache.caches import compared, held_bytes
from toolroll.kvcache.evaluate import compare
from toolroll.kvcache.running import Prompts, Read, open_model, visual_tokens
from toolroll.kvcache.spans import Mask
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.images import with_places
from toolroll.models.load import Loaded
from toolroll.models.padded import Asked
from toolroll.models.vision import chat_text, processed
from toolroll.preference.mentions import Scenes
from toolroll.preference.mentions import compared as mentioned
from toolroll.world.clevr import scene_json
from toolroll.world.draws import Draws
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import questions_about
from toolroll.world.render import render

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "kvquant.jsonl"
CORPUS = HERE.parent / "lib" / "toolroll" / "data" / "hotpotqa" / "corpus.jsonl.gz"
KIVI = "group=32,along_v=channels"  #: its groups; of the packed tokens alone where it goes with a rule
CACHES = (
    "dense",
    "minmax:bits=1", "calibquant:bits=1", "calibquant:bits=1,tau=0/3", "quantile:bits=1", "lloyd1:bits=1", "mse:bits=1",
    "hqq:bits=1",
    "minmax:bits=2", "calibquant:bits=2,tau=0/3", "quantile:bits=2", "mse:bits=2",
    f"minmax:bits=2,{KIVI}", "kivi:bits=2,residual=0", "hqq:bits=2", "quanto:bits=2",
    "minmax:bits=4", "quantile:bits=4", "mse:bits=4",
    f"minmax:bits=4,{KIVI}", "kivi:bits=4,residual=0", "hqq:bits=4", "quanto:bits=4",
    "minmax:bits=8", "fp8",
)  # fmt: skip
PACKAGES = {"hqq": ("hqq", "hqq"), "quanto": ("optimum", "optimum-quanto")}  #: modules and packages of some caches
FIRST_SEED, FIRST_SCENE = 41, 9_000_000
Row = dict[str, Any]
States = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Plan:
    """What the rows are set to; the same for all caches and sets."""

    passages: int = 4  #: of a set
    letters: int = 560  #: of a passage before it is cut, at least
    prompt_tokens: int = 160  #: with the passage; a multiple of everybody's groups
    passage_tokens: int = 32  #: of a passage, its first, that are read behind the prompt
    scenes: int = 24  #: of a set
    size: tuple[int, int] = (320, 240)  #: pixels
    tokens: int = 100  #: longest caption
    answer_tokens: int = 12
    batch: int = 8  #: prompts at a time


QUICK = Plan(
    passages=2, letters=40, prompt_tokens=96, passage_tokens=4, scenes=2, size=(64, 48), tokens=6, answer_tokens=2
)


@dataclass(frozen=True)
class Item:
    """A prompt, its tokens to pack, and what is to be said behind it: the tokens of a passage, or an answer in words.

    Without a passage, what the model says with the dense cache is read. `objects` are what the scene of a caption has.
    """

    asked: Asked
    mask: Mask
    passage: Sequence[int] | None = None
    answer: str | None = None
    objects: Sequence[Mapping[str, Any]] | None = None


# --- prompts


def passages(loaded: Loaded, plan: Plan, seed: int, _: Path) -> list[Item]:
    """Passages to repeat, drawn from HotpotQA's paragraphs; each is cut so that its prompt has the plan's length."""
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        texts = [text for row in file if len(text := json.loads(row)["text"]) > plan.letters]
    random.Random(seed).shuffle(texts)
    covered, made = visual_tokens(loaded, "text"), []
    sampling = Sampling(temperature=0.0, max_tokens=1)
    for text in texts:
        asked = f"Repeat this text word for word.\n\n{text}"
        ids = list(loaded.codec.encode(loaded.codec.chat([{"role": "user", "content": asked}])))
        at = np.flatnonzero(covered(Asked(ids, sampling), SimpleNamespace(packed_spans=None, packed_text=text)))
        if not plan.passage_tokens <= len(at) - (len(ids) - plan.prompt_tokens) <= len(at):
            continue
        at, gone = np.split(at, [len(at) - (len(ids) - plan.prompt_tokens)])
        passage = [ids[i] for i in at[: plan.passage_tokens]]
        ids = np.delete(ids, gone).tolist()
        made.append(Item(Asked(ids, sampling), np.isin(np.arange(len(ids)), at), passage))
        if len(made) == plan.passages:
            break
    return made


def captions(loaded: Loaded, plan: Plan, seed: int, folder: Path) -> list[Item]:
    """Scenes to describe."""
    return [one for one in about_scenes(loaded, plan, seed, folder) if one.objects is not None]


def answers(loaded: Loaded, plan: Plan, seed: int, folder: Path) -> list[Item]:
    """Questions with one right answer, the shortest first, so many that all batches are full."""
    found = [one for one in about_scenes(loaded, plan, seed, folder) if one.objects is None]
    found.sort(key=lambda one: len(one.asked.ids))
    return found[: len(found) // plan.batch * plan.batch] or found


def about_scenes(loaded: Loaded, plan: Plan, seed: int, folder: Path) -> Iterator[Item]:
    """All that is asked about scenes of 3 to 6 objects, but for lists."""
    covered = visual_tokens(loaded, "images")
    for number in range(10_000 * seed, 10_000 * seed + plan.scenes):
        scene = drawn_scene(Draws(FIRST_SCENE + number), 3 + number % 4, *plan.size)
        path = folder / f"{number}.png"
        path.write_bytes(png(render(scene, *plan.size)))
        for one in questions_about(scene, Draws(FIRST_SCENE + number)):
            if one.kind == "list":
                continue
            described = one.kind == "caption"
            text = chat_text(loaded.processor, with_places([{"role": "user", "content": one.question}], 1))
            ids, features = processed(loaded.processor, text, [path])
            sampling = Sampling(temperature=0.0, max_tokens=plan.tokens if described else plan.answer_tokens)
            asked = Asked(ids, sampling, features)
            mask = covered(asked, SimpleNamespace(packed_spans=None))
            objects = scene_json(scene, *plan.size)["objects"] if described else None
            yield Item(asked, mask, None, one.answer, objects)


TASKS = {"passages": passages, "captions": captions, "answers": answers}


# --- what a cache leaves


@dataclass(frozen=True)
class Known:
    """A batch as the model reads it with a dense cache: keys and values, what is said behind it, and its logits."""

    items: Sequence[Item]
    read: Read
    states: States
    said: Sequence[Sequence[int]]
    exact: Sequence[torch.Tensor]  # [t, V] each


class Task:
    """A set of prompts, read once; `measured` says what is left of it with a cache."""

    def __init__(self, loaded: Loaded, items: Sequence[Item], batch: int) -> None:
        self.prompts = Prompts(loaded)
        self.known = [self._read(items[start : start + batch]) for start in range(0, len(items), batch)]

    def _set(self, items: Sequence[Item], name: str) -> list[Asked]:
        self.prompts.masks = [one.mask for one in items]
        self.prompts.make = compared(name, self.prompts.model.config).make
        return [one.asked for one in items]

    def _read(self, items: Sequence[Item]) -> Known:
        asked = self._set(items, "dense")
        said = [one.passage for one in items if one.passage is not None]
        said = said or [one.ids for one in self.prompts.write(asked) or []]
        read = self.prompts.read(asked)
        states = [(layer.keys, layer.values) for layer in read.cache.layers]
        return Known(items, read, states, said, self._logits(read, self._filled(states), said))

    def _filled(self, states: States) -> Any:
        """A new cache that has got the prompt's keys and values as from the model."""
        cache = self.prompts.new_cache()
        with torch.inference_mode():
            for number, (keys, values) in enumerate(states):
                cache.update(keys, values, number)
        return cache

    def _logits(self, read: Read, cache: Any, said: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Logits [t, V] by which each of the tokens behind the prompts is chosen."""
        logits, longest = read.logits[:, None], max(map(len, said))
        if longest > 1:
            ids = torch.tensor([[*one[:-1], *[0] * (longest - len(one))] for one in said])
            again = Read(cache, read.mask, read.offset, read.logits)
            logits = torch.cat([logits, self.prompts.follow(again, ids)], 1)
        return [logits[b, : len(one)] for b, one in enumerate(said)]

    def measured(self, name: str) -> Row:
        """The figures of a cache: means over prompts, and the bits that it holds."""
        found: list[Row] = []
        sums = np.zeros(4)
        for known in self.known:
            asked = self._set(known.items, name)
            cache = self._filled(known.states)
            sums += held(cache, known)
            with packed_attention(self.prompts.model):
                logits = known.exact if name == "dense" else self._logits(known.read, cache, known.said)
                wanted = known.items[0].answer is not None
                new = self.prompts.write(asked) if wanted else None
            for b, item in enumerate(known.items):
                row = compare(known.exact[b], logits[b], known.said[b])
                if new:
                    row |= judged(item, *(self.prompts.text(list(one)) for one in (new[b].ids, known.said[b])))
                found.append(row)
        names = [one for one in ("kl", "top1_frac", "f1", "right_frac", "same_frac") if one in found[0]]
        return {
            "prompts": len(found),
            **{one: mean(row[one] for row in found) for one in names},
            "perplexity": math.exp(mean(row["nll"] for row in found)),
            "bits": 8 * sums[0] / sums[1] if sums[1] else 16.0,
            "prompt_bits": 8 * sums[2] / sums[3],
            "packed_frac": mean(one.mask.mean() for known in self.known for one in known.items),
        }


def judged(item: Item, said: str, dense: str) -> Row:
    """How good an answer is: F1 of a caption, else whether it is right; and whether the dense cache's is the same."""
    same = {"same_frac": float(said == dense)}
    if item.objects is None:
        return {"right_frac": float(said == item.answer), **same}
    return {"f1": float(mentioned(Scenes(), said, item.objects).scores()["f1"] or 0.0), **same}


def held(cache: Any, known: Known) -> tuple[float, float, float, float]:
    """Bytes that a cache holds quantized, and how many numbers; the same of the whole prompt, the rest in 16 bits.

    Padding is counted where a cache quantizes it, too.
    """
    all_of = sum(one.numel() for pair in known.states for one in pair)
    if isinstance(cache.layers[0], PackedLayer):
        items = [item for layer in cache.layers for item in layer.items or ()]
        blocks = [one for item in items for pair in item.blocks for one in pair]
        packed = sum(one.stored_bytes for one in blocks)
        inside = sum(len(one.codes) * one.tokens * one.channels for one in blocks)
    elif hasattr(cache.layers[0], "_quantized_keys"):
        packed, inside = held_bytes(cache), all_of
        return packed, inside, packed, inside
    else:
        packed = inside = 0
    real = all_of * int(known.read.mask.sum()) // known.read.mask.numel()
    return packed, inside, packed + 2 * (real - inside), real


# --- rows


def installed(name: str) -> bool:
    """Whether the package of a cache is there."""
    package = PACKAGES.get(name.partition(":")[0])
    return package is None or importlib.util.find_spec(package[0]) is not None


def versions() -> dict[str, str]:
    """Of what computes, and of what is compared with."""
    there = {}
    for name in ("torch", "transformers", *(package for _, package in PACKAGES.values())):
        with suppress(PackageNotFoundError):
            there[name] = version(name)
    return there


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, and append a row for each set and cache."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy that shows only that it runs")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--caches", nargs="+", default=list(CACHES), metavar="CACHE", help="as kv-eval names them")
    parser.add_argument("--seeds", type=int, default=3, help="how many sets of prompts")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--text-model", default="embedded", help="embedded, or a folder")
    parser.add_argument("--image-model", default="sprite", help="sprite, or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan")
    options = parser.parse_args(arguments)
    plan: Plan = changed(QUICK if options.quick else Plan(), options.set)
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if left := [name for name in options.caches if not installed(name)]:
        sys.stderr.write(f"not installed, left out: {', '.join(left)}\n")
    caches = [name for name in options.caches if name not in left]
    for task in options.tasks:
        model = options.text_model if task == "passages" else options.image_model
        loaded = open_model(model, choose_device("cpu", "float32"), trust_remote_code=False, notify=lambda _: None)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            run(loaded, task, seed, plan, caches, options.out)


def run(loaded: Loaded, task: str, seed: int, plan: Plan, caches: Sequence[str], out: Path) -> None:
    """Append a row for each cache that has none of this task, set, plan and these weights."""
    common = {"task": task, "seed": seed, "model": loaded.name, "weights": loaded.weights_id, "plan": asdict(plan)}
    common = json.loads(json.dumps(common))
    there = [row["cache"] for row in whole_rows(out) if all(row[name] == one for name, one in common.items())]
    missing = [name for name in caches if name not in there]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        prompts = Task(loaded, TASKS[task](loaded, plan, seed, Path(folder)), plan.batch)
    for name in missing:
        started = time.thread_time()
        figures = prompts.measured(name)
        row = {**common, "cache": name, **figures, "cpu_s": round(time.thread_time() - started, 1)}
        append({**row, "versions": versions()}, out)
        sys.stderr.write(f"{task} {seed} {name}: {figures['bits']:.2f} bits, KL {figures['kl']:.4g}\n")


if __name__ == "__main__":
    main()
