"""3D Gaussians on a CPU: what draws them, what else a step costs, and what a scene is like after some hundred steps.

    python bench/splat.py [--rounds 5] [--count 20000] [--steps 600] [--json FILE]

Drawing: 20,000 of the points of the plush doll as Gaussians, 480 x 270 pixels, there (project and blend) and back
(gradients), in two states: as training begins (opacity .1), and as if in its middle (opacities .05 to .95, smaller).
The peer is the definition in torch, by tiles of 16 x 16 as well, with autograd. CPU time of one thread, best round; two
threads by the wall clock, and beside them what two processes get done that share nothing but the machine. A step: the
whole of it, on a photo of this size, and how much of it is not drawing.
A scene: nvs-train on the doll's photos of 252 x 189, scored on the 13 that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import common
import torch
from common import Line

from toolroll.splat.finding import open_scene
from toolroll.splat.fit import Fit, Recipe, View, begun
from toolroll.splat.frame import frame_of
from toolroll.splat.gaussians import Eye, Gaussians, Manner
from toolroll.splat.growth import Growth
from toolroll.splat.lenses import scaled, straightened
from toolroll.splat.on_numba import NumbaRasterizer
from toolroll.splat.on_torch import TorchRasterizer
from toolroll.splat.rasterizer import Rasterizer

PLUSH = common.ROOT / "tests" / "data" / "plush"
WIDTH, HEIGHT = 480, 270


def scene_of(count: int) -> tuple[Gaussians, Eye]:
    """Gaussians on the points of the doll, and a camera."""
    scene = open_scene(PLUSH)
    frame = frame_of([shot.pose for shot in scene.shots])
    shot = scene.shots[10]
    lens = straightened(shot.lens)
    wide = scaled(lens, WIDTH, round(WIDTH * lens.height / lens.width))
    eye = frame.eye(shot.pose, replace(wide, height=HEIGHT, cy=wide.cy - (wide.height - HEIGHT) / 2))
    random = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(scene.points), generator=random)[:count]
    places = frame.inward(scene.points.places)[chosen]
    colours = torch.from_numpy(scene.points.colours)[chosen].float() / 255
    return begun(places, colours, opacity=0.1, size=1.0, degree=1, random=random), eye


def later(start: Gaussians) -> Gaussians:
    """The Gaussians as they may be in the middle of a training."""
    random = torch.Generator().manual_seed(1)
    opacities = 0.05 + 0.9 * torch.rand(len(start), generator=random)
    return replace(start, logits=opacities.logit(), scales=start.scales + torch.tensor(0.7).log())


def there_and_back(
    rasterizer: Rasterizer, gaussians: Gaussians, eye: Eye, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds to draw, and for the gradients."""
    names = ("means", "quats", "scales", "logits", "sh")
    leaves = Gaussians(*(getattr(gaussians, name).clone().requires_grad_() for name in names))
    start = clock()
    flat = rasterizer.project(leaves, eye, Manner())
    image, _ = rasterizer.blend(flat, eye.width, eye.height, torch.zeros(3))
    middle = clock()
    image.backward(torch.ones_like(image))
    return middle - start, clock() - middle


def best(make: Callable[[], tuple[float, float]], rounds: int) -> tuple[float, float]:
    """The least of each of the two, after a round that does not count."""
    found = [make() for _ in range(rounds + 1)][1:]
    return min(one for one, _ in found), min(other for _, other in found)


def alone(count: int, rounds: int, state: str) -> None:
    """Draw over and over with one thread, from when a line comes in; prints seconds a picture."""
    start, eye = scene_of(count)
    gaussians = start if state == "first" else later(start)
    torch.set_num_threads(1)
    there_and_back(NumbaRasterizer(), gaussians, eye, time.perf_counter)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for _ in range(rounds):
        there_and_back(NumbaRasterizer(), gaussians, eye, time.perf_counter)
    print((time.perf_counter() - began) / rounds)


