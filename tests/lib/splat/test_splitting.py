"""Splits: by rules, by lists and by what a scene says."""

from __future__ import annotations

import json
import pickle
import time

import numpy as np
import pytest

from toolroll.errors import ToolrollError, UsageError
from toolroll.splat.scene import Lens, Shot
from toolroll.splat.splitting import part_shots, read_lists, rule_of, write_lists


def shots(count=20, parts=None, names=None):
    names = names or [f"f{i:02}.png" for i in range(count)]
    lens = Lens("PINHOLE", 4, 4, 4, 4, 2, 2)
    return [Shot(name, None, np.eye(4), lens, part=parts[i] if parts else None) for i, name in enumerate(names)]


def of(found, part="test"):
    return [shot.name for shot in found if shot.part == part]


def test_every_eighth_of_the_sorted_names():
    found, warnings = part_shots(shots(20)[::-1])
    assert of(found) == ["f00.png", "f08.png", "f16.png"]
    assert len(of(found, "train")) == 17
    assert warnings == []
    assert [shot.name for shot in found] == sorted(shot.name for shot in found)
    assert of(part_shots(shots(5), "every:2")[0]) == ["f00.png", "f02.png", "f04.png"]


def test_a_share_is_spread_evenly_with_both_ends():
    found, _ = part_shots(shots(10), "fraction:.6")
    assert of(found, "train") == [f"f{i:02}.png" for i in (0, 1, 3, 5, 7, 9)]
    assert len(of(part_shots(shots(97), "fraction:0.9")[0])) == 97 - 88


def test_own_goes_first():
    parts = ["test", "val", None, "train", "train"]
    found, warnings = part_shots(shots(5, parts))
    assert [shot.part for shot in found] == parts
    assert warnings == []
    assert (rule_of(shots(5, parts), "auto"), rule_of(shots(5), "auto")) == ("own", "every:8")
    assert [shot.part for shot in part_shots(shots(5, parts), "own")[0]] == parts
    assert of(part_shots(shots(5, parts), "every:3")[0]) == ["f00.png", "f03.png"]  # unless a rule is given
    with pytest.raises(ToolrollError, match="no split of its own"):
        part_shots(shots(5), "own")


def test_one_photo_is_trained_on():
    for rule in ("auto", "every:8", "fraction:.5"):
        found, warnings = part_shots(shots(1), rule)
        assert [shot.part for shot in found] == ["train"]
        assert warnings == ["no photo is left to test"]


def test_nothing_to_train_on(tmp_path):
    (tmp_path / "s.txt").write_text("f00.png\nf01.png\n")
    with pytest.raises(ToolrollError, match="no photo is left to train on"):
        part_shots(shots(2), f"file:{tmp_path}/s.txt")


@pytest.mark.parametrize(
    "text",
    [
        "f01.png\n\n# a comment\nf03.png\n",
        "\ufeffimages_4/f01.png\r\n./images/f03.jpg\r\n",
        '["f01", "f03"]',
        '{"test": ["f01.png", "f03.png"]}',
        '{"test_filenames": ["images/f01.png", "images/f03.png"]}',
        '{"test": ["f01.png", "f03.png"], "train": ["f00.png", "f02.png", "f04.png"]}',
    ],
)
def test_lists_of_files(text, tmp_path):
    (tmp_path / "a split").write_text(text)
    found, warnings = part_shots(shots(5), f"file:{tmp_path}/a split")
    assert of(found) == ["f01.png", "f03.png"]
    assert of(found, "train") == ["f00.png", "f02.png", "f04.png"]
    assert warnings == []


def test_lists_that_leave_photos_out_or_name_others(tmp_path):
    (tmp_path / "s").write_text('{"train": ["f00", "f09"], "val": ["f01"], "test": ["f02", "gone.png"]}')
    found, warnings = part_shots(shots(4), f"file:{tmp_path}/s")
    assert [shot.part for shot in found] == ["train", "val", "test", None]
    assert warnings == [f"2 names of {tmp_path}/s are of no photo: f09, gone.png"]
    (tmp_path / "s").write_text("other.png\n")
    with pytest.raises(ToolrollError, match="none of its names is one of a photo"):
        part_shots(shots(4), f"file:{tmp_path}/s")


@pytest.mark.parametrize("text", ['{"test": ["", "f02.png", "."]}', "/\n./\nf02.png\n"])
def test_names_that_are_none(text, tmp_path):
    (tmp_path / "s").write_text(text)
    found, (warning,) = part_shots(shots(4), f"file:{tmp_path}/s")
    assert of(found) == ["f02.png"]
    assert warning.startswith("2 names of")


def test_names_are_told_in_one_short_line(tmp_path):
    names = ["\ud800", "x" * 5000, "a\nb"]
    (tmp_path / "s").write_text(json.dumps({"test": ["f02.png", *names]}))
    _, (warning,) = part_shots(shots(4), f"file:{tmp_path}/s")
    assert warning.startswith(f"3 names of {tmp_path}/s are of no photo: \\ud800, xxxxx")
    assert "\n" not in warning
    assert len(warning.encode()) < 500


def test_a_name_in_two_lists(tmp_path):
    (tmp_path / "s").write_text('{"train": ["f00.png", "f01.png"], "test": ["f01.png", "f01.png", "f02.png"]}')
    found, warnings = part_shots(shots(3), f"file:{tmp_path}/s")
    assert [shot.part for shot in found] == ["train", "test", "test"]
    assert warnings == [f"1 names of {tmp_path}/s are in two lists, of which the last counts: f01.png"]


def test_long_lists_take_no_longer_than_they_are(tmp_path):
    many = shots(4000, names=[f"f{i:05}.png" for i in range(4000)])
    (tmp_path / "s").write_text("".join(f"{shot.name}\n" for shot in many[::2]))
    began = time.process_time()
    found, warnings = part_shots(many, f"file:{tmp_path}/s")
    assert (len(of(found)), warnings) == (2000, [])
    assert time.process_time() - began < 5  # it was minutes where each name was looked for among all photos


def test_there_and_back(tmp_path):
    found, _ = part_shots(shots(12, names=[f"left side/{i}.x.png" for i in range(12)]), "every:5")
    write_lists(tmp_path / "s.json", found)
    again, warnings = part_shots(found[::-1], f"file:{tmp_path}/s.json")
    assert [(shot.name, shot.part) for shot in again] == [(shot.name, shot.part) for shot in found]
    assert warnings == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pickle.dumps({"test": ["a"]}), "not a text file"),
        (pickle.dumps(["a"], 0) + b"\0", "not a text file"),
        (b"\xff\xfe", "not a text file"),
        (b"{", "not JSON"),
        (b'{"other": []}', "no list named train, val or test"),
        (b'{"test": "a"}', "`test` is not a list of names"),
        (b"[1]", "`test` is not a list of names"),
    ],
)
def test_lists_that_are_not_sound(data, why, tmp_path):
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(ToolrollError) as error:
        read_lists(tmp_path / "s")
    assert why in str(error.value)
    with pytest.raises(ToolrollError, match="No such file"):
        read_lists(tmp_path / "gone")


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "every",
        "every:1",
        "every:²",
        "fraction:nan",
        "every:0",
        "every:x",
        "fraction:1",
        "fraction:0",
        "fraction:x",
        "own:1",
        "file:",
        "x:8",
    ],
)
def test_rules_that_are_none(rule):
    with pytest.raises(UsageError, match="is none of every:N"):
        part_shots(shots(5), rule)
