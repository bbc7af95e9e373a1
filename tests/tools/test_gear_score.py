"""gear-score, gear-stats, gear-space and gear-observe through their command lines."""

import json
import os
import time
from pathlib import Path

import frame
import pytest

from toolroll.abduction.execution import Outcome
from toolroll.errors import ToolrollError
from toolroll.tools.gear_observe import main as gear_observe
from toolroll.tools.gear_score import main as gear_score
from toolroll.tools.gear_space import main as gear_space
from toolroll.tools.gear_stats import main as gear_stats

INC = "def f(x):\n    return x + 1"
AGAIN = "def f(x):\n    return 1 + x"
DOUBLE = "def f(x):\n    return 2 * x if x > 0 else x + 1"
PARTIAL = "def f(x):\n    if x == 4:\n        raise ValueError(x)\n    return x + 1"
DEC = "def f(x):\n    return x - 1"
LOOP = "def f(x):\n    while x > {}:\n        pass\n    return x + 1"
OBSERVED = [[0, 1], [-1, 0]]


class Run:
    """Runs a command in a folder; remembers the last exit code and what was said on stderr."""

    def __init__(self, folder, capfd):
        self.folder, self.capfd = folder, capfd
        self.code, self.err = 0, ""
        self.write("space.jsonl", 1, 2, 3, 4)

    def write(self, name, *rows):
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(self.folder / name)

    def __call__(self, command, *args):
        self.capfd.readouterr()
        self.code = command.run([*map(str, args)])
        out, self.err = self.capfd.readouterr()
        return out

    def rows(self, command, *args):
        return [json.loads(line) for line in self(command, *args).splitlines()]

    def score(self, rows, *args, space="space.jsonl"):
        """Score rows, each of which is its own problem."""
        source = self.write("in.jsonl", *rows)
        return self.rows(gear_score, "--space", self.folder / space, *args, source)

    def one(self, *hypotheses, args=(), observed=OBSERVED, **more):
        """Score one set of hypotheses, given as code or as replies."""
        said = [{"code": text} if text.startswith(("def", "import", "from", "x")) else text for text in hypotheses]
        (row,) = self.score([{"id": "p", "observations": observed, "hypotheses": said, **more}], *args)
        return row


@pytest.fixture
def run(tmp_path, capfd):
    return Run(tmp_path, capfd)


# --- what becomes of a hypothesis


def test_a_scored_row(run):
    row = run.one(INC, DOUBLE, PARTIAL, DEC, "What do I know?")
    assert row["status"] == ["consistent", "consistent", "consistent", "inconsistent", "parse_error"]
    assert (row["space"], row["n"], row["parse_errors"], row["valid"], row["distinct"]) == (4, 5, 1, 3, 3)
    assert (row["instruction_following"], row["consistency"]) == (0.8, 0.75)
    assert row["generalizability"] == pytest.approx(11 / 12)
    assert (row["gamma_q0"], row["gamma_norm"], row["gamma_out_q0"]) == (7, 1.75, 6)
    assert (row["gamma_q1"], row["gamma_q2"]) == pytest.approx((6.335826, 5.761905), abs=1e-6)
    assert (row["gamma_out_q1"], row["gamma_out_q2"]) == pytest.approx((5.326133, 4.84), abs=1e-6)
    assert (row["alpha_q0"], row["alpha_q2"]) == pytest.approx((11 / 3, 11 / 3))
    assert (row["beta_struct"], row["beta_dist"]) == pytest.approx((0.646825, 0.357143), abs=1e-6)
    assert row["new_predictions"] == [4, 3, 0, 4, 0]
    details = row["details"]
    assert [detail["undefined"] for detail in details] == [0, 0, 1, 0, None]
    assert [detail["bad"] for detail in details] == [[], [], ["few_new"], ["inconsistent"], ["parse_error"]]
    assert row["stop_after"] == 5
    assert (details[3]["failed"], details[3]["why"]) == ([0, 1], "observation 0: gave -1, not 1")
    assert details[4]["why"] == "no function in the reply"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def f(x:", "syntax error: "),
        ("x = 3", "no function"),
        ("def f(x):\n    return x\ndef g(x):\n    return x", "many functions"),
        ("from copy import deepcopy\ndef f(x):\n    return x", "many functions"),
        ("def f(x):\n    return x\nf(1)[0]", "failed: TypeError"),
    ],
)
def test_programs_that_are_no_hypotheses(run, code, why):
    row = run.one(code, INC)
    assert row["status"] == ["parse_error", "consistent"]
    assert row["details"][0]["why"].startswith(why)


