"""Pairs without a judge in miniature: what of it makes captions truer?

A model of some millions of weights that describes small rendered scenes (`sprite`, or --model) writes pairs of captions
about them, and learns from them by DPO. The arms differ in what is rejected and in what a contrastive encoder
(`glance`, or --clip) does with the pairs:

    unchecked        captions mixed with what the prompt alone suggests are rejected; nobody looks at scores
    filter, reverse  the same pairs; those that the encoder scores the other way round are left out, or turned round
    random           the model's caption of another picture is rejected; unchecked
    dropout          the caption without some of its words is rejected; unchecked (what a reviewer of the paper meant by
                     caption dropout is not known; this is our reading)
    swapped          the pairs of `unchecked`, a fifth of them turned round on purpose; unchecked
    swapped-reverse  the same, checked as in `reverse`

All arms of a seed have the same captions and begin from the same weights, and make as many updates. Only what is
measured looks at the scenes: captions of pictures that nobody trains on, and which captions of the pairs are truer. For
`swapped-reverse` the row also tells how many of the planted pairs came back, margin by margin.

Rows go to a file, one for each run. A run whose row is there is not made again, so that what was killed goes on, and
several processes may each run some arms or seeds:

    for seed in 31 32 33; do python experiments/judgefree.py --first-seed $seed --seeds 1 & done
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from recorded import append, as_read, changed, whole_rows
from selfplay import pictures

from toolroll.errors import RowError
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.load import find_model, fingerprint
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures
from toolroll.models.vision import load_image_text
from toolroll.preference.deciding import sides
from toolroll.preference.decision import OnNegative, Rules, decide, swapped
from toolroll.preference.foreign import answered
from toolroll.preference.mentions import Scenes, Sums, compared
from toolroll.preference.texts import text_of
from toolroll.run.seeds import record_seed
from toolroll.train.dpo import PairUpdate, references_of
from toolroll.train.options import TrainOptions
from toolroll.train.pairs import Encoded, Encoder
from toolroll.train.preference import Preference
from toolroll.train.setup import open_trainer
from toolroll.world.questions import DESCRIBE

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "judgefree.jsonl"
FIRST_SEED = 31  #: the plan was chosen on others
Fields = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """What is rejected, what the encoder's scores decide, and the share of pairs that are turned round on purpose."""

    check: OnNegative
    rejected: str = "mixed"
    swapped: float = 0.0


