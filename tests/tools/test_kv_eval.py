"""kv-dump and kv-eval with an image-text model: several images, batches, beams; and files that go on to the others."""

from __future__ import annotations

import json

import frame
import numpy as np
import pytest
import tiny_models
from PIL import Image
from safetensors.numpy import load_file

MESSAGES = [{"role": "user", "content": "What is this?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model with images of 16 tokens, two pictures, and rows about one and about both."""
    folder = tmp_path_factory.mktemp("kv")
    tiny_models.write_image_text(folder / "llava", "llava")
    for seed, name in enumerate(("a.png", "b.png")):
        data = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(data).save(folder / name)
    rows = [
        {"id": "one", "messages": MESSAGES, "images": ["a.png"], "reference": "a cat"},
        {"id": "two", "messages": MESSAGES, "images": ["a.png", "b.png"], "reference": "a dog and more"},
        {"id": "none", "messages": MESSAGES, "reference": "text alone"},
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder, name, *args, rc=0):
    line = [name, "in.jsonl", "--model", "llava", "--device", "cpu", *map(str, args)]
    result = frame.run(line, cwd=folder)
    assert result.rc == rc, result.err
    return result


def evaluated(folder, *args):
    caches = ("dense", "minmax:bits=8,ranges=fp32", "minmax:bits=1")
    named = [word for cache in caches for word in ("--cache", cache)]
    rows = run(folder, "kv-eval", *named, "--response-tokens", 5, *args).rows
    assert [(row["id"], row["cache"]) for row in rows] == [(i, c) for i in ("one", "two", "none") for c in caches]
    return {(row["id"], row["cache"].partition(",")[0]): row for row in rows}


@pytest.fixture(scope="module")
def batched(folder):
    return evaluated(folder, "--batch-size", 3)


def test_images_are_packed_and_text_is_not(batched):
    for name, images in (("one", 1), ("two", 2), ("none", 0)):
        dense, fine, rough = (batched[name, cache] for cache in ("dense", "minmax:bits=8", "minmax:bits=1"))
        assert {row["kv_visual_tokens"] for row in (dense, fine, rough)} == {16 * images}
        assert (dense["kl"], dense["top1_frac"], dense["kv_ratio"]) == (0, 1, 1)
        assert dense["nll"] == dense["nll_dense"] == rough["nll_dense"]
        assert fine["kl"] < 1e-3
        assert fine["response"] == dense["response"]
        if images:
            assert 0 < fine["kl"] < rough["kl"]
        else:
            assert rough["kl"] < 1e-9


def test_a_batch_changes_no_numbers(folder, batched):
    """Left padding is not packed, and spans are those of each item."""
    alone = evaluated(folder, "--batch-size", 1)
    for key, row in batched.items():
        assert row["kl"] == pytest.approx(alone[key]["kl"], rel=1e-3, abs=1e-6)
        assert row["nll"] == pytest.approx(alone[key]["nll"], rel=1e-4)
        assert row["response"] == alone[key]["response"]
    two = alone["two", "minmax:bits=1"]
    layers, heads, size = 2, 2, 8
    numbers = 2 * layers * heads * size  # of a token
    rest = two["kv_tokens"] - 32
    assert two["kv_bytes"] == 32 * numbers // 8 + 2 * 2 * numbers + 4 * rest * numbers


def test_beams(folder, batched):
    rows = evaluated(folder, "--batch-size", 3, "--beams", 3)
    for name in ("one", "two", "none"):
        assert rows[name, "minmax:bits=8"]["response"] == rows[name, "dense"]["response"]
    assert rows["two", "minmax:bits=1"]["kl"] == batched["two", "minmax:bits=1"]["kl"]


def test_from_a_dump_to_a_map_of_scores(folder):
    made = run(folder, "kv-dump", "--out", "kv", "--queries", 4).rows
    assert [(row["id"], row["kv_visual_tokens"]) for row in made] == [("one", 16), ("two", 32), ("none", 0)]
    tensors = load_file(folder / "kv" / "two.safetensors")
    spans = tensors["span"].tolist()
    assert [stop - start for _, start, stop in spans] in ([16, 16], [32])
    assert tensors["layers.1.q"].shape == (1, 4, 4, 8)
    assert tensors["layers.1.k"].shape == (1, 2, made[1]["kv_tokens"], 8)
    assert tensors["q_at"][0, 0] == spans[-1][2]
    assert tensors["q_at"][0, -1] == made[1]["kv_tokens"] - 1
    line = "kv-calibrate -q kv/one.safetensors kv/two.safetensors --rule minmax --bits 1 --for head -o tau.jsonl"
    assert frame.shell(line, cwd=folder).rc == 0
    taus = [json.loads(row) for row in (folder / "tau.jsonl").read_text().splitlines()]
    assert [(tau["layer"], tau["head"]) for tau in taus] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(tau["error"] <= tau["error_without"] for tau in taus)
    assert any((tau["t1"], tau["t2"]) != (0, 0) for tau in taus)
    mapped = run(folder, "kv-eval", "--cache", "minmax:bits=1", "--cache", "minmax:bits=1,tau=tau.jsonl").rows
    assert mapped[0]["kl"] != mapped[1]["kl"]


def test_attention_by_a_dump_is_that_of_the_model(folder, tmp_path):
    """The recorded queries and keys give the model's own attention: 8 bits leave next to no error."""
    run(folder, "kv-dump", "--out", tmp_path, "--queries", 4)
    result = frame.shell("kv-quant -q two.safetensors --bits 8 --rule minmax --ranges fp32", cwd=tmp_path)
    for row in result.rows:
        assert (row["kl"] if row["part"] == "k" else row["output_error"]) < 0.02
