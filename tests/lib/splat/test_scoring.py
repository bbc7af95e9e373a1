"""Which photo a picture should be, and how it is scored."""

from __future__ import annotations

import io
import json
import pickle
import re
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.records.nvs import NvsTrainedScene
from toolroll.splat import metrics
from toolroll.splat.drawn import write_scene
from toolroll.splat.pairing import folders_of, load_picture, open_pictures, photos_in
from toolroll.splat.photos import Photo, Photos
from toolroll.splat.pictures import means_of
from toolroll.splat.score_options import ScoreOptions
from toolroll.splat.scoring import Judge, rows_of, rows_of_folders, summary

SIZE = (48, 32)
TESTED = ["frame_00001.png", "frame_00009.png"]  #: of nine photos, each eighth


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path)


def noisy(pixels, seed=0, by=0.1):
    return pixels + np.random.default_rng(seed).normal(0, by, pixels.shape)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return {
        lens: write_scene(tmp_path_factory.mktemp("drawn") / f"Scene {lens}", shots=9, size=SIZE, lens=lens, points=40)
        for lens in ("PINHOLE", "OPENCV")
    }


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")) / 255


def trained(folder, drawn, names=TESTED, **about):
    """A folder as nvs-train leaves it; what its pictures are like."""
    cameras = [
        {"image": shot.name, "part": "test" if shot.name in names else "train"} for shot in reversed(drawn.shots)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    made = {"scene": str(drawn.root), "settings": {"images": None}, "cameras": cameras, **about}
    (folder / "train.json").write_text(json.dumps(made))
    photos = Photos(drawn.shots, 0)
    truths = {shot.name: photos[number].pixels for number, shot in enumerate(drawn.shots) if shot.name in names}
    for name, truth in truths.items():
        save((folder / "renders" / name).with_suffix(".png"), noisy(truth))
    return truths


def scored(folder, **options):
    given = ScoreOptions(**options)
    return list(rows_of(open_pictures(Path(folder), given), Judge(given)))


def good(rows):
    assert not [row["error"] for row in rows if "error" in row]
    return rows


# --- scores


def vectors():
    y, x = np.mgrid[0:48, 0:64].astype(float)
    one = np.stack([x / 63, y / 47, (np.sin(x / 5) + np.cos(y / 7) + 2) / 4], -1)
    return one, np.clip(0.9 * one + 0.05 + 0.03 * np.sin(x / 3)[..., None], 0, 1)


@pytest.mark.parametrize(
    ("options", "psnr", "ssim"),
    [
        ({"eight_bit": False}, 29.081125066, 0.949249735),
        ({"eight_bit": False, "ssim_border": "same"}, 29.081125066, 0.939385881),
        ({}, 29.027555918, 0.947553355),
    ],
)
def test_scores_of_known_pictures(options, psnr, ssim):
    picture, truth = vectors()
    row = Judge(ScoreOptions(**options)).scores(picture, Photo(truth))
    assert row == {
        "psnr_db": pytest.approx(psnr, abs=1e-9),
        "ssim": pytest.approx(ssim, abs=1e-9),
        "width": 64,
        "height": 48,
    }


def test_scores_with_a_mask():
    picture, truth = vectors()
    mask = np.zeros((48, 64), bool)
    mask[:12] = True
    row = Judge(ScoreOptions(eight_bit=False)).scores(picture, Photo(truth, mask))
    assert row["masked_frac"] == 0.75
    assert row["psnr_db"] == metrics.psnr(picture[:12], truth[:12])
    assert row["ssim"] == metrics.ssim(picture, truth, mask=mask)
    with pytest.raises(RowError, match="no pixel that counts"):
        Judge(ScoreOptions()).scores(picture, Photo(truth, np.zeros_like(mask)))
    rim = np.zeros_like(mask)
    rim[:5] = True  # windows inside the picture have their middles further in
    row = Judge(ScoreOptions()).scores(picture, Photo(truth, rim))
    assert (row["ssim"], row["psnr_db"] > 20) == (None, True)
    assert Judge(ScoreOptions(ssim_border="same")).scores(picture, Photo(truth, rim))["ssim"] > 0.5


@pytest.mark.parametrize("score", [(float("nan"), None), (float("inf"), 1.0)])
def test_a_scene_in_training_may_have_no_mean(score):
    """Where a mask leaves nothing of its photos, or they are met exactly."""
    row = {"scene": "a", "seen": True, "n_images": 1, **means_of([score])}
    assert row["psnr_db"] is None
    assert msgspec.to_builtins(msgspec.convert(row, NvsTrainedScene)) == row


def test_scores_that_are_not_there():
    picture, truth = (one[:10, :20] for one in vectors())
    judge = Judge(ScoreOptions())
    row = judge.scores(picture, Photo(truth))
    assert (row["ssim"], row["width"], row["height"]) == (None, 20, 10)
    assert Judge(ScoreOptions(ssim_border="same")).scores(picture, Photo(truth))["ssim"] > 0.5
    assert judge.scores(truth, Photo(truth))["psnr_db"] is None
    assert (
        judge.scores(np.round(truth * 255) / 255 + 0.001, Photo(np.round(truth * 255) / 255))["psnr_db"] is None
    )  # the same in 8 bits
    with pytest.raises(RowError, match="the picture has 20 x 10 pixels, the photo 20 x 9"):
        judge.scores(picture, Photo(truth[1:]))


# --- folders of nvs-train


@pytest.mark.parametrize("lens", ["PINHOLE", "OPENCV"])
def test_a_folder_of_training(lens, drawn, tmp_path):
    truths = trained(tmp_path / "run", drawn[lens])
    rows = good(scored(tmp_path / "run"))
    assert [row["image"] for row in rows] == TESTED
    for row in rows:
        made = tmp_path / "run/renders" / row["image"]
        assert row["psnr_db"] == pytest.approx(metrics.psnr(pixels_of(made), truths[row["image"]]), abs=1e-5)
        assert row["render_path"] == str(made)
        assert (row["method"], row["scene"]) == ("3dgs", f"scene {lens.lower()}")
        assert (row["ssim_border"], row["eight_bit"]) == ("valid", True)
        assert row["images_folder"] == str(drawn[lens].root / "images")
        assert "masked_frac" not in row
    if lens == "OPENCV":
        assert truths[TESTED[0]] != pytest.approx(pixels_of(drawn[lens].shots[0].path))  # they are straightened


def test_a_folder_of_training_whose_scene_moved(drawn, tmp_path):
    trained(tmp_path / "run", drawn["PINHOLE"], scene="/gone", settings={"method": "ibrnet"})
    with pytest.raises(ToolrollError, match=r"its scene, /gone, is not there \(--scene says where it is\)") as raised:
        scored(tmp_path / "run")
    assert raised.value.place == str(tmp_path / "run/train.json")
    rows = good(scored(tmp_path / "run", scene=str(drawn["PINHOLE"].root)))
    assert {row["method"] for row in rows} == {"ibrnet"}


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"cameras": 3}', '{"cameras": [{}]}', '{"cameras": [], "settings": []}', "\x80\x04."),
        '{"cameras": [], "scene": 5}',
        '{"cameras": [], "scene": null}',
        '{"cameras": [], "scene": "\\ud800"}',
        '{"cameras": [], "scene": "a", "settings": {"images": 5}}',
        '{"cameras": [], "scene": "a", "settings": {"images": []}}',
        '{"cameras": [], "scene": "a", "settings": {"method": ["x"]}}',
        '{"cameras": [{"image": null, "part": "test"}], "scene": "a"}',
        '{"cameras": [{"image": "\\ud800", "part": "test"}], "scene": "a"}',
        '{"cameras": [{"image": "a", "part": "test"}, {"image": 5, "part": "test"}], "scene": "a"}',
    ],
)
def test_an_account_that_is_none(text, tmp_path):
    (tmp_path / "train.json").write_text(text, encoding="latin-1")
    with pytest.raises(ToolrollError, match="is not as nvs-train writes it"):
        scored(tmp_path)


