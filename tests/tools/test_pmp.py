"""pmp-data, pmp-train, pmp-seg and pmp-eval with tiny models: what comes out, and bad input."""

from __future__ import annotations

import hashlib
import json
import sys

import frame
import numpy as np
import pytest
from PIL import Image

MODEL = str(frame.ROOT / "tests/data/tiny-segmenter")
CLIP = str(frame.ROOT / "tests/data/tiny-clip")


def run(folder, command, *args, rows=(), rc=0):
    """The result of a command on `rows`, in `folder`."""
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    result = frame.run([str(frame.BIN / command), *map(str, args)], stdin=stdin, cwd=folder, warm_start=True)
    assert result.rc == rc, result.err
    return result


def seg(folder, *args, rows=(), rc=0, model=MODEL):
    return run(folder, "pmp-seg", "--model", model, "--device", "cpu", *args, rows=rows, rc=rc)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pmp")
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 255, (48, 64, 4), np.uint8)
    Image.fromarray(pixels[..., :3]).save(made / "photo.jpg")
    Image.fromarray(pixels).save(made / "alpha.png")
    Image.fromarray(draws.integers(0, 65535, (20, 30), np.uint16)).save(made / "sixteen.png")
    Image.new("RGB", (1, 1), "red").save(made / "one.png")
    (made / "bad.png").write_bytes(b"not an image")
    (made / "cut.jpg").write_bytes((made / "photo.jpg").read_bytes()[:300])
    return made


def masks_of(row):
    from toolroll.segment.masks import decode

    return [decode(one["rle"]) for one in row["segments"]]


def test_images_by_name(folder):
    rows = seg(folder, "photo.jpg", "alpha.png", "sixteen.png", "one.png", "--prompts", "sky; road, street").rows
    assert [(row["id"], row["width"], row["height"]) for row in rows] == [
        ("photo.jpg", 64, 48),
        ("alpha.png", 64, 48),
        ("sixteen.png", 30, 20),
        ("one.png", 1, 1),
    ]
    for row in rows:
        assert row["prompts"] == ["sky", ["road", "street"]]
        assert sum(one["area"] for one in row["segments"]) == row["width"] * row["height"]  # every pixel has a class
        for one, mask in zip(row["segments"], masks_of(row), strict=True):
            assert mask.sum() == one["area"]
            assert 0 < one["score"] <= 1
            assert one["prompt"] in ("sky", "road")


def test_rows_with_their_own_prompts(folder):
    rows = [{"id": 1, "image": "photo.jpg", "prompts": "sky; car", "kept": [1]}, {"id": 2, "image": "photo.jpg"}]
    found = seg(folder, "--on-error", "keep", rows=rows).rows
    assert found[0]["kept"] == [1]
    assert found[0]["prompts"] == ["sky", "car"]
    assert found[1]["error"]["why"] == "no `prompts` (or --prompts)"
    both = seg(folder, "--prompts", "tree", rows=rows).rows
    assert [row["prompts"] for row in both] == [["tree"], ["tree"]]


def test_the_order_of_prompts(folder):
    one, other = (seg(folder, "photo.jpg", "--prompts", text).rows[0] for text in ("sky; car; dog", "dog; sky; car"))
    assert {s["prompt"]: s["rle"] for s in one["segments"]} == {s["prompt"]: s["rle"] for s in other["segments"]}


@pytest.mark.parametrize("mode", ["instance", "panoptic"])
def test_other_modes(folder, mode):
    (row,) = seg(folder, "photo.jpg", "--prompts", "sky; car", "--mode", mode, "--proposals").rows
    assert row["mode"] == mode
    assert len(row["proposals"]) == 4
    assert len(row["selected"]) == 2
    scores = [one["score"] for one in row["segments"]]
    assert scores == sorted(scores, reverse=True)
    (few,) = seg(folder, "photo.jpg", "--prompts", "sky; car", "--mode", "instance", "--topk", "1").rows
    assert len(few["segments"]) <= 1


