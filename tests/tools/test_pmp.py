"""pmp-data, pmp-train, pmp-seg and pmp-eval with tiny models: what comes out, and bad input."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import frame
import numpy as np
import pytest
import tiny_models
from PIL import Image

MODEL = str(frame.ROOT / "tests/data/tiny-segmenter")
CLIP = str(frame.ROOT / "tests/data/tiny-clip")


def run(folder, command, *args, rows=(), rc=0):
    """The result of a command on `rows`, in `folder`."""
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    result = frame.run([str(frame.BIN / command), *map(str, args)], stdin=stdin, cwd=folder)
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
    (few,) = seg(folder, "photo.jpg", "--prompts", "sky; car", "--mode", "instance", "--max-segments", "1").rows
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


def test_sentences_may_come_from_a_pipe(folder, tmp_path):
    """Model and encoder use the same ones, read once."""
    from toolroll.tools.pmp_seg import main

    (tmp_path / "own.txt").write_text("a {}")
    read, write = os.pipe()
    os.write(write, b"a {}")
    os.close(write)
    settings = ("--prompts", "sky", "--model", MODEL, "--clip", CLIP, "--device", "cpu", "--templates")
    try:
        for name, out in ((str(tmp_path / "own.txt"), "one.jsonl"), (f"/dev/fd/{read}", "other.jsonl")):
            assert main.run([str(folder / "photo.jpg"), *settings, name, "-o", str(tmp_path / out)]) == 0
    finally:
        os.close(read)
    assert (tmp_path / "other.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


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
        (("--prompts", "sky", "--background-class", " "), "the background has no name"),
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
    *("--data", "shapes:1", "--size", "32x32", "--queries", "2", "--layers", "1"),
    *("--decoder-width", "32", "--steps", "3"),
    *("--batch-rows", "2", "--report-every", "1", "--save-every", "2", "--device", "cpu", "--train-prompts", "1"),
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


def test_two_trainings_in_one_folder_are_refused(folder, tmp_path):
    from toolroll.train.policy import PolicyDirectory

    held = PolicyDirectory(tmp_path / "m").open()
    refused = run(folder, "pmp-train", *TRAIN, "--out", tmp_path / "m", rc=1)
    assert refused.err == f"pmp-train: {tmp_path / 'm'}: another trainer is at work on it\n"
    held.close()


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
    text = ("--text-encoder", CLIP, "--text-tokens", tokens, "--steps", "1", "--out", tmp_path / "m")
    (row,) = run(folder, "pmp-train", *TRAIN, *text).rows
    assert row["step"] == 1
    (found,) = seg(folder, "photo.jpg", "--prompts", "red circle; blue star", model=tmp_path / "m").rows
    assert found["segments"]


@pytest.mark.parametrize("frozen", [True, False])
def test_training_a_mask2former(folder, tmp_path, frozen):
    import torch
    from safetensors.torch import load_file

    tiny_models.mask2former(3).save_pretrained(tmp_path / "base")
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
        (("--data", "shapes:1", "--decoder-width", "40"), "a multiple of 32", 2),
        (("--data", "shapes:1", "--train-prompts", "5-2"), "want all, a number, or MIN-MAX", 2),
        (("--data", "shapes:1", "--freeze-base"), "goes with --base", 2),
        (("--data", "shapes:1", "--base", "./nowhere"), "cannot be loaded as a Mask2Former", 1),
        (("--data", "shapes:1", "--text-encoder", "./nowhere"), "cannot be loaded as a text encoder", 1),
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


def test_pictures_never_replace_images(folder, tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes((folder / "one.png").read_bytes())
    before = (tmp_path / "1.png").read_bytes()
    for number, why in ((1, "input and output are the same file"), (2, "write into another folder")):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"id": number, "image": "1.png", "prompts": "sky"}) + "\n")
        for option in ("--save-masks", "--overlay"):
            told = seg(tmp_path, "rows.jsonl", option, ".", "--overwrite", rc=2)
            assert told.err.endswith(f"{number}.png: {why}\n") or told.err.endswith(f": {why}\n")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes() == before
    same = seg(folder, "one.png", "--prompts", "sky", "--save-masks", tmp_path, "--overlay", f"{tmp_path}/.", rc=2)
    assert same.err == "pmp-seg: --overlay: masks and pictures need a folder each\n"


def test_names_of_pictures(folder, tmp_path):
    rows = [
        {"id": "a/b", "image": "photo.jpg", "prompts": "sky"},
        {"id": "a b", "image": "alpha.png", "prompts": "sky"},
        {"id": "x" * 300, "image": "photo.jpg", "prompts": "sky"},
        {"id": "x" * 301, "image": "alpha.png", "prompts": "sky"},
    ]
    args = ("--overlay", tmp_path, "--on-error", "keep", "--overwrite")
    first, second, *long = seg(folder, *args, rows=rows).rows
    assert first["overlay_file"] == f"{tmp_path}/a_b.png"
    assert "another row's image has this name" in second["error"]["why"]
    assert len({row["overlay_file"] for row in long}) == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_data_and_models_are_not_replaced(folder, tmp_path):
    args = ("shapes:3", "-n", "1", "--size", "48x33", "--out", "drawn")
    rows = run(tmp_path, "pmp-data", *args, "-o", "rows.jsonl")
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert json.loads(before)["truth"][0]["rle"]["size"] == [33, 48]
    (tmp_path / "words.txt").write_text("sky\n")
    told = [
        run(tmp_path, "pmp-data", "rows:rows.jsonl", "-o", "rows.jsonl", rc=2),
        run(tmp_path, "pmp-train", *TRAIN, "--data", "rows:rows.jsonl", "--out", "m", "-o", "rows.jsonl", rc=2),
        run(tmp_path, "pmp-train", *TRAIN, "--text-encoder", CLIP, "--out", CLIP, rc=2),
        seg(tmp_path, folder / "one.png", "--prompts-file", "words.txt", "-o", "words.txt", rc=2),
    ]
    assert all("input and output are the same f" in one.err for one in told), rows.err
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert (tmp_path / "words.txt").read_text() == "sky\n"


def test_rows_are_json_lines_like_any_other(folder, tmp_path):
    import gzip

    row = {"id": "a\u2028b", "image": str(folder / "photo.jpg"), "prompts": "sky", "truth": []}
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    (tmp_path / "plain.jsonl").write_bytes(b"\xef\xbb\xbf" + line)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(b"\n" + line))
    for name in ("plain.jsonl", "packed.jsonl.gz"):
        assert run(tmp_path, "pmp-data", f"rows:{name}").rows[0]["id"] == row["id"]
    (tmp_path / "bad.jsonl").write_bytes(line + b"\n{\n")
    assert "bad.jsonl:3: " in run(tmp_path, "pmp-data", "rows:bad.jsonl", rc=1).err


def test_segments_of_which_nothing_is_known_do_not_count(folder):
    left, right = ({"size": [2, 4], "counts": counts} for counts in ([0, 4, 4], [4, 4]))
    row = {"prompts": "sky; road", "width": 4, "height": 2, "ignore": left, "segments": []}
    truth = [{"prompt": "sky", "rle": left}, {"prompt": "road", "rle": right}]
    found = [{"prompt": "Road", "score": 1, "rle": right, "area": 4, "box": [2, 0, 4, 2]}]
    other = {**row, "prompts": "Sky; ROAD", "truth": truth, "segments": found}
    (scores,) = run(folder, "pmp-eval", rows=[other, {**row, "truth": truth[:1]}]).rows
    assert scores["n_segments"] == 1
    assert scores["proposal_recall"] == scores["selected_iou"] == 1
    assert scores["class_iou"] == {"Sky": None, "ROAD": 1}  # one class, in any case


def test_training_that_diverges_is_told(folder, tmp_path):
    told = run(folder, "pmp-train", *TRAIN, "--lr", "1e30", "--out", tmp_path / "m", rc=1)
    assert "training has diverged" in told.err
    assert "internal" not in told.err


def test_lines_of_prompts_with_colons(folder, tmp_path):
    file = tmp_path / "p.txt"
    for text, names in (
        ("10:30 clock\nsky\n", ["10:30 clock", "sky"]),
        ("1:clock\n\n2:sky,air\n", ["clock", ["sky", "air"]]),
    ):
        file.write_text(text)
        (row,) = seg(folder, "one.png", "--prompts-file", file).rows
        assert row["prompts"] == names
    long = seg(folder, "one.png", "--prompts", "sky; " + "sky" * 30000 + "; " + "sky" * 30000, rc=2)
    assert len(long.err) < 200


COCO = {
    "images": [{"id": 1, "file_name": "photo.jpg", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "road"}],
}
BOX = [[1, 1, 30, 1, 30, 20, 1, 20]]


def coco(folder, *annotations, rc=0, **more):
    data = {**COCO, "annotations": [{"id": 7, "segmentation": BOX, **one} for one in annotations], **more}
    (folder / "coco.json").write_text(json.dumps(data))
    result = run(folder, "pmp-data", "coco:coco.json", rc=rc)
    return result.rows[0] if rc == 0 else result.err


def test_ids_of_coco_are_compared_by_value(folder):
    for ids in ({"image_id": 1.0, "category_id": 1.0}, {"image_id": "1", "category_id": "1"}):
        assert [one["prompt"] for one in coco(folder, ids)["truth"]] == ["sky"]
    words = [{"id": "s", "name": "sky"}]
    assert coco(folder, {"image_id": 1, "category_id": "s"}, categories=words)["truth"][0]["prompt"] == "sky"
    crowd = coco(folder, *({"image_id": 1, "category_id": 2, "iscrowd": one} for one in ("0", 0, "1")))
    assert len(crowd["truth"]) == 2
    assert "ignore" in crowd


@pytest.mark.parametrize(
    ("annotation", "more", "why"),
    [
        ({"image_id": 9, "category_id": 1}, {}, "none of its 1 annotations is of one of its images"),
        ({"image_id": 1, "category_id": [1]}, {}, "annotation 7: [1] is no id"),
        ({"image_id": [1], "category_id": 1}, {}, "[1] is no id"),
        ({"image_id": 1, "category_id": 1, "iscrowd": "no"}, {}, "`iscrowd` is 'no', neither 0 nor 1"),
        ({"image_id": 1, "category_id": 1}, {"categories": [{"id": 1, "name": n} for n in "ab"]}, "two category ids"),
        ({"image_id": 1, "category_id": 1}, {"images": COCO["images"] * 2}, "two image ids are the same"),
        *(
            ({"image_id": 1, "category_id": 1, "segmentation": given}, {}, "a polygon ")
            for given in ([["a", "b", 1, 2, 3, 4]], [{"x": 1}], [[[1, 2], [3]]], [[1, 1, 1e8, 1, 1e8, 20]])
        ),
        (
            {"image_id": 1, "category_id": 1, "segmentation": {"size": [float("inf"), 60], "counts": [1]}},
            {},
            "a mask has no `size`",
        ),
    ],
)
def test_coco_that_is_not_sound(folder, annotation, more, why):
    told = coco(folder, annotation, rc=1, **more)
    assert why in told
    assert "internal" not in told
