"""Pruned visual tokens at a tiny size, on a model of random weights: it runs, learns, goes on where it was, reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import frame
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.pruning.plan import Drop, Plan  # noqa: E402

MODULES = ("pruning", "pruning_report")


def ran(modules, model, out, *more):
    arguments = ["--quick", "--seeds", "1", "--model", model, "--out", out, *more]
    modules["pruning"].main(list(map(str, arguments)))
    return out


def told(path):
    """The rows by arm, without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["method"], row["share"], row["trained"]): {**row, "duration_s": None} for row in rows}


@pytest.fixture(scope="module")
def quick(modules, model, tmp_path_factory):
    """The rows of a tiny experiment: all methods, one seed."""
    return ran(modules, model, tmp_path_factory.mktemp("quick") / "rows.jsonl")


@pytest.fixture
def trial(modules, model, tmp_path):
    """A seed of the tiny experiment."""
    pruning = modules["pruning"]
    loaded = pruning.open_model(model, "cpu", "float32", notify=print, trust_remote_code=False)
    loaded.model.requires_grad_(requires_grad=False)
    return pruning.Trial(loaded, pruning.QUICK, 1, tmp_path)


def test_every_method_and_share_has_a_row_of_each_kind(modules, quick):
    rows = told(quick)
    shares = modules["pruning"].QUICK.shares
    wanted = {("dense", 1.0), *((method, share) for method in ("yopo", "fastv", "pyramid") for share in shares)}
    assert set(rows) == {(*one, trained) for one in wanted for trained in (False, True)}
    for (method, share, trained), row in rows.items():
        if row["pruning"] is None:
            assert "accuracy" not in row
            continue
        assert row["visual_ratio"] <= share
        assert row["n_captions"] == 2
        assert row["n_questions"] > 10
        assert (row["losses"] is None) != trained
        assert method == "dense" or row["visual_ratio"] < 1
    assert rows["dense", 1.0, False]["visual_ratio"] == 1
    # two layers: dropping begins behind the first, so that half is the least
    for method in ("fastv", "pyramid"):
        assert rows[method, 0.1, False]["pruning"] is None
        assert 0.5 < rows[method, 0.6, False]["visual_ratio"] <= 0.6


def test_a_method_alone_makes_the_same_rows_and_a_killed_run_goes_on(modules, model, quick, tmp_path):
    out = ran(modules, model, tmp_path / "rows.jsonl", "--methods", "fastv", "dense")
    rows = told(quick)
    assert told(out) == {key: row for key, row in rows.items() if key[0] in ("fastv", "dense")}
    lines = quick.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-3]) + lines[-3][:40])
    ran(modules, model, out)
    assert out.read_text().startswith("".join(lines[:-3]))
    assert told(out) == rows


@pytest.mark.parametrize("plan", [Plan(), Plan(window=3, ffn=2, cut=1), Plan(drops=(Drop(1, 0.5),))], ids=str)
def test_learning_goes_through_the_pruned_model(modules, trial, plan):
    """The loss is that of answers as they are scored under the plan; weights fit it, and nothing else is trained."""
    pruning = modules["pruning"]
    trial.settings = replace(trial.settings, updates=20, rate=1e-2)
    lesson = trial.lessons[0][:2]
    trial.lessons = [lesson] * 20
    end = min(trial.loaded.codec.eos_ids)
    answers = [[*trial.loaded.codec.encode(one.answer), end] for one in lesson]
    prompts = [one.prompt for one in lesson]
    with pruning.Pruner(trial.loaded.model, plan):
        scored = pruning.batches_of(trial.loaded, lambda: False).score(prompts, answers)
    weight = [len(row) ** -0.5 for row in scored]
    expected = -sum(sum(row) * w for row, w in zip(scored, weight, strict=True))
    expected /= sum(len(row) * w for row, w in zip(scored, weight, strict=True))
    losses = trial.train(plan)
    assert losses[0] == pytest.approx(expected, rel=1e-3)
    assert losses[-1] < losses[0] / 2
    changed = {name for name, one in trial.loaded.model.state_dict().items() if not one.equal(trial.start[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name for name in changed)


def test_pictures_that_are_encoded_once_are_what_they_were(modules, trial):
    pruning = modules["pruning"]
    asked = [one.prompt for one in trial.measured[:4]]
    scored = pruning.batches_of(trial.loaded, lambda: False).score(asked, [[5, 6]] * 4)
    encoder = pruning.Encoder(trial.loaded.model.model.vision_tower)
    for _ in range(2):
        again = pruning.batches_of(trial.loaded, lambda: False).score(asked, [[5, 6]] * 4)
        for one, other in zip(again, scored, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert len(encoder._known) == 1  # all four ask about one scene


def test_the_rate_grows_and_shrinks(modules):
    factor = modules["pruning"].rates(10, 0.2)
    assert [factor(step) for step in (0, 1, 2, 6, 9, 10)] == [0.5, 1.0, 1.0, 0.5, 0.125, 0.0]


def test_the_report_is_made_from_the_rows(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: experiment pruning -->\n<!-- end -->\n")
    where = ("--rows", quick, "--page", page, "--picture", tmp_path / "picture.png")
    for extra, code in ((("--check",), 1), ((), 0), (("--check",), 0)):
        argv = [sys.executable, frame.ROOT / "experiments" / "report.py", "pruning", *where, *extra]
        done = subprocess.run(argv, capture_output=True, env=os.environ)
        assert done.returncode == code, done.stderr
    written = page.read_text()
    untrained, trained = (told(quick)["fastv", 0.6, when] for when in (False, True))
    cells = [f"{row[name]:.3f} ± 0.000" for name in ("accuracy", "caption_f1") for row in (untrained, trained)]
    assert f"| 60 % | FastV | {100 * untrained['visual_ratio']:.1f} % | {' | '.join(cells)} |" in written
    assert "| 10 % | FastV | not possible |  |  |  |  |" in written
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in quick.read_text().splitlines()]
    with pytest.raises(SystemExit, match="not done"):
        modules["pruning_report"].by_arm(rows[:-1])
    with pytest.raises(SystemExit, match="not done"):
        modules["pruning_report"].by_arm([{**rows[0], "weights": "other"}, *rows[1:]])
