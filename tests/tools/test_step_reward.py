"""step-reward and step-stats through their command lines: the paper's numbers, both compat modes, exit codes."""

import json

import pytest

from toolroll.tools.step_parse import main as step_parse
from toolroll.tools.step_reward import main as step_reward
from toolroll.tools.step_stats import main as step_stats

SEARCH = (
    "<step>\n<reasoning>look it up</reasoning>\n<search>capital {}</search>\n"
    "<context>Doc 1(Title: T) x</context>\n<conclusion>It is city{}.</conclusion>\n</step>"
)
PLAIN = "<step>\n<reasoning>so it follows</reasoning>\n<conclusion>Thus town{} is big.</conclusion>\n</step>"


def response(kinds, answer="Paris", valid=True):
    steps = "\n".join((SEARCH if kind == "S" else PLAIN).format(i, i) for i, kind in enumerate(kinds))
    return f"<think>\n{steps}\n</think>{'' if valid else ' stray '}<answer>{answer}</answer>"


def trajectory(kinds, *, right=True, valid=True, **fields):
    text = response(kinds, "It is Paris" if right else "Rome", valid)
    return {"id": "q", "sample": 0, "golden_answers": ["Paris"], "response": text, **fields}


class Run:
    """Runs commands on rows; remembers the last exit code and what was said on stderr."""

    def __init__(self, folder, capfd):
        self.folder, self.capfd = folder, capfd
        self.code, self.err = 0, ""

    def __call__(self, command, rows, *args):
        source = self.folder / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.capfd.readouterr()
        self.code = command.run([*map(str, args), str(source)])
        out, self.err = self.capfd.readouterr()
        return [json.loads(line) for line in out.splitlines()]

    def parsed(self, *rows):
        return self(step_parse, rows)

    def judged(self, pattern, **fields):
        """A parsed row whose steps have the verdicts of a pattern such as "So Nx"."""
        codes = pattern.split()
        (row,) = self.parsed(trajectory("".join(code[0] for code in codes), **fields))
        assert len(row["steps"]) == len(codes)
        for step, (kind, good) in zip(row["steps"], codes, strict=True):
            if good != "?":
                step["verdict"] = "ok" if good == "o" else "over" if kind == "S" else "under"
        return row

    def total(self, row, *args):
        (scored,) = self(step_reward, [row], "--judge", "given", *args)
        assert self.code == 0, self.err
        parts = scored["reward"]["parts"]
        assert sum(parts.values()) == pytest.approx(scored["reward"]["total"])
        return round(scored["reward"]["total"], 6)


@pytest.fixture
def run(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, capfd)


@pytest.mark.parametrize(
    ("pattern", "paper", "less", "more", "release"),
    [
        ("So No Sx", 1.266667, 1.133333, 1.4, 1.4),
        ("No No", 1.4, 1.2, 1.6, 1.4),
        ("Nx Nx", 1.0, 1.0, 1.0, 1.4),
        ("So No No No", 1.4, 1.2, 1.6, 2.6),
        ("Sx", 1.0, 1.0, 1.0, 1.0),
        ("Sx Sx Sx Sx Sx", 1.0, 1.0, 1.0, 1.0),
        ("So So Sx Nx", 1.2, 1.1, 1.3, 1.266667),
    ],
)
def test_the_vectors_of_right_and_well_formed_trajectories(run, pattern, paper, less, more, release):
    row = run.judged(pattern)
    assert run.total(row) == paper
    assert run.total(row, "--process-weight", 0.2) == less
    assert run.total(row, "--process-weight", 0.6) == more
    assert run.total(row, "--compat", "release") == release
    assert run.total(row, "--reward", "search-r1") == 1.0


@pytest.mark.parametrize(("right", "valid", "expected"), [(True, False, 0.8), (False, True, 0.2), (False, False, 0.0)])
def test_the_vectors_of_the_others(run, right, valid, expected):
    row = run.judged("So No", right=right, valid=valid)
    for compat in ("paper", "release"):
        assert run.total(row, "--compat", compat) == expected


def test_the_reward_says_what_it_counted(run):
    (scored,) = run(step_reward, [run.judged("So Sx No Nx N?")], "--judge", "given")
    assert scored["reward"] == {
        "total": pytest.approx(1.2),
        "parts": {"outcome": pytest.approx(0.8), "format": 0.2, "process": pytest.approx(0.2)},
        "A": 1,
        "F": 1,
        "n_steps": 5,
        "n_ok": 2,
        "n_over": 1,
        "n_under": 1,
        "n_unknown": 1,
        "scheme": "hiprag",
        "judge": "given",
    }


