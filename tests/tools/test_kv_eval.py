"""kv-dump and kv-eval with an image-text model: several images, batches, beams; and files that go on to the others."""

from __future__ import annotations

import importlib.util
import json
import sys

import frame
import numpy as np
import pytest
import tiny_models
from PIL import Image
from safetensors.numpy import load_file, save_file

MESSAGES = [{"role": "user", "content": "What is this?"}]

TWO = {"OMP_NUM_THREADS": "2"}  #: threads part sums by the size of a batch


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


def run(folder, name, *args, rc=0, env=None):
    line = [name, "in.jsonl", "--model", "llava", "--device", "cpu", *map(str, args)]
    result = frame.run(line, cwd=folder, env=env)
    assert result.rc == rc, result.err
    return result


def evaluated(folder, *args, env=None):
    caches = ("dense", "minmax:bits=8,ranges=fp32", "minmax:bits=1")
    named = [word for cache in caches for word in ("--cache", cache)]
    rows = run(folder, "kv-eval", *named, "--response-tokens", 5, *args, env=env).rows
    assert [(row["id"], row["cache"]) for row in rows] == [(i, c) for i in ("one", "two", "none") for c in caches]
    return {(row["id"], row["cache"].partition(",")[0]): row for row in rows}


@pytest.fixture(scope="module")
def batched(folder):
    return evaluated(folder, "--batch-size", 3, env=TWO)


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
            assert rough["kl"] == fine["kl"] == 0


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
    rows = evaluated(folder, "--batch-size", 3, "--beams", 3, env=TWO)
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


def test_bfloat16_in_batches_with_beams(folder):
    """The model's own type, in which a dense cache holds everything and a packed one what is not packed."""
    caches = ("dense", "minmax:bits=8", "lloyd1:bits=1", "kivi:group=4,residual=0")
    named = [word for cache in caches for word in ("--cache", cache)]
    args = ("--dtype", "bfloat16", "--batch-size", 3, "--response-tokens", 3)
    plain = run(folder, "kv-eval", *named, *args).rows
    searched = run(folder, "kv-eval", *named, *args, "--beams", 2).rows
    for one, other in zip(plain, searched, strict=True):
        assert {name: one[name] for name in ("kl", "nll", "kv_bytes")} == {
            name: other[name] for name in ("kl", "nll", "kv_bytes")
        }
        assert one["kv_ratio"] == 1 if one["cache"] == "dense" else one["kv_ratio"] < 1
    none = [row for row in plain if row["id"] == "none"]
    assert [row["kl"] for row in none[:3]] == [0, 0, 0]  # no visual tokens
    fine = next(row for row in plain if (row["id"], row["cache"]) == ("two", "minmax:bits=8"))
    assert 0 < fine["kl"] < 0.01


LLAMA = ["kv-eval", "in.jsonl", "-q", "--model", "llama", "--device", "cpu", "--pack", "all", "--on-error", "keep"]
LLAMA += ["--response-tokens", "2"]


def test_prompts_of_one_token_and_spans_of_rows(tmp_path):
    """All of a prompt may be packed; what its spans cannot be is said of the row."""
    tiny_models.write_text(tmp_path / "llama", "llama", "float32")
    spans = {
        "all": [[0, 11]],
        "overlap": [[0, 3], [2, 4]],
        "leave": [[0, 300]],
        "before": [[-1, 2]],
        "no pairs": [[1]],
    }
    rows = [{"id": "one", "prompt": "a", "reference": "bcd"}]
    rows += [{"id": "first", "prompt": "a", "reference": "bcd", "packed_spans": [[0, 1]]}]
    rows += [
        {"id": name, "prompt": "hello there", "reference": "xyz", "packed_spans": one} for name, one in spans.items()
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = frame.run([*LLAMA, "--cache", "lloyd1:bits=1"], cwd=tmp_path)
    found = {row["id"]: row for row in result.rows}
    why = {name: row["error"]["why"] for name, row in found.items() if "error" in row}
    assert why == {
        "overlap": "packed_spans: the spans 0:3 and 2:4 overlap",
        "leave": f"packed_spans: the span 0:300 leaves the sequence of {found['all']['kv_tokens']} tokens",
        "before": "packed_spans: the span -1:2 has no tokens",
        "no pairs": "packed_spans has to be pairs: a first token and one behind the last",
    }
    assert found["one"]["kv_visual_tokens"] == found["one"]["kv_tokens"] - 1
    assert found["first"]["kv_visual_tokens"] == 1
    assert found["first"]["kl"] < 1e-4  # lo alone says what the channels of one token are
    assert found["all"]["kv_visual_tokens"] == 11
    assert found["all"]["kl"] > 0


CACHES = {
    "kivi:residual=-4": "kivi:residual=-4: -4 is less than 0",
    "minmax:tau=nan/0": "minmax:tau=nan/0: a map has to be of numbers",
    "minmax:tau=heads.jsonl": "minmax:tau=heads.jsonl: heads.jsonl has a map of layer 0 head 7, "
    "and the model has 2 layers of 2 key heads",
    "minmax:tau=layers.jsonl": "minmax:tau=layers.jsonl: layers.jsonl has a map of layer 9, "
    "and the model has 2 layers of 2 key heads",
}


@pytest.mark.parametrize("cache", CACHES)
def test_caches_that_cannot_be(folder, cache):
    (folder / "heads.jsonl").write_text('{"layer": 0, "head": 7, "t1": 1, "t2": 0}\n')
    (folder / "layers.jsonl").write_text('{"layer": 9, "head": null, "t1": 1, "t2": 0}\n')
    assert run(folder, "kv-eval", "-q", "--cache", cache, rc=2).err == f"kv-eval: --cache: {CACHES[cache]}\n"


@pytest.mark.parametrize(("cache", "package"), [("hqq:bits=4", "hqq"), ("quanto", "optimum.quanto")])
def test_a_package_that_is_not_there(folder, cache, package):
    if package in sys.modules or importlib.util.find_spec(package.partition(".")[0]) is not None:
        pytest.skip("it is there")
    error = run(folder, "kv-eval", "-q", "--cache", cache, rc=2).err
    assert error.startswith(f"kv-eval: --cache: {cache}: ")
    assert error.count("\n") == 1
    assert package.partition(".")[0] in error


def test_a_model_that_gives_no_numbers_fails_its_rows(tmp_path):
    tiny_models.write_text(tmp_path / "llama", "llama", "float32")
    weights = load_file(tmp_path / "llama" / "model.safetensors")
    weights["lm_head.weight"][5] = np.nan
    save_file(weights, tmp_path / "llama" / "model.safetensors", {"format": "pt"})
    rows = [{"id": "a", "prompt": "hello"}, {"id": "b", "prompt": "there", "reference": "you"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for beams in ("1", "2"):
        found = frame.run([*LLAMA, "--cache", "dense", "--cache", "lloyd1:bits=1", "--beams", beams], cwd=tmp_path).rows
        assert [(row["id"], row["cache"]) for row in found] == [
            (i, c) for i in "ab" for c in ("dense", "lloyd1:bits=1")
        ]
        assert {row["error"]["why"] for row in found} == {"the model's output is not a number"}
