"""The whole method at a tiny size, on a model of random weights: it runs, goes on where it was killed, and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import frame
import pytest

PIPELINE = frame.ROOT / "pipelines" / "vision-zero.sh"
EXPERIMENTS = frame.ROOT / "experiments"
MODULES = ("visionzero", "selfplay", "selfplay_report")
SHARES = ("spy_win_rate", "civilian_win_rate", "vote_accuracy", "na_share", "question_accuracy")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_pipeline_alternates_goes_on_and_reports(model, tmp_path):
    out = tmp_path / "out"
    settings = {"STEPS": 2, "PAIRS": 2, "CIVILIANS": 2, "QUESTIONS": 2, "SAMPLES": 2, "TOKENS": 4, "EVERY": 9}
    settings |= {"HELD_OUT": 2, "SIZE": "64x48", "MODEL": model, "OUT": out, "RULE": "--rule cycle"}
    env = frame.environment(
        {name: str(value) for name, value in settings.items()} | {"HF_HUB_OFFLINE": "1", "PATH": frame.warm_path()}
    )

    def run():
        done = subprocess.run([PIPELINE], env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    table = run()
    assert "| step | stages so far |" in table
    report = rows_of(out / "report.jsonl")
    assert [(row["step"], row["stages"]) for row in report] == [(0, ""), (2, "dc")]
    for row in report:
        assert all(row[name] is None or 0 <= row[name] <= 1 for name in SHARES)
        assert (row["n_games"], row["n_votes"], row["n_answers"]) == (2, 4, 4)
    assert (out / "report.svg").read_text().startswith("<?xml")
    assert table.count(" of 4 |") == 6
    decisions, clues = (rows_of(out / "steps" / str(step) / "rows.jsonl") for step in (1, 2))
    assert [row.get("stage") for row in decisions] == ["decision"] * 4 + [None] * 8
    assert [row["stage"] for row in clues] == ["clue"] * 6
    assert {row["policy_version"] for row in decisions} == {"v000000"}
    assert {row["policy_version"] for row in clues} == {"v000001"}
    assert len({row["images"][0] for row in decisions[4:]}) == 2
    trained = [rows_of(out / "steps" / str(step) / "train.jsonl")[0] for step in (1, 2)]
    # an untrained model may write the token of an image, which no row to train on has
    assert [(row["step"], row["rows"] + row["failed"]) for row in trained] == [(1, 12), (2, 6)]
    assert all(row["rows"] for row in trained)
    weights = (out / "policy" / "current" / "model.safetensors").read_bytes()
    # as if it had been killed while it learned from the last step
    for name in ("train.jsonl", "switch.jsonl"):
        (out / "steps" / "2" / name).unlink()
    (out / "report.jsonl").unlink()
    assert run() == table
    assert rows_of(out / "report.jsonl") == report
    assert (out / "policy" / "current").resolve().name == "v000002"
    assert (out / "policy" / "current" / "model.safetensors").read_bytes() == weights


@pytest.fixture(scope="module")
def quick(modules, model, tmp_path_factory):
    """The rows of a tiny experiment: all arms, one seed."""
    folder = tmp_path_factory.mktemp("quick")
    return ran(modules, model, folder / "rows.jsonl", folder)


def ran(modules, model, out, folder, *more):
    arguments = ["--quick", "--seeds", "1", "--model", model, "--out", out, "--pictures", folder / "pictures", *more]
    modules["visionzero"].main(list(map(str, arguments)))
    return out


def told(path):
    """The rows by arm and seed, without what a clock says."""
    return {(row["arm"], row["seed"]): {**row, "duration_s": None} for row in rows_of(path)}


def test_arms_differ_in_what_they_train(modules, quick):
    rows = told(quick)
    assert set(rows) == {(arm, 21) for arm in modules["visionzero"].ARMS}
    assert {arm: row["stages"] for (arm, _), row in rows.items() if arm in ("clue", "decision")} == {
        "clue": "cc",
        "decision": "dd",
    }
    assert rows["no-rae", 21]["rae"] is False
    first = [row["exams"][0] for row in rows.values()]
    assert all(exam == first[0] for exam in first)  # all begin as the same model, examined alike
    assert all([exam["step"] for exam in row["exams"]] == [0, 2] for row in rows.values())


def test_a_row_is_determined_by_its_seed_and_a_killed_run_goes_on(modules, model, quick, tmp_path):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:3]) + lines[3][:50])
    ran(modules, model, out, quick.parent)
    assert out.read_text().startswith("".join(lines[:3]))
    assert told(out) == told(quick)


def test_clues_without_role_advantages_keep_their_rewards(modules):
    values = modules["selfplay"].Values
    votes = [{"voter": 1, "vote": 2}, {"voter": 3, "vote": 2}]
    turns = [{"stage": "clue", "round": 1, "player": player} for player in (1, 2, 3)]
    game = {"id": "g", "sample": 0, "n_players": 3, "rounds": 1, "spy": 2, "votes": votes, "turns": turns}
    raw = [row["advantage"] for row in values(rae=False).of_games([game], "clue")]
    less = [row["advantage"] for row in values(rae=True).of_games([game], "clue")]
    assert raw == pytest.approx([0.1, -0.2, 0.1])  # beta (2 - 0) / 2 for civilians, -beta (2 - 0) for the spy
    assert less == pytest.approx([0.95 * worth for worth in raw])


def test_answers_are_compared_with_those_to_the_same_question(modules):
    answers = [{"correct": right} for right in (1, 0, 1, 1)]
    rows = modules["selfplay"].Values.of_answers(answers, 2)
    assert [row["advantage"] for row in rows] == pytest.approx([1, -1, 0, 0], abs=1e-5)


def test_the_report_is_made_from_the_rows(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: experiment visionzero -->\n<!-- end -->\n")
    where = ("--rows", quick, "--page", page, "--picture", tmp_path / "picture.png")
    for extra, code in ((("--check",), 1), ((), 0), (("--check",), 0)):
        argv = [sys.executable, EXPERIMENTS / "report.py", "visionzero", *where, *extra]
        done = subprocess.run(argv, capture_output=True, env=os.environ)
        assert done.returncode == code, done.stderr
    assert "| clues only | " in page.read_text()
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(quick)
    with pytest.raises(SystemExit, match="not done"):
        modules["selfplay_report"].by_arm(rows[:-1])
