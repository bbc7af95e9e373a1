"""nvs-eval: rows of a training and of other programs' pictures, means, and what cannot be scored."""

from __future__ import annotations

import json
import os
import shutil

import frame
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from tiny_lpips import made_weights

from toolroll.splat import metrics
from toolroll.splat.drawn import write_scene
from toolroll.splat.lpips import ALEX, VGG, Lpips, read_weights

SIZE = (48, 32)


def run(folder, command, *args, rc=0, stdin=b""):
    result = frame.run([str(frame.BIN / command), *map(str, args)], cwd=folder, stdin=stdin)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")) / 255


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("drawn") / "a scene", shots=9, size=SIZE, lens="OPENCV", points=80)


@pytest.fixture
def pictures(drawn, tmp_path):
    """The folder of two pictures, photos with noise; the photos are in another."""
    draws = np.random.default_rng(0)
    for name in ("frame_00001", "frame_00009"):
        photo = pixels_of(drawn.root / f"images/{name}.png")
        save(tmp_path / f"photos/{name}.png", photo)
        save(tmp_path / f"out/{name}.png", photo + draws.normal(0, 0.05, photo.shape))
    return tmp_path / "out"


def test_what_nvs_train_made(drawn, tmp_path):
    settings = ("--steps", 3, "--sh-degree", 0, "--report-every", 3, "--device", "cpu")
    trained = run(tmp_path, "nvs-train", drawn.root, "--out", "run", *settings, "-q").rows[-1]
    rows = run(tmp_path, "nvs-eval", "run").rows
    assert [row["image"] for row in rows] == ["frame_00001.png", "frame_00009.png"]
    assert {(row["method"], row["scene"], row["width"], row["height"]) for row in rows} == {("3dgs", "a scene", *SIZE)}
    for name in ("psnr_db", "ssim"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(trained[name], abs=1e-4)
    (means,) = run(tmp_path, "nvs-eval", "run", "--summary", "--frequency").rows
    assert means["psnr_db"] == pytest.approx(np.mean([row["psnr_db"] for row in rows]), abs=1e-12)
    assert (means["n_images"], means["n_failed"]) == (2, 0)
    assert means["frequency"] > 0
    moved = tmp_path / "moved"
    shutil.copytree(drawn.root, moved)
    again = run(tmp_path, "nvs-eval", "run", "--scene", moved).rows
    assert [row["psnr_db"] for row in again] == [row["psnr_db"] for row in rows]
    assert {row["scene"] for row in again} == {"moved"}


def test_two_folders(pictures, tmp_path):
    result = run(tmp_path, "nvs-eval", "out", "--truth", "photos", "--method", "noise", "--scene-name", "wall")
    first, _ = result.rows
    truth, made = (pixels_of(tmp_path / name / "frame_00001.png") for name in ("photos", "out"))
    assert first == {
        "image": "frame_00001.png",
        "psnr_db": pytest.approx(metrics.psnr(made, truth), abs=1e-5),
        "ssim": pytest.approx(metrics.ssim(made, truth), abs=1e-5),
        "width": 48,
        "height": 32,
        "method": "noise",
        "scene": "wall",
        "ssim_border": "valid",
        "eight_bit": True,
        "render_path": "out/frame_00001.png",
        "images_folder": "photos",
    }
    assert "nvs-eval: model of LPIPS: none, so it is left out (--lpips-weights)\n" in result.err


def test_borders_and_rounding(pictures, tmp_path):
    made = np.clip(pixels_of(pictures / "frame_00001.png") + 0.3 / 255, 0, 1).astype(np.float32)
    (tmp_path / "floats").mkdir()
    np.save(tmp_path / "floats/frame_00001.npy", made)
    rows = {}
    for border in ("valid", "same"):
        for rounding in ("--eight-bit", "--no-eight-bit"):
            args = ("floats", "--truth", "photos", "--ssim-border", border, rounding)
            (row,) = run(tmp_path, "nvs-eval", *args).rows
            assert (row["ssim_border"], row["eight_bit"]) == (border, rounding == "--eight-bit")
            rows[border, row["eight_bit"]] = row
    truth = pixels_of(tmp_path / "photos/frame_00001.png")
    assert rows["valid", False]["psnr_db"] == pytest.approx(metrics.psnr(made, truth), abs=1e-5)
    assert rows["valid", True]["psnr_db"] == pytest.approx(metrics.psnr(metrics.in_bytes(made), truth), abs=1e-5)
    assert len({round(row["ssim"], 9) for row in rows.values()}) == 4
    assert len({round(row["psnr_db"], 9) for row in rows.values()}) == 2


def test_lpips(pictures, tmp_path):
    for name, net in (("alex", ALEX), ("vgg", VGG)):
        save_file(made_weights(net), tmp_path / f"{name}.safetensors")
    args = ("out", "--truth", "photos", "--device", "cpu")
    rows = run(tmp_path, "nvs-eval", *args, "--lpips-weights", "alex.safetensors").rows
    lpips = Lpips(read_weights(tmp_path / "alex.safetensors"), "lpips-alex")
    for row in rows:
        pair = (pixels_of(tmp_path / folder / row["image"]) for folder in ("out", "photos"))
        assert row["lpips_alex"] == pytest.approx(lpips(*pair), rel=1e-5)
    both = ("--lpips-weights", "alex.safetensors", "--lpips-weights", "vgg.safetensors")
    kinds = ("--lpips-kind", "lpips-vgg-3dgs", "--lpips-kind", "lpips-alex")
    (means,) = run(tmp_path, "nvs-eval", *args, *both, *kinds, "--summary").rows
    assert means["lpips_alex"] == pytest.approx(np.mean([row["lpips_alex"] for row in rows]))
    assert means["lpips_vgg_3dgs"] > 0
    assert "lpips_vgg" not in means
    for wrong, why in (
        (("--lpips-weights", "gone"), "nvs-eval: gone: No such file or directory"),
        (("--lpips-weights", "out/frame_00001.png"), "is no safetensors file; pickles are not read"),
        (("--lpips-weights", "alex.safetensors", "--lpips-kind", "lpips-vgg"), "lpips-vgg needs weights of vgg"),
    ):
        result = run(tmp_path, "nvs-eval", *args, *wrong, rc=2 if "needs" in why else 1)
        assert (result.out, len(result.err.splitlines())) == (b"", 1)
        assert why in result.err


@pytest.mark.parametrize("mode", ["stop", "skip", "keep"])
def test_pictures_that_cannot_be_scored(mode, pictures, drawn, tmp_path):
    save(pictures / "frame_00002.png", np.zeros((8, 12, 3)))
    (tmp_path / "photos/frame_00002.png").symlink_to(drawn.root / "images/frame_00002.png")
    (pictures / "frame_00003.png").write_bytes(b"no picture")
    (tmp_path / "photos/frame_00003.png").symlink_to(drawn.root / "images/frame_00003.png")
    save(pictures / "frame_00004.png", np.zeros((32, 48, 3)))
    args = ("out", "--truth", "photos", "--on-error", mode)
    result = run(tmp_path, "nvs-eval", *args, rc=1 if mode == "stop" else 0)
    wrong = [
        "out/frame_00002.png: the picture has 12 x 8 pixels, the photo 48 x 32",
        "out/frame_00003.png: not an image",
        "out/frame_00004.png: no such photo in photos",
    ]
    told = [line.removeprefix("nvs-eval: ") for line in result.complaints if "LPIPS" not in line]
    assert told == (wrong[:1] if mode == "stop" else wrong)
    names = [row["image"][6:11] for row in result.rows]
    assert (
        names
        == {
            "stop": ["00001"],
            "skip": ["00001", "00009"],
            "keep": ["00001", "00002", "00003", "00004", "00009"],
        }[mode]
    )
    if mode == "keep":
        assert [f"{row['error']['where']}: {row['error']['why']}" for row in result.rows[1:4]] == wrong
        assert not {"psnr_db", "ssim"} & set(result.rows[1])
    if mode != "stop":
        (means,) = run(tmp_path, "nvs-eval", *args, "--summary").rows
        assert (means["n_images"], means["n_failed"]) == (2, 3)
        assert "3 errors" in result.err


def test_several_folders_of_which_one_is_gone(pictures, tmp_path):
    args = ("nvs-eval", "gone", "out", "--truth", "photos")
    result = run(tmp_path, *args, rc=1)
    assert result.complaints[-1] == "nvs-eval: gone: No such file or directory"
    assert result.out == b""
    assert len(run(tmp_path, *args, "--on-error", "skip").rows) == 2
    kept = run(tmp_path, *args, "--on-error", "keep").rows
    assert kept[0] == {"render_path": "gone", "error": {"why": "No such file or directory", "where": "gone"}}


def test_many_pictures_that_cannot_be_scored(pictures, tmp_path):
    for number in range(30):
        (pictures / f"x{number:02}.png").write_bytes(b"")
    args = ("out", "--truth", "photos", "--on-error")
    result = run(tmp_path, "nvs-eval", *args, "skip")
    assert len(result.rows) == 2
    told = [line for line in result.complaints if "no such photo" in line]
    assert len(told) == 20
    assert told[-1].endswith("no such photo in photos (further bad rows are counted, not shown)")
    assert "32 in, 2 out, 30 errors" in result.err
    kept = run(tmp_path, "nvs-eval", *args, "keep").rows
    assert len(kept) == 32
    assert kept[-1]["error"]["why"] == "no such photo in photos"


def test_names_that_rows_cannot_hold(pictures, tmp_path):
    odd = os.fsdecode(b"\xff.png")
    for folder in ("out", "photos"):
        (tmp_path / folder / "frame_00001.png").rename(tmp_path / folder / odd)
    rows = run(tmp_path, "nvs-eval", "out", "--truth", "photos").rows
    assert [row["image"] for row in rows] == ["frame_00009.png", "\\udcff.png"]
    (tmp_path / "out" / odd).unlink()
    (tmp_path / "out" / odd).write_bytes(b"no picture")
    (_, row) = run(tmp_path, "nvs-eval", "out", "--truth", "photos", "--on-error", "keep").rows
    assert row["error"] == {"why": "not an image", "where": "out/\\udcff.png"}


def test_a_damaged_photo_costs_frequency_alone(pictures, tmp_path):
    (tmp_path / "photos/frame_00005.png").write_bytes(b"no photo")
    result = run(tmp_path, "nvs-eval", "out", "--truth", "photos", "--frequency")
    assert [row["frequency"] for row in result.rows] == [None, None]
    assert "nvs-eval: out: warning: no frequency: photos/frame_00005.png: not an image" in result.complaints


def test_weights_are_not_written_over(pictures, tmp_path):
    save_file(made_weights(ALEX), tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    args = ("out", "--truth", "photos", "--lpips-weights", "w.safetensors", "-o", "w.safetensors")
    result = run(tmp_path, "nvs-eval", *args, rc=2)
    assert result.err == "nvs-eval: w.safetensors: input and output are the same file\n"
    assert (tmp_path / "w.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("out",), "out: is no folder of nvs-train: needs --truth, --scene or --side-by-side"),
        (("out", "--truth", "photos", "--side-by-side"), "--side-by-side: does not go with --truth"),
        (("out", "out", "--truth", "photos", "--scene-name", "x"), "--scene-name: is for one folder"),
        ((), "missing argument"),
        (("out", "--ssim-border", "full"), "--ssim-border"),
    ],
)
def test_usage(args, why, pictures, tmp_path):
    result = run(tmp_path, "nvs-eval", *args, "-q", rc=2)
    assert result.out == b""
    assert why in result.err.lower() or why in result.err
    assert len(result.err.splitlines()) == 1


def test_a_training_without_pictures(drawn, tmp_path):
    about = {"scene": str(drawn.root), "settings": {}, "cameras": [{"image": "frame_00001.png", "part": "test"}]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/train.json").write_text(json.dumps(about))
    result = run(tmp_path, "nvs-eval", "run", "-q", rc=1)
    assert result.err == "nvs-eval: run/renders: No such file or directory\n"
