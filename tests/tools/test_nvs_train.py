"""nvs-train: it learns a scene, stops and goes on to the bit, and says in one line what it cannot train on."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import time

import frame
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from toolroll.splat.drawn import write_scene  # noqa: E402
from toolroll.splat.ply import read_ply  # noqa: E402
from toolroll.splat.points import read_points  # noqa: E402

SHORT = ("--sh-degree", "1", "--device", "cpu")


def train(folder, *args, rc=0, env=None):
    own = SHORT[2:] if "ibrnet" in args else SHORT
    argv = [str(frame.BIN / "nvs-train"), *own, *map(str, args)]
    result = frame.run(argv, cwd=folder, env=env)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_scene(root / "a scene", shots=9, size=(60, 44), lens="OPENCV", points=400)
    return root


@pytest.fixture
def scene(drawn, tmp_path):
    shutil.copytree(drawn / "a scene", tmp_path / "a scene")
    return tmp_path


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def bytes_of(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "state" not in path.parts
    }


def test_it_learns_a_scene_and_writes_what_others_read(scene):
    rows = train(scene, "a scene", "--steps", 240, "--report-every", 80, "--eval-every", 80, "--out", "out").rows
    assert [row["step"] for row in rows] == [80, 160, 240]
    assert rows[2]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[2]["psnr_db"] > max(17, rows[0]["psnr_db"] + 1)
    assert rows[0]["ssim"] < rows[2]["ssim"] <= 1
    made = read_ply(scene / "out/point_cloud.ply")
    assert len(made) == rows[2]["n_gaussians"]
    points = read_points(scene / "a scene/points.ply").places  # the PLY is in the world of the scene
    middle = made.means[made.logits.sigmoid() > 0.5].double().numpy()
    assert np.abs(np.median(middle, axis=0) - np.median(points, axis=0)).max() < 0.5
    about = json.loads((scene / "out/train.json").read_text())
    assert [camera["part"] for camera in about["cameras"]] == ["test", *["train"] * 7, "test"]
    names = {"frame_00001.png", "frame_00009.png"}
    assert {path.name for path in (scene / "out/renders").iterdir()} == names
    lens = about["cameras"][0]
    assert pixels(scene / "out/renders/frame_00001.png").shape == (lens["height"], lens["width"], 3)
    assert pixels(scene / "out/compare/frame_00001.png").shape == (lens["height"], 2 * lens["width"], 3)


def test_half_and_half_equal_the_whole(scene):
    """Stopped between two refinements, and in the middle of their statistics."""
    args = ("a scene", "--steps", 60, "--refine-from", 5, "--refine-every", 10, "--grow-gradient", 1e-5, "--out")
    whole = train(scene, *args, "whole").rows
    first = train(scene, *args, "half", "--stop-after", 27)
    assert first.rows == []
    assert not (scene / "half/renders").exists()
    second = train(scene, *args, "half")
    assert "goes on behind step 27" in second.err
    assert second.rows[-1]["n_gaussians"] == whole[-1]["n_gaussians"] > 400
    assert second.rows[-1]["psnr_db"] == whole[-1]["psnr_db"]
    one, other = bytes_of(scene / "whole"), bytes_of(scene / "half")
    one.pop("train.json"), other.pop("train.json")
    assert one == other
    assert train(scene, *args, "half").rows == []  # it is done


def test_a_term_ends_it_after_the_step_in_hand(scene):
    argv = [str(frame.BIN / "nvs-train"), "a scene", "--steps", "400", "--out", "out", "--report-every", "5", *SHORT]
    with frame.started(argv, cwd=scene) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        done = frame.ended(process)
    assert done.rc == 75, done.err
    step = json.loads((scene / "out/train.json").read_text())["step"]
    assert 5 <= step < 400
    assert (
        "goes on behind step" in train(scene, "a scene", "--steps", 400, "--out", "out", "--stop-after", step + 1).err
    )


def test_a_kill_costs_what_was_not_saved(scene):
    args = ("a scene", "--steps", "60", "--save-every", "10", "--report-every", "10", "--out")
    argv = [str(frame.BIN / "nvs-train"), *args, "killed", *SHORT]
    with frame.started(argv, cwd=scene) as process:
        for _ in range(2):
            process.stdout.readline()
        process.kill()
        process.wait()
    time.sleep(0.1)
    train(scene, *args, "whole")
    done = train(scene, *args, "killed")
    assert "goes on behind step" in done.err
    one, other = bytes_of(scene / "whole"), bytes_of(scene / "killed")
    one.pop("train.json"), other.pop("train.json")
    assert one == other


def test_a_second_training_in_the_folder_is_refused(scene):
    args = ("a scene", "--steps", "400", "--out", "out", "--report-every", "5")
    with frame.started([str(frame.BIN / "nvs-train"), *args, *SHORT], cwd=scene) as process:
        process.stdout.readline()
        result = train(scene, *args, rc=1)
        assert result.err.strip() == "nvs-train: out: another trainer is at work on it"
        process.send_signal(signal.SIGUSR1)
        assert frame.ended(process).rc == 75
    train(scene, *args, "--stop-after", 1)


def test_a_kill_right_behind_the_last_checkpoint(scene):
    """The PLY and what stands beside it are made up for, to the bit."""
    args = ("a scene", "--steps", 6, "--save-every", 3, "--out")
    train(scene, *args, "whole")
    train(scene, *args, "killed", "--stop-after", 3)
    older = {name: (scene / "killed" / name).read_bytes() for name in ("point_cloud.ply", "train.json")}
    train(scene, *args, "killed")
    for name, data in older.items():
        (scene / "killed" / name).write_bytes(data)
    shutil.rmtree(scene / "killed/renders")
    train(scene, *args, "killed")
    assert bytes_of(scene / "killed") == bytes_of(scene / "whole")


def test_a_state_of_other_photos_is_refused(scene):
    train(scene, "a scene", "--steps", 4, "--exposure", "--out", "out", "--stop-after", 2)
    changed(scene, lambda about: about.update(frames=about["frames"][:6]))
    result = train(scene, "a scene", "--steps", 4, "--exposure", "--out", "out", rc=1)
    assert result.err.strip() == "nvs-train: out: its state is of another training"


def test_a_damaged_checkpoint_is_told_in_one_line(scene):
    train(scene, "a scene", "--steps", 4, "--out", "out", "--stop-after", 2)
    (scene / "out/state/current/tensors.safetensors").write_bytes(pickle.dumps({"means": [1.0]}))
    result = train(scene, "a scene", "--steps", 4, "--out", "out", rc=1)
    place = "out/state/current: its checkpoint is damaged; another --out begins anew"
    assert result.err.strip() == f"nvs-train: {place}"


def test_threads_change_no_byte(scene):
    for threads in ("1", "3"):
        train(scene, "a scene", "--steps", 12, "--out", threads, env={"OMP_NUM_THREADS": threads})
    one, other = bytes_of(scene / "1"), bytes_of(scene / "3")
    assert one == other


def test_another_training_in_the_same_folder_is_refused(scene):
    train(scene, "a scene", "--steps", 4, "--out", "out", "--stop-after", 2)
    result = train(scene, "a scene", "--steps", 4, "--out", "out", "--seed", 7, rc=1)
    assert result.err.strip() == "nvs-train: --seed: training began with 0; 7 would be another one"
    result = train(scene, "a scene", "--steps", 8, "--out", "out", "--lr-quats", 0.1)
    assert "--steps was 4, is now 8" in result.err
    assert "--lr-quats was 0.001, is now 0.1" in result.err


@pytest.mark.parametrize(
    "args",
    [
        ("--growth", "mcmc", "--cap", "410"),
        ("--growth", "none", "--exposure", "--background", "random", "--antialiased"),
        ("--start", "random:300", "--split", "fraction:.9"),
        ("--back-end", "torch", "--start-most", "50"),
        ("--image-memory", "1k",),
    ],
    ids=lambda args: "".join(args),
)  # fmt: skip
def test_other_ways(scene, args):
    row = train(scene, "a scene", "--steps", 12, "--refine-from", 3, "--refine-every", 3, "--out", "out", *args).rows[
        -1
    ]
    assert row["n_gaussians"] <= 410 or "mcmc" not in args
    assert np.isfinite(row["loss"])
    comments = (scene / "out/point_cloud.ply").read_bytes().split(b"end_header")[0]
    assert (b"mip" in comments) == ("--antialiased" in args)


def test_it_begins_where_a_ply_ends(scene):
    train(scene, "a scene", "--steps", 150, "--out", "first")
    first = train(scene, "a scene", "--steps", 1, "--out", "again", "--start", "ply:first/point_cloud.ply").rows[0]
    fresh = train(scene, "a scene", "--steps", 1, "--out", "fresh").rows[0]
    assert first["loss"] < 0.5 * fresh["loss"]


def test_masks_and_alpha_leave_pixels_out(scene):
    for path in (scene / "a scene/images").iterdir():
        with Image.open(path) as photo:
            image = photo.convert("RGBA")
        image.putalpha(Image.new("L", image.size, 255))
        image.paste((255, 0, 255, 0), (0, 0, 20, 20))
        image.save(path)
    row = train(scene, "a scene", "--steps", 150, "--out", "out").rows[-1]
    render = pixels(scene / "out/renders/frame_00001.png")
    assert row["psnr_db"] > 15
    magenta = (np.abs(render - [255, 0, 255]).sum(2) < 60).sum()
    assert magenta == 0  # of what is transparent nothing was learned


# --- what cannot be trained on


def changed(scene, change) -> None:
    path = scene / "a scene/transforms.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_a_scene_without_points_begins_anywhere(scene):
    changed(scene, lambda about: about.pop("ply_file_path"))
    result = train(scene, "a scene", "--steps", 2, "--out", "out")
    assert "no points: training begins with 20000 anywhere" in result.err


def test_a_scene_with_one_photo(scene):
    changed(scene, lambda about: about.update(frames=about["frames"][:1]))
    result = train(scene, "a scene", "--steps", 3, "--out", "out")
    assert "no photo is left to test" in result.err
    assert result.rows[-1].get("psnr_db") is None


def test_missing_photos_are_warned_about(scene):
    (scene / "a scene/images/frame_00004.png").unlink()
    result = train(scene, "a scene", "--steps", 2, "--out", "out")
    assert "frame_00004.png" in result.err
    assert train(scene, "a scene", "--steps", 2, "--out", "strict", "--strict", rc=1).rows == []


def test_broken_photos(scene):
    """One that is cut short is left out; one that turns out to be damaged when it is drawn ends it in one line."""
    path = scene / "a scene/images/frame_00004.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    result = train(scene, "a scene", "--steps", 2, "--out", "out")
    assert "frame_00004.png" in result.err
    assert len(json.loads((scene / "out/train.json").read_text())["cameras"]) == 8
    path.write_bytes(whole[:200] + bytes(300) + whole[500:])
    result = train(scene, "a scene", "--steps", 20, "--out", "other", rc=1)
    assert "frame_00004.png" in result.err.splitlines()[-1]


def test_a_nan_in_a_ply_drops_one_gaussian(scene):
    train(scene, "a scene", "--steps", 30, "--out", "first")
    gaussians = read_ply(scene / "first/point_cloud.ply")
    data = bytearray((scene / "first/point_cloud.ply").read_bytes())
    start = len(data) - 4 * (len(data) - data.index(b"end_header\n") - 11) // 4
    width = (len(data) - start) // len(gaussians)
    at = data[: data.index(b"end_header")].decode().split("property float ")[1:]
    place = [name.strip() for name in at].index("opacity")
    data[start + 4 * place : start + 4 * place + 4] = np.float32("nan").tobytes()
    assert width % 4 == 0
    (scene / "broken.ply").write_bytes(data)
    assert int((~read_ply(scene / "broken.ply").finite()).sum()) == 1
    row = train(scene, "a scene", "--steps", 1, "--growth", "none", "--out", "out", "--start", "ply:broken.ply").rows[0]
    assert np.isfinite(row["loss"])
    assert len(read_ply(scene / "out/point_cloud.ply")) == len(gaussians) - 1


def test_what_is_not_finite_is_not_begun_with(scene):
    """A mean over all, as mcmc's rules have it, would be none."""
    train(scene, "a scene", "--steps", 1, "--out", "first")
    made = read_ply(scene / "first/point_cloud.ply")
    write_broken(scene / "broken.ply", made, 1)
    args = ("a scene", "--steps", 8, "--growth", "mcmc", "--refine-from", 1, "--refine-every", 2, "--start")
    result = train(scene, *args, "ply:broken.ply", "--out", "out")
    assert f"1 of {len(made)} Gaussians of broken.ply are not finite and left out" in result.err
    assert np.isfinite(result.rows[-1]["loss"])
    write_broken(scene / "none.ply", made, len(made))
    result = train(scene, *args, "ply:none.ply", "--out", "none", rc=1)
    assert result.err.strip() == "nvs-train: none.ply: has no Gaussians to begin with"


