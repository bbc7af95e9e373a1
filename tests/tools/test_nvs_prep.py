"""nvs-prep: rows about scenes, scenes written anew, and scenes that are not sound."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import frame
import numpy as np
import pytest
from PIL import Image

from toolroll.splat.drawn import write_scene
from toolroll.splat.finding import open_scene
from toolroll.splat.lenses import pixels_of, straightened
from toolroll.splat.photos import Photos
from toolroll.splat.points import write_points
from toolroll.splat.scene import Points

FORMS = ["transforms", "colmap-text", "colmap-binary"]
SIZE = (48, 32)


def prep(folder, *args, rc=0, env=None):
    argv = frame.command_argv("nvs-prep", frame.entry_points()["nvs-prep"])
    result = frame.run([*argv, *map(str, args)], cwd=folder, env=env)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    return {
        "transforms": write_scene(root / "transforms", shots=9, size=SIZE, lens="OPENCV", points=80),
        "colmap": write_scene(root / "colmap", shots=9, size=SIZE, lens="OPENCV", kind="colmap", points=80),
    }


@pytest.fixture
def scene(drawn, tmp_path):
    shutil.copytree(drawn["transforms"].root, tmp_path / "a scene")
    return tmp_path / "a scene"


def same(found, truth, *, lens=True):
    assert [shot.name for shot in found.shots] == [shot.name for shot in truth.shots]
    for one, other in zip(found.shots, truth.shots, strict=True):
        assert one.pose == pytest.approx(other.pose, abs=1e-9)
        assert not lens or one.lens == other.lens
    assert found.points.places == pytest.approx(truth.points.places, abs=1e-6)
    assert np.array_equal(found.points.colours, truth.points.colours)


def test_a_row_about_a_scene(scene, drawn, tmp_path):
    (row,) = prep(tmp_path, "a scene").rows
    truth = drawn["transforms"]
    lens = truth.shots[0].lens
    places = np.array([-shot.pose[:3, :3].T @ shot.pose[:3, 3] for shot in truth.shots])
    assert row.pop("spread") == pytest.approx(np.linalg.norm(places - places.mean(0), axis=1).max())
    assert row == {
        "id": "a scene",
        "scene_path": "a scene",
        "layout": "nerfstudio",
        "images_folder": "a scene/images",
        "n_images": 9,
        "width": 48,
        "height": 32,
        "n_lenses": 1,
        "lens": {
            "camera_model": "OPENCV",
            "focal_px": [lens.fx, lens.fy],
            "centre_px": [lens.cx, lens.cy],
            "distortion": list(lens.distortion),
        },
        "n_masks": 0,
        "n_points": 80,
        "warnings": [],
        "split_rule": "every:8",
        "n_train": 7,
        "n_val": 0,
        "n_test": 2,
        "labels": None,
        "written": None,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_converting_there_and_back(kind, form, drawn, tmp_path):
    truth = drawn[kind]
    (row,) = prep(tmp_path, truth.root, "--to", form, "--out", "new one", "--split", "every:3").rows
    assert (row["written"], row["n_test"]) == ("new one", 3)
    found = open_scene(tmp_path / "new one", strict=True)
    same(found, truth)
    assert found.source == ("nerfstudio" if form == "transforms" else "colmap")
    assert [shot.part for shot in found.shots] == ["test", "train", "train"] * 3
    assert all(shot.path.is_symlink() for shot in found.shots)
    back = "colmap-text" if form == "transforms" else "transforms"
    (row,) = prep(tmp_path, "new one", "--to", back, "--out", "back", "--copy").rows
    assert row["n_test"] == 3  # the split is the scene's own now
    again = open_scene(tmp_path / "back", strict=True)
    same(again, truth)
    for one, other in zip(again.shots, truth.shots, strict=True):
        assert not one.path.is_symlink()
        assert one.path.read_bytes() == other.path.read_bytes()


def test_what_other_programs_look_for(scene, tmp_path):
    prep(tmp_path, "a scene", "--to", "colmap-text", "--out", "c", "--split", "every:4")
    assert (tmp_path / "c/sparse/0/test.txt").read_text() == "frame_00001.png\nframe_00005.png\nframe_00009.png\n"
    split = json.loads((tmp_path / "c/split.json").read_text())
    assert split["test"] == ["frame_00001.png", "frame_00005.png", "frame_00009.png"]
    assert len(split["train"]) == 6
    prep(tmp_path, "a scene", "--to", "transforms", "--out", "t", "--split", "every:4")
    data = json.loads((tmp_path / "t/transforms.json").read_text())
    assert data["test_filenames"] == [f"images/frame_0000{i}.png" for i in (1, 5, 9)]
    assert data["val_filenames"] == []
    assert data["applied_transform"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert (tmp_path / "t" / data["ply_file_path"]).is_file()


@pytest.mark.parametrize("form", ["transforms", "colmap-binary"])
def test_straightened_scenes(form, scene, drawn, tmp_path):
    (scene / "masks").mkdir()
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:, 24:] = 255
    Image.fromarray(mask).save(scene / "masks/frame_00001.png")
    data = json.loads((scene / "transforms.json").read_text())
    data["frames"][0]["mask_path"] = "masks/frame_00001.png"
    (scene / "transforms.json").write_text(json.dumps(data))
    (row,) = prep(tmp_path, "a scene", "--to", form, "--out", "s", "--undistort").rows
    truth = drawn["transforms"]
    lens = straightened(truth.shots[0].lens)
    assert row["lens"]["camera_model"] == "OPENCV"  # of what was read
    found = open_scene(tmp_path / "s", strict=True)
    same(found, truth, lens=False)
    assert {shot.lens for shot in found.shots} == {lens}
    bent, straight = Photos(open_scene(scene).shots), Photos(found.shots)
    for number in range(9):
        assert np.array_equal(bent[number].pixels, straight[number].pixels)
    assert np.array_equal(bent[0].mask, straight[0].mask)
    assert 0 < straight[0].mask.mean() < 1
    # a point is where the pinhole sees it
    shot = found.shots[0]
    at = truth.points.places @ shot.pose[:3, :3].T + shot.pose[:3, 3]
    assert pixels_of(shot.lens, at[:, :2] / at[:, 2:]) == pytest.approx(
        at[:, :2] / at[:, 2:] * (lens.fx, lens.fy) + (lens.cx, lens.cy)
    )


def test_straightened_photos_of_other_kinds(scene, tmp_path):
    names = ["1.jpg", "2.png", "3.webp", "4.png"]
    paths = sorted((scene / "images").iterdir())
    data = json.loads((scene / "transforms.json").read_text())
    for number, (path, name) in enumerate(zip(paths, names, strict=False)):
        with Image.open(path) as image:
            other = image.convert("RGBA") if name == "2.png" else image
            if name == "4.png":
                other = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
            other.save(path.with_name(name))
        data["frames"][number]["file_path"] = f"images/{name}"
    (scene / "transforms.json").write_text(json.dumps(data))
    prep(tmp_path, "a scene", "--to", "transforms", "--out", "s", "--undistort")
    shots = open_scene(tmp_path / "s", strict=True).shots
    kinds = {}
    for shot in shots[:4]:
        with Image.open(shot.path) as image:
            kinds[shot.name] = (image.format, image.mode)
    assert kinds == {
        "1.jpg": ("JPEG", "RGB"),
        "2.png": ("PNG", "RGBA"),
        "3.png": ("PNG", "RGB"),
        "4.png": ("PNG", "RGB"),
    }
    before, after = Photos(open_scene(scene).shots), Photos(shots)
    assert np.abs(before[0].pixels - after[0].pixels).mean() < 0.02  # JPEG twice
    for number in (1, 2, 3):
        assert np.array_equal(before[number].pixels, after[number].pixels)


def test_a_folder_of_photos_is_chosen(scene, tmp_path):
    (scene / "images_2").mkdir()
    for path in (scene / "images").iterdir():
        with Image.open(path) as image:
            image.resize((24, 16)).save(scene / "images_2" / path.name)
    (row,) = prep(tmp_path, "a scene", "--images", "images_2", "--to", "colmap-binary", "--out", "c").rows
    assert (row["width"], row["height"], row["images_folder"]) == (24, 16, "a scene/images_2")
    found = open_scene(tmp_path / "c")
    assert (found.shots[0].lens.width, found.shots[0].path.resolve().parent.name) == (24, "images_2")
    refused = prep(tmp_path, "a scene", "--images", "images_8", rc=1)
    assert "images_8: no such folder in a scene; there are: images, images_2" in refused.err


def test_points_of_other_sources(scene, drawn, tmp_path):
    few = drawn["colmap"].points
    write_points(tmp_path / "my points.ply", few)
    (row,) = prep(tmp_path, "a scene", "--points", "ply:my points.ply").rows
    assert row["n_points"] == 80
    args = ("--points", "random:33", "--to", "transforms")
    (row,) = prep(tmp_path, "a scene", *args, "--out", "r", "--seed", "5").rows
    assert row["n_points"] == 33
    found = open_scene(tmp_path / "r").points
    middle = np.mean([-shot.pose[:3, :3].T @ shot.pose[:3, 3] for shot in drawn["transforms"].shots], axis=0)
    side = 3 * 1.1 * row["spread"]
    assert np.abs(found.places - middle).max() < side
    assert found.places.std(0) == pytest.approx(side / np.sqrt(3), rel=0.3)
    prep(tmp_path, "a scene", *args, "--out", "again", "--seed", "5")
    prep(tmp_path, "a scene", *args, "--out", "other", "--seed", "6")
    ply = [(tmp_path / name / "points.ply").read_bytes() for name in ("r", "again", "other")]
    assert ply[0] == ply[1] != ply[2]


def test_points_by_sift_need_pycolmap(scene, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/pycolmap.py").write_text("raise ImportError")
    path = f"{tmp_path}/hidden:{frame.ROOT}/lib"
    args = ("a scene", "--points", "sift", "--to", "transforms", "--out", "s")
    refused = prep(tmp_path, *args, rc=1, env={"PYTHONPATH": path})
    assert refused.err == "nvs-prep: a scene: points by SIFT need pycolmap: pip install 'toolroll[colmap]'\n"
    assert not (tmp_path / "s").exists()


def test_points_by_sift_with_a_pycolmap_that_stands_in(scene, drawn, tmp_path):
    """The order of calls and what is given to them, without COLMAP: lenses, names, poses."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/pycolmap.py").write_text(FAKE)
    path = f"{tmp_path}/fake:{frame.ROOT}/lib"
    args = ("a scene", "--points", "sift", "--to", "transforms", "--out", "s")
    (row,) = prep(tmp_path, *args, env={"PYTHONPATH": path, "CALLS": str(tmp_path / "calls")}).rows
    assert row["n_points"] == 2
    calls = json.loads((tmp_path / "calls").read_text())
    lens = drawn["transforms"].shots[0].lens
    assert calls["camera_model"] == "OPENCV"
    numbers = list(map(float, calls["camera_params"].split(",")))
    assert numbers == [lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion]
    assert calls["names"] == [f"{i:06d}.png" for i in range(9)]
    for pose, shot in zip(calls["poses"], drawn["transforms"].shots, strict=True):
        assert np.array(pose) == pytest.approx(shot.pose[:3], abs=1e-9)
    assert open_scene(tmp_path / "s").points.colours.tolist() == [[1, 2, 3], [4, 5, 6]]


