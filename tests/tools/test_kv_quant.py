"""kv-quant: what it reads, what comes back, what it refuses."""

from __future__ import annotations

import json

import frame
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolroll.kvcache.container import KVFile, PackedFile
from toolroll.kvcache.tensors import TensorFile, TensorWriter, as_floats, as_stored

RNG = np.random.default_rng(0)


def kv_of(folder, name="kv.safetensors", *, shape=(1, 2, 20, 16), layers=2, kind=np.float32, **more):
    tensors = {f"layers.{i}.{p}": RNG.standard_normal(shape).astype(kind) for i in range(layers) for p in "kv"}
    save_file({**tensors, **more}, folder / name)
    return tensors


def quant(folder, *args, rc=0):
    result = frame.run(["kv-quant", "-q", *map(str, args)], cwd=folder, warm_start=True)
    assert result.rc == rc, result.err
    return result


def test_one_bit_and_back(tmp_path):
    """The command of the manual: rows to stdout, a packed file, and back within the error of the rows."""
    given = kv_of(tmp_path)
    args = ("kv.safetensors", "--rule", "quantile", "--bits", "1", "--alpha", ".2", "-o", "packed", "--report", "-")
    rows = quant(tmp_path, *args).rows
    assert [(row["layer"], row["head"], row["part"]) for row in rows] == [
        (layer, head, part) for layer in (0, 1) for head in (0, 1) for part in "kv"
    ]
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    again = load_file(tmp_path / "again")
    for row in rows:
        name = f"layers.{row['layer']}.{row['part']}"
        x, found = given[name][0, row["head"]], again[name][0, row["head"]]
        assert len(np.unique(found[:, 0])) == 2
        assert row["nmse"] == pytest.approx(float((np.square(found - x).mean(0) / x.var(0)).mean()), rel=1e-4)
        assert row["effective_bits"] == 1 + 32 / 20


def test_other_tokens_come_back_bit_by_bit(tmp_path):
    """Spans of each item, of different lengths, one without any, in bfloat16."""
    tokens = np.arange(20)
    bits = RNG.standard_normal((3, 2, 20, 16), dtype=np.float32)
    stored = as_stored(bits, "BF16")
    with TensorWriter(tmp_path / "kv", [(f"layers.0.{p}", "BF16", stored.shape) for p in "kv"], {}) as writer:
        writer.write(stored)
        writer.write(stored)
    spans = ("--spans", "2:6,10:13", "--spans", "none", "--spans", "0:1")
    quant(tmp_path, "kv", *spans, "--rule", "minmax", "--bits", "8", "-o", "packed")
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    again = TensorFile(tmp_path / "again")
    assert again.array("span").tolist() == [[0, 2, 6], [0, 10, 13], [2, 0, 1]]
    visual = [np.isin(tokens, [2, 3, 4, 5, 10, 11, 12]), tokens < 0, tokens < 1]
    for item, mask in enumerate(visual):
        found = again.array("layers.0.k")[item]
        assert (found[:, ~mask] == stored[item][:, ~mask]).all()
        error = as_floats(found, "BF16") - as_floats(stored[item], "BF16")
        assert np.abs(error).max() < 0.03
    assert KVFile(tmp_path / "again").masks().tolist() == np.stack(visual).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_no_visual_tokens_change_nothing(kind, tmp_path):
    given = kv_of(tmp_path, kind=kind)
    quant(tmp_path, "kv.safetensors", "--spans", "none", "-o", "packed", "--report", "rows")
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    again = load_file(tmp_path / "again")
    assert all((again[name].view(np.uint8) == one.view(np.uint8)).all() for name, one in given.items())


def test_the_layouts_of_a_packed_file(tmp_path):
    """KIVI's words: keys along tokens, values along channels, both little-endian."""
    kv_of(tmp_path, shape=(1, 1, 20, 32), layers=1)
    kivi = ("--rule", "minmax", "--bits", "2", "--group-size", "16", "--along-v", "channels", "--layout", "kivi32")
    quant(tmp_path, "kv.safetensors", *kivi, "-o", "packed")
    file = TensorFile(tmp_path / "packed")
    assert file.kinds["layers.0.k.codes"] == "I32"
    assert file.shapes["layers.0.k.codes"] == (1, 1, 32, 2)
    assert file.shapes["layers.0.v.codes"] == (1, 1, 20, 2)
    assert file.shapes["layers.0.k.lo"] == (1, 1, 2, 32)
    assert file.shapes["layers.0.v.scale"] == (1, 1, 20, 2)
    x = load_file(tmp_path / "kv.safetensors")["layers.0.k"][0, 0]
    low, wide = (file.array(f"layers.0.k.{one}")[0, 0].astype(np.float32) for one in ("lo", "scale"))
    first = [round(float((x[t, 5] - low[0, 5]) / wide[0, 5])) for t in range(16)]
    word = int(file.array("layers.0.k.codes").view(np.uint32)[0, 0, 5, 0])
    assert [(word >> (2 * t)) & 3 for t in range(16)] == first


