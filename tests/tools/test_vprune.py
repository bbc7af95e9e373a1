"""vprune, vprune-calibrate and vprune-plan with a tiny model: what comes out, and bad input."""

from __future__ import annotations

import json
from itertools import pairwise

import frame
import pytest
import tiny_models
import tiny_pairs

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

MODEL = str(frame.ROOT / "tests/data/tiny-llava")


def run(folder, command, *args, rows=(), rc=0, model=MODEL):
    """The result of a command on `rows`, in `folder`."""
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    argv = [str(frame.BIN / command), "--model", model, "--device", "cpu", *map(str, args)]
    result = frame.run(argv, stdin=stdin, cwd=folder)
    assert result.rc == rc, result.err
    return result


def answers(folder, *args, rows, rc=0, **settings):
    return run(folder, "vprune", "--response-tokens", "5", *args, rows=rows, rc=rc, **settings).rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("vprune")
    for name, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        tiny_pairs.picture(made / f"{name}.png", colour)
    (made / "bad.png").write_bytes(b"not an image")
    return made


ROWS = [
    {"id": "a", "prompt": "What is it?", "images": ["red.png"], "kept": 1},
    {"id": "b", "prompt": "No image."},
    {"id": "c", "prompt": "Which one?", "images": ["red.png", "blue.png"]},
]
PLAN = ("--window", "3", "--heads", "2", "--ffn", "2", "--cut", "1")


@pytest.mark.parametrize(
    "line",
    [
        ("vprune", "--ffn", "2", "--response-tokens", "1"),
        ("vprune-calibrate", "--keep-heads", "9", "--out", "kept.safetensors"),
        ("kv-dump", "--out", "kv"),
        ("kv-eval", "--response-tokens", "1"),
        ("layercast-run", "--response-tokens", "1"),
    ],
    ids=lambda line: line[0],
)
def test_a_model_that_ships_is_told_of_with_what_it_is_good_for(folder, line):
    told = run(folder, *line, rows=ROWS[:1], model="sprite").err.splitlines()
    assert "sprite: a tiny image-text model, good for rendered scenes" in told[0]


def test_answers_with_times_and_costs(folder):
    rows = answers(folder, *PLAN, "--compare", "--timings", rows=ROWS)
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["kept"] == 1
    for row in rows:
        assert row["ttft_ms"] > 0
        assert row["dense_ttft_ms"] > 0
        assert row["kv_bytes_held"] == row["kv_bytes_pruned"] <= row["kv_bytes_dense"]
        assert row["n_tokens"] <= 5
        assert row["softmax"] == "renorm"
        assert len(row["plan_hash"]) == 16
    first, none, both = rows
    assert first["grids"] == [[4, 4]]
    assert both["grids"] == [[4, 4], [4, 4]]
    assert none["n_visual"] == none["flops_dense"] == none["flops_pruned"] == 0
    assert none["response"] == none["dense_response"]
    assert none["dense_same_tokens"] == none["n_tokens"]
    assert first["flops_pruned"] < first["flops_dense"] / 3
    assert first["visual_ratio"] == first["flops_pruned"] / first["flops_dense"]


def test_nothing_pruned_is_the_dense_model(folder):
    for row in answers(folder, "--compare", rows=ROWS):
        assert row["response"] == row["dense_response"]
        assert row["dense_same_tokens"] == row["n_tokens"]
        assert row["visual_ratio"] == 1
        assert row["kv_bytes_held"] == row["kv_bytes_dense"]


def test_batches_with_different_numbers_of_images(folder):
    alone = answers(folder, *PLAN, rows=ROWS)
    together = answers(folder, *PLAN, "--batch-size", "3", rows=ROWS)
    per_batch = {"kv_bytes_held", "flops_executed"}
    assert all(row[name] is None for row in together for name in per_batch)
    for one, other in zip(alone, together, strict=True):
        assert {n: v for n, v in one.items() if n not in per_batch} == {
            n: v for n, v in other.items() if n not in per_batch
        }
        assert "ttft_ms" not in one


def test_the_authors_softmax_skips_neurons_only(folder):
    (row,) = answers(folder, *PLAN, "--softmax", "authors", rows=ROWS[:1])
    assert row["flops_executed"] is None
    assert row["kv_bytes_held"] == row["kv_bytes_pruned"] == row["kv_bytes_dense"]
    (other,) = answers(folder, "--ffn", "2", rows=ROWS[:1])
    assert row["flops_pruned"] == other["flops_pruned"]