def write_broken(path, gaussians, count) -> None:
    """A PLY whose first opacities are no numbers."""
    from toolroll.splat.ply import property_names, table_of

    table = table_of(gaussians)
    names = property_names(gaussians.sh.shape[1])
    table[:count, names.index("opacity")] = np.nan
    head = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{head}end_header\n"
    path.write_bytes(header.encode() + table.tobytes())


def test_rates_that_are_too_high_end_it_in_one_line(scene):
    args = ("a scene", "--steps", 30, "--growth", "mcmc", "--lr-means", 1e30, "--lr-scales", 1e30, "--out", "out")
    result = train(scene, *args, rc=1)
    assert "try lower rates" in result.err.splitlines()[-1]


def test_a_scene_in_which_nothing_is_left(scene):
    from dataclasses import replace

    from toolroll.splat.ply import write_ply

    train(scene, "a scene", "--steps", 1, "--out", "first")
    made = read_ply(scene / "first/point_cloud.ply")
    write_ply(scene / "faint.ply", replace(made, logits=made.logits - 9))
    args = ("--start", "ply:faint.ply", "--lr-opacities", 0, "--refine-from", 1, "--refine-every", 2)
    result = train(scene, "a scene", "--steps", 9, *args, "--out", "out", rc=1)
    assert result.err.strip() == "nvs-train: no Gaussian is left after step 2"