def test_a_picture_and_a_photo_that_are_missing(drawn, tmp_path):
    trained(tmp_path / "run", drawn["PINHOLE"])
    (tmp_path / "run/renders/frame_00009.png").unlink()
    about = json.loads((tmp_path / "run/train.json").read_text())
    about["cameras"].append({"image": "frame_00010.png", "part": "test"})
    (tmp_path / "run/train.json").write_text(json.dumps(about))
    save(tmp_path / "run/renders/frame_00010.png", np.zeros((32, 48, 3)))
    first, second, third = scored(tmp_path / "run")
    assert "error" not in first
    assert second["error"] == {
        "why": "no picture of this photo",
        "where": str(tmp_path / "run/renders/frame_00009.png"),
    }
    assert third["error"]["why"] == f"no such photo in {drawn['PINHOLE'].root}"
    assert third["image"] == "frame_00010.png"


def test_masks_of_a_scene(drawn, tmp_path):
    scene = write_scene(tmp_path / "masked", shots=9, size=SIZE, points=40)
    data = json.loads((scene.root / "transforms.json").read_text())
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:8] = 255
    (scene.root / "masks").mkdir()
    Image.fromarray(mask).save(scene.root / "masks/m.png")
    for frame in data["frames"]:
        frame["mask_path"] = "masks/m.png"
    (scene.root / "transforms.json").write_text(json.dumps(data))
    truths = trained(tmp_path / "run", scene)
    for row in good(scored(tmp_path / "run")):
        made = pixels_of(row["render_path"])
        assert row["masked_frac"] == 0.75
        assert row["psnr_db"] == pytest.approx(metrics.psnr(made[:8], truths[row["image"]][:8]), abs=1e-5)


