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
from toolroll.splat.ply import read_ply, write_ply, write_splat  # noqa: E402
from toolroll.splat.poses import rotation  # noqa: E402

BALLS = {"red": (0.0, 0.0, 4.0), "green": (1.0, 0.0, 4.0), "blue": (0.0, 1.0, 4.0)}  #: x right, y down, z ahead
CAMERA = {
    "image": "a/first.jpg", "world_to_camera": np.eye(4).tolist(),
    "width": 80, "height": 60, "fx": 60.0, "fy": 60.0, "cx": 40.0, "cy": 30.0,
}  # fmt: skip


def render(folder, *args, rc=0, env=None):
    argv = [str(frame.BIN / "nvs-render"), *map(str, args), "--device", "cpu"]
    result = frame.run(argv, cwd=folder, env=env)
    assert rc is None or result.rc == rc, result.err
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
    done = frame.run(argv, cwd=root)
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
        ({"width": 10**9}, "a/first.jpg: 1000000000 x 60, more than 16384 pixels"),
        ({"fx": 1e-300}, "a/first.jpg: fx, fy, cx or cy is of no lens"),
        ({"cy": -1e30}, "a/first.jpg: fx, fy, cx or cy is of no lens"),
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
    result = render(balls, *args, "--out", "out", rc=rc)
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


# --- what other programs write


def test_a_folder_of_the_original_code(balls):
    (balls / "model/point_cloud/iteration_30").mkdir(parents=True)
    shutil.copy(balls / "balls.ply", balls / "model/point_cloud/iteration_30/point_cloud.ply")
    turn, place = rotation([0.9, 0.1, -0.2, 0.3]), np.array([0.3, -0.2, 0.5])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, turn @ -place
    listed = {"id": 0, "img_name": "shot.01", "position": place.tolist(), "rotation": turn.T.tolist()}
    listed |= {"width": 80, "height": 60, "fx": 60.0, "fy": 61.0}
    (balls / "model/cameras.json").write_text(json.dumps([listed]))
    ours = {**CAMERA, "image": "shot.01", "world_to_camera": pose.tolist(), "fy": 61.0}
    (balls / "ours.jsonl").write_text(json.dumps(ours))
    (row,) = render(balls, "model", "--cameras", "model/cameras.json", "--out", "one").rows
    render(balls, "balls.ply", "--cameras", "ours.jsonl", "--out", "two")
    assert np.array(row["world_to_camera"]) == pytest.approx(pose, abs=1e-12)
    assert row["render"] == "shot.01.png"
    assert (pixels(balls / "one/shot.01.png") == pixels(balls / "two/shot.01.png")).all()
    for text in ("[]", json.dumps([{**listed, "rotation": [[1]]}]), json.dumps([{**listed, "position": [1e300] * 3}])):
        (balls / "model/cameras.json").write_text(text)
        result = render(balls, "model", "--cameras", "model/cameras.json", "--out", "none", rc=1)
        assert result.err.startswith("nvs-render: model/cameras.json: ")


def test_a_splat_file(balls):
    write_splat(balls / "balls.splat", read_ply(balls / "balls.ply"))
    for name in ("balls.ply", "balls.splat"):
        render(balls, name, "--cameras", "cameras.jsonl", "--out", name[-3:])
    assert np.abs(pixels(balls / "ply/a/first.png") - pixels(balls / "lat/a/first.png")).max() <= 3


# --- what must not be written over


def test_two_cameras_of_one_picture_are_refused(balls):
    twice = [CAMERA, {**CAMERA, "image": "a/first.png"}]
    (balls / "twice.jsonl").write_text("".join(json.dumps(one) + "\n" for one in twice))
    result = render(balls, "balls.ply", "--cameras", "twice.jsonl", "--out", "out", rc=2)
    assert result.err.strip() == "nvs-render: a/first.png: two cameras have a picture of this name"
    assert not (balls / "out").exists()


def test_pictures_are_not_written_among_photos(trained):
    before = (trained / "scene/images/frame_00003.png").read_bytes()
    result = render(trained, "out", "--cameras", "scene", "--out", "scene/images", rc=2)
    assert result.err.strip() == "nvs-render: --out: pictures would be among the photos of the scene"
    assert (trained / "scene/images/frame_00003.png").read_bytes() == before


