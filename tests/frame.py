"""How the tests find the commands and run them: as users do, each in a process of its own.

`COMMANDS` are the entry points of pyproject.toml. Each has a *specimen*: arguments it can run with and rows it can
read, so that one test can ask the same of all. A new command needs a specimen here and gets the whole contract.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import struct
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import warm

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
OWN_TOOLS = Path(__file__).with_name("contract") / "own_tools.py"
PATIENCE_S = 60.0  #: how long any command of a test may take, on a machine with much else to do
WARM = {
    "clip-score",
    "dpo-train",
    "kv-dump",
    "kv-eval",
    "layercast-run",
    "nvs-render",
    "nvs-train",
    "nvs-view",
    "pair-logps",
    "pmp-seg",
    "pmp-train",
    "policy-train",
    "toolroll-doctor",
    "vprune",
    "vprune-calibrate",
    "vprune-plan",
}  #: load torch whatever they do; started by `warm`
#: Load torch, or much else, in some of their calls; started by `warm` where a test's PATH is `warm_path()`.
SOMETIMES = (
    *("gear-ask", "image-rollout", "judgefree-pairs", "rag-rollout", "repro-report", "text-rollout", "vprune-flops"),
    *("nvs-eval", "pair-make", "rag-index", "spy-game"),
)

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
AT_START = ("PYTHON", "OMP_", "MKL_", "HF_", "TRANSFORMERS_", "CUDA_")  #: of variables that imports read

RESPONSE = (
    "<think><step><reasoning>r</reasoning><search>q</search><context>c</context><conclusion>o</conclusion></step>"
    "<step><reasoning>r</reasoning><conclusion>o</conclusion></step></think><answer>Paris</answer>"
)
SCRIPT = {"match": ".", "reply": " r</reasoning><conclusion>c</conclusion></step></think><answer>Paris</answer>"}


@dataclass(frozen=True)
class Specimen:
    """What a command can be run with.

    `args` follow the command's name; `{dir}` in them is a fresh folder with `files` in it, `{new}` a name that is new
    each time. A command that `names_output` takes the name of something it makes behind its inputs. `row` makes its
    i-th row. One that `needs_rows` fails without any; one that `holds_rows` compares all with all, so that its memory
    grows with them.
    """

    row: Callable[[int], dict[str, Any]] | None = None
    args: tuple[str, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    names_output: bool = False
    needs_rows: bool = False
    holds_rows: bool = False


def _parsed(i: int) -> dict[str, Any]:
    steps = [
        {"i": 0, "kind": "search", "query": "q", "conclusion": "c", "verdict": "over"},
        {"i": 1, "kind": "nonsearch", "conclusion": "c", "verdict": "ok"},
    ]
    answers = {"golden_answers": ["Paris"], "answer": "Paris", "format_valid": True}
    return {"id": f"q{i // 2}", "sample": i % 2, **answers, "steps": steps}


def _advantaged(i: int) -> dict[str, Any]:
    ids = {"prompt_ids": [1 + i % 9, 2], "response_ids": [3, 4 + i % 5, 63], "loss_mask": [1, 0, 1]}
    group = {"id": f"q{i // 2}", "sample": i % 2, "prompt_id": f"q{i // 2}"}
    return {**group, **ids, "logprobs": [-4.1, 0.0, -4.2], "advantage": 1.0 - 2 * (i % 2)}


def _pair(i: int) -> dict[str, Any]:
    return {"id": f"p{i}", "prompt": f"WHAT IS {i}", "chosen": "YES", "rejected": "NO NO"}


def _checked(i: int) -> dict[str, Any]:
    scores = {"chosen": {"score": 26.0 + i % 2}, "rejected": {"score": 25.0}}
    return {**_pair(i), "images": ["a.png"], "clip": scores}


def _answer(i: int) -> dict[str, Any]:
    config = {"precision": "bf16", "batch_size": 1 + i}
    return {"id": "q", "config": config, "tokens": [5, 7, i % 2], "top1_prob": [0.9, 0.8, 0.5], "correct": 1}


BANDIT = (  #: one that has seen nothing
    ("bandit/settings.json", b"{}\n"),
    ("bandit/journal.jsonl", b'{"add":["a","b"],"crc":"ffc76879"}\n'),
)


def _feedback(i: int) -> dict[str, Any]:
    return {"id": f"f{i}", "distribution": "ab"[i % 2], "advantages": [1.0, -1.0, 0.5, -0.5]}


def _puzzle(i: int) -> dict[str, Any]:
    said = "(('lying', 1), ('and', ('telling-truth', 0), ('lying', 0)))"
    return {"id": f"k{i}", "names": ["Ada", "Omar"], "solution": [True, False], "statements": said}


def _scene(color: str) -> dict[str, Any]:
    return {"objects": [{"shape": "cube", "size": "large", "color": color, "material": "metal"}]}


PRUNED = (  #: a tiny image-text model, and where its images are
    *("--model", str(ROOT / "tests/data/tiny-llava"), "--device", "cpu"),
    *("--images", str(ROOT / "tests/cases/clip-score/texts-and-images")),
)


def _pictured(i: int) -> dict[str, Any]:
    return {"id": f"q{i}", "prompt": f"What is {i}?", **({} if i % 8 else {"images": ["red.png"]})}


def _spy_game(i: int) -> dict[str, Any]:
    votes = [{"voter": 1, "vote": 2}, {"voter": 3, "vote": "N/A"}]
    return {"id": f"g{i}", "sample": 0, "n_players": 3, "rounds": 1, "spy": 2, "votes": votes}


SCENE = {  #: for novel view synthesis
    "fl_x": 20.0,
    "ply_file_path": "p.ply",
    "frames": [
        {
            "file_path": f"images/{name}.png",
            "transform_matrix": [[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        }
        for x, name in enumerate(("red", "blue"))
    ],
}
ONE_POINT = b"ply\nformat ascii 1.0\nelement vertex 1\n%send_header\n0 0 1\n" % b"".join(
    b"property float %c\n" % axis for axis in b"xyz"
)
ONE_SPLAT = b"ply\nformat ascii 1.0\nelement vertex 1\n%send_header\n0 0 4 1 0 -1 2 -1 -1 -1 1 0 0 0\n" % b"".join(
    b"property float %s\n" % name
    for name in b"x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
)
CAMERA = {
    "image": "a.png",
    "world_to_camera": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    "width": 16,
    "height": 12,
    "fx": 12.0,
    "fy": 12.0,
    "cx": 8.0,
    "cy": 6.0,
}
GREY = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 1014, 0, 54, 40, 20, 16, 1, 24, *[0] * 6) + bytes([99] * 960)  #: BMP
TABLE = {"kind": "bar", "title": "Rain", "categories": ["May", "June", "July"], "series": {"mm": [60, 45, 12]}}
GEAR_SCORES = {
    "instruction_following": 1.0,
    "consistency": 0.5,
    "generalizability": 1.0,
    "gamma_norm": 1.0,
    "beta_struct": None,
    "beta_dist": None,
}

_KV = {f"layers.0.{part}": {"dtype": "F16", "shape": [1, 1, 2, 8]} for part in "kv"}
for _number, _tensor in enumerate(_KV.values()):
    _tensor["data_offsets"] = [32 * _number, 32 * _number + 32]
_HEADER = json.dumps(_KV).encode()
KEYS_AND_VALUES = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes([0, 60, 0, 64] * 16)  #: 1 and 2, in turn

SKY = {"size": [3, 4], "counts": [9, 3]}  #: the last of four columns
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}

SPECIMENS = {
    "answer-check": Specimen(lambda i: {"id": f"q{i}", "text": rf"So it is $\boxed{{{i}}}$.", "answer": i}),
    "caption-eval": Specimen(lambda i: {"id": f"c{i}", "response": "A red cube and a ball.", "objects": ["red cube"]}),
    "clip-score": Specimen(
        lambda i: {"id": f"c{i}", "image": "red.png", "response": f"A red square. Number {i % 7}."},
        args=(
            *("--clip", str(ROOT / "tests/data/tiny-clip"), "--clip-device", "cpu"),
            *("--images", str(ROOT / "tests/cases/clip-score/texts-and-images")),
        ),
    ),
    "dpo-train": Specimen(
        _pair,
        args=("--policy", "{new}", "--model", str(ROOT / "tests/data/tiny-llama"), "--device", "cpu"),
    ),
    "gear-pairs": Specimen(
        lambda i: {"id": f"p{i}", "observations": [[1, 2]], "hypotheses": ["No idea.", {"code": "def f(x): return 2"}]},
        args=("--space", str(ROOT / "tests/cases/gear-pairs/levels-and-contexts/space.jsonl"), "--sandbox", "seccomp"),
    ),
    "gear-observe": Specimen(
        args=("pairs", "{dir}/tasks.jsonl", "-n", "1", "--tasks", "2"),
        files=(("tasks.jsonl", b'{"id":"t0","train":[[1,2],[2,4]]}\n{"id":"t1","train":[[1,2],[2,3]]}\n'),),
    ),
    "gear-score": Specimen(
        lambda i: {"id": f"p{i}", "observations": [[1, 2], [2, 3]], "hypotheses": ["I do not know."]},
        args=("--space", str(ROOT / "tests/cases/gear-score/vectors/space.jsonl")),
    ),
    "gear-space": Specimen(
        args=("spec", "{dir}/spec.toml"),
        files=(("spec.toml", b'kind = "records"\nfields.n = { kind = "numbers", first = 0, last = 9 }\n'),),
    ),
    "gear-stats": Specimen(lambda i: {"id": f"p{i}", **GEAR_SCORES}),
    "gear-ask": Specimen(
        lambda i: {"id": f"p{i}", "observations": [[i, 2]]},
        args=(
            *("--space", str(ROOT / "tests/cases/gear-pairs/levels-and-contexts/space.jsonl")),
            *("--backend", "scripted", "--model", "{dir}/script.jsonl"),
        ),
        files=(("script.jsonl", json.dumps({"match": ".", "reply": "No idea."}).encode()),),
    ),
    "gear-momentum": Specimen(
        lambda i: {"objective": "fair", "loss": 0.5, "step": i}, args=("--objectives", "fair", "--state", "{new}")
    ),
    "group-advantage": Specimen(
        lambda i: {"id": f"q{i // 2}", "sample": i % 2, "reward": float(i % 2)},
        args=("--group-size", "1"),  # rows leave as they come
    ),
    "image-rollout": Specimen(
        lambda i: {"id": f"q{i}", "prompt": f"What is {i}?", "images": ["red.png"]},
        args=(
            *("--backend", "scripted", "--model", "{dir}/script.jsonl"),
            *("--images", str(ROOT / "tests/cases/clip-score/texts-and-images")),
        ),
        files=(("script.jsonl", json.dumps(SCRIPT).encode()),),
    ),
    "judgefree-pairs": Specimen(_checked, args=("--stage", "decide")),
    "judgefree-stats": Specimen(_checked),
    "kk-check": Specimen(_puzzle),
    "kk-make": Specimen(args=("--people", "2,3", "-n", "2")),
    "kk-reward": Specimen(lambda i: {**_puzzle(i), "response": "<answer>Ada is a knight, Omar is a knave</answer>"}),
    "kv-calibrate": Specimen(
        args=("{dir}/kv.safetensors", "--queries", "2"), files=(("kv.safetensors", KEYS_AND_VALUES),)
    ),
    "kv-dump": Specimen(
        lambda i: {"id": f"p{i}", "prompt": f"WHAT IS {i}", "packed_spans": [[0, 2]]},
        args=("--model", str(ROOT / "tests/data/tiny-llama"), "--device", "cpu", "--out", "{dir}/new-kv"),
    ),
    "kv-eval": Specimen(
        lambda i: {"id": f"p{i}", "prompt": f"WHAT IS {i}", "packed_spans": [[0, 2]]},
        args=(
            *("--model", str(ROOT / "tests/data/tiny-llama"), "--device", "cpu", "--cache", "lloyd1:bits=1"),
            *("--response-tokens", "2", "--batch-size", "1"),
        ),
    ),
    "kv-quant": Specimen(args=("{dir}/kv.safetensors",), files=(("kv.safetensors", KEYS_AND_VALUES),)),
    "layercast-run": Specimen(
        lambda i: {"id": f"p{i}", "prompt": f"WHAT IS {i}"},
        args=(
            *("--model", str(ROOT / "tests/data/tiny-llama"), "--device", "cpu"),
            *("--precision", "fp32", "--response-tokens", "3", "--batch-size", "1"),
        ),
    ),
    "nvs-bench": Specimen(
        lambda i: {
            "method": "3dgs",
            "scene": f"s{i % 3}",
            "image": f"{i}.png",
            "psnr_db": 20.0 + i % 7,
            "ssim": 0.5,
            "ssim_border": "valid",
            "eight_bit": True,
        },
        needs_rows=True,
        holds_rows=True,
    ),
    "nvs-eval": Specimen(
        args=("{dir}/pictures", "--truth", str(ROOT / "tests/cases/clip-score/texts-and-images")),
        files=(("pictures/red.bmp", GREY),),
    ),
    "nvs-prep": Specimen(
        args=("{dir}/scene", "--images", str(ROOT / "tests/cases/clip-score/texts-and-images")),
        files=(("scene/transforms.json", json.dumps(SCENE).encode()), ("scene/p.ply", ONE_POINT)),
    ),
    "nvs-render": Specimen(
        args=("{dir}/one.ply", "--cameras", "{dir}/cameras.jsonl", "--out", "{new}", "--device", "cpu"),
        files=(("one.ply", ONE_SPLAT), ("cameras.jsonl", json.dumps(CAMERA).encode())),
    ),
    "nvs-train": Specimen(
        args=(
            *("{dir}/scene", "--images", str(ROOT / "tests/cases/clip-score/texts-and-images"), "--out", "{new}"),
            *("--steps", "2", "--report-every", "1", "--device", "cpu"),
        ),
        files=(("scene/transforms.json", json.dumps(SCENE).encode()), ("scene/p.ply", ONE_POINT)),
    ),
    "nvs-view": Specimen(args=("{dir}/one.ply",), files=(("one.ply", ONE_SPLAT),)),
    "pair-logps": Specimen(_pair, args=("--model", str(ROOT / "tests/data/tiny-llama"), "--device", "cpu")),
    "pair-make": Specimen(args=("scenes", "-n", "2", "--size", "64x48", "--out", "{new}")),
    "pair-quiz": Specimen(lambda i: {"id": f"p{i}", "original": "a.png", "original_table": TABLE}, args=("-n", "1")),
    "pmp-data": Specimen(args=("shapes:1", "-n", "2", "--size", "32x32", "--out", "{new}")),
    "pmp-eval": Specimen(
        lambda i: {
            "id": f"s{i}",
            "prompts": ["sky"],
            "width": 4,
            "height": 3,
            "truth": [{"prompt": "sky", "rle": {"size": [3, 4], "counts": [6, 6]}}],
            "segments": [{"prompt": "sky", "score": 0.5, "rle": SKY, "area": 3, "box": [3, 0, 4, 3]}],
        },
    ),
    "pmp-seg": Specimen(
        lambda i: {"id": f"s{i}", "image": "red.png", "prompts": ["sky", "car"]},
        args=(
            *("--model", str(ROOT / "tests/data/tiny-segmenter"), "--device", "cpu"),
            *("--images", str(ROOT / "tests/cases/clip-score/texts-and-images")),
        ),
    ),
    "pmp-train": Specimen(
        args=(
            *("--data", "shapes:1", "--size", "32x32", "--steps", "2", "--batch-rows", "1", "--queries", "2"),
            *("--layers", "1", "--decoder-width", "32", "--train-prompts", "1", "--device", "cpu", "--out", "{new}"),
        ),
    ),
    "policy-train": Specimen(
        _advantaged,
        args=(
            "--policy",
            "{new}",
            "--model",
            str(ROOT / "tests/data/tiny-llama"),
            "--device",
            "cpu",
            "--emit-feedback",
        ),
    ),
    "rag-index": Specimen(
        lambda i: {"id": f"p{i}", "contents": f'"Title {i}"\nsome text about thing{i}'},
        names_output=True,
        needs_rows=True,
    ),
    "rag-rollout": Specimen(
        lambda i: {"id": f"q{i}", "question": f"What is {i}?", "golden_answers": [str(i)]},
        args=("--retriever", "none", "--backend", "scripted", "--model", "{dir}/script.jsonl"),
        files=(("script.jsonl", json.dumps(SCRIPT).encode()),),
    ),
    "rag-serve": Specimen(args=("replay:/nowhere",)),
    "repro-report": Specimen(_answer, holds_rows=True),
    "spy-game": Specimen(
        lambda i: {"id": f"p{i}", "kind": "scenes", "original_scene": _scene("red"), "modified_scene": _scene("blue")},
        args=("--model", "rules", "--preset", "code"),
    ),
    "spy-replay": Specimen(_spy_game, args=("--shown", "20")),
    "spy-reward": Specimen(_spy_game),
    "spy-stats": Specimen(_spy_game),
    "spy-switch": Specimen(lambda i: {"step": i + 1, "accuracy": 0.5, "na_share": 0.25}, args=("--state", "{new}")),
    "step-parse": Specimen(lambda i: {"id": f"q{i}", "sample": 0, "response": RESPONSE}),
    "step-reward": Specimen(_parsed, args=("--judge", "given")),
    "step-stats": Specimen(_parsed),
    "ucb-sample": Specimen(args=("--state", "{dir}/ucb", "--init", "--arm", "a", "--arm", "b", "-n", "3")),
    "ucb-stats": Specimen(args=("--state", "{dir}/bandit"), files=BANDIT),
    "ucb-update": Specimen(_feedback, args=("--state", "{dir}/bandit"), files=BANDIT),
    "toolroll": Specimen(),
    "toolroll-doctor": Specimen(),
    "text-rollout": Specimen(
        lambda i: {"id": f"q{i}", "prompt": f"What is {i}?"},
        args=("--backend", "scripted", "--model", "{dir}/script.jsonl"),
        files=(("script.jsonl", json.dumps(SCRIPT).encode()),),
    ),
    "vprune": Specimen(
        _pictured,
        args=(*PRUNED, "--window", "3", "--cut", "1", "--response-tokens", "1", "--batch-size", "8"),
    ),
    "vprune-calibrate": Specimen(
        _pictured, args=(*PRUNED, "--keep-heads", "4", "--out", "{new}.safetensors"), needs_rows=True
    ),
    "vprune-plan": Specimen(
        _pictured, args=(*PRUNED, "--budget", "0.5", "--response-tokens", "2"), needs_rows=True, holds_rows=True
    ),
    "vprune-flops": Specimen(
        args=("--model-config", "{dir}/sizes.json", "--grid", "24x24", "--text", "35+30", "--window", "5"),
        files=(("sizes.json", json.dumps(SIZES).encode()),),
    ),
}
OWN_SPECIMEN = Specimen(lambda i: {"id": f"i{i}", "n": i})


@dataclass(frozen=True)
class Result:
    """How a process ended and what it wrote."""

    rc: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        """The lines of its output."""
        return self.out.splitlines()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The records of its output."""
        return [json.loads(line) for line in self.out.split(b"\n") if line]

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr but for the summary of a run and the model it chose."""
        return [line for line in self.err.splitlines() if " in, " not in line and ": model " not in line]


@dataclass(frozen=True)
class Command:
    """A command, and how to start it."""

    name: str
    argv: tuple[str, ...]
    tool: Any
    specimen: Specimen

    def __str__(self) -> str:
        return self.name

    def line(self, folder: Path, *args: Any, inputs: tuple[Any, ...] = ()) -> list[str]:
        """The command line: the specimen's arguments, then `args`, then the input files, then what it names itself."""
        for name, data in self.specimen.files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        new = str(folder / f"new-{time.monotonic_ns()}")
        own = [arg.replace("{dir}", str(folder)).replace("{new}", new) for arg in self.specimen.args]
        names = [os.fspath(name) for name in inputs]
        if self.specimen.names_output:
            names = [*(names or ["-"]), str(folder / f"made-{time.monotonic_ns()}")]
        return [*self.argv, *own, *(os.fspath(arg) if isinstance(arg, Path) else str(arg) for arg in args), *names]

    def run(
        self,
        folder: Path,
        *args: Any,
        stdin: bytes = b"",
        inputs: tuple[Any, ...] = (),
        env: dict[str, str] | None = None,
    ) -> Result:
        """Run to the end in `folder`."""
        return run(self.line(folder, *args, inputs=inputs), stdin=stdin, env=env, cwd=folder)

    @property
    def rows_option(self) -> str:
        """The option that says where rows go."""
        return "--report" if self.tool.contract.makes_file else "-o"

    def results(self, result: Result) -> list[Any]:
        """What came out: records, or a document as a whole."""
        if not self.tool.contract.document:
            return result.rows
        return [result.out] if result.out.startswith(b"<!doctype html>") and result.out.endswith(b"</html>\n") else []

    def start(self, folder: Path, *args: Any, inputs: tuple[Any, ...] = (), **settings: Any) -> Any:
        """Start in `folder` and leave it running; a context manager, at whose end it is killed."""
        return started(self.line(folder, *args, inputs=inputs), cwd=folder, **settings)

    def shell(self, folder: Path, *args: Any) -> str:
        """The command line as a shell reads it."""
        line = self.line(folder, *args)
        if self.name in WARM:
            line[0] = f"{warm.shims()}/{self.name}"
        return shlex.join(line)

    def lines(self, count: int, start: int = 0) -> bytes:
        """`count` rows it can read, as JSON lines."""
        assert self.specimen.row is not None
        rows = (self.specimen.row(i) for i in range(start, start + count))
        return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)

    def wide_lines(self, count: int) -> bytes:
        """The same, each more than a kilobyte by a field that no command knows: many bytes for little work."""
        wide = b',"padding":"' + b"some words " * 110 + b'"}\n'
        return b"".join(line[:-1] + wide for line in self.lines(count).splitlines())