@pytest.mark.parametrize(
    ("result", "wanted", "status"),
    [
        ("(x, 1)", [0, 1], "consistent"),
        ("[x, 1.0]", [0, 1], "consistent"),
        ("x == 0", True, "consistent"),
        ("x == 0", 1, "inconsistent"),
        ("None", None, "consistent"),
        ("{1: x}", {"1": 0}, "consistent"),
        ("{x}", [0], "inconsistent"),
        ("print('noise') or 'é'", "é", "consistent"),
        ("1 / x", 0, "inconsistent"),
    ],
)
def test_agreement_is_that_of_json_values(run, result, wanted, status):
    row = run.one(f"def f(x):\n    return {result}", observed=[[0, wanted]])
    assert row["status"] == [status]


def test_outputs_are_different_predictions_if_their_texts_are(run):
    codes = [
        f"def f(x):\n    return {text} if x > 0 else x + 1" for text in ("1", "1.0", "True", "[1]", "(1,)", "None")
    ]
    row = run.one(*codes)
    assert row["valid"] == 6
    assert row["gamma_q0"] == 4 * 5
    assert row["details"][4]["same_as"] == 3
    assert row["details"][5]["undefined"] == 0


def test_a_call_that_takes_too_long_leaves_it_undefined(run):
    row = run.one(LOOP.format(3), args=("--timeout", "0.2"))
    assert row["status"] == ["consistent"]
    assert (row["details"][0]["timeouts"], row["details"][0]["undefined"]) == (1, 1)
    assert row["generalizability"] == 0.75


def test_too_many_such_calls_end_it(run):
    row = run.one(LOOP.format(1), INC, args=("--timeout", "0.1", "--max-timeouts", "2"))
    assert row["status"] == ["timeout", "consistent"]
    assert (row["parse_errors"], row["instruction_following"], row["consistency"]) == (1, 0.5, 1)
    assert row["new_predictions"] == [0, 4]
    assert row["details"][0]["timeouts"] == 2
    assert row["details"][0]["undefined"] is None


def test_no_hypotheses_have_no_scores(run):
    empty, null = run.score([{"id": i, "observations": OBSERVED, "hypotheses": h} for i, h in enumerate(([], None))])
    for row in (empty, null):
        assert (row["n"], row["parse_errors"], row["valid"], row["space"]) == (0, 0, 0, 4)
        assert row["status"] == row["new_predictions"] == row["details"] == []
        for name in ("instruction_following", "consistency", "generalizability", "gamma_norm", "alpha_q0", "beta_dist"):
            assert row[name] is None


def test_if_nothing_runs_consistency_is_nought(run):
    row = run.one("no", "nothing")
    assert (row["consistency"], row["instruction_following"], row["generalizability"]) == (0, 0, None)
    (row,) = run.score([{"id": 1, "observations": OBSERVED, "hypotheses": [{"text": "t"}]}])
    assert row["details"][0]["why"] == "no code"


def test_replies_are_read(run):
    row = run.one(f'("adds one", """{INC}""")', f"Adds one:\n```python\n{INC}\n```")
    assert row["status"] == ["consistent"] * 2


# --- problems and spaces


