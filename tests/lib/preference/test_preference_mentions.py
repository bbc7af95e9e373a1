"""What a text names against what there is: the vector worked out by hand, and what holds for all texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError, ToolrollError
from toolroll.preference import coco
from toolroll.preference.mentions import Scenes, Sums, Synonyms, compared, read_synonyms
from toolroll.preference.texts import text_of
from toolroll.world.words import ATTRIBUTES, VALUES, Mention, mentions

VECTOR = "A red cube, a blue sphere, a yellow sphere; the red cube again."
THERE = ["red cube", "blue sphere", "green cylinder"]
COCO = Synonyms(coco.table(), coco.OTHER)


def test_the_vector():
    scores = compared(Scenes(), VECTOR, THERE).scores()
    assert scores == {
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": pytest.approx(2 / 3),
        "chair_i": 0.25,
        "chair_i_unique": 1 / 3,
    }
    words = Synonyms({name: [] for name in ("red cube", "blue sphere", "yellow sphere", "green cylinder")})
    assert compared(words, VECTOR, THERE).scores() == scores


def test_words_that_no_space_parts():
    table = Synonyms({"球": ["红色球"], "立方体": [], "kettle": ["やかん", "주전자"], "dog": []})
    assert table.named("一个红色球。") == ["球"]
    assert table.named("红色球和蓝色球，还有立方体") == ["球", "球", "立方体"]
    assert table.named("テーブルの上にやかんがある") == ["kettle"]
    assert table.named("주전자가 있다, dogs와 dog屋") == ["kettle", "dog", "dog"]
    assert table.named("方体、立方、没有") == []
    found = compared(table, "一个红色球，T恤和雨伞。", ["球", "T恤", "雨伞", "lamp-post"])
    assert (found.named, found.missed) == (["球", "t 恤", "雨伞"], ["lamp post"])


def test_a_text_that_names_nothing_has_no_precision():
    assert compared(Scenes(), "Nice weather.", THERE).scores() == {
        "precision": None,
        "recall": 0,
        "f1": None,
        "chair_i": None,
        "chair_i_unique": None,
    }
    assert compared(Scenes(), "A cube.", []).scores()["recall"] is None
    assert compared(Scenes(), "A yellow cube.", THERE).scores()["f1"] == 0


def test_a_vague_word_stands_for_one_thing():
    both = [{"shape": "cube", "color": "red"}, {"shape": "cube", "color": "blue"}]
    assert compared(Scenes(), "A cube.", both).scores()["recall"] == 0.5
    assert compared(Scenes(), "A cube, and a blue one.", both).scores()["recall"] == 1
    assert compared(Scenes(), "A blue one, and a cube.", both).scores()["recall"] == 1
    assert compared(Scenes(), "A small red cube.", ["red cube"]).wrong == []
    assert compared(Scenes(), "A small red ball.", ["red cube"]).wrong == ["small red sphere"]


def test_sums_weigh_mentions_alike():
    sums = Sums()
    for text in (VECTOR, "Nothing.", "A red cube."):
        sums.add(compared(Scenes(), text, THERE))
    report = sums.report()
    assert report["chair_i"] == 1 / 5
    assert report["precision"] == 3 / 4
    assert report["recall"] == 3 / 9
    assert (report["chair_s"], report["chair_s_refined"]) == (1 / 3, 1 / 2)
    assert Sums().report()["chair_s"] is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Hot dogs and a dog's bowl", ["hot dog", "dog", "bowl"]),
        ("Knives, geese, puppies, buses, women", ["knife", "bird", "dog", "bus", "person"]),
        ("A toy car at the train station", []),
        ("A carpet and a manly doghouse", []),
        ("TV\nremote-control", ["tv", "remote"]),
        ("", []),
    ],
)
def test_words_of_coco(text, named):
    assert COCO.named(text) == named


def test_the_words_of_one_row_are_not_those_of_the_next():
    assert compared(COCO, "A lamp post", ["lamp post"]).distinct == ["lamp post"]
    assert compared(COCO, "A lamp post", ["dog"]).distinct == []
    assert compared(COCO, "dog", ["puppy"]).missed == []
    assert COCO.there(["dog house", "puppies", "dog"]) == ["dog house", "dog"]
    with pytest.raises(RowError, match="no word"):
        COCO.there(["..."])


def test_long_texts_are_read():
    text = "a red cube and a blue sphere " * 2000
    assert len(compared(Scenes(), text, THERE).named) == 4000
    assert len(compared(COCO, "dog " * 10_000, ["dog"]).named) == 10_000


def test_tables_in_files(tmp_path):
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"dog": ["hound"]}))
    assert read_synonyms(file).named("Hounds") == ["dog"]
    for text, why in [
        ("{", "not JSON"),
        ('{"a": 1}', "expected one object"),
        ('{"a": [1]}', "expected one object"),
        ('{"a": ["?"]}', "no letters"),
        ('{"a": ["b"], "b": []}', "names both"),
    ]:
        file.write_text(text)
        with pytest.raises(ToolrollError, match=why):
            read_synonyms(file)


def test_texts_of_messages():
    assert text_of([{"role": "assistant", "content": "a"}, {"role": "user", "content": [{"text": "b"}]}], "x") == "a\nb"
    assert text_of([{"content": [{"type": "image"}, {"type": "text", "text": "b"}]}], "x") == "b"
    for wrong in (7, [7], [{"content": 7}], [{"content": [7]}], [{}]):
        with pytest.raises(RowError, match="`x`"):
            text_of(wrong, "x")


things = st.builds(Mention, **{name: st.sampled_from([None, *VALUES[name]]) for name in ATTRIBUTES}).filter(
    lambda one: any(getattr(one, name) for name in ATTRIBUTES)
)


@given(st.lists(things, max_size=6), st.lists(things, max_size=6))
def test_shares_are_shares_and_a_list_of_what_there_is_is_right(named, there):
    reader = Scenes()
    text = ", ".join(f"a {reader.said(one)}" for one in named)
    assert mentions(text) == named
    found = compared(reader, text, [reader.said(one) for one in there])
    assert all(value is None or 0 <= value <= 1 for value in found.scores().values())
    itself = compared(reader, text, [reader.said(one) for one in named])
    assert itself.wrong == itself.missed == []
