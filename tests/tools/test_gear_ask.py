"""gear-ask as users run it: the stop rule, resuming, and what training and scoring need behind it."""

from __future__ import annotations

import json

import frame
import pytest

SPACE = 100
OBSERVED = [1000, 1]


def new(count: int, name: int) -> str:
    """A reply that agrees, and predicts something of its own at so many inputs."""
    return repr((f"h{name}", f"def f(x):\n    return 1 if x >= 1000 else [{name}][x // {count}]"))


def script(replies: dict[str, list[str]]) -> str:
    """What a scripted model says to the problem of each id, turn by turn; the last reply again and again."""
    lines = []
    for name, said in replies.items():
        for turn in range(len(said), 0, -1):
            pattern = f"(?s)^user: {name} (?:(?:(?!assistant: ).)*assistant: ){{{turn}}}"
            lines.append(json.dumps({"match": pattern, "reply": said[turn - 1]}) + "\n")
    return "".join(lines)


WRONG = repr(("wrong", "def f(x):\n    return [0][x // 50]"))
VECTORS = {
    "six": ([new(100, 0), new(30, 1), new(10, 2), new(5, 3), new(50, 4), new(19, 5), new(100, 6)], 6, "bad"),
    "four": (["what?", WRONG, new(20, 1), new(19, 2), new(100, 3)], 4, "bad"),
    "three": (["what?"], 3, "bad"),
    "on": (["what?", "what?", *(new(100, name) for name in range(2, 40))], 26, "cap"),
    "cap": ([new(100, name) for name in range(40)], 26, "cap"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "space.jsonl").write_text("".join(f"{x}\n" for x in range(SPACE)))
    (tmp_path / "script.jsonl").write_text(script({name: said for name, (said, _, _) in VECTORS.items()}))
    (tmp_path / "first.txt").write_text("{id} {observations}")
    (tmp_path / "in.jsonl").write_text("".join(problem(name) for name in VECTORS))
    return tmp_path


def problem(name: str, **more) -> str:
    return json.dumps({"id": name, "observations": [OBSERVED], **more}) + "\n"


def ask(folder, *args, rows=("in.jsonl",), stdin=b"", tool="gear-ask"):
    argv = [str(frame.BIN / tool), "-q", "--space", "space.jsonl"]
    if tool == "gear-ask":
        argv += ["--backend", "scripted", "--model", "script.jsonl", "--prompt-file", "first.txt"]
        argv += [] if "--max-tokens" in args else ["--max-tokens", "100000"]
    return frame.run([*argv, *args, *rows], cwd=folder, stdin=stdin)


def test_the_stop_rule_on_the_worked_vectors_and_gear_score_finds_the_same(folder):
    asked = ask(folder)
    assert {row["id"]: (len(row["hypotheses"]), row["stop"]) for row in asked.rows} == {
        name: (count, reason) for name, (_, count, reason) in VECTORS.items()
    }
    news = {row["id"]: [one["new"] for one in row["hypotheses"]] for row in asked.rows}
    assert news["six"] == [100, 30, 10, 5, 50, 19]
    bad = {row["id"]: [one["bad"] for one in row["hypotheses"]] for row in asked.rows}
    assert news["four"] == [0, 50, 20, 19]
    assert bad["four"] == [["parse_error"], ["inconsistent"], [], ["few_new"]]
    scored = ask(folder, rows=(), stdin=asked.out, tool="gear-score")
    assert scored.rc == 0, scored.err
    for row, given in zip(scored.rows, asked.rows, strict=True):
        assert row["stop_after"] == (len(row["hypotheses"]) if row["stop"] == "bad" else None)
        assert row["status"] == [one["status"] for one in given["hypotheses"]]
        assert row["new_predictions"] == [one["new"] for one in given["hypotheses"]]
        assert [one["bad"] for one in row["details"]] == [one["bad"] for one in given["hypotheses"]]
        assert row["hypotheses"] == given["hypotheses"]


def test_the_cap_and_the_thresholds_are_options(folder):
    def counts(*args):
        return {row["id"]: len(row["hypotheses"]) for row in ask(folder, *args).rows}

    assert counts("--max-hypotheses", "25")["cap"] == 25
    assert set(counts("--max-hypotheses", "2").values()) == {2}
    assert counts("--max-bad", "1") == {"six": 3, "four": 3, "three": 3, "on": 3, "cap": 26}
    assert counts("--min-new", "0.06")["six"] == 9  # the last is said again and again
    assert counts("--max-bad", "4", "--min-new", "0")["three"] == 4


def test_neither_the_batch_nor_its_order_changes_a_conversation(folder):
    whole = ask(folder, "--samples", "2").lines
    alone = [
        line
        for name in reversed(VECTORS)
        for line in ask(folder, "--samples", "2", "--workers", "2", rows=(), stdin=problem(name).encode()).lines
    ]
    assert sorted(alone) == sorted(whole)


def test_killed_and_resumed_the_output_has_the_same_bytes(folder):
    with (folder / "in.jsonl").open("a") as file:
        file.write(problem("three", n_obs=1) + problem("three", n_obs=2))
    args = ("--samples", "2", "--no-meta", "--max-hypotheses", "4")
    assert ask(folder, *args, "-o", "whole.jsonl").rc == 0
    expected = (folder / "whole.jsonl").read_bytes()
    lines = expected.splitlines(keepends=True)
    assert len(lines) == 14
    for kept in (0, 3, 11):
        (folder / "cut.jsonl.part").write_bytes(b"".join(lines[:kept]) + lines[kept][:100])
        assert ask(folder, *args, "--resume", "-o", "cut.jsonl").rc == 0
        assert (folder / "cut.jsonl").read_bytes() == expected
        (folder / "cut.jsonl").unlink()


@pytest.mark.parametrize("style", ["full", "short", "super-short"])
def test_tokens_masks_and_spans_are_those_of_the_text(folder, style):
    args = ("--followup", style, "--prefill", "(", "--max-hypotheses", "4")
    for row in ask(folder, *args).rows:
        assert bytes(i for i in row["prompt_ids"]).decode() == row["prompt"]
        told = [i for i, own in zip(row["response_ids"], row["loss_mask"], strict=True) if own or i < 256]
        assert bytes(i for i in told if i < 256).decode() == row["response"]
        assert len(row["logprobs"]) == len(row["response_ids"])
        own = [at for at, mark in enumerate(row["loss_mask"]) if mark]
        assert own == [at for one in row["hypotheses"] for at in range(*one["span"])]
        for one in row["hypotheses"]:
            begin, end = one["span"]
            assert "(" + bytes(row["response_ids"][begin : end - 1]).decode() == one["reply"]
            assert row["response_ids"][end - 1] == 256  # the model's own end
        assert row["response"].count("user: ") == len(row["hypotheses"]) - 1 > 0


def test_a_failing_model_fails_its_row_only_and_keeps_what_was_heard(folder):
    lines = json.dumps({"match": "(?s)^user: four .*assistant: .*assistant: ", "error": "the model broke"}) + "\n"
    (folder / "script.jsonl").write_text(lines + (folder / "script.jsonl").read_text())
    rows = ask(folder, "--on-error", "keep").rows
    assert [row.get("error", {}).get("why") for row in rows] == [None, "the model broke", None, None, None]
    assert (len(rows[1]["hypotheses"]), rows[1]["stop"]) == (1, "error")


def test_where_there_is_no_room_for_another_the_asking_ends(folder):
    rows = ask(folder, "--max-tokens", "600", "--followup", "short", "--on-error", "keep").rows
    assert {row["stop"] for row in rows} == {"bad", "token_limit"}
    assert all(len(row["prompt_ids"]) + len(row["response_ids"]) <= 600 for row in rows)
    none = ask(folder, "--max-tokens", "20", "--on-error", "keep").rows
    assert none[0]["error"]["why"] == "the prompt has 39 tokens; the longest sequence has 20"


def test_rows_of_one_problem_with_other_observations_have_draws_of_their_own(folder):
    pytest.importorskip("torch")
    tiny(folder)
    stdin = (problem("a", n_obs=1) + problem("a", n_obs=2) + problem("a")).encode()
    rows = real(folder, stdin=stdin).rows
    assert len({row["response"] for row in rows}) == 3
    assert {row["seed"] for row in rows} == {rows[0]["seed"]}


def tiny(folder):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
        import tiny_pairs

        tiny_pairs.write_text_model(folder / "model")


def real(folder, *args, stdin, **more):
    argv = [str(frame.BIN / "gear-ask"), "-q", "--space", "space.jsonl", "--model", "model", "--device", "cpu"]
    argv += ["--reply-tokens", "12", "--prompt-file", "first.txt", "--followup", "super-short"]
    return frame.run([*argv, *args], cwd=folder, stdin=stdin, **more)


def test_with_a_real_model_a_conversation_is_what_the_template_makes_of_it_and_policy_train_reads_it(folder):
    """What was sampled is kept, what is put behind it is the template's, and the end of a turn is there once."""
    pytest.importorskip("torch")
    tiny(folder)
    stdin = "".join(problem(f"p{i}") for i in range(3)).encode()
    asked = real(folder, "--temperature", "1.5", "--reply-tokens", "60", "--samples", "6", stdin=stdin)
    assert asked.rc == 0, asked.err
    import tiny_pairs

    words = tiny_pairs.tokenizer()
    ended = 0
    for row in asked.rows:
        assert len(row["hypotheses"]) == 3
        ids, marks, last = row["response_ids"], row["loss_mask"], 0
        for one in row["hypotheses"]:
            begin, end = one["span"]
            assert all(log < 0 for log in row["logprobs"][begin:end])
            assert not any(row["logprobs"][last:begin])
            assert not any(marks[last:begin])
            if last:
                close = words.encode("<eos>") if ids[last - 1] != 1 else []
                following = words.encode("<|user|>Next.\n<eos><|assistant|>", add_special_tokens=False)
                assert ids[last:begin] == [*close, *following]
            ended += ids[end - 1] == 1
            last = end
    assert 0 < ended < 54  # of 54 replies: both ways to end a turn are there
    argv = next(list(command.argv) for command in frame.COMMANDS if command.name == "policy-train")
    rows = b"".join(json.dumps({**row, "advantage": 1.0}).encode() + b"\n" for row in asked.rows)
    done = frame.run(
        [*argv, "--policy", "policy", "--model", "model", "--device", "cpu", "--batch-rows", "18"],
        cwd=folder,
        stdin=rows,
    )
    assert done.rc == 0, done.err
    assert done.rows[0]["tokens"] == sum(sum(row["loss_mask"]) for row in asked.rows)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--space", "nowhere=x"), "x: No such file or directory"),
        (("--system", "x", "--raw-prompt"), "--system: a system message needs the chat template: drop --raw-prompt"),
        (("--stop", ""), "--stop: an empty text would end every reply"),
        (("--max-hypotheses", "0"), "'--max-hypotheses'"),
        (("--min-new", "1.1"), "'--min-new'"),
        (("--parser", "lenient"), "'--parser'"),
        (("--follow",), "--follow: goes with --policy"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder, args, why):
    done = ask(folder, *args)
    assert done.rc in (1, 2)
    assert done.out == b""
    assert len(done.complaints) == 1
    assert why in done.complaints[0]
