"""COLMAP's files: numbers by hand, round trips, and files that are not sound."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from toolroll.errors import ToolrollError
from toolroll.splat import colmap
from toolroll.splat.colmap_lenses import numbers_of
from toolroll.splat.drawn import BENDS, lens_of, made_poses
from toolroll.splat.scene import Lens, Points

every_form = pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
CAMERAS = "# a comment\n\n3 SIMPLE_RADIAL 640 480 500.5 320 240 -0.02\n7 PINHOLE 64 48 50 51 32 24\n"
IMAGES = (
    "# two lines an image\n"
    "1 1 0 0 0 0.5 -1 2 7 left/a photo.jpg\n1.5 2.5 -1 3 4 12\n"
    "9 0 0 0 2 0 0 1 3 b.png\n\n"  # a half turn around z, and no observations
)
POINTS = "# points\n1 0.5 -1.5 2 10 20 30 0.7 1 0 9 4\n2 1 2 3 0 255 7 -1\n"


def write_text(folder, cameras=CAMERAS, images=IMAGES, points=POINTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("cameras", cameras), ("images", images), ("points3D", points)):
        if text is not None:
            (folder / f"{name}.txt").write_text(text)
    return folder


def binary():
    """The same in binary, by the layout of COLMAP's documentation, with observations and a track."""
    cameras = struct.pack("<Q", 2)
    cameras += struct.pack("<iiQQ4d", 3, 2, 640, 480, 500.5, 320, 240, -0.02)
    cameras += struct.pack("<iiQQ4d", 7, 1, 64, 48, 50, 51, 32, 24)
    images = struct.pack("<Q", 2)
    images += struct.pack("<i7di", 1, 1, 0, 0, 0, 0.5, -1, 2, 7) + b"left/a photo.jpg\0"
    images += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1.5, 2.5, -1, 3, 4, 12)
    images += struct.pack("<i7di", 9, 0, 0, 0, 2, 0, 0, 1, 3) + b"b.png\0" + struct.pack("<Q", 0)
    points = struct.pack("<Q", 2)
    points += struct.pack("<Q3d3Bd", 1, 0.5, -1.5, 2, 10, 20, 30, 0.7) + struct.pack("<Qiiii", 2, 1, 0, 9, 4)
    points += struct.pack("<Q3d3Bd", 2, 1, 2, 3, 0, 255, 7, -1) + struct.pack("<Q", 0)
    return {"cameras.bin": cameras, "images.bin": images, "points3D.bin": points}


def write_binary(folder, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**binary(), **{f"{name}.bin": data for name, data in changed.items()}}.items():
        (folder / name).write_bytes(data)
    return folder


@every_form
def test_what_is_in_a_model(text, tmp_path):
    folder = write_text(tmp_path) if text else write_binary(tmp_path)
    for name in ("rigs", "frames"):  # of newer versions
        (folder / f"{name}.{'txt' if text else 'bin'}").write_bytes(b"\1\2\3")
    model = colmap.read_model(folder)
    assert model.cameras == {
        3: Lens("SIMPLE_RADIAL", 640, 480, 500.5, 500.5, 320, 240, (-0.02,)),
        7: Lens("PINHOLE", 64, 48, 50, 51, 32, 24),
    }
    first, second = model.images
    assert (first.name, first.camera, second.name, second.camera) == ("left/a photo.jpg", 7, "b.png", 3)
    assert first.pose.tolist() == [[1, 0, 0, 0.5], [0, 1, 0, -1], [0, 0, 1, 2], [0, 0, 0, 1]]
    assert second.pose.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert model.points.places.tolist() == [[0.5, -1.5, 2], [1, 2, 3]]
    assert model.points.colours.tolist() == [[10, 20, 30], [0, 255, 7]]


def test_binary_goes_before_text_and_points_may_be_missing(tmp_path):
    write_text(tmp_path, images=IMAGES.replace("b.png", "other.png"), points=None)
    assert len(colmap.read_model(tmp_path).points) == 0
    write_binary(tmp_path)
    assert colmap.read_model(tmp_path).images[1].name == "b.png"


@every_form
def test_round_trip_of_every_model(text, tmp_path):
    draws = np.random.default_rng(0)
    poses = made_poses(len(BENDS), draws)
    name = "imä" if text else "im ä"
    images = [(f"{name}{i}.png", poses[i], lens_of(model, 96 + i, 64)) for i, model in enumerate(BENDS)]
    points = Points(draws.normal(size=(5, 3)), draws.integers(0, 256, (5, 3)).astype(np.uint8))
    colmap.write_model(tmp_path / "sparse/0", images, points, text=text)
    found = colmap.read_model(tmp_path / "sparse/0")
    assert np.array_equal(found.points.places, points.places)
    assert np.array_equal(found.points.colours, points.colours)
    for (name, pose, lens), image in zip(images, found.images, strict=True):
        assert image.name == name
        assert image.pose == pytest.approx(pose, abs=1e-12)
        assert found.cameras[image.camera] == lens