def test_problems_spaces_and_data_sets(run):
    problems = run.write(
        "p.jsonl",
        {"id": 1, "dataset": "a", "train": [[0, 1]]},
        {"id": "x", "dataset": "b", "n_obs": 1, "observations": [[0, 1]]},
        {"id": "x", "dataset": "b", "n_obs": 2, "observations": [[0, 1], [5, 5]]},
    )
    small = run.write("small.jsonl", 7, 8)
    said = [{"code": INC}]
    rows = [
        {"id": "1", "hypotheses": said},
        {"id": "x", "n_obs": 2, "hypotheses": said},
        {"id": "x", "n_obs": 1, "dataset": "a", "hypotheses": said},
        {"id": "x", "hypotheses": said},
        {"id": "y", "hypotheses": said},
        {"id": 1, "dataset": "c", "hypotheses": said},
    ]
    spaces = ("--space", f"a={run.folder}/space.jsonl", "--space", f"b={small}")
    source = run.write("in.jsonl", *rows)
    found = run.rows(gear_score, "--problems", problems, *spaces, "--on-error", "keep", source)
    assert [row.get("space") for row in found] == [4, 2, 4, None, None, None]
    assert [row["status"][0] for row in found[:3]] == ["consistent", "inconsistent", "consistent"]
    assert [row["error"]["why"] for row in found[3:]] == [
        "problem 'x' is there with n_obs 1, 2, the row has no `n_obs`",
        "no problem has the id 'y'",
        "there is no space for a row with dataset 'c', only for a, b",
    ]
    assert list(found[0])[:2] == ["id", "hypotheses"]


def test_an_input_that_comes_again_counts_once(run):
    run.write("twice.jsonl", 1, 2, 3, 4, 2)
    (row,) = run.score([{"id": 1, "observations": OBSERVED, "hypotheses": [{"code": INC}]}], space="twice.jsonl")
    assert (row["space"], row["gamma_norm"]) == (4, 1)
    assert "warning: 1 of 5 inputs came before and count once" in run.err


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (["--table"], 2, "--table: goes with --summary"),
        (["--summary", "--resume", "-o", "{}/out"], 2, "use gear-stats"),
        (["--problems", "{}/missing"], 1, "missing: No such file"),
        (["--problems", "{}/space.jsonl"], 1, "space.jsonl:1: Expected `object`"),
        (["--space", "{}/space.jsonl"], 2, "a second space for all data sets"),
        (["--space", "a={}/missing"], 1, "missing: No such file"),
        (["--workers", "0"], 2, "--workers"),
        (["--sandbox", "chroot"], 2, "--sandbox"),
    ],
)
def test_errors_are_one_line(run, args, code, why):
    assert run.score([], *(arg.format(run.folder) for arg in args)) == []
    assert run.code == code
    (line,) = run.err.splitlines()
    assert why in line


# --- other rules


def test_the_released_rules_of_agreement(run):
    authors = ("--compat", "authors")
    for result, wanted, agrees in (("x == 0", 1, True), ("(x,)", [0], False), ("[x]", [0], True), ("x - 0.0", 0, True)):
        row = run.one(f"def f(x):\n    return {result}", observed=[[0, wanted]], args=authors)
        assert row["status"] == ["consistent" if agrees else "inconsistent"], result


def test_the_released_rules_of_being_defined(run):
    authors = ("--compat", "authors", "--timeout", "0.1", "--max-timeouts", "2")
    blank = '    return "N/A: cur input is not defined on this function" if x > 3 else x + 1'
    row = run.one(f"def f(x):\n{blank}", LOOP.format(1), args=authors)
    assert row["status"] == ["consistent", "consistent"]
    assert [detail["undefined"] for detail in row["details"]] == [1, 3]
    assert (
        run.one("while True:\n    pass\n", "x = 1\nwhile True:\n    pass", args=authors)["status"]
        == ["parse_error"] * 2
    )


def test_the_released_reader_of_replies(run):
    reply = '("on", "def f(x):\n    return "on"")'
    assert run.one(reply, observed=[[0, "on"]])["status"] == ["consistent"]
    row = run.one(reply, observed=[[0, "on"]], args=("--compat", "authors"))
    assert row["details"][0]["why"] == "tuple parse error"