# --- other folders


def test_pictures_of_a_scene(drawn, tmp_path):
    scene = drawn["OPENCV"]
    straight = Photos(scene.shots, 0)
    for number in (0, 3, 6):
        save(tmp_path / "out" / f"frame_0000{number + 1}.jpg", noisy(straight[number].pixels))
    rows = good(scored(tmp_path / "out", scene=str(scene.root), split="every:3"))
    assert [row["image"] for row in rows] == [f"frame_0000{number}.png" for number in (1, 4, 7)]
    assert {(row["method"], row["scene"]) for row in rows} == {("renders", "scene opencv")}
    taken = good(scored(tmp_path / "out", scene=str(scene.root), split="every:3", as_taken=True))
    made = pixels_of(tmp_path / "out/frame_00001.jpg")
    assert taken[0]["psnr_db"] == pytest.approx(metrics.psnr(made, pixels_of(scene.shots[0].path)), abs=1e-5)
    assert taken[0]["psnr_db"] < rows[0]["psnr_db"]
    missing = scored(tmp_path / "out", scene=str(scene.root))  # frames 1 and 9 are tested
    assert [row.get("error", {}).get("why") for row in missing] == [None, "no picture of this photo"]
    with pytest.raises(UsageError, match="is none of every:N"):
        scored(tmp_path / "out", scene=str(scene.root), split="some")


def test_numbered_pictures_of_a_scene(drawn, tmp_path):
    scene = drawn["PINHOLE"]
    for number, shot in enumerate((scene.shots[0], scene.shots[8])):
        save(tmp_path / "test/ours_30000/renders" / f"{number:05d}.png", noisy(pixels_of(shot.path), by=0.02))
    (tmp_path / "test/ours_30000/renders/notes.txt").write_text("no picture")
    with_names = scored(tmp_path / "test/ours_30000/renders", scene=str(scene.root))
    assert all("error" in row for row in with_names)
    rows = good(scored(tmp_path / "test/ours_30000/renders", scene=str(scene.root), by_order=True))
    assert [Path(row["render_path"]).name for row in rows] == ["00000.png", "00001.png"]
    assert all(row["psnr_db"] > 30 for row in rows)
    with pytest.raises(ToolrollError, match="2 pictures of 3 photos, for --by-order"):
        scored(tmp_path / "test/ours_30000/renders", scene=str(scene.root), split="every:4", by_order=True)


def test_two_folders(drawn, tmp_path):
    photo = pixels_of(drawn["PINHOLE"].shots[0].path)
    for name in ("left/a.jpg", "left/b.png", "c.d.webp", "right/a.png"):
        save(tmp_path / "scene/images_4" / name, photo)
    for name in ("left/a.png", "b.png", "c.d.png", "e.png"):
        save(tmp_path / "rgb" / name, noisy(photo))
    rows = scored(tmp_path / "rgb", truth=str(tmp_path / "scene/images_4"))
    assert [row["image"] for row in rows] == ["left/b.png", "c.d.webp", "e", "left/a.jpg"]
    assert [row.get("error", {}).get("why") for row in rows] == [
        None,
        None,
        f"no such photo in {tmp_path / 'scene/images_4'}",
        None,
    ]
    assert {row["scene"] for row in rows} == {"scene"}
    assert rows[0]["psnr_db"] == pytest.approx(metrics.psnr(pixels_of(tmp_path / "rgb/b.png"), photo))
    assert len(good(scored(tmp_path / "rgb", truth=str(tmp_path / "scene/images_4"), only="[ab].png"))) == 2
    assert len(good(scored(tmp_path / "rgb", truth=str(tmp_path / "scene/images_4"), only="left/*"))) == 1
    assert len(good(scored(tmp_path / "rgb", truth=str(tmp_path / "scene/images_4"), by_order=True))) == 4
    with pytest.raises(ToolrollError, match="has no pictures"):
        scored(tmp_path / "rgb", truth=str(tmp_path / "scene/images_4"), only="val_*")


