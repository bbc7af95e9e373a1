"""Random scenes by CLEVR's rules: how objects are drawn, and how far they keep from each other."""

from __future__ import annotations

import math

from toolroll.errors import ToolrollError
from toolroll.world.camera import Camera, Point
from toolroll.world.constants import (
    CAMERA,
    CAMERA_JITTER,
    COLORS,
    LIGHT_JITTER,
    LIGHTS,
    MARGIN,
    MATERIALS,
    MIN_DIST,
    REACH,
    RETRIES,
    SHAPES,
    SIZES,
    least_pixels,
)
from toolroll.world.draws import Draws
from toolroll.world.scene import RELATIONS, Scene, Solid, half_height

RESTARTS = 2_000  #: of placing all objects, until they are too many


def jittered(place: Point, draws: Draws, size: float) -> Point:
    """A point near another, each coordinate moved by less than `size`."""
    x, y, z = place
    return x + draws.around(size), y + draws.around(size), z + draws.around(size)


def empty_scene(draws: Draws, *, camera_jitter: float = CAMERA_JITTER, light_jitter: float = LIGHT_JITTER) -> Scene:
    """A place without objects: a camera and lights near CLEVR's own."""
    camera = Camera(jittered(CAMERA, draws, camera_jitter))
    return Scene((), camera, {name: jittered(place, draws, light_jitter) for name, place in LIGHTS.items()})


def drawn_solid(draws: Draws, size: str, x: float, y: float, cube_ratio: float) -> Solid:
    """A solid of this size and place; its shape, colour, rotation and material are drawn."""
    shape, color = draws.pick(SHAPES), draws.pick(tuple(COLORS))
    rotation, material = draws.uniform(0.0, 360.0), draws.pick(MATERIALS)
    return Solid(shape, size, color, material, x, y, rotation, half_height(shape, size, cube_ratio))


def fits(scene: Scene, x: float, y: float, size: str, *, but: int | None = None) -> bool:
    """Whether a solid of this size may stand at (x, y), by CLEVR's rules; solid `but` is not looked at.

    The circles around the bases keep `MIN_DIST` apart, the centres `MARGIN` along each of the four directions.
    """
    directions = [scene.along()[name] for name in RELATIONS]
    for number, other in enumerate(scene.solids):
        if number == but:
            continue
        dx, dy = x - other.x, y - other.y
        if math.hypot(dx, dy) - SIZES[size] - SIZES[other.size] < MIN_DIST:
            return False
        if any(0 < dx * along[0] + dy * along[1] < MARGIN for along in directions):
            return False
    return True


def free_place(scene: Scene, size: str, draws: Draws, *, but: int | None = None) -> tuple[float, float] | None:
    """A place where a solid of this size may stand; None if `RETRIES` tries find none."""
    for _ in range(RETRIES):
        x, y = draws.around(REACH), draws.around(REACH)
        if fits(scene, x, y, size, but=but):
            return x, y
    return None


def drawn_scene(draws: Draws, count: int, width: int, height: int, **jitter: float) -> Scene:
    """A scene of `count` objects that are all seen in an image of this size.

    Raises ToolrollError when there is no room for so many.
    """
    from toolroll.world.render import owners

    base = empty_scene(draws, **jitter)
    for _ in range(RESTARTS):
        scene = _filled(base, draws, count)
        if scene is not None and owners(scene, width, height).seen.min() >= least_pixels(width, height):
            return scene
    raise ToolrollError(f"found no room for {count} objects that are all seen")


def _filled(scene: Scene, draws: Draws, count: int) -> Scene | None:
    while len(scene.solids) < count:
        size = draws.pick(tuple(SIZES))
        place = free_place(scene, size, draws)
        if place is None:
            return None
        scene = scene.with_solids([*scene.solids, drawn_solid(draws, size, *place, scene.cube_ratio)])
    return scene