ARMS = {
    "unchecked": Arm("keep"),
    "filter": Arm("drop"),
    "reverse": Arm("reverse"),
    "random": Arm("keep", "random"),
    "dropout": Arm("keep", "dropout"),
    "swapped": Arm("keep", swapped=0.2),
    "swapped-reverse": Arm("reverse", swapped=0.2),
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all arms and seeds."""

    scenes: int = 320  #: pictures, and pairs before the check
    held_out: int = 120
    size: str = "128x96"
    tokens: int = 100  #: longest caption
    h: str = "normal:0.5,0.15"
    temperature: float = 1.0
    margin: float = 0.0
    thinned: float = 0.3  #: share of the words that caption dropout leaves out
    updates: int = 60
    batch: int = 16
    beta: float = 0.1
    rate: float = 3e-5
    examine_every: int = 20  #: updates
    margins: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)  #: of the planted test, in 100 times the cosine


QUICK = Plan(
    scenes=8, held_out=2, size="64x48", tokens=12, updates=2, batch=4, rate=1e-3, examine_every=1, margins=(0.0, 5.0)
)


# --- pairs


def rows_of(lines: Sequence[bytes]) -> list[Fields]:
    """Pictures as rows: what is asked about them, and what they show."""
    rows = map(json.loads, lines)
    return [
        {"id": row["id"], "images": [row["original"]], "prompt": DESCRIBE, "scene": row["original_scene"]}
        for row in rows
    ]


def scored_pairs(folder: Path, train: Sequence[Fields], plan: Plan, model: str, clip: str, seed: int) -> list[Fields]:
    """Pairs about pictures with both scores, as judgefree-pairs makes them; made once for all arms of a seed."""
    about = [plan.scenes, plan.size, plan.tokens, plan.h, plan.temperature, seed, *map(weights_of, (model, clip))]
    key = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    asked, made = folder / f"asked-{plan.size}-{plan.scenes}.jsonl", folder / f"pairs-{key}.jsonl"
    with open(folder / f"pairs-{key}.lock", "w") as lock:  # several arms may begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            asked.write_text("".join(json.dumps(row) + "\n" for row in train))
            settings = ["--stage", "generate,score", "--model", model, "--clip", clip, "--seed", str(seed)]
            settings += ["--h", plan.h, "--temperature", str(plan.temperature), "--response-tokens", str(plan.tokens)]
            settings += ["-q", "--device", "cpu", "--clip-device", "cpu", "--resume", "--no-meta", "-o", made.name]
            command = [str(Path(sys.executable).with_name("judgefree-pairs")), asked.name, *settings]
            subprocess.run(command, cwd=folder, check=True, env={**os.environ, "SLURM_CPUS_PER_TASK": "1"})
    return [json.loads(line) for line in made.read_text().splitlines()]


def weights_of(name: str) -> str:
    """What tells a model's weights from others."""
    return fingerprint(Path(find_model(name, lambda _: None)) / "model.safetensors")


def pairs_of(arm: Arm, rows: Sequence[Fields], plan: Plan, seed: int) -> list[Fields]:
    """The pairs of an arm before the check; those that were turned round on purpose are marked `planted`."""
    draws = random.Random(seed)
    planted = set(draws.sample(range(len(rows)), round(arm.swapped * len(rows))))
    found = []
    for number, row in enumerate(rows):
        pair = dict(row)
        if arm.rejected == "random":
            pair["rejected"] = rows[(number + 1 + draws.randrange(len(rows) - 1)) % len(rows)]["chosen"]
        elif arm.rejected == "dropout":
            pair["rejected"] = answered(thinned(text_of(row["chosen"], "chosen"), plan.thinned, draws))
        found.append({**swapped(pair), "planted": True} if number in planted else {**pair, "planted": False})
    return found


def thinned(text: str, share: float, draws: random.Random) -> str:
    """A text without about this share of its words, at least one.

    >>> thinned("There is a small red cube.", 0.5, random.Random(1))
    'is a red'
    """
    words = text.split()
    gone = set(draws.sample(range(len(words)), min(len(words), max(1, round(share * len(words))))))
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def checked(pairs: Sequence[Fields], rules: Rules) -> tuple[list[Fields], dict[str, int]]:
    """The pairs that are left, as they are trained on, and how many were kept, reversed and dropped."""
    left, actions = [], Counter[str]()
    for pair in pairs:
        verdict = decide(*sides(pair), rules)
        actions[verdict.action if verdict.reason is None else f"drop ({verdict.reason})"] += 1
        if verdict.action != "drop":
            left.append(swapped(pair) if verdict.action == "reverse" else pair)
    return left, dict(sorted(actions.items()))


def truth(pair: Mapping[str, Any]) -> int:
    """Whether the better answer of a pair is truer by the scene (1), as true (0), or less true (-1): by F1."""
    found = []
    for side in ("chosen", "rejected"):
        scores = compared(Scenes(), text_of(pair[side], side), pair["scene"]["objects"]).scores()
        found.append(scores["f1"] or 0.0)
    return (found[0] > found[1]) - (found[0] < found[1])


def truths(pairs: Sequence[Fields]) -> dict[str, int]:
    """How many pairs have the truer answer as the better one, both as true, or the wrong way round."""
    counts = Counter(truth(pair) for pair in pairs)
    return {"right": counts[1], "equal": counts[0], "wrong": counts[-1]}


def planted_test(pairs: Sequence[Fields], margins: Sequence[float]) -> list[dict[str, Any]]:
    """For each margin what became of the planted pairs and of the others: of all, and of those that it is right to.

    "right" counts planted pairs whose scene says that they are the wrong way round, and others where it says they are
    not.
    """
    found = []
    for margin in margins:
        rules = Rules(keep_margin=margin, reverse_margin=margin)
        counts: dict[str, dict[str, int]] = {}
        for name, planted in (("planted", True), ("others", False)):
            own = [pair for pair in pairs if pair["planted"] == planted]
            right = [pair for pair in own if truth(pair) == (-1 if planted else 1)]
            for whose, which in ((name, own), (f"{name}, right", right)):
                counts[whose] = dict(Counter(decide(*sides(pair), rules).action for pair in which))
        found.append({"margin": margin, **counts})
    return found


# --- training


def encoded(encoder: Encoder, pairs: Sequence[Fields], folder: Path) -> list[Encoded]:
    """Pairs as token ids; those that the model has no room for are left out."""
    found = []
    for pair in pairs:
        try:
            made = encoder(pair["prompt"], pair["chosen"], pair["rejected"], images=pair["images"], folder=folder)
        except RowError:
            continue
        found.append(made)
    return found


def examined(
    engine: HFPictures, held_out: Sequence[Fields], plan: Plan, folder: Path, temperature: float
) -> dict[str, Any]:
    """Captions of pictures compared with what they show, as caption-eval --summary has it; 0 is the likeliest ones."""
    requests = [
        Request(
            [{"role": "user", "content": row["prompt"]}],
            Sampling(temperature=temperature, max_tokens=plan.tokens, seed=record_seed(0, row["id"])),
            [folder / name for name in row["images"]],
        )
        for row in held_out
    ]
    sums, words = Sums(), 0
    for row, answer in zip(held_out, engine.answer(requests), strict=True):
        if isinstance(answer, Exception):
            raise answer
        words += len(answer.text.split())
        sums.add(compared(Scenes(), answer.text, row["scene"]["objects"]))
    return {**sums.report(), "mean_words": words / len(held_out)}


def run(arm: str, seed: int, plan: Plan, model: str, clip: str, folder: Path) -> Fields:
    """One run of one arm: the row that is written."""
    started = time.monotonic()
    train, held_out = map(rows_of, pictures(folder, plan.scenes, plan.held_out, plan.size))
    before = pairs_of(ARMS[arm], scored_pairs(folder, train, plan, model, clip, seed), plan, seed)
    rules = Rules(plan.margin, plan.margin, on_negative=ARMS[arm].check)
    pairs, actions = checked(before, rules)
    trainer = open_trainer(TrainOptions(lr=plan.rate, device="cpu"), model, seed=seed)
    torch.set_num_threads(1)  # whoever opens a trainer sets them, too
    known = encoded(Encoder.of(trainer.tokenizer), pairs, folder)
    if not known:
        raise SystemExit(f"{arm} seed {seed}: no pair is left to train on")
    preference = Preference(beta=plan.beta, batch_rows=plan.batch, epochs=plan.updates)
    references = references_of(trainer, known, None, preference.micro_tokens, lambda _: None)
    update = PairUpdate(trainer, preference, known, references, seed=seed)
    frozen = load_image_text(model, replace(choose_device("cpu"), dtype="float32"))
    engine = HFPictures(replace(frozen, model=trainer.model))
    torch.set_num_threads(1)
    exams = []
    curve: dict[str, list[float]] = {"loss": [], "margin": [], "accuracy": []}
    for step in range(plan.updates + 1):
        if step % plan.examine_every == 0 or step == plan.updates:
            greedy, sampled = (examined(engine, held_out, plan, folder, heat) for heat in (0.0, plan.temperature))
            exams.append({"step": step, **greedy, "sampled": sampled})
        if step < plan.updates:
            figures = update.run(step + 1)
            for name, values in curve.items():
                values.append(round(figures[name], 5))
    return {
        "arm": arm, "seed": seed, "model": engine.name, "weights": engine.weights_id, "clip": Path(clip).name,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "n_pairs": len(known), "actions": actions, "truth_before": truths(before), "truth": truths(pairs),
        "planted": planted_test(before, plan.margins) if arm == "swapped-reverse" else None,
        "exams": exams, "curve": curve, "duration_s": round(time.monotonic() - started, 1),
        "torch": torch.__version__, "plan": asdict(plan), "how": asdict(ARMS[arm]),
    }  # fmt: skip


def missing(rows: Sequence[Mapping[str, Any]], arms: Sequence[str], seeds: Sequence[int], plan: Plan) -> Iterator[Any]:
    """Arms and seeds that have no row of this plan yet, seed by seed."""
    wanted = as_read(plan)
    there = {(row["arm"], row["seed"]) for row in rows if row["plan"] == wanted}
    yield from ((arm, seed) for seed in seeds for arm in arms if (arm, seed) not in there)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and append a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy that shows only that it runs")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--model", default="sprite", help="sprite, or a folder")
    parser.add_argument("--clip", default="glance", help="glance, or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=HERE / "out", help="where pictures and pairs are made")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan")
    options = parser.parse_args(arguments)
    plan: Plan = changed(QUICK if options.quick else Plan(), options.set)
    model, clip = (str(Path(name).resolve()) if Path(name).is_dir() else name for name in (options.model, options.clip))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for arm, seed in list(missing(whole_rows(options.out), options.arms, seeds, plan)):
        row = run(arm, seed, plan, model, clip, options.pictures)
        append(row, options.out)
        first, last = (exam["f1"] for exam in (row["exams"][0], row["exams"][-1]))
        sys.stderr.write(f"{arm} seed {seed}: {row['n_pairs']} pairs, F1 {first} to {last}, {row['duration_s']} s\n")


if __name__ == "__main__":
    main()
