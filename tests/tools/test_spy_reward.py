"""spy-reward, spy-switch and spy-stats as users run them: states, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frame
import pytest

SEQUENCE = [[2, 2, 2], [1, 1, 1], [2, 2, 1]]
ADVANTAGES = [  # of the games of SEQUENCE, in the paper's order and with its alpha
    [0.095, -0.285, 0.095, 0.095],
    [-0.236417, 0.10925, 0.063583, 0.063583],
    [-0.016818, -0.149546, 0.083182, 0.083182],
]


def row(number: int, votes: list[Any], spy: int = 2, n: int = 4, **more: Any) -> dict[str, Any]:
    voters = [player for player in range(1, n + 1) if player != spy]
    cast = [{"voter": voter, "vote": vote} for voter, vote in zip(voters, votes, strict=True)]
    return {"id": f"g{number}", "n_players": n, "rounds": 2, "spy": spy, "votes": cast, **more}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def run(folder: Path, tool: str, *args: Any, stdin: bytes = b"") -> frame.Result:
    return frame.run([str(frame.BIN / tool), *map(str, args)], cwd=folder, stdin=stdin)


def reward(folder: Path, *args: Any, stdin: bytes = b"") -> frame.Result:
    return run(folder, "spy-reward", *args, stdin=stdin)


GAMES = [row(number, votes) for number, votes in enumerate(SEQUENCE)]


def clues(result: frame.Result) -> list[list[float]]:
    return [one["advantages"]["clue"] for one in result.rows]


def test_games_one_after_the_other_and_a_process_each(tmp_path):
    whole = reward(tmp_path, "--advantages", stdin=lines(*GAMES))
    for found, expected in zip(clues(whole), ADVANTAGES, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    args = ("--advantages", "--state", "roles.json")
    each = b"".join(reward(tmp_path, *args, stdin=lines(one)).out for one in GAMES)
    assert each == whole.out
    again = reward(tmp_path, *args, stdin=lines(*reversed(GAMES)))
    assert sorted(again.lines) == sorted(whole.lines)
    other = reward(tmp_path, *args, stdin=lines({**GAMES[0], "seed": 8}))
    assert other.rows[0]["baselines"] != whole.rows[0]["baselines"]


def test_the_order_of_spiral_and_the_alpha_of_the_code(tmp_path):
    first, second, _ = clues(
        reward(tmp_path, "--advantages", "--order", "pre", "--preset", "code", stdin=lines(*GAMES))
    )
    assert first == pytest.approx([0.1, -0.3, 0.1, 0.1])
    assert second == pytest.approx([-0.233333 - 0.01, 0.1 + 0.03, 0.066667 - 0.01, 0.066667 - 0.01], abs=1e-6)


def test_resumed_the_means_go_on(tmp_path):
    (tmp_path / "games.jsonl").write_bytes(lines(*GAMES))
    whole = reward(tmp_path, "--advantages", "games.jsonl")
    for kept in range(3):
        part = tmp_path / "out.jsonl.part"
        part.write_bytes(b"".join(line + b"\n" for line in whole.lines[:kept]) + whole.lines[kept][:30])
        state = ("--state", f"roles-{kept}.json")
        resumed = reward(tmp_path, "--advantages", *state, "-o", "out.jsonl", "--resume", "games.jsonl")
        assert resumed.rc == 0
        assert (tmp_path / "out.jsonl").read_bytes() == whole.out


def test_the_state_is_on_the_disk_while_nothing_comes(tmp_path):
    line = [str(frame.BIN / "spy-reward"), "--advantages", "--state", "roles.json", "--line-buffered"]
    with frame.started(line, cwd=tmp_path) as process:
        process.stdin.write(lines(GAMES[0]))
        process.stdin.flush()
        frame.wait_until(lambda: (tmp_path / "roles.json").exists(), "the state is written")
        process.kill()
    rest = reward(tmp_path, "--advantages", "--state", "roles.json", stdin=lines(*GAMES[1:]))
    assert clues(rest)[1] == pytest.approx(ADVANTAGES[2], abs=1e-6)


def test_another_state_is_refused(tmp_path):
    args = ("--advantages", "--state", "roles.json")
    assert reward(tmp_path, *args, stdin=lines(GAMES[0])).rc == 0
    before = (tmp_path / "roles.json").read_bytes()
    other = reward(tmp_path, *args, "--alpha", 0.5, stdin=lines(GAMES[0]))
    assert (other.rc, other.out) == (2, b"")
    assert "--alpha: was 0.95 in roles.json, is 0.5 now" in other.err
    assert (tmp_path / "roles.json").read_bytes() == before
    (tmp_path / "roles.json").write_text('{"rule": "threshold"}')
    assert reward(tmp_path, *args, stdin=lines(GAMES[0])).rc == 1


@pytest.mark.parametrize(
    "args",
    [
        ("--state", "x"),
        ("--state", "x", "--advantages", "--clue-advantage", "raw"),
        ("--turns", "--also", "clevr_clue_format"),
        ("--beta", "inf"),
        ("--lambda", "nan"),
        ("--alpha", "1"),
    ],
)
def test_what_cannot_be_asked(tmp_path, args):
    result = reward(tmp_path, *args, stdin=lines(GAMES[0]))
    assert (result.rc, result.out, len(result.complaints)) == (2, b"", 1)


def test_a_vote_that_is_alone(tmp_path):
    lone = lines(row(0, [1], spy=2, n=2))
    args = ("--advantages",)
    assert reward(tmp_path, *args, stdin=lone).rows[0]["advantages"]["decision"] == [0.0]
    code = reward(tmp_path, *args, "--preset", "code", stdin=lone).rows[0]
    assert code["advantages"]["decision"] == code["rewards"]["decision"] == [pytest.approx(-0.9)]
    assert reward(tmp_path, *args, "--lone", "reward", stdin=lone).rows[0]["advantages"]["decision"] == [-1.0]


TURN = {"id": "t", "game_id": "g0#0", "stage": "clue", "player": 1, "round": 1, **row(0, SEQUENCE[0])}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"player": 9}, "`player` is none of the players"),
        ({"player": None}, "`player` is none of the players"),
        ({"stage": "decision"}, "`vote_number` is none of the votes"),
        ({"stage": "decision", "vote_number": 3}, "`vote_number` is none of the votes"),
        ({"stage": "end"}, "Invalid enum value 'end'"),
        ({"votes": None}, "no `votes`"),
    ],
)
def test_rows_that_are_no_turns(tmp_path, change, why):
    result = reward(tmp_path, stdin=lines({**TURN, **change}))
    assert (result.rc, result.out) == (1, b"")
    assert why in result.err


def test_turns_have_a_reward_and_a_role(tmp_path):
    vote = {**TURN, "stage": "decision", "player": 3, "vote_number": 1}
    judge = {**vote, "player": None}
    rows = reward(tmp_path, "--advantages", stdin=lines(TURN, {**TURN, "player": 2}, vote, judge)).rows
    assert [one["role"] for one in rows] == ["civilian", "spy", "civilian", "judge"]
    assert [one["reward"] for one in rows] == pytest.approx([0.1, -0.3, 1, 1])
    assert [one["advantage"] for one in rows] == pytest.approx([0.095, -0.285, 0, 0])
    assert [one["group_size"] for one in rows] == [4, 4, 3, 3]


def test_an_iteration_a_process_with_stats_and_switch(tmp_path):
    stats = [run(tmp_path, "spy-stats", stdin=lines(one)).rows[0] for one in GAMES]
    assert [(one["accuracy"], one["na_share"]) for one in stats] == [(1, 0), (0, 0), (1, 0)]
    told = [
        run(tmp_path, "spy-switch", "--state", "s.json", "--min-dwell", 1, "--rho", 0, stdin=lines(one)).rows
        for one in stats
    ]
    assert [[(step["step"], step["stage"], step["why"]) for step in one] for one in told] == [
        [(1, "clue", "accuracy")],
        [(2, "decision", "error")],
        [(3, "clue", "accuracy")],
    ]


def test_a_killed_switch_may_be_told_again(tmp_path):
    rows = [{"step": i, "accuracy": 1.0, "na_share": 0.0} for i in range(1, 51)]
    whole = run(tmp_path, "spy-switch", stdin=lines(*rows))
    args = ("--state", "s.json")
    assert run(tmp_path, "spy-switch", *args, stdin=lines(*rows[:20])).lines == whole.lines[:20]
    assert run(tmp_path, "spy-switch", *args, stdin=lines(*rows)).lines == whole.lines[20:]
    assert run(tmp_path, "spy-switch", *args, stdin=lines(*rows)).out == b""
    (now,) = run(tmp_path, "spy-switch", *args, "--current").rows
    assert (now["step"], now["stage"], now["dwell"]) == (50, whole.rows[-1]["stage"], whole.rows[-1]["dwell"])


@pytest.mark.parametrize("numbered", [True, False])
def test_a_switch_without_a_state_is_resumed(tmp_path, numbered):
    """The averages begin anew, so that all rows are read again; those that stand in the output are not written."""
    rows = [{**({"step": i} if numbered else {}), "accuracy": 1.0, "na_share": 0.0} for i in range(1, 51)]
    whole = run(tmp_path, "spy-switch", "--current", stdin=lines(*rows))
    bad = run(tmp_path, "spy-switch", "--current", "-o", "out", stdin=lines(*rows[:30]) + b"oops\n")
    assert (bad.rc, (tmp_path / "out.part").read_bytes().splitlines()) == (1, whole.lines[:30])
    again = run(tmp_path, "spy-switch", "--current", "--resume", "-o", "out", stdin=lines(*rows))
    assert (again.rc, "30 skipped" in again.err) == (0, True)
    assert (tmp_path / "out").read_bytes() == whole.out
    state = ("--state", "state.json", "-o", "other")
    assert run(tmp_path, "spy-switch", *state, stdin=lines(*rows[:30]) + b"oops\n").rc == 1
    if numbered:
        assert run(tmp_path, "spy-switch", *state, "--resume", stdin=lines(*rows)).rc == 0
        assert (tmp_path / "other").read_bytes().splitlines() == whole.lines[:50]


@pytest.mark.parametrize(
    "line",
    [("spy-switch",), ("spy-reward", "--advantages"), ("group-advantage", "--estimator", "rae")],
    ids=lambda x: x[0],
)
def test_a_state_is_neither_an_output_nor_an_input(tmp_path, line):
    (tmp_path / "in").write_bytes(b"")
    for args in (("-o", "same"), ("-o", "./same"), ("-e", "same"), ("in", "--state", "in")):
        refused = run(tmp_path, *line, "--state", "same", *args)
        assert (refused.rc, len(refused.complaints)) == (2, 1)
        assert refused.err.endswith("put are the same file\n")
    (tmp_path / "same").write_bytes(b"")
    (tmp_path / "linked").hardlink_to(tmp_path / "same")
    assert run(tmp_path, *line, "--state", "same", "-o", "linked").rc == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "linked", "same"]


def test_games_without_an_id_count_each(tmp_path):
    named, nameless = GAMES, [{key: value for key, value in one.items() if key != "id"} for one in GAMES]
    args = ("--advantages",)
    assert clues(reward(tmp_path, *args, stdin=lines(*nameless))) == clues(reward(tmp_path, *args, stdin=lines(*named)))
    refused = reward(tmp_path, *args, "--state", "roles.json", stdin=lines(nameless[0]))
    assert (refused.rc, refused.out) == (1, b"")
    assert "stdin:1: no `id`, by which --state knows" in refused.err
    turn = {"stage": "clue", "player": 1, **nameless[0]}
    refused = reward(tmp_path, *args, stdin=lines(turn))
    assert (refused.rc, "no `game_id`" in refused.err) == (1, True)
    assert reward(tmp_path, stdin=lines(turn)).rc == 0
    refused = reward(tmp_path, "--turns", stdin=lines({**nameless[0], "turns": []}))
    assert (refused.rc, "no `id`, which names the turns" in refused.err) == (1, True)


def test_a_game_that_fails_moves_no_mean(tmp_path):
    whole = {**GAMES[1], "votes": [*GAMES[1]["votes"], {"voter": 2, "vote": 1}]}
    args = ("--advantages", "--also", "calculate_game_rewards", "--on-error", "skip", "--state")
    after = reward(tmp_path, *args, "after.json", stdin=lines(GAMES[0], whole))  # the first lacks the spy's vote
    assert clues(after) == clues(reward(tmp_path, *args, "alone.json", stdin=lines(whole)))
    too_much = reward(tmp_path, *args, "much.json", "--beta", "1.7e308", stdin=lines(whole))
    assert (too_much.rc, too_much.rows, "--beta and --lambda" in too_much.err) == (0, [], True)
    assert json.loads((tmp_path / "much.json").read_text())["games"] == {}


def test_a_number_and_a_text_are_two_ids(tmp_path):
    alike = [{**one, "id": name} for one, name in zip(GAMES, (1, "1", '"1"'), strict=True)]
    args = ("--advantages",)
    assert clues(reward(tmp_path, *args, stdin=lines(*alike))) == clues(reward(tmp_path, *args, stdin=lines(*GAMES)))
    turns = [{**one, "turns": [{"stage": "clue", "round": 1, "player": 1}]} for one in alike]
    rows = reward(tmp_path, *args, "--turns", stdin=lines(*turns)).rows
    assert len({one["id"] for one in rows}) == 3
    assert [one["advantage"] for one in reward(tmp_path, *args, stdin=lines(*rows)).rows] == [
        one["advantage"] for one in rows
    ]


def test_a_vote_for_nobody_who_plays_is_a_wrong_one_whoever_casts_it(tmp_path):
    votes = [{"voter": 1, "vote": 2}, {"voter": 2, "vote": 7}, {"voter": 3, "vote": 0}, {"voter": 4, "vote": 9}]
    game = {"id": "g", "n_players": 4, "spy": 2, "votes": votes}
    also = [f"--also={name}" for name in ("clevr_decision_accuracy", "calculate_game_rewards")]
    (paper,) = reward(tmp_path, *also, stdin=lines(game)).rows
    assert paper["rewards"]["decision"] == paper["rewards"]["clevr_decision_accuracy"] == [1, -1, -1, -1]
    assert paper["rewards"]["calculate_game_rewards"] == pytest.approx([1, 1 - 1 / 3, -1, -1])
    (code,) = reward(tmp_path, "--preset", "code", stdin=lines(game)).rows
    assert code["rewards"]["decision"] == pytest.approx([2.49, -0.9, -0.9, -0.9])


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([{"player": 1}], "`turns`: missing required field `stage` - at `$[0]`"),
        ([3], "`turns`: Expected `object`, got `int` - at `$[0]`"),
        ([{"stage": "clue", "player": "1"}], "`turns`: Expected `int | null`, got `str` - at `$[0].player`"),
        (
            [{"stage": "decision", "vote_number": "0"}],
            "`turns`: Expected `int | null`, got `str` - at `$[0].vote_number`",
        ),
        ([{"stage": "clue", "player": 1}, {"stage": "clue", "player": 5}], "`player` is none of the players"),
        ([{"stage": "decision", "vote_number": 3}], "`vote_number` is none of the votes"),
        ({}, "no `turns` in this game"),
    ],
)
def test_a_turn_that_is_none_fails_its_game_alone(tmp_path, turns, why):
    good = [{**one, "turns": [{"stage": "clue", "round": 1, "player": 1}]} for one in GAMES]
    rows = lines(good[0], {**good[1], "turns": turns}, good[2])
    found = reward(tmp_path, "--turns", "--advantages", "--on-error", "skip", stdin=rows)
    assert found.rc == 0
    assert found.complaints[0] == f"spy-reward: stdin:2: {why}"
    assert found.out == reward(tmp_path, "--turns", "--advantages", stdin=lines(good[0], good[2])).out


def test_groups_of_games(tmp_path):
    games = [{**one, "step": number % 2, "sides": ["x"]} for number, one in enumerate(GAMES)]
    rows = run(tmp_path, "spy-stats", "--by", "step", stdin=lines(*games)).rows
    assert [(one["step"], one["n_games"], one["accuracy"]) for one in rows] == [(0, 2, 1.0), (1, 1, 0.0)]
    assert run(tmp_path, "spy-stats", "--by", "step", stdin=b"").rows == []
    bad = run(tmp_path, "spy-stats", "--by", "sides", stdin=lines(*games))
    assert (bad.rc, "`sides` is no single value" in bad.err) == (1, True)
    for by in ("a,,b", "a,a", "spy_win_rate", "step,n_games"):
        assert run(tmp_path, "spy-stats", "--by", by).rc == 2
    values = [1, 1.0, True, "1", None, 1]
    rows = run(tmp_path, "spy-stats", "--by", "k", stdin=lines(*({**GAMES[0], "k": value} for value in values))).rows
    assert [(type(one["k"]), one["n_games"]) for one in rows] == [
        *((int, 2), (float, 1), (bool, 1), (str, 1), (type(None), 1))
    ]


def test_clues_that_are_missing_or_empty(tmp_path):
    turns = [{"stage": "clue", "role": "spy", "clue": clue} for clue in ("A cube.", "", " ", None)]
    turns += [{"stage": "clue", "role": "spy"}, {"stage": "decision", "role": "spy"}]
    (row,) = run(tmp_path, "spy-stats", stdin=lines({**GAMES[0], "turns": turns})).rows
    assert (row["n_clues"], row["no_clue_share"]) == (5, 0.8)


def test_the_turns_of_one_stage(tmp_path):
    turns = [{"stage": "clue", "round": 1, "player": player, "role": "x"} for player in (1, 2, 3, 4)]
    turns += [
        {"stage": "decision", "player": voter, "vote_number": i, "role": "x"} for i, voter in enumerate((1, 3, 4))
    ]
    game = {**GAMES[2], "turns": turns}
    every = reward(tmp_path, "--turns", "--advantages", stdin=lines(game))
    for stage, count in (("clue", 4), ("decision", 3)):
        some = reward(tmp_path, "--turns", "--advantages", "--stage", stage, stdin=lines(game))
        assert some.lines == [line for line, one in zip(every.lines, every.rows, strict=True) if one["stage"] == stage]
        assert len(some.rows) == count
        of_turns = reward(tmp_path, "--turns", "--advantages", "--stage", stage, stdin=every.out)
        assert [(one["id"], one["reward"]) for one in of_turns.rows] == [
            (one["id"], one["reward"]) for one in some.rows
        ]
    refused = reward(tmp_path, "--stage", "clue", stdin=lines(game))
    assert (refused.rc, refused.complaints) == (2, ["spy-reward: --stage: goes with --turns"])