FAKE = """
import json, os
from types import SimpleNamespace as S
calls = {"poses": []}
logging = S(minloglevel=0, ERROR=S(value=2))
Device, CameraMode = S(cpu="cpu"), S(SINGLE="single")
FeatureExtractionOptions = lambda: S(sift=S())
FeatureMatchingOptions = ImageReaderOptions = lambda: S()
def extract_features(database, photos, names, mode, reader_options, extraction_options, device):
    assert (mode, device, extraction_options.use_gpu) == ("single", "cpu", False)
    assert all(os.path.exists(photos / name) for name in names)
    calls.update(names=names, **vars(reader_options))
def match_exhaustive(database, matching_options, device):
    assert matching_options.use_gpu is False
class Opened:
    def read_all_cameras(self): return ["camera"]
    def read_all_images(self): return [S(name=name, image_id=i, camera_id=1) for i, name in enumerate(calls["names"])]
    def read_keypoints(self, number):
        import numpy as np
        return np.zeros((3, 6), np.float32)
    def close(self): pass
Database = S(open=lambda path: Opened())
Rigid3d = lambda matrix: matrix
Image = lambda **about: about
class Reconstruction:
    def add_camera_with_trivial_rig(self, camera): pass
    def add_image_with_trivial_frame(self, image, pose): calls["poses"].append(pose.tolist())
def triangulate_points(model, database, photos, out):
    assert os.path.isdir(out)
    json.dump(calls, open(os.environ["CALLS"], "w"))
    return S(points3D={7: S(xyz=[0, 0, 1], color=[1, 2, 3]), 9: S(xyz=[0, 1, 1], color=[4, 5, 6])})
"""


