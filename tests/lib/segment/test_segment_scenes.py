"""Scenes from files and from generators, and bad files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from toolroll.errors import ToolrollError, UsageError
from toolroll.segment.scene_rows import rows_of
from toolroll.segment.scenes import Settings, labels_of, open_scenes
from toolroll.segment.shapes import HELD_OUT, NAMES


def write_camvid(folder, labels, size=(6, 4)):
    for part in ("val", "valannot"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(folder / "val/a.jpg")
    Image.fromarray(np.asarray(labels, np.uint8)).save(folder / "valannot/a.png")


def opened(name, **settings):
    return open_scenes(name, Settings(split="val", **settings))


def test_camvid(tmp_path):
    labels = np.full((4, 6), 3)
    labels[:2], labels[3, 5] = 0, 11
    write_camvid(tmp_path, labels)
    scenes = opened(f"camvid:{tmp_path}")
    scene = scenes.scene(0)
    assert [(one.name, int(one.mask.sum())) for one in scene.segments] == [("sky", 12), ("road", 11)]
    assert scene.ignore.sum() == 1
    found = labels_of(scene.segments, scene.ignore, (("road",), ("sky",)), 4, 6)
    assert found[0, 0] == 1
    assert found[3, 0] == 0
    assert found[3, 5] == -1


def test_own_classes_and_a_label_outside_them(tmp_path):
    labels = np.zeros((4, 6))
    labels[0, 0] = 2
    write_camvid(tmp_path, labels)
    (tmp_path / "classes.txt").write_text("ground,floor\nwall\n")
    assert opened(f"camvid:{tmp_path}").classes == (("ground", "floor"), ("wall",))
    assert opened(f"camvid:{tmp_path}").scene(0).ignore.sum() == 1
    (tmp_path / "classes.txt").write_text("ground\n")
    with pytest.raises(ToolrollError, match=r"a\.jpg: label 2 is none of the 1 classes"):
        opened(f"camvid:{tmp_path}").scene(0)


def test_camvid_files_that_are_not_sound(tmp_path):
    with pytest.raises(ToolrollError, match="no such folder"):
        opened(f"camvid:{tmp_path}")
    write_camvid(tmp_path, np.zeros((4, 5)))
    with pytest.raises(ToolrollError, match="labels are 5 x 4"):
        opened(f"camvid:{tmp_path}").scene(0)
    Image.new("RGB", (6, 4)).save(tmp_path / "valannot/a.png")
    with pytest.raises(ToolrollError, match="of mode RGB"):
        opened(f"camvid:{tmp_path}").scene(0)
    (tmp_path / "valannot/a.png").write_bytes(b"nothing")
    with pytest.raises(ToolrollError, match="not an image"):
        opened(f"camvid:{tmp_path}").scene(0)


def coco(tmp_path, annotations, size=(10, 10)):
    Image.new("RGB", (10, 10), "red").save(tmp_path / "a.jpg")
    data = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"id": n, "image_id": 1, **one} for n, one in enumerate(annotations)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    return open_scenes(f"coco:{tmp_path / 'instances.json'}", Settings())


def test_coco_with_all_forms_of_masks(tmp_path):
    square = [1, 1, 4, 1, 4, 4, 1, 4]
    scenes = coco(
        tmp_path,
        [
            {"category_id": 4, "segmentation": [square]},
            {"category_id": 9, "segmentation": {"size": [10, 10], "counts": [90, 10]}},
            {"category_id": 9, "iscrowd": 1, "segmentation": {"size": [10, 10], "counts": [80, 10, 10]}},
            {"category_id": 9, "segmentation": {"size": [10, 10], "counts": [100]}},
        ],
    )
    scene = scenes.scene(0)
    assert [(one.name, int(one.mask.sum())) for one in scene.segments] == [("cat", 9), ("dog", 10)]
    assert scene.ignore.sum() == 10
    assert scenes.classes == (("cat",), ("dog",))


def test_an_image_without_segments(tmp_path):
    scene = coco(tmp_path, []).scene(0)
    assert scene.segments == ()
    assert [row["truth"] for row in rows_of(scene, (("cat",),), "a.jpg", "all")] == [[]]
    assert list(rows_of(scene, (("cat",),), "a.jpg", "each")) == []


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ({"category_id": 7, "segmentation": [[1, 1, 4, 1, 4, 4]]}, "annotation 0: category 7 is not in the list"),
        ({"category_id": 4, "segmentation": [[1, 1]]}, "annotation 0: a polygon"),
        ({"category_id": 4, "segmentation": {"size": [3, 3], "counts": [9]}}, "annotation 0: a mask of 3 x 3"),
    ],
)
def test_coco_annotations_that_are_not_sound(tmp_path, annotation, why):
    with pytest.raises(ToolrollError, match=why):
        coco(tmp_path, [annotation]).scene(0)


def test_coco_files_that_are_not_sound(tmp_path):
    with pytest.raises(ToolrollError, match="the file says 9 x 10"):
        coco(tmp_path, [], size=(9, 10)).scene(0)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ToolrollError, match="no such image"):
        open_scenes(f"coco:{tmp_path / 'instances.json'}", Settings()).scene(0)
    (tmp_path / "instances.json").write_text("[]")
    with pytest.raises(ToolrollError, match="not COCO's instances"):
        open_scenes(f"coco:{tmp_path / 'instances.json'}", Settings())


@pytest.mark.parametrize("name", ["voc:x", "shapes:x", "camvid", "coco", "rows:", "streets:-1"])
def test_names_that_are_no_set(name):
    with pytest.raises(UsageError):
        open_scenes(name, Settings())


@pytest.mark.parametrize("name", ["shapes:3", "streets:3"])
def test_drawn_scenes_depend_on_their_number_alone(name):
    size = Settings(width=64, height=32)
    one, other = open_scenes(name, size), open_scenes(name, size)
    other.scene(1)
    first, again = one.scene(7), other.scene(7)
    assert (first.image == again.image).all()
    assert (first.image != one.scene(8).image).any()
    assert first.image.shape == (32, 64, 3)
    covered = sum(segment.mask.astype(int) for segment in first.segments)
    assert covered.max() == 1  # no pixel is of two segments
    names = {words[0] for words in one.classes}
    assert {segment.name for segment in first.segments} <= names
    if name.startswith("streets"):
        assert covered.mean() > 0.97


def test_held_out_names():
    def drawn(held_out):
        scenes = open_scenes("shapes:1", Settings(held_out=held_out))
        return [{segment.name for segment in scenes.scene(number).segments} for number in range(12)]

    assert len(NAMES) == 24
    assert not set().union(*drawn("without")) & set(HELD_OUT)
    assert all(len(names & set(HELD_OUT)) <= 1 for names in drawn("only"))
    assert sum(bool(names & set(HELD_OUT)) for names in drawn("only")) >= 8  # the others are hidden
    for part in range(2):  # every colour and every shape of them is drawn in training
        assert {name.split()[part] for name in HELD_OUT} <= {
            name.split()[part] for name in NAMES if name not in HELD_OUT
        }


def test_rows_come_back_as_scenes(tmp_path):
    scenes = open_scenes("shapes:3", Settings())
    scene = scenes.scene(0)
    Image.fromarray(scene.image).save(tmp_path / "a.png")
    (row,) = rows_of(scene, scenes.classes, "a.png", "all")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    again = open_scenes(f"rows:{tmp_path / 'rows.jsonl'}", Settings())
    assert again.classes == scenes.classes
    assert [one.name for one in again.scene(0).segments] == [one.name for one in scene.segments]
    assert all((a.mask == b.mask).all() for a, b in zip(again.scene(0).segments, scene.segments, strict=True))
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "image": "gone.png"}) + "\n")
    with pytest.raises(ToolrollError, match=r"rows\.jsonl:1: .*gone\.png"):
        open_scenes(f"rows:{tmp_path / 'rows.jsonl'}", Settings()).scene(0)


def test_each_asks_for_one_thing_at_a_time():
    scenes = open_scenes("shapes:3", Settings(objects=4))
    scene = scenes.scene(0)
    rows = list(rows_of(scene, scenes.classes, "a.png", "each"))
    assert sorted(row["prompts"][0] for row in rows) == sorted(one.name for one in scene.segments)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(len(row["truth"]) == len(rows) for row in rows)
