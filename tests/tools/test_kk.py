"""kk-make, kk-check and kk-reward as processes, and puzzles on their way through a training loop."""

from __future__ import annotations

import json
import signal

import frame
import pytest

THREE = {"names": ["Ada", "Omar", "Zeno"], "solution": [True, False, True]}
WORDS = "(1) Ada is a knight\n(2) Omar is a knave\n(3) Zeno is a knight"
WELL = "<think>t</think><answer>{}</answer>"
SAID = "(('lying', 1), ('and', ('telling-truth', 0), ('lying', 0)), ('not', ('telling-truth', 1)))"


def jsonl(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def make(folder, *args):
    return frame.run(["kk-make", *map(str, args)], cwd=folder)


def check(folder, *args, rows=()):
    return frame.run(["kk-check", *args], cwd=folder, stdin=jsonl(rows))


def reward(folder, *args, rows=()):
    return frame.run(["kk-reward", *args], cwd=folder, stdin=jsonl(rows))


# --- kk-make


def test_puzzles_of_each_number_of_people(tmp_path):
    rows = make(tmp_path, "--people", "4,2-3", "-n", 5).rows
    assert [row["id"] for row in rows] == [f"kk_logic_{n}/{i}" for n in (2, 3, 4) for i in range(5)]
    assert [row["distribution"] for row in rows] == [f"kk_logic_{n}" for n in (2, 3, 4) for _ in range(5)]
    for row in rows:
        assert len(row["names"]) == len(row["solution"]) == row["n_people"]
        assert row["answer"].count("\n") == row["n_people"] - 1


def test_more_puzzles_and_other_numbers_of_people_change_none(tmp_path):
    fifty = make(tmp_path, "--people", "5", "-n", 50).lines
    assert make(tmp_path, "--people", "5", "-n", 20).lines == fifty[:20]
    assert make(tmp_path, "--people", "5", "-n", 30, "--first", 20).lines == fifty[20:]
    assert make(tmp_path, "--people", "9,5,4", "-n", 50).lines[50:100] == fifty


def test_hashes_change_nothing(tmp_path):
    argv = ["kk-make", "--people", "3,7", "-n", "10", "--depth", "3"]
    one, other = (frame.run(argv, cwd=tmp_path, env={"PYTHONHASHSEED": seed}).out for seed in ("1", "2"))
    assert one == other


def test_the_default_is_the_paper_with_a_hundred_each(tmp_path):
    rows = make(tmp_path).rows
    assert len(rows) == 1200
    assert {row["n_people"] for row in rows} == set(range(3, 15))
    assert make(tmp_path, "-n", 0).out == b""


def test_seed_name_depth_and_width_arrive(tmp_path):
    few = ("--people", "4", "-n", 3)
    plain = make(tmp_path, *few).rows
    other = make(tmp_path, *few, "--seed", 1, "--name", "mine").rows
    assert [row["id"] for row in other] == ["mine_4/0", "mine_4/1", "mine_4/2"]
    assert other[0]["distribution"] == "mine_4"
    assert [row["statements"] for row in other] != [row["statements"] for row in plain]
    (deep,) = make(tmp_path, "--people", "4", "-n", 1, "--depth", 5, "--width", 4).rows
    assert len(deep["statements"]) > max(len(row["statements"]) for row in plain)


def test_train_and_test_are_apart_and_make_up_the_whole(tmp_path):
    few = ("--people", "3", "-n")
    whole = make(tmp_path, *few, 200).rows
    train = make(tmp_path, *few, sum(row["split"] == "train" for row in whole), "--split", "train").rows
    test = make(tmp_path, *few, sum(row["split"] == "test" for row in whole), "--split", "test").rows
    assert sorted([*train, *test], key=lambda row: int(row["id"].split("/")[1])) == whole
    assert {row["split"] for row in test} == {"test"}
    assert 10 <= len(test) <= 30
    other = make(tmp_path, *few, 100, "--split", "test", "--seed", 1).rows
    assert not {row["statements"] for row in other} & {row["statements"] for row in train}


def test_asking_for_more_than_there_are_is_an_error(tmp_path):
    result = make(tmp_path, "--people", "2", "-n", 149, "-o", "out")
    assert (result.rc, result.out) == (1, b"")
    assert result.err == "kk-make: found 148 of 149 puzzles with 2 people; more --depth or --width allows more\n"
    assert not (tmp_path / "out").exists()
    assert len(make(tmp_path, "--people", "2", "-n", 148).rows) == 148
    assert len(make(tmp_path, "--people", "2", "-n", 200, "--depth", 3).rows) == 200
    assert (
        " of 99 puzzles with 2 people of --split test; "
        in make(tmp_path, "--people", "2", "-n", 99, "--split", "test").err
    )


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--people", "1"), "kk-make: --people: 1 is not within 2 to 14\n"),
        (("--people", "3-15"), "kk-make: --people: 3-15 is not within 2 to 14\n"),
        (("--people", "3;4"), "kk-make: --people: not a number or a range like 3-14: '3;4'\n"),
        (("-n", "-1"), "-1 is not in the range x>=0"),
        (("--depth", "1"), "1 is not in the range 2<=x<=5"),
        (("--width", "6"), "6 is not in the range 2<=x<=5"),
        (("--split", "dev"), "'dev' is not one of"),
        (("--seed", "-1"), "-1 is not in the range"),
    ],
)
def test_what_cannot_be_made(args, why, tmp_path):
    result = make(tmp_path, *args)
    assert (result.rc, result.out) == (2, b"")
    assert why in result.err