@pytest.mark.parametrize("name", ["balls.ply", "cameras.jsonl"])
@pytest.mark.parametrize("option", ["-o", "--video"])
def test_what_is_read_is_not_written_over(balls, name, option):
    before = (balls / name).read_bytes()
    result = render(balls, "balls.ply", "--cameras", "cameras.jsonl", "--out", "out", option, name, rc=2)
    assert result.err.strip() == f"nvs-render: {name}: input and output are the same file"
    assert (balls / name).read_bytes() == before
    assert not (balls / "out").exists()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--frames", 3), "--frames: goes with --path"),
        (("--fps", 3), "--fps: goes with --video"),
        (("--scene", "."), "--scene: is for a network (nvs-train --method ibrnet), not for Gaussians"),
        (("--split", "every:2"), "--split: is for a network (nvs-train --method ibrnet), not for Gaussians"),
        (("--device", "gpu"), "--device: 'gpu' is not auto, cpu, cuda or cuda:N"),
    ],
)
def test_options_that_would_do_nothing(balls, args, why):
    argv = [str(frame.BIN / "nvs-render"), "balls.ply", "--cameras", "cameras.jsonl", "--out", "out", *map(str, args)]
    result = frame.run(argv, cwd=balls)
    assert (result.rc, result.err.strip()) == (2, f"nvs-render: {why}")


# --- films


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", ["-x.mp4", "a: b.mp4", "100%d 'x'.webm", "new\nline.mp4"])
def test_films_of_any_name(balls, name):
    args = ("balls.ply", "--cameras", "cameras.jsonl", "--out", "o%d u\nt", f"--video={name}")
    render(balls, *args, env={"TMPDIR": str(balls / "t%05d")} if (balls / "t%05d").mkdir() is None else {})
    assert (balls / name).stat().st_size > 500
    assert not [path.name for path in balls.iterdir() if "part" in path.name]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    ("film", "why"),
    [
        ("film.xyz", "film.xyz: ffmpeg failed: "),
        ("none/film.mp4", "its folder does not exist"),
        (".", "Is a directory"),
    ],
)
def test_films_that_cannot_be_are_refused_before_anything_is_drawn(balls, film, why):
    result = render(balls, "balls.ply", "--cameras", "cameras.jsonl", "--video", film, "--out", "out", rc=None)
    assert result.rc in (1, 2)
    assert why in result.err
    assert len(result.err.splitlines()) == 1
    assert not (balls / "out").exists()


def test_a_film_has_pictures_of_one_size(balls):
    both = [CAMERA, {**CAMERA, "image": "b.png", "width": 60, "height": 80}]
    (balls / "both.jsonl").write_text("".join(json.dumps(one) + "\n" for one in both))
    result = render(balls, "balls.ply", "--cameras", "both.jsonl", "--video", "film.mp4", "--out", "out", rc=2)
    assert result.err.strip() == "nvs-render: --video: pictures have different sizes: say --size"