@pytest.fixture
def batch(drawn, tmp_path):
    """Three scenes of a batch, named by hashes, and their labels."""
    hashes = [letter * 64 for letter in "abc"]
    for name in hashes:
        shutil.copytree(drawn["transforms"].root, tmp_path / "1K" / name)
    rows = [f"{hashes[0]},bd,abs reflection\n", f"{hashes[1]},unbd,somehow-nonreflection\n"]
    (tmp_path / "labels.csv").write_text("hash,bounded,reflection\n" + "".join(rows))
    (tmp_path / "test.csv").write_text(f"hash\n{hashes[1]}\n")
    return [f"1K/{name}" for name in hashes]


def test_labels(batch, tmp_path):
    rows = prep(tmp_path, *batch, "--labels", "labels.csv").rows
    assert [row["labels"] for row in rows] == [
        {"environment": "indoor", "reflection": "more_ref"},
        {"environment": "outdoor", "reflection": "less_ref"},
        None,
    ]
    assert [row["warnings"] for row in rows] == [[], [], ["the table of labels does not have it"]]
    outdoor = prep(tmp_path, *batch, "--labels", "labels.csv", "--where", "environment=outdoor")
    assert [row["id"][0] for row in outdoor.rows] == ["b"]
    assert "2 skipped" in outdoor.err
    rest = prep(tmp_path, *batch, "--without", "test.csv").rows
    assert [row["id"][0] for row in rest] == ["a", "c"]
    both = ("--where", "reflection=more", "--where", "environment=indoor", "--labels", "labels.csv")
    assert [row["id"][0] for row in prep(tmp_path, *batch, *both).rows] == ["a"]


