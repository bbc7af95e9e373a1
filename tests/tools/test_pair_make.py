"""pair-make as a process: files, shares, resuming, and what cannot be made."""

from __future__ import annotations

import json
import signal

import frame
import numpy as np
import pytest
from jsonschema import validate
from PIL import Image

FEW = ("--size", "64x48")
ONE = {"shape": "cube", "size": "large", "color": "red", "material": "metal", "3d_coords": [0, 0, 0.7]}


def make(folder, *args, rows=None, env=None):
    stdin = b"" if rows is None else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    argv = [str(frame.BIN / "pair-make"), *map(str, args)]
    return frame.run(argv, cwd=folder, stdin=stdin, env=env)


def scene(*objects):
    return {"objects": list(objects)}


def three():
    places = [[-1.5, -1.0, 0.7], [0.5, 1.5, 0.7], [1.8, -1.4, 0.7]]
    return scene(
        *({**ONE, "3d_coords": place, "color": c} for place, c in zip(places, ("red", "blue", "green"), strict=True))
    )


@pytest.fixture
def photo(tmp_path):
    image = Image.new("RGB", (80, 60), (60, 140, 60))
    image.paste((200, 40, 40), (30, 20, 50, 40))
    image.save(tmp_path / "photo.png")
    mask = Image.new("L", (80, 60))
    mask.paste(255, (30, 20, 50, 40))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def test_rows_name_images_of_their_size(tmp_path):
    rows = make(tmp_path, "scenes", "-n", 3, "--out", "images", *FEW).rows
    assert [row["id"] for row in rows] == [f"scenes-{i:06d}" for i in range(3)]
    schema = json.loads(make(tmp_path, "--schema").out)["x-adds"]
    for row in rows:
        assert (row["kind"], row["edit"], row["width"], row["height"]) == ("scenes", "replace2", 64, 48)
        images = [np.array(Image.open(tmp_path / row[which])) for which in ("original", "modified")]
        assert [image.shape for image in images] == [(48, 64, 3)] * 2
        share = (np.abs(images[0].astype(int) - images[1]).max(axis=2) > 8).mean()
        assert row["share"] == pytest.approx(share, abs=1e-6)
        assert set(row) <= set(schema)
        for name, value in row.items():
            validate(value, schema[name])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(
        f"{row['id']}_{which}.png" for row in rows for which in ("original", "modified")
    )


@pytest.mark.parametrize("kind", ["scenes", "charts"])
def test_more_pairs_other_processes_and_hashes_change_none(kind, tmp_path):
    args = (kind, *FEW, "--edit", "swap,same,blank" if kind == "charts" else "recolor,add,same")
    five = make(tmp_path, *args, "-n", 5, "--out", "a", env={"PYTHONHASHSEED": "1"}).lines
    three = make(tmp_path, *args, "-n", 3, "--out", "a", env={"PYTHONHASHSEED": "2"}).lines
    assert five[:3] == three


def test_shares_add_up_to_the_whole(tmp_path):
    whole = make(tmp_path, "scenes", *FEW, "-n", 5, "--out", "a").lines
    shares = [make(tmp_path, "scenes", *FEW, "-n", 5, "--out", "a", "--shard", f"{i}/2").lines for i in range(2)]
    assert [len(share) for share in shares] == [3, 2]
    assert sorted(shares[0] + shares[1]) == sorted(whole)
    env = {
        f"SLURM_ARRAY_TASK_{name}": value for name, value in {"ID": "1", "MIN": "0", "MAX": "1", "COUNT": "2"}.items()
    }
    result = make(tmp_path, "scenes", *FEW, "-n", 5, "--out", "a", "--shard", "slurm", "-o", "p{shard}.jsonl", env=env)
    assert result.rc == 0
    assert (tmp_path / "p1.jsonl").read_bytes().splitlines() == shares[1]


def test_a_run_goes_on_where_it_was(tmp_path):
    args = ("scenes", *FEW, "-n", 4, "--out", "images")
    whole = make(tmp_path, *args).lines
    (tmp_path / "p.jsonl.part").write_bytes(whole[0] + b"\n" + whole[2] + b"\n" + whole[3][:40])
    assert make(tmp_path, *args, "-o", "p.jsonl", "--resume").rc == 0
    assert (tmp_path / "p.jsonl").read_bytes().splitlines() == [whole[i] for i in (0, 2, 1, 3)]


def test_a_signal_ends_it_between_pairs_and_resume_does_the_rest(tmp_path):
    line = ["pair-make", "scenes", "--size", "320x240", "-n", "60", "--out", "images", "-o", "p.jsonl"]
    with frame.started(line, cwd=tmp_path) as process:
        frame.wait_until(lambda: len(list((tmp_path).glob("images/*.png"))) >= 4, "two pairs are made")
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert result.rc == 75
    assert "--resume continues it" in result.err
    before = (tmp_path / "p.jsonl.part").read_bytes()
    count = before.count(b"\n")
    assert 0 < count < 60
    again = make(tmp_path, *line[1:5], count + 1, *line[6:], "--resume")
    assert (again.rc, "number" in again.err) == (2, True)  # another -n is another run
    assert not list(tmp_path.glob("images/*.part"))


