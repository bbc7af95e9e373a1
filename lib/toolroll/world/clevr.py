"""Scenes as CLEVR writes them in JSON, and back.

What CLEVR's files do not have is added under names of its own: `camera` and `lights` (positions), and `width` and
`height`, the image for which the pixel_coords hold. Files without them are read too: the camera is then found back
from the pixel_coords, exactly where they are CLEVR's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from toolroll.errors import RowError
from toolroll.world.camera import Camera, Point, recovered
from toolroll.world.constants import COLORS, FRAME, LIGHTS, MATERIALS, SHAPES, SIZES
from toolroll.world.scene import CUBE_RATIO, RELATIONS, Scene, Solid, half_height, overlapping

V1_FRAME = (480, 320)  #: of the images of CLEVR v1.0
FAR = 100.0  #: units; nothing that stands farther from the origin could be seen
SOUND_FIT = 2.0  #: pixels that a recovered camera may be off

Notify = Callable[[str], None]


def scene_json(scene: Scene, width: int, height: int, **more: Any) -> dict[str, Any]:
    """A scene as CLEVR writes it, for an image of this size; `more` are further fields that come first."""
    directions = scene.along()
    return {
        **more,
        "objects": [_solid_json(solid, scene, width, height) for solid in scene.solids],
        "relationships": scene.relationships(),
        "directions": {name: list(direction) for name, direction in directions.items()},
        "camera": {"position": list(scene.camera.position), "target": list(scene.camera.target)},
        "lights": {name: list(place) for name, place in scene.lights.items()},
        "width": width,
        "height": height,
    }


def _solid_json(solid: Solid, scene: Scene, width: int, height: int) -> dict[str, Any]:
    x, y, depth = scene.camera.project(solid.center, width, height)
    return {
        "shape": solid.shape,
        "size": solid.size,
        "color": solid.color,
        "material": solid.material,
        "3d_coords": list(solid.center),
        "rotation": solid.rotation,
        "pixel_coords": [round(x), round(y), depth],
    }


def scene_of(data: Any, notify: Notify = lambda _: None) -> Scene:
    """A scene out of CLEVR's JSON. Raises RowError where it is none; tells `notify` what is odd but can be drawn.

    Objects that overlap, or that the camera does not see, are odd; no objects at all, unknown colours, shapes,
    materials and sizes, and objects that do not stand on the ground are none.
    """
    if not isinstance(data, dict) or not isinstance(data.get("objects"), list):
        raise RowError("no scene: it has no list `objects`")
    if not data["objects"]:
        raise RowError("a scene without objects")
    solids = [_solid_of(part, number) for number, part in enumerate(data["objects"])]
    ratios = [solid.half / SIZES[solid.size] for solid in solids if solid.shape == "cube"]
    lights = data.get("lights", {})
    if not isinstance(lights, dict):
        raise RowError("lights is no object")
    scene = Scene(
        tuple(solids),
        _camera_of(data, solids, notify),
        {name: _point(lights.get(name, place), f"lights.{name}") for name, place in LIGHTS.items()},
        _directions_of(data),
        ratios[0] if ratios else CUBE_RATIO,
    )
    for one, other in overlapping(scene):
        notify(f"objects {one} and {other} overlap")
    return scene


def _solid_of(part: Any, number: int) -> Solid:
    place = f"object {number}"
    if not isinstance(part, dict):
        raise RowError(f"{place} is no object")
    known: dict[str, Mapping[str, Any] | tuple[str, ...]] = {
        "shape": SHAPES,
        "size": SIZES,
        "color": COLORS,
        "material": MATERIALS,
    }
    for name, values in known.items():
        value = part.get(name)
        if not isinstance(value, str) or value not in values:
            raise RowError(f"{place}: {name} is {value!r}, not one of {', '.join(values)}")
    x, y, z = _point(part.get("3d_coords"), f"{place}: 3d_coords")
    if max(abs(x), abs(y)) > FAR:
        raise RowError(f"{place} is more than {FAR:g} units away")
    shape, size = part["shape"], part["size"]
    halves = [half_height(shape, size), *([SIZES[size]] if shape == "cube" else [])]
    half = min(halves, key=lambda known_half: abs(known_half - z))
    if abs(half - z) > 0.02 * half:
        wanted = " or ".join(f"{known_half:.4g}" for known_half in halves)
        raise RowError(f"{place} does not stand on the ground: its centre is at height {z:.4g}, not {wanted}")
    rotation = part.get("rotation", 0.0)
    if not _is_number(rotation):
        raise RowError(f"{place}: rotation is no number")
    return Solid(shape, size, part["color"], part["material"], x, y, float(rotation), z)


def _camera_of(data: dict[str, Any], solids: list[Solid], notify: Notify) -> Camera:
    given = data.get("camera")
    if given is not None:
        if not isinstance(given, dict):
            raise RowError("camera is no object")
        position = _point(given.get("position"), "camera.position")
        target = _point(given.get("target", [0.0, 0.0, 0.0]), "camera.target")
        if math.dist(position[:2], target[:2]) < 1e-6:
            raise RowError("the camera looks straight down or up")
        return Camera(position, target)
    seen = [part.get("pixel_coords") for part in data["objects"]]
    if None in seen:
        return Camera()
    marks = [_point(mark, f"object {number}: pixel_coords") for number, mark in enumerate(seen)]
    camera, _, error = recovered([solid.center for solid in solids], marks, [FRAME, V1_FRAME])
    if error > SOUND_FIT:
        notify("no camera of CLEVR has seen the objects at their pixel_coords; the default camera is used")
        return Camera()
    return camera


def _directions_of(data: dict[str, Any]) -> dict[str, Point] | None:
    given = data.get("directions")
    if given is None:
        return None
    if not isinstance(given, dict) or not all(name in given for name in RELATIONS):
        raise RowError(f"directions do not have {', '.join(RELATIONS)}")
    return {str(name): _point(value, f"directions.{name}") for name, value in given.items()}


def _point(value: Any, name: str) -> Point:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        raise RowError(f"{name}: want three finite numbers")
    return float(value[0]), float(value[1]), float(value[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
