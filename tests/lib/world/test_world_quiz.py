"""Questions about pairs: whose answers follow from the picture, each of its kind, the same for the same seed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toolroll.errors import RowError
from toolroll.world.clevr import scene_json
from toolroll.world.draws import Draws
from toolroll.world.place import drawn_scene
from toolroll.world.quiz import KINDS, Quiz

SCENES = KINDS["scenes"]
TABLE = {"kind": "bar", "title": "Rain", "categories": ["May", "June", "July"], "series": {"mm": [60, 45, 12]}}


def pair(seed=1, objects=5, **more):
    scene = scene_json(drawn_scene(Draws(seed), objects, 96, 72), 96, 72)
    empty = dict.fromkeys(("modified_scene", "original_table", "modified_table"))
    return SimpleNamespace(
        **{"id": "p", "original": "a.png", "modified": "b.png", **empty, "original_scene": scene, **more}
    )


def quiz(count=4, kinds=SCENES, which="original", seed=0):
    return Quiz(count, kinds, which, seed)


def test_kinds_come_in_turn_and_ids_name_them():
    items = list(quiz(2 * len(SCENES)).about(pair()))
    assert len({item["id"] for item in items}) == len({item["prompt"] for item in items}) == len(items)
    assert {item["distribution"] for item in items[: len(SCENES) - 2]} <= set(SCENES)
    again = [item for item in items if item["id"].endswith("-2")]
    assert again
    assert all(item["id"] == f"p/{item['distribution']}-2" for item in again)


def test_a_colour_is_that_of_the_thing_that_is_named():
    for seed in range(20):
        row = pair(seed)
        for item in quiz(9, ["color"]).about(row):
            words = item["prompt"].removeprefix("What color is the ").removesuffix("?").split()
            fits = [
                thing
                for thing in row.original_scene["objects"]
                if all(word in ("object", *thing.values()) for word in words)
            ]
            assert [thing["color"] for thing in fits] == [item["answer"]]


def test_counts_are_those_of_the_scene():
    for seed in range(20):
        row = pair(seed)
        for item in quiz(9, ["count"]).about(row):
            words = item["prompt"].removeprefix("How many ").removesuffix("s are there?").split()
            fits = [
                thing
                for thing in row.original_scene["objects"]
                if all(word in ("object", *thing.values()) for word in words)
            ]
            assert str(len(fits)) == item["answer"]


def test_the_seed_and_the_pair_determine_the_questions():
    first = list(quiz().about(pair()))
    assert list(quiz().about(pair())) == first
    assert list(quiz(seed=1).about(pair())) != first
    assert [item["prompt"] for item in quiz().about(pair(id="q"))] != [item["prompt"] for item in first]


def test_the_other_picture():
    row = pair()
    row.modified_scene = pair(2).original_scene
    items = list(quiz(which="modified").about(row))
    assert all(item["images"] == ["b.png"] and item["id"].startswith("p/modified/") for item in items)


def test_charts():
    row = pair(original_scene=None, original_table=TABLE)
    items = {item["distribution"]: item["answer"] for item in quiz(9, KINDS["charts"]).about(row)}
    assert items == {
        "chart-kind": "bar chart",
        "chart-count": "3",
        "chart-largest": "first",
        "chart-compare": items["chart-compare"],
    }
    assert list(quiz(9, SCENES).about(row)) == []


def test_few_questions_where_the_picture_allows_few():
    alone = list(quiz(50, ["position"]).about(pair(objects=1)))
    assert alone == []
    assert len(list(quiz(50, ["place"]).about(pair()))) == 2


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"original_scene": None}, "nothing says what the image shows"),
        ({"original": None}, "no path of the image"),
        ({"original_scene": {"objects": [{"shape": "cone"}]}}, "object 0: shape is 'cone'"),
    ],
)
def test_pairs_that_say_too_little(more, why):
    with pytest.raises(RowError, match=why):
        list(quiz().about(pair(**more)))
