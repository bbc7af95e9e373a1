"""Quality against bits at a tiny size, on models of random weights: it runs, goes on where it was, and reports."""

from __future__ import annotations

import json
import subprocess
import sys

import frame
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

LLAMA = frame.ROOT / "tests" / "data" / "tiny-llama"
MODULES = ("kvquant", "kvquant_report")
CACHES = ("dense", "minmax:bits=1", "minmax:bits=8", "kivi:bits=2,residual=0", "fp8")


@pytest.fixture(scope="module")
def quick(modules, model, tmp_path_factory):
    """The rows of a tiny experiment: all tasks, two sets, some caches."""
    return ran(modules, model, tmp_path_factory.mktemp("quick") / "rows.jsonl")


def ran(modules, model, out):
    args = ["--quick", "--seeds", "2", "--text-model", LLAMA, "--image-model", model, "--out", out, "--caches", *CACHES]
    modules["kvquant"].main(list(map(str, args)))
    return out


def told(path):
    """The rows by task, set and cache, without what a clock says."""
    rows = map(json.loads, path.read_text().splitlines())
    return {(row["task"], row["seed"], row["cache"]): {**row, "cpu_s": None} for row in rows}


def test_bits_and_quality_of_each_cache(modules, quick):
    rows = told(quick)
    assert set(rows) == {
        (task, seed, name) for task in modules["kvquant"].TASKS for seed in (41, 42) for name in CACHES
    }
    for (task, seed, name), row in rows.items():
        if name == "dense":
            assert (row["kl"], row["top1_frac"], row["bits"], row["prompt_bits"]) == (0, 1, 16, 16)
            assert row.get("same_frac", 1) == 1
        elif name == "minmax:bits=8":
            assert 0 < row["kl"] < rows[task, seed, "minmax:bits=1"]["kl"]
            assert 8 < row["bits"] < row["prompt_bits"] < 16
        elif name == "minmax:bits=1":
            assert 1 < row["bits"] < 8
        elif name == "fp8":
            assert row["bits"] == pytest.approx(row["prompt_bits"]) == pytest.approx(8, abs=0.2)
    assert "f1" in rows["captions", 41, "dense"]
    assert "right_frac" in rows["answers", 41, "dense"]


def test_a_row_says_what_kv_eval_says(modules, quick, tmp_path):
    """A cache that is filled afterwards is the one that the model fills."""
    from toolroll.kvcache.evaluate import Wanted, evaluate

    kvquant = modules["kvquant"]
    device = kvquant.choose_device("cpu", "float32")
    loaded = kvquant.open_model(str(LLAMA), device, trust_remote_code=False, notify=lambda _: None)
    items = kvquant.passages(loaded, kvquant.QUICK, 41, tmp_path)
    caches = [kvquant.compared(name, loaded.model.config) for name in CACHES]
    wanted = [Wanted(item.asked, item.mask, item.passage) for item in items]
    prompts = kvquant.Prompts(loaded)
    found = list(evaluate(prompts, wanted, caches, dense=caches[0], beams=1, timings=False))
    for name in CACHES:
        own = [row["kl"] for row in found if row["cache"] == name]
        row = told(quick)["passages", 41, name]
        assert len(own) == row["prompts"]
        assert row["kl"] == pytest.approx(sum(own) / len(own), rel=1e-4, abs=1e-7)


def test_a_killed_run_goes_on(modules, model, quick, tmp_path):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:-1]) + lines[-1][:50])
    ran(modules, model, out)
    assert out.read_text().startswith("".join(lines[:-1]))
    assert told(out) == told(quick)


def test_the_report_is_made_from_the_rows(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: experiment kvquant -->\n<!-- end -->\n")
    where = ("--rows", quick, "--page", page, "--picture", tmp_path / "picture.png")
    for extra, code in ((("--check",), 1), ((), 0), (("--check",), 0)):
        argv = [sys.executable, frame.ROOT / "experiments" / "report.py", "kvquant", *where, *extra]
        done = subprocess.run(argv, capture_output=True)
        assert done.returncode == code, done.stderr
    bits = told(quick)["passages", 41, "minmax:bits=1"]["bits"]
    assert f"| 1 | minmax | {bits:.2f} |" in page.read_text()
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in quick.read_text().splitlines()]
    with pytest.raises(SystemExit, match="not done"):
        modules["kvquant_report"].by_cache(rows[:-1], "answers")
    assert "no result is claimed" in modules["kvquant_report"].text(rows[: 2 * len(CACHES)], "x.png")
