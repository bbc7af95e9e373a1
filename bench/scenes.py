"""What a scene costs: the ray caster, and the same formulas in vectorised numpy.

python bench/scenes.py [--scenes 40] [--json FILE]

Scenes have six objects and 2 x 2 rays a pixel. Both draw on one core; compiling and loading are not counted, nor is
numpy's time for more than a few scenes. The last rows are whole pairs: drawing two scenes by the rules, an edit, the
checks, two images and their PNGs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import common

from toolroll.world.draws import Draws
from toolroll.world.edits import KINDS
from toolroll.world.images import png
from toolroll.world.pairs import SceneRules, made_pair
from toolroll.world.place import drawn_scene
from toolroll.world.plain import plain_render
from toolroll.world.render import render

SIZES = ((96, 72), (320, 240))
FEW = 3  #: scenes for what is slow


def seconds(function: Callable[[Any], Any], over: list[Any]) -> float:
    """CPU seconds of the function for one of these, in the best of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for one in over:
            function(one)
        rounds.append((time.process_time() - start) / len(over))
    return min(rounds)


def records(count: int) -> Iterator[dict[str, Any]]:
    """A row for each way of drawing at each size."""
    for width, height in SIZES:
        scenes = [drawn_scene(Draws(seed), 6, width, height) for seed in range(count)]
        rules = SceneRules(width, height)

        def whole(seed: int, width: int = width, height: int = height, rules: SceneRules = rules) -> None:
            pair = made_pair(
                lambda draws: drawn_scene(draws, 6, width, height),
                "replace2",
                KINDS["replace2"],
                Draws(seed),
                rules,
                scenes=40,
            )
            png(pair.original)
            png(pair.modified)

        plain_s = seconds(lambda scene, w=width, h=height: plain_render(scene, w, h), scenes[:FEW])
        ours_s = seconds(lambda scene, w=width, h=height: render(scene, w, h), scenes)
        whole(0)
        for what, one_s in (
            ("numpy", plain_s),
            ("toolroll", ours_s),
            ("toolroll, a pair", seconds(whole, list(range(max(2, count // 4))))),
        ):
            yield {
                "what": f"{what}, {width}x{height}",
                "ms": one_s * 1e3,
                "a second and core": 1 / one_s,
                "numpy is times": plain_s / one_s if "pair" not in what else None,
            }


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All records."""
    render(drawn_scene(Draws(0), 2, 64, 48), 64, 48)  # compiles, or loads what was compiled
    return list(records(arguments.scenes))


if __name__ == "__main__":
    common.run("What a scene costs.", measure, ("--scenes", {"type": int, "default": 40}))