def test_photos_that_cannot_be_scored_do_not_end_it(scene):
    """A mask that leaves nothing of one test photo, and one whose picture is as black as it is."""

    def blind(about) -> None:
        about["frames"][0]["mask_path"] = "none.png"

    changed(scene, blind)
    Image.new("L", (60, 44)).save(scene / "a scene/none.png")
    rows = train(scene, "a scene", "--steps", 2, "--out", "out").rows
    assert 0 < rows[-1]["psnr_db"] < 60
    Image.new("RGB", (60, 44)).save(scene / "a scene/images/frame_00009.png")
    (scene / "dot.ply").write_bytes(frame.ONE_SPLAT.replace(b"0 0 4 1", b"0 0 1e9 1"))
    args = ("a scene", "--steps", 1, "--growth", "none", "--start", "ply:dot.ply", "--out", "dark")
    (row,) = train(scene, *args).rows
    assert row.get("psnr_db") is None
    assert (scene / "dark/compare/frame_00009.png").exists()


def test_the_cap_holds_from_the_beginning(scene):
    for growth in ("default", "mcmc"):
        args = ("--cap", 150, "--refine-from", 0, "--refine-every", 1, "--grow-gradient", 0)
        row = train(scene, "a scene", "--steps", 4, "--growth", growth, *args, "--out", growth).rows[-1]
        assert row["n_gaussians"] <= 150


