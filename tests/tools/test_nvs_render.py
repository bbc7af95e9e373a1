"""nvs-render: pictures from cameras and along ways, depths, films, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess

import frame
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from toolroll.splat.drawn import write_scene  # noqa: E402
from toolroll.splat.gaussians import SH0, Gaussians  # noqa: E402
from toolroll.splat.ply import write_ply  # noqa: E402

BALLS = {"red": (0.0, 0.0, 4.0), "green": (1.0, 0.0, 4.0), "blue": (0.0, 1.0, 4.0)}  #: x right, y down, z ahead
CAMERA = {
    "image": "a/first.jpg", "world_to_camera": np.eye(4).tolist(),
    "width": 80, "height": 60, "fx": 60.0, "fy": 60.0, "cx": 40.0, "cy": 30.0,
}  # fmt: skip


def render(folder, *args, rc=0, env=None):
    argv = [str(frame.BIN / "nvs-render"), *map(str, args), "--device", "cpu"]
    result = frame.run(argv, cwd=folder, warm_start=True, env=env)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture
def balls(tmp_path):
    """Three balls in a PLY, and a camera."""
    sh = torch.full((3, 1, 3), -0.5 / SH0)
    for number in range(3):
        sh[number, 0, number] = 0.5 / SH0
    made = Gaussians(
        torch.tensor(list(BALLS.values())),
        torch.tensor([[1.0, 0, 0, 0]] * 3),
        torch.full((3, 3), 0.1).log(),
        torch.full((3,), 6.0),
        sh,
    )
    write_ply(tmp_path / "balls.ply", made)
    (tmp_path / "cameras.jsonl").write_text(json.dumps(CAMERA) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    write_scene(root / "scene", shots=9, size=(48, 32), lens="OPENCV", points=200)
    argv = [
        str(frame.BIN / "nvs-train"),
        "scene",
        "--steps",
        "20",
        "--sh-degree",
        "1",
        "--out",
        "out",
        "--device",
        "cpu",
    ]
    done = frame.run(argv, cwd=root, warm_start=True)
    assert done.rc == 0, done.err
    return root


def test_things_are_where_they_are_and_of_their_colours(balls):
    (row,) = render(balls, "balls.ply", "--cameras", "cameras.jsonl", "--out", "out").rows
    assert (row["image"], row["render"]) == ("a/first.jpg", "a/first.png")
    assert 0 < row["coverage"] < 0.2
    picture = pixels(balls / "out/a/first.png")
    for (x, y, z), colour in zip(BALLS.values(), np.eye(3), strict=True):
        at = picture[round(60 * y / z + 30), round(60 * x / z + 40)]
        assert at == pytest.approx(255 * colour, abs=30)
    assert picture[5, 5].tolist() == [0, 0, 0]


def test_background_and_size(balls):
    args = ("balls.ply", "--cameras", "cameras.jsonl", "--background", "white", "--size", "160x100", "--out", "out")
    (row,) = render(balls, *args).rows
    assert [row[name] for name in ("width", "height", "fx", "fy", "cx", "cy")] == [160, 100, 120, 120, 80, 50]
    picture = pixels(balls / "out/a/first.png")
    assert picture.shape == (100, 160, 3)
    assert picture[2, 2].tolist() == [255, 255, 255]
    assert picture[50, 80] == pytest.approx([255, 0, 0], abs=30)


def test_depth(balls):
    (row,) = render(balls, "balls.ply", "--cameras", "cameras.jsonl", "--depth", "--out", "out").rows
    depth = np.load(balls / "out" / row["depth"])
    assert (depth.shape, depth.dtype) == ((60, 80), np.float32)
    assert depth[30, 40] == pytest.approx(4.0, abs=1e-4)
    assert depth[5, 5] == 0


def test_what_it_writes_it_reads_as_cameras(balls):
    first = render(
        balls, "balls.ply", "--cameras", "cameras.jsonl", "--path", "interpolate", "--frames", 3, "--out", "one"
    )
    (balls / "again.jsonl").write_bytes(first.out)
    render(balls, "balls.ply", "--cameras", "again.jsonl", "--out", "two")
    assert [row["render"] for row in first.rows] == ["0.png", "1.png", "2.png"]
    for name in ("0.png", "1.png", "2.png"):
        assert (pixels(balls / "one" / name) == pixels(balls / "two" / name)).all()


def test_a_trained_folder_gives_the_pictures_that_training_gave(trained, tmp_path):
    rows = render(trained, "out", "--out", tmp_path / "again").rows
    assert [(row["image"], row["part"]) for row in rows] == [
        ("frame_00001.png", "test"),
        ("frame_00009.png", "test"),
    ]
    for row in rows:
        one, other = pixels(tmp_path / "again" / row["render"]), pixels(trained / "out/renders" / row["render"])
        assert np.abs(one - other).max() <= 1
    assert len(render(trained, "out", "--part", "train", "--out", tmp_path / "train").rows) == 7


def test_cameras_of_a_scene_are_straightened(trained, tmp_path):
    rows = render(trained, "out/point_cloud.ply", "--cameras", "scene", "--out", tmp_path / "all").rows
    assert len(rows) == 9
    one = pixels(tmp_path / "all/frame_00001.png")
    assert np.abs(one - pixels(trained / "out/renders/frame_00001.png")).max() <= 2


@pytest.mark.parametrize("way", ["interpolate", "orbit", "spiral"])
def test_ways(trained, tmp_path, way):
    rows = render(trained, "out", "--part", "all", "--path", way, "--frames", 12, "--out", tmp_path / "way").rows
    assert [row["render"] for row in rows] == [f"{number:02}.png" for number in range(12)]
    assert len({json.dumps(row["world_to_camera"]) for row in rows}) == 12
    assert all(row["coverage"] > 0.05 for row in rows)


def test_a_film(balls):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    args = ("--cameras", "cameras.jsonl", "--path", "interpolate", "--frames", 5, "--size", "81x61", "--fps", 10)
    render(balls, "balls.ply", *args, "--out", "out", "--video", "a film.mp4")
    probe = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames,width,height"]
    done = subprocess.run(
        [*probe, "-of", "csv=p=0", "a film.mp4"], cwd=balls, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "82,62,5"


def test_without_ffmpeg_a_film_is_refused_before_anything_is_drawn(balls):
    args = ("balls.ply", "--cameras", "cameras.jsonl", "--video", "film.mp4", "--out", "out")
    result = render(balls, *args, rc=2, env={"PATH": str(balls)})
    assert result.err.strip() == "nvs-render: --video: wants ffmpeg, which is not installed"
    assert not (balls / "out").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fx": 0}, "is no camera: Expected `float` > 0.0 - at `$.fx`"),
        ({"width": 2.5}, "is no camera: Expected `int`, got `float` - at `$.width`"),
        ({"world_to_camera": [[1, 2], [3, 4]]}, "a/first.jpg: world_to_camera is no pose"),
        ({"world_to_camera": np.diag([1, 1, -1, 1]).tolist()}, "a/first.jpg: world_to_camera is no pose"),
    ],
)
def test_cameras_that_are_none(balls, change, why):
    (balls / "bad.jsonl").write_text(json.dumps(CAMERA) + "\n" + json.dumps({**CAMERA, **change}) + "\n")
    result = render(balls, "balls.ply", "--cameras", "bad.jsonl", "--out", "out", rc=1)
    assert result.err.strip() == f"nvs-render: bad.jsonl:2: {why}"
    assert result.out == b""


@pytest.mark.parametrize(
    ("args", "rc", "why"),
    [
        (("balls.ply",), 2, "balls.ply: a PLY has no cameras: say --cameras"),
        (("none.ply", "--cameras", "cameras.jsonl"), 1, "none.ply: No such file or directory"),
        (("cameras.jsonl", "--cameras", "cameras.jsonl"), 1, "cameras.jsonl: "),
        ((".", "--cameras", "cameras.jsonl"), 1, ".: has no point_cloud.ply"),
        (("balls.ply", "--cameras", "none.jsonl"), 2, "none.jsonl: No such file or directory"),
        (("balls.ply", "--cameras", "cameras.jsonl", "--size", "80"), 2, "--size: want WIDTHxHEIGHT"),
        (("balls.ply", "--cameras", "cameras.jsonl", "--path", "orbit"), 0, ""),
    ],
)
def test_what_cannot_be_drawn(balls, args, rc, why):
    result = render(balls, *args, "--frames", 2, "--out", "out", rc=rc)
    assert why in result.err
    assert len(result.err.splitlines()) == 1 or rc == 0


def test_a_name_that_leads_out_of_the_folder_is_refused(balls):
    (balls / "bad.jsonl").write_text(json.dumps({**CAMERA, "image": "../../evil.png"}))
    result = render(balls, "balls.ply", "--cameras", "bad.jsonl", "--out", "deep/out", rc=1)
    assert "evil.png" in result.err
    assert not (balls.parent / "evil.png").exists()
    assert not (balls / "evil.png").exists()


def test_one_that_is_not_finite_is_left_out(balls):
    data = bytearray((balls / "balls.ply").read_bytes())
    data[-4 * 14 * 3 + 4 * 6 : -4 * 14 * 3 + 4 * 7] = np.float32("nan").tobytes()  # the opacity of the red one
    (balls / "broken.ply").write_bytes(data)
    render(balls, "broken.ply", "--cameras", "cameras.jsonl", "--out", "out")
    picture = pixels(balls / "out/a/first.png")
    assert picture[30, 40].max() < 30
    assert picture[30, 55] == pytest.approx([0, 255, 0], abs=30)
