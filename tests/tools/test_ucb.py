"""ucb-sample, ucb-update and ucb-stats as processes: draws, feedback, crashes, several writers, the resident form."""

from __future__ import annotations

import json
import shutil
import signal
import time

import frame
import pytest

ARMS = ("--arm", "easy", "--arm", "hard", "--arm", "mid")


def sample(folder, *args, stdin=b"", state="s"):
    return frame.run(["ucb-sample", "--state", state, *args], cwd=folder, stdin=stdin)


def update(folder, *args, rows=(), state="s"):
    return frame.run(["ucb-update", "--state", state, *args], cwd=folder, stdin=jsonl(rows))


def stats(folder, *args, state="s"):
    result = frame.run(["ucb-stats", "--state", state, *args], cwd=folder)
    assert result.rc == 0, result.err
    return result.rows


def jsonl(rows):
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def feedback(count, *, start=0, steps=0):
    """Rows of feedback with names; `steps` rows a step."""
    for i in range(start, start + count):
        row = {"id": f"f{i}", "distribution": ("easy", "hard", "mid")[i % 3], "advantages": [i % 7 / 7, -(i % 5) / 5]}
        yield row | ({"step": i // steps + 1} if steps else {})


@pytest.fixture
def folder(tmp_path):
    """A folder with the state `s` of three arms, and a pool of them."""
    assert sample(tmp_path, "--init", *ARMS).rc == 0
    rows = [
        {"id": f"{arm}{i}", "distribution": arm, "draw": "its own", "x": [i]}
        for i in range(5)
        for arm in ("mid", "hard", "easy")
    ]
    (tmp_path / "pool.jsonl").write_bytes(jsonl(rows))
    return tmp_path


# --- drawing


@pytest.mark.parametrize(
    "form", [(), ("--stratified",), ("--pool", "pool.jsonl"), ("--pool", "pool.jsonl", "--no-replace")]
)
def test_two_halves_are_one_whole(folder, form):
    update(folder, rows=feedback(20))
    shutil.copytree(folder / "s", folder / "t")
    halves = [row for _ in range(2) for row in sample(folder, "-n", "64", *form).rows]
    whole = sample(folder, "-n", "128", *form, state="t").rows
    assert [row["draw"] for row in whole] == list(range(128))
    if form == ("--stratified",):  # each batch is rounded for itself
        assert sorted(row["distribution"] for row in halves[:64]) != sorted(row["distribution"] for row in whole[:64])
    else:
        assert halves == whole


def test_draws_have_these_fields_and_the_pool_keeps_its_own(folder):
    (bare,) = sample(folder).rows
    assert bare == {"draw": 0, "distribution": "mid", "p": pytest.approx(1 / 3), "state_seq": 0}
    update(folder, rows=feedback(3))
    (row,) = sample(folder, "--pool", "pool.jsonl").rows
    assert list(row) == ["id", "distribution", "draw", "x", "p", "state_seq"]
    assert (row["draw"], row["state_seq"], row["id"][:-1]) == (1, 1, row["distribution"])


def test_the_order_of_arms_and_of_hashes_changes_nothing(folder):
    lines = (folder / "pool.jsonl").read_bytes().splitlines(keepends=True)
    found = []
    for i, order in enumerate((lines, sorted(lines, key=lambda line: b"mid" in line))):
        (folder / "pool.jsonl").write_bytes(b"".join(order))
        argv = ["ucb-sample", "--state", f"o{i}", "--init", "--arms", "pool.jsonl", "--pool", "pool.jsonl", "-n", "40"]
        found.append(frame.run(argv, cwd=folder, env={"PYTHONHASHSEED": str(i + 1)}).rows)
    assert found[0] == found[1]


def test_without_replacement_each_task_comes_once_a_pass(folder):
    rows = [row for _ in range(6) for row in sample(folder, "--pool", "pool.jsonl", "--no-replace", "-n", "10").rows]
    for arm in ("easy", "hard", "mid"):
        ids = [row["id"] for row in rows if row["distribution"] == arm]
        assert len(ids) > 10
        assert sorted(ids[:5]) == sorted(ids[5:10]) == [f"{arm}{i}" for i in range(5)]


def test_frozen_arms_are_not_drawn(folder):
    drawn = {row["distribution"] for row in sample(folder, "-n", "60", "--freeze", "mid").rows}
    assert drawn == {"easy", "hard"}
    assert sample(folder, "--freeze", "nobody").err == "ucb-sample: --freeze: no arm is named 'nobody'\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[:0], "pool.jsonl: has no tasks"),
        (lambda rows: [*rows, {"id": 1}], "pool.jsonl:16: missing `distribution`, which names the arm (see --by)"),
        (lambda rows: [*rows, {"distribution": "new"}], "pool.jsonl: has tasks of 'new', which is no arm"),
        (lambda rows: [row for row in rows if row["distribution"] != "mid"], "pool.jsonl: has no task of arm 'mid'"),
    ],
)
def test_a_pool_that_does_not_fit_is_told_and_costs_no_draws(folder, change, why):
    rows = [json.loads(line) for line in (folder / "pool.jsonl").read_bytes().splitlines()]
    (folder / "pool.jsonl").write_bytes(jsonl(change(rows)))
    result = sample(folder, "--pool", "pool.jsonl", "-n", "5")
    assert (result.rc, result.out) == (1, b"")
    assert why in result.err
    assert sample(folder).rows[0]["draw"] == 0