@cache
def entry_points() -> dict[str, str]:
    """The commands that pyproject.toml installs: name and `module:function`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(project.get("scripts", {}))


def command_argv(name: str, entry: str) -> tuple[str, ...]:
    """What starts a command: the installed script, which is what users run, or else its function."""
    if (BIN / name).exists():
        return (str(BIN / name),)
    module, function = entry.split(":")
    return (sys.executable, "-c", f"from {module} import {function}; {function}()")


def _load(name: str, entry: str) -> Command:
    module, function = entry.split(":")
    tool = getattr(importlib.import_module(module), function)
    return Command(name, command_argv(name, entry), tool, SPECIMENS.get(name, Specimen()))


def own(name: str) -> Command:
    """One of the tests' own commands."""
    from contract import own_tools

    return Command(name, (sys.executable, str(OWN_TOOLS), name), own_tools.TOOLS[name], OWN_SPECIMEN)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of every process: nothing of the user's settings, the source tree, and one thread.

    Tests run side by side, and threads without a core of their own wait for each other.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "TOOLROLL_HOME" or not name.startswith(("TOOLROLL_", "SLURM_"))
    }
    path = f"{BIN}{os.pathsep}{kept.get('PATH', '')}"
    settings = {"PATH": path, "PYTHONPATH": str(ROOT / "lib"), "COLUMNS": "80", "LC_ALL": "C.UTF-8", **ONE_THREAD}
    return {**kept, **settings, **(extra or {})}