@pytest.mark.parametrize(("rule", "expected"), [("skip", 1.4), ("optimal", 1.4), ("suboptimal", 1.2)])
def test_on_unknown(run, rule, expected):
    assert run.total(run.judged("So N?"), "--on-unknown", rule) == expected


def test_on_unknown_fail(run):
    row = run.judged("So N?")
    assert run(step_reward, [row], "--judge", "given", "--on-unknown", "fail") == []
    assert run.code == 1
    assert "no verdict" in run.err
    wrong = run.judged("So N?", right=False)
    assert run.total(wrong, "--on-unknown", "fail") == 0.2


def test_ablations(run):
    row = run.judged("Sx Nx")
    assert run.total(row, "--ablation", "over-only") == 1.2
    assert run.total(row, "--ablation", "under-only") == 1.2


def test_ablation_does_not_miss_verdicts_it_ignores(run):
    row = run.judged("So N?")
    assert run.total(row, "--ablation", "over-only", "--max-unknown", 0) == 1.4


@pytest.mark.parametrize(
    ("answer", "match", "right"),
    [
        ("Parisian", "cem", 1),
        ("Parisian", "cem-word", 0),
        ("It is Paris", "em", 0),
        ("The Paris", "em", 1),
        ("Paris now", "f1", 1),
        ("Paris now or never", "f1", 0),
    ],
)
def test_match(run, answer, match, right):
    (row,) = run.parsed({"id": 1, "golden_answers": ["Paris"], "response": response("N", answer)})
    (scored,) = run(step_reward, [row], "--judge", "given", "--match", match)
    assert scored["reward"]["A"] == right


def test_f1_threshold_and_r1_searcher(run):
    (row,) = run.parsed({"id": 1, "golden_answers": ["Paris"], "response": response("N", "Paris now or never")})
    (scored,) = run(step_reward, [row], "--judge", "given", "--match", "f1", "--f1-threshold", 0.3)
    assert scored["reward"]["A"] == 1
    assert run.total(row, "--reward", "r1-searcher-f1") == 0.4
    (broken,) = run.parsed({"id": 1, "golden_answers": ["Paris"], "response": response("N", "Paris", valid=False)})
    assert run.total(broken, "--reward", "r1-searcher-f1") == -1.0


def test_golden_answers_of_nothing_follow_cover_exact_match(run):
    for golds, right in ([[""], 1], [["the"], 1], [["?"], 1], [["Lyon"], 0]):
        (row,) = run.parsed({"id": 1, "golden_answers": golds, "response": response("N")})
        assert run(step_reward, [row], "--judge", "given")[0]["reward"]["A"] == right


@pytest.mark.parametrize(
    "golds",
    [
        {"golden_answers": ["Paris"]},
        {"answers": ["Lyon", "Paris"]},
        {"reward_model": {"ground_truth": {"target": ["Paris"]}}},
        {"reward_model": {"ground_truth": {"target": "Paris"}}},
    ],
)
def test_names_of_accepted_answers(run, golds):
    (row,) = run.parsed({"id": 1, "response": response("N"), **golds})
    assert run(step_reward, [row], "--judge", "given")[0]["reward"]["A"] == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"golden_answers": []}, "no accepted answers"),
        ({"golden_answers": None}, "no accepted answers"),
        ({"golden_answers": None, "reward_model": {"ground_truth": {}}}, "no accepted answers"),
        ({"answer": ["Paris"]}, "`answer` is a list"),
        ({"steps": None, "response": None}, "neither a `response`"),
        ({"steps": [{"kind": "search", "verdict": "under"}]}, "cannot be 'under'"),
        ({"steps": [{"kind": "search", "verdict": "fine"}]}, "Invalid enum value"),
        ({"response": "x", "format_valid": None, "dialect": "esperanto"}, "unknown dialect"),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error_and_no_zero(run, fields, why):
    good = run.judged("So No")
    bad = {**good, "id": "bad", **fields}
    rows = run(step_reward, [good, bad, good], "--judge", "given", "--on-error", "keep")
    assert [row["id"] for row in rows] == ["q", "bad", "q"]
    assert "reward" not in rows[1]
    assert why in rows[1]["error"]["why"]
    if "steps" not in fields or fields["steps"] is None:
        rows = run(step_reward, [good, bad], "--on-error", "keep")
        assert "reward" not in rows[1]
        assert why in rows[1]["error"]["why"]