def test_what_comes_after_the_end_of_the_asking(run):
    said = [INC, DEC, DEC, AGAIN, DOUBLE]
    whole = run.one(*said)
    assert (whole["n"], whole["stop_after"], whole["valid"]) == (5, 4, 3)
    for args in (("--truncate",), ("--compat", "authors")):
        cut = run.one(*said, args=args)
        assert (cut["n"], cut["stop_after"], cut["valid"], cut["consistency"]) == (4, 4, 2, 0.5)
        assert len(cut["status"]) == len(cut["details"]) == len(cut["new_predictions"]) == 4
    assert run.one(*said, args=("--max-bad", 4))["stop_after"] is None
    assert run.one(*said, args=("--min-new", 0))["stop_after"] is None
    assert run.one(*said, args=("--min-new", 0, "--max-bad", 2))["stop_after"] == 3


def test_hypotheses_that_do_the_same_can_count_once(run):
    plain = run.one(INC, AGAIN, DOUBLE)
    once = run.one(INC, AGAIN, DOUBLE, args=("--dedup", "behaviour"))
    assert plain["beta_struct"] == pytest.approx(4 / 7)
    assert once["beta_struct"] == pytest.approx(6 / 7)
    for row in (plain, once):
        assert (row["valid"], row["distinct"], row["consistency"], row["gamma_q0"]) == (3, 2, 1, 7)
        assert row["details"][1]["same_as"] == 0
        assert "same_as" not in row["details"][2]


def test_look_ups(run):
    table = "def f(x):\n    return {0: 1, -1: 0}.get(x, 9)"
    told = run.one(table, INC, args=("--detect-lookup",))
    assert told["status"] == ["consistent"] * 2
    assert [found["by"] for found in told["details"][0]["lookups"]] == ["key", "key"]
    assert told["details"][1]["lookups"] == []
    out = run.one(table, INC, args=("--exclude-lookup",))
    assert (out["status"], out["valid"], out["consistency"]) == (["lookup", "consistent"], 1, 0.5)
    assert out["details"][0]["why"] == "line 2 looks up observation 0 by key"
    assert out["details"][0]["bad"] == ["lookup"]


def test_where_hypotheses_differ(run):
    row = run.one(INC, DEC, DOUBLE, PARTIAL, args=("--explain",))
    first, second, third = row["differences"]
    assert (first["pair"], first["n_differ"]) == ([0, 2], 3)
    assert first["examples"][0] == {"input": 2, "outputs": ["3", "4"]}
    assert second == {"pair": [0, 3], "n_differ": 1, "examples": [{"input": 4, "outputs": ["5", None]}]}
    assert third["pair"] == [2, 3]


def test_long_outputs_are_told_apart_and_shown_in_part(run):
    codes = [f"def f(x):\n    return 'a' * 999 + '{end}' if x > 0 else x + 1" for end in "xyx"]
    row = run.one(*codes, args=("--explain",))
    assert [found["n_differ"] for found in row["differences"]] == [4, 0, 4]
    assert len(row["differences"][0]["examples"][0]["outputs"][0]) == 200


def test_sensitivity(run):
    said = [INC, DEC, DEC, AGAIN, DOUBLE]
    row = run.one(*said, args=("--sensitivity",))
    found = row["sensitivity"]
    by_bad = {entry["value"]: entry["n"] for entry in found if entry["vary"] == "max_bad"}
    assert by_bad == {1: 3, 2: 3, 3: 4, 4: 5, 5: 5}
    by_new = {entry["value"]: entry["n"] for entry in found if entry["vary"] == "min_new"}
    assert by_new[0.0] == 5
    parts = [entry for entry in found if entry["vary"] == "space_frac"]
    assert [entry["value"] for entry in parts] == [0.1] * 5 + [0.25] * 5 + [0.5] * 5
    assert all(0.9 < entry["gamma_norm"] <= 2 for entry in parts)
    assert run.one(*said, args=("--sensitivity",))["sensitivity"] == found
    assert run.one(*said, args=("--sensitivity", "--seed", 9))["sensitivity"] != found