def test_attention_by_queries_of_the_file(tmp_path):
    """Queries of two heads for each key head, where they are in the sequence; 8 bits hardly change a thing."""
    queries = {f"layers.{i}.q": RNG.standard_normal((1, 4, 3, 16), dtype=np.float32) for i in (0, 1)}
    kv_of(tmp_path, **queries, q_at=np.array([[5, 10, 19]]), span=np.array([[1, 15]]))
    fine = quant(tmp_path, "kv.safetensors", "--bits", "8", "--rule", "minmax").rows
    rough = quant(tmp_path, "kv.safetensors", "--bits", "1", "--rule", "minmax").rows
    for one, other in zip(fine, rough, strict=True):
        if one["part"] == "k":
            assert 0 <= one["kl"] < 1e-3 < other["kl"]
            assert one["top1_frac"] == 1
            assert one["score_rmse"] < 0.02 < other["score_rmse"]
            assert one["output_error"] is None
        else:
            assert one["output_error"] < 0.02 < other["output_error"]
            assert one["kl"] is None


def test_one_token(tmp_path):
    given = kv_of(tmp_path, shape=(1, 2, 1, 8), layers=1, kind=np.float16)
    for rule in ("minmax", "lloyd1", "quantile", "mse"):
        (row, *_) = quant(tmp_path, "kv.safetensors", "--rule", rule, "-o", "packed", "--report", "-").rows
        assert (row["nmse"], row["mse"], row["constant_channels"]) == (None, 0, 8)
        quant(tmp_path, "--dequantize", "packed", "-o", "again")
        assert (load_file(tmp_path / "again")["layers.0.k"] == given["layers.0.k"]).all()


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (-np.inf, "infinite")])
def test_what_is_not_finite_is_named(value, what, tmp_path):
    given = kv_of(tmp_path, layers=3)
    given["layers.2.v"][0, 1, 7, 11] = value
    save_file(given, tmp_path / "kv.safetensors")
    result = quant(tmp_path, "kv.safetensors", "-o", "packed", rc=1)
    assert result.err == f"kv-quant: kv.safetensors: layer 2 v head 1 channel 11: a value is {what} (of token 7)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kv.safetensors"]
    quant(tmp_path, "kv.safetensors", "--spans", "0:7,8:20", "-o", "packed")  # it is not among those to pack


def test_what_does_not_fit_is_told_in_one_line(tmp_path):
    kv_of(tmp_path, shape=(1, 1, 4, 12))
    why = "heads have 12 channels, no multiple of 8: 8 codes of 1 bit are in a byte"
    assert quant(tmp_path, "kv.safetensors", rc=1).err == f"kv-quant: kv.safetensors: layer 0 k: {why}\n"
    assert len(quant(tmp_path, "kv.safetensors", "--bits", "2").rows) == 4
    big = kv_of(tmp_path, "big", shape=(1, 1, 4, 8), layers=1)
    big["layers.0.k"] *= 1e6
    save_file(big, tmp_path / "big")
    result = quant(tmp_path, "big", rc=1)
    assert result.err == "kv-quant: big: layer 0 k head 0: its range is too large for float16: store ranges as fp32\n"
    assert len(quant(tmp_path, "big", "--ranges", "fp32").rows) == 2
    save_file({"layers.0.k": np.zeros((1, 1, 4, 8), np.float32)}, tmp_path / "half")
    assert quant(tmp_path, "half", rc=1).err == "kv-quant: half: has no layers.0.v\n"
    save_file({"layers.0.k": np.zeros((4, 8), np.float32)}, tmp_path / "flat")
    assert "[B, H, T, D]" in quant(tmp_path, "flat", rc=1).err
    kv_of(tmp_path, "spans", span=np.array([[0, 2], [1, 3]]))
    assert quant(tmp_path, "spans", rc=1).err == "kv-quant: spans: the spans 0:2 and 1:3 overlap\n"


def test_an_edited_packed_file_is_refused(tmp_path):
    kv_of(tmp_path)
    quant(tmp_path, "kv.safetensors", "-o", "packed")
    data = (tmp_path / "packed").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name, edit in {
        "bits": lambda about: about.update(schemes=about["schemes"].replace('"bits": 1', '"bits": 3')),
        "none": lambda about: about.pop("schemes"),
        "later": lambda about: about.update(version="2"),
    }.items():
        changed = json.loads(json.dumps(header))
        edit(changed["__metadata__"])
        text = json.dumps(changed).encode()
        (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
        result = quant(tmp_path, "--dequantize", name, "-o", "again", rc=1)
        assert result.err.startswith(f"kv-quant: {name}: ")
        assert result.err.count("\n") == 1
    assert PackedFile(tmp_path / "packed").layers == [0, 1]