def test_a_row_that_was_not_parsed_is_parsed(run):
    raw = trajectory("SN")
    (parsed,) = run.parsed(raw)
    (expected,) = run(step_reward, [parsed], "--judge", "given")
    (scored,) = run(step_reward, [raw], "--judge", "given")
    assert scored == expected
    (cut,) = run(step_reward, [trajectory("SN", finish="token_limit")], "--judge", "given")
    assert cut["reward"]["F"] == 0
    (alias,) = run(step_reward, [{"id": 1, "answer": "Paris", "response": response("N")}], "--judge", "given")
    assert alias["golden_answers"] == ["Paris"]
    assert alias["reward"]["A"] == 1


def test_unknown_fields_and_order_are_kept(run):
    row = {"x": 2**70, **run.judged("So"), "last": 1.50}
    (scored,) = run(step_reward, [row], "--judge", "given")
    assert list(scored) == [*row, "reward"]
    assert scored["x"] == 2**70


# --- judging


def closed_book(kinds, *answers):
    searches = [i for i, kind in enumerate(kinds) if kind == "S"]
    return [
        {"query": f" capital {i} ", "hits": [], "closed_book": None if said is None else {"text": said, "model": "m"}}
        for i, said in zip(searches, answers, strict=True)
    ]


def hits(folder, **texts):
    path = folder / "hits.jsonl"
    lines = [{"query": query, "hits": [{"id": "1", "contents": f"T\n{text}"}]} for query, text in texts.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"replay:{path}"


def test_default_judges(run):
    (row,) = run.parsed(trajectory("SSN", turns=closed_book("SSN", "city0, I think", "city9")))
    shelf = hits(run.folder, **{"Thus town2 is big.": "town2 is a big town", "so it follows": "nothing"})
    (scored,) = run(step_reward, [row], "--retriever", shelf)
    steps = scored["steps"]
    assert [step["verdict"] for step in steps] == ["over", "ok", "ok"]
    assert [step["verdict_why"].split(":")[0] for step in steps] == ["lexical", "lexical", "evidence"]
    assert scored["reward"]["judge"] == "lexical,evidence"
    assert scored["reward"]["total"] == pytest.approx(1 + 0.4 * 2 / 3)
    assert [list(step)[:8] for step in steps] == [list(step) for step in row["steps"]]


def test_closed_book_answer_is_found_by_its_query_where_turns_and_steps_differ(run):
    turns = [{"query": "other", "hits": []}, *closed_book("SSN", "city0", None)]
    (row,) = run.parsed(trajectory("SSN", turns=turns))
    (scored,) = run(step_reward, [row])
    assert [step["verdict"] for step in scored["steps"]] == ["over", "unknown", "unknown"]
    assert "rag-rollout --closed-book" in scored["steps"][1]["verdict_why"]
    assert "--retriever" in run.err


def test_only_trajectories_that_are_paid_for_steps_are_judged(run):
    rows = run.parsed(
        trajectory("S", right=False, turns=closed_book("S", "city0")),
        trajectory("S", turns=closed_book("S", "city0")),
    )
    rows[0]["steps"][0]["verdict"] = "ok"  # of an earlier run
    first, second = run(step_reward, rows)
    assert "verdict" not in first["steps"][0]
    assert first["reward"]["judge"] == "none"
    assert first["reward"]["n_unknown"] == 1
    assert second["steps"][0]["verdict"] == "over"
    first, second = run(step_reward, rows, "--judge-all", "--reward", "search-r1")
    assert first["steps"][0]["verdict"] == second["steps"][0]["verdict"] == "over"
    (plain,) = run(step_reward, rows[1:], "--reward", "search-r1")
    assert plain["steps"] == rows[1]["steps"]
    assert plain["reward"]["judge"] == "none"


def test_max_unknown(run):
    rows = run.parsed(trajectory("SN", turns=closed_book("SN", "city0")), trajectory("SN", right=False))
    scored = run(step_reward, rows, "--max-unknown", 0.5)
    assert (run.code, len(scored)) == (0, 2)
    scored = run(step_reward, rows, "--max-unknown", 0.4)
    assert (run.code, len(scored)) == (1, 2)
    assert run.err.splitlines()[-1].startswith("step-reward: --max-unknown: 1 of 2 judged steps have no verdict")
    run(step_reward, rows, "--judge", "given", "--max-unknown", 0)
    assert run.code == 1
    run(step_reward, [], "--max-unknown", 0)
    assert run.code == 0


def test_saved_verdicts_can_be_corrected_and_replayed(run):
    rows = run.parsed(trajectory("SN", turns=closed_book("SN", "city0")))
    (first,) = run(step_reward, rows, "--save-verdicts", "v.jsonl")
    assert first["steps"][1]["verdict"] == "unknown"
    entries = [json.loads(line) for line in (run.folder / "v.jsonl").read_text().splitlines()]
    assert [entry["verdict"] for entry in entries] == ["over", "unknown"]
    assert (entries[0]["conclusion"], entries[0]["other"]) == ("It is city0.", "city0")
    entries[1] |= {"verdict": "under", "why": "a person"}
    (run.folder / "w.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (again,) = run(step_reward, rows, "--judge", "replay", "--replay", "w.jsonl")
    assert [step["verdict"] for step in again["steps"]] == ["over", "under"]
    assert again["steps"][1]["verdict_why"] == "replay: a person"
    assert again["reward"]["total"] == 1.0


SCRIPT = [
    {"match": "equivalent[^$]*Statement 1: It is city0", "reply": "Same. <answer>True</answer>"},
    {"match": "Statement 1: It is city1", "error": "503"},
    {"match": "Thus town", "reply": "<answer>False</answer>"},
    {"match": "capital 0\n", "reply": "city0"},
    {"match": "capital 1\n", "error": "busy"},
]


def script(folder):
    (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SCRIPT))
    return ["--backend", "scripted", "--model", "script.jsonl"]


def test_a_model_as_judge_fails_closed_and_is_asked_once(run):
    rows = run.parsed(trajectory("SSN", turns=closed_book("SSN", "city0", "city1")))
    args = ["--judge", "openai", *script(run.folder), "--judge-cache", "cache.db"]
    (scored,) = run(step_reward, rows, *args)
    assert run.code == 0, run.err
    assert [step["verdict"] for step in scored["steps"]] == ["over", "unknown", "under"]
    assert "503" in scored["steps"][1]["verdict_why"]
    assert scored["reward"]["total"] == 1.0
    (run.folder / "script.jsonl").write_text('{"match": "no such text", "reply": ""}\n')
    (again,) = run(step_reward, rows, *args)
    assert [step["verdict"] for step in again["steps"]] == ["over", "unknown", "under"]


def test_reanswer(run):
    rows = run.parsed(trajectory("SSN", turns=closed_book("SSN", "nothing", "nothing")))
    args = [*script(run.folder), "--judge", "lexical,given", "--reanswer", "--policy", "script.jsonl"]
    (scored,) = run(step_reward, rows, *args)
    assert [step["verdict"] for step in scored["steps"]] == ["over", "unknown", "unknown"]
    assert "busy" in scored["steps"][1]["verdict_why"]
    run(step_reward, rows, "--judge", "lexical,given", "--reanswer")
    assert run.code == 2


def test_windows_keep_the_order_and_the_errors_in_it(run):
    rows = run.parsed(*(trajectory("S", turns=closed_book("S", "city0"), sample=i) for i in range(100)))
    rows[40] |= {"golden_answers": []}
    rows[41] = {"id": "x", "steps": "no list"}
    scored = run(step_reward, rows, "--on-error", "keep")
    assert [row.get("sample") for row in scored] == [*range(41), None, *range(42, 100)]
    assert [i for i, row in enumerate(scored) if "error" in row] == [40, 41]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--judge", "lexical"], "lexical cannot judge under-search; evidence, lm"),
        (["--judge", "nobody"], "'nobody' is not one of"),
        (["--judge", "nobody", "--reward", "search-r1"], "'nobody' is not one of"),
        (["--judge", "replay"], "replay needs --replay"),
        (["--judge", "openai"], "--base-url"),
        (["--reward", "beta-grpo"], "--min-prob"),
        (["--reward", "beta-grpo", "--min-prob", 0.1], "--tokenizer"),
        (["--retriever", "what"], "not a retriever"),
        (["--max-unknown", 2], "max-unknown"),
    ],
)
def test_usage_errors(run, args, why):
    assert run(step_reward, [], *args) == []
    assert run.code == 2
    assert why in run.err


