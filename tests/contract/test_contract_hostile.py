"""Files that were made to do harm: headers that lie, bombs, pickles, and models that bring code of their own.

They are refused in one line, without the memory or the time that they ask for, and nothing of them is run.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import resource
import shutil
import struct
import time
import zipfile
import zlib

import frame
import pytest
import zstandard
from contract.inside import Inside
from contract.test_contract_faults import assert_told

COMMANDS = {command.name: command for command in frame.COMMANDS}
IMAGES = frame.ROOT / "tests/cases/clip-score/texts-and-images"
DATA = frame.ROOT / "tests/data"
HUGE = 2**60
MOST_MB, MOST_S = 300, 30.0  #: what refusing one may take; most of the seconds are for a busy machine


@pytest.fixture
def inside(tmp_path, capfdbinary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLROLL_HOME", str(tmp_path / "home"))
    return Inside(tmp_path, capfdbinary)


class Evil:
    """What makes the file of this name when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape, start, end, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def torch_file(data):
    """What torch.save writes, around any pickle."""
    import io

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
    return made.getvalue()


def hostile_tensors(marker):
    evil = pickle.dumps(Evil(marker))
    twice = (
        json.dumps({"layers.0.k": tensor([2], 0, 8)})[:-1] + "," + json.dumps({"layers.0.k": tensor([4], 0, 16)})[1:]
    )
    return {
        "huge header": HUGE.to_bytes(8, "little") + b"{}",
        "largest header": b"\xff" * 8 + b"{}",
        "overlapping": safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
        "outside": safetensors({"a": tensor([2], 0, 8), "b": tensor([2], HUGE, HUGE + 8)}, bytes(16)),
        "backwards": safetensors({"a": tensor([2], 8, 0)}, bytes(8)),
        "negative": safetensors({"a": tensor([-2], -8, 0)}, bytes(8)),
        "huge shape": safetensors({"a": tensor([2**32, 2**32], 0, 8)}, bytes(8)),
        "many dimensions": safetensors({"a": tensor([1] * 10_000, 0, 4)}, bytes(4)),
        "twice": safetensors(twice.encode(), bytes(16)),
        "deep": safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        "large header": safetensors({f"t{i}": tensor([0], 0, 0) for i in range(30_000)}),
        "pickle": evil,
        "torch pickle": torch_file(evil),
        "empty": b"",
    }


TENSORS = list(hostile_tensors("x"))


def with_weights(name):
    """A folder of a model of tests/data, its weights to be put there."""

    def make(folder, data):
        place = folder / f"model-{name}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(DATA / name, place)
        (place / "model.safetensors").write_bytes(data)
        return place

    return make


def single(folder, data):
    path = folder / "file.safetensors"
    path.write_bytes(data)
    return path


#: Command, arguments with {file} in them, and how its file is laid down.
TENSOR_READERS = {
    "kv-quant": (("{file}",), single),
    "kv-calibrate": (("{file}",), single),
    "vprune-flops": (("--model-config", "{config}", "--grid", "24x24", "--text", "35+30", "--heads", "{file}"), single),
    "nvs-eval": (("{pictures}", "--truth", str(IMAGES), "--lpips-weights", "{file}"), single),
    "pmp-seg": (("--model", "{file}", "--device", "cpu", "--images", str(IMAGES)), with_weights("tiny-segmenter")),
    "pair-logps": (("--model", "{file}", "--device", "cpu"), with_weights("tiny-llama")),
    "layercast-run": (
        ("--model", "{file}", "--device", "cpu", "--precision", "fp32", "--response-tokens", "1"),
        with_weights("tiny-llama"),
    ),
    "clip-score": (("--clip", "{file}", "--clip-device", "cpu", "--images", str(IMAGES)), with_weights("tiny-clip")),
}
TEXT, SEEING = (
    ("--model", "{file}", "--device", "cpu"),
    ("--model", "{file}", "--device", "cpu", "--images", str(IMAGES)),
)
#: They read by the same doors as those above; see `make faults`.
MORE_TENSOR_READERS = {
    "dpo-train": ((*TEXT, "--policy", "{new}"), with_weights("tiny-llama")),
    "kv-dump": ((*TEXT, "--out", "{new}"), with_weights("tiny-llama")),
    "kv-eval": ((*TEXT, "--cache", "lloyd1:bits=1", "--response-tokens", "1"), with_weights("tiny-llama")),
    "policy-train": ((*TEXT, "--policy", "{new}"), with_weights("tiny-llama")),
    "text-rollout": ((*TEXT, "--backend", "hf"), with_weights("tiny-llama")),
    "vprune": ((*SEEING, "--window", "3", "--cut", "1", "--response-tokens", "1"), with_weights("tiny-llava")),
    "vprune-calibrate": ((*SEEING, "--keep-heads", "4", "--out", "{new}.safetensors"), with_weights("tiny-llava")),
    "vprune-plan": ((*SEEING, "--budget", "0.5", "--response-tokens", "2"), with_weights("tiny-llava")),
}