def test_several_scenes_are_written_side_by_side(batch, tmp_path):
    rows = prep(tmp_path, *batch, "--to", "colmap-binary", "--out", "new").rows
    assert [row["written"] for row in rows] == [f"new/{row['id']}" for row in rows]
    for row in rows:
        assert len(open_scene(tmp_path / row["written"], strict=True).shots) == 9
    refused = prep(tmp_path, batch[0], batch[0], "--to", "transforms", "--out", "twice", rc=2)
    assert "two scenes have the same name" in refused.err


def test_scenes_that_cannot_be_read(batch, tmp_path):
    broken = tmp_path / batch[1]
    (broken / "transforms.json").write_bytes(pickle.dumps({"frames": []}))
    stopped = prep(tmp_path, *batch, rc=1)
    assert len(stopped.rows) == 1
    assert stopped.complaints == [f"nvs-prep: {batch[1]}/transforms.json: not JSON: not a text file"]
    skipped = prep(tmp_path, *batch, "--on-error", "skip")
    assert [row["id"][0] for row in skipped.rows] == ["a", "c"]
    assert "3 in, 2 out, 1 error" in skipped.err
    kept = prep(tmp_path, *batch, "--on-error", "keep").rows
    assert kept[1]["id"][0] == "b"
    assert kept[1]["error"]["where"] == f"{batch[1]}/transforms.json"


def test_missing_photos_are_told_of(scene, tmp_path):
    (scene / "images/frame_00003.png").unlink()
    result = prep(tmp_path, "a scene")
    (row,) = result.rows
    assert (row["n_images"], row["warnings"]) == (8, ["photos missing: 1 (images/frame_00003.png)"])
    assert result.complaints == ["nvs-prep: a scene: warning: photos missing: 1 (images/frame_00003.png)"]
    strict = prep(tmp_path, "a scene", "--strict", rc=1)
    assert strict.err == "nvs-prep: a scene/transforms.json: photos missing: 1 (images/frame_00003.png)\n"