def test_a_new_arm(folder):
    assert sample(folder, "--add-arm", "late").out == b""
    assert [row["distribution"] for row in stats(folder)] == ["easy", "hard", "late", "mid"]
    assert sample(folder, "--init", *ARMS).rc == 0


def test_init_is_done_once(folder):
    update(folder, rows=feedback(3))
    assert sample(folder, "--init", *ARMS).rc == 0
    assert stats(folder)[0]["n"] == 2
    other = sample(folder, "--init", *ARMS, "--k", "7", "--tau", ".2")
    assert other.rc == 2
    assert "s: there is a state with other settings: --k was 300, is 7, --tau was 0.1, is 0.2" in other.err
    assert sample(folder, "--tau", ".2").err == "ucb-sample: --tau: goes with --init\n"
    assert "needs arms" in sample(folder, "--init", state="t").err
    assert "no state here" in sample(folder, state="t").err


def test_settings_of_all_policies_arrive(folder):
    pool = [{"distribution": arm, "difficulty": d} for arm, d in (("a", 10.0), ("a", 20.0), ("b", 90.0))]
    (folder / "graded.jsonl").write_bytes(jsonl(pool))
    graded = ("--arms", "graded.jsonl", "--difficulty", "difficulty")
    assert sample(folder, "--init", "--policy", "adarft", *graded, state="r").rc == 0
    settings = json.loads((folder / "r/settings.json").read_bytes())
    assert settings["difficulties"] == {"a": 15.0, "b": 90.0}
    assert (settings["alpha"], settings["eta"], settings["target"]) == (2.0, 50.0, 0.0)
    batch = sample(folder, "--pool", "graded.jsonl", "-n", "2", state="r").rows
    assert [(row["distribution"], row["difficulty"], row["p"]) for row in batch] == [("a", 10, 1), ("a", 20, 1)]
    update(folder, rows=[{"distribution": "a", "rewards": [1.0, 0.8]}] * 3, state="r")
    assert sample(folder, "--pool", "graded.jsonl", state="r").rows[0]["difficulty"] == 20.0  # the target is 33.2
    assert "fewer than the 4" in sample(folder, "--pool", "graded.jsonl", "-n", "4", state="r").err
    assert sample(folder, "--init", "--policy", "adarft", *ARMS, state="t").rc == 2

    assert sample(folder, "--init", "--policy", "sec", *ARMS, state="q").rc == 0
    settings = json.loads((folder / "q/settings.json").read_bytes())
    assert (settings["alpha"], settings["tau"]) == (0.5, 1.0)

    weights = ("--weight", "easy=1", "--weight", "hard=3")
    assert sample(folder, "--init", "--policy", "fixed", *ARMS, *weights, state="f").rc == 0
    assert [row["p"] for row in stats(folder, state="f")] == [0.25, 0.75, 0.0]
    assert sample(folder, "--init", "--policy", "fixed", *ARMS, "--weight", "easy", state="g").rc == 2


# --- feedback


