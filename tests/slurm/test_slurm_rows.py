"""rows-array.sbatch, with which any command takes its rows in shares: here gear-score."""

from __future__ import annotations

import json

import frame
import pytest
from slurm.rollouts import ROWS

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("warned")]

SCORE = ("gear-score", "--problems", "the problems.jsonl", "--space", "space.jsonl", "--explain")
HYPOTHESES = ("x + {n}", "{n} + x", "x * {n}", "x + {n} if x < 3 else x", "1 // (x - {n})", "x +")


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def problems(tmp_path):
    """A folder with ten problems, a sample space, and hypotheses: some run, some fail, some are no code."""
    numbered = range(1, 11)
    observed = [{"id": f"add-{n}", "observations": [[0, n], [5, 5 + n]]} for n in numbered]
    asked = [{"id": f"add-{n}", "hypotheses": [{"code": code(n, i)} for i in range(1 + n % 3)]} for n in numbered]
    (tmp_path / "the problems.jsonl").write_text(lines(observed))
    (tmp_path / "space.jsonl").write_text(lines(range(-3, 9)))
    (tmp_path / "asked.jsonl").write_text(lines(asked))
    return tmp_path


def code(n, i):
    return f"def f(x):\n    return {HYPOTHESES[(n + i) % len(HYPOTHESES)].format(n=n)}"


def test_scores_of_an_array_are_those_of_one_run(cluster, problems):
    """Eleven shares of ten rows, merged by a job that waits for them, in the order of the input, to the byte."""
    given = {"INPUT": "asked.jsonl", "OUT": "scored here"}
    array = cluster.submit(ROWS, *SCORE, cwd=problems, options=("--array=1-11",), **given)
    merge = "paste -d '\\n' 'scored here'/*-of-11.jsonl | grep . > scored.jsonl"
    after = ("sbatch", "--parsable", f"--dependency=afterok:{array}", "--wrap", merge)
    last = cluster.ask(*after, cwd=problems).out.decode().strip()
    assert [(job.state, job.code) for job in cluster.wait(array)] == [("COMPLETED", 0)] * 11
    assert [(job.state, job.code) for job in cluster.wait(last)] == [("COMPLETED", 0)]
    local = frame.run([SCORE[0], "asked.jsonl", *SCORE[1:]], cwd=problems)
    assert local.rc == 0, local.err
    assert (problems / "scored.jsonl").read_bytes() == local.out
    firm = [row["consistency"] for row in local.rows]
    assert len(firm) == 10
    assert len(set(firm)) > 1
    again = cluster.submit(ROWS, *SCORE, cwd=problems, options=("--array=0,10",), SHARES=11, **given)
    cluster.wait(again)
    assert (problems / f"slurm-{again}_10.out").read_text() == "scored here/10-of-11.jsonl is there already\n"


@pytest.mark.parametrize(
    ("settings", "args", "why"),
    [
        ({}, SCORE, "INPUT: the file of rows"),
        ({"INPUT": "a"}, (), "1: the command that takes them stands behind the name of the script"),
    ],
)
def test_what_it_lacks_is_told_in_one_line(tmp_path, settings, args, why):
    done = frame.run(["bash", str(ROWS), *args], cwd=tmp_path, env={"SLURM_ARRAY_TASK_ID": "0", **settings})
    assert done.rc != 0
    assert done.err.count("\n") == 1
    assert done.err.rstrip().endswith(why)
    assert list(tmp_path.iterdir()) == []