def test_one_photo_and_no_points(tmp_path):
    write_scene(tmp_path / "one", shots=1, size=(20, 30))
    (tmp_path / "one/points.ply").unlink()
    (row,) = prep(tmp_path, "one", "--to", "colmap-text", "--out", "new").rows
    assert (row["n_images"], row["n_train"], row["n_test"], row["n_points"], row["spread"]) == (1, 1, 0, 0, 0)
    assert (row["width"], row["height"]) == (20, 30)
    assert row["warnings"] == [
        "points.ply, the file of points, is missing",
        "no points",
        "no photo is left to test",
    ]
    assert len(open_scene(tmp_path / "new").points) == 0
    (row,) = prep(tmp_path, "one", "--points", "random:5").rows
    assert (row["n_points"], "no points" in row["warnings"]) == (5, False)


def test_photos_of_several_sizes(scene, tmp_path):
    with Image.open(scene / "images/frame_00002.png") as image:
        image.resize((24, 16)).save(scene / "images/frame_00002.png")
    (row,) = prep(tmp_path, "a scene").rows
    assert (row["width"], row["n_lenses"]) == (48, 2)
    assert row["warnings"] == ["photos of another size than 48 x 32: 1"]
    prep(tmp_path, "a scene", "--to", "transforms", "--out", "t")
    same(open_scene(tmp_path / "t"), open_scene(scene))


def test_nothing_is_written_over(scene, tmp_path):
    args = ("a scene", "--to", "transforms")
    prep(tmp_path, *args, "--out", "new")
    refused = prep(tmp_path, *args, "--out", "new", rc=2)
    assert "new: the folder is not empty: name another, or --overwrite" in refused.err
    prep(tmp_path, *args, "--out", "new", "--overwrite", "--copy")
    assert not (tmp_path / "new/images/frame_00001.png").is_symlink()
    prep(tmp_path, *args, "--out", "new", "--overwrite", "--undistort")
    before = {path: path.read_bytes() for path in scene.rglob("*") if path.is_file()}
    for out in ("a scene", "a scene/images"):
        refused = prep(tmp_path, *args, "--out", out, "--overwrite", rc=2)
        assert "is the folder of the scene itself" in refused.err
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/images").symlink_to(scene / "images")
    refused = prep(tmp_path, *args, "--out", "beside", "--overwrite", "--undistort", rc=2)
    assert "beside: is the folder of the scene itself, or has its photos" in refused.err
    assert before == {path: path.read_bytes() for path in scene.rglob("*") if path.is_file()}


def test_links_to_photos_are_never_lost(scene, tmp_path):
    """A folder of links, given anew, by another name: each link would have been replaced by one to itself."""
    prep(tmp_path, "a scene", "--to", "transforms", "--out", "links")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/images").symlink_to(tmp_path / "links/images")
    prep(tmp_path, "links", "--to", "transforms", "--out", "beside", "--overwrite", rc=2)
    assert len(open_scene(tmp_path / "links", strict=True).shots) == 9


def test_a_scene_by_its_outer_folder_is_not_written_over(scene, tmp_path):
    (tmp_path / "outer").mkdir()
    scene.rename(tmp_path / "outer/nerfstudio")
    refused = prep(tmp_path, "outer", "--to", "transforms", "--out", "outer", "--overwrite", rc=2)
    assert "outer: is the folder of the scene itself" in refused.err
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["nerfstudio"]


@pytest.mark.parametrize(("before", "after"), [(a, b) for a in FORMS for b in FORMS if a != b])
def test_what_was_in_the_folder_before_is_gone(before, after, scene, tmp_path):
    prep(tmp_path, "a scene", "--to", before, "--out", "new", "--split", "every:3")
    (row,) = prep(
        tmp_path, "a scene", "--to", after, "--out", "new", "--overwrite", "--points", "random:5", "--split", "every:4"
    ).rows
    found = open_scene(tmp_path / "new", strict=True)
    assert (found.source, len(found.points)) == ("nerfstudio" if after == "transforms" else "colmap", 5)
    assert [shot.name for shot in found.shots if shot.part == "test"] == [f"frame_0000{i}.png" for i in (1, 5, 9)]
    assert row["n_test"] == 3


