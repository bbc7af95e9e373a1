"""group-advantage as a command: when groups leave, what failed rows do, and roles that outlive a run."""

from __future__ import annotations

import json

import frame
import pytest

COMMAND = [str(frame.BIN / "group-advantage")]
GAMES = [("c", 0.1), ("s", -0.3), ("c", 0.1), ("c", 0.1)]


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def sample(prompt, index, reward, **more):
    return {"id": prompt, "sample": index, "reward": reward, **more}


def run(tmp_path, *args, rows=(), stdin=None):
    return frame.run([*COMMAND, *args], stdin=lines(*rows) if stdin is None else stdin, cwd=tmp_path)


def test_a_group_leaves_when_it_is_complete(tmp_path):
    with frame.started([*COMMAND, "--group-size", "2"], cwd=tmp_path) as process:
        process.stdin.write(lines(sample("a", 0, 1.0), sample("b", 0, 5.0), sample("a", 1, 0.0)))
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        done = frame.ended(process)
    assert [(row["id"], row["sample"]) for row in first] == [("a", 0), ("a", 1)]
    assert [row["advantage"] for row in first] == pytest.approx([0.7071058, -0.7071058], abs=1e-6)
    assert [(row["id"], row["advantage"], row["group_size"]) for row in done.rows] == [("b", 0.0, 1)]
    assert "1 incomplete groups" in done.err


def test_incomplete_groups_can_be_left_out(tmp_path):
    result = run(tmp_path, "--group-size", "2", "--incomplete", "drop", rows=[sample("a", 0, 1.0)])
    assert (result.rc, result.out) == (0, b"")
    assert "1 incomplete groups" in result.err


def test_a_failed_row_completes_its_group_and_has_no_part_in_it(tmp_path):
    bad = {"id": "a", "sample": 1, "error": {"why": "no answer", "where": "x:1"}}
    rows = [sample("a", 0, 1.0), bad, sample("a", 2, 3.0), sample("b", 0, 1.0)]
    result = run(tmp_path, "--group-size", "3", rows=rows)
    assert [row.get("group_size") for row in result.rows] == [2, None, 2, 1]
    assert result.rows[1] == bad
    assert result.rows[0]["advantage"] == -result.rows[2]["advantage"] < 0


def test_a_row_without_a_reward_is_a_bad_row(tmp_path):
    rows = [sample("a", 0, 1.0), {"id": "a", "sample": 1}, sample("a", 2, 0.0)]
    result = run(tmp_path, "--group-size", "3", "--on-error", "keep", rows=rows)
    assert result.rc == 0
    assert [row.get("group_size") for row in result.rows] == [2, None, 2]
    assert result.rows[1]["error"]["why"] == "no number at `reward`"
    stopped = run(tmp_path, "--group-size", "3", rows=rows)
    assert stopped.rc == 1
    assert stopped.complaints == ["group-advantage: stdin:2: no number at `reward`"]


def test_two_draws_of_a_prompt_are_two_groups(tmp_path):
    rows = [sample("a", i, float(i), draw=draw) for draw in (4, 9) for i in (0, 1)]
    assert [row["group_size"] for row in run(tmp_path, rows=rows).rows] == [2] * 4


def test_neighbours_form_groups(tmp_path):
    rows = [sample("a", 0, 1.0), sample("a", 1, 0.0), sample("b", 0, 1.0), sample("a", 2, 1.0)]
    assert [row["group_size"] for row in run(tmp_path, "--consecutive", rows=rows).rows] == [2, 2, 1, 1]


def test_equal_rewards_can_be_left_out(tmp_path):
    rows = [sample("a", 0, 1.0), sample("a", 1, 1.0), sample("b", 0, 1.0), sample("b", 1, 0.0)]
    result = run(tmp_path, "--group-size", "2", "--zero-variance", "drop", rows=rows)
    assert [row["id"] for row in result.rows] == ["b", "b"]
    assert "1 groups of equal rewards left out" in result.err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--std", "population", "--eps", "1e-8"], [1.677484, -0.152499, -0.762493, -0.762493]),
        (["--eps", "1e-8"], [1.452744, -0.132068, -0.660338, -0.660338]),
        (["--estimator", "dr-grpo"], [1.375, -0.125, -0.625, -0.625]),
        (["--estimator", "rloo"], [1.833333, -0.166667, -0.833333, -0.833333]),
        (["--estimator", "raw"], [1.0, -0.5, -1.0, -1.0]),
    ],
)
def test_the_estimators(tmp_path, args, expected):
    rows = [sample("a", i, reward) for i, reward in enumerate([1, -0.5, -1, -1])]
    assert [row["advantage"] for row in run(tmp_path, *args, rows=rows).rows] == pytest.approx(expected, abs=1e-6)


def test_a_reward_elsewhere_and_infinite_ones(tmp_path):
    rows = [{"id": "a", "sample": i, "score": {"own": float(i)}} for i in (0, 1)]
    result = run(tmp_path, "--reward-field", "score.own", "--estimator", "dr-grpo", rows=rows)
    assert [row["advantage"] for row in result.rows] == [-0.5, 0.5]
    huge = b'{"id":"a","sample":0,"reward":{"total":1e999}}\n'
    assert run(tmp_path, stdin=huge).rc == 1


def test_roles_are_remembered_and_no_game_counts_twice(tmp_path):
    def game(name, players):
        return [
            {"id": f"{name}/{i}", "game_id": name, "role": role, "reward": reward}
            for i, (role, reward) in enumerate(players)
        ]

    second = [("c", -0.2333333333333333), ("s", 0.1), ("c", 0.0666666666666667), ("c", 0.0666666666666667)]
    args = ["--estimator", "rae", "--group", "game_id", "--alpha", ".9", "--state", "roles.json", "--consecutive"]
    first = run(tmp_path, *args, rows=game("g1", GAMES))
    assert [row["advantage"] for row in first.rows] == pytest.approx([0.09, -0.27, 0.09, 0.09])
    then = run(tmp_path, *args, rows=game("g2", second))
    assert [row["advantage"] for row in then.rows] == pytest.approx([-0.239, 0.117, 0.061, 0.061], abs=1e-6)
    again = run(tmp_path, *args, rows=[*game("g1", GAMES), *game("g2", second)])
    assert again.out == first.out + then.out
    other = run(tmp_path, *args[:4], "--state", "roles.json", rows=game("g1", GAMES))
    assert (other.rc, other.complaints) == (2, ["group-advantage: --alpha: was 0.9 in roles.json, is 0.95 now"])


def test_a_resumed_run_sees_whole_groups(tmp_path):
    rows = [sample("a", i, float(i)) for i in range(3)] + [{"id": "b", "reward": 1.0}, {"id": "b", "reward": 2.0}]
    (tmp_path / "in").write_bytes(lines(*rows))
    assert run(tmp_path, "-o", "whole", "in").rc == 0
    whole = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "out.part").write_bytes(b"".join(whole[:2]) + whole[3])
    assert run(tmp_path, "-o", "out", "--resume", "in").rc == 0
    assert sorted((tmp_path / "out").read_bytes().splitlines(keepends=True)) == sorted(whole)


def test_memory_is_bounded_when_asked(tmp_path):
    rows = [sample(f"p{i}", 0, 1.0, text="x" * 100_000) for i in range(20)]
    result = run(tmp_path, "--max-memory", "1", rows=rows)
    assert result.rc == 1
    assert "hold more than 1 MB" in result.complaints[0]
    assert run(tmp_path, "--max-memory", "1", "--group-size", "1", rows=rows).rc == 0
