"""Scenes in words and words about scenes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.world.draws import Draws
from toolroll.world.place import drawn_scene
from toolroll.world.scene import Scene, Solid, half_height
from toolroll.world.words import (
    Mention,
    caption,
    counted,
    counts,
    described,
    from_left,
    mentions,
    name_of,
    object_list,
    relations,
)

seeds = st.integers(0, 2**40)


def solid(look, x=0.0, y=0.0):
    size, color, material, shape = look.split()
    return Solid(shape, size, color, material, x, y, 0.0, half_height(shape, size))


RIGHT, BEHIND = (0.6563, 0.7545), (-0.7545, 0.6563)


def row(*looks):
    """Objects side by side, from left to right as the default camera sees them."""
    return Scene(tuple(solid(look, i * RIGHT[0], i * RIGHT[1]) for i, look in enumerate(looks)))


def test_an_object_in_words():
    assert described(solid("small red rubber cube")) == "a small red rubber cube"


def test_names_are_as_short_as_they_can_be():
    scene = row("small red rubber cube", "large red rubber cube", "large blue rubber cube", "large red metal sphere")
    names = [name_of(scene, number) for number in range(4)]
    assert names == ["the small object", "the large red cube", "the blue object", "the sphere"]


def test_what_is_there_twice_has_no_name():
    scene = row("small red rubber cube", "small red rubber cube")
    assert name_of(scene, 0) is None
    assert list(relations(scene)) == []


def test_a_caption_counts_what_looks_the_same():
    scene = row("small red rubber cube", "large blue metal sphere", "small red rubber cube")
    assert caption(scene) == "There are three objects: two small red rubber cubes and a large blue metal sphere."
    assert caption(row("small red rubber cube")) == "There is a small red rubber cube."


def test_relations_in_words():
    scene = row("small red rubber cube", "large blue metal sphere")
    assert (0, "left", 1, "the cube is left of the sphere") in list(relations(scene))
    behind = Scene((solid("small red rubber cube"), solid("large blue metal sphere", *BEHIND)))
    told = {sentence for *_, sentence in relations(behind)}
    assert told == {"the cube is in front of the sphere", "the sphere is behind the cube"}


def test_counts():
    found = counts(row("small red rubber cube", "large red metal sphere"))
    assert found["color", "red"] == 2
    assert found["shape", "cube"] == found["size", "large"] == found["material", "metal"] == 1
    assert found["color", "blue"] == 0
    assert counted(found["color", "red"], "red object") == "two red objects"


@given(seeds, st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_what_a_caption_mentions_is_what_is_there(seed, count):
    scene = drawn_scene(Draws(seed), count, 64, 48)
    found = mentions(caption(scene))
    kinds = {one.looks for one in scene.solids}
    assert {(m.size, m.color, m.material, m.shape) for m in found} == kinds
    assert sorted(object_list(scene)) == sorted(" ".join(one.looks) for one in scene.solids)
    places = [scene.camera.project(scene.solids[i].center, 320, 240)[0] for i in from_left(scene)]
    assert places == sorted(places)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_name_fits_one_object_only(seed):
    scene = drawn_scene(Draws(seed), 6, 64, 48)
    for number, one in enumerate(scene.solids):
        name = name_of(scene, number)
        if name is not None:
            (mention,) = mentions(name)
            assert [other for other in scene.solids if mention.fits(other)] == [one]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("A nice picture of nothing.", []),
        ("a red cube", [Mention(color="red", shape="cube")]),
        ("Two BIG shiny blocks!", [Mention("large", None, "metal", "cube")]),
        ("a grey ball; a tiny one", [Mention(color="gray", shape="sphere"), Mention(size="small")]),
        ("red, then a cube", [Mention(shape="cube")]),  # words further away are not the noun's
        ("one of the things", []),
        ("spheres and cylinders", [Mention(shape="sphere"), Mention(shape="cylinder")]),
        ("a small thing and a small thing", [Mention(size="small")] * 2),
        ("metallic matte cube", [Mention(material="rubber", shape="cube")]),
    ],
)
def test_mentions(text, expected):
    assert mentions(text) == expected