def test_beta_grpo(run, monkeypatch):
    pieces = [b"<search>", b"capital 0", b"</search>"]
    monkeypatch.setattr("toolroll.rag.scoring_setup.load_pieces", lambda *_, **__: pieces)
    fields = {"response_ids": [0, 1, 2], "loss_mask": [1, 1, 1], "logprobs": [-3.0, -0.5, -3.0]}
    (row,) = run.parsed(trajectory("S", **fields))
    args = ["--reward", "beta-grpo", "--tokenizer", "t", "--min-prob"]
    assert run.total(row, *args, 0.6) == 1.0
    assert run.total(row, *args, 0.61) == 0.0
    run(step_reward, [{**row, "logprobs": None}], *args, 0.6)
    assert run.code == 1
    assert "logprobs" in run.err


# --- step-stats


def test_stats_vectors(run):
    rows = [
        {**run.judged("So Sx No"), "id": 1, "data_source": "nq", "n_search": 2},
        {**run.judged("Sx", right=False), "id": 1, "sample": 1, "data_source": "nq", "n_search": 1},
        {**run.judged("Nx N?"), "id": 2, "data_source": "hotpot", "n_search": 0},
        {**run.judged("Sx", valid=False), "id": 3},
    ]
    scored = run(step_reward, rows, "--judge", "given")
    nq, hotpot, everything = run(step_stats, scored)
    assert (nq["data_source"], hotpot["data_source"], everything["data_source"]) == ("nq", "hotpot", "all")
    assert (nq["cem"], nq["n_questions"], nq["osr"], nq["usr"], nq["n_search_steps"]) == (
        0.5,
        1,
        pytest.approx(2 / 3),
        0,
        3,
    )
    assert (hotpot["osr"], hotpot["usr"], hotpot["n_unknown"]) == (None, 1, 1)
    assert nq["searches_per_question"] == 1.5
    assert nq["mean_reward"] == pytest.approx((1 + 0.4 * 2 / 3 + 0.2) / 2)
    assert everything["valid_frac"] == 0.75
    assert (everything["n_rows"], everything["n_rewarded"]) == (4, 4)
    assert everything["cem"] == pytest.approx((0.5 + 1 + 1) / 3)
    (alone,) = run(step_stats, [row | {"data_source": None} for row in rows[:1]])
    assert (alone["mean_reward"], alone["n_rewarded"]) == (None, 0)