def together(count: int, rounds: int, state: str) -> float:
    """Pictures a second of two processes that draw at the same time."""
    argv = [sys.executable, "-c", f"import splat; splat.alone({count}, {rounds}, {state!r})"]
    both = [
        subprocess.Popen(argv, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        one.stdout.readline()  # type: ignore[union-attr]
    for one in both:
        one.stdin.write("\n")  # type: ignore[union-attr]
        one.stdin.flush()  # type: ignore[union-attr]
    return sum(1 / float(one.communicate()[0]) for one in both)


def drawing(count: int, rounds: int) -> list[Line]:
    """The table's first part."""
    start, eye = scene_of(count)
    lines = []
    for state, gaussians in (("first", start), ("middle", later(start))):
        torch.set_num_threads(1)
        ours = best(lambda g=gaussians: there_and_back(NumbaRasterizer(), g, eye, time.process_time), rounds)
        peer = best(lambda g=gaussians: there_and_back(TorchRasterizer(), g, eye, time.process_time), 1)
        single = best(lambda g=gaussians: there_and_back(NumbaRasterizer(), g, eye, time.perf_counter), rounds)
        torch.set_num_threads(2)
        both = best(lambda g=gaussians: there_and_back(NumbaRasterizer(), g, eye, time.perf_counter), rounds)
        torch.set_num_threads(1)
        apart = together(count, 4 * rounds, state)
        lines += [
            Line(f"drawing, {state}", "pictures/CPU s", 1 / sum(ours), "torch", 1 / sum(peer)),
            Line(f"drawing with two threads, {state}", "pictures/wall s", 1 / sum(both), "one thread", 1 / sum(single)),
            Line(f"two processes at once, {state}", "pictures/wall s", apart, "one thread", 1 / sum(single)),
        ]
    return lines


def stepping(count: int, rounds: int) -> list[Line]:
    """How much of a step is not drawing."""
    start, eye = scene_of(count)
    gaussians = later(start)
    torch.set_num_threads(1)
    truth = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(2))
    still = Recipe(steps=1000, degree=1, degree_every=1, growth=Growth(kind="none"))
    fit = Fit(gaussians, 1.1, [View("", eye, truth)], still, NumbaRasterizer(), 0)
    steps = fit.steps()
    spent = []
    for _ in range(rounds + 1):
        began = time.process_time()
        next(steps)
        spent.append(time.process_time() - began)
    ours = best(lambda: there_and_back(NumbaRasterizer(), gaussians, eye, time.process_time), rounds)
    whole = min(spent[1:])
    parts = {"drawing": ours[0], "gradients of the drawing": ours[1], "not drawing": whole - sum(ours)}
    return [
        Line(f"a step: {name}", "CPU ms", 1e3 * seconds, "all of it", 1e3 * whole) for name, seconds in parts.items()
    ]


def trained(steps: int) -> list[Line]:
    """The doll after so many steps."""
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.jsonl"
        argv = [common.BIN / "nvs-train", PLUSH, "--images", "images_16", "--steps", steps, "--sh-degree", 1]
        argv += ["--seed", 42, "--cap", 30000, "--device", "cpu", "--out", Path(name) / "out", "-o", rows, "-q"]
        used = common.cost(argv, runs=1)
        row = json.loads(rows.read_text().splitlines()[-1])
    about = f"plush, {steps} steps"
    return [
        Line(about, "PSNR, dB", row["psnr_db"]),
        Line(about, "SSIM", row["ssim"]),
        Line(about, "CPU s", used.cpu_s),
        Line(about, "Gaussians", row["n_gaussians"]),
        Line(about, "MB at most", used.rss_mb),
    ]


def measure(asked: argparse.Namespace) -> list[Line]:
    """All lines."""
    return [*drawing(asked.count, asked.rounds), *stepping(asked.count, asked.rounds), *trained(asked.steps)]


if __name__ == "__main__":
    common.run(__doc__, measure, rounds=5, count=20_000, steps=600)