def test_transfer_to_test_pairs(run):
    test = [[10, 11], [20, 21]]
    row = run.one("no", DOUBLE, INC, args=("--transfer", 4), test=test)
    assert row["transfer"] == [False, False, True, True]
    assert run.one(INC, args=("--transfer", 1))["transfer"] is None
    assert "transfer" not in run.one(INC, test=test)
    other = "def f(x):\n    return x + (1 if x < 20 else True)"
    assert run.one(other, args=("--transfer", 1), test=test)["transfer"] == [True]


# --- sandboxes


def test_every_sandbox_finds_the_same(run):
    source = run.write("in.jsonl", *many(4))
    space = ("--space", run.folder / "space.jsonl", "--workers", 2)
    outputs = {run(gear_score, *space, "--sandbox", kind, source) for kind in ("auto", "seccomp", "none")}
    assert len(outputs) == 1
    assert run.err.count("sandbox: none; programs can do what you can") == 1  # of the last, for both workers


def test_a_sandbox_that_cannot_be_had_is_told_in_a_line(run, monkeypatch):
    def none(kind, limits, *, notify):
        raise ToolrollError(f"no {kind} here")

    monkeypatch.setattr("toolroll.abduction.sandbox.open_sandbox", none)
    assert run.score(many(3), "--sandbox", "bwrap", "--workers", 2) == []
    assert (run.code, run.err) == (1, "gear-score: no bwrap here\n")


class Json:
    """An executor that runs nothing, and knows JSON values only."""

    def run(self, code, inputs):
        return Outcome("ok", outputs=[b"true"] * len(inputs))

    def close(self):
        pass


def test_a_sandbox_that_cannot_compare_python_values_is_refused(run, monkeypatch):
    monkeypatch.setattr("toolroll.abduction.sandbox.open_sandbox", lambda *_, **__: Json())
    assert run.score(many(1), "--compat", "authors") == []
    assert run.code == 2
    assert "cannot compare Python values" in run.err


def test_a_program_that_kills_its_process(run, monkeypatch):
    killed = Outcome("killed", "its process ended", outputs=[None] * 6, faults=dict.fromkeys(range(6), "killed"))
    monkeypatch.setattr(Json, "run", lambda self, code, inputs: killed)
    monkeypatch.setattr("toolroll.abduction.sandbox.open_sandbox", lambda *_, **__: Json())
    row = run.one(INC)
    assert (row["status"], row["parse_errors"], row["details"][0]["why"]) == (["killed"], 1, "its process ended")


# --- means


def test_summary(run):
    rows = [
        {"id": 1, "dataset": "a", "observations": OBSERVED, "hypotheses": [{"code": INC}, "no"], "test": [[9, 10]]},
        {"id": 2, "dataset": "a", "observations": OBSERVED, "hypotheses": [{"code": INC}, {"code": DOUBLE}]},
        {"id": 3, "dataset": "b", "observations": OBSERVED, "hypotheses": [{"code": DEC}]},
        {"id": 4, "dataset": "b", "observations": OBSERVED, "hypotheses": []},
    ]
    a, b, everything = run.score(rows, "--summary", "--transfer", 1)
    assert [row["dataset"] for row in (a, b, everything)] == ["a", "b", "all"]
    assert (a["instruction_following"], a["consistency"], a["n_consistency"]) == (0.75, 1, 2)
    assert (a["gamma_norm"], a["n_gamma_norm"], a["n_beta_struct"]) == (1.375, 2, 1)
    assert (a["transfer_top_1"], a["n_transfer_top_1"]) == (1, 1)
    assert (b["n_problems"], b["n_consistency"], b["consistency"], b["gamma_norm"]) == (2, 1, 0, None)
    assert (everything["n_problems"], everything["n_instruction_following"]) == (4, 3)
    zero = run.score(rows, "--summary", "--missing", "zero")[2]
    assert (zero["n_beta_struct"], zero["gamma_norm"]) == (4, 2.75 / 4)
    drop = run.score(rows, "--summary", "--compat", "authors")[0]
    assert (drop["gamma_norm"], drop["n_gamma_norm"], drop["n_generalizability"]) == (1.75, 1, 2)
    scored = run.write("scored.jsonl", *run.score(rows, "--transfer", 1))
    assert run.rows(gear_stats, scored) == [a, b, everything]
    assert run.rows(gear_stats, "--missing", "zero", scored)[2]["beta_struct"] == zero["beta_struct"]
    assert run.rows(gear_stats, "--compat", "authors", scored)[0]["gamma_norm"] == 1.75
    for command, args in (
        (gear_stats, ()),
        (gear_score, ("--summary", "--transfer", 1, "--space", run.folder / "space.jsonl")),
    ):
        source = scored if command is gear_stats else run.folder / "in.jsonl"
        head, line = run(command, *args, "--table", source).splitlines()[:2]
        assert head.split()[:4] == ["dataset", "problems", "IF", "C"]
        assert line.split()[:4] == ["a", "2", "0.7500", "(n=2)"]