def test_stats_table_and_what_it_refuses(run, capfd):
    row = run.judged("So No")
    (run.folder / "in.jsonl").write_text(json.dumps(row))
    assert step_stats.run(["--table", str(run.folder / "in.jsonl")]) == 0
    head, line = capfd.readouterr().out.splitlines()
    assert head.split()[:4] == ["data_source", "questions", "cem", "osr"]
    assert line.split()[:4] == ["all", "1", "1.000", "(n=1)"]
    assert run(step_stats, [{"id": 1}]) == []
    assert run.code == 1
    assert run(step_stats, [{"id": 1, "steps": []}]) == []
    assert "no format_valid" in run.err
    (empty,) = run(step_stats, [])
    assert (empty["n_rows"], empty["cem"], empty["mean_reward"]) == (0, None, None)


def test_stats_other_match(run):
    row = run.judged("So", right=True)
    assert run(step_stats, [row], "--match", "em")[0]["cem"] == 0
    scored = run(step_reward, [row], "--judge", "given", "--match", "em")
    assert run(step_stats, scored, "--match", "reward")[0]["cem"] == 0
    assert run(step_stats, [row], "--match", "reward")[0]["cem"] is None


def test_verdicts_of_a_row_that_step_parse_has_not_seen_are_used(run):
    steps = [{"kind": "search", "verdict": "ok"}, {"kind": "search", "verdict": "over"}]
    response = (
        "<think><step><reasoning>r</reasoning><search>q</search><context>c</context><conclusion>o</conclusion></step>"
        "</think><answer>Paris</answer>"
    )
    row = {"id": "a", "golden_answers": ["Paris"], "response": response, "steps": steps}
    (scored,) = run(step_reward, [row], "--judge", "given")
    assert scored["reward"]["total"] == pytest.approx(1 + 0.4 / 2)
    assert scored["steps"] == steps
