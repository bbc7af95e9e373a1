"""What is in a scene: solids on the ground, a camera, three lights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from toolroll.world.camera import Camera, Point
from toolroll.world.constants import LIGHTS, RELATION_EPS, SIZES

RELATIONS = ("left", "right", "front", "behind")
CUBE_RATIO = 1 / math.sqrt(2)  #: half edge of a cube over the radius of its size, so that its base is in the circle


@dataclass(frozen=True, slots=True)
class Solid:
    """A cube, sphere or upright cylinder that stands on the ground at (x, y).

    `rotation` is about the vertical, in the unit of CLEVR's files: a number from 0 to 360 that its renderer takes as
    radians. `half` is half its height: the radius of a sphere, half the edge of a cube, radius and half height of a
    cylinder.
    """

    shape: str
    size: str
    color: str
    material: str
    x: float
    y: float
    rotation: float
    half: float

    @property
    def center(self) -> Point:
        """The point its pixel_coords are of."""
        return self.x, self.y, self.half

    @property
    def radius(self) -> float:
        """Of the circle around its base, which decides how near others may come."""
        return self.half / CUBE_RATIO if self.shape == "cube" else self.half

    @property
    def looks(self) -> tuple[str, str, str, str]:
        """Size, colour, material and shape."""
        return self.size, self.color, self.material, self.shape

    def but(self, *, cube_ratio: float = CUBE_RATIO, **changes: Any) -> Solid:
        """This solid with other attributes, on the ground as before."""
        changed = replace(self, **changes)
        return replace(changed, half=half_height(changed.shape, changed.size, cube_ratio))


def half_height(shape: str, size: str, cube_ratio: float = CUBE_RATIO) -> float:
    """Half the height of a solid, in units.

    >>> half_height("sphere", "large"), round(half_height("cube", "large"), 4)
    (0.7, 0.495)
    """
    return SIZES[size] * (cube_ratio if shape == "cube" else 1.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """Solids, the camera that sees them and where the lights are.

    `directions` are those along which relations are told; the camera's own if there are none. `cube_ratio` is half
    the edge of a cube over the radius of its size: 1/sqrt 2 in CLEVR's released generator, 1 in CLEVR v1.0's files.
    """

    solids: tuple[Solid, ...]
    camera: Camera = field(default_factory=Camera)
    lights: dict[str, Point] = field(default_factory=lambda: dict(LIGHTS))
    directions: dict[str, Point] | None = None
    cube_ratio: float = CUBE_RATIO

    def along(self) -> dict[str, Point]:
        """The directions along which relations are told."""
        return self.directions or self.camera.directions()

    def with_solids(self, solids: list[Solid] | tuple[Solid, ...]) -> Scene:
        """The same place with other solids."""
        return replace(self, solids=tuple(solids))

    def relationships(self) -> dict[str, list[list[int]]]:
        """For each relation and each solid the numbers of those that stand so to it: `left[i]` are left of i.

        j is left of i if (p_j - p_i).left > 0.2, with centres in all three dimensions, as in CLEVR.
        """
        directions = self.along()
        return {
            name: [
                [j for j, other in enumerate(self.solids) if j != i and _far(one, other, directions[name])]
                for i, one in enumerate(self.solids)
            ]
            for name in RELATIONS
        }


def _far(one: Solid, other: Solid, direction: Point) -> bool:
    offset = (b - a for a, b in zip(one.center, other.center, strict=True))
    return sum(a * b for a, b in zip(offset, direction, strict=True)) > RELATION_EPS


def overlapping(scene: Scene) -> list[tuple[int, int]]:
    """The pairs of solids that surely overlap: the circles within their bases do."""
    found = []
    for i, one in enumerate(scene.solids):
        for j, other in enumerate(scene.solids[:i]):
            if math.hypot(one.x - other.x, one.y - other.y) < one.half + other.half:
                found.append((j, i))
    return found