@every_form
def test_equal_lenses_are_one_camera_and_nothing_is_a_model_too(text, tmp_path):
    lens = lens_of("OPENCV", 96, 64)
    poses = made_poses(3, np.random.default_rng(0))
    colmap.write_model(tmp_path, [(f"{i}.png", pose, lens) for i, pose in enumerate(poses)], Points.none(), text=text)
    found = colmap.read_model(tmp_path)
    assert list(found.cameras.values()) == [lens]
    assert len(found.points) == 0
    assert colmap.holds_model(tmp_path)


def test_two_focal_lengths_make_a_model_wider():
    lens = Lens("RADIAL", 64, 48, 50, 51, 32, 24, (0.1, 0.2))
    assert numbers_of(lens) == ("OPENCV", [50, 51, 32, 24, 0.1, 0.2, 0, 0])
    assert numbers_of(Lens("SIMPLE_PINHOLE", 64, 48, 50, 51, 32, 24))[0] == "PINHOLE"
    assert numbers_of(Lens("SIMPLE_RADIAL", 64, 48, 50, 50, 32, 24, (0.1,))) == (
        "SIMPLE_RADIAL",
        [50, 32, 24, 0.1],
    )


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_file_that_is_cut_anywhere(name, tmp_path):
    data = binary()[f"{name}.bin"]
    for end in range(len(data)):
        write_binary(tmp_path, **{name: data[:end]})
        with pytest.raises(ToolrollError, match=rf"{name}\.bin: (cut short|says it has)"):
            colmap.read_model(tmp_path)


@pytest.mark.parametrize(("name", "what"), [("cameras", "cameras"), ("images", "images"), ("points3D", "points")])
@pytest.mark.parametrize("count", [2**40, 2**63, 2**64 - 1])
def test_a_header_that_promises_too_much(name, what, count, tmp_path):
    data = struct.pack("<Q", count) + binary()[f"{name}.bin"][8:]
    write_binary(tmp_path, **{name: data})
    with pytest.raises(ToolrollError, match=f"says it has {count} {what}, and has room for"):
        colmap.read_model(tmp_path)


def test_counts_inside_that_promise_too_much(tmp_path):
    images = binary()["images.bin"]
    at = images.index(b"photo.jpg\0") + 10
    write_binary(tmp_path, images=images[:at] + struct.pack("<Q", 2**60) + images[at + 8 :])
    with pytest.raises(ToolrollError, match="observations in left/a photo"):
        colmap.read_model(tmp_path)
    points = binary()["points3D.bin"]
    write_binary(tmp_path, points3D=points[:51] + struct.pack("<Q", 2**60) + points[59:])
    with pytest.raises(ToolrollError, match="steps of a track"):
        colmap.read_model(tmp_path)


@pytest.mark.parametrize(("number", "name"), [(7, "FOV"), (10, "THIN_PRISM_FISHEYE"), (99, "number 99")])
def test_models_that_are_not_supported(number, name, tmp_path):
    cameras = struct.pack("<Q", 1) + struct.pack("<iiQQ12d", 3, number, 640, 480, *[1.0] * 12)
    write_binary(tmp_path, cameras=cameras)
    with pytest.raises(ToolrollError, match=f"camera 3: camera model {name} is not supported, but SIMPLE_PINHOLE, "):
        colmap.read_model(tmp_path)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"cameras": "1 FOV 64 48 50 50 32 24 0.1\n"}, "cameras.txt:1: camera model FOV is not supported"),
        ({"cameras": "1 PINHOLE 64 48 50 50 32\n"}, "cameras.txt:1: PINHOLE has 4 numbers, not 3"),
        ({"cameras": "1 PINHOLE 64\n"}, "cameras.txt:1: 3 fields, not 4"),
        ({"cameras": "1 PINHOLE 64 48 50 fifty 32 24\n"}, "not a number in '50 fifty 32 24'"),
        ({"cameras": "1 PINHOLE 64 48 -50 50 32 24\n"}, "fx of a lens is -50"),
        ({"cameras": "1 PINHOLE 64 48 nan 50 32 24\n"}, "fx of a lens is nan"),
        ({"cameras": "1 PINHOLE 64 48 50 50 32 24\n"}, "images.txt: left/a photo.jpg: no camera 7"),
        ({"images": "1 1 0 0 0 0.5 -1 2 7\n\n"}, "images.txt:1: 9 fields, not 10"),
        ({"images": "1 1 0 0 zero 0.5 -1 2 7 a.png\n\n"}, "images.txt:1: not a number"),
        ({"points": "1 0 0 0 1 2\n"}, "points3D.txt:1: 6 fields, not 8"),
        ({"points": "1 0 0 0 1 2 300 0\n"}, "a colour that is not from 0 to 255"),
        ({"cameras": "\0\1\2"}, "cameras.txt: not a text file"),
    ],
)
def test_text_that_is_not_sound(files, why, tmp_path):
    write_text(tmp_path, **files)
    with pytest.raises(ToolrollError) as error:
        colmap.read_model(tmp_path)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_poses_that_are_none(tmp_path):
    write_text(tmp_path, images="1 nan 0 0 0 0 0 0 7 a.png\n\n2 0 0 0 0 0 0 0 7 b.png\n\n3 1 0 0 0 inf 0 0 7 c.png\n\n")
    assert [image.pose for image in colmap.read_model(tmp_path).images] == [None, None, None]


