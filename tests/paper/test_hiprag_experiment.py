"""The experiment on HiPRAG's claim: arms differ in the reward alone, it goes on, and the page shows its rows."""

import copy
import json

import pytest
import torch

MODULES = ("lookups", "hiprag", "hiprag_report", "report")


@pytest.fixture(scope="module")
def quick(modules, tmp_path_factory):
    """The rows of a tiny experiment of one seed."""
    return ran(modules, tmp_path_factory.mktemp("quick") / "rows.jsonl")


def ran(modules, out, *more):
    modules["hiprag"].main(["--quick", "--seeds", "1", "--out", str(out), *more])
    return out


def rows_of(path):
    """The rows by arm and seed, without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["arm"], row["seed"]): {**row, "duration_s": None} for row in rows}


@pytest.fixture
def true_world(modules):
    """A world of four entities and one relation, each to the next; only the first fact is known."""
    facts = torch.tensor([[1], [2], [3], [0]])
    return modules["lookups"].World(facts, facts == 1, facts * 0.0, longest=2, astray=0.0)


def test_arms_differ_in_the_reward_alone(modules, quick, monkeypatch, tmp_path):
    rows = rows_of(quick)
    assert set(rows) == {(arm, 11) for arm in modules["hiprag"].ARMS}
    assert len({json.dumps(row["curve"][0]) for row in rows.values()}) == 1  # the same start, the same tests
    same = dict.fromkeys(modules["hiprag"].ARMS, modules["hiprag"].ARMS["0"])
    monkeypatch.setattr(modules["hiprag"], "ARMS", same)
    paid_alike = rows_of(ran(modules, tmp_path / "rows.jsonl", "--arms", "0", "0.6"))
    assert paid_alike[("0.6", 11)]["curve"] == paid_alike[("0", 11)]["curve"] == rows[("0", 11)]["curve"]


def test_the_reward_moves_the_weights(modules):
    experiment, states = modules["hiprag"], []
    start = experiment.warmed_up(experiment.QUICK, 1)
    for arm in ("0", "0.6", "0"):
        learner = copy.deepcopy(start)
        optimizer = torch.optim.AdamW(learner.parameters())
        rule, generator = experiment.ARMS[arm], torch.Generator().manual_seed(1)
        experiment.improve(learner, optimizer, rule, experiment.QUICK, generator)
        states.append(torch.cat([p.detach().flatten() for p in learner.parameters()]))
    assert states[0].equal(states[2])
    assert not states[0].equal(states[1])


def test_a_row_is_determined_by_its_seed(modules, quick, tmp_path):
    again = rows_of(ran(modules, tmp_path / "again.jsonl", "--arms", "0.4"))
    assert again == {key: row for key, row in rows_of(quick).items() if key[0] == "0.4"}


def test_a_killed_run_goes_on(modules, quick, tmp_path, capsys):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:3]) + lines[3][:100])
    ran(modules, out)
    assert rows_of(out) == rows_of(quick)
    assert out.read_text().startswith("".join(lines[:3]))  # kept as they were
    assert "the last line was cut" in capsys.readouterr().err


def test_rows_that_are_there_are_not_made_again(modules, quick, monkeypatch):
    monkeypatch.setattr(modules["hiprag"], "run", lambda *_: pytest.fail("a run was made again"))
    before = quick.read_bytes()
    ran(modules, quick)
    assert quick.read_bytes() == before


def test_verdicts_are_the_papers(modules, true_world):
    """Of two lookups: one searched for that the policy knows, one guessed wrong."""
    experiment, (s, n) = modules["hiprag"], (4, 5)
    names = experiment.names_of(true_world)
    true = experiment.by_lookup(true_world.facts, names)
    says = experiment.by_lookup(torch.tensor([[1], [0], [0], [0]]), names)
    parsed = experiment.parse(experiment.rendered(0, [0, 0], [s, 1, 1, n, 6, 3, 3], names))
    assert (parsed.valid, parsed.answer) == (True, "e003")
    assert experiment.verdicts(parsed, true, says) == [("search", "over"), ("nonsearch", "under")]
    parsed = experiment.parse(experiment.rendered(1, [0, 0], [s, 2, 2, n, 6, 3, 3], names))
    assert experiment.verdicts(parsed, true, says) == [("search", "ok"), ("nonsearch", "ok")]


@pytest.mark.parametrize("tokens", [[1, 6, 1, 1], [4, 1, 4, 1]])
def test_a_token_in_the_wrong_place_is_malformed(modules, true_world, tokens):
    experiment = modules["hiprag"]
    names = experiment.names_of(true_world)
    assert not experiment.parse(experiment.rendered(0, [0], tokens, names)).valid
    assert experiment.parse(experiment.rendered(0, [0], [4, 1, 1, 1], names)).valid


def test_what_is_injected_is_found_and_not_trained_on(modules, true_world):
    lookups = modules["lookups"]
    asked = lookups.Questions(torch.tensor([0, 2]), torch.zeros(2, 2, dtype=torch.long), torch.tensor([2, 1]))
    said = iter([[4, 4], [9, 9], [1, 3], [5, 3], [9, 9], [2, 9], [2, 9]])
    responses = lookups.respond(asked, true_world, lambda *_: torch.tensor(next(said)), torch.Generator())
    assert responses.tolist() == [[4, 1, 1, 5, 6, 2, 2], [4, 3, 3, 3, 6, 6, 6]]
    assert lookups.own_tokens(asked.lengths, 2).tolist() == [[1, 0, 1, 1, 0, 1, 1], [1, 0, 1, 1, 0, 0, 0]]


def test_sampled_tokens_have_the_probabilities_of_the_loss(modules):
    """The tokens that are cached while writing give the same logits as the whole response at once."""
    experiment = modules["hiprag"]
    learner = experiment.warmed_up(experiment.QUICK, 1)
    asked = experiment.tests_of(experiment.QUICK, learner.world)
    written = learner.greedy(asked)
    own = modules["lookups"].own_tokens(asked.lengths, learner.world.longest).bool()
    again = learner.response_logits(asked.prompts(learner.world), written).argmax(-1)
    assert again[own].equal(written[own])


def test_held_out_questions_are_never_trained_on(modules):
    experiment = modules["hiprag"]
    plan = experiment.Plan(entities=8, relations=2)
    where = modules["lookups"].world(8, 2, 3, 0.0, torch.Generator().manual_seed(1))
    trained = experiment.train_questions(5000, where, torch.Generator().manual_seed(2)).prompts(where)
    held_out = experiment.tests_of(plan, where).prompts(where)
    assert not {tuple(row) for row in trained.tolist()} & {tuple(row) for row in held_out.tolist()}


def test_the_page_follows_from_the_rows_of_the_experiment(modules):
    with pytest.raises(SystemExit, match="0"):
        modules["report"].main(["hiprag", "--check"])
    experiment = modules["hiprag"]
    rows = rows_of(experiment.RESULTS)
    assert {arm for arm, _ in rows} == set(experiment.ARMS)
    assert len({seed for _, seed in rows}) >= 5
    for (arm, _), row in rows.items():
        assert row["plan"] == experiment.as_read(experiment.Plan())
        assert row["reward"] == experiment.as_read(experiment.ARMS[arm])


def test_the_report_draws_and_notices_what_is_stale(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "page.md", tmp_path / "hiprag.png"
    page.write_text("before\n<!-- generated: experiment hiprag -->\n<!-- end -->\nafter\n")
    arguments = ["hiprag", "--rows", str(quick), "--page", str(page), "--picture", str(picture)]
    modules["report"].main(arguments)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| λp = 0.4 | " in page.read_text()
    page.write_text(page.read_text().replace("λp = 0.4", "λp = 0.5"))
    with pytest.raises(SystemExit, match="1"):
        modules["report"].main([*arguments, "--check"])


def test_rates_of_nothing_are_told(modules):
    report = modules["hiprag_report"]
    assert report.percent([0.25, None, 0.75]) == "50.0 ± 35.4 (of 2)"
    assert report.percent([None, None]) == "no such step"


def test_bad_steps_are_counted_a_question(modules):
    """Of 2.5 steps a question one searches, in vain in one case of four; half of the others are wrong."""
    report, plan = modules["hiprag_report"], {"longest": 3}
    point = {"osr": 0.25, "usr": 0.5, "searches_per_question": 1.0}
    assert (report.needless(point, plan), report.wrong(point, plan)) == (0.25, 0.75)
    assert report.wrong({"usr": None, "searches_per_question": 2.5}, plan) == 0


def test_a_report_of_half_an_experiment_is_refused(modules, quick):
    rows = [json.loads(line) for line in quick.read_text().splitlines()]
    with pytest.raises(SystemExit, match="not done"):
        modules["hiprag_report"].by_arm(rows[:-1])
    with pytest.raises(SystemExit, match="more than one row"):
        modules["hiprag_report"].by_arm([*rows, rows[0]])