def test_what_another_program_left_in_the_folder(scene, tmp_path):
    (tmp_path / "new/masks").mkdir(parents=True)
    Image.new("L", SIZE).save(tmp_path / "new/masks/frame_00002.png")
    args = ("a scene", "--overwrite", "--out", "new", "--to")
    refused = prep(tmp_path, *args, "colmap-text", rc=2)
    assert refused.err == "nvs-prep: new/masks: has a mask of frame_00002.png, which the scene has not\n"
    prep(tmp_path, *args, "transforms")  # which names its masks
    assert open_scene(tmp_path / "new", strict=True).shots[1].mask is None
    (tmp_path / "new/transforms_train.json").write_text("{}")
    refused = prep(tmp_path, *args, "transforms", rc=2)
    assert "new: has a scene of another form, transforms_train.json" in refused.err


@pytest.mark.parametrize("form", FORMS)
def test_photos_that_differ_in_their_suffix(form, scene, tmp_path):
    """Straightened ones are PNGs, all by names of their own; so are masks."""
    data = json.loads((scene / "transforms.json").read_text())
    (scene / "masks").mkdir()
    for suffix, colour in ((".webp", "red"), (".bmp", "blue"), (".png", "lime")):
        Image.new("RGB", SIZE, colour).save(scene / f"images/a{suffix}", lossless=True)
        mask = np.full(SIZE[::-1], 255, np.uint8)
        mask[:, : {"red": 8, "blue": 16, "lime": 24}[colour]] = 0
        Image.fromarray(mask).save(scene / f"masks/a{suffix}.png")
        about = {"file_path": f"images/a{suffix}", "mask_path": f"masks/a{suffix}.png"}
        data["frames"].append({**data["frames"][0], **about})
    (scene / "transforms.json").write_text(json.dumps(data))
    for args in ((), ("--undistort",)):
        prep(tmp_path, "a scene", "--to", form, "--out", f"new{len(args)}", *args)
        found = open_scene(tmp_path / f"new{len(args)}", strict=True)
        assert len(found.shots) == 12
        photos = Photos(found.shots)
        seen = {
            shot.name: (photos[number].pixels[16, 24].tolist(), round(float(photos[number].mask.mean()), 1))
            for number, shot in enumerate(found.shots)
            if shot.name[0] == "a"
        }
        assert sorted(seen.values()) == [([0, 0, 1], 0.7), ([0, 1, 0], 0.5), ([1, 0, 0], 0.8)]
        if args:
            assert sorted(seen) == ["a.bmp.png", "a.png", "a.webp.png"]


def test_blanks_in_names(scene, tmp_path):
    (scene / "images/left side").mkdir()
    (scene / "images/frame_00001.png").rename(scene / "images/left side/1.png")
    data = json.loads((scene / "transforms.json").read_text())
    data["frames"][0]["file_path"] = "images/left side/1.png"
    (scene / "transforms.json").write_text(json.dumps(data))
    refused = prep(tmp_path, "a scene", "--to", "colmap-text", "--out", "text", rc=1)
    why = "left side/1.png: COLMAP's text files have no blanks in names: take binary ones"
    assert refused.err == f"nvs-prep: {why}\n"
    assert not (tmp_path / "text").exists()
    prep(tmp_path, "a scene", "--to", "colmap-binary", "--out", "binary")
    assert open_scene(tmp_path / "binary", strict=True).shots[-1].name == "left side/1.png"


def test_paths_that_rows_cannot_hold(scene, tmp_path):
    odd = os.fsdecode(b"\xff scene")
    scene.rename(tmp_path / odd)
    (tmp_path / odd / "images/frame_00002.png").rename(tmp_path / odd / "images" / os.fsdecode(b"\xfe.png"))
    (row,) = prep(tmp_path, odd, "--to", "transforms", "--out", "new").rows
    assert (row["id"], row["images_folder"]) == ("\\udcff scene", "\\udcff scene/images")
    assert row["warnings"] == ["photos missing: 1 (images/frame_00002.png)"]
    assert len(open_scene(tmp_path / "new").shots) == 8
    (tmp_path / "loop").symlink_to("loop")
    result = prep(tmp_path, "x" * 5000, "loop", odd, "--on-error", "keep")
    assert [row["error"]["why"] for row in result.rows[:2]] == ["File name too long", "No such file or directory"]
    assert result.rows[2]["n_images"] == 8


