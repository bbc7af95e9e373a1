"""Edits of scenes: the log says exactly what changed, only the right pixels change, and what cannot be done."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.errors import UsageError
from toolroll.world.clevr import scene_json, scene_of
from toolroll.world.draws import Draws
from toolroll.world.edits import KINDS, MOST, CannotEdit, attributes, edit_named
from toolroll.world.pairs import SceneRules, difficulty, made_pair, scene_pair, unchanged_pair
from toolroll.world.place import drawn_scene, fits
from toolroll.world.plain import distances, rays
from toolroll.world.regions import boxes_of, changed, dilated, labelled
from toolroll.world.render import owners, packed_lights, packed_solids, render
from toolroll.world.scene import Scene, Solid, half_height

WIDTH, HEIGHT = 96, 72
RULES = SceneRules(WIDTH, HEIGHT)
NAMES = [*KINDS, "count:2"]
seeds = st.integers(0, 2**40)
every_edit = pytest.mark.parametrize("name", NAMES)


def pair_of(name, seed):
    return made_pair(
        lambda draws: drawn_scene(draws, draws.whole(4, 6), WIDTH, HEIGHT),
        name,
        edit_named(name),
        Draws(seed),
        RULES,
        scenes=40,
    )


def plain(scene):
    """The objects of a scene's JSON without what follows from the camera."""
    return [{name: value for name, value in part.items() if name != "pixel_coords"} for part in scene["objects"]]


def applied(objects, changes):
    """The objects after the changes of a log, from the log alone."""
    gone = {change["before"] for change in changes if change["after"] is None}
    left = {i: dict(part) for i, part in enumerate(objects)}
    for change in changes:
        if change["before"] is not None:
            for name, value in change["was"].items():
                assert left[change["before"]][name] == value
            left[change["before"]] |= change["now"]
    result = [part for i, part in left.items() if i not in gone]
    for change in changes:
        if change["before"] is None:
            assert change["after"] == len(result)
            result.append(change["now"])
    return result


@every_edit
@given(seeds)
@settings(max_examples=6, deadline=None)
def test_the_log_says_all_that_changed_and_nothing_else(name, seed):
    pair = pair_of(name, seed)
    before, after = pair.about["original_scene"], pair.about["modified_scene"]
    assert applied(plain(before), pair.changes) == plain(after)
    for part in ("camera", "lights", "directions", "width", "height"):
        assert before[part] == after[part]
    assert json.loads(json.dumps(pair.changes)) == pair.changes
    for change in pair.changes:
        assert change["was"] != change["now"]
        if change["before"] is not None and change["after"] is not None:
            assert set(change["was"]) == set(change["now"])
            assert all(change["was"][part] != change["now"][part] for part in change["was"])


