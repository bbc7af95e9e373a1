"""Scenes of coloured shapes on noise, drawn without end: what a model can only name by its prompt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.run.seeds import record_seed
from toolroll.segment.prompts import Prompts
from toolroll.segment.scenes import Scene, Segment

COLOURS = {
    "red": (210, 40, 40),
    "green": (50, 170, 60),
    "blue": (50, 80, 210),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 180),
    "orange": (240, 140, 40),
}
SHAPES = ("circle", "square", "triangle", "star")
#: Pairs that `held_out` leaves for the test: each colour and shape is also seen in others.
HELD_OUT = ("red star", "green square", "blue triangle", "yellow circle", "purple square", "orange triangle")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
LEAST = 12  #: pixels of an object that are to be seen


class Shapes:
    """Scenes of `objects` shapes of different names at random places; later ones hide earlier ones."""

    def __init__(self, seed: int, width: int, height: int, *, objects: int = 8, held_out: str = "without") -> None:
        self.seed, self.width, self.height, self.objects = seed, width, height, objects
        self.classes: Prompts = tuple((name,) for name in NAMES)
        self.size: int | None = None
        self._rare = {"keep": (), "without": HELD_OUT, "only": HELD_OUT}[held_out]
        self._only = held_out == "only"

    def path(self, number: int) -> str:
        """What a file of the image may be called."""
        return f"shapes-{self.seed}-{number:06d}.png"

    def scene(self, number: int) -> Scene:
        """The scene of this number: the same for the same seed and settings."""
        draws = np.random.default_rng(record_seed(self.seed, "shapes", number))
        common = [name for name in NAMES if name not in self._rare]
        names = list(draws.permutation(common)[: self.objects])
        if self._only:
            names[int(draws.integers(len(names)))] = str(draws.choice(HELD_OUT))
        base = draws.uniform(60, 200, 3)
        image = np.clip(base + draws.normal(0, 25, (self.height, self.width, 3)), 0, 255)
        owners = np.full((self.height, self.width), -1)
        for place, name in enumerate(names):
            mask = self._drawn(draws, str(name).split()[1])
            colour = np.array(COLOURS[str(name).split()[0]]) * draws.uniform(0.8, 1.1)
            image[mask] = np.clip(colour + draws.normal(0, 8, (int(mask.sum()), 3)), 0, 255)
            owners[mask] = place
        segments = [
            Segment(str(name), mask) for place, name in enumerate(names) if (mask := owners == place).sum() >= LEAST
        ]
        return Scene(f"shapes-{self.seed}-{number:06d}", image.astype(np.uint8), tuple(segments))

    def _drawn(self, draws: Any, shape: str) -> NDArray[np.bool_]:
        """A shape somewhere, turned somehow, [H, W]."""
        side = min(self.width, self.height)
        radius = draws.uniform(0.12, 0.22) * side
        x, y = (draws.uniform(radius, one - radius) for one in (self.width, self.height))
        rows, columns = np.mgrid[: self.height, : self.width]
        across, down = columns + 0.5 - x, rows + 0.5 - y
        if shape == "circle":
            circle: NDArray[np.bool_] = across**2 + down**2 <= radius**2
            return circle
        turn = draws.uniform(0, 2 * math.pi)
        points = {"square": 4, "triangle": 3, "star": 10}[shape]
        angles = turn + np.arange(points) * 2 * math.pi / points
        radii = np.where(np.arange(points) % 2 == 0, radius * 1.15, radius * 0.5) if shape == "star" else radius * 1.15
        return _inside(across, down, np.cos(angles) * radii, np.sin(angles) * radii)


def _inside(
    across: NDArray[np.float64], down: NDArray[np.float64], xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points lie in a polygon, by the crossings of a ray."""
    inside = np.zeros(across.shape, bool)
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > down) != (y1 > down)
        inside ^= crosses & (across < (x1 - x0) * (down - y0) / (y1 - y0) + x0)
    return inside