def test_photos_that_are_only_looked_at_have_cameras_too(scene):
    (scene / "split.json").write_text(json.dumps({"val": ["frame_00002.png"], "test": ["frame_00003.png"]}))
    train(scene, "a scene", "--steps", 1, "--split", "file:split.json", "--out", "out")
    about = json.loads((scene / "out/train.json").read_text())
    parts = [camera["part"] for camera in about["cameras"]]
    assert parts == ["train", "val", "test", *["train"] * 6]
    assert [path.name for path in (scene / "out/renders").iterdir()] == ["frame_00003.png"]


@pytest.mark.parametrize(
    ("args", "rc", "why"),
    [
        (("nothing",), 1, "nothing: No such file or directory"),
        (("a scene", "--split", "every:x"), 2, "every:x"),
        (("a scene", "--start", "ply:none.ply"), 1, "none.ply"),
        (("a scene", "--start", "here"), 2, "--start: want points, random:N (N up to 100000000) or ply:FILE"),
        (("a scene", "--start", "random:²"), 2, "--start: want points"),
        (("a scene", "--start", "random:99999999999"), 2, "--start: want points"),
        (("a scene", "--image-memory", "much"), 2, "want a number of bytes"),
        (("a scene", "--image-memory", "²"), 2, "want a number of bytes"),
        (("a scene", "--device", "gpu"), 2, "--device: 'gpu' is not auto, cpu, cuda or cuda:N"),
        (("a scene", "--device", "cuda:0"), 2, "--device: torch sees no usable GPU here"),
        (("a scene", "--back-end", "gsplat"), 2, "gsplat: needs a CUDA device, and torch sees none"),
        (("a scene", "--split", "file:list.pkl"), 1, "list.pkl"),
        (("a scene", "--images", "images_8"), 1, "images_8"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(scene, args, rc, why):
    (scene / "list.pkl").write_bytes(pickle.dumps(["frame_00001.png"]))
    result = train(scene, *args, "--steps", 2, "--out", "out", rc=rc)
    assert why in result.err
    assert len(result.err.splitlines()) == 1
    assert not (scene / "out").exists()


def test_nvcc_on_the_path_changes_nothing(scene):
    (scene / "bin").mkdir()
    (scene / "bin/nvcc").write_text("#!/bin/sh\ntouch called\n")
    (scene / "bin/nvcc").chmod(0o755)
    import os

    path = f"{scene}/bin:{os.environ['PATH']}"
    argv = [str(frame.BIN / "nvs-train"), "a scene", "--steps", "2", "--out", "out"]
    result = frame.run(argv, cwd=scene, env={"PATH": path, "CUDA_VISIBLE_DEVICES": ""})
    assert result.rc == 0, result.err
    assert "drawn by numba" in result.err or json.loads((scene / "out/train.json").read_text())["back_end"] == "numba"
    assert not (scene / "called").exists()


NETWORK = (
    *("--method", "ibrnet", "--trunk-width", "4", "--views", "3", "--samples", "8", "--fine-samples", "0"),
    *("--rays", "16", "--photo-side", "32"),
)


def test_a_network_learns_from_scenes_and_is_scored_on_another(scene):
    for name, seed in (("b", 1), ("c", 2)):
        write_scene(scene / name, shots=9, size=(48, 32), seed=seed, points=60)
    args = ("a scene", "b", *NETWORK, "--unseen", "c", "--steps", 6, "--report-every", 3, "--out")
    rows = train(scene, *args, "many").rows
    assert [row["step"] for row in rows] == [3, 6]
    assert [(one["scene"], one["seen"]) for one in rows[1]["scenes"]] == [("a scene", True), ("b", True), ("c", False)]
    assert rows[1]["unseen_psnr_db"] == rows[1]["scenes"][2]["psnr_db"]
    assert {path.name for path in (scene / "many/renders").iterdir()} == {"a scene", "b", "c"}
    train(scene, *args, "half", "--stop-after", 4)
    train(scene, *args, "half")
    assert (scene / "many/model.safetensors").read_bytes() == (scene / "half/model.safetensors").read_bytes()
    tuned = ("c", *NETWORK, "--pretrained", "many", "--steps", 2, "--out", "tuned")
    assert np.isfinite(train(scene, *tuned).rows[-1]["psnr_db"])
    assert json.loads((scene / "tuned/train.json").read_text())["method"] == "ibrnet"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((*NETWORK, "--cap", 5), "--cap: is for --method 3dgs"),
        ((*NETWORK, "--sh-degree", 1), "--sh-degree: is for --method 3dgs"),
        ((*NETWORK, "--start", "points"), "--start: is for --method 3dgs"),
        ((*NETWORK, "--back-end", "numba"), "--back-end: is for --method 3dgs"),
        (("--views", 3), "--views: is for --method ibrnet"),
        (("--unseen", "a scene"), "--unseen: is for --method ibrnet"),
        (("--pretrained", "a scene"), "--pretrained: is for --method ibrnet"),
    ],
)
def test_options_of_the_other_method_are_refused(scene, args, why):
    result = train(scene, "a scene", *args, "--steps", 2, "--out", "out", rc=2)
    assert result.err.strip() == f"nvs-train: {why}"
    assert not (scene / "out").exists()


def test_gaussians_are_of_one_scene(scene):
    result = train(scene, "a scene", "a scene", "--steps", 2, "--out", "out", rc=2)
    assert result.err.strip() == "nvs-train: --method: 3dgs learns one scene; ibrnet learns from many"


def test_an_older_folder_without_state_is_not_written_over(scene):
    train(scene, "a scene", "--steps", 2, "--out", "out")
    shutil.rmtree(scene / "out/state")
    before = (scene / "out/point_cloud.ply").read_bytes()
    result = train(scene, "a scene", "--steps", 2, "--out", "out", rc=1)
    assert result.err.strip() == "nvs-train: out: has a model, and no state to go on from"
    assert (scene / "out/point_cloud.ply").read_bytes() == before
