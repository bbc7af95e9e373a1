"""kv-quant: what it reads, what comes back, what it refuses."""

from __future__ import annotations

import json

import frame
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolroll.kvcache.kvfile import KVFile
from toolroll.kvcache.packed import PackedFile
from toolroll.kvcache.tensors import TensorFile, TensorWriter, as_floats, as_stored

RNG = np.random.default_rng(0)


def kv_of(folder, name="kv.safetensors", *, shape=(1, 2, 20, 16), layers=2, kind=np.float32, **more):
    tensors = {f"layers.{i}.{p}": RNG.standard_normal(shape).astype(kind) for i in range(layers) for p in "kv"}
    save_file({**tensors, **more}, folder / name)
    return tensors


def quant(folder, *args, rc=0):
    result = frame.run(["kv-quant", "-q", *map(str, args)], cwd=folder)
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
    assert not (tmp_path / "rows").read_text()
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    again = load_file(tmp_path / "again")
    assert all((again[name].view(np.uint8) == one.view(np.uint8)).all() for name, one in given.items())


def test_no_visual_tokens_change_nothing_in_bfloat16(tmp_path):
    """Every bit pattern of the type among them, NaN too."""
    stored = np.arange(1 << 16, dtype=np.uint16).reshape(1, 2, -1, 16)
    with TensorWriter(tmp_path / "kv", [(f"layers.0.{p}", "BF16", stored.shape) for p in "kv"], {}) as writer:
        writer.write(stored)
        writer.write(stored[:, ::-1])
    quant(tmp_path, "kv", "--spans", "none", "-o", "packed")
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    again = TensorFile(tmp_path / "again")
    assert (again.array("layers.0.k") == stored).all()
    assert (again.array("layers.0.v") == stored[:, ::-1]).all()


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