def test_a_name_that_is_not_utf8(tmp_path):
    images = binary()["images.bin"].replace(b"b.png", b"\xff.pn")
    write_binary(tmp_path, images=images)
    name = colmap.read_model(tmp_path).images[1].name
    assert name.encode("utf-8", "surrogateescape") == b"\xff.pn"


def test_missing_files(tmp_path):
    assert not colmap.holds_model(tmp_path)
    write_binary(tmp_path)
    (tmp_path / "cameras.bin").unlink()
    assert not colmap.holds_model(tmp_path)
    with pytest.raises(ToolrollError, match=r"cameras\.txt: No such file"):
        colmap.read_model(tmp_path)


@every_form
@pytest.mark.parametrize(
    ("model", "number", "numbers", "lens"),
    [
        ("SIMPLE_RADIAL_FISHEYE", 8, [50, 32, 24, 0.1], (50, 50, (0.1, 0, 0, 0))),
        ("RADIAL_FISHEYE", 9, [50, 32, 24, 0.1, -0.2], (50, 50, (0.1, -0.2, 0, 0))),
        ("SIMPLE_FISHEYE", 14, [50, 32, 24], (50, 50, (0, 0, 0, 0))),
        ("FISHEYE", 15, [50, 51, 32, 24], (50, 51, (0, 0, 0, 0))),
    ],
)
def test_fisheyes_with_fewer_numbers(model, number, numbers, lens, text, tmp_path):
    fx, fy, distortion = lens
    if text:
        line = f"7 {model} 64 48 {' '.join(map(str, numbers))}\n3 PINHOLE 64 48 50 50 32 24\n"
        write_text(tmp_path, cameras=line)
    else:
        data = struct.pack("<Q", 2) + struct.pack(f"<iiQQ{len(numbers)}d", 7, number, 64, 48, *numbers)
        write_binary(tmp_path, cameras=data + struct.pack("<iiQQ4d", 3, 1, 64, 48, 50, 50, 32, 24))
    found = colmap.read_model(tmp_path).cameras[7]
    assert found == Lens("OPENCV_FISHEYE", 64, 48, fx, fy, 32, 24, distortion)


def test_empty_lines_that_were_left_out(tmp_path):
    """A program that drops them would lose each second image without a word."""
    lines = [f"{i} 1 0 0 0 0 0 {i} 7 left {i}.png" for i in (1, 2, 3)]
    write_text(tmp_path, images="\n".join(lines) + "\n")
    with pytest.raises(ToolrollError, match=r"images\.txt:2: no observations.*is the line behind an image.*left out"):
        colmap.read_model(tmp_path)
    write_text(tmp_path, images=f"{lines[0]}\n1  2.5 -1 3 4 12\n{lines[1]}\n\n{lines[2]}")
    assert len(colmap.read_model(tmp_path).images) == 3


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a b.png", True, "COLMAP's text files have no blanks in names: take binary ones"),
        ("a\tb.png", True, "COLMAP's text files have no blanks in names"),
        ("a\nb.png", True, "COLMAP's text files have no blanks in names"),
        ("a\nb.png", False, "has a line break"),
        ("a\rb.png", False, "has a line break"),
    ],
)
def test_names_that_cannot_be_written(name, text, why, tmp_path):
    image = (name, np.eye(4), lens_of("PINHOLE", 96, 64))
    with pytest.raises(ToolrollError, match=why) as error:
        colmap.write_model(tmp_path / "m", [image], Points.none(), text=text)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m").exists()
    colmap.write_model(tmp_path / "m", [("a b.png", *image[1:])], Points.none(), text=False)
    assert colmap.read_model(tmp_path / "m").images[0].name == "a b.png"


def test_numbers_that_no_photo_has(tmp_path):
    for size, told in (("9" * 400, "1e+300"), (str(2**40), "1.09951e+12")):
        write_text(tmp_path, cameras=f"1 PINHOLE {size} {size} 50 50 32 24\n")
        with pytest.raises(ToolrollError) as error:
            colmap.read_model(tmp_path)
        assert str(error.value) == f"{tmp_path}/cameras.txt:1: width of a lens is {told}"
    images = binary()["images.bin"].replace(b"left/a photo.jpg\0", b"\x1b[2J" + b"x" * 5000 + b"\0")
    write_binary(tmp_path, images=images[: 8 + 64 + 5005] + struct.pack("<Q", 2**60))
    with pytest.raises(ToolrollError) as error:
        colmap.read_model(tmp_path)
    assert "observations in \\x1b[2Jxxxx" in str(error.value)
    assert len(str(error.value)) < 400