def test_a_signal_ends_it(tmp_path):
    with frame.started(["kk-make", "--people", "14", "-n", "1000000", "--line-buffered"], cwd=tmp_path) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert (result.rc, result.err) == (75, "kk-make: warning: stopped by SIGTERM\n")


# --- kk-check


def test_all_that_kk_make_makes_is_sound(tmp_path):
    made = frame.shell("kk-make -n 20 --depth 3 --width 3 | kk-check", cwd=tmp_path)
    assert made.rc == 0, made.err
    assert [row["n_solutions"] for row in made.rows] == [1] * 240


def sound(**fields):
    return {"id": "k", "names": ["Ada", "Omar", "Zeno"], "solution": [True, False, True], "statements": SAID, **fields}


def in_verls_place(truth):
    return {"data_source": "kk_logic_3", "reward_model": {"style": "rule", "ground_truth": truth}}


@pytest.mark.parametrize(
    ("row", "why", "n_solutions"),
    [
        (sound(), None, 1),
        (in_verls_place(json.dumps({"solution_text_format": WORDS, "statements": SAID})), None, 1),
        (in_verls_place(WORDS) | {"statements": SAID}, None, 1),
        (sound(solution=[True, True, True]), "the solution is not the stored one: Omar is a knave", 1),
        (sound(statements=SAID.replace("('lying', 1), (", "('telling-truth', 0), (", 1)), "has 2 solutions", 2),
        (sound(statements=SAID.replace("('lying', 1), (", "('lying', 0), (", 1)), "has no solution", 0),
        (sound(statements=None), "no `statements`", None),
        (in_verls_place(WORDS), "no `statements`", None),
        (sound(names=["Ada"]), "1 names, but a solution for 3", None),
        (sound(statements="__import__('os').abort()"), "no word of the grammar at character 0", None),
        (sound(statements=SAID.replace("1", "3")), "statement 1: 'lying' is about one person, 0 to 2", None),
        (sound(solution=[1, 0, 1]), "Expected `bool`, got `int`", None),
        ({"id": "k"}, "no `names`: a puzzle has `names` and `solution`, or `reward_model`", None),
    ],
)
def test_what_is_sound_and_what_is_not(row, why, n_solutions, tmp_path):
    result = check(tmp_path, rows=[row])
    if why is None:
        assert (result.rc, result.rows) == (0, [row | {"n_solutions": 1}])
        return
    assert (result.rc, result.out, len(result.complaints)) == (1, b"", 1)
    assert f"kk-check: stdin:1: {why}" in result.complaints[0]
    (kept,) = check(tmp_path, "--on-error", "keep", rows=[row]).rows
    assert kept.get("n_solutions") == n_solutions
    assert why in kept["error"]["why"]


def test_unsound_rows_are_collected(tmp_path):
    rows = [sound(id="a"), sound(id="b", solution=[False] * 3), sound(id="c")]
    result = check(tmp_path, "--on-error", "skip", "-e", "unsound", rows=rows)
    assert (result.rc, [row["id"] for row in result.rows]) == (0, ["a", "c"])
    assert [json.loads(line)["id"] for line in (tmp_path / "unsound").read_bytes().splitlines()] == ["b"]


# --- kk-reward


@pytest.mark.parametrize(
    ("puzzle"),
    [
        THREE,
        in_verls_place(WORDS),
        in_verls_place({"solution_text_format": WORDS}),
        in_verls_place(json.dumps({"solution_text_format": WORDS, "statements": SAID})),
    ],
)
def test_all_forms_of_a_puzzle_are_paid_alike(puzzle, tmp_path):
    responses = [WELL.format(words) for words in (WORDS, WORDS.replace("knave", "knight"), "?")] + [WORDS]
    result = reward(tmp_path, rows=[{**puzzle, "response": response} for response in responses])
    assert result.rc == 0, result.err
    assert [row["reward"]["total"] for row in result.rows] == [3, -0.5, -1, -3]
    assert [row["reward"]["problem"] for row in result.rows] == [None, None, "missing", "no_think"]


def test_credit_and_form(tmp_path):
    rows = [{**THREE, "response": r} for r in (WELL.format(WORDS), f"<answer>{WORDS[:-1]}", WORDS, "")]
    totals = {
        args: [round(row["reward"]["total"], 4) for row in reward(tmp_path, *args, rows=rows).rows]
        for args in (
            (),
            ("--answer-format", "answer"),
            ("--answer-format", "none"),
            ("--credit", "people"),
            ("--credit", "people", "--answer-format", "think-answer"),
        )
    }
    assert list(totals.values()) == [
        [3, -3, -3, -3],
        [3, -3, -3, -3],
        [2, -2, 2, -2],
        [2, 0.8333, 2, -2],
        [3, -3, -3, -3],
    ]