@pytest.mark.parametrize("truth", ["test/gt-rgb", "test/ours_30000/gt", "renders/test/gt_rgb"])
def test_the_scene_of_photos_beside_pictures(truth, tmp_path):
    photo = vectors()[1]
    save(tmp_path / "Garden" / truth / "a.png", photo)
    save(tmp_path / "rgb/a.png", noisy(photo))
    (row,) = good(scored(tmp_path / "rgb", truth=str(tmp_path / "Garden" / truth)))
    assert row["scene"] == "garden"


def test_a_photo_that_is_tested_twice_counts_once(drawn, tmp_path):
    trained(tmp_path / "run", drawn["PINHOLE"])
    about = json.loads((tmp_path / "run/train.json").read_text())
    about["cameras"] *= 2
    (tmp_path / "run/train.json").write_text(json.dumps(about))
    assert [row["image"] for row in good(scored(tmp_path / "run"))] == TESTED


@pytest.mark.parametrize("options", [{}, {"truth": "long"}, {"scene": "long"}])
def test_names_that_are_too_long(options, tmp_path):
    long = str(tmp_path / ("x" * 5000))
    folder = tmp_path if options else long
    with pytest.raises(ToolrollError, match="File name too long"):
        scored(folder, **dict.fromkeys(options, long))


def test_a_name_that_two_photos_have(drawn, tmp_path):
    photo = pixels_of(drawn["PINHOLE"].shots[0].path)
    for name in ("left/a.png", "right/a.png"):
        save(tmp_path / "photos" / name, photo)
    save(tmp_path / "rgb/a.png", noisy(photo))
    (row,) = scored(tmp_path / "rgb", truth=str(tmp_path / "photos"))
    assert "no such photo" in row["error"]["why"]


def test_training_against_other_photos(drawn, tmp_path):
    trained(tmp_path / "run", drawn["PINHOLE"], scene="/gone")
    rows = good(scored(tmp_path / "run", truth=str(drawn["PINHOLE"].root / "images")))
    assert [(row["method"], row["scene"], row["image"]) for row in rows] == [
        ("3dgs", "scene pinhole", name) for name in TESTED
    ]


def test_photo_and_picture_in_one_file(drawn, tmp_path):
    photo = pixels_of(drawn["PINHOLE"].shots[0].path)
    made = noisy(photo)
    folder = tmp_path / "Garden/renders"
    save(folder / "val_step6999_0000.png", np.concatenate([photo, photo * 0.5], 1))
    save(folder / "val_step29999_0000.png", np.concatenate([photo, made], 1))
    (row,) = good(scored(folder, side_by_side=True, only="val_step29999_*"))
    save(tmp_path / "alone.png", made)
    assert row["psnr_db"] == pytest.approx(metrics.psnr(pixels_of(tmp_path / "alone.png"), photo), abs=1e-5)
    assert (row["scene"], row["width"], row["height"]) == ("garden", *SIZE)
    assert row["images_folder"] is None
    assert len(scored(folder, side_by_side=True)) == 2
    save(folder / "odd.png", np.zeros((4, 5, 3)))
    (row,) = scored(folder, side_by_side=True, only="odd*")
    assert row["error"]["why"] == "5 pixels wide, so that it has no two halves"