# --- networks


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two networks, of one scene and of two, and a scene that neither knows."""
    root = tmp_path_factory.mktemp("networks")
    for seed, name in enumerate(("a", "b", "c")):
        write_scene(root / name, shots=9, size=(60, 44), lens="OPENCV", points=100, seed=seed)
    own = ("--method", "ibrnet", "--trunk-width", "4", "--views", "3", "--samples", "8", "--fine-samples", "4")
    own += ("--rays", "8", "--photo-side", "32", "--steps", "2", "--device", "cpu", "--out")
    for args in (("a", *own, "one"), ("a", "b", *own, "two")):
        done = frame.run([str(frame.BIN / "nvs-train"), *args], cwd=root)
        assert done.rc == 0, done.err
    return root


def test_a_network_gives_the_pictures_that_training_gave(networks, tmp_path):
    rows = render(networks, "one", "--out", tmp_path / "again").rows
    assert [(row["image"], row["part"]) for row in rows] == [("frame_00001.png", "test"), ("frame_00009.png", "test")]
    for row in rows:
        assert (row["width"], row["height"]) == (32, 23)
        assert 0 < row["coverage"] <= 1
        name = row["render"]
        assert (tmp_path / "again" / name).read_bytes() == (networks / "one/renders" / name).read_bytes()
    (rows_of_b,) = {row["render"] for row in render(networks, "two", "--scene", "b", "--out", tmp_path / "b").rows[:1]}
    assert (tmp_path / "b" / rows_of_b).read_bytes() == (networks / "two/renders/b" / rows_of_b).read_bytes()


def test_a_network_does_not_look_at_the_photo_of_the_very_camera(networks, tmp_path):
    from toolroll.splat.finding import open_scene
    from toolroll.splat.ibrnet_scenes import IbrScene
    from toolroll.splat.ibrnet_training import open_ibrnet
    from toolroll.splat.splitting import part_shots

    render(networks, "one", "--part", "train", "--out", tmp_path / "train")
    scene = open_scene(networks / "a")
    place, opened = IbrScene(scene, part_shots(scene.shots)[0], side=32), open_ibrnet(networks / "one")
    name, eye = place.train.shots[2].name, place.train.eyes[2]
    expected = np.rint(opened.draw(place, eye, leave_out=2).numpy() * 255)
    assert (pixels(tmp_path / "train" / name) == expected).all()
    assert (pixels(tmp_path / "train" / name) != np.rint(opened.draw(place, eye).numpy() * 255)).any()


@pytest.mark.parametrize("way", ["interpolate", "orbit", "spiral"])
def test_ways_of_a_network(networks, tmp_path, way):
    args = ("one", "--path", way, "--frames", 3, "--size", "20x30", "--depth", "--out", tmp_path / "way")
    rows = render(networks, *args).rows
    assert [row["render"] for row in rows] == ["0.png", "1.png", "2.png"]
    for row in rows:
        assert pixels(tmp_path / "way" / row["render"]).shape == (30, 20, 3)
        depth = np.load(tmp_path / "way" / row["depth"])
        assert depth.shape == (30, 20)
        assert 0 < float(np.median(depth)) < 50


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_film_by_a_network(networks, tmp_path):
    args = ("--path", "spiral", "--frames", 2, "--video", tmp_path / "film.mp4", "--out", tmp_path / "way")
    render(networks, "one", *args)
    assert (tmp_path / "film.mp4").stat().st_size > 500


def test_a_network_draws_a_scene_that_it_does_not_know(networks, tmp_path):
    rows = render(networks, "two", "--scene", "c", "--out", tmp_path / "c").rows
    assert [row["image"] for row in rows] == ["frame_00001.png", "frame_00009.png"]
    rows = render(networks, "one", "--scene", "c", "--split", "every:4", "--out", tmp_path / "d").rows
    assert len(rows) == 3
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "cameras.jsonl").write_text(lines)
    args = ("one", "--scene", "c", "--cameras", tmp_path / "cameras.jsonl", "--out", tmp_path / "e")
    assert len(render(networks, *args).rows) == 3


def test_photos_of_a_network_that_are_gone(networks, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(networks, folder)
    (folder / "a/images/frame_00003.png").unlink()
    text = (folder / "one/train.json").read_text().replace(str(networks), str(folder))
    (folder / "one/train.json").write_text(text)
    result = render(folder, "one", "--out", "some")
    assert "photos that it was trained on are missing: 1 (frame_00003.png)" in result.err
    (folder / "a").rename(folder / "moved")
    place = f"nvs-render: one/train.json: its scene, {folder / 'a'}, is not there (--scene says where it is)"
    assert render(folder, "one", "--out", "none", rc=1).err.strip() == place
    (folder / "elsewhere").mkdir()
    (folder / "moved").rename(folder / "elsewhere/a")
    render(folder, "one", "--scene", "elsewhere/a", "--out", "again")
    name = "frame_00001.png"
    assert (folder / "again" / name).read_bytes() == (folder / "some" / name).read_bytes()
    for number in range(4, 8):
        (folder / f"elsewhere/a/images/frame_0000{number}.png").unlink()
    result = render(folder, "one", "--scene", "elsewhere/a", "--out", "few", rc=1)
    assert "2 photos to train on: a network that blends photos wants 3" in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "rc", "why"),
    [
        (("two",), 2, "two: was trained on several scenes: say --scene (a, b, or another)"),
        (("two", "--scene", "z"), 2, "--scene: z is neither there nor a scene of the training (a, b)"),
        (("one", "--sh-degree", 1), 2, "--sh-degree: is for Gaussians, not for a network"),
        (("one", "--background", "white"), 2, "--background: is for Gaussians, not for a network"),
        (("one", "--back-end", "numba"), 2, "--back-end: is for Gaussians, not for a network"),
        (("one", "--images", "images_8"), 1, "images_8: no such folder in"),
        (("one", "--part", "val"), 2, "one: the model has no val photos: say --part"),
        (("one", "--out", "a/images"), 2, "--out: pictures would be among the photos of the scene"),
    ],
)
def test_what_a_network_cannot_draw(networks, args, rc, why):
    result = render(networks, "--out", "none", *args, rc=rc)
    assert result.err.startswith(f"nvs-render: {why}")
    assert len(result.err.splitlines()) == 1
    assert not (networks / "none").exists()


def test_a_network_whose_files_are_not_sound(networks, tmp_path):
    shutil.copytree(networks / "one", tmp_path / "one")
    about = (tmp_path / "one/train.json").read_text()
    for text in ("[]", "{}", about.replace('"near"', '"nearly"'), about[:-9], about.replace('"near": ', '"near": -')):
        (tmp_path / "one/train.json").write_text(text)
        result = render(tmp_path, "one", "--out", "none", rc=1)
        assert result.err.startswith("nvs-render: one/train.json: is no train.json of nvs-train: ")
        assert len(result.err.splitlines()) == 1
    (tmp_path / "one/train.json").unlink()
    assert "one: has no train.json" in render(tmp_path, "one", "--out", "none", rc=1).err
