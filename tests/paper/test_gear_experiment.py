"""The experiment on GEAR's claim: it runs, it goes on where it was killed, and the page shows the rows of its file."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import islice

import frame
import pytest
import torch

EXPERIMENTS = frame.ROOT / "experiments"
MODULES = ("listprograms", "gear", "gear_report", "report")


@pytest.fixture(scope="module")
def quick(modules, tmp_path_factory):
    """The rows of a tiny experiment: all arms, two seeds."""
    return ran(modules, tmp_path_factory.mktemp("quick") / "rows.jsonl")


def ran(modules, out, *more):
    modules["gear"].main(["--quick", "--seeds", "2", "--out", str(out), *more])
    return out


def rows_of(path):
    """The rows by arm and seed, without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["arm"], row["seed"]): {**row, "duration_s": None} for row in rows}


def test_every_arm_and_seed_has_a_row(modules, quick):
    expected = {(arm, seed) for arm in modules["gear"].ARMS for seed in (51, 52)}
    assert set(rows_of(quick)) == expected
    assert len(quick.read_text().splitlines()) == len(expected)


def test_arms_differ_only_in_the_mixture(quick):
    rows = {arm: row for (arm, seed), row in rows_of(quick).items() if seed == 51}
    for row in rows.values():
        for name in ("plan", "pools", "parameters"):
            assert row[name] == rows["equal"][name]
        assert row["exams"][0] == rows["equal"]["exams"][0]
        assert row["losses"][0] == dict.fromkeys(row["losses"][0], pytest.approx(0.693147, abs=1e-5))
    assert rows["equal"]["quotas"] == [{"parsing": 10, "inconsistent": 10, "fair": 10}] * 2
    assert rows["consistency"]["quotas"] == [{"inconsistent": 30}] * 2
    first, second = rows["momentum"]["quotas"]
    assert first == rows["equal"]["quotas"][0]
    assert second != first
    assert rows["momentum"]["exams"][1] == rows["equal"]["exams"][1]  # as long as the mixtures are the same
    assert len({json.dumps(row["exams"][-1]) for row in rows.values()}) == len(rows)


def test_a_row_is_determined_by_its_seed(modules, quick, tmp_path):
    again = rows_of(ran(modules, tmp_path / "again.jsonl", "--arms", "momentum", "--seeds", "1"))
    assert again == {("momentum", 51): rows_of(quick)["momentum", 51]}


def test_a_killed_run_goes_on(modules, quick, tmp_path, capsys):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:-1]) + lines[-1][:100])
    ran(modules, out)
    assert rows_of(out) == rows_of(quick)
    assert out.read_text().startswith("".join(lines[:-1]))  # kept as they were
    assert len(out.read_text().splitlines()) == len(lines)
    assert "the last line was cut" in capsys.readouterr().err


def test_rows_that_are_there_are_not_made_again(modules, quick, monkeypatch):
    monkeypatch.setattr(modules["gear"], "started", lambda *_: pytest.fail("a seed was begun again"))
    before = quick.read_bytes()
    ran(modules, quick)
    assert quick.read_bytes() == before


def test_held_out_problems_are_never_trained_on(modules):
    language = modules["listprograms"]
    trained, held_out = (
        {problem.observations for problem in islice(language.problems(random.Random(1), held_out=wanted), 4000)}
        for wanted in (False, True)
    )
    assert not trained & held_out
    shown = {given for observations in trained | held_out for given, _ in observations}
    assert not shown & set(language.sample_space(100))


def test_what_a_program_makes(modules):
    language, gear = modules["listprograms"], modules["gear"]
    name, end = {name: 10 + place for place, name in enumerate(language.NAMES)}, language.END
    half = (name["take"], 2, name["sort"], end)
    assert language.output(language.parsed(half), (9, 1, 5)) == (1, 9)
    assert language.output(language.parsed(half), (9,)) is None
    add, sort = name["add"], name["sort"]
    for broken in [(end,), (sort,), (add, end), (3, end), (sort, 3, end), (add, 0, end)]:
        assert language.parsed(broken) is None
    problem = language.Problem((((2, 1), (1, 2)), ((3, 1, 2), (1, 3))), half)
    assert gear.trial(problem, (end,), 100).status == "parse_error"
    found = gear.trial(problem, (sort, end), 100)
    assert (found.status, found.failed) == ("inconsistent", [1])
    fits = gear.trial(problem, half, 100)
    assert fits.status == "consistent"
    assert int((fits.ids < 0).sum()) == 11  # the empty list and the single digits


def test_sampled_programs_have_the_probabilities_of_the_loss(modules):
    """The tokens that are cached while sampling give the same logits as the whole sequence at once."""
    language = modules["listprograms"]
    torch.manual_seed(1)
    writer = language.Writer(width=16, layers=2, heads=2)
    with torch.no_grad():
        writer.head.weight.mul_(100)  # nearly greedy: what is drawn is nearly certain only if the logits agree
    tasks = list(islice(language.problems(random.Random(1), held_out=True), 4))
    said = writer.sampled(tasks, 1, torch.Generator().manual_seed(1))
    ids = torch.tensor([language.sequence(task, sets[0]) for task, sets in zip(tasks, said, strict=True)])
    written = ids[:, language.PROMPT :]
    likeliest = writer(ids[:, :-1])[0][:, language.PROMPT - 1 :].argmax(-1)
    real = written != language.BLANK
    assert (likeliest == written)[real].float().mean() > 0.9


def test_the_page_follows_from_the_rows_of_the_experiment(modules):
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "report.py", "gear", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    plan = json.loads(json.dumps(modules["gear"].asdict(modules["gear"].Plan())))
    rows = rows_of(modules["gear"].RESULTS)
    assert {arm for arm, _ in rows} == set(modules["gear"].ARMS)
    assert len({seed for _, seed in rows}) >= 5
    assert all(row["plan"] == plan for row in rows.values())


def test_the_report_draws_and_compares_seed_by_seed(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "page.md", tmp_path / "pictures" / "gear.png"
    page.write_text("before\n<!-- generated: experiment gear -->\n<!-- end -->\nafter\n")
    arguments = ["gear", "--rows", str(quick), "--page", str(page), "--picture", str(picture)]
    modules["report"].main(arguments)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| by momentum | " in page.read_text()
    with pytest.raises(SystemExit, match="0"):
        modules["report"].main([*arguments, "--check"])
    rows = rows_of(quick)
    ends = [[rows[arm, seed]["exams"][-1]["distinct"] for arm in ("momentum", "equal")] for seed in (51, 52)]
    assert modules["gear_report"].differences(list(rows.values()), "distinct") == [a - b for a, b in ends]


def test_a_report_of_half_an_experiment_is_refused(modules, quick):
    rows = [json.loads(line) for line in quick.read_text().splitlines()]
    for some in (rows[:-1], [*rows, rows[0]]):
        with pytest.raises(SystemExit, match="not done"):
            modules["gear_report"].by_arm(some)
