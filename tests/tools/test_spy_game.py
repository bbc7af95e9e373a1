"""spy-game as users run it: what is written, resumed and refused, and what training takes up."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import frame
import pytest
from replying import replying

COLORS = ("gray", "red", "blue", "green", "brown", "purple")
SHAPES = ("cube", "sphere", "cylinder")
RULES = ("--model", "rules", "--spy-image", "modified", "--no-meta")


def scene(*numbers: int) -> dict[str, Any]:
    kinds = [(COLORS[number % 6], SHAPES[number // 6 % 3]) for number in numbers]
    return {
        "objects": [{"color": color, "shape": shape, "size": "large", "material": "metal"} for color, shape in kinds]
    }


def pairs(*numbers: int, **more: Any) -> bytes:
    rows = [
        {
            "id": f"p{i}",
            "kind": "scenes",
            "original_scene": scene(i, i + 3, i + 7),
            "modified_scene": scene(i, i + 4, i + 11),
            **more,
        }
        for i in numbers
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def spy(folder: Path, tool: str, *args: Any, stdin: bytes = b"") -> frame.Result:
    return frame.run([str(frame.BIN / tool), *map(str, args)], cwd=folder, stdin=stdin)


def game(folder: Path, *args: Any, stdin: bytes = b"", base: tuple[str, ...] = RULES) -> frame.Result:
    return spy(folder, "spy-game", *base, *args, stdin=stdin)


def test_presets_are_the_games_of_the_paper_and_of_its_code(tmp_path):
    (paper,) = game(tmp_path, stdin=pairs(0), base=("--model", "rules")).rows
    (code,) = game(tmp_path, "--preset", "code", stdin=pairs(0), base=("--model", "rules")).rows
    about = ("spy_image", "n_players", "rounds", "voters")
    assert [paper[name] for name in about] == ["blank", 5, 2, "civilians"]
    assert [code[name] for name in about] == ["modified", 4, 2, "judge"]
    assert (len(paper["votes"]), len(code["votes"])) == (4, 8)
    assert {vote["voter"] for vote in code["votes"]} == {"judge"}
    own = ("--preset", "code", "--civilians", 2, "--rounds", 3, "--votes-per-judge", 3, "--spy-image", "same")
    (mixed,) = game(tmp_path, *own, stdin=pairs(0), base=("--model", "rules")).rows
    assert [mixed[name] for name in about] == ["same", 3, 3, "judge"]
    assert (len(mixed["turns"]), len(mixed["votes"])) == (12, 3)


def test_a_game_is_whole(tmp_path):
    (row,) = game(tmp_path, stdin=pairs(0)).rows
    clues = [turn for turn in row["turns"] if turn["stage"] == "clue"]
    votes = [turn for turn in row["turns"] if turn["stage"] == "decision"]
    assert [turn["vote"] for turn in votes] == [vote["vote"] for vote in row["votes"]]
    assert [turn["player"] for turn in votes] == [vote["voter"] for vote in row["votes"]]
    assert sum(row["tally"]) + row["n_na"] + row["n_invalid"] == 4
    assert all(turn["role"] == ("spy" if turn["player"] == row["spy"] else "civilian") for turn in row["turns"])
    assert len(clues) == 10
    assert row["original_scene"] == scene(0, 3, 7)


def test_neither_order_nor_neighbours_nor_batches_change_a_game(tmp_path):
    args = ("--samples", 2, "--preset", "code")
    whole = game(tmp_path, *args, stdin=pairs(*range(9)))
    for at_once in (1, 4):
        assert game(tmp_path, *args, "--at-once", at_once, stdin=pairs(*range(9))).out == whole.out
    backward = game(tmp_path, *args, stdin=pairs(*reversed(range(9))))
    assert sorted(backward.lines) == sorted(whole.lines)
    assert game(tmp_path, *args, stdin=pairs(5)).lines == whole.lines[10:12]
    other = game(tmp_path, *args, "--seed", 1, stdin=pairs(*range(9)))
    assert [row["spy"] for row in other.rows] != [row["spy"] for row in whole.rows]
    drawn = game(tmp_path, *args, stdin=pairs(5, draw=3)).rows
    assert {row["seed"] for row in drawn}.isdisjoint(row["seed"] for row in whole.rows)


@pytest.mark.parametrize("more", [(), ("--turns",)], ids=["games", "turns"])
def test_killed_and_resumed_the_output_has_the_same_bytes(tmp_path, more):
    (tmp_path / "pairs.jsonl").write_bytes(pairs(0, 1, 2) + pairs(1, draw=4))
    args = ("--samples", 2, *more)
    expected = game(tmp_path, *args, "pairs.jsonl").out
    lines = expected.splitlines(keepends=True)
    assert len(lines) == 8 * (14 if more else 1)
    for kept in (0, 1, len(lines) // 2, len(lines) - 1):
        part = tmp_path / "out.jsonl.part"
        part.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert game(tmp_path, *args, "-o", "out.jsonl", "--resume", "pairs.jsonl").rc == 0
        assert (tmp_path / "out.jsonl").read_bytes() == expected


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Pairs with pictures, and how a tiny model plays about them."""
    pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image", reason="images are read by pillow")
    folder = tmp_path_factory.mktemp("seen")
    for i in range(8):
        image.new("RGB", (16, 16), (30 * i, 9, 99)).save(folder / f"{i}.png")
    rows = [{"id": f"p{i}", "original": f"{2 * i}.png", "modified": f"{2 * i + 1}.png"} for i in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


TINY = ("--model", str(frame.ROOT / "tests/data/tiny-llava"), "--device", "cpu", "--wording", "short", "--no-meta")
PLAY = (*TINY, "--civilians", 2, "--rounds", 1, "--response-tokens", 12, "--samples", 2, "--at-once", 3, "pairs.jsonl")


def test_where_sprite_plays_all_seats_it_is_asked_in_the_words_that_it_knows(seen):
    base = ("--device", "cpu", "--no-meta", "--civilians", 2, "--rounds", 1, "--response-tokens", 1, "pairs.jsonl")
    asked = [turn["prompt"] for row in game(seen, base=base).rows for turn in row["turns"]]
    assert [text.partition("<image>")[2][:22] for text in asked[:2]] == [f"You are player {i} of 3," for i in (1, 2)]
    assert all("\\boxed{}" in text and len(text) < 300 for text in asked)
    assert len(asked) == 4 * 5


@pytest.mark.parametrize("more", [(), ("--turns",)], ids=["games", "turns"])
def test_killed_and_resumed_a_model_says_the_same_to_the_last_bit(seen, tmp_path, more):
    """Games are played three by three: what they share a batch with moves their log-probabilities."""
    expected = game(seen, *more, base=PLAY).out
    lines = expected.splitlines(keepends=True)
    out, part = tmp_path / "out", tmp_path / "out.part"
    line = [str(frame.BIN / "spy-game"), *map(str, PLAY), *more, "-o", str(out)]
    with frame.started(line, cwd=seen) as process:
        frame.wait_until(lambda: part.exists() and part.stat().st_size, "a row is written")
        process.kill()
    for kept in (None, len(lines) // 2 + 1, len(lines) - 1):
        if kept is not None:
            part.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert game(seen, *more, "-o", out, "--resume", base=PLAY).rc == 0
        assert out.read_bytes() == expected


@pytest.mark.network
@pytest.mark.parametrize("more", [(), ("--turns",)], ids=["games", "turns"])
def test_asked_to_stop_it_plays_the_games_in_hand_to_their_end(tmp_path, more):
    processes = []

    def answer():
        if len(processes) == 1:
            processes.append(processes[0].send_signal(signal.SIGTERM))
        return r"They do not agree. \boxed{1}"

    (tmp_path / "pairs.jsonl").write_bytes(pairs(*range(5)))
    args = ("--at-once", 3, "--civilians", 2, "--rounds", 1, "--sight", "words", *more, "-o", "out", "pairs.jsonl")
    with replying(answer) as url:
        line = [str(frame.BIN / "spy-game"), "--base-url", url, "--model", "m", "--no-meta", *map(str, args)]
        with frame.started(line, cwd=tmp_path) as process:
            processes.append(process)
            stopped = frame.ended(process)
    assert (stopped.rc, stopped.complaints[-1:]) == (
        75,
        ["spy-game: warning: stopped by SIGTERM; --resume continues it"],
    )
    rows = [json.loads(line) for line in (tmp_path / "out.part").read_bytes().splitlines()]
    assert [row["id"].partition("#")[0] for row in rows] == [f"p{i}" for i in range(3) for _ in range(5 if more else 1)]
    assert not any("error" in row for row in rows)


def test_a_game_that_fails_is_marked_and_the_others_go_on(tmp_path):
    script = [
        {"match": r"player 2 of(.|\n)*Clue of 1", "error": "the model broke"},
        {"match": "time to vote", "reply": r"They differ. \boxed{2}"},
        {"match": "You are player 1", "reply": r"Hm. \boxed{Clue of 1.}"},
        {"match": ".", "reply": r"Hm. \boxed{Another.}"},
    ]
    (tmp_path / "fails.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    (tmp_path / "plays.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script[1:]))
    model = ("--backend", "scripted", "--sight", "words", "--civ-model", "plays.jsonl", "--spy-model", "fails.jsonl")
    done = game(tmp_path, "--on-error", "keep", stdin=pairs(*range(12)), base=model)
    assert done.rc == 0
    failed = [row for row in done.rows if "error" in row]
    assert [row["id"] for row in done.rows] == [f"p{i}" for i in range(12)]
    assert 0 < len(failed) < 12
    assert all(row["spy"] == 2 for row in failed)
    assert all(row["error"]["why"] == "player 2, round 1: the model broke" for row in failed)
    assert all([turn["clue"] for turn in row["turns"]] == ["Clue of 1."] for row in failed)
    good = next(row for row in done.rows if "error" not in row)
    assert good["turns"][0]["model"] == "scripted"
    assert bytes(good["turns"][0]["response_ids"][:-1]).decode() == r"Hm. \boxed{Clue of 1.}"


def test_advantages_of_turns_are_those_of_group_advantage(tmp_path):
    turns = game(tmp_path, "--turns", "--samples", 3, "--voters", "all", stdin=pairs(*range(8))).out
    ours = spy(tmp_path, "spy-reward", "--advantages", stdin=turns).rows
    rewarded = spy(tmp_path, "spy-reward", stdin=turns).lines
    assert any(row["advantage"] for row in ours if row["stage"] == "decision")
    for stage, args in (
        ("clue", ("--estimator", "rae", "--group", "game_id", "--consecutive")),
        ("decision", ("--std", "population", "--eps", "1e-8", "--group", "game_id", "--consecutive")),
    ):
        rows = b"".join(line + b"\n" for line in rewarded if json.loads(line)["stage"] == stage)
        theirs = spy(tmp_path, "group-advantage", *args, stdin=rows).rows
        assert [row["id"] for row in theirs] == [row["id"] for row in ours if row["stage"] == stage]
        assert [row["advantage"] for row in theirs] == pytest.approx(
            [row["advantage"] for row in ours if row["stage"] == stage]
        )


def test_games_to_turns_and_turns_are_the_same(tmp_path):
    again = pairs(1, draw=0) + pairs(1, draw=2)  # a curriculum's: other games, of groups of their own
    games = game(tmp_path, stdin=pairs(*range(4)) + again).out
    turns = game(tmp_path, "--turns", stdin=pairs(*range(4)) + again).out
    args = ("--advantages", "--preset", "code")
    one = spy(tmp_path, "spy-reward", "--turns", *args, stdin=games).rows
    other = spy(tmp_path, "spy-reward", *args, stdin=turns).rows
    assert one == other
    assert len({row["id"] for row in one}) == len(one) == 6 * 14
    assert {len(group) for group in grouped(one).values()} == {4, 10}


def grouped(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The games of the rows of each group, by their seeds."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row["game_seed"])
    assert all(len(set(games)) == 1 for games in groups.values())
    return groups


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--civilians", 0), "--civilians"),
        (("--clue-prompt", "nowhere.txt"), "nowhere.txt: No such file"),
        (("--spy-model", "rules", "--civ-model", "rules", "--policy", "x"), "--policy: plays on no side"),
        (("--follow",), "--follow: goes with --policy"),
        (("--policy", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_asked(tmp_path, args, why):
    result = game(tmp_path, *args, stdin=pairs(0))
    assert result.rc in (1, 2)
    assert why in result.err
    assert result.out == b""