def edited(path, name, edit):
    """A safetensors file again with another header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    edit(header)
    text = json.dumps(header).encode()
    path.with_name(name).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def schemes(old, new):
    return lambda header: header["__metadata__"].update(schemes=header["__metadata__"]["schemes"].replace(old, new, 1))


def about(**texts):
    return lambda header: header["__metadata__"].update(texts)


def tensor(name, **what):
    return lambda header: header[name].update(what)


MAKE = "and the header and the spans make it"
NOT_SAID = "its header does not say how it is packed"
EDITS = {
    "bits": (schemes('"bits": 1', '"bits": 3'), "3 bits: one of 1, 2, 4, 8 is possible"),
    "rule": (schemes('"lloyd1"', '"minmax", "beta": 1'), "its scheme has fields that are not known"),
    "wider": (
        schemes('"bits": 1, "rule": "lloyd1"', '"bits": 2, "rule": "minmax"'),
        f"layers.0.k.codes is [1, 2, 20, 2] of U8, {MAKE} [1, 2, 20, 4] of U8",
    ),
    "groups": (
        schemes('"group": 0', '"group": 8'),
        f"layers.0.k.lo is [1, 2, 1, 16] of F16, {MAKE} [1, 2, 3, 16] of F16",
    ),
    "none": (lambda header: header["__metadata__"].pop("schemes"), NOT_SAID),
    "later": (about(version="2"), "is of version 2, and 1 can be read"),
    "longer": (about(tokens="21"), f"layers.0.k.dense is [1, 2, 0, 16] of F32, {MAKE} [1, 2, 1, 16] of F32"),
    "endless": (about(tokens="9" * 15), NOT_SAID),
    "gone": (lambda header: header.update({"other": header.pop("layers.1.v.codes")}), "has no layers.1.v.codes"),
    "turned": (tensor("layers.1.v.codes", shape=[1, 2, 2, 20]), f"layers.1.v.codes is [1, 2, 2, 20] of U8, {MAKE}"),
    "kind": (tensor("layers.1.k.scale", dtype="BF16"), f"layers.1.k.scale is [1, 2, 1, 16] of BF16, {MAKE}"),
    "flat": (tensor("layers.1.k.dense", shape=[0]), "layers.1.k.dense has to be [B, H, T, D]"),
    "span": (tensor("span", dtype="F64"), NOT_SAID),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_packed_file_is_refused(name, tmp_path):
    kv_of(tmp_path)
    quant(tmp_path, "kv.safetensors", "-o", "packed")
    edit, why = EDITS[name]
    edited(tmp_path / "packed", name, edit)
    result = quant(tmp_path, "--dequantize", name, "-o", "again", rc=1)
    assert result.err.startswith(f"kv-quant: {name}: {why}")
    assert result.err.count("\n") == 1
    assert not (tmp_path / "again").exists()
    assert PackedFile(tmp_path / "packed").layers == [0, 1]


def test_a_kv_file_with_a_digest_is_checked(tmp_path):
    """What kv-quant or kv-dump wrote, with a number changed."""
    kv_of(tmp_path)
    quant(tmp_path, "kv.safetensors", "-o", "packed")
    quant(tmp_path, "--dequantize", "packed", "-o", "again")
    quant(tmp_path, "again")
    data = bytearray((tmp_path / "again").read_bytes())
    data[-3] ^= 1
    (tmp_path / "again").write_bytes(data)
    why = "its tensors are not what was written: the digest in the header is another"
    assert quant(tmp_path, "again", rc=1).err == f"kv-quant: again: {why}\n"


BROKEN = {
    "span": ({"span": np.float32([[0, 3]])}, "span is of type F32, and has to be whole numbers"),
    "q": ({"layers.1.q": np.full((1, 2, 3, 16), np.nan, np.float32)}, "layers.1.q has a value that is NaN or infinite"),
    "late": ({"q_at": np.array([[1, 2, 20]])}, "q_at has a place that is not in the sequence of 20 tokens"),
    "early": ({"q_at": np.array([[-1, 2, 3]])}, "q_at has a place that is not in the sequence of 20 tokens"),
    "mask": ({"mask": np.ones((1, 7), np.bool_)}, "mask is [1, 7], not [1, 20]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_goes_with_keys_has_to_fit(name, tmp_path):
    given, why = BROKEN[name]
    queries = {f"layers.{i}.q": RNG.standard_normal((1, 2, 3, 16), dtype=np.float32) for i in (0, 1)}
    kv_of(tmp_path, **{**queries, **given})
    assert quant(tmp_path, "kv.safetensors", rc=1).err == f"kv-quant: kv.safetensors: {why}\n"


def test_attention_needs_all_tokens_to_be_finite(tmp_path):
    """A token that is not packed may be NaN, until attention looks at it."""
    queries = {f"layers.{i}.q": RNG.standard_normal((1, 2, 3, 16), dtype=np.float32) for i in (0, 1)}
    for part in "kv":
        given = kv_of(tmp_path, **queries, span=np.array([[0, 7]]))
        given[f"layers.1.{part}"][0, 1, 9, 3] = np.nan
        save_file({**given, **queries, "span": np.array([[0, 7]])}, tmp_path / "kv.safetensors")
        result = quant(tmp_path, "kv.safetensors", rc=1)
        where = f"kv.safetensors: layer 1 {part} head 1 channel 3"
        assert result.err == f"kv-quant: {where}: a value is NaN (of token 9)\n"
        save_file({**given, "span": np.array([[0, 7]])}, tmp_path / "kv.safetensors")
        assert len(quant(tmp_path, "kv.safetensors").rows) == 8


def test_large_numbers_stay_numbers(tmp_path):
    """Scores and squares that fp32 does not hold; and a range that it does not hold."""
    given = kv_of(tmp_path, layers=1)
    big = {name: one * np.float32(1e25) for name, one in given.items()}
    queries = {"layers.0.q": RNG.standard_normal((1, 2, 3, 16), dtype=np.float32) * np.float32(1e20)}
    save_file({**big, **queries}, tmp_path / "big")
    save_file(given, tmp_path / "small")
    args = ("--rule", "minmax", "--bits", "2", "--ranges", "fp32")
    for row, plain in zip(quant(tmp_path, "big", *args).rows, quant(tmp_path, "small", *args).rows, strict=True):
        assert row["nmse"] == pytest.approx(plain["nmse"], rel=1e-4)
        assert row["cosine"] == pytest.approx(plain["cosine"], rel=1e-4)
        assert row["mse"] == pytest.approx(plain["mse"] * 1e50, rel=1e-4)
        assert (row["kl"] is None) == (row["part"] == "v")
    given["layers.0.k"][0, 0, :2, 0] = [3e38, -3e38]
    save_file(given, tmp_path / "huge")
    result = quant(tmp_path, "huge", *args, rc=1)
    assert result.err == "kv-quant: huge: layer 0 k head 0: its range is too large for float32\n"


@pytest.mark.parametrize("shape", [(0, 2, 4, 8), (1, 0, 4, 8), (1, 2, 4, 0), (1, 2, 0, 8)])
def test_tensors_without_values(shape, tmp_path):
    kv_of(tmp_path, shape=shape, layers=1)
    error = quant(tmp_path, "kv.safetensors", "-o", "packed", rc=1).err
    assert error.count("\n") == 1
    assert "has no values" in error or "have no tokens" in error