def test_feedback_counts_once_by_its_name(folder):
    rows = list(feedback(30))
    first = update(folder, rows=rows)
    assert first.rows == [{"n_counted": 30, "n_advantages": 60, "n_known": 0, "n_left_out": 0, "state_seq": 1}]
    before = (folder / "s/journal.jsonl").read_bytes()
    again = update(folder, rows=[*rows, *rows])
    assert again.rows == [{"n_counted": 0, "n_advantages": 0, "n_known": 60, "n_left_out": 0, "state_seq": 1}]
    assert (folder / "s/journal.jsonl").read_bytes() == before
    unnamed = [{"distribution": "easy", "advantage": 0.5}] * 2
    assert update(folder, rows=unnamed).rows[0]["n_counted"] == 2
    assert update(folder, rows=unnamed).rows[0]["n_counted"] == 2


@pytest.mark.parametrize("field", ["step", "sample", "draw"])
def test_a_name_is_the_id_and_what_tells_it_apart(folder, field):
    rows = [{"id": "x", field: i, "distribution": "easy", "advantage": 0.5} for i in (1, 2, 2)]
    assert update(folder, rows=rows).rows[0]["n_counted"] == 2


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"advantages": [1.0]}, "no `distribution`"),
        ({"distribution": "easy"}, "none of `advantages`, `advantage` and `rewards`"),
        ({"distribution": "nobody", "advantages": [1.0]}, "no arm is named 'nobody' (--new-arms add takes it in)"),
        ({"distribution": "easy", "advantages": [1.0, None]}, "Expected `float`, got `null`"),
        ({"distribution": "easy", "advantages": [1e200]}, "Expected `float` <= 1e+100"),
    ],
)
def test_a_bad_row_stops_the_run_and_the_rows_before_it_count(folder, bad, why):
    result = update(folder, rows=[*feedback(3), bad, *feedback(3, start=3)])
    assert (result.rc, result.out) == (1, b"")
    assert result.err.startswith("ucb-update: stdin:4: ")
    assert why in result.err
    assert [row["n"] for row in stats(folder)] == [2, 2, 2]
    skipped = update(folder, "--on-error", "skip", rows=[*feedback(3), bad, *feedback(3, start=3)])
    assert skipped.rc == 0
    assert (skipped.rows[0]["n_known"], skipped.rows[0]["n_counted"]) == (3, 3)


@pytest.mark.parametrize("form", ["all at once", "line by line"])
def test_large_files_are_read_as_small_ones(folder, form):
    """Rows are read many at a time where all are sound; blank lines, error rows and bad rows keep their places."""
    lines = jsonl(feedback(40_000, steps=1000)).splitlines(keepends=True)
    lines[5:5] = [b"\n", b" \n"]
    lines[20_000:20_000] = [b'{"distribution":"late","advantages":[1]}\n', b'{"error":{"why":"w","where":"f:1"}}\n']
    (folder / "f.jsonl").write_bytes(b"".join(lines))
    strict = ("--strict",) if form == "line by line" else ()
    result = frame.run(
        ["ucb-update", "--state", "s", "--on-error", "skip", *strict, "f.jsonl"],
        cwd=folder,
    )
    assert result.complaints == ["ucb-update: f.jsonl:20001: no arm is named 'late' (--new-arms add takes it in)"]
    assert "40002 in" in result.err
    found = result.rows[0]
    assert (found["n_counted"], found["n_advantages"], found["state_seq"]) == (40_000, 80_000, 40)
    assert [row["n"] for row in stats(folder)] == [26_668, 26_666, 26_666]
    expected = sum(
        abs(a) for row in feedback(450, start=39_550) if row["distribution"] == "mid" for a in row["advantages"]
    )
    assert stats(folder)[2]["mean_abs_advantage"] == pytest.approx(expected / 300)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_not_finite_is_refused(folder, word):
    """One NaN would make every probability NaN, or uniform without a word."""
    line = f'{{"distribution":"easy","advantages":[0.5,{word}]}}\n'.encode()
    result = frame.run(["ucb-update", "--state", "s"], cwd=folder, stdin=line)
    assert result.rc == 1
    assert "stdin:1: " in result.err
    assert [row["n"] for row in stats(folder)] == [0, 0, 0]