def test_masks_and_pictures(folder, tmp_path):
    args = ("--prompts", "sky; car", "--save-masks", tmp_path / "m", "--overlay", tmp_path / "o")
    (row,) = seg(folder, "photo.jpg", *args).rows
    with Image.open(row["mask_file"]) as image:
        labels = np.asarray(image)
    for one, mask in zip(row["segments"], masks_of(row), strict=True):
        assert (labels[mask] == {"sky": 1, "car": 2}[one["prompt"]]).all()
    with Image.open(row["overlay_file"]) as page:
        assert page.width >= 64
        assert page.height > 48
    seg(folder, "photo.jpg", *args)  # the same once more finds its own
    refused = seg(folder, "photo.jpg", "--prompts", "car; dog; cow", *args[2:], rc=1)
    assert "another image of this name is there" in refused.err
    seg(folder, "photo.jpg", "--prompts", "car; dog; cow", *args[2:], "--overwrite")


def test_a_prompt_that_clip_cannot_read_whole(folder):
    refused = seg(folder, "photo.jpg", "--prompts", " ".join(["sky"] * 40), "--clip", CLIP, rc=1)
    assert "has more tokens than" in refused.err


def test_an_encoder_names_masks_again(folder):
    args = ("photo.jpg", "--prompts", "sky; car", "--mode", "instance", "--templates", "none")
    (row,) = seg(folder, *args, "--clip", CLIP).rows
    for one in row["segments"]:
        assert 0 <= one["score_decoder"] <= 1
        assert 0 <= one["score_clip"] <= 1
    (alone,) = seg(folder, *args).rows
    (nothing,) = seg(folder, *args, "--clip", CLIP, "--ensemble", "0", "--ensemble-seen", "0").rows
    assert [one["rle"] for one in nothing["segments"]] == [one["rle"] for one in alone["segments"]]
    scores = [one["score"] for one in alone["segments"]]
    assert [one["score"] for one in nothing["segments"]] == pytest.approx(scores, abs=1e-5)


def test_bad_images(folder):
    rows = [{"id": name, "image": name} for name in ("bad.png", "cut.jpg", "gone.png", ".")]
    found = seg(folder, "--prompts", "sky", "--on-error", "keep", rows=[*rows, {"id": "none"}]).rows
    whys = [row["error"]["why"] for row in found]
    assert whys[0] == "bad.png: not an image"
    assert whys[1].startswith("cut.jpg: ")
    assert whys[2] == "gone.png: No such file or directory"
    assert whys[3] == ".: Is a directory"
    assert whys[4] == "no `image`"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--prompts", ""), "--prompts: no prompts"),
        (("--prompts", "sky; Sky"), "--prompts: the prompt 'Sky' is there twice"),
        (("--prompts", "sky", "--prompts-file", "x"), "give one of"),
        (("--prompts-file", "gone.txt"), "gone.txt: No such file"),
        (("--prompts", "sky", "--templates", "gone"), "neither vild nor none"),
        (("--prompts", "sky", "--background", " "), "the background has no name"),
    ],
)
def test_prompts_that_cannot_be(folder, args, why):
    assert why in seg(folder, "photo.jpg", *args, rc=2).err


def test_words_that_the_lexicon_does_not_know(folder):
    found = seg(folder, "photo.jpg", "--prompts", "\u4eba", rc=1)
    assert "is in the lexicon" in found.err


def test_models_that_are_none(folder):
    assert "no such folder" in seg(folder, "photo.jpg", "--prompts", "sky", model="nowhere", rc=1).err
    assert "no segmenter.json" in seg(folder, "photo.jpg", "--prompts", "sky", model=CLIP, rc=1).err


def test_from_data_to_scores(folder, tmp_path):
    args = ("shapes:3", "-n", "3", "--size", "64x64", "--out", tmp_path / "drawn")
    rows = run(folder, "pmp-data", *args).rows
    assert [len(row["prompts"]) for row in rows] == [24] * 3
    found = seg(folder, "--proposals", rows=rows).rows
    (scores,) = run(folder, "pmp-eval", rows=found).rows
    assert scores["n_images"] == 3
    assert scores["n_classes"] == 24
    assert scores["n_segments"] == sum(len(row["truth"]) for row in rows)
    assert 0 <= scores["selected_iou"] <= scores["proposal_recall"] <= 1
    # what is right is right
    size = {"width": 64, "height": 64}
    whole = {"score": 1, "area": 1, "box": [0, 0, 1, 1]}
    right = [{**row, **size, "segments": [{**one, **whole} for one in row["truth"]]} for row in rows]
    (perfect,) = run(folder, "pmp-eval", "--miou", "union", rows=right).rows
    for name in ("miou", "pixel_accuracy", "proposal_recall", "recall_50", "selected_iou"):
        assert perfect[name] == 1, name
    assert perfect["other_iou"] == 0
    classes = run(folder, "pmp-eval", "--by-class", rows=right).rows
    assert {row["class"]: row["iou"] for row in classes} == perfect["class_iou"]
    fewer = [{**row, "segments": row["segments"][:1]} for row in right]
    (less,) = run(folder, "pmp-eval", rows=fewer).rows
    assert less["selected_iou"] == pytest.approx(3 / less["n_segments"])