def test_rows_that_cannot_be_answered_fail_alone(folder):
    rows = [
        {"id": "gone", "prompt": "x", "images": ["gone.png"]},
        {"id": "bad", "prompt": "x", "images": ["bad.png"]},
        {"id": "empty", "prompt": " "},
        {"id": "mark", "prompt": "an <image> more", "images": ["red.png"]},
        ROWS[0],
    ]
    found = answers(folder, *PLAN, "--on-error", "keep", rows=rows)
    for row, why in zip(found, ["No such file", "not an image", "empty", "<image>|image", None], strict=True):
        if why is None:
            assert row["response"]
        else:
            assert "error" in row
            assert "response" not in row
            assert "\n" not in str(row["error"])


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--cut", "3"), "--cut: 3 is not in 0..2, the model's layers"),
        (("--ffn", "99"), "--ffn: 99 leaves none of the 48 neurons"),
        (("--heads", "5"), "--heads: 5 is not in 0..4, the model's heads"),
        (
            ("--heads", "other.npy"),
            "other.npy: is a mask of another model: it has 32 layers of 32 heads, the model 2 of 4",
        ),
        (("--heads", "red.png"), "red.png: is no head mask: neither .safetensors nor .npy"),
        (("--plan", "none.json"), "none.json: No such file or directory"),
        (("--plan", "red.png"), "red.png: is not JSON"),
        (("--plan", "other.json"), "other.json: is no plan of vprune-plan"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_plans_that_do_not_fit_are_told_in_one_line(folder, args, why):
    import numpy as np

    np.save(folder / "other.npy", np.ones((32, 32), dtype=bool))
    (folder / "other.json").write_text('{"rate": 1}')
    result = frame.run(
        [str(frame.BIN / "vprune"), "--model", MODEL, "--device", "cpu", *args],
        stdin=json.dumps(ROWS[0]).encode(),
        cwd=folder,
    )
    assert result.rc == 2
    assert result.complaints == [f"vprune: {why}"]
    assert result.out == b""


def test_models_that_cannot_be_pruned_are_told_in_one_line(folder):
    result = run(folder, "vprune", rows=ROWS[:1], rc=1, model=str(frame.ROOT / "tests/data/tiny-llama"))
    assert result.err.endswith("tiny-llama: is no image-text model\n")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ({"model_type": "phi3"}, "its projections are fused: layer 0 has no q_proj"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "some of its layers have an attention of another kind (a sliding window, say)",
        ),
    ],
    ids=["fused", "sliding"],
)
def test_architectures_that_cannot_be_pruned_are_told_in_one_line(tmp_path, text, why):
    from transformers import AutoModelForImageTextToText, LlavaConfig

    made = tiny_models.image_models(["llava"])["llava"]
    words, vision = made.words, tiny_models._vision(model_type="clip_vision_model")
    kind = {"text_config": tiny_models._text(words, **text), "image_token_index": words.image_token_id}
    config = LlavaConfig(vision_config=vision, image_seq_length=16, **kind)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "other")
    made.processor().save_pretrained(tmp_path / "other")
    for command, *args in (
        ("vprune", "--cut", "1"),
        ("vprune-calibrate", "--keep-heads", "3", "--out", "h.safetensors"),
        ("vprune-plan", "--budget", "0.5"),
    ):
        result = run(tmp_path, command, "-q", *args, rows=ROWS[1:2], rc=1, model="other")
        assert result.err == f"{command}: other: cannot be pruned: {why}\n"
        assert not result.out


def test_a_layer_without_active_heads_and_large_windows(folder):
    import numpy as np

    np.save(folder / "none.npy", np.zeros((2, 4), dtype=bool))
    (row,) = answers(folder, "--heads", "none.npy", "--window", "99", rows=ROWS[:1])
    assert row["flops_pruned"] == row["flops_dense"] - 2 * (
        4 * 16 * 32 * 8 * 6 + 4 * 8 * 4 * (256 + 16 * row["n_text"])
    )
    (blind,) = answers(folder, "--cut", "0", "--compare", rows=ROWS[:1])
    assert blind["flops_pruned"] == 0


def test_a_grid_of_one_token(folder):
    """An image that is a single visual token."""
    made = tiny_models.image_models(["llava"])["llava"]
    made.config.vision_config.image_size = made.config.vision_config.patch_size
    made.config.image_seq_length = 1
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_config(made.config)
    processor = made.processor()
    size = {"height": 4, "width": 4}
    processor.image_processor.size = processor.image_processor.crop_size = size
    model.save_pretrained(folder / "one")
    processor.save_pretrained(folder / "one")
    (row,) = answers(folder, *PLAN, rows=ROWS[:1], model=str(folder / "one"))
    assert row["grids"] == [[1, 1]]
    assert row["n_visual"] == 1