def test_unknown_arms(folder):
    rows = [*feedback(2), {"distribution": "late", "advantages": [0.5]}, {"distribution": "late", "advantages": [1.0]}]
    assert update(folder, "--new-arms", "skip", rows=rows).rows[0]["n_left_out"] == 2
    assert update(folder, "--new-arms", "add", rows=rows).rows[0]["n_counted"] == 2
    assert [(row["distribution"], row["n"]) for row in stats(folder)][2] == ("late", 2)


def test_advantages_from_rewards(folder):
    groups = {"p": ("easy", [3, 3, -0.5, -3]), "q": ("hard", [3, -0.5, -0.5, -0.5])}
    rows = [
        {"id": prompt, "sample": i, "prompt_id": prompt, "distribution": arm, "reward": {"total": r} if i else r}
        for prompt, (arm, rewards) in groups.items()
        for i, r in enumerate(rewards)
    ]
    assert update(folder, "--from-rewards", rows=rows).rows[0]["n_counted"] == 2
    means = [row["mean_abs_advantage"] for row in stats(folder)]
    assert means == pytest.approx([0.811639, 0.75, 0.0], abs=1e-6)
    assert update(folder, "--from-rewards", rows=rows).rows[0]["n_known"] == 2
    lists = [{"distribution": arm, "rewards": rewards, "advantages": [9.0]} for arm, rewards in groups.values()]
    assert sample(folder, "--init", *ARMS, state="t").rc == 0
    assert update(folder, "--from-rewards", rows=lists, state="t").rc == 0
    assert [row["mean_abs_advantage"] for row in stats(folder, state="t")] == means
    assert "no `prompt_id`" in update(folder, "--from-rewards", rows=[{"distribution": "easy", "reward": 1}]).err


def test_groups_without_a_signal_may_be_left_out(folder):
    rows = [{"distribution": "easy", "advantages": [0.0, 0.0]}, {"distribution": "easy", "advantages": [0.5, -0.5]}]
    assert sample(folder, "--init", *ARMS, "--ignore-zero-groups", state="t").rc == 0
    for state, n, mean in (("s", 4, 0.25), ("t", 2, 0.5)):
        update(folder, rows=rows, state=state)
        row = stats(folder, state=state)[0]
        assert (row["n"], row["window"], row["mean_abs_advantage"]) == (n, n, mean)


def test_prompts_are_counted(folder):
    assert sample(folder, "--init", *ARMS, "--count", "prompts", state="t").rc == 0
    samples = [
        {"id": "p", "sample": i, "prompt_id": p, "distribution": "mid", "advantage": 0.5} for p in "pq" for i in (0, 1)
    ]
    update(folder, rows=[*({**row, "id": row["prompt_id"]} for row in samples), *feedback(2)], state="t")
    assert [(row["n"], row["window"]) for row in stats(folder, state="t")] == [(1, 2), (1, 2), (2, 4)]


def test_a_scale_that_tau_is_not_made_for_is_told(folder):
    result = update(folder, rows=[{"distribution": "easy", "advantages": [7.0, -7.0]}])
    assert "warning: the mean absolute advantage of easy is 7" in result.err


# --- crashes and company


def test_a_killed_update_done_again_leads_to_the_same_state(folder):
    """Kills the process at several moments; then all feedback is sent again."""
    data = jsonl(feedback(60_000, steps=100))
    (folder / "feedback.jsonl").write_bytes(data)
    shutil.copytree(folder / "s", folder / "t")
    assert frame.run(["ucb-update", "--state", "t", "feedback.jsonl"], cwd=folder).rc == 0
    expected = stats(folder, "--verify", state="t")
    sizes = set()
    for _ in range(4):
        empty = (folder / "s/journal.jsonl").stat().st_size
        with frame.started(["ucb-update", "--state", "s", "feedback.jsonl"], cwd=folder) as process:
            frame.wait_until(
                lambda least=empty: process.poll() is not None or (folder / "s/journal.jsonl").stat().st_size > least,
                "something is journaled",
            )
            process.send_signal(signal.SIGKILL)
        sizes.add((folder / "s/journal.jsonl").stat().st_size)
    assert len(sizes) > 1
    assert frame.run(["ucb-update", "--state", "s", "feedback.jsonl"], cwd=folder).rc == 0
    assert stats(folder, "--verify") == expected
    assert [row["n"] for row in expected] == [40_000] * 3