def test_the_model_that_ships(folder, tmp_path):
    data = frame.ROOT / "lib/toolroll/data"
    files = [*(data / "outline").iterdir(), *(data / "lexicon").iterdir()]
    assert sum(file.stat().st_size for file in files) < 5_000_000
    digest = hashlib.sha256((data / "outline/model.safetensors").read_bytes()).hexdigest()
    assert digest in (data / "outline/README.md").read_text()
    drawn = ("streets:1", "--first", "2000000", "-n", "4", "--out", tmp_path / "drawn")
    rows = run(folder, "pmp-data", *drawn).rows
    result = run(folder, "pmp-seg", "--device", "cpu", "--prompts", "sky; road, street; car; house; bush", rows=rows)
    assert "model outline, which has learned from drawn streets" in result.err
    (scores,) = run(folder, "pmp-eval", rows=result.rows).rows
    assert scores["class_iou"]["sky"] > 0.7
    assert scores["class_iou"]["road"] > 0.6


def test_one_prompt_at_a_time(folder, tmp_path):
    args = ("shapes:3", "-n", "1", "--size", "64x64", "--out", tmp_path / "drawn")
    rows = run(folder, "pmp-data", *args, "--ask", "each").rows
    found = seg(folder, "--proposals", rows=rows).rows
    (scores,) = run(folder, "pmp-eval", rows=found).rows
    assert scores["n_segments"] == len(rows) == scores["n_images"]
    assert scores["other_iou"] is not None


def test_rows_that_cannot_be_scored(folder):
    mask = {"size": [2, 2], "counts": [4]}
    row = {"prompts": "sky", "width": 2, "height": 2, "truth": []}
    one = {"prompt": "sky", "score": 0.5, "rle": mask, "area": 0, "box": [0, 0, 0, 0]}
    rows = [
        {**row, "truth": None, "segments": []},
        {**row, "segments": [{**one, "prompt": "dog"}]},
        {**row, "segments": [{**one, "rle": {"size": [1, 1], "counts": [1]}}]},
        {**row, "segments": [], "truth": [{"prompt": "sky", "rle": {"size": [3, 3], "counts": [9]}}]},
        {**row, "segments": [], "proposals": [mask], "selected": [3]},
        {**row, "segments": [], "width": 10**6, "height": 10**6},
        {**row, "segments": [one]},
    ]
    result = run(folder, "pmp-eval", "--on-error", "skip", rows=rows)
    for why in (
        "no `truth`",
        "none of `prompts`",
        "a mask of 1 x 1",
        "a mask of 3 x 3",
        "`selected` does not fit",
        "too large",
    ):
        assert why in result.err
    assert result.rows[0]["n_images"] == 1
    assert result.rows[0]["miou"] is None


TRAIN = (
    *("--data", "shapes:1", "--size", "32x32", "--queries", "2", "--layers", "1", "--width", "32", "--steps", "3"),
    *("--batch-size", "2", "--report-every", "1", "--save-every", "2", "--device", "cpu", "--train-prompts", "1"),
)


def test_training(folder, tmp_path):
    rows = run(folder, "pmp-train", *TRAIN, "--out", tmp_path / "m").rows
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    (found,) = seg(folder, "photo.jpg", "--prompts", "red circle; blue star", model=tmp_path / "m").rows
    assert found["segmenter"].startswith("m ")
    again = run(folder, "pmp-train", *TRAIN, "--out", tmp_path / "m")
    assert again.rows == []
    assert "goes on behind update 3" in again.err
    other = run(folder, "pmp-train", *TRAIN, "--pmp", "off", "--out", tmp_path / "m", rc=1)
    assert "--pmp: training began with on; off would be another one" in other.err