def test_many_scenes_that_cannot_be_read(scene, tmp_path):
    gone = [f"gone{i}" for i in range(30)]
    result = prep(tmp_path, *gone, "a scene", "--on-error", "skip")
    assert len(result.rows) == 1
    assert len(result.complaints) == 20
    assert result.complaints[-1].endswith("No such file or directory (further bad rows are counted, not shown)")
    assert "31 in, 1 out, 30 errors" in result.err


def test_conditions_with_slips(batch, tmp_path):
    args = (*batch, "--labels", "labels.csv", "--where")
    for condition, why in (("surroundings=indoor", "there are environment"), ("environment=in", "is none of indoor, ")):
        refused = prep(tmp_path, *args, condition, rc=2)
        assert f"--where {condition}: {why}" in refused.err
        assert refused.rows == []


def test_inputs_are_not_written_over(scene, tmp_path):
    (tmp_path / "split.txt").write_text("frame_00004.png\n")
    (tmp_path / "l.csv").write_text("hash\n")
    for args, name in (
        ((), "a scene/transforms.json"),
        (("--labels", "l.csv"), "l.csv"),
        (("--without", "l.csv"), "l.csv"),
        (("--split", "file:split.txt"), "split.txt"),
        (("--points", "ply:a scene/points.ply"), "a scene/points.ply"),
    ):
        before = (tmp_path / name).read_bytes()
        refused = prep(tmp_path, "a scene", *args, "-o", name, rc=2)
        assert refused.err == f"nvs-prep: {name}: input and output are the same file\n"
        assert (tmp_path / name).read_bytes() == before


def test_points_that_are_nowhere(scene, drawn, tmp_path):
    places = drawn["colmap"].points.places.copy()
    places[0, 0] = np.nan
    write_points(tmp_path / "p.ply", Points(places, drawn["colmap"].points.colours))
    (row,) = prep(tmp_path, "a scene", "--points", "ply:p.ply", "--to", "transforms", "--out", "new").rows
    assert row["n_points"] == 79
    assert row["warnings"] == ["points of p.ply that are not finite, or beyond 1e+30: 1"]


def test_a_list_that_is_a_pickle(scene, tmp_path):
    (tmp_path / "split.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.\0")
    refused = prep(tmp_path, "a scene", "--split", "file:split.bin", rc=1)
    assert refused.err == "nvs-prep: split.bin: not a text file\n"
    assert not (tmp_path / "owned").exists()
    (tmp_path / "test.txt").write_text("frame_00004.png\n")
    (row,) = prep(tmp_path, "a scene", "--split", "file:test.txt").rows
    assert (row["n_train"], row["n_test"]) == (8, 1)


@pytest.mark.parametrize(
    ("args", "rc", "why"),
    [
        ((), 2, "Missing argument 'SCENE...'"),
        (("gone",), 1, "gone: No such file or directory"),
        (("a scene", "--to", "transforms"), 2, "--to: goes with --out DIR"),
        (("a scene", "--out", "x"), 2, "--out: goes with --to FORM"),
        (("a scene", "--undistort"), 2, "--undistort, --copy, --overwrite and --points sift go with --to"),
        (("a scene", "--points", "sift"), 2, "go with --to"),
        (
            ("a scene", "--points", "random:0"),
            2,
            "random:0: is none of scene, random:N (N to 10000000), ply:FILE, sift",
        ),
        (("a scene", "--points", "random:99999999999"), 2, "random:99999999999: is none of"),
        (("a scene", "--points", "random:²"), 2, "random:²: is none of"),
        (("a scene", "--points", "ply:gone.ply"), 1, "gone.ply: No such file"),
        (("a scene", "--split", "own"), 1, "a scene: the scene has no split of its own"),
        (("a scene", "--split", "each:8"), 2, "each:8: is none of every:N"),
        (("a scene", "--split", "fraction:1.5"), 2, "fraction:1.5: is none of"),
        (("a scene", "--where", "a=b"), 2, "--where: goes with --labels TABLE"),
        (("a scene", "--labels", "gone.csv"), 1, "gone.csv: No such file"),
    ],
)
def test_settings_that_cannot_be(args, rc, why, scene, tmp_path):
    refused = prep(tmp_path, *args, rc=rc)
    assert why.lower() in refused.err.lower()
    assert len(refused.err.splitlines()) == 1
    assert refused.rows == []