def test_a_signal_keeps_what_was_read(folder):
    with frame.started(["ucb-update", "--state", "s"], cwd=folder) as process:
        process.stdin.write(jsonl(feedback(30)))
        process.stdin.flush()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert frame.ended(process).rc == 75
    assert [row["n"] for row in stats(folder)] == [20] * 3


def test_two_updates_at_once_count_everything_once(folder):
    (folder / "one.jsonl").write_bytes(jsonl(feedback(30_000, steps=500)))
    (folder / "two.jsonl").write_bytes(jsonl(feedback(30_000, start=15_000, steps=500)))
    line = "ucb-update --state s one.jsonl > 1 & ucb-update --state s two.jsonl > 2; wait; cat 1 2"
    result = frame.shell(line, cwd=folder)
    assert result.rc == 0, result.err
    assert sum(row["n_counted"] for row in result.rows) == 45_000
    assert sum(row["n_known"] for row in result.rows) == 15_000
    assert [row["n"] for row in stats(folder, "--verify")] == [30_000] * 3


def test_two_samplers_at_once_never_draw_the_same_number(folder):
    line = "for i in 1 2 3 4; do ucb-sample --state s -n 50 > $i & done; wait; cat 1 2 3 4"
    result = frame.shell(line, cwd=folder)
    assert sorted(row["draw"] for row in result.rows) == list(range(200))


def test_a_torn_journal_is_mended_with_a_warning(folder):
    update(folder, rows=feedback(3))
    with open(folder / "s/journal.jsonl", "ab") as journal:
        journal.write(b'{"seq":2,"seen":{"easy":{"la')
    assert stats(folder)[0]["n"] == 2
    result = update(folder, rows=feedback(3, start=3))
    assert result.rc == 0
    assert "warning: s/journal.jsonl: cut off 28 bytes" in result.err
    assert stats(folder, "--verify")[0]["n"] == 4


def test_a_damaged_journal_is_an_error_everywhere(folder):
    update(folder, rows=feedback(3))
    journal = folder / "s/journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"easy"', b'"hasy"', 1))
    for name in ("ucb-sample", "ucb-update", "ucb-stats"):
        result = frame.run([name, "--state", "s"], cwd=folder)
        assert (result.rc, result.out) == (1, b"")
        assert "s/journal.jsonl: byte 0: does not have its checksum" in result.err


def test_a_full_disk_is_told(folder):
    before = (folder / "s/journal.jsonl").read_bytes()
    (folder / "f").write_bytes(jsonl(feedback(4000)))
    result = frame.shell("ulimit -f 8; ucb-update --state s f", cwd=folder)
    assert (result.rc, result.out) == (1, b"")
    assert result.err == "ucb-update: s/journal.jsonl: File too large\n"
    assert (folder / "s/journal.jsonl").read_bytes() == before
    assert update(folder, rows=feedback(4000)).rc == 0


# --- the resident form


def ask(process, *rows):
    process.stdin.write(jsonl(rows))
    process.stdin.flush()


def answers(process, count):
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_a_resident_sampler_answers_each_request_at_once(folder):
    argv = ["ucb-sample", "--state", "s", "--pool", "pool.jsonl", "-n", "2", "--follow"]
    with frame.started(argv, cwd=folder) as process:
        assert [row["draw"] for row in answers(process, 2)] == [0, 1]
        ask(process, {"draws": 3})
        assert [(row["draw"], row["state_seq"]) for row in answers(process, 3)] == [(2, 0), (3, 0), (4, 0)]
        ask(process, *feedback(3), {"draws": 1})
        assert answers(process, 1)[0]["state_seq"] == 1
        ask(process, {"id": "z", "distribution": "easy", "advantages": [3.0] * 40, "draws": 2})
        assert [(row["distribution"], row["state_seq"]) for row in answers(process, 2)] == [("easy", 2)] * 2
        update(folder, rows=feedback(1, start=3))  # from elsewhere
        ask(process, {"draws": 1})
        assert answers(process, 1)[0]["state_seq"] == 3
        ask(process, *feedback(1, start=4))
        result = frame.ended(process)
    assert (result.rc, result.out) == (0, b"")
    assert stats(folder, "--verify")[1]["n"] == 4
    assert sample(folder).rows[0]["draw"] == 9  # what was reserved and not used was given back


