"""The ray caster: against the plain one in numpy, and against numbers worked out by hand."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.world import kernel
from toolroll.world.camera import Camera
from toolroll.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from toolroll.world.draws import Draws
from toolroll.world.place import drawn_scene
from toolroll.world.plain import distances, plain_ids, plain_render
from toolroll.world.render import owners, packed_lights, packed_solids, render
from toolroll.world.scene import Scene, Solid, half_height

LEVEL = Camera((0.0, -10.0, 0.7), (0.0, 0.0, 0.7))  #: at the height of a large sphere's middle, 10 units away


def solid(x=0.0, y=0.0, *, shape="sphere", size="large", color="red", material="rubber", rotation=0.0):
    return Solid(shape, size, color, material, x, y, rotation, half_height(shape, size))


def far(one, start, way):
    """How far along a ray a solid is, by the compiled caster and the plain one, which must agree."""
    table = packed_solids(Scene((one,)))
    found = kernel.hit(table, 0, *map(float, start), *map(float, way))
    with np.errstate(all="ignore"):
        plain = float(distances(table, np.array(start, float), np.array(way, float))[0])
    assert (found == kernel.NEVER) == math.isinf(plain)
    if math.isfinite(plain):
        assert found == pytest.approx(plain, rel=1e-12)
    return None if found == kernel.NEVER else found


def cylinder(**more):
    return solid(shape="cylinder", **more)


def cube(**more):
    return solid(shape="cube", **more)


HALF = half_height("cube", "large")  # 0.4950


@pytest.mark.parametrize(
    ("one", "start", "way", "expected"),
    [
        (solid(), (-5, 0, 0.7), (1, 0, 0), 4.3),
        (solid(), (-5, 0, 0.7), (2, 0, 0), 2.15),  # a way need not be a unit
        (solid(), (-5, 0.71, 0.7), (1, 0, 0), None),
        (solid(), (-5, 0, 0.7), (-1, 0, 0), None),  # behind the start
        (solid(), (0, 0, 5), (0, 0, -1), 3.6),
        (cylinder(), (-5, 0, 0.7), (1, 0, 0), 4.3),
        (cylinder(), (0.69, 0, 5), (0, 0, -1), 3.6),  # its flat top, near the rim
        (cylinder(), (0.71, 0, 5), (0, 0, -1), None),
        (cylinder(), (-5, 0, 1.41), (1, 0, 0), None),  # just above
        (cylinder(), (-5, 0, 1.39), (1, 0, 0), 4.3),
        (cube(), (-5, 0, HALF), (1, 0, 0), 5 - HALF),
        (cube(rotation=math.pi / 4), (-5, 0, HALF), (1, 0, 0), 5 - 0.7),  # its edge ahead: half the diagonal
        (cube(), (-5, HALF + 0.01, HALF), (1, 0, 0), None),
        (cube(rotation=math.pi / 4), (-5, HALF + 0.01, HALF), (1, 0, 0), 5 - (0.7 - HALF - 0.01)),
        (cube(), (0, 0, 5), (0, 0, -1), 5 - 2 * HALF),
        (cube(), (-5, -5, HALF), (1, 1, 0), 5 - HALF),
    ],
)
def test_rays_meet_solids_where_it_was_worked_out(one, start, way, expected):
    assert far(one, start, way) == (None if expected is None else pytest.approx(expected))


@given(
    st.sampled_from(SHAPES),
    st.floats(0, 360),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.floats(0, 2 * math.pi),
    st.floats(-1, 1),
)
@settings(max_examples=200, deadline=None)
def test_a_ray_to_a_point_within_a_solid_meets_it_first(shape, rotation, inside, around, height):
    one = solid(shape=shape, rotation=rotation)
    # a point well within all shapes, seen from outside the sphere around it
    target = np.array(one.center) + 0.5 * one.half * np.array(inside) / math.sqrt(3)
    flat = math.sqrt(1 - height * height)
    start = np.array(one.center) + 3 * np.array([flat * math.cos(around), flat * math.sin(around), height])
    found = far(one, start, target - start)
    assert found is not None
    assert 0 < found < 1


# --- masks


def test_a_sphere_has_the_pixels_of_its_disc():
    """At distance d the rim is seen under asin(r / d), so its radius in the image is F tan of that."""
    radius = 350 * math.tan(math.asin(0.7 / 10))
    found = owners(Scene((solid(),), LEVEL), 320, 240)
    column, row = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    assert np.array_equal(found.mask(0), (column - 160) ** 2 + (row - 120) ** 2 < radius**2)
    assert found.box(0) == (160 - 25, 120 - 25, 160 + 25, 120 + 25)
    assert found.seen[0] == found.alone[0] == found.mask(0).sum() == pytest.approx(math.pi * radius**2, rel=0.01)


def test_what_is_in_front_hides_what_is_behind():
    behind, front = solid(0.0, 3.0), solid(0.4, 0.0, color="blue")
    found = owners(Scene((behind, front), LEVEL), 320, 240)
    assert found.seen[1] == found.alone[1]
    assert 0 < found.fractions[0] < 0.6
    hidden = found.alone[0] - found.seen[0]
    alone = owners(Scene((behind,), LEVEL), 320, 240).mask(0)
    assert hidden == (alone & found.mask(1)).sum()


def test_a_solid_outside_the_image_has_no_pixels():
    found = owners(Scene((solid(), solid(0.0, -30.0)), LEVEL), 64, 48)
    assert (found.seen[1], found.alone[1], found.fractions[1], found.box(1)) == (0, 0, 0.0, None)


# --- light


def seen_light(scene, light, point, own=-1):
    lamps, spots = packed_lights(scene)
    return [kernel.lit(packed_solids(scene), lamps, spots, light, group, own, *point) for group in range(4)]


def test_a_point_behind_a_sphere_is_in_its_shadow():
    scene = Scene((solid(),), lights={"key": (4.0, 0.0, 4.0), "fill": (-4.0, 1.0, 3.0), "back": (0.0, 4.0, 6.0)})
    # from (-0.7, 0, 0) the way to (4, 0, 4) passes the middle (0, 0, 0.7) at 0.08; from (3, 0, 0) it leads away
    assert seen_light(scene, 0, (-0.7, 0.0, 0.0)) == [0.0] * 4
    assert seen_light(scene, 0, (3.0, 0.0, 0.0)) == [1.0] * 4
    # where the way just touches the sphere, about half of the light's disc is seen
    steep = math.atan2(3.3, 4.0) - math.asin(0.7 / math.hypot(4.0, 3.3))
    edge = 4.0 - 4.0 / math.tan(steep)
    half = np.mean(seen_light(scene, 0, (edge, 0.0, 0.0)))
    assert 0.2 < half < 0.8


def test_a_shadow_is_darker_and_the_light_side_brighter():
    lights = {"key": (6.0, 0.0, 5.0), "fill": (-30.0, 0.0, 5.0), "back": (0.0, 0.0, 50.0)}
    scene, bare = (Scene(solids, Camera((0.0, -8.0, 6.0)), lights) for solids in ((solid(),), ()))
    image, ground = (render(one, 160, 120).astype(int) for one in (scene, bare))
    x, y, _ = scene.camera.project((-1.3, 0.0, 0.0), 160, 120)
    assert (ground[int(y), int(x)] - image[int(y), int(x)]).min() > 30
    x, y, _ = scene.camera.project((1.6, 0.0, 0.0), 160, 120)
    assert np.abs(ground[int(y), int(x)] - image[int(y), int(x)]).max() <= 6  # what the fill light loses
    left, right = (scene.camera.project((dx, -0.3, 0.7), 160, 120) for dx in (-0.5, 0.5))
    assert image[int(left[1]), int(left[0])].sum() < image[int(right[1]), int(right[0])].sum()


def test_the_spots_of_a_light_are_spread_over_its_disc():
    lamps, spots = packed_lights(Scene((), lights={"key": (0.0, 0.0, 5.0), "fill": (4, 0, 3), "back": (0, 4, 3)}))
    for lamp, places in zip(lamps, spots, strict=True):
        away = places - lamp[:3]
        assert np.abs(away.mean(axis=0)).max() < 1e-12
        assert (np.linalg.norm(away, axis=1) <= lamp[6]).all()
        assert np.abs(away @ lamp[:3]).max() < 1e-9  # the disc faces the origin
        assert len({tuple(place) for place in places.round(9)}) == 16


@pytest.mark.parametrize("color", COLORS)
def test_rubber_has_its_colour(color):
    """The channels of a lit rubber sphere are in the order of those of its colour."""
    scene = Scene((solid(color=color),))
    mean = render(scene, 96, 72)[owners(scene, 96, 72).mask(0)].mean(axis=0)
    wanted = np.array(COLORS[color])
    for one in range(3):
        for other in range(3):
            if wanted[one] > wanted[other] + 15:
                assert mean[one] > mean[other]


def test_metal_has_highlights_and_rubber_has_none():
    def spread(material):
        scene = Scene((solid(material=material, color="gray"),))
        return render(scene, 160, 120)[owners(scene, 160, 120).mask(0)].astype(int).sum(axis=1)

    metal, rubber = spread("metal"), spread("rubber")
    assert metal.max() > 600 > rubber.max()
    assert metal.std() > 2 * rubber.std()


# --- against the plain caster


@pytest.mark.parametrize("size", [(96, 72), (33, 65)])
def test_the_plain_caster_makes_the_same_image(size):
    for seed in range(3):
        scene = drawn_scene(Draws(seed), 6, 96, 72)
        one, other = render(scene, *size), plain_render(scene, *size)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
        assert (one != other).mean() < 0.001
        assert np.array_equal(owners(scene, *size).ids, plain_ids(scene, *size))


solids = st.builds(
    Solid,
    st.just("cube"),
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(sorted(COLORS)),
    st.sampled_from(MATERIALS),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(0, 360),
    st.just(0.1),
)


@given(
    st.lists(st.tuples(solids, st.sampled_from(SHAPES)), max_size=4),
    st.tuples(st.floats(-9, 9), st.floats(4, 9), st.floats(0.5, 9)),
)
@settings(max_examples=25, deadline=None)
def test_any_scene_is_drawn_alike(parts, eye):
    """Solids that overlap, cameras within the objects' reach, an empty ground, the sky: all are drawn."""
    scene = Scene(tuple(one.but(shape=shape) for one, shape in parts), Camera(eye, (0.0, 0.0, 1.0)))
    one, other = render(scene, 24, 18), plain_render(scene, 24, 18)
    # where a ray grazes an edge, a last bit decides
    assert (np.abs(one.astype(int) - other.astype(int)).max(axis=2) > 1).mean() < 0.01
    assert (owners(scene, 24, 18).ids != plain_ids(scene, 24, 18)).mean() < 0.01


def test_any_number_of_threads_makes_the_same_images():
    scenes = [drawn_scene(Draws(seed), 5, 64, 48) for seed in range(8)]

    def digest(scene):
        return hashlib.sha256(render(scene, 96, 72).tobytes() + owners(scene, 96, 72).ids.tobytes()).hexdigest()

    alone = [digest(scene) for scene in scenes]
    for threads in (2, 5):
        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(digest, scenes * 3)) == alone * 3


def test_a_scene_looks_the_same_at_another_size():
    """The larger image, averaged, is the smaller one: both show the same, and the small one has no jagged edges."""
    scene = drawn_scene(Draws(2), 5, 320, 240)
    large, small = render(scene, 320, 240), render(scene, 80, 60)
    mean = large.reshape(60, 4, 80, 4, 3).mean(axis=(1, 3))
    assert np.abs(mean - small).mean() < 1.5