def run(
    argv: list[str],
    *,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    warm_start: bool = True,
) -> Result:
    """Run a process to its end."""
    with started(argv, cwd=cwd, env=env, warm_start=warm_start) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
    return Result(process.returncode, out, err.decode(errors="surrogateescape"))


def warm_path() -> str:
    """A PATH whose commands start warm wherever that can save much."""
    return os.pathsep.join([warm.more_shims(*SOMETIMES), warm.shims(), environment()["PATH"]])


def shell(line: str, *, cwd: Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Result:
    """Run a line of shell."""
    if any(name in line for name in WARM):
        env = {"PATH": f"{warm.shims()}{os.pathsep}{environment()['PATH']}", **(env or {})}
    return run(["bash", "-c", line], stdin=stdin, env=env, cwd=cwd)


@contextmanager
def started(
    argv: list[str],
    *,
    cwd: Path | None,
    env: dict[str, str] | None = None,
    warm_start: bool = True,
    **settings: Any,
) -> Iterator[Any]:
    """A process under way: subprocess.Popen with pipes. Commands that are installed start warm, unless not wished.

    One that loads torch always does. One whose `env` sets otherwise what is read at a start has a real one.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    program = Path(argv[0])
    installed = program.parent in (BIN, Path()) and program.name in entry_points()
    torch = program.name in WARM or "--device" in argv  # given where a model is: scripted ones have no device
    usual = environment()
    as_usual = all(usual.get(name) == value for name, value in (env or {}).items() if name.startswith(AT_START))
    is_warm = installed and (torch or warm_start) and as_usual
    launch = partial(warm.Popen, torch=torch) if is_warm else subprocess.Popen
    process = launch(argv, env=environment(env), cwd=cwd, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def ended(process: Any) -> Result:
    """Close its stdin, wait for its end, and see how it ended."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return Result(process.returncode, out or b"", (err or b"").decode(errors="surrogateescape"))


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something another process does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.005)


def peak_rss_mb(argv: list[str], *, cwd: Path) -> float:
    """Run a process with its output thrown away; the most memory it had, in MB.

    A process in between is its parent, because a child starts with the memory of the one that forks it.
    """
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = run([sys.executable, "-S", "-c", code, *argv], cwd=cwd)
    assert result.rc == 0, result.err
    return int(result.out) / 1024


COMMANDS = [_load(name, entry) for name, entry in entry_points().items()]
SOURCES = [command for command in COMMANDS if command.tool.contract.source]  #: make rows of their own
READERS = [command for command in COMMANDS if command.tool.contract.reads is not None and command not in SOURCES]
REDUCERS = [command for command in READERS if command.tool.contract.reducer]
STREAMERS = [command for command in READERS if command.tool.contract.passes_rows]  #: rows in, rows out
MAPPERS = [command for command in STREAMERS if not command.tool.contract.expands]  #: one row out for each in
