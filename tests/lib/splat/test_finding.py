"""Scenes in folders: every layout, photos of other sizes and suffixes, points of other worlds, and what is missing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolroll.errors import ToolrollError
from toolroll.splat.colmap import write_model
from toolroll.splat.drawn import write_scene
from toolroll.splat.finding import open_scene
from toolroll.splat.points import write_points
from toolroll.splat.poses import inverse, moved
from toolroll.splat.scene import Points
from toolroll.splat.transforms import NEW, OLD


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A scene of each kind, which tests copy."""
    root = tmp_path_factory.mktemp("drawn")
    return {
        kind: write_scene(root / kind, shots=5, size=(48, 32), lens="OPENCV", kind=kind, points=60)
        for kind in ("transforms", "colmap")
    }


@pytest.fixture
def scene(drawn, tmp_path):
    """A nerfstudio scene of one's own: its folder, and what is in it."""
    shutil.copytree(drawn["transforms"].root, tmp_path / "my scene")
    return tmp_path / "my scene", drawn["transforms"]


def edit(root, change, name="transforms.json"):
    data = json.loads((root / name).read_text())
    change(data)
    (root / name).write_text(json.dumps(data))


def same(found, truth):
    assert [shot.name for shot in found.shots] == [shot.name for shot in truth.shots]
    for one, other in zip(found.shots, truth.shots, strict=True):
        assert one.pose == pytest.approx(other.pose, abs=1e-9)
        assert one.lens == other.lens
    assert found.points.places == pytest.approx(truth.points.places, abs=1e-6)
    assert np.array_equal(found.points.colours, truth.points.colours)


