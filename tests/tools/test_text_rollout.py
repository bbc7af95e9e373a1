"""text-rollout as users run it, with a scripted model; tests/tools/test_policy_follow.py has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frame
import pytest

SCRIPT = [{"match": "What is 3", "error": "the model broke"}, {"match": ".", "reply": " it is so."}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SCRIPT))
    (tmp_path / "q.jsonl").write_bytes(prompts(*range(3), *range(4, 7)))
    return tmp_path


def prompts(*numbers: int, **more: Any) -> bytes:
    rows = [{"id": f"q{i}", "prompt": f"What is {i}", **more} for i in numbers]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def rollout(folder: Path, *args: str, stdin: bytes = b"", tool: str = "text-rollout") -> frame.Result:
    base = [str(frame.BIN / tool), "--backend", "scripted", "--model", "script.jsonl"]
    return frame.run([*base, *args], cwd=folder, stdin=stdin)


def test_samples_of_a_prompt_have_seeds_of_their_own_and_so_has_a_prompt_drawn_again(folder):
    drawn = b"".join(prompts(0, draw=draw) for draw in (0, 1, 1))
    rows = rollout(folder, "--samples", "2", stdin=prompts(0) + drawn).rows
    assert [(row["id"], row["sample"], row["prompt_id"]) for row in rows] == [
        ("q0", sample, "q0") for _ in range(4) for sample in (0, 1)
    ]
    seeds = [row["seed"] for row in rows]
    assert len(set(seeds)) == 6
    assert seeds[4:6] == seeds[6:8]
    alone = rollout(folder, "--samples", "2", stdin=prompts(0, draw=1)).rows
    assert [row["seed"] for row in alone] == seeds[4:6]


def test_seeds_are_those_of_rag_rollout(folder):
    given = json.dumps({"id": "q0", "prompt": "?", "question": "?", "draw": 3}).encode()
    seeds = [
        [row["seed"] for row in rollout(folder, "--samples", "2", *more, stdin=given, tool=tool).rows]
        for tool, more in (("text-rollout", ()), ("rag-rollout", ("--retriever", "none")))
    ]
    assert len(seeds[0]) == 2
    assert seeds[0] == seeds[1]


def test_what_training_needs_has_one_entry_a_token(folder):
    (row,) = rollout(folder, "--prefill", "I say", "--stop", "so", stdin=prompts(0)).rows
    assert row["response"] == "I say it is so"
    assert row["finish"] == "stop"
    assert len(row["response_ids"]) == len(row["loss_mask"]) == len(row["logprobs"]) == len("I say it is so")
    assert row["loss_mask"] == [0] * len("I say") + [1] * len(" it is so")
    assert bytes(row["prompt_ids"]).decode() == row["prompt"] == "user: What is 0\nassistant: "


def test_a_failing_model_fails_its_row_only(folder):
    done = rollout(folder, "--on-error", "keep", "--prefill", "Well,", stdin=prompts(2, 3, 4))
    assert [row.get("error", {}).get("why") for row in done.rows] == [None, "the model broke", None]
    assert (done.rows[1]["response"], done.rows[1]["finish"]) == ("Well,", "error")


def test_killed_and_resumed_the_output_has_the_same_bytes(folder):
    """Also where a curriculum draws a prompt twice."""
    with (folder / "q.jsonl").open("ab") as file:
        file.write(prompts(1, 1, draw=9))
    args = ("--samples", "3", "--no-meta")
    assert rollout(folder, *args, "-o", "whole.jsonl", "q.jsonl").rc == 0
    expected = (folder / "whole.jsonl").read_bytes()
    part = folder / "cut.jsonl.part"
    lines = expected.splitlines(keepends=True)
    assert len(lines) == 24
    for kept in (0, 1, 7, 20):
        part.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        assert rollout(folder, *args, "--resume", "-o", "cut.jsonl", "q.jsonl").rc == 0
        assert (folder / "cut.jsonl").read_bytes() == expected
        (folder / "cut.jsonl").unlink()


def test_shards_together_are_the_whole(folder):
    whole = rollout(folder, "--samples", "2", "q.jsonl").lines
    shards = [rollout(folder, "--samples", "2", "--shard", f"{i}/3", "q.jsonl").lines for i in range(3)]
    assert sorted(line for shard in shards for line in shard) == sorted(whole)


def test_the_manifest_names_the_model(folder):
    assert rollout(folder, "-o", "out.jsonl", "q.jsonl").rc == 0
    assert json.loads((folder / "out.jsonl.meta.json").read_text())["model"]["engine"] == "scripted"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--follow",), "--follow: goes with --policy"),
        (("--policy", "nowhere"), "nowhere: no such folder"),
        (("--prompt-file", "nowhere.txt"), "nowhere.txt: No such file or directory"),
        (("--prompt-file", "."), ".: Is a directory"),
        (("--system", "x", "--raw-prompt"), "--system: a system message needs the chat template: drop --raw-prompt"),
        (("--stop", ""), "--stop: an empty text would end every answer"),
        (("--samples", "0"), "'--samples'"),
        (("--model", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder, args, why):
    done = rollout(folder, *args, "q.jsonl")
    assert done.rc in (1, 2)
    assert done.out == b""
    assert len(done.complaints) == 1
    assert why in done.complaints[0]


def test_a_resident_rollout_answers_before_its_input_ends(folder):
    argv = [str(frame.BIN / "text-rollout"), "--backend", "scripted", "--model", "script.jsonl"]
    with frame.started(argv, cwd=folder) as process:
        process.stdin.write(prompts(0))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "q0"
        assert process.poll() is None