def test_transparent_photos(tmp_path):
    draws = np.random.default_rng(0)
    four = draws.integers(0, 255, (20, 24, 4), np.uint8)
    four[..., 3] = 255
    four[:, :6, 3] = 0
    (tmp_path / "photos").mkdir()
    Image.fromarray(four).save(tmp_path / "photos/a.png")
    made = noisy(four[..., :3] / 255)
    save(tmp_path / "rgb/a.png", made)
    saved = pixels_of(tmp_path / "rgb/a.png")
    (row,) = good(scored(tmp_path / "rgb", truth=str(tmp_path / "photos")))
    assert row["masked_frac"] == 0.25
    assert row["psnr_db"] == pytest.approx(metrics.psnr(saved[:, 6:], four[:, 6:, :3] / 255), abs=1e-5)
    (row,) = good(scored(tmp_path / "rgb", truth=str(tmp_path / "photos"), background="white"))
    white = np.where(four[..., 3:] == 0, 1, four[..., :3] / 255)
    assert "masked_frac" not in row
    assert row["psnr_db"] == pytest.approx(metrics.psnr(saved, white), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "is no folder of nvs-train: needs --truth, --scene or --side-by-side"),
        ({"truth": "gone"}, "No such file or directory"),
        ({"scene": "gone"}, "No such file or directory"),
        ({"side_by_side": True}, "has no pictures"),
    ],
)
def test_folders_that_cannot_be_compared(options, why, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolrollError, match=why):
        scored(tmp_path / "empty", **{"only": "none", **options})
    with pytest.raises(ToolrollError, match="Not a directory"):
        scored(__file__)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"truth": "a", "scene": "b"}, "--scene"),
        ({"truth": "a", "side_by_side": True}, "--side-by-side"),
        ({"side_by_side": True, "scene": "b"}, "--scene"),
    ],
)
def test_options_that_exclude_each_other(options, place):
    with pytest.raises(UsageError) as raised:
        ScoreOptions(**options).check()
    assert raised.value.place == place


# --- files


def test_arrays_of_floats(tmp_path):
    made = vectors()[0]
    np.save(tmp_path / "a.npy", made.astype(np.float32))
    assert load_picture(tmp_path / "a.npy") == pytest.approx(made, abs=1e-7)
    np.save(tmp_path / "photo.npy", made)  # a picture, but no photo
    assert photos_in(tmp_path) == []