def test_calibrating_and_using_the_mask(folder):
    result = run(
        folder, "vprune-calibrate", "--keep-heads", "3", "--protect-layers", "1", "--out", "h.safetensors", rows=ROWS
    )
    (said,) = result.rows
    assert said["kept_heads"] == [4, 2]
    assert said["n_samples"] == 2
    assert said["n_left_out"] == 1
    first = (folder / "h.safetensors").read_bytes()
    choose = ("vprune-calibrate", "--keep-heads", "3", "--protect-layers", "1", "--out", "h.safetensors")
    again = run(folder, *choose, rows=ROWS)
    assert again.rows == [said]
    assert (folder / "h.safetensors").read_bytes() == first
    (row,) = answers(folder, "--heads", "h.safetensors", rows=ROWS[:1])
    assert 0.5 < row["visual_ratio"] < 1
    from toolroll.pruning.heads import read_mask

    mask = read_mask(folder / "h.safetensors")
    assert [sum(layer) for layer in mask.heads] == [4, 2]
    assert mask.about["model"] == "tiny-llava"
    assert mask.about["n_samples"] == "2"
    same = run(
        folder,
        "vprune-calibrate",
        *("--threshold", said["threshold"], "--protect-layers", "1", "--out", "t.safetensors"),
        rows=ROWS,
    ).rows[0]
    assert same["kept_heads"] == said["kept_heads"]
    groups = run(
        folder, "vprune-calibrate", *("--keep-heads", "3", "--group-heads"),
        *("--protect-layers", "1", "--query-tokens", "first"),
        *("--out", "g.safetensors"), rows=ROWS
    ).rows[0]  # fmt: skip
    assert groups["kept_heads"][1] in (0, 2)
    heads = read_mask(folder / "g.safetensors").heads[1]
    assert heads[0] == heads[1]
    assert heads[2] == heads[3]


def test_calibrating_without_images_or_a_rule(folder):
    none = run(folder, "vprune-calibrate", "--keep-heads", "3", "--out", "x.safetensors", rows=ROWS[1:2], rc=1)
    assert "no prompt with an image" in none.err
    assert not (folder / "x.safetensors").exists()
    for args in ((), ("--keep-heads", "1", "--threshold", "2")):
        told = run(folder, "vprune-calibrate", *args, "--out", "x.safetensors", rows=ROWS, rc=2)
        assert told.err == "vprune-calibrate: --threshold: give one of --threshold and --keep-heads\n"
    few = run(folder, "vprune-calibrate", "--keep-heads", "1", "--out", "x.safetensors", rows=ROWS, rc=2)
    assert "fewer than 2 protected layers have" in few.err


def test_a_plan_for_a_budget(folder):
    asked = [{**ROWS[0], "response": "red"}, ROWS[2]]
    args = ("--budget", "0.3", "--protect-layers", "0", "--response-tokens", "3", "--out", "plan.json")
    (found,) = run(folder, "vprune-plan", *args, rows=asked).rows
    steps = found["steps"]
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert steps[0]["visual_ratio"] == 1
    assert steps[0]["cost"] == 0
    ratios = [step["visual_ratio"] for step in steps]
    met = next(number for number, ratio in enumerate(ratios) if ratio <= 0.3)
    assert ratios[: met + 1] == sorted(ratios[: met + 1], reverse=True)
    assert ratios[met:] == sorted(ratios[met:])  # what was pruned too much is given back
    assert len(set(ratios)) == len(ratios)
    assert 0.29 < ratios[-1] <= 0.3
    for before, step in pairwise(steps):
        assert step["step_cost"] == pytest.approx(step["nll"] - before["nll"])
        assert step["cost"] == pytest.approx(step["nll"] - steps[0]["nll"])
    plan = json.loads((folder / "plan.json").read_text())
    assert plan == found["plan"]
    assert found["plan_hash"] == steps[-1]["plan_hash"]
    (row,) = answers(folder, "--plan", "plan.json", rows=ROWS[:1])
    assert row["plan_hash"] == steps[-1]["plan_hash"]
    (wider,) = answers(folder, "--plan", "plan.json", "--window", "0", "--ffn", "1", rows=ROWS[:1])
    assert wider["visual_ratio"] >= row["visual_ratio"]
    assert run(folder, "vprune-plan", *args, rows=asked).rows == [found]


def test_lists_that_are_none(folder):
    for args, why in (
        (("--windows", "5,x"), "--windows: '5,x' is not a list of numbers"),
        (("--cuts", "2"), "--cuts: numbers have to be in 0..1"),
        (("--ffns", "0.5"), "--ffns: numbers have to be in 1..1e+06"),
    ):
        told = run(folder, "vprune-plan", "--budget", "0.5", *args, rows=ROWS[:1], rc=2)
        assert told.err == f"vprune-plan: {why}\n"


def test_a_budget_that_cannot_be_met(folder):
    args = ("--budget", "0.01", "--windows", "", "--ffns", "2", "--cuts", "0.5", "--response-tokens", "2")
    told = run(folder, "vprune-plan", *args, "--out", "no.json", rows=ROWS[:1], rc=1)
    assert "no plan of these rungs leaves 0.01" in told.err
    assert not (folder / "no.json").exists()
    refused = run(folder, "vprune-plan", "--budget", "0.5", rows=ROWS[1:2], rc=1)
    assert "no prompt with an image to judge plans by" in refused.err


