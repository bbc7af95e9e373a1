"""What a scene costs: the ray caster, and the same formulas in vectorised numpy.

    python bench/scenes.py [--scenes 40] [--rounds 3] [--json FILE]

Scenes have six objects and 2 x 2 rays a pixel. Both draw on one core; compiling and loading are not counted. numpy
draws the first few only. A pair is two scenes drawn by the rules, an edit, the checks, two images and their PNGs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import common
from common import Line

from toolroll.world.draws import Draws
from toolroll.world.edits import KINDS
from toolroll.world.images import png
from toolroll.world.pairs import SceneRules, made_pair
from toolroll.world.place import drawn_scene
from toolroll.world.plain import plain_render
from toolroll.world.render import render

SIZES = ((96, 72), (320, 240))
FEW = 3  #: scenes for what is slow


def measure(arguments: argparse.Namespace) -> list[Line]:
    """All lines."""
    return [line for size in SIZES for line in lines(*size, arguments.scenes, arguments.rounds)]


def lines(width: int, height: int, count: int, rounds: int) -> Iterator[Line]:
    """Scenes and pairs of a size."""
    scenes = [drawn_scene(Draws(seed), 6, width, height) for seed in range(count)]
    rules = SceneRules(width, height)

    def whole(seed: int) -> None:
        draw = partial(drawn_scene, count=6, width=width, height=height)
        pair = made_pair(draw, "replace2", KINDS["replace2"], Draws(seed), rules, scenes=40)
        png(pair.original)
        png(pair.modified)

    pairs = list(range(max(2, count // 4)))
    best = common.least(
        {
            "ours": each(lambda scene: render(scene, width, height), scenes),
            "numpy": each(lambda scene: plain_render(scene, width, height), scenes[:FEW]),
            "pairs": each(whole, pairs),
        },
        rounds,
        warm_up=False,
    )
    numpy = min(FEW, count) / best["numpy"]
    yield Line(f"scenes of {width}x{height}", "scenes/CPU s", count / best["ours"], "numpy", numpy)
    yield Line(f"pairs of {width}x{height}", "pairs/CPU s", len(pairs) / best["pairs"])


def each(function: Callable[[Any], Any], over: list[Any]) -> Callable[[], float]:
    """Times a function over all of these."""
    return common.timed(lambda: [function(one) for one in over])


if __name__ == "__main__":
    common.run(__doc__, measure, scenes=40, rounds=3)