def test_the_same_folder_twice(tmp_path):
    args = ("scenes", *FEW, "-n", 2, "--out", "images")
    first = make(tmp_path, *args)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    assert make(tmp_path, *args).out == first.out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    other = make(tmp_path, *args, "--seed", 1)
    assert (other.rc, other.out) == (1, b"")
    assert "images/scenes-000000_original.png: another image of this name is there" in other.err
    named = make(tmp_path, *args, "--seed", 1, "--name", "more")
    assert [row["id"] for row in named.rows] == ["more-000000", "more-000001"]
    assert make(tmp_path, *args, "--seed", 1, "--overwrite").rc == 0


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert make(tmp_path, "scenes", "-n", 1, "--out", "file").err == "pair-make: file: File exists\n"
    assert make(tmp_path, "scenes", "-n", 1, "--out", "file/x").err == "pair-make: file/x: Not a directory\n"
    result = make(tmp_path, "scenes", *FEW, "-n", 1, "--out", "a", "--contact", "no/sheet.png")
    assert (result.rc, result.err) == (1, "pair-make: no/sheet.png: No such file or directory\n")


def test_own_scenes_of_every_form(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(three(), indent=2))
    (tmp_path / "many.json").write_text(json.dumps({"info": {}, "scenes": [three(), three()]}))
    (tmp_path / "rows.jsonl").write_text(json.dumps(three()) + "\n\n" + json.dumps(three()) + "\n")
    result = make(
        tmp_path, "scenes", "one.json", "many.json", "-", "rows.jsonl", "-n", 2, "--out", "a", *FEW, rows=[three()]
    )
    assert result.rc == 0, result.err
    assert [row["source"] for row in result.rows[::2]] == [
        *("one.json:1", "many.json:1", "many.json:2", "stdin:1", "rows.jsonl:1", "rows.jsonl:3")
    ]
    assert [row["id"] for row in result.rows] == [f"scenes-{i:06d}" for i in range(12)]
    assert {len(row["original_scene"]["objects"]) for row in result.rows} == {3}
    assert "6 in, 12 out" in result.err
    again = make(tmp_path, "scenes", "-", "--out", "b", *FEW, rows=[result.rows[0]["original_scene"]]).rows[0]
    assert again["original_scene"] == result.rows[0]["original_scene"]


@pytest.mark.parametrize(("on_error", "kept"), [("skip", [None]), ("keep", ["bad", None, "lost"])])
def test_bad_scenes_are_bad_rows(on_error, kept, tmp_path):
    rows = [{"id": "bad", "objects": []}, three(), {"id": "lost", **scene(ONE)}]
    result = make(tmp_path, "scenes", "-", "--out", "a", *FEW, "--on-error", on_error, "-e", "bad.jsonl", rows=rows)
    assert result.rc == 0
    assert [row["id"] if "error" in row else None for row in result.rows] == kept
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [row["error"] for row in bad] == [
        {"why": "a scene without objects", "where": "stdin:1"},
        {
            "why": "cannot be edited (replace2): it takes 2 that are seen well enough; there is one object",
            "where": "stdin:3",
        },
    ]


def test_lines_of_files_that_are_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'[1]\n"x"\n{"a": NaN}\n\xff\n' + json.dumps(three()).encode())
    result = make(tmp_path, "scenes", "rows.jsonl", "--out", "a", *FEW, "--on-error", "skip")
    assert (result.rc, len(result.rows)) == (0, 1)
    assert [line.split(": ", 2)[1:] for line in result.err.splitlines()[:-1]] == [
        ["rows.jsonl:1", "not an object: list"],
        ["rows.jsonl:2", "not an object: str"],
        ["rows.jsonl:3", "NaN is not JSON (byte 6)"],
        ["rows.jsonl:4", "not UTF-8 at byte 0"],
    ]
    (tmp_path / "bad.json").write_text("{")
    for name, why in (("bad.json", "not JSON"), ("none.json", "No such file"), ("scene.txt", "want CLEVR scenes")):
        result = make(tmp_path, "scenes", name, "--out", "a")
        assert (result.rc, f"pair-make: {name}: {why}" in result.err) == (1, True)


def test_objects_that_are_not_seen_are_told_of(tmp_path):
    odd = scene(*three()["objects"], {**ONE, "3d_coords": [60, 0, 0.7]}, {**ONE, "3d_coords": [1.8, -1.0, 0.7]})
    result = make(tmp_path, "scenes", "-", "--out", "a", *FEW, rows=[odd])
    assert result.rc == 0
    assert "pair-make: stdin:1: warning: objects 2 and 4 overlap\n" in result.err
    assert "pair-make: stdin:1: warning: object 3 is not seen: outside the image or hidden\n" in result.err