class Bounds:
    """How much memory and time a stretch of this process takes."""

    def __enter__(self):
        self._peak, self._start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        return self

    def __exit__(self, *error):
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._peak) / 1024
        assert error != (None, None, None) or grown < MOST_MB, f"{grown:.0f} MB"
        assert time.process_time() - self._start < MOST_S


@pytest.mark.parametrize(
    "name", [*TENSOR_READERS, *(pytest.param(name, marks=pytest.mark.faults) for name in MORE_TENSOR_READERS)]
)
def test_tensors_whose_header_lies(name, inside, tmp_path):
    command, (args, lay) = COMMANDS[name], {**TENSOR_READERS, **MORE_TENSOR_READERS}[name]
    marker = tmp_path / "was-run"
    sizes, pictures = tmp_path / "sizes.json", tmp_path / "pictures"
    sizes.write_text(json.dumps(frame.SIZES))
    pictures.mkdir()
    (pictures / "red.bmp").write_bytes(frame.GREY)
    inputs = inside.inputs(command)
    made = {}
    files = hostile_tensors(marker)
    assert_first(command, lay, args, inside, inputs, sizes, pictures)
    for kind, data in files.items():
        place = lay(tmp_path, data)
        line = [arg.format(file=place, config=sizes, pictures=pictures, new=tmp_path / "made") for arg in args]
        with Bounds():
            made[kind] = inside.run(command, *line, *inputs)
        assert not marker.exists(), kind
        assert_told(command, made[kind], codes=(1, 2))


def assert_first(command, lay, args, inside, inputs, sizes, pictures):
    """Load what the command loads at all, so that this does not count; a file of nothing will do."""
    place = lay(inside.folder, b"nothing")
    line = [arg.format(file=place, config=sizes, pictures=pictures, new=inside.folder / "made") for arg in args]
    assert_told(command, inside.run(command, *line, *inputs))


