"""The experiment on DUMP's claim: it runs, it goes on where it was killed, and the page shows the rows of its file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
MODULES = ("sorting", "curriculum", "curriculum_report", "report")


@pytest.fixture(scope="module")
def quick(modules, tmp_path_factory):
    """The rows of a tiny experiment: two policies, two seeds."""
    return ran(modules, tmp_path_factory.mktemp("quick") / "rows.jsonl")


def ran(modules, out, *more):
    modules["curriculum"].main(["--quick", "--seeds", "2", "--out", str(out), *more])
    return out


def rows_of(path):
    """The rows by policy and seed, without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["policy"], row["seed"]): {**row, "duration_s": None} for row in rows}


def test_every_policy_and_seed_has_a_row(modules, quick):
    expected = {(policy, seed) for policy in modules["curriculum"].POLICIES for seed in (11, 12)}
    assert set(rows_of(quick)) == expected
    assert len(quick.read_text().splitlines()) == len(expected)


def test_a_row_is_determined_by_its_seed(modules, quick, tmp_path):
    again = rows_of(ran(modules, tmp_path / "again.jsonl", "--policies", "ucb-prompts"))
    assert again == {key: row for key, row in rows_of(quick).items() if key[0] == "ucb-prompts"}


def test_a_killed_run_goes_on(modules, quick, tmp_path, capsys):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:3]) + lines[3][:100])
    ran(modules, out)
    assert rows_of(out) == rows_of(quick)
    assert out.read_text().startswith("".join(lines[:3]))  # kept as they were
    assert len(out.read_text().splitlines()) == len(lines)
    assert "the last line was cut" in capsys.readouterr().err


def test_rows_that_are_there_are_not_made_again(modules, quick, monkeypatch):
    monkeypatch.setattr(modules["curriculum"], "run", lambda *_: pytest.fail("a run was made again"))
    before = quick.read_bytes()
    ran(modules, quick)
    assert quick.read_bytes() == before


def test_held_out_problems_are_never_trained_on(modules):
    sorting, plan = modules["sorting"], modules["curriculum"].Plan(levels=(3, 4), held_out=400)
    generator = torch.Generator().manual_seed(1)
    trained = sorting.problems([3, 4] * 5000, 4, generator, held_out=False)
    tests = modules["curriculum"].tests_of(plan).values()
    held_out = {tuple(prompt) for tasks in tests for prompt in tasks.prompts.tolist()}
    assert not held_out & {tuple(prompt) for prompt in trained.prompts.tolist()}
    assert len(held_out) > 200


def test_answers_are_the_sorted_digits(modules):
    sorting = modules["sorting"]
    tasks = sorting.problems([3, 5], 5, torch.Generator().manual_seed(1), held_out=True)
    for prompt, answer, length in zip(tasks.prompts.tolist(), tasks.answers.tolist(), (3, 5), strict=True):
        assert prompt[:5][: 5 - length] == [sorting.BLANK] * (5 - length)
        assert prompt[5] == sorting.EQUALS
        assert answer[:length] == sorted(prompt[5 - length : 5])
    assert sorting.right(tasks, tasks.answers).tolist() == [1, 1]
    wrong = tasks.answers.clone()
    wrong[1, 4] = (wrong[1, 4] + 1) % 10
    wrong[0, 4] = 7  # after the answer's three digits: does not count
    assert sorting.right(tasks, wrong).tolist() == [1, 0]


def test_sampled_digits_have_the_probabilities_of_the_loss(modules):
    """The tokens that are cached while sampling give the same logits as the whole sequence at once."""
    sorting = modules["sorting"]
    torch.manual_seed(1)
    learner = sorting.Learner(longest=4, width=16, layers=2, heads=2)
    tasks = sorting.problems([4] * 3, 4, torch.Generator().manual_seed(1), held_out=False)
    written = learner.greedy(tasks)
    assert learner.answer_logits(tasks.prompts, written).argmax(-1).equal(written)


def test_the_page_follows_from_the_rows_of_the_experiment(modules):
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "report.py", "curriculum", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    plan = json.loads(json.dumps(modules["curriculum"].asdict(modules["curriculum"].Plan())))
    rows = rows_of(modules["curriculum"].RESULTS)
    assert {policy for policy, _ in rows} == set(modules["curriculum"].POLICIES)
    assert len({seed for _, seed in rows}) >= 5
    for row in rows.values():
        assert row["plan"] == plan
        assert row["bandit"] == modules["curriculum"].bandit_settings(row["policy"])


def test_the_report_draws_and_notices_what_is_stale(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "page.md", tmp_path / "pictures" / "curriculum.png"
    page.write_text("before\n<!-- generated: experiment curriculum -->\n<!-- end -->\nafter\n")
    arguments = ["curriculum", "--rows", str(quick), "--page", str(page), "--picture", str(picture)]
    modules["report"].main(arguments)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "| UCB, counting prompts | " in text
    assert "](pictures/curriculum.png)" in text
    with pytest.raises(SystemExit, match="0"):
        modules["report"].main([*arguments, "--check"])
    page.write_text(text.replace("counting prompts", "counting"))
    with pytest.raises(SystemExit, match="1"):
        modules["report"].main([*arguments, "--check"])


def test_runs_that_never_get_there_count_with_all_updates(modules):
    report = modules["curriculum_report"]
    runs = {seed: {"updates_to_target": needed, "plan": {"updates": 250}} for seed, needed in enumerate((100, None))}
    baseline = {seed: {"updates_to_target": needed, "plan": {"updates": 250}} for seed, needed in enumerate((150, 240))}
    assert [report.updates_needed(row) for row in runs.values()] == [100, 250]
    assert report.against(runs, baseline) == ("-20 ± 42", "1, 1")


def test_a_report_of_half_an_experiment_is_refused(modules, quick):
    rows = [json.loads(line) for line in quick.read_text().splitlines()]
    with pytest.raises(SystemExit, match="not done"):
        modules["curriculum_report"].by_policy(rows[:-1])
    with pytest.raises(SystemExit, match="more than one row"):
        modules["curriculum_report"].by_policy([*rows, rows[0]])
