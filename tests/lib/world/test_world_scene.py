"""Where points fall in an image, CLEVR's JSON in and out, relations, and the rules of placing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.errors import RowError, ToolrollError
from toolroll.world.camera import Camera, recovered
from toolroll.world.clevr import scene_json, scene_of
from toolroll.world.constants import CAMERA, MARGIN, MIN_DIST, SIZES, least_pixels
from toolroll.world.draws import Draws
from toolroll.world.place import drawn_scene, fits
from toolroll.world.render import owners
from toolroll.world.scene import RELATIONS, Scene, Solid, half_height

CLEVR = Path(__file__).parents[2] / "data" / "clevr" / "val_000000.json"
seeds = st.integers(0, 2**40)


@pytest.fixture
def clevr():
    """A scene of CLEVR v1.0, as it is in its file."""
    return json.loads(CLEVR.read_text())


def solid(x=0.0, y=0.0, *, shape="sphere", size="large", color="red", material="rubber", rotation=0.0):
    return Solid(shape, size, color, material, x, y, rotation, half_height(shape, size))


def told(**changes):
    """A scene with one object, as JSON."""
    one = {"shape": "sphere", "size": "large", "color": "red", "material": "rubber", "3d_coords": [0, 0, 0.7]}
    return {"objects": [{**one, **changes}]}


# --- the camera


def test_a_point_falls_where_it_was_worked_out():
    camera = Camera((0.0, -10.0, 0.0), (0.0, 0.0, 0.0))  # looks along y; F = 35/32 320 = 350
    assert camera.project((0.0, 0.0, 0.0), 320, 240) == (160.0, 120.0, 10.0)
    assert camera.project((1.0, 0.0, 1.0), 320, 240) == pytest.approx((160 + 35, 120 - 35, 10.0))
    assert camera.project((-2.0, 10.0, 0.0), 320, 240) == pytest.approx((160 - 35, 120, 20.0))
    assert camera.project((1.0, 0.0, 0.0), 240, 320)[0] == pytest.approx(120 + 35)  # the longer side counts


def test_the_default_camera_sees_along_the_directions_of_clevr(clevr):
    directions = Camera().directions()
    for name, direction in clevr["directions"].items():
        assert directions[name] == pytest.approx(direction, abs=1e-6)


def test_the_camera_of_a_clevr_scene_is_found_back(clevr):
    points = [part["3d_coords"] for part in clevr["objects"]]
    seen = [part["pixel_coords"] for part in clevr["objects"]]
    camera, size, error = recovered(points, seen, [(320, 240), (480, 320)])
    assert size == (480, 320)
    assert error < 0.75
    assert math.dist(camera.position, CAMERA) < 0.5 * math.sqrt(3)  # CLEVR's jitter
    for point, (x, y, depth) in zip(points, seen, strict=True):
        found = camera.project(point, *size)
        assert abs(found[0] - x) <= 0.75
        assert abs(found[1] - y) <= 0.75
        assert found[2] == pytest.approx(depth, abs=1e-4)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_any_camera_of_ours_is_found_back(seed):
    scene = drawn_scene(Draws(seed), 4, 64, 48)
    read = scene_of({**scene_json(scene, 320, 240), "camera": None})
    assert read.camera.position == pytest.approx(scene.camera.position, abs=1e-4)


# --- CLEVR's JSON


def test_relations_are_those_of_clevr(clevr):
    found = scene_of(clevr).relationships()
    assert found == clevr["relationships"]


def test_a_clevr_scene_comes_out_as_it_went_in(clevr):
    told = []
    out = scene_json(scene_of(clevr, told.append), 480, 320)
    assert told == []
    for before, after in zip(clevr["objects"], out["objects"], strict=True):
        assert after["pixel_coords"][:2] == pytest.approx(before["pixel_coords"][:2], abs=1)
        assert after["pixel_coords"][2] == pytest.approx(before["pixel_coords"][2], abs=1e-4)
        assert {name: after[name] for name in before if name != "pixel_coords"} == {
            name: value for name, value in before.items() if name != "pixel_coords"
        }
    assert out["directions"] == clevr["directions"]


@given(seeds, st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_json_holds_all_of_a_scene(seed, count):
    scene = drawn_scene(Draws(seed), count, 64, 48)
    told = json.loads(json.dumps(scene_json(scene, 320, 240)))
    again = scene_of(told)
    assert again.solids == scene.solids
    assert again.camera == scene.camera
    assert again.lights == scene.lights
    assert again.relationships() == scene.relationships() == told["relationships"]


def test_cubes_of_clevr_v1_are_larger_than_those_of_its_generator():
    large = scene_of({"objects": [{**told()["objects"][0], "shape": "cube"}]})
    assert (large.solids[0].half, large.cube_ratio) == (0.7, 1.0)
    small = scene_of({"objects": [{**told()["objects"][0], "shape": "cube", "3d_coords": [0, 0, 0.7 / math.sqrt(2)]}]})
    assert small.cube_ratio == pytest.approx(1 / math.sqrt(2))
    assert large.solids[0].but(cube_ratio=1.0, size="small").half == 0.35


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "no list `objects`"),
        ({"objects": 3}, "no list `objects`"),
        ({"objects": []}, "without objects"),
        ({"objects": [3]}, "object 0 is no object"),
        (told(shape="cone"), "shape is 'cone', not one of cube, sphere, cylinder"),
        (told(color="pink"), "color is 'pink'"),
        (told(color=None), "color is None"),
        (told(size=0.7), "size is 0.7"),
        (told(**{"3d_coords": [0, 0]}), "three finite numbers"),
        (told(**{"3d_coords": [0, math.inf, 0.7]}), "three finite numbers"),
        (told(**{"3d_coords": [0, 0, 2.0]}), "does not stand on the ground: its centre is at height 2, not 0.7"),
        (told(**{"3d_coords": [500, 0, 0.7]}), "more than 100 units away"),
        (told(rotation="x"), "rotation is no number"),
        (told(pixel_coords=[1, "2", 3]), "pixel_coords: want three"),
        ({**told(), "camera": [1, 2, 3]}, "camera is no object"),
        ({**told(), "camera": {"position": [0, 0, 5]}}, "straight down"),
        ({**told(), "lights": {"key": [1]}}, "lights.key"),
        ({**told(), "lights": []}, "lights is no object"),
        ({**told(), "directions": {"left": [1, 0, 0]}}, "directions do not have left, right"),
    ],
)
def test_what_is_no_scene(data, why):
    with pytest.raises(RowError) as error:
        scene_of(data)
    assert why in error.value.why


def test_what_is_odd_is_told_and_drawn():
    odd = []
    one, other = told()["objects"] * 2
    scene = scene_of({"objects": [one, {**other, "3d_coords": [1.3, 0, 0.7]}]}, odd.append)
    assert odd == ["objects 0 and 1 overlap"]
    assert len(scene.solids) == 2
    odd.clear()
    scene_of(told(pixel_coords=[5, 5, 5.0]), odd.append)
    assert odd == ["no camera of CLEVR has seen the objects at their pixel_coords; the default camera is used"]


# --- placing


def test_relations_begin_at_a_fifth_of_a_unit():
    right = Camera().directions()["right"]
    for distance, expected in ((0.19, []), (0.21, [1])):
        scene = Scene((solid(), solid(distance * right[0], distance * right[1])))
        assert scene.relationships()["right"][0] == expected
        assert scene.relationships()["left"][1] == ([0] if expected else [])
        assert scene.relationships()["front"] == scene.relationships()["behind"] == [[], []]


def test_distance_and_margin_of_places():
    scene = Scene(
        (solid(),), directions={"left": (-1, 0, 0), "right": (1, 0, 0), "front": (0, -1, 0), "behind": (0, 1, 0)}
    )
    need = 0.7 + 0.35 + MIN_DIST
    diagonal = need / math.sqrt(2)
    assert fits(scene, diagonal + 0.01, diagonal + 0.01, "small")
    assert not fits(scene, diagonal - 0.01, diagonal - 0.01, "small")
    assert not fits(scene, 2.5, MARGIN - 0.01, "small")
    assert fits(scene, 2.5, MARGIN + 0.01, "small")
    assert fits(scene, 0.5, 0.5, "small", but=0)


@given(seeds, st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_drawn_scenes_keep_the_rules(seed, count):
    scene = drawn_scene(Draws(seed), count, 96, 72)
    assert len(scene.solids) == count
    for i, one in enumerate(scene.solids):
        assert fits(scene, one.x, one.y, one.size, but=i)
        assert max(abs(one.x), abs(one.y)) <= 3
        assert one.half == half_height(one.shape, one.size)
        assert 0 <= one.rotation < 360
    assert owners(scene, 96, 72).seen.min() >= least_pixels(96, 72)
    assert all(abs(a - b) < 0.5 for a, b in zip(scene.camera.position, CAMERA, strict=True))
    assert drawn_scene(Draws(seed), count, 96, 72) == scene


def test_no_room_is_an_error(monkeypatch):
    monkeypatch.setattr("toolroll.world.place.RESTARTS", 3)
    monkeypatch.setattr("toolroll.world.place.REACH", 0.5)
    with pytest.raises(ToolrollError, match="no room for 6 objects"):
        drawn_scene(Draws(0), 6, 64, 48)


def test_all_values_come_up():
    solids = [one for seed in range(40) for one in drawn_scene(Draws(seed), 5, 64, 48).solids]
    for name, values in (("shape", 3), ("size", len(SIZES)), ("color", 8), ("material", 2)):
        assert len({getattr(one, name) for one in solids}) == values


def test_every_relation_has_its_opposite():
    scene = drawn_scene(Draws(5), 6, 64, 48)
    found = scene.relationships()
    for one, other in (("left", "right"), ("front", "behind")):
        assert {(i, j) for i, row in enumerate(found[one]) for j in row} == {
            (j, i) for i, row in enumerate(found[other]) for j in row
        }
    assert set(found) == set(RELATIONS)
