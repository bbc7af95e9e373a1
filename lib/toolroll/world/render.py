"""Scenes as images: what is seen, whose each pixel is, and how much of each solid others hide.

numba is loaded, and where its cache is empty compiles for some seconds, with the first image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.world.camera import Camera
from toolroll.world.constants import COLORS, FOCAL
from toolroll.world.looks import FINISH, LAMPS, linear
from toolroll.world.scene import Scene

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Box = tuple[int, int, int, int]
KINDS = {"sphere": 0, "cylinder": 1, "cube": 2}
AROUND = {"sphere": 1.0, "cylinder": math.sqrt(2), "cube": math.sqrt(3)}  #: radius of the sphere around it, of its half


@dataclass(frozen=True)
class Owners:
    """`ids` (height, width): the solid that a pixel shows, -1 for none. `alone`: pixels that each would have alone."""

    ids: Array
    alone: Array

    @cached_property
    def seen(self) -> Array:
        """Pixels of each solid that are seen, shape (solids,)."""
        found: Array = np.bincount(self.ids.ravel() + 1, minlength=len(self.alone) + 1)[1:]
        return found

    @property
    def fractions(self) -> Array:
        """The share of each solid's pixels that others leave seen, 0 .. 1; 0 for one outside the image."""
        return self.seen / np.maximum(self.alone, 1)

    def mask(self, number: int) -> Array:
        """Which pixels show a solid, boolean (height, width)."""
        found: Array = self.ids == number
        return found

    def box(self, number: int) -> Box | None:
        """Left, top, right, bottom of a solid's pixels, the last two exclusive; None if none is seen."""
        return box_of(self.mask(number))


def box_of(mask: Array) -> Box | None:
    """Left, top, right, bottom of what is set in a mask, the last two exclusive; None for nothing.

    >>> box_of(np.array([[0, 0, 0], [0, 1, 1]]))
    (1, 1, 3, 2)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def owners(scene: Scene, width: int, height: int) -> Owners:
    """Whose each pixel is, by a ray through its middle."""
    from toolroll.world import kernel

    ids = np.empty((height, width), np.int16)
    alone = np.zeros(len(scene.solids), np.int64)
    kernel.owners(packed_solids(scene), *packed_camera(scene.camera, width, height), ids, alone)
    return Owners(ids, alone)


def render(scene: Scene, width: int, height: int) -> Array:
    """The image of a scene: sRGB, uint8 (height, width, 3)."""
    from toolroll.world import kernel

    image = np.empty((height, width, 3), np.uint8)
    lamps, spots = packed_lights(scene)
    kernel.paint(packed_solids(scene), lamps, spots, *packed_camera(scene.camera, width, height), image)
    return image


def packed_solids(scene: Scene) -> Array:
    """The solids as the ray caster takes them, float64 (solids, 15); `toolroll.world.kernel` names the columns."""
    table = np.empty((len(scene.solids), 15))
    for row, solid in zip(table, scene.solids, strict=True):
        row[0] = KINDS[solid.shape]
        row[1:4] = solid.center
        row[4] = solid.half
        row[5:7] = math.cos(solid.rotation), math.sin(solid.rotation)
        row[7] = solid.half * AROUND[solid.shape]
        row[8:11] = [linear(value) for value in COLORS[solid.color]]
        row[11:15] = FINISH[solid.material]
    return table


def packed_camera(camera: Camera, width: int, height: int) -> tuple[Array, Array, float]:
    """Position (3,), axes (3, 3) and focal length in pixels."""
    return np.array(camera.position), np.array(camera.axes()), FOCAL * max(width, height)


def packed_lights(scene: Scene) -> tuple[Array, Array]:
    """The lights, float64 (lights, 7), and 16 points of the disc of each, (lights, 16, 3).

    The discs face the origin. The points are a 4 x 4 grid laid on the disc, in such an order that each four with the
    same remainder by 4 are spread over it.
    """
    lamps = np.empty((len(LAMPS), 7))
    spots = np.empty((len(LAMPS), 16, 3))
    for number, (name, (red, green, blue, radius)) in enumerate(LAMPS.items()):
        place = scene.lights[name]
        lamps[number] = (*place, red, green, blue, radius)
        right, up, _ = Camera(place, (0.0, 0.0, 0.0)).axes() if math.hypot(*place[:2]) else _SIDEWAYS
        for spot, (u, v) in enumerate(_DISC):
            spots[number, spot] = np.array(place) + radius * (u * np.array(right) + v * np.array(up))
    return lamps, spots


def _disc() -> list[tuple[float, float]]:
    """16 points of the unit disc: the middles of a 4 x 4 grid's cells, pressed into the disc."""
    found = []
    for spot in range(16):
        group, turn = spot % 4, spot // 4
        column, row = 2 * (turn % 2) + group % 2, 2 * (turn // 2) + group // 2
        u, v = (column + 0.5) / 2 - 1, (row + 0.5) / 2 - 1
        found.append((u * math.sqrt(1 - v * v / 2), v * math.sqrt(1 - u * u / 2)))
    return found


_DISC = _disc()
_SIDEWAYS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))  #: axes of a light straight above the origin