def promised(shape):
    """An array whose header has more in it than there is."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


def archive():
    held = io.BytesIO()
    np.savez(held, made=np.zeros((4, 4, 3)))
    return held.getvalue()


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda p: np.save(p, np.zeros((4, 4))), r"float64 \[4, 4\], not floats \[height, width, 3\]"),
        (lambda p: np.save(p, np.zeros((4, 4, 3), np.uint8)), r"uint8 \[4, 4, 3\], not floats"),
        (lambda p: np.save(p, np.full((4, 4, 3), np.nan)), "values that are not finite"),
        (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "is no array of numbers"),
        (lambda p: p.write_bytes(pickle.dumps([1])), "is no array of numbers"),
        (lambda p: p.write_bytes(b""), "is no array of numbers"),
        (lambda p: p.write_bytes(archive()), "is an archive, not one array of numbers"),
        (lambda p: np.save(p, np.full((4, 4, 3), 255.0)), r"has values up to 255, which are not in \[0, 1\]"),
        (lambda p: p.write_bytes(promised("(9000000000, 1, 3)")), "is no array of numbers"),
        (lambda p: p.write_bytes(promised("(2147483648, 4294967296, 3)")), "is no array of numbers"),
    ],
)
def test_arrays_that_are_no_picture(write, why, tmp_path):
    write(tmp_path / "a.npy")
    tracemalloc.start()
    with pytest.raises(ToolrollError, match=why):
        load_picture(tmp_path / "a.npy")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_pictures_that_are_damaged(tmp_path):
    save(tmp_path / "photos/a.png", vectors()[1])
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb/a.png").write_bytes((tmp_path / "photos/a.png").read_bytes()[:90])
    (row,) = scored(tmp_path / "rgb", truth=str(tmp_path / "photos"))
    assert row["error"]["where"] == str(tmp_path / "rgb/a.png")


def test_a_picture_that_is_its_photo(tmp_path):
    save(tmp_path / "photos/a.png", vectors()[1])
    (row,) = scored(tmp_path / "photos", truth=str(tmp_path / "photos"))
    assert row["error"]["why"] == "equals its photo in each pixel, so that PSNR is infinite"
    assert (row["psnr_db"], row["ssim"]) == (None, 1.0)
    assert summary([row]) is None


# --- folders of methods


def test_folders_by_scene(tmp_path, monkeypatch):
    for name in ("runs/a", "runs/b c", "runs/.hidden", "out/a/x/a_rgb", "out/b/y/b_rgb", "out/b/y/a_rgb"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/file").write_text("")
    monkeypatch.chdir(tmp_path)
    for pattern in ("runs", "runs/", "runs/{scene}", f"{tmp_path}/runs"):
        assert [(scene, path.name) for scene, path in folders_of(pattern)] == [("a", "a"), ("b c", "b c")]
    assert [(scene, str(path)) for scene, path in folders_of("out/{scene}/*/{scene}_rgb")] == [
        ("a", "out/a/x/a_rgb"),
        ("b", "out/b/y/b_rgb"),
    ]
    for name in ("odd[1]?/a", "odd1x/b"):
        (tmp_path / name).mkdir(parents=True)
    for pattern in ("odd[1]?", "odd[1]?/{scene}", "od*[1]?/{scene}"):  # * alone stands for others
        assert [(scene, str(path)) for scene, path in folders_of(pattern)] == [("a", "odd[1]?/a")]
    with pytest.raises(ToolrollError, match="two folders of b"):
        list(folders_of("out/{scene}/*/*_rgb"))
    with pytest.raises(ToolrollError, match="no folder of a scene"):
        list(folders_of("gone"))


def test_methods_scene_by_scene(drawn, tmp_path):
    scene = drawn["PINHOLE"]
    trained(tmp_path / "runs/One", scene)
    photo = pixels_of(scene.shots[0].path)
    for name in ("One", "two"):
        save(tmp_path / "out" / name / "a.png", noisy(photo))
        save(tmp_path / "photos" / name / "a.png", photo)
    (tmp_path / "out/three").mkdir()
    options = ScoreOptions(truth=f"{tmp_path}/photos/{{scene}}")
    rows = list(rows_of_folders([f"x={tmp_path}/out"], Judge(options), options, lambda why, place: None))
    assert [(row.get("method"), row.get("scene"), "error" in row) for row in rows] == [
        ("x", "one", False),
        (None, None, True),
        ("x", "two", False),
    ]
    assert rows[1]["error"]["where"] == f"{tmp_path}/photos/three"
    rows = list(rows_of_folders([f"3dgs={tmp_path}/runs"], Judge(ScoreOptions()), ScoreOptions(), print))
    assert [(row["method"], row["scene"], row["image"]) for row in rows] == [("3dgs", "one", name) for name in TESTED]
    for wrong in ("x=", "=y"):
        with pytest.raises(UsageError, match="want METHOD=DIR"):
            list(rows_of_folders([wrong], Judge(options), options, print))


def test_lpips_of_weights(tmp_path):
    from safetensors.torch import save_file
    from tiny_lpips import made_weights

    from toolroll.splat.lpips import ALEX, VGG, Lpips, read_weights

    for name, net in (("alex", ALEX), ("vgg", VGG)):
        save_file(made_weights(net), tmp_path / f"{name}.safetensors")
    alex, vgg = str(tmp_path / "alex.safetensors"), str(tmp_path / "vgg.safetensors")
    picture, truth = vectors()
    row = Judge(ScoreOptions(lpips_weights=(alex,), device="cpu")).scores(picture, Photo(truth))
    direct = Lpips(read_weights(Path(alex)), "lpips-alex")(metrics.in_bytes(picture), metrics.in_bytes(truth))
    assert row["lpips_alex"] == direct > 0
    row = Judge(ScoreOptions(lpips_weights=(vgg, alex), device="cpu")).scores(picture, Photo(truth))
    assert {name for name in row if "lpips" in name} == {"lpips_vgg", "lpips_alex"}
    kinds = ("lpips-vgg-3dgs", "lpips-alex", "lpips-alex")
    judge = Judge(ScoreOptions(lpips_weights=(vgg, alex), lpips_kind=kinds, device="cpu"))
    row = judge.scores(picture[:20], Photo(truth[:20]))
    assert row["lpips_alex"] is None  # 20 pixels are too few for it
    assert row["lpips_vgg_3dgs"] > 0
    with pytest.raises(UsageError, match=re.escape("lpips-vgg needs weights of vgg")):
        Judge(ScoreOptions(lpips_weights=(alex,), lpips_kind=("lpips-vgg",), device="cpu"))
    assert Judge(ScoreOptions(lpips_kind=("lpips-vgg",))).nets == []