def test_a_summary_leaves_rows_that_fail_out_and_shows_them(run):
    good = {"id": 1, "observations": OBSERVED, "hypotheses": [{"code": INC}]}
    failed, everything = run.score([{**good, "observations": []}, good], "--summary", "--on-error", "keep")
    assert failed["error"]["why"].startswith("`observations` is empty")
    assert everything["n_problems"] == 1
    assert run.score([{**good, "observations": []}, good], "--summary") == []
    assert run.code == 1


# --- many rows


def many(count):
    codes = [INC, DOUBLE, PARTIAL, DEC, "def f(x):\n    return [x] * 3 if x > 0 else x + 1"]
    return [
        {"id": i, "observations": OBSERVED, "hypotheses": [{"code": code} for code in codes[i % 3 : i % 3 + 3]]}
        for i in range(count)
    ]


def test_neither_workers_nor_order_of_finishing_show(run):
    rows = [*many(12), {"id": "bad", "hypotheses": []}, *many(5)]
    slow = {"id": "slow", "observations": OBSERVED, "hypotheses": [{"code": LOOP.format(2)}]}
    rows.insert(2, slow)
    args = ("--explain", "--sensitivity", "--timeout", "0.2", "--on-error", "keep")
    source = run.write("in.jsonl", *rows)
    outputs = {run(gear_score, *args, "--space", run.folder / "space.jsonl", "--workers", n, source) for n in (1, 2, 5)}
    assert len(outputs) == 1
    found = [json.loads(line) for line in outputs.pop().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    (tmp_path / "space.jsonl").write_text("1\n2\n3\n4\n")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many(40)))
    line = [str(frame.BIN / "gear-score"), "--space", "space.jsonl", "--workers", "2", "in.jsonl"]
    whole = frame.run(line, cwd=tmp_path)
    assert whole.rc == 0
    part = tmp_path / "out.part"
    for _ in range(2):
        before = part.stat().st_size if part.exists() else 0
        with frame.started([*line, "-o", "out", "--resume"], cwd=tmp_path, stdin=None) as process:
            frame.wait_until(lambda: part.exists() and part.stat().st_size > before + 3000, "rows are written")  # noqa: B023
            process.kill()
            process.wait()
        os.truncate(part, part.stat().st_size - 3)
    resumed = frame.run([*line, "-o", "out", "--resume"], cwd=tmp_path)
    assert resumed.rc == 0
    assert "skipped" in resumed.err
    assert (tmp_path / "out").read_bytes() == whole.out


def test_memory_is_flat_over_problems(tmp_path):
    (tmp_path / "space.jsonl").write_text("".join(f"{i}\n" for i in range(3000)))
    peaks = []
    for count in (6, 60):
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many(count)))
        line = [str(frame.BIN / "gear-score"), "--space", "space.jsonl", "in.jsonl"]
        peaks.append(frame.peak_rss_mb(line, cwd=tmp_path))
    assert peaks[1] < 80
    assert peaks[1] - peaks[0] < 4