# --- pictures


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, bits=1, color=0):
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def hostile_pictures(marker):
    zeros = zlib.compress(bytes(6251 * 50_000), 9)
    good = next(IMAGES.glob("*.png")).read_bytes()
    return {
        "bomb": png(50_000, 50_000, chunk(b"IDAT", zeros)),
        "largest": png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", zlib.compress(b"\0"))),
        "text bomb": png(1, 1, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)), chunk(b"IDAT", b"")),
        "no data": png(8, 8),
        "half": good[: len(good) // 2],
        "long chunk": png(8, 8) [:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
        "pickle": pickle.dumps(Evil(marker)),
        "empty": b"",
    }  # fmt: skip


PICTURE_READERS = {
    "clip-score": ("--clip", str(DATA / "tiny-clip"), "--clip-device", "cpu", "--images", "{folder}"),
    "pmp-seg": ("--model", str(DATA / "tiny-segmenter"), "--device", "cpu", "--images", "{folder}"),
    "nvs-eval": ("{folder}", "--truth", str(IMAGES)),
    "nvs-prep": ("{scene}", "--images", "{folder}"),
    "vprune": (
        *("--model", str(DATA / "tiny-llava"), "--device", "cpu", "--images", "{folder}"),
        *("--window", "3", "--cut", "1", "--response-tokens", "1"),
    ),
    "image-rollout": (
        *("--backend", "hf", "--model", str(DATA / "tiny-llava"), "--device", "cpu", "--images", "{folder}"),
        *("--response-tokens", "1"),
    ),
}


@pytest.mark.parametrize("name", PICTURE_READERS)
def test_pictures_that_are_bombs(name, inside, tmp_path):
    command = COMMANDS[name]
    marker, folder, scene = tmp_path / "was-run", tmp_path / "pictures", tmp_path / "scene"
    folder.mkdir()
    inside.arguments(command)  # lays down the scene
    row = {"id": "a", "image": "red.png", "images": ["red.png"], "prompt": "?", "prompts": ["sky"], "response": "r"}
    inputs = inside.inputs(command, json.dumps(row).encode() + b"\n")
    if name == "nvs-prep":  # leaves out what it cannot read, and says so
        (folder / "blue.png").write_bytes((IMAGES / "blue.png").read_bytes())
    line = [arg.format(folder=folder, scene=scene) for arg in PICTURE_READERS[name]]
    inside.run(command, *line, *inputs)  # loads what it loads at all
    for kind, data in hostile_pictures(marker).items():
        (folder / "red.png").write_bytes(data)
        with Bounds():
            ended = inside.run(command, *line, *inputs)
        assert_told(command, ended, codes=(0,) if name == "nvs-prep" else (1, 2))
        assert name == "nvs-prep" or "red" in ended.err, kind
        assert not marker.exists()


# --- points


def ply(head, body=b"", form="binary_little_endian"):
    return f"ply\nformat {form} 1.0\n{head}end_header\n".encode() + body


FLOATS = "".join(f"property float {name}\n" for name in "xyz")
PLYS = {
    "trillion": ply(f"element vertex {10**12}\n{FLOATS}", bytes(64)),
    "2^63": ply(f"element vertex {2**63}\n{FLOATS}", bytes(64)),
    "10^400": ply(f"element vertex 1{'0' * 400}\n{FLOATS}", bytes(64)),
    "negative": ply(f"element vertex -5\n{FLOATS}", bytes(64)),
    "trillion lines": ply(f"element vertex {10**12}\n{FLOATS}", b"0 0 0\n", "ascii"),
    "list": ply(f"element face {10**12}\nproperty list uint int i\nelement vertex 1\n{FLOATS}", b"\xff" * 64),
    "list of 2^32": ply(f"element face 1\nproperty list uint double i\nelement vertex 1\n{FLOATS}", b"\xff" * 64),
    "many properties": ply("element vertex 1\n" + "".join(f"property float p{i}\n" for i in range(50_000)), bytes(64)),
    "no end": b"ply\nformat ascii 1.0\n" + b"comment a\n" * 100_000,
    "one long line": b"ply\ncomment " + b"a" * 10_000_000,
    "empty": b"",
}


@pytest.mark.parametrize("name", ["nvs-prep", "nvs-render", "nvs-view"])
def test_points_that_are_not_there(name, inside, tmp_path):
    command = COMMANDS[name]
    own = inside.arguments(command)
    file = tmp_path / ("scene/p.ply" if name == "nvs-prep" else "one.ply")
    inside.run(command, *own)
    files = {**PLYS, "pickle": pickle.dumps(Evil(tmp_path / "was-run"))}
    for number, (kind, data) in enumerate(files.items()):
        own = inside.arguments(command, tmp_path / f"made{number}")
        file.write_bytes(data)
        with Bounds():
            ended = inside.run(command, *own)
        assert_told(command, ended, codes=(1, 2))
        assert not (tmp_path / "was-run").exists(), kind


# --- models


def gguf(tensors, fields, body=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + body


def text(data, size=None):
    return struct.pack("<Q", len(data) if size is None else size) + data


GGUFS = {
    "counts": gguf(HUGE, HUGE),
    "tensors": gguf(HUGE, 0),
    "key": gguf(0, 1, text(b"general", HUGE)),
    "value": gguf(0, 1, text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama", HUGE)),
    "array": gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 0, HUGE) + bytes(64)),
    "arrays of arrays": gguf(0, 1, text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20_000),
    "kind": gguf(0, 1, text(b"a") + struct.pack("<I", 99)),
    "shape": gguf(1, 0, text(b"t") + struct.pack("<IQQQQIQ", 4, HUGE, HUGE, HUGE, HUGE, 0, 0)),
    "dimensions": gguf(1, 0, text(b"t") + struct.pack("<I", 2**32 - 1)),
    "empty": b"",
}


def test_models_in_one_file_whose_counts_lie(inside, tmp_path):
    command = COMMANDS["pair-logps"]
    inputs = inside.inputs(command)
    inside.run(command, "--model", DATA / "tiny-llama", "--device", "cpu", *inputs)
    for number, (kind, data) in enumerate({**GGUFS, "pickle": pickle.dumps(Evil(tmp_path / "was-run"))}.items()):
        file = tmp_path / f"model{number}.gguf"
        file.write_bytes(data)
        with Bounds():
            ended = inside.run(command, "--model", file, "--device", "cpu", *inputs)
        assert_told(command, ended, codes=(1, 2))
        assert not (tmp_path / "was-run").exists(), kind


PICKLES = {
    "repro-report": ("{folder}/Model_bf16_bs_1_dev_1_seed_1_max_8_token_ids_0.pt", ()),
    "vprune-flops": ("{folder}/heads.npy", ("--grid", "24x24", "--text", "35+30", "--heads", "{folder}/heads.npy")),
    "pair-logps": ("{folder}/pytorch_model.bin", ("--model", "{folder}", "--device", "cpu")),
    "step-reward": ("{folder}/pytorch_model.bin", ("--judge", "nli", "--nli-model", "{folder}")),
    "text-rollout": ("{folder}/script.json", ("--backend", "scripted", "--model", "{folder}/script.json")),
    "gear-score": ("{folder}/space.npy", ("--space", "{folder}/space.npy")),
    "nvs-render": ("{folder}/one.ply", ("{folder}/one.ply", "--cameras", "{folder}/one.ply", "--out", "{folder}/o")),
    "nvs-prep": ("{folder}/.cache/filelist.bin", ("{folder}",)),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_never_unpickled_whatever_its_name(name, inside, tmp_path):
    import numpy as np

    command, (file, args) = COMMANDS[name], PICKLES[name]
    marker, folder = tmp_path / "was-run", tmp_path / "folder"
    evil = pickle.dumps(Evil(marker))
    np.save(tmp_path / "objects.npy", np.array([Evil(marker)], dtype=object))
    for number, data in enumerate((evil, torch_file(evil), (tmp_path / "objects.npy").read_bytes())):
        shutil.rmtree(folder, ignore_errors=True)
        if "pytorch_model" in file:
            shutil.copytree(DATA / "tiny-llama", folder)
            (folder / "model.safetensors").unlink()
        path = tmp_path / file.format(folder=folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if name == "vprune-flops":
            (folder / "sizes.json").write_text(json.dumps(frame.SIZES))
            args = ("--model-config", "{folder}/sizes.json", *PICKLES[name][1])
        inputs = [path] if name == "repro-report" else inside.inputs(command)
        ended = inside.run(command, *[arg.format(folder=folder) for arg in args], *inputs)
        assert not marker.exists(), number
        assert_told(command, ended, codes=(1, 2))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_line_that_never_ends(suffix, tmp_path):
    """A megabyte that unpacks to a gigabyte without a line end is refused while it is read."""
    block = b"a" * 2**20
    if suffix == ".gz":
        data = b'{"x":"' + block * 1024
        (tmp_path / f"in{suffix}").write_bytes(gzip.compress(data, 1))
    else:
        engine = zstandard.ZstdCompressor().compressobj()
        pieces = [engine.compress(b'{"x":"'), *(engine.compress(block) for _ in range(1024)), engine.flush()]
        (tmp_path / f"in{suffix}").write_bytes(b"".join(pieces))
    tag = frame.own("tag")
    line = f"ulimit -v 3000000; {tag.shell(tmp_path)} in{suffix}"
    result = frame.shell(line, cwd=tmp_path)
    assert (result.rc, result.err) == (1, f"tag: in{suffix}:1: a line of more than 256 MiB\n")


# --- code of a model

CODE = """
from pathlib import Path
from transformers import PretrainedConfig

Path({marker!r}).write_text("ran")


class EvilConfig(PretrainedConfig):
    model_type = "evil"


class Evil:
    pass
"""
CLASSES = [
    *("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSequenceClassification"),
    *("AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor", "AutoFeatureExtractor"),
]


@pytest.fixture
def evil_model(tmp_path, monkeypatch):
    """A folder of a model whose configuration names code, and the file that it makes when it is run."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks is told yes
    marker, folder = tmp_path / "was-run", tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    auto = {"AutoConfig": "evil.EvilConfig", **dict.fromkeys(CLASSES, "evil.Evil")}
    config = {"model_type": "evil", "architectures": ["Evil"], "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text(json.dumps({"auto_map": auto, "processor_class": "Evil"}))
    (folder / "model.safetensors").write_bytes(safetensors({"a": tensor([1], 0, 4)}, bytes(4)))
    return folder, marker


LOCAL = ("--backend", "hf", "--device", "cpu", "--model", "{evil}")
SPACE = ("--space", str(frame.ROOT / "tests/cases/gear-pairs/levels-and-contexts/space.jsonl"))
LOADERS = {
    "clip-score": ("--clip", "{evil}", "--images", str(IMAGES)),
    "dpo-train": ("--policy", "{new}", "--model", "{evil}", "--device", "cpu"),
    "gear-ask": (*SPACE, *LOCAL),
    "image-rollout": (*LOCAL, "--images", str(IMAGES)),
    "kv-dump": ("--model", "{evil}", "--device", "cpu", "--out", "{new}"),
    "kv-eval": ("--model", "{evil}", "--device", "cpu", "--cache", "lloyd1:bits=1"),
    "layercast-run": ("--model", "{evil}", "--device", "cpu", "--precision", "fp32"),
    "pair-logps": ("--model", "{evil}", "--device", "cpu"),
    "pmp-seg": ("--model", str(DATA / "tiny-segmenter"), "--images", str(IMAGES), "--clip", "{evil}"),
    "pmp-train": (
        "--data",
        "shapes:1",
        "--steps",
        "1",
        "--out",
        "{new}",
        "--device",
        "cpu",
        "--text-encoder",
        "{evil}",
    ),
    "policy-train": ("--policy", "{new}", "--model", "{evil}", "--device", "cpu"),
    "rag-index": ("--kind", "dense", "--encoder", "{evil}"),
    "rag-rollout": ("--retriever", "none", *LOCAL),
    "spy-game": (*LOCAL,),
    "step-reward": ("--judge", "nli", "--nli-model", "{evil}"),
    "text-rollout": LOCAL,
    "vprune": ("--model", "{evil}", "--device", "cpu", "--images", str(IMAGES), "--window", "3", "--cut", "1"),
    "vprune-calibrate": ("--model", "{evil}", "--device", "cpu", "--keep-heads", "1", "--out", "{new}.safetensors"),
    "vprune-flops": ("--model", "{evil}", "--grid", "24x24", "--text", "35+30", "--window", "5"),
    "vprune-plan": ("--model", "{evil}", "--device", "cpu", "--budget", "0.5"),
}


def test_every_option_that_names_a_model_is_among_these():
    named = {"--model", "--clip", "--encoder", "--nli-model", "--text-encoder"}
    plain = {"judgefree-pairs", "spy-replay"}  # one by the same door as image-rollout
    loading = {
        command.name
        for command in frame.COMMANDS
        if any(named & set(param.opts) and "--trust-remote-code" in opts(command) for param in command.tool.params)
    }
    assert loading - plain <= LOADERS.keys()


def opts(command):
    return {name for param in command.tool.params for name in param.opts}


@pytest.mark.parametrize("name", LOADERS)
def test_no_code_of_a_model_is_run_unasked(name, inside, tmp_path, evil_model):
    command, (folder, marker) = COMMANDS[name], evil_model
    own = [arg.format(evil=folder, new=tmp_path / "made") for arg in LOADERS[name]]
    ended = inside.run(command, *own, *inside.inputs(command))
    assert not marker.exists()
    assert_told(command, ended, codes=(1, 2))
    assert "brings code of its own" in ended.err or ended.rc == 2 or name == "pmp-seg", ended.err


def test_code_of_a_model_is_run_when_it_is_trusted(inside, evil_model):
    """So that the tests above could fail."""
    command, (folder, marker) = COMMANDS["text-rollout"], evil_model
    own = [arg.format(evil=folder) for arg in LOCAL]
    ended = inside.run(command, *own, "--trust-remote-code", *inside.inputs(command))
    assert marker.exists(), ended.err
