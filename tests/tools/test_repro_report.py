"""repro-report as a process: names that scripts rely on, numbers of the paper, files it writes, files it reads."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import frame
import numpy as np
import pytest
from compared import run

KEYS = {"std_acc", "avg_std_output_length", "avg_div_index", "div_percent", "avg_std_top1_prob"}
RIGHT_OF_30 = [14, 14, 11, 13, 16, 14]  #: AIME'24 in bf16 on six configurations, table 25 of arXiv:2506.09501


def jsonl(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def reported(folder, rows, *args):
    (folder / "runs.jsonl").write_bytes(jsonl(rows))
    result = frame.run(["repro-report", "runs.jsonl", *args], cwd=folder)
    assert result.rc == 0, result.err
    return result


@pytest.fixture
def answers():
    """Two problems under three configurations; one diverges."""
    return [
        run(
            size, [1, 2, size], name=name, text=f"one two {size}", top1_prob=[0.9, 0.8, 0.5], top2_prob=[0.1, 0.1, 0.49]
        )
        for name in ("p", "q")
        for size in (1, 8, 16)
        if name == "q" or size < 16
    ] + [run(16, [1, 2, 1], name="p", text="one two 1", top1_prob=[0.9, 0.8, 0.5], top2_prob=[0.1, 0.1, 0.49])]


def test_the_names_that_scripts_rely_on(tmp_path, answers):
    (row,) = reported(tmp_path, answers).rows
    assert row.keys() >= KEYS
    assert row["div_percent"] == 100
    assert row["avg_div_index"] == 2


def test_a_table_of_the_paper_comes_out_of_rows(tmp_path):
    rows = [
        {"id": f"aime-{i}", "config": {"precision": "bf16", "batch_size": c}, "correct": int(i < right)}
        for c, right in enumerate(RIGHT_OF_30)
        for i in range(30)
    ]
    (row,) = reported(tmp_path, rows).rows
    assert row["std_acc"] == pytest.approx(0.0544, abs=5e-5)
    assert row["mean_accuracy"] == pytest.approx(float(Fraction(sum(RIGHT_OF_30), 180)))
    assert (row["n_problems"], row["n_scored"], row["n_configs"]) == (30, 30, 6)


def test_the_least_that_users_have_is_enough(tmp_path):
    rows = [
        {"id": 1, "config": c, "tokens": [1, t], "top1_prob": [p, 0.5], "n_tokens": 2, "correct": t}
        for c, t, p in (("a", 0, 0.5), ("b", 1, 0.7))
    ]
    (row,) = reported(tmp_path, rows).rows
    assert row["avg_std_top1_prob"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    (other,) = reported(tmp_path, rows, "--ddof", "0").rows
    assert other["avg_std_top1_prob"] == pytest.approx(0.1)


def test_groups_and_what_is_ignored(tmp_path, answers):
    for i, row in enumerate(answers):
        row["config"] = row["config"] | {"versions": {"torch": f"2.{i}"}, "host": "ab"[i % 2]}
    rows = reported(tmp_path, answers, "--by", "host", "--ignore", "versions").rows
    assert [row["group"] for row in rows] == [{"host": "a"}, {"host": "b"}]
    (row,) = reported(tmp_path, answers, "--by", "", "--ignore", "versions,host").rows
    assert (row["group"], row["n_configs"], row["n_problems"]) == ({}, 3, 2)


def test_several_models_are_told(tmp_path):
    rows = [{"id": 1, "config": {"model": model}, "tokens": [1]} for model in "ab"]
    assert "answers of several models are compared" in reported(tmp_path, rows).err
    assert "several models" not in reported(tmp_path, rows, "--by", "model").err


def test_a_picture_and_a_page(tmp_path, answers):
    reported(tmp_path, answers, "--plot", "a.png", "--html", "a.html", "--left", "batch_size=8", "--shown", "1")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<details") == 1
    assert "<b>precision=bf16 batch_size=8</b>" in page
    assert "<mark>8</mark>" in page


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--left", "a=1"), "--left: goes with --html"),
        (("--tokenizer", "embedded"), "--tokenizer: goes with --html"),
        (("--html", "a.html", "--right", "a=1"), "--right: no configuration has a=1"),
        (("--ddof", "2"), "invalid value for '--ddof': 2 is not in the range 0<=x<=1 (see repro-report --help)"),
    ],
)
def test_options_that_cannot_be(tmp_path, args, complaint):
    result = frame.run(["repro-report", *args], cwd=tmp_path, stdin=jsonl([{"id": 1}]))
    assert result.rc == 2
    assert result.complaints[-1].casefold() == f"repro-report: {complaint}".casefold()


def test_known_fields_are_known(tmp_path, answers):
    reported(tmp_path, [row | {"gap": [0.1], "finish": "eos"} for row in answers], "--strict")


def test_tensors_stand_in_the_manifest(tmp_path):
    import torch

    names = [f"problem_0_aime24_{kind}_bs_1_float32_max_tokens_9.pt" for kind in ("logprobs", "token_ids")]
    torch.save(torch.zeros(2, 5), tmp_path / names[0])
    torch.save(torch.zeros(2, 5, dtype=torch.int64), tmp_path / names[1])
    result = frame.run(["repro-report", "-o", "out.jsonl", *names], cwd=tmp_path)
    assert result.rc == 0, result.err
    manifest = json.loads((tmp_path / "out.jsonl.meta.json").read_text())
    digests = [hashlib.blake2b((tmp_path / name).read_bytes(), digest_size=16).hexdigest() for name in names]
    assert [(one["name"], one["blake2b"]) for one in manifest["inputs"]] == list(zip(names, digests, strict=True))
    assert json.loads((tmp_path / "out.jsonl").read_text())["runs"][0]["mean_output_length"] == 2