def test_outputs_never_replace_inputs(folder, tmp_path):
    import shutil

    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    shutil.copytree(MODEL, tmp_path / "model")
    for image in ("red.png", "blue.png"):
        shutil.copy(folder / image, tmp_path)
    (tmp_path / "plan.json").write_text('{"window": null, "ffn": 1, "cut": 1}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calibrate = ("vprune-calibrate", "q.jsonl", "--keep-heads", "3")
    search = ("vprune-plan", "q.jsonl", "--budget", ".5")
    grid = ("vprune-flops", "--grid", "4x4")
    for command, *args in (
        (*calibrate, "--out", "q.jsonl"),
        (*calibrate, "--out", "model/model.safetensors"),
        (*search, "--out", "q.jsonl"),
        (*search, "--out", "model/config.json"),
        ("vprune", "q.jsonl", "--plan", "plan.json", "-o", "plan.json"),
        (*grid, "-o", "model/config.json"),
        (*grid, "-o", "plan.json", "--plan", "plan.json"),
    ):
        device = () if command == "vprune-flops" else ("--device", "cpu")
        told = frame.run([str(frame.BIN / command), *args, "--model", "model", *device], cwd=tmp_path, stdin=b"")
        assert told.rc == 2, args
        assert told.err.endswith(": input and output are the same file\n")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_outputs_that_cannot_be_are_told_before_the_work(folder):
    for args, rc, why in (
        (("vprune-calibrate", "--keep-heads", "3", "--out", "gone/x"), 1, "gone/x: No such file or directory"),
        (("vprune-calibrate", "--keep-heads", "3", "--out", "x.npy"), 2, "x.npy: a mask is written as .safetensors"),
        (("vprune-plan", "--budget", "0.5", "--out", "gone/x"), 1, "gone/x: No such file or directory"),
        (("vprune-plan", "--budget", "0.5", "--out", "x", "-o", "x"), 2, "x: two outputs cannot be the same file"),
    ):
        command, *rest = args
        assert run(folder, command, *rest, rows=ROWS, rc=rc).err == f"{command}: {why}\n"  # no word of a model


def test_masks_are_known_by_what_they_are_and_read_without_rows(folder):
    import numpy as np

    np.save(folder / "m.npy", np.ones((2, 4), dtype=bool))
    (folder / "m.npy").rename(folder / "mask")
    assert answers(folder, "--heads", "mask", rows=ROWS[:1])[0]["visual_ratio"] == 1
    assert run(folder, "vprune", "--heads", "gone", rc=2).err == "vprune: gone: No such file or directory\n"


def test_messages_that_say_where_their_images_are(folder):
    image, text = {"type": "image", "text": None}, {"type": "text", "text": "What is it? "}
    rows = [
        {"id": "last", "messages": [{"role": "user", "content": [text, image]}], "images": ["red.png"]},
        {"id": "first", "messages": [{"role": "user", "content": [image, text]}], "images": ["red.png"]},
        {"id": "head", "prompt": [{"role": "user", "content": "What is it? "}], "images": ["red.png"]},
        {"id": "none", "messages": [{"role": "user", "content": [text]}]},
        {"id": "many", "messages": [{"role": "user", "content": [image, image, text]}], "images": ["red.png"]},
        {"id": "gone", "messages": [{"role": "user", "content": [image]}]},
        {"id": "mute", "messages": [{"role": "user", "content": [{"type": "text"}]}], "images": ["red.png"]},
    ]
    last, first, head, none, *bad = answers(folder, "--window", "3", "--on-error", "keep", rows=rows)
    assert last["n_visual"] == first["n_visual"] == 16
    assert none["n_visual"] == 0
    same = {name for name in first if name not in ("id", "messages", "prompt")}
    assert {name: first[name] for name in same} == {name: head[name] for name in same}
    for row, why in zip(
        bad, ("1 images, and places for 2", "0 images, and places for 1", "a part of a mess"), strict=True
    ):
        assert why in row["error"]["why"]


def test_a_prompt_that_ends_with_an_image_costs_what_it_is(folder):
    asked = {"id": "a", "prompt": "last<image>", "images": ["red.png"]}
    (row,) = answers(folder, "--raw-prompt", "--window", "3", rows=[asked])
    n, t = row["n_visual"], row["n_text"]
    assert (row["grids"], n) == ([[4, 4]], 15)
    assert row["flops_pruned"] == 2 * (4 * n * 32 * 8 * 6 + 4 * 8 * 4 * (93 + n * t) + 6 * n * 32 * 48)