def test_two_processes_train_as_one(folder, tmp_path):
    from safetensors.torch import load_file

    before = run(folder, "pmp-train", *TRAIN, "--out", tmp_path / "one").rows
    (tmp_path / "run.py").write_text("from toolroll.tools.pmp_train import main\nmain()\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = frame.run([*launch, "run.py", *TRAIN, "--out", "two"], cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert result.rc == 0, result.err
    assert len(result.rows) == len(before) == 3  # the first process speaks for both
    for row, expected in zip(result.rows, before, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # where a gradient is all but zero, Adam makes steps of its rounding: some hundreds of weights, of all these
    apart = sum(int(((one[name] - two[name]).abs() > 1e-5).sum()) for name in one)
    assert apart < 0.01 * sum(part.numel() for part in one.values())


@pytest.mark.parametrize("tokens", ["sentence", "words"])
def test_training_with_the_text_half_of_a_clip(folder, tmp_path, tokens):
    text = ("--text", CLIP, "--text-tokens", tokens, "--steps", "1", "--out", tmp_path / "m")
    (row,) = run(folder, "pmp-train", *TRAIN, *text).rows
    assert row["step"] == 1
    (found,) = seg(folder, "photo.jpg", "--prompts", "red circle; blue star", model=tmp_path / "m").rows
    assert found["segments"]


@pytest.mark.parametrize("frozen", [True, False])
def test_training_a_mask2former(folder, tmp_path, frozen):
    import torch
    from safetensors.torch import load_file
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_layers=1,
        encoder_feedforward_dim=32, dim_feedforward=32, decoder_layers=3, num_attention_heads=2, num_queries=6,
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path / "base")
    freeze = ("--freeze-base",) if frozen else ()
    args = (*TRAIN, "--base", tmp_path / "base", *freeze, "--out", tmp_path / "m", "--size", "64x64")
    rows = run(folder, "pmp-train", *args).rows
    assert [row["step"] for row in rows] == [1, 2, 3]
    before, after = (load_file(at / "model.safetensors") for at in (tmp_path / "base", tmp_path / "m/base"))
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == frozen
    gates = [value for name, value in load_file(tmp_path / "m/model.safetensors").items() if name.endswith("gate")]
    assert len(gates) == 2
    assert all(float(gate) != 0 for gate in gates)
    (found,) = seg(folder, "photo.jpg", "--prompts", "red circle; blue star", model=tmp_path / "m").rows
    assert found["segments"]


@pytest.mark.parametrize(
    ("args", "why", "rc"),
    [
        (("--data", "nothing"), "want one of camvid, coco", 2),
        (("--data", "camvid:nowhere"), "no such folder", 1),
        (("--data", "shapes:1", "--size", "33x33"), "multiples of 32", 2),
        (("--data", "shapes:1", "--width", "40"), "a multiple of 32", 2),
        (("--data", "shapes:1", "--train-prompts", "5-2"), "want all, a number, or MIN-MAX", 2),
        (("--data", "shapes:1", "--freeze-base"), "goes with --base", 2),
        (("--data", "shapes:1", "--base", "./nowhere"), "cannot be loaded as a Mask2Former", 1),
        (("--data", "shapes:1", "--text", "./nowhere"), "cannot be loaded as a text encoder", 1),
    ],
)
def test_trainings_that_cannot_be(folder, tmp_path, args, why, rc):
    result = run(folder, "pmp-train", *args, "--device", "cpu", "--out", tmp_path / "m", rc=rc)
    assert why in result.err


@pytest.mark.parametrize(
    ("args", "why", "rc"),
    [
        (("shapes:1",), "--out: drawn images need a folder", 2),
        (("voc:x",), "want one of", 2),
        (("coco:gone.json",), "gone.json: No such file", 1),
        (("coco:gone.json", "--size", "5x5"), "want WIDTHxHEIGHT", 2),
    ],
)
def test_data_that_cannot_be(folder, args, why, rc):
    assert why in run(folder, "pmp-data", *args, rc=rc).err
