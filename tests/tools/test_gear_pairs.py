"""gear-pairs as users run it, and dpo-train behind it."""

from __future__ import annotations

import json
import random

import frame
import pytest

PLUS = [f"def f(x):\n    return x + {n}" for n in range(3)]
PARTIAL = "def f(x):\n    return [x][x == 2]"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "space.jsonl").write_text("1\n2\n3\n4\n")
    rows = [
        {"id": f"p{i}", "observations": [[9, 9]], "hypotheses": ["?", *({"code": c} for c in (*PLUS, PARTIAL))]}
        for i in range(6)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def pairs(folder, *args, rows=("in.jsonl",), stdin=b""):
    argv = [str(frame.BIN / "gear-pairs"), "-q", "--space", "space.jsonl", *args, *rows]
    return frame.run(argv, cwd=folder, stdin=stdin)


def test_neither_order_nor_workers_nor_other_options_change_what_is_drawn(folder):
    lines = (folder / "in.jsonl").read_bytes().splitlines(keepends=True)
    whole = pairs(folder, "--context-pairs", "2").lines
    random.Random(0).shuffle(lines)
    assert sorted(pairs(folder, "--context-pairs", "2", "--workers", "2", rows=(), stdin=b"".join(lines)).lines) == (
        sorted(whole)
    )
    part = pairs(folder, "--context-pairs", "2", "--contexts", "1").lines
    assert part == [line for line in whole if len(json.loads(line)["context"]) == 1]
    assert part != pairs(folder, "--context-pairs", "2", "--contexts", "1", "--seed", "1").lines


def test_killed_and_resumed_the_output_has_the_same_bytes(folder):
    for args in (("--no-meta",), ("--no-meta", "--balance", "even", "--max-pairs", "20")):
        assert pairs(folder, *args, "-o", "whole.jsonl").rc == 0
        expected = (folder / "whole.jsonl").read_bytes()
        lines = expected.splitlines(keepends=True)
        assert len(lines) > 12
        for kept in (0, 1, 11):
            (folder / "cut.jsonl.part").write_bytes(b"".join(lines[:kept]) + lines[kept][:9])
            assert pairs(folder, *args, "--resume", "-o", "cut.jsonl").rc == 0
            assert (folder / "cut.jsonl").read_bytes() == expected
            (folder / "cut.jsonl").unlink()


def test_the_manifest_counts_pairs_and_what_made_none(folder):
    assert pairs(folder, "--balance", "even", "-o", "out.jsonl").rc == 0
    notes = json.loads((folder / "out.jsonl.meta.json").read_text())
    assert len(set(notes["pairs"].values())) == 1
    assert set(notes["pairs"]) == {"parsing", "inconsistent", "fair"}
    assert sum(notes["pairs"].values()) == len((folder / "out.jsonl").read_bytes().splitlines())
    assert notes["discarded"]["inconsistent"] > 0


def test_what_gear_score_writes_makes_the_same_pairs(folder):
    scored = frame.run([str(frame.BIN / "gear-score"), "-q", "--space", "space.jsonl", "in.jsonl"], cwd=folder)
    assert scored.rc == 0
    assert pairs(folder, rows=(), stdin=scored.out).out == pairs(folder).out


def test_dpo_train_reads_them_as_they_are(folder):
    pytest.importorskip("torch")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
        import tiny_pairs

        tiny_pairs.write_text_model(folder / "model")
    made = pairs(folder, "--balance", "even", "--max-pairs", "6", "--followup", "super-short")
    assert {row["reason"] for row in made.rows} == {"parsing", "inconsistent", "fair"}
    for row in made.rows:
        roles = [message["role"] for message in row["prompt"]]
        assert roles == ["user", *["assistant", "user"] * len(row["context"])]
        assert [[m["role"] for m in row[name]] for name in ("chosen", "rejected")] == [["assistant"]] * 2
        assert row["chosen"] != row["rejected"]
    argv = next(list(command.argv) for command in frame.COMMANDS if command.name == "dpo-train")
    done = frame.run(
        [*argv, "--policy", "policy", "--model", "model", "--device", "cpu", "--batch-rows", "3"],
        cwd=folder,
        stdin=made.out,
    )
    assert done.rc == 0, done.err
    assert [row["pairs"] for row in done.rows] == [3, 3]


def test_trl_reads_them_as_they_are(folder):
    pytest.importorskip("trl", reason="trl is a development dependency")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
        import tiny_pairs
        from trl.data_utils import apply_chat_template, is_conversational

    for row in pairs(folder, "--max-pairs", "3", "--contexts", "1").rows:
        assert is_conversational(row)
        told = apply_chat_template(row, tiny_pairs.tokenizer())
        assert told["prompt"].endswith("<eos><|assistant|>")
        assert (told["chosen"], told["rejected"]) == tuple(
            row[name][0]["content"] + "<eos>" for name in ("chosen", "rejected")
        )
