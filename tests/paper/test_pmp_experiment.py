"""The experiment with and without attention to prompts, at a size that shows that it works, and its report."""

from __future__ import annotations

import json
import sys

import frame
import numpy as np
import pytest
from PIL import Image

MODULES = ("pmp",)


@pytest.fixture(scope="module")
def experiment(modules):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CPUS_PER_TASK", "1")
        yield modules["pmp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pmp-experiment")
    draws = np.random.default_rng(0)
    for split in ("train", "val"):
        for part in (split, f"{split}annot"):
            (made / "camvid" / part).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(draws.integers(0, 255, (32, 32, 3), np.uint8)).save(made / "camvid" / split / f"{name}.jpg")
            labels = draws.integers(0, 12, (4, 4), np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(labels).save(made / "camvid" / f"{split}annot" / f"{name}.png")
    return made


@pytest.fixture(scope="module")
def rows(experiment, folder):
    args = ["--size", "tiny", "--seeds", "1", "--camvid", folder / "camvid", "--out", folder / "rows.jsonl"]
    args = [*map(str, args), "--work", str(folder / "work")]
    experiment.main(args)
    before = (folder / "rows.jsonl").read_text()
    experiment.main(args)
    assert (folder / "rows.jsonl").read_text() == before  # what is there is not made again
    return [json.loads(line) for line in before.splitlines()]


def test_rows_of_both_models(rows):
    assert [(row["task"], row["pmp"]) for row in rows] == [
        ("shapes", True),
        ("shapes", False),
        ("camvid", True),
        ("camvid", False),
    ]
    for row in rows:
        assert set(row["scores"]) == ({"one", "at once", "held out"} if row["task"] == "shapes" else {"all"})
        for scores in row["scores"].values():
            assert scores["n_images"] > 0
            assert 0 <= scores["proposal_recall"] <= 1
    assert rows[0]["parameters"] > rows[1]["parameters"]
    assert rows[2]["scores"]["all"]["n_classes"] == 11


def test_held_out_names_are_what_is_asked_for(experiment):
    from toolroll.segment.shapes import HELD_OUT

    scenes, ask, _ = experiment.tests("shapes", experiment.PLANS["full"]["shapes"], None)["held out"]
    asked = [row["prompts"] for number in range(5) for _, row in experiment.rows_asked(scenes, ask, number)]
    assert asked
    assert {name for (name,) in asked} <= set(HELD_OUT)


def test_the_report(rows, folder):
    page, picture = folder / "page.md", folder / "pmp.png"
    page.write_text("before\n<!-- generated: experiment pmp -->\n<!-- end -->\nbehind\n")
    where = ["--rows", folder / "rows.jsonl", "--page", page, "--picture", picture]
    argv = [sys.executable, frame.ROOT / "experiments" / "report.py", "pmp", *where]
    assert frame.run([*map(str, argv)]).rc == 0
    text = page.read_text()
    assert "| CamVid, always the same eleven | mIoU (gt) |" in text
    assert text.endswith("behind\n")
    assert picture.stat().st_size > 1000
    assert frame.run([*map(str, argv), "--check"]).rc == 0
    page.write_text(text.replace("mIoU", "mIoO", 1))
    assert frame.run([*map(str, argv), "--check"]).rc == 1


def test_rows_of_one_model_are_no_experiment(rows, tmp_path):
    (tmp_path / "half.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "page.md").write_text("<!-- generated: experiment pmp -->\n<!-- end -->\n")
    where = ["--rows", tmp_path / "half.jsonl", "--page", tmp_path / "page.md", "--picture", tmp_path / "pmp.png"]
    result = frame.run([sys.executable, str(frame.ROOT / "experiments" / "report.py"), "pmp", *map(str, where)])
    assert result.rc == 1
    assert "the experiment is not done" in result.err