def test_same_and_blank_pairs(photo):
    (photo / "t.csv").write_text("a,b\nx,1\ny,5\n")
    for kind, source in (("scenes", ()), ("charts", ("t.csv",)), ("photos", ("photo.png",))):
        rows = make(
            photo, kind, *source, "-n", 6, "--out", kind, "--edit", "same,blank", "--blank-color", "#102030"
        ).rows
        assert {row["edit"] for row in rows} == {"same", "blank"}
        for row in rows:
            one, other = (np.array(Image.open(photo / row[which])) for which in ("original", "modified"))
            same = row["edit"] == "same"
            assert np.array_equal(one, other) if same else (other == (16, 32, 48)).all()
            assert (row["changes"], row["difficulty"] == 1.0) == ([], same)
            described = {"scenes": "scene", "charts": "table"}.get(kind)
            assert not described or (f"modified_{described}" in row) is same


def test_charts_of_own_tables(tmp_path):
    (tmp_path / "t.csv").write_text("month,rain\nJan,3\nFeb,9\nMar,4\n")
    (tmp_path / "t.json").write_text(json.dumps([{"categories": ["a", "b"], "series": [1, 5], "kind": "pie"}]))
    rows = make(tmp_path, "charts", "t.csv", "t.json", "--chart", "line", "--out", "a", *FEW).rows
    assert [row["original_table"]["kind"] for row in rows] == ["line", "pie"]
    assert rows[0]["original_table"]["title"] == "t"
    assert rows[1]["changes"][0]["was"] == [1, 5]
    (tmp_path / "nan.csv").write_text("a,b\nx,1\ny,nan\n")
    result = make(tmp_path, "charts", "nan.csv", "--out", "a")
    assert (result.rc, result.err) == (1, "pair-make: nan.csv:1: series 'b': a value is not finite (NaN or Infinity)\n")


def test_photos_with_masks_boxes_and_neither(photo):
    rows = [
        {"image": "photo.png", "mask": "mask.png"},
        {"image": "photo.png", "bbox": [26, 16, 54, 44]},
        {"image": "photo.png"},
    ]
    made = make(photo, "photos", "-", "--edit", "recolor", "--out", "a", "--on-error", "skip", rows=rows)
    assert [row["source"] for row in made.rows] == ["stdin:1", "stdin:2"]
    assert "stdin:3: nothing in it stands out" in made.err  # the square takes more than 6 % of it
    for row in made.rows:
        assert row["changes"][0]["box"] == [30, 20, 50, 40]
        one, other = (np.array(Image.open(photo / row[which])).astype(int) for which in ("original", "modified"))
        differs = (one != other).any(axis=2)
        assert differs[22:38, 32:48].all()
        differs[20:40, 30:50] = False
        assert not differs.any()


def test_bad_photos(photo):
    Image.new("RGB", (40, 30)).save(photo / "other.png")
    bad = {
        "no photo: it has no `image`": {},
        "No such file or directory: none.png": {"image": "none.png"},
        "No such file or directory: none.jpg": {"image": "photo.png", "mask": "none.jpg"},
        "bbox: want left, top, right, bottom": {"image": "photo.png", "bbox": [1]},
        "Expected `str | null`, got `int` - at `$.image`": {"image": 3},
        "the mask mask.png is 80x60, the photo 40x30": {"image": "other.png", "mask": "mask.png"},
    }
    result = make(photo, "photos", "-", "--out", "a", "--on-error", "skip", rows=bad.values())
    assert (result.rc, result.out) == (0, b"")
    assert sorted(result.err.splitlines()[:-1]) == sorted(
        f"pair-make: stdin:{number}: {why}" for number, why in enumerate(bad, 1)
    )


def test_a_contact_sheet_shows_the_first_pairs(tmp_path):
    two = make(tmp_path, "scenes", *FEW, "-n", 3, "--out", "a", "--contact", "two.png", "--contact-pairs", 2)
    assert two.rc == 0
    make(tmp_path, "scenes", *FEW, "-n", 3, "--out", "a", "--contact", "three.png")
    two_pixels, three_pixels = (np.array(Image.open(tmp_path / name)).astype(int) for name in ("two.png", "three.png"))
    assert two_pixels.size < three_pixels.size
    assert (two_pixels == (220, 30, 30)).all(axis=2).sum() > 50  # frames


@pytest.mark.parametrize("missing", ["PIL", "matplotlib"])
def test_a_package_that_is_not_there_is_named(missing, tmp_path):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from toolroll.tools.pair_make import main; main(['charts', '-n', '1', '--out', 'a'])"
    )
    result = frame.run([frame.sys.executable, "-c", code], cwd=tmp_path)
    extra = {
        "PIL": "images need Pillow: pip install pillow",
        "matplotlib": "charts need matplotlib: pip install 'toolroll[plot]'",
    }
    assert (result.rc, result.err) == (1, f"-c: {extra[missing]}\n".replace("-c", "pair-make"))