def test_what_the_prompt_ends_with_may_belong_to_the_response(tmp_path):
    rest = WELL.format(WORDS).removeprefix("<think>")
    rows = [{**THREE, "response": response} for response in (rest, "<think>" + rest)]
    assert [row["reward"]["total"] for row in reward(tmp_path, rows=rows).rows] == [-3, 3]
    opened = reward(tmp_path, "--opening", "<think>", rows=rows).rows
    assert [row["reward"]["total"] for row in opened] == [3, 3]
    assert [row["response"] for row in opened] == [row["response"] for row in rows]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"response": "x"}, "no `names`: a puzzle has `names` and `solution`, or `reward_model`"),
        ({"response": "x", "names": ["Ada"]}, "no `solution`"),
        (THREE, "missing required field `response`"),
        ({**THREE, "response": None}, "Expected `str`, got `null` - at `$.response`"),
        ({**THREE, "response": "x", "solution": [True]}, "3 names, but a solution for 1"),
        ({**THREE, "response": "x", "names": ["Ada", "ADA", "Omar"]}, "two people are called 'ADA'"),
        ({"response": "x", "reward_model": {"ground_truth": "42"}}, "a line of the solution says of nobody"),
        ({**THREE, "response": "x", "solution": "42"}, "Expected `array | null`, got `str`"),
    ],
)
def test_a_row_without_a_puzzle_is_an_error_and_no_zero(row, why, tmp_path):
    result = reward(tmp_path, rows=[row])
    assert (result.rc, result.out) == (1, b"")
    assert result.err.startswith("kk-reward: stdin:1: ")
    assert why in result.err
    (kept,) = reward(tmp_path, "--on-error", "keep", rows=[row]).rows
    assert "reward" not in kept
    assert why in kept["error"]["why"]


# --- together


def test_puzzles_go_through_a_training_loop(tmp_path):
    """As in pipelines/dump.sh: the answers begin as they should, and some are cut off."""
    script = [
        {"match": r"(?s)Ada.*<answer>\n\(1\)$", "reply": " Ada is a knight\n(2) Omar is a knave\n</answer>"},
        {"match": ".", "reply": " nobody knows\n\n"},
    ]
    (tmp_path / "script.jsonl").write_bytes(jsonl(script))
    (tmp_path / "prompt.txt").write_text("{quiz}\n")
    puzzles = [
        {"id": name, "distribution": "kk", "quiz": f"Who is {name}?", "names": [name, "Omar"], "solution": [True, True]}
        for name in ("Ada", "Zeno")
    ]
    (tmp_path / "pool.jsonl").write_bytes(jsonl(puzzles))
    line = (
        "text-rollout pool.jsonl --backend scripted --model script.jsonl --prompt-file prompt.txt --raw-prompt"
        " --prefill $'<answer>\\n(1)' --stop '</answer>' --stop $'\\n\\n' --samples 2 |"
        " kk-reward --credit people | group-advantage --group-size 2"
    )
    result = frame.shell(line, cwd=tmp_path)
    assert result.rc == 0, result.err
    assert result.rows[0]["response"].startswith("<answer>\n(1) Ada is a knight")
    assert [row["reward"]["total"] for row in result.rows] == [0.25, 0.25, -2, -2]
    assert [row["advantage"] for row in result.rows] == [0, 0, 0, 0]
    assert [row["reward"]["right_frac"] for row in result.rows] == [0.5, 0.5, 0, 0]
    assert frame.shell(f"{line} --reward-field reward.right_frac", cwd=tmp_path).rc == 0


def test_rewards_make_advantages(tmp_path):
    """Rewards 3, -0.5, -1 and -3 have mean -0.375 and standard deviation 2.4958."""
    words = (WORDS, WORDS.replace("knave", "knight"), "?")
    responses = [*(WELL.format(one) for one in words), WORDS]
    rows = [{"id": "k", "sample": i, **THREE, "response": r} for i, r in enumerate(responses)]
    (tmp_path / "in").write_bytes(jsonl(rows))
    result = frame.shell("kk-reward in | group-advantage --group-size 4", cwd=tmp_path)
    assert [row["advantage"] for row in result.rows] == pytest.approx([1.3523, -0.0501, -0.2504, -1.0518], abs=1e-4)


def test_what_is_made_can_be_drawn_answered_and_paid(tmp_path):
    line = (
        "kk-make --people 2,3 -n 10 -o pool.jsonl &&"
        " ucb-sample --state ucb --init --arms pool.jsonl --pool pool.jsonl -n 12 |"
        ' jq -c \'. + {response: ("<think>t</think><answer>" + .answer + "</answer>")}\' | kk-reward'
    )
    result = frame.shell(line, cwd=tmp_path)
    assert result.rc == 0, result.err
    assert [row["reward"]["total"] for row in result.rows] == [3] * 12