def test_a_resident_sampler_draws_what_single_calls_draw(folder):
    for state in ("t", "u"):
        shutil.copytree(folder / "s", folder / state)
    requests = [row for i in range(8) for row in (*feedback(3, start=3 * i), {"draws": 5 + 400 * (i % 3)})]
    resident = sample(folder, "-n", "0", "--follow", stdin=jsonl(requests), state="t").rows
    single = []
    for i in range(8):
        update(folder, rows=feedback(3, start=3 * i), state="u")
        single += sample(folder, "-n", str(5 + 400 * (i % 3)), state="u").rows
    assert resident == single
    assert stats(folder, "--verify", state="t") == stats(folder, "--verify", state="u")


def test_a_killed_resident_sampler_skips_draws_and_repeats_none(folder):
    argv = ["ucb-sample", "--state", "s", "-n", "5", "--follow"]
    with frame.started(argv, cwd=folder) as process:
        ask(process, *feedback(3), {"draws": 4})
        drawn = [row["draw"] for row in answers(process, 9)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [row["n"] for row in stats(folder, "--verify")] == [2] * 3  # journaled before the answer
    assert sample(folder).rows[0]["draw"] > max(drawn)


def test_a_resident_sampler_and_bad_rows(folder):
    rows = [{"x": 1}, {"distribution": "nobody", "advantages": [1.0]}, {"draws": 2}]
    result = sample(folder, "-n", "0", "--follow", "--on-error", "skip", stdin=b"oops\n" + jsonl(rows))
    assert result.rc == 0
    assert len(result.rows) == 2
    assert "3 errors" in result.err
    assert sample(folder, "-n", "0", "--follow", stdin=jsonl(rows)).rc == 1
    result = sample(folder, "-n", "0", "--follow", "--new-arms", "add", stdin=jsonl(rows[1:]))
    assert result.rc == 0
    assert "nobody" in [row["distribution"] for row in stats(folder)]


# --- what it tells


def test_stats_say_why(folder):
    update(folder, rows=feedback(2))
    rows = stats(folder, "--explain")
    assert [row["distribution"] for row in rows] == ["easy", "hard", "mid"]
    assert all(row["n_total"] == 4 for row in rows)
    assert rows[0]["ucb"] == pytest.approx(rows[0]["mean_abs_advantage"] + rows[0]["bonus"])
    assert rows[2]["why"].startswith("never seen + bonus")
    assert rows[2]["why"].endswith("the best, tau 0.1")
    assert stats(folder, "--explain", "--freeze", "mid")[2]["why"] == "frozen"


def test_the_history_is_that_of_each_batch(folder):
    lived = []
    for step in (1, 2, 3):
        update(folder, rows=({**row, "step": step} for row in feedback(4, start=4 * step)))
        lived += [{"state_seq": step, "step": step, **row} for row in stats(folder)]
    for row in lived:
        del row["window"]
    assert stats(folder, "--history") == lived
    assert update(folder, "--compact").rc == 0
    assert stats(folder, "--history") == lived
    assert stats(folder, "--verify")[0]["n"] == 8


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_of_the_schedule(folder, suffix):
    update(folder, rows=feedback(12, steps=3))
    assert len(stats(folder, "--plot", f"schedule.{suffix}")) == 3
    data = (folder / f"schedule.{suffix}").read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_a_picture_that_cannot_be_drawn(folder):
    def plot(name, **settings):
        return frame.run(["ucb-stats", "--state", "s", "--plot", name], cwd=folder, **settings)

    assert "nothing was learned yet" in plot("a.png").err
    update(folder, rows=feedback(3))
    assert plot("no/a.png").err == "ucb-stats: no/a.png: No such file or directory\n"
    assert (plot("a.xyz").rc, plot("a.xyz").err.count("\n")) == (2, 1)
    (folder / "matplotlib.py").write_text("raise ImportError('not here')\n")
    missing = plot("a.png", env={"PYTHONPATH": f"{folder}:{frame.ROOT / 'lib'}"})
    assert (missing.rc, missing.err) == (1, "ucb-stats: --plot: needs matplotlib: pip install 'toolroll[plot]'\n")