FIELDS = {  # what each edit may change of an object; a cube's middle is lower than that of other shapes
    "replace2": ({"color", "shape"}, {"3d_coords"}),
    "recolor": ({"color"}, set()),
    "reshape": ({"shape"}, {"3d_coords"}),
    "resize": ({"size", "3d_coords"}, set()),
    "move": ({"3d_coords"}, set()),
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_edit_changes_what_it_is_named_after(name):
    must, may = FIELDS[name]
    for seed in range(4):
        pair = pair_of(name, seed)
        assert len(pair.changes) == (2 if name == "replace2" else 1)
        for change in pair.changes:
            assert must <= set(change["was"]) <= must | may
            assert (
                change["was"].get("3d_coords", [0, 0])[:2] == change["now"].get("3d_coords", [0, 0])[:2]
                or name == "move"
            )


def test_how_many_objects_there_are_afterwards():
    for name, steps in (("remove", {-1}), ("add", {1}), ("count:2", {-2, 2}), ("replace2", {0})):
        found = Counter()
        for seed in range(8):
            pair = pair_of(name, seed)
            found[len(pair.about["modified_scene"]["objects"]) - len(pair.about["original_scene"]["objects"])] += 1
        assert set(found) == steps


def touchable(scene, other):
    """Which pixels may differ: those of solids in one scene only, and those whose light these may keep off."""
    parts = [set(one.solids) for one in (scene, other)]
    edited = list(parts[0] ^ parts[1])
    lamps, _ = packed_lights(scene)
    table = packed_solids(scene.with_solids(edited))
    may = np.zeros((HEIGHT, WIDTH), bool)
    with np.errstate(all="ignore"):
        for one in (scene, other):
            for across in (0.25, 0.75):
                for down in (0.25, 0.75):
                    eye, ray = rays(one, WIDTH, HEIGHT, across, down)
                    far = distances(packed_solids(one), eye, ray).min(axis=0)
                    far = np.where(np.isfinite(far), far, -eye[2] / ray[..., 2])
                    point = eye + far[..., None] * ray
                    for row in table:
                        away = row[1:4] - point
                        may |= (away**2).sum(-1) <= row[7] ** 2 * 1.001  # on the solid itself
                        for lamp in lamps:
                            way = lamp[:3] - point
                            along = np.clip((away * way).sum(-1) / (way**2).sum(-1), 0, 1)
                            gap = np.linalg.norm(away - along[..., None] * way, axis=-1)
                            may |= gap <= row[7] + lamp[6]
    return may


@every_edit
def test_only_edited_solids_and_their_shadows_change_pixels(name):
    """Not a single pixel elsewhere differs by a single step."""
    for seed in range(3):
        pair = pair_of(name, seed)
        scenes = [scene_of(pair.about[f"{which}_scene"]) for which in ("original", "modified")]
        differs = (pair.original != pair.modified).any(axis=2)
        may = touchable(*scenes)
        assert not (differs & ~may).any()
        assert differs.any()
        assert may.mean() < 0.8


@every_edit
def test_edited_objects_are_seen_and_framed(name):
    for seed in range(4):
        pair = pair_of(name, seed)
        assert RULES.share[0] <= pair.share <= RULES.share[1]
        assert pair.share == changed(pair.original, pair.modified).mean()
        for which, number in (("original", "before"), ("modified", "after")):
            numbers = [change[number] for change in pair.changes if change[number] is not None]
            assert len(pair.boxes[which]) == len(numbers)
            for left, top, right, bottom in pair.boxes[which]:
                assert 0 <= left < right <= WIDTH
                assert 0 <= top < bottom <= HEIGHT
                assert changed(pair.original, pair.modified)[top:bottom, left:right].any()


def test_the_images_are_those_of_the_scenes():
    pair = pair_of("replace2", 11)
    for which in ("original", "modified"):
        assert np.array_equal(render(scene_of(pair.about[f"{which}_scene"]), WIDTH, HEIGHT), getattr(pair, which))


def test_the_same_seed_makes_the_same_pair_and_another_another():
    one, again, other = pair_of("replace2", 3), pair_of("replace2", 3), pair_of("replace2", 4)
    assert np.array_equal(one.original, again.original)
    assert np.array_equal(one.modified, again.modified)
    assert one.changes == again.changes
    assert not np.array_equal(one.original, other.original)


def solid(x, y, *, shape="sphere", size="large", color="red"):
    return Solid(shape, size, color, "rubber", x, y, 0.0, half_height(shape, size))


ONE = Scene((solid(0.0, 0.0),))


@pytest.mark.parametrize(
    ("name", "scene", "why"),
    [
        ("replace2", ONE, "it takes 2 that are seen well enough; there is one object"),
        ("remove", ONE, "of one object none would be left"),
        ("count:9", ONE, "none would be left"),
        ("recolor", Scene((solid(40.0, 0.0),)), "there are no objects"),
        ("resize", Scene((solid(0, 0, size="small"), solid(1.0, 0.9, size="small"))), "room to grow"),
    ],
)
def test_edits_that_cannot_be_made(name, scene, why):
    if name == "count:9":
        scene = Scene(tuple(solid(x, y, size="small") for x in (-2, -1, 0, 1) for y in (-1, 0)))
    with pytest.raises(CannotEdit, match=why):
        scene_pair(scene, name, edit_named(name), Draws(0), RULES)


def test_no_room_for_another_object(monkeypatch):
    monkeypatch.setattr("toolroll.world.place.REACH", 0.5)
    with pytest.raises(CannotEdit, match="found no room for another object"):
        scene_pair(ONE, "add", KINDS["add"], Draws(0), RULES)
    with pytest.raises(CannotEdit, match="found no other place"):
        scene_pair(ONE, "move", KINDS["move"], Draws(0), RULES)


def test_a_full_scene_gets_no_more():
    crowd = Scene(tuple(solid(i - 5.0, 0.0, size="small") for i in range(MOST)))
    with pytest.raises(CannotEdit, match="10 objects are the most"):
        KINDS["add"](crowd, [], Draws(0))


def test_a_change_that_is_too_small_or_too_large_is_not_made():
    small = SceneRules(WIDTH, HEIGHT, (0.5, 0.6))
    with pytest.raises(CannotEdit, match=r"between 0.5 and 0.6 of the pixels"):
        scene_pair(ONE, "recolor", KINDS["recolor"], Draws(0), small)


def test_what_hides_another_object_is_not_made():
    """A small sphere right behind the place where a large one could grow."""
    behind = Scene((solid(1.2, -1.0, size="small"), solid(0.0, 0.0, size="small")))
    before = owners(behind, WIDTH, HEIGHT)
    for seed in range(5):
        try:
            pair = scene_pair(behind, "resize", KINDS["resize"], Draws(seed), RULES)
        except CannotEdit:
            continue
            after = owners(scene_of(pair.about["modified_scene"]), WIDTH, HEIGHT)
        assert (after.seen[before.seen >= RULES.least] >= RULES.least).all()


def test_moved_and_grown_objects_keep_their_distance():
    for name in ("move", "resize", "add"):
        for seed in range(4):
            pair = pair_of(name, seed)
            scene = scene_of(pair.about["modified_scene"])
            number = pair.changes[0]["after"]
            one = scene.solids[number]
            assert one.size == "small" or fits(scene, one.x, one.y, one.size, but=number)


@pytest.mark.parametrize("name", ["count:0", "count:10", "count:x", "paint", "replace2:1"])
def test_names_that_are_no_edits(name):
    with pytest.raises(UsageError):
        edit_named(name)


def test_same_and_blank():
    image = render(ONE, WIDTH, HEIGHT)
    same = unchanged_pair(image, "same", (255, 255, 255))
    assert np.array_equal(same.modified, image)
    assert (same.share, same.changes, same.boxes) == (0.0, [], {"original": [], "modified": []})
    blank = unchanged_pair(image, "blank", (10, 20, 30))
    assert (blank.modified == (10, 20, 30)).all()
    assert blank.modified.shape == image.shape
    assert blank.share > 0.9
    assert (difficulty(same.share, 0.15), difficulty(blank.share, 0.15)) == (1.0, 0.0)


def test_attributes_are_those_of_the_json():
    scene = drawn_scene(Draws(1), 3, WIDTH, HEIGHT)
    assert [attributes(one) for one in scene.solids] == [
        {name: part[name] for name in attributes(scene.solids[0])} for part in scene_json(scene, 64, 48)["objects"]
    ]


# --- masks in pieces


@given(st.integers(0, 2**63), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_pieces_of_a_mask_hang_together(seed, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < 0.55
    labels, count = labelled(mask)
    assert ((labels > 0) == mask).all()
    assert set(np.unique(labels)) - {0} == set(range(1, count + 1))
    for axis in (0, 1):  # neighbours have one number
        one, other = (labels[1:], labels[:-1]) if axis == 0 else (labels[:, 1:], labels[:, :-1])
        both = (one > 0) & (other > 0)
        assert (one[both] == other[both]).all()
    todo = [tuple(place) for place in np.argwhere(labels == 1)[:1]]
    seen = set(todo)
    while todo:  # and whoever has that number can be reached
        y, x = todo.pop()
        for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            inside = 0 <= place[0] < height and 0 <= place[1] < width
            if inside and mask[place] and place not in seen:
                seen.add(place)
                todo.append(place)
    assert len(seen) == (labels == 1).sum()


def test_boxes_of_pieces_that_are_near_count_as_one():
    mask = np.zeros((20, 40), bool)
    mask[2:4, 2:4] = mask[2:4, 8:10] = mask[10:18, 30:35] = True
    assert boxes_of(mask, near=2) == [(30, 10, 35, 18), (2, 2, 10, 4)]
    assert len(boxes_of(mask, near=1)) == 3
    assert dilated(mask, 1).sum() == 4 * 4 * 2 + 10 * 7