def test_no_process_is_left_behind(tmp_path):
    (tmp_path / "space.jsonl").write_text("1\n")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many(200)))
    mark = f"mark-{time.monotonic_ns()}"
    line = [str(frame.BIN / "gear-score"), "--space", "space.jsonl", "--workers", "2", "in.jsonl", "-o", mark]
    with frame.started(line, cwd=tmp_path, stdin=None) as process:
        part = tmp_path / f"{mark}.part"
        frame.wait_until(lambda: part.exists() and part.stat().st_size, "a row is written")
        children = _descendants(process.pid)
        assert children
        process.terminate()
        assert process.wait(frame.PATIENCE_S) == 75
    frame.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the sandboxes are gone")


def _descendants(pid):
    own = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own += map(int, thread.read_text().split())
        except OSError:
            pass
    return own + [other for child in own for other in _descendants(child)]


# --- making spaces and problems


def test_spaces(run):
    assert run.rows(gear_space, "acre", "--per-length", 10)[:1] == [[]]
    assert len(run.rows(gear_space, "list-function", "--per-length", 3, "--seed", 1)) == 1 + 16 * 3
    spec = run.folder / "s.toml"
    spec.write_text('kind = "strings"\nalphabet = "ab"\nlengths = [0, 1]\n')
    assert run.rows(gear_space, "spec", spec) == ["", "a", "b"]
    tasks = run.write("t.jsonl", {"idx": 0, "train": [{"input": "[1]", "output": "[]"}], "test": [{"input": "[2]"}]})
    assert run.rows(gear_space, "inputs", tasks) == ["[1]", "[2]"]
    assert run.rows(gear_space, "mini-arc", "--literals", tasks, tasks) == [[1], [2]]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["list-function", "x"], "no files"),
        (["arc"], "name the files"),
        (["spec"], "name one file"),
        (["spec", "a", "b"], "name one file"),
        (["sets"], "invalid value"),
    ],
)
def test_spaces_that_cannot_be(run, args, why):
    assert run(gear_space, *args) == ""
    assert run.code == 2
    assert why in run.err


def test_observations(run):
    rows = [
        {"idx": i, "train": [{"input": f"[{k}]", "output": f"[{i}]"} for k in range(5)], "test": []} for i in range(9)
    ]
    tasks = run.write("t.jsonl", *rows)
    found = run.rows(gear_observe, "list-function", tasks, "-n", "1,3", "--tasks", 4)
    assert [row["n_obs"] for row in found] == [1] * 4 + [3] * 4
    assert all(row["id"].startswith("list_function/") and row["dataset"] == "list_function" for row in found)
    assert len(found[5]["observations"]) == 3
    assert found[5]["observations"][0][1] == [int(found[5]["id"].split("/")[1])]
    assert run.rows(gear_observe, "pairs", tasks, "-n", 2, "--with-test", "--name", "mine")[0]["test"] == []
    assert "only 9 tasks have 2 pairs, not 100" in run.err
    for args, why in (
        (("-n", "0"), "want numbers from 1"),
        (("-n", "1,x"), "want numbers"),
        (("--tasks", "0"), "--tasks"),
    ):
        assert run(gear_observe, "pairs", tasks, *args) == ""
        assert run.code == 2
        assert why in run.err
    assert run(gear_observe, "acre", tasks, "-n", "1") == ""
    assert "want numbers from 2" in run.err


def test_spaces_and_observations_feed_the_scores(run):
    tasks = run.write("t.jsonl", {"id": "t", "train": [[[1], [2]], [[2], [3]], [[3], [4]]], "test": [[[9], [10]]]})
    problems = run.folder / "p.jsonl"
    problems.write_text(run(gear_observe, "pairs", tasks, "-n", "2", "--tasks", "1", "--with-test"))
    space = run.folder / "made.jsonl"
    space.write_text(run(gear_space, "inputs", tasks))
    said = run.write("h.jsonl", {"id": "t", "n_obs": 2, "hypotheses": ["```\ndef f(x):\n    return [x[0] + 1]\n```"]})
    (row,) = run.rows(gear_score, "--problems", problems, "--space", space, "--transfer", 1, said)
    assert (row["status"], row["gamma_q0"], row["transfer"]) == (["consistent"], 4, [True])
