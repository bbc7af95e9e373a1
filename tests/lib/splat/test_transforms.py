"""transforms.json: what keys mean, in every dialect, there and back, and files that are not sound."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from toolroll.errors import ToolrollError
from toolroll.splat.drawn import BENDS, lens_of, made_poses
from toolroll.splat.entries import name_of
from toolroll.splat.scene import Lens, Shot
from toolroll.splat.transforms import NEW, OLD, read_transforms, write_transforms

EYE = np.eye(4).tolist()
FOCAL = {"fl_x": 100.0}


def write(tmp_path, data, name="transforms.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def entry(file="images/a.png", **more):
    return {"file_path": file, "transform_matrix": EYE, **more}


def lens(tmp_path, *size, frame=None, **keys):
    read = read_transforms(write(tmp_path, {"frames": [entry(**(frame or {}))], **keys}))
    return read.frames[0].lens(*size)


def test_a_matrix_is_from_camera_to_world_with_y_up(tmp_path):
    matrix = [[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]  # right is y, up is -x, ahead is -z of the world
    (found,) = read_transforms(write(tmp_path, {**FOCAL, "frames": [{**entry(), "transform_matrix": matrix}]})).frames
    assert found.pose @ [5, 6, 7, 1] == pytest.approx([0, 0, 0, 1])
    assert found.pose[:3, :3] @ [0, 1, 0] == pytest.approx([1, 0, 0])
    assert found.pose[:3, :3] @ [-1, 0, 0] == pytest.approx([0, -1, 0])
    assert found.pose[:3, :3] @ [0, 0, -1] == pytest.approx([0, 0, 1])


def test_intrinsics_of_the_full_size_are_scaled_by_the_real_one(tmp_path):
    keys = {
        "w": 3840,
        "h": 2160,
        "fl_x": 3000,
        "fl_y": 3100,
        "cx": 1900,
        "cy": 1000,
        "k1": 0.1,
        "camera_model": "OPENCV",
    }
    found = lens(tmp_path, 480, 270, **keys)
    assert found == Lens("OPENCV", 480, 270, 375, 387.5, 237.5, 125, (0.1, 0, 0, 0))
    odd = lens(tmp_path, 480, 272, **keys)  # an axis has its own factor
    assert (odd.fx, odd.fy) == (375, pytest.approx(3100 * 272 / 2160))


def test_a_frame_has_its_own_intrinsics(tmp_path):
    keys = {"w": 10, "h": 10, "fl_x": 5, "fl_y": 5, "cx": 5, "cy": 5, "k1": 0.3}
    assert lens(tmp_path, 20, 40, frame={"w": 20, "h": 40, "fl_x": 7, "k1": 0, "k2": 0.5}, **keys) == Lens(
        "OPENCV", 20, 40, 7, 5, 5, 5, (0, 0.5, 0, 0)
    )


def test_angles_hold_for_any_size(tmp_path):
    angle = 2 * math.atan(0.5)
    assert lens(tmp_path, 800, 600, camera_angle_x=angle) == Lens(
        "PINHOLE", 800, 600, pytest.approx(800), pytest.approx(800), 400, 300
    )
    both = lens(tmp_path, 80, 60, camera_angle_x=angle, camera_angle_y=2 * math.atan(1))
    assert (both.fx, both.fy) == (pytest.approx(80), pytest.approx(30))
    told = lens(tmp_path, 40, 30, camera_angle_x=angle, w=80, h=60, cx=44)
    assert (told.fx, told.cx, told.cy) == (pytest.approx(40), 22, 15)
    assert lens(tmp_path, 80, 60, camera_angle_x=9e-1, fl_x=70).fx == 70  # instant-ngp has both


def test_without_a_size_the_intrinsics_are_of_the_file(tmp_path):
    assert lens(tmp_path, 64, 48, fl_x=50, cx=30, cy=20) == Lens("PINHOLE", 64, 48, 50, 50, 30, 20)
    assert lens(tmp_path, 64, 48, fl_y=50).fx == 50


@pytest.mark.parametrize(
    ("keys", "model", "numbers"),
    [
        ({}, "PINHOLE", ()),
        ({"camera_model": "SIMPLE_PINHOLE"}, "SIMPLE_PINHOLE", ()),
        ({"camera_model": "OPENCV"}, "OPENCV", (0, 0, 0, 0)),
        ({"k1": 0.1}, "OPENCV", (0.1, 0, 0, 0)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, "SIMPLE_RADIAL", (0.1,)),
        ({"camera_model": "RADIAL", "k1": 0.1, "k2": 0.2, "p1": 0}, "RADIAL", (0.1, 0.2)),
        ({"camera_model": "PINHOLE", "k1": 0.1}, "OPENCV", (0.1, 0, 0, 0)),  # the numbers are believed
        ({"camera_model": "OPENCV", "p2": 0.4, "k3": 0.5}, "FULL_OPENCV", (0, 0, 0, 0.4, 0.5, 0, 0, 0)),
        ({"k4": 0.6}, "FULL_OPENCV", (0, 0, 0, 0, 0, 0.6, 0, 0)),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 1, "k2": 2, "k3": 3, "k4": 4}, "OPENCV_FISHEYE", (1, 2, 3, 4)),
        ({"is_fisheye": True, "k1": 1, "k2": 2, "k3": 3, "k4": 4}, "OPENCV_FISHEYE", (1, 2, 3, 4)),
        ({"is_fisheye": False, "k1": 0.1}, "OPENCV", (0.1, 0, 0, 0)),
    ],
)
def test_models(keys, model, numbers, tmp_path):
    found = lens(tmp_path, 10, 10, **FOCAL, **keys)
    assert (found.model, found.distortion) == (model, numbers)


def test_the_transform_that_was_applied(tmp_path):
    base = {**FOCAL, "frames": [entry()]}
    assert read_transforms(write(tmp_path, base)).applied is None
    read = read_transforms(write(tmp_path, {**base, "applied_transform": OLD.tolist(), "applied_scale": 0.5}))
    assert np.array_equal(read.applied, OLD)
    assert read.scale == 0.5
    four = np.vstack([NEW, [0, 0, 0, 1]]).tolist()
    assert np.array_equal(read_transforms(write(tmp_path, {**base, "applied_transform": four})).applied, NEW)
    for step in (OLD, NEW):  # both are turns
        assert np.linalg.det(step[:, :3]) == pytest.approx(1)


def test_parts_and_masks_and_points(tmp_path):
    data = {
        **FOCAL,
        "frames": [entry("./images/b.png", mask_path="masks/b.png"), entry("images/a.png"), entry("images/c.png")],
        "train_filenames": ["images/b.png"],
        "test_filenames": ["./images/a.png"],
        "ply_file_path": "sparse_pc.ply",
    }
    read = read_transforms(write(tmp_path, data))
    assert [one.part for one in read.frames] == ["train", "test", None]
    assert [one.mask for one in read.frames] == ["masks/b.png", None, None]
    assert read.points == "sparse_pc.ply"
    odd = [entry("a.png", mask_path=5), entry("b.png", mask_path="\ud800")]
    read = read_transforms(write(tmp_path, {**FOCAL, "frames": odd, "ply_file_path": "\ud800"}))
    assert ([one.mask for one in read.frames], read.points) == ([None, None], None)


@pytest.mark.parametrize(
    ("lists", "parts"),
    [
        ({"test_filenames": ["images/a.png"]}, ["test", "train", "train"]),
        ({"test_filenames": ["a"], "val_filenames": ["b.png"]}, ["test", "val", "train"]),
        ({"train_filenames": ["a.png", "b.png"], "test_filenames": ["c.png"]}, ["train", "train", "test"]),
        ({"train_filenames": ["images/a.png"]}, ["train", None, None]),
        ({"test_filenames": []}, [None, None, None]),
        ({"test_filenames": ["", "gone.png"]}, [None, None, None]),
    ],
)
def test_parts_by_lists(lists, parts, tmp_path):
    frames = [entry(f"images/{name}.png") for name in "abc"]
    assert [one.part for one in read_transforms(write(tmp_path, {**FOCAL, "frames": frames, **lists})).frames] == parts


@pytest.mark.parametrize(
    ("name", "keys", "source"),
    [
        ("transforms.json", {"applied_transform": OLD.tolist()}, "nerfstudio"),
        ("transforms.json", {}, "nerfstudio"),
        ("transforms.json", {"aabb_scale": 4}, "instant-ngp"),
        ("transforms.json", {"camera_angle_x": 0.9}, "instant-ngp"),
        ("transforms_train.json", {"camera_angle_x": 0.9}, "blender"),
    ],
)
def test_whose_file_it_is(name, keys, source, tmp_path):
    assert read_transforms(write(tmp_path, {**FOCAL, "frames": [entry()], **keys}, name)).source == source


@pytest.mark.parametrize("model", BENDS)
@pytest.mark.parametrize("several", [False, True])
def test_round_trip(model, several, tmp_path):
    poses = made_poses(4, np.random.default_rng(0))
    lenses = [lens_of(model, 96 + 2 * i * several, 64) for i in range(4)]
    parts = ["test", "train", "val", None]
    masks = [tmp_path / "m.png", None, None, None]
    shots = [Shot(f"left {i}.jpg", tmp_path / f"x{i}.jpg", poses[i], lenses[i], masks[i], parts[i]) for i in range(4)]
    write_transforms(tmp_path / "transforms.json", shots, points="points.ply")
    data = json.loads((tmp_path / "transforms.json").read_text())
    assert ("w" in data) != several
    assert ("w" in data["frames"][0]) == several
    read = read_transforms(tmp_path / "transforms.json")
    assert read.points == "points.ply"
    assert np.array_equal(read.applied, np.eye(4)[:3])
    for shot, found in zip(shots, read.frames, strict=True):
        assert name_of(found.file) == shot.name
        assert found.pose == pytest.approx(shot.pose, abs=1e-12)
        assert found.lens(*found.size) == shot.lens
        assert found.part == shot.part
        assert found.mask == (None if shot.mask is None else "masks/left 0.png")


def test_what_nerfstudio_reads_of_a_full_opencv(tmp_path):
    lens = Lens("FULL_OPENCV", 4, 4, 5, 5, 2, 2, (1, 2, 3, 4, 5, 0, 0, 0))
    write_transforms(tmp_path / "t.json", [Shot("a.png", tmp_path, np.eye(4), lens)])
    data = json.loads((tmp_path / "t.json").read_text())
    assert (data["camera_model"], data["k3"], data["k6"]) == ("OPENCV", 5, 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object of JSON"),
        ("{}", "no list of `frames`"),
        ({"frames": {}}, "no list of `frames`"),
        ({"frames": [1]}, "no list of `frames`"),
        ({**FOCAL, "frames": [{"transform_matrix": EYE}]}, "frame 0: no `file_path`"),
        ({"frames": [entry()]}, "images/a.png: no focal length: neither fl_x nor camera_angle_x"),
        ({"fl_x": "long", "frames": [entry()]}, "fl_x is not a number"),
        ({"fl_x": True, "frames": [entry()]}, "fl_x is not a number"),
        ({"fl_x": -5, "w": 4, "h": 4, "frames": [entry()]}, "fx of a lens is -5"),
        ({"fl_x": 5, "w": 4, "frames": [entry()]}, "one of w and h is missing"),
        ('{"fl_x": NaN, "frames": [{"file_path": "a"}]}', "fl_x is not a number"),
        ({"camera_angle_x": 4, "frames": [entry()]}, "not from 0 to pi"),
        ({**FOCAL, "camera_model": "EQUIRECTANGULAR", "frames": [entry()]}, "EQUIRECTANGULAR is not supported, but"),
        ({**FOCAL, "frames": [entry()], "applied_transform": [[1]]}, "applied_transform is not 3x4"),
        ({**FOCAL, "frames": [entry()], "applied_transform": "old"}, "applied_transform is not 3x4"),
        ({**FOCAL, "frames": [entry()], "applied_scale": "x"}, "applied_scale is not a number"),
        ({**FOCAL, "frames": [entry()], "applied_scale": 0}, "applied_scale is 0"),
        ({**FOCAL, "frames": [entry()], "applied_scale": -2}, "applied_scale is -2"),
        ({"fl_x": 10**400, "frames": [entry()]}, "fl_x is not a number"),
        ({**FOCAL, "w": 10**300, "h": 1, "frames": [entry()]}, "width of a lens is 1e+300"),
        ({**FOCAL, "frames": [entry()], "applied_transform": [[10**400] * 4] * 3}, "applied_transform is not 3x4"),
        ({**FOCAL, "frames": [entry("\ud800.png")]}, "frame 0: no `file_path`"),
        ({**FOCAL, "frames": [entry("a\0.png")]}, "frame 0: no `file_path`"),
        ({**FOCAL, "camera_model": "\ud800\n" + "x" * 999, "frames": [entry()]}, "camera_model \\ud800\\nxxx"),
        ({**FOCAL, "frames": [entry()], "test_filenames": "a"}, "test_filenames is not a list of names"),
    ],
)
def test_files_that_are_not_sound(data, why, tmp_path):
    path = write(tmp_path, data)
    with pytest.raises(ToolrollError) as error:
        read_transforms(path)
    assert why in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    str(error.value).encode()


def test_a_pickle_is_not_read(tmp_path):
    path = tmp_path / "transforms.json"
    path.write_bytes(b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06frames\x94]\x94s.")
    with pytest.raises(ToolrollError, match="not JSON"):
        read_transforms(path)


def test_poses_that_are_none(tmp_path):
    nan = [[math.nan if i == j == 1 else value for j, value in enumerate(row)] for i, row in enumerate(EYE)]
    mirrored = np.diag([1.0, 1, -1, 1]).tolist()
    sheared = (np.eye(4) + np.eye(4, k=1) * 0.1).tolist()
    frames = [
        entry(f"{i}.png") | {"transform_matrix": one} for i, one in enumerate([nan, mirrored, sheared, None, [1]])
    ]
    read = read_transforms(write(tmp_path, {**FOCAL, "frames": frames}))
    assert [one.pose for one in read.frames] == [None] * 5
    rounded = [[0.7071, -0.7071, 0, 1], [0.7071, 0.7071, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    (found,) = read_transforms(write(tmp_path, {**FOCAL, "frames": [entry() | {"transform_matrix": rounded}]})).frames
    assert found.pose[:3, :3] @ found.pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-14)