def halved(root, name="images_2", suffix=".png"):
    """A folder of smaller photos, in place of the large ones."""
    (root / name).mkdir()
    for path in sorted((root / "images").iterdir()):
        with Image.open(path) as image:
            image.resize((image.width // 2, image.height // 2)).save(root / name / f"{path.stem}{suffix}")


def test_nerfstudio(scene):
    root, truth = scene
    found = open_scene(root)
    assert (found.source, found.warnings, found.root) == ("nerfstudio", (), root)
    same(found, truth)
    same(open_scene(root / "transforms.json"), truth)
    same(open_scene(str(root)), truth)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_colmap(place, drawn, tmp_path):
    truth = drawn["colmap"]
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    shutil.copytree(truth.root / "sparse/0", tmp_path / place, dirs_exist_ok=True)
    shutil.copytree(truth.root / "images", tmp_path / "images")
    found = open_scene(tmp_path)
    assert (found.source, found.warnings) == ("colmap", ())
    same(found, truth)
    same(open_scene(tmp_path / place), truth)  # the model's own folder


def test_colmap_as_text(drawn, tmp_path):
    truth = drawn["colmap"]
    write_model(tmp_path / "sparse/0", [(s.name, s.pose, s.lens) for s in truth.shots], truth.points, text=True)
    (tmp_path / "images").symlink_to(truth.root / "images")
    same(open_scene(tmp_path), truth)


def test_dl3dv_full(scene, tmp_path):
    root, truth = scene
    halved(root, "images_8")
    shutil.rmtree(root / "images")
    (tmp_path / "1K").mkdir()
    root = root.rename(tmp_path / "1K" / ("ab" * 32))
    found = open_scene(root)  # intrinsics of the full size, photos of another
    assert (found.shots[0].lens.width, found.shots[0].lens.fx) == (24, truth.shots[0].lens.fx / 2)
    assert found.shots[0].lens.distortion == truth.shots[0].lens.distortion
    assert found.shots[0].path == root / "images_8/frame_00001.png"


def test_dl3dv_benchmark(drawn, tmp_path):
    root = tmp_path / ("0f" * 32)
    shutil.copytree(drawn["transforms"].root, root / "nerfstudio")
    shutil.copytree(drawn["colmap"].root, root / "gaussian_splat")
    (root / ".cache").mkdir()
    (root / ".cache/filelist.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    assert open_scene(root).source == "nerfstudio"
    assert open_scene(root / "gaussian_splat").source == "colmap"
    shutil.rmtree(root / "nerfstudio")
    assert open_scene(root).source == "colmap"
    assert not any((folder / "owned").exists() for folder in (tmp_path, root, Path.cwd()))


def test_an_archive_in_a_folder_of_its_own(scene, tmp_path):
    root, truth = scene
    (tmp_path / "around").mkdir()
    root.rename(tmp_path / "around/scene")
    same(open_scene(tmp_path / "around"), truth)


def test_a_scene_without_transforms_but_with_colmap(drawn, tmp_path):
    shutil.copytree(drawn["colmap"].root / "sparse", tmp_path / "colmap/sparse")
    shutil.copytree(drawn["colmap"].root / "images", tmp_path / "images")
    halved(tmp_path, "images_4")
    shutil.rmtree(tmp_path / "images")
    found = open_scene(tmp_path)
    assert found.source == "colmap"
    assert found.shots[0].lens.width == 24


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_a_folder_of_photos_is_chosen(kind, drawn, tmp_path):
    root = tmp_path / "scene"
    shutil.copytree(drawn[kind].root, root)
    halved(root, "images_2", ".jpg")  # of another suffix, too
    halved(root, "elsewhere")
    assert open_scene(root).shots[0].lens.width == 48
    for images in ("images_2", "elsewhere", str(root / "images_2")):
        found = open_scene(root, images=images)
        assert found.shots[0].lens.width == 24
        assert found.shots[0].name == "frame_00001.png"  # as the scene has it
        assert len(found.shots) == 5
    with pytest.raises(ToolrollError, match=r"images_8: no such folder in .*; there are: images, images_2"):
        open_scene(root, images="images_8")


def test_axes_have_their_own_factors(scene):
    root, truth = scene
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            image.resize((24, 17)).save(path)
    lens, full = open_scene(root).shots[0].lens, truth.shots[0].lens
    assert (lens.fx, lens.cx) == (full.fx / 2, full.cx / 2)
    assert (lens.fy, lens.cy) == pytest.approx((full.fy * 17 / 32, full.cy * 17 / 32))


def test_photos_of_another_shape_are_left_out(scene):
    root, _ = scene
    with Image.open(root / "images/frame_00002.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(root / "images/frame_00002.png")
    found = open_scene(root)
    assert len(found.shots) == 4
    assert found.warnings == (
        "photos of another shape than their lens: 1 (images/frame_00002.png (32 x 48, not 48 x 32))",
    )


def test_frames_in_any_order(scene):
    root, truth = scene
    edit(root, lambda data: data["frames"].reverse())
    same(open_scene(root), truth)


def test_missing_photos(scene):
    root, _ = scene
    for number in (1, 3, 4, 5):
        (root / f"images/frame_0000{number}.png").unlink()
    found = open_scene(root)
    assert [shot.name for shot in found.shots] == ["frame_00002.png"]
    assert found.warnings == (
        "photos missing: 4 (images/frame_00001.png, images/frame_00003.png, images/frame_00004.png, ...)",
    )
    with pytest.raises(ToolrollError, match=r"transforms\.json: photos missing: 4 \(images/frame_00001\.png, "):
        open_scene(root, strict=True)
    (root / "images/frame_00002.png").unlink()
    with pytest.raises(ToolrollError, match=r"no photo in .*images: photos missing: 5 "):
        open_scene(root)


def test_photos_and_poses_that_are_none(scene):
    root, _ = scene
    (root / "images/frame_00001.png").write_bytes(b"not a photo")

    def spoil(data):
        data["frames"][1]["transform_matrix"][0][3] = float("nan")
        data["frames"][2]["transform_matrix"] = np.diag([1.0, 2, 3, 1]).tolist()

    edit(root, spoil)
    found = open_scene(root)
    assert [shot.name for shot in found.shots] == ["frame_00004.png", "frame_00005.png"]
    assert found.warnings == (
        "photos that cannot be read: 1 (images/frame_00001.png (not an image))",
        "poses that are none: 2 (images/frame_00002.png, images/frame_00003.png)",
    )


def test_a_photo_that_two_frames_name(scene):
    root, _ = scene
    edit(root, lambda data: data["frames"].append(data["frames"][0]))
    found = open_scene(root)
    assert len(found.shots) == 5
    assert found.warnings == ("frames of a photo that another has: 1 (images/frame_00001.png)",)


def test_names_in_folders_with_spaces_and_backslashes(scene):
    root, truth = scene
    (root / "images/left side").mkdir()
    for number in (1, 2):
        (root / f"images/frame_0000{number}.png").rename(root / f"images/left side/{number}.png")

    def rename(data):
        data["frames"][0]["file_path"] = ".\\images\\left side\\1.png"
        data["frames"][1]["file_path"] = "./images/left side/2"

    edit(root, rename)
    found = open_scene(root)
    assert found.warnings == ()
    names = [shot.name for shot in found.shots]
    assert names[-2:] == ["left side/1.png", "left side/2.png"]
    assert found.shots[-1].pose == pytest.approx(truth.shots[1].pose, abs=1e-9)


def test_masks(scene):
    root, _ = scene
    (root / "masks").mkdir()
    Image.new("L", (48, 32), 255).save(root / "masks/frame_00001.png")

    def add(data):
        for frame in data["frames"][:2]:
            frame["mask_path"] = frame["file_path"].replace("images", "masks")

    edit(root, add)
    found = open_scene(root)
    assert [shot.mask for shot in found.shots[:3]] == [root / "masks/frame_00001.png", None, None]
    assert found.warnings == ("masks missing: 1 (masks/frame_00002.png)",)
    halved(root)
    (root / "masks_2").mkdir()
    Image.new("L", (24, 16), 255).save(root / "masks_2/frame_00001.png")
    assert open_scene(root, images="images_2").shots[0].mask == root / "masks_2/frame_00001.png"


def test_masks_of_colmap(drawn, tmp_path):
    shutil.copytree(drawn["colmap"].root, tmp_path / "s")
    (tmp_path / "s/masks").mkdir()
    for name in ("frame_00001.png", "frame_00002.png.png"):
        Image.new("L", (48, 32), 255).save(tmp_path / "s/masks" / name)
    found = open_scene(tmp_path / "s")
    assert [shot.mask is not None for shot in found.shots] == [True, True, False, False, False]


def test_parts(scene, drawn, tmp_path):
    root, _ = scene

    def add(data):
        data["train_filenames"] = ["images/frame_00002.png", "images/frame_00003.png"]
        data["test_filenames"] = ["images/frame_00001.png"]

    edit(root, add)
    assert [shot.part for shot in open_scene(root).shots] == ["test", "train", "train", None, None]
    shutil.copytree(drawn["colmap"].root, tmp_path / "c")
    (tmp_path / "c/sparse/0/test.txt").write_text("frame_00002.png\n")
    assert [shot.part for shot in open_scene(tmp_path / "c").shots] == ["train", "test", "train", "train", "train"]
    (tmp_path / "c/split.json").write_bytes(pickle.dumps({"test": ["frame_00002.png"]}))
    with pytest.raises(ToolrollError, match=r"split\.json: not a text file"):
        open_scene(tmp_path / "c")


def blender(root, truth):
    """The scene as Blender's scenes are: three files, no suffixes, an angle."""
    lens = truth.shots[0].lens
    for part, shots in (("train", truth.shots[:3]), ("val", truth.shots[3:4]), ("test", truth.shots[4:])):
        (root / part).mkdir(parents=True)
        frames = []
        for number, shot in enumerate(shots):
            with Image.open(shot.path) as image:
                image.convert("RGBA").save(root / part / f"r_{number}.png")
            (root / part / f"r_{number}_depth_0001.png").write_bytes(b"depth")
            placed = inverse(shot.pose) @ np.diag([1.0, -1, -1, 1])
            frames.append({"file_path": f"./{part}/r_{number}", "rotation": 0.1, "transform_matrix": placed.tolist()})
        data = {"camera_angle_x": float(2 * np.arctan(lens.width / 2 / lens.fx)), "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(data))


def test_blender(drawn, tmp_path):
    truth = drawn["transforms"]
    blender(tmp_path, truth)
    found = open_scene(tmp_path)
    assert found.source == "blender"
    assert [(shot.name, shot.part) for shot in found.shots] == [
        ("test/r_0.png", "test"),
        ("train/r_0.png", "train"),
        ("train/r_1.png", "train"),
        ("train/r_2.png", "train"),
        ("val/r_0.png", "val"),
    ]
    lens = found.shots[0].lens
    assert (lens.model, lens.cx, lens.cy) == ("PINHOLE", 24, 16)
    assert lens.fx == lens.fy == pytest.approx(truth.shots[0].lens.fx)
    assert found.shots[1].pose == pytest.approx(truth.shots[0].pose)
    assert found.warnings == ("no points",)


def turned(root, step):
    """Turn the frames of a scene into another world; `step` is [3, 4]."""

    def change(data):
        scale = np.cbrt(np.linalg.det(step[:, :3]))
        for frame in data["frames"]:
            placed = np.array(frame["transform_matrix"])
            placed[:3, 3] = step[:, :3] @ placed[:3, 3] + step[:, 3]
            placed[:3, :3] = step[:, :3] / scale @ placed[:3, :3]
            frame["transform_matrix"] = placed.tolist()
        del data["applied_transform"]
        del data["ply_file_path"]

    edit(root, change)
    (root / "points.ply").unlink()


@pytest.mark.parametrize("applied", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("said", [True, False])
def test_points_of_colmap_in_the_world_of_the_frames(applied, scale, said, scene, drawn):
    root, truth = scene
    turned(root, applied * scale)
    shutil.copytree(drawn["colmap"].root / "sparse", root / "colmap/sparse")
    if said:
        edit(root, lambda data: data.update(applied_transform=applied.tolist(), applied_scale=scale))
    found = open_scene(root)
    assert found.warnings == ()
    assert found.points.places == pytest.approx(moved(drawn["colmap"].points.places, applied * scale), abs=1e-9)
    # and there they are seen where they were
    at = np.concatenate([found.points.places, np.ones((60, 1))], 1) @ found.shots[2].pose.T
    was = np.concatenate([drawn["colmap"].points.places, np.ones((60, 1))], 1) @ truth.shots[2].pose.T
    assert at[:, :2] / at[:, 2:3] == pytest.approx(was[:, :2] / was[:, 2:3])


def test_points_where_the_cameras_tell_nothing(scene, drawn):
    root, truth = scene
    turned(root, OLD)
    images = [(f"other_{shot.name}", shot.pose, shot.lens) for shot in truth.shots]
    write_model(root / "sparse/0", images, truth.points, text=True)
    found = open_scene(root)
    assert found.warnings == ("no applied_transform: took the one of nerfstudio's older files for the points",)
    assert found.points.places == pytest.approx(moved(truth.points.places, OLD), abs=1e-9)


def test_a_transform_that_is_wrong(scene, drawn):
    root, _ = scene
    turned(root, OLD)
    shutil.copytree(drawn["colmap"].root / "sparse", root / "sparse")
    edit(root, lambda data: data.update(applied_transform=NEW.tolist()))
    found = open_scene(root)
    assert found.warnings == (
        "applied_transform does not lead from COLMAP's cameras to the frames: fitted to them instead",
    )
    assert found.points.places == pytest.approx(moved(drawn["colmap"].points.places, OLD), abs=1e-6)
    edit(root, lambda data: data["frames"].sort(key=lambda frame: frame["transform_matrix"][0][3]))

    def mix(data):
        files = [frame["file_path"] for frame in data["frames"]]
        for frame, file in zip(data["frames"], files[::-1], strict=True):
            frame["file_path"] = file

    edit(root, mix)
    found = open_scene(root)
    assert found.warnings == (
        "COLMAP's cameras are not those of the frames: its points are left out",
        "no points",
    )


def test_a_scene_without_points_and_one_whose_points_are_gone(scene):
    root, _ = scene
    (root / "points.ply").unlink()
    found = open_scene(root)
    assert len(found.points) == 0
    assert found.warnings == ("points.ply, the file of points, is missing", "no points")
    edit(root, lambda data: data.pop("ply_file_path"))
    assert open_scene(root, strict=True).warnings == ("no points",)


def test_points_that_are_not_finite(drawn, tmp_path):
    truth = drawn["colmap"]
    shutil.copytree(truth.root / "images", tmp_path / "images")
    places = truth.points.places.copy()
    places[:3, 1] = np.nan
    images = [(s.name, s.pose, s.lens) for s in truth.shots]
    write_model(tmp_path / "sparse/0", images, Points(places, truth.points.colours), text=False)
    found = open_scene(tmp_path)
    assert found.warnings == ("points that are not finite, or beyond 1e+30: 3",)
    assert len(found.points) == 57


def test_a_scene_with_one_photo(tmp_path):
    write_scene(tmp_path, shots=1, size=(16, 16))
    assert len(open_scene(tmp_path, strict=True).shots) == 1


def test_what_is_no_scene(scene, tmp_path):
    root, _ = scene
    with pytest.raises(ToolrollError, match="gone: No such file"):
        open_scene(tmp_path / "gone")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ToolrollError, match="unpack an archive first"):
        open_scene(tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolrollError, match=r"empty: no scene: neither transforms\.json nor a model of COLMAP"):
        open_scene(tmp_path / "empty")
    (root / "transforms.json").write_text("{")
    with pytest.raises(ToolrollError, match=r"transforms\.json: not JSON"):
        open_scene(root)


def test_a_photo_behind_an_absolute_name(scene, tmp_path):
    root, truth = scene
    edit(root, lambda data: data["frames"][0].update(file_path=str(truth.shots[0].path)))
    found = open_scene(root)
    assert found.warnings == ()
    assert found.shots[0].path == truth.shots[0].path or found.shots[-1].path == truth.shots[0].path
    assert all(not shot.name.startswith(("/", "..")) for shot in found.shots)


def test_two_frames_of_one_photo(scene):
    """Photos whose names differ by their suffix alone, of which there is one in the smaller size."""
    root, _ = scene
    Image.new("RGB", (48, 32), "red").save(root / "images/frame_00001.jpg")
    edit(root, lambda data: data["frames"].append({**data["frames"][0], "file_path": "images/frame_00001.jpg"}))
    assert len(open_scene(root).shots) == 6
    (root / "images/frame_00001.jpg").unlink()
    halved(root)
    found = open_scene(root, images="images_2")
    assert len({shot.path for shot in found.shots}) == len(found.shots) == 5
    assert found.warnings == ("frames of a photo that another has: 1 (images/frame_00001.jpg)",)


def test_photos_and_masks_that_are_cut_short(scene):
    root, _ = scene
    (root / "masks").mkdir()
    for name in ("images/frame_00002.png", "masks/frame_00001.png"):
        data = (root / "images/frame_00001.png").read_bytes()
        (root / name).write_bytes(data[: len(data) * 2 // 3])
    edit(root, lambda data: data["frames"][0].update(mask_path="masks/frame_00001.png"))
    found = open_scene(root)
    assert [(shot.name[10], shot.mask) for shot in found.shots] == [(i, None) for i in "1345"]
    assert found.warnings == (
        "masks that cannot be read: 1 (masks/frame_00001.png (image file is truncated))",
        "photos that cannot be read: 1 (images/frame_00002.png (image file is truncated))",
    )


def test_names_that_no_file_has(scene):
    root, _ = scene

    def rename(data):
        data["frames"][0]["file_path"] = "images/" + "x" * 5000 + ".png"
        data["frames"][1]["file_path"] = "x" * 5000 + "/a.png"
        data["frames"][2]["file_path"] = "images/a\nb\udcff.png"
        data["frames"][3]["mask_path"] = "m" * 5000
        data["ply_file_path"] = "p" * 5000

    edit(root, rename)
    found = open_scene(root)
    assert [shot.name for shot in found.shots] == ["frame_00004.png", "frame_00005.png"]
    missing = next(one for one in found.warnings if one.startswith("photos missing: 3 (images/xxx"))
    assert missing.endswith(", images/a\\nb\\udcff.png)")
    assert all(len(one.encode()) < 400 for one in found.warnings)


@pytest.mark.parametrize("name", ["x" * 5000, "loop", "loop/scene"])
def test_paths_that_lead_nowhere(name, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ToolrollError, match=r"No such file|File name too long|Too many levels"):
        open_scene(tmp_path / name)


def test_a_name_that_is_not_utf8(scene):
    root, truth = scene
    photo = os.fsdecode(b"\xff a.png")
    (root / "images/frame_00001.png").rename(root / "images" / photo)
    edit(root, lambda data: data["frames"][0].update(file_path=f"images/{photo}"))
    found = open_scene(root)
    assert found.shots[-1].name == photo
    assert found.shots[-1].pose == pytest.approx(truth.shots[0].pose)


def test_a_fisheye_whose_rim_does_not_count(scene):
    root, _ = scene
    edit(root, lambda data: data.update(fisheye_crop_radius=10))
    assert open_scene(root).warnings == ("fisheye_crop_radius is not looked at: what is beyond it counts, too",)


def test_points_of_colmap_that_are_nowhere(scene, drawn):
    root, _ = scene
    turned(root, OLD)
    truth = drawn["colmap"]
    places = truth.points.places.copy()
    places[:3] = [[np.inf, 0, 0], [np.nan, 1, 1], [1e308, -1e308, 1e308]]
    images = [(shot.name, shot.pose, shot.lens) for shot in truth.shots]
    write_model(root / "sparse/0", images, Points(places, truth.points.colours), text=False)
    found = open_scene(root)
    assert found.points.places == pytest.approx(moved(places[3:], OLD))
    assert found.warnings == ("points that are not finite, or beyond 1e+30: 3",)


def test_points_of_a_ply_that_are_nowhere(scene):
    root, truth = scene
    places = truth.points.places.copy()
    places[:2, 1] = np.nan, -1e31
    write_points(root / "points.ply", Points(places, truth.points.colours))
    found = open_scene(root)
    assert found.points.places == pytest.approx(truth.points.places[2:], abs=1e-6)
    assert found.warnings == ("points that are not finite, or beyond 1e+30: 2",)
