"""The effect in miniature: which precisions give the same answers whatever shares the batch, on a real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import frame
import pytest

PIPELINE = frame.ROOT / "pipelines" / "layercast.sh"
REPORT = frame.ROOT / "experiments" / "report.py"


def run(out, **settings):
    """The rows that the pipeline leaves, by axis and precision."""
    values = {"OUT": str(out), **{name.upper(): str(value) for name, value in settings.items()}}
    done = subprocess.run(
        [PIPELINE], env=frame.environment({"HF_HUB_OFFLINE": "1", **values}), capture_output=True, text=True, cwd=out
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return {(row["axis"], row["group"]["precision"]): row for row in rows}, done.stdout


@pytest.mark.model
def test_answers_depend_on_the_batch_in_bf16_only(tmp_path):
    rows, _ = run(
        tmp_path,
        axes="batch devices",
        questions=5,
        tokens=20,
        batches="1,5",
        devices="1,3",
        precisions="bf16,fp32,layercast",
    )
    for axis in ("batch", "devices"):
        bf16, fp32, cast = (rows[axis, precision] for precision in ("bf16", "fp32", "layercast"))
        assert bf16["div_percent"] > 0
        assert fp32["div_percent"] == cast["div_percent"] == 0
        assert bf16["avg_std_top1_prob"] > 100 * max(fp32["avg_std_top1_prob"], cast["avg_std_top1_prob"])
        assert cast["weight_bytes"] < 0.51 * fp32["weight_bytes"]


def test_the_pipeline_goes_on_and_its_rows_make_the_page(tmp_path):
    """With a model of random weights: again on what is there, then the table and the picture."""
    tiny = frame.ROOT / "tests/data/tiny-llama"
    settings = {
        "path": frame.warm_path(),
        "model": tiny,
        "questions": 3,
        "tokens": 4,
        "batches": "1,3",
        "devices": "1,2",
        "threads": "1,2",
    }
    rows, table = run(tmp_path, **settings)
    assert len(rows) == 3 * 4
    assert "== batch ==" in table
    again, _ = run(tmp_path, **settings)
    strip = ("tokens_per_s", "peak_rss_bytes", "runs")
    assert [{k: v for k, v in row.items() if k not in strip} for row in again.values()] == [
        {k: v for k, v in row.items() if k not in strip} for row in rows.values()
    ]
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: experiment layercast -->\n<!-- end -->\n")
    where = ("--rows", tmp_path / "report.jsonl", "--page", page, "--picture", tmp_path / "picture.png")
    for extra, code in ((("--check",), 1), ((), 0), (("--check",), 0)):
        done = subprocess.run(
            [sys.executable, REPORT, "layercast", *where, *extra], capture_output=True, env=os.environ
        )
        assert done.returncode == code, done.stderr
    assert "| batch 1, 3 | layercast | 0.0 % | - |" in page.read_text()


@pytest.mark.model
def test_layercast_alone_gives_the_same_bits_in_any_batch(tmp_path):
    questions = ["Who?", "What is the capital of France?", "Why is the sky blue, and why is it red in the evening?"]
    prompts = "".join(json.dumps({"id": i, "prompt": text}) + "\n" for i, text in enumerate(questions)).encode()
    argv = [frame.BIN / "layercast-run", "--device", "cpu", "--attention", "alone", "--response-tokens", "8"]
    rows = frame.run([*argv, "--grid", "batch=1,2,3", "threads=1,2"], stdin=prompts, cwd=tmp_path).rows
    assert len(rows) == 3 * 3 * 2
    answers = {}
    for row in rows:
        answers.setdefault(row["id"], []).append(
            [row[name] for name in ("tokens", "logprobs", "top_ids", "top_logprobs")]
        )
    for told in answers.values():
        assert all(one == told[0] for one in told)
