"""A network that draws scenes it was not trained on: does it help to have seen more scenes?

The pilot of DL3DV-10K in miniature. IBRNet, with a narrow trunk and coarse samples alone, is trained on 0 (from
scratch), 2, 8 or 24 drawn scenes, the same number of steps on each number of them; those of 2 are among those of 8, and
these among those of 24. Then all are trained alike, on a mix of two other drawn scenes, as the pilot fine-tunes all on
IBRNet's own data. Measured are photos of scenes that nothing was trained on, drawn ones and a real one (--real DIR; not
measured without it), before the mix and after it; and of the real one after as many steps on its own other photos.

A drawn scene has its own things, number of photos and lens. A seed has its own scenes to train on, and its own weights
to begin with; what is measured on is the same for all.

Rows go to a file, one for each number of scenes and seed. A row that is there is not made again, and a run that was
stopped goes on where it was.

    python experiments/ibrnet.py --real tests/data/plush [--images images_16] [--seeds 3]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recorded import append, as_read, changed, whole_rows

from toolroll.run.seeds import record_seed
from toolroll.splat.drawn import BENDS, write_scene
from toolroll.splat.finding import open_scene
from toolroll.splat.ibrnet_fit import IbrRecipe
from toolroll.splat.ibrnet_scenes import IbrScene
from toolroll.splat.ibrnet_training import (
    IbrAbout,
    IbrOpened,
    IbrTraining,
    begun,
    means_of,
    open_ibrnet,
    score_of,
    spread,
)
from toolroll.splat.scene import Scene, Shot
from toolroll.splat.splitting import part_shots

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ibrnet.jsonl"
COUNTS = (0, 2, 8, 24)
FIRST_SEED = 1
SAVED = 500  #: steps from one checkpoint to the next
TESTED = 900_000  #: seed of the first drawn scene that is measured on
Row = dict[str, Any]
Parted = tuple[Scene, Sequence[Shot]]


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all numbers of scenes and seeds."""

    steps: int = 3500  #: on the scenes that are counted
    tuned: int = 400  #: on the mix, and on the real scene
    mix: int = 2
    tested: int = 4  #: drawn scenes
    photos: int = 2  #: of each that are measured; twice as many of the real one
    size: tuple[int, int] = (96, 64)
    shots: tuple[int, int] = (10, 16)  #: of a drawn scene, at least and at most
    side: int = 96
    width: int = 8
    views: int = 4
    samples: int = 32
    rays: int = 96
    rate: float = 2e-3  #: of the trunk; half of it along rays; both are halved after each fifth of a training
    tuned_rate: float = 1e-3

    def recipe(self, steps: int, rate: float, start: str = "") -> IbrRecipe:
        """The settings of a training of so many steps."""
        return IbrRecipe(
            steps, self.width, self.views, self.samples, 0, self.rays, self.side, rate, rate / 2, -(-steps // 5), start
        )


QUICK = Plan(
    steps=3, tuned=2, mix=1, tested=1, photos=1, size=(36, 24), shots=(6, 7), width=2, views=3, samples=6, rays=8
)


# --- scenes


def drawn(folder: Path, plan: Plan, seed: int) -> Parted:
    """The drawn scene of a seed; made where it is not there yet."""
    draws = np.random.default_rng(record_seed(seed, "layout") % 2**63)
    shots, lens = int(draws.integers(plan.shots[0], plan.shots[1] + 1)), draws.choice(list(BENDS))
    wide, high = plan.size
    root = folder / f"{wide}x{high}-{plan.shots[0]}-{plan.shots[1]}" / f"{seed}"
    if not (root / "transforms.json").exists():  # which is written last
        write_scene(root, shots=shots, size=plan.size, lens=lens, seed=seed)
    scene = open_scene(root)
    return scene, part_shots(scene.shots, "every:4")[0]


def real_scene(folder: Path, images: str | None) -> Parted:
    """A scene of photos, each eighth tested."""
    scene = open_scene(folder, images=images)
    return scene, part_shots(scene.shots, "every:8")[0]


def measured(opened: IbrOpened, scene: IbrScene, photos: int) -> list[tuple[float, float | None]]:
    """PSNR and SSIM of pictures of photos that are tested."""
    looks = [scene.test[number] for number in spread(len(scene.test), photos)]
    return [score_of(opened.draw(scene, look.eye).numpy(), look) for look in looks]


# --- runs


class Runs:
    """What all runs have: a plan, where things are made, and what is measured on."""

    def __init__(self, plan: Plan, work: Path, real: Path | None, images: str | None) -> None:
        self.plan, self.work = plan, work
        key = hashlib.blake2b(json.dumps(asdict(plan)).encode(), digest_size=6).hexdigest()
        self.models, self.scenes = work / f"models-{key}", work / "scenes"
        self.real = None if real is None else real_scene(real, images)
        tested = [drawn(self.scenes, plan, TESTED + number) for number in range(plan.tested)]
        self._drawn = [IbrScene(*one, side=plan.side) for one in tested]
        self._real = None if self.real is None else IbrScene(*self.real, side=plan.side)

    def scores(self, opened: IbrOpened) -> Row:
        """Means over the photos of each scene, then over scenes: of those that are drawn, and of the real one."""
        each = [means_of(measured(opened, scene, self.plan.photos)) for scene in self._drawn]
        return {"drawn": means_of([(one["psnr_db"], one["ssim"]) for one in each]), "real": self.real_scores(opened)}

    def real_scores(self, opened: IbrOpened) -> Row | None:
        """Means over the photos of the real scene, if there is one."""
        return None if self._real is None else means_of(measured(opened, self._real, 2 * self.plan.photos))

    def trained(self, name: str, scenes: Sequence[Parted], recipe: IbrRecipe, seed: int) -> IbrOpened:
        """The network after a training, which is made, or gone on with, in a folder of its own."""
        folder = self.models / name
        training = IbrTraining(scenes, recipe, folder, seed=seed, device="cpu")
        settings = {"recipe": as_read(recipe), "seed": seed}
        training.resume(settings, frozenset(settings), tell)
        for row in training.rows(lambda: False, report_every=SAVED, eval_every=0, save_every=SAVED, last=recipe.steps):
            tell(f"{name} {row['step']} loss {row['loss']:.5f}")
        return open_ibrnet(folder)

    def run(self, count: int, seed: int) -> Row:
        """Train on so many scenes, then on the mix, and measure: the row that is written."""
        plan, started, name = self.plan, time.process_time(), f"{count}-{seed}"
        first = plan.recipe(plan.steps, plan.rate)
        if count:
            scenes = [wholly(drawn(self.scenes, plan, 1000 * seed + number)) for number in range(count)]
            opened = self.trained(f"{name}-pre", scenes, first, seed)
            start = str(self.models / f"{name}-pre")
        else:
            opened, start = new(first, seed), ""
        scores = {"before": self.scores(opened)}
        mix = [wholly(drawn(self.scenes, plan, 1000 * seed + 500 + number)) for number in range(plan.mix)]
        after = plan.recipe(plan.tuned, plan.tuned_rate, start)
        scores["mix"] = self.scores(self.trained(f"{name}-mix", mix, after, seed))
        if self.real is not None:
            scene, shots = self.real
            kept = [(scene, [shot for shot in shots if shot.part == "train"])]
            scores["own"] = {"real": self.real_scores(self.trained(f"{name}-own", kept, after, seed))}
        return {
            "scenes": count, "seed": seed, "plan": as_read(plan), "real": self.real and self.real[0].root.name,
            "parameters": sum(part.numel() for part in opened.model.parameters()), "scores": scores,
            "cpu_s": round(time.process_time() - started, 1), "torch": torch.__version__,
        }  # fmt: skip


def wholly(scene: Parted) -> Parted:
    """A scene all of whose photos are trained on."""
    return scene[0], [replace(shot, part="train") for shot in scene[1]]


def new(recipe: IbrRecipe, seed: int) -> IbrOpened:
    """The network that training from scratch begins with."""
    model, settled = begun(recipe, seed)
    about = IbrAbout(model.shape, settled.views, settled.samples, settled.fine or 0, settled.side)
    return IbrOpened(model.eval(), about)


def missing(
    rows: Sequence[Mapping[str, Any]], runs: Runs, counts: Sequence[int], seeds: Sequence[int]
) -> Iterator[Any]:
    """Numbers of scenes and seeds that have no row of this plan yet, seed by seed."""
    about = as_read(runs.plan), runs.real and runs.real[0].root.name
    there = {(row["scenes"], row["seed"]) for row in rows if (row["plan"], row["real"]) == about}
    yield from ((count, seed) for seed in seeds for count in counts if (count, seed) not in there)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and append a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy that shows only that it runs")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="scenes to train on")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--real", type=Path, metavar="DIR", help="a scene of photos")
    parser.add_argument("--images", metavar="NAME", help="the folder of its photos, as images_16")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=HERE / "out" / "ibrnet", help="scenes and models, to go on from")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.real is None:
        tell("no --real: nothing real is measured")
    runs = Runs(changed(QUICK if options.quick else Plan(), options.set), options.work, options.real, options.images)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for count, seed in list(missing(whole_rows(options.out), runs, options.counts, seeds)):
        row = runs.run(count, seed)
        append(row, options.out)
        tell(f"{count} scenes, seed {seed}: {row['scores']['mix']['drawn']['psnr_db']:.2f} dB, {row['cpu_s']} CPU s")


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
