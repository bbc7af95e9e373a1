"""policy-train as a process: what is published, what survives a kill, several processes, a loop, bad input."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import frame
import pytest
import training

COMMAND = next(command for command in frame.COMMANDS if command.name == "policy-train")
USUAL = ("--policy", "policy", "--model", str(training.TINY), "--device", "cpu", "--lr", "1e-2", "--batch-rows", "8")
QUICK = {"OMP_NUM_THREADS": "1"}


def train_apart(folder: Path, *args, rows):
    """Run in a process of its own, in `folder`."""
    (folder / "rows.jsonl").write_bytes(training.lines(rows))
    return frame.run([*COMMAND.argv, *USUAL, *args, "rows.jsonl"], cwd=folder, env=QUICK)


@pytest.fixture
def train(capfd, monkeypatch):
    """Run within this process, which has torch loaded already: `train(folder, *args, rows=...)`."""

    def run(folder: Path, *args, rows) -> frame.Result:
        (folder / "rows.jsonl").write_bytes(training.lines(rows))
        monkeypatch.chdir(folder)
        capfd.readouterr()
        code = COMMAND.tool.run([*USUAL, *args, "rows.jsonl"])
        out, err = capfd.readouterr()
        return frame.Result(code, out.encode(), err)

    return run


def current(folder: Path) -> dict:
    return training.weights(folder / "policy" / "current")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without any disturbance over 36 rows, and what it made."""
    folder = tmp_path_factory.mktemp("whole")
    result = train_apart(folder, rows=training.rollouts(36))
    assert result.rc == 0, result.err
    return folder, result


def test_each_update_is_published_and_told(whole):
    folder, result = whole
    assert [(row["step"], row["version"], row["rows"]) for row in result.rows] == [
        *((step, f"v00000{step}", 8) for step in (1, 2, 3, 4)),
        (5, "v000005", 4),
    ]
    assert {path.name for path in (folder / "policy").iterdir()} == {"current", "state", "v000004", "v000005"}
    assert (folder / "policy" / "current").readlink() == Path("v000005")
    assert training.furthest(current(folder), training.weights(training.TINY)) > 1e-3
    first = result.rows[0]
    assert first["ratio_mean"] == pytest.approx(1.0, abs=1e-5)  # the rows were sampled from the start model
    rows = training.rollouts(8)
    assert first["tokens"] == sum(sum(row["loss_mask"]) for row in rows)
    assert first["mean_reward"] == pytest.approx(sum(row["reward"]["total"] for row in rows) / 8)
    assert "train_s" not in first


def test_what_is_published_is_a_model_with_its_tokenizer(whole):
    folder, _ = whole
    place = folder / "policy" / "current"
    model = training.transformers.AutoModelForCausalLM.from_pretrained(place)
    assert model.dtype == training.torch.float32
    tokenizer = training.transformers.AutoTokenizer.from_pretrained(place)
    assert tokenizer.decode([0, 1]) == '!"'
    state = {path.name for path in (folder / "policy" / "state").iterdir()}
    assert state == {"lock", "current", "c000005"}


def test_the_same_command_gives_the_same_bytes(whole, tmp_path, train):
    _, before = whole
    again = train(tmp_path, rows=training.rollouts(36))
    assert again.out == before.out


def test_a_second_run_has_nothing_to_do_unless_asked(whole, tmp_path, train):
    folder, _ = whole
    subprocess.run(["cp", "-a", str(folder / "policy"), str(tmp_path)], check=True)
    result = train(tmp_path, rows=training.rollouts(36))
    assert (result.rc, result.out) == (0, b"")
    assert "all 36 rows were trained on before; --again trains on them once more" in result.err
    result = train(tmp_path, "--again", rows=training.rollouts(36))
    assert [row["step"] for row in result.rows] == [6, 7, 8, 9, 10]


def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(whole, tmp_path):
    """kill -9 after each update in turn; the rows of updates and the weights are those of the run in one piece."""
    folder, before = whole
    (tmp_path / "rows.jsonl").write_bytes(training.lines(training.rollouts(36)))
    line = [*COMMAND.argv, *USUAL, "--steps-file", "curve.jsonl", "rows.jsonl"]
    for kills in range(3):
        with frame.started([*line], cwd=tmp_path, env=QUICK) as process:
            assert process.stdout.readline(), process.stderr.read()
            if kills == 1:  # in the midst of the next update, or of saving or publishing it
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            process.wait()
    result = frame.run(line, cwd=tmp_path, env=QUICK)
    assert result.rc == 0, result.err
    assert (tmp_path / "curve.jsonl").read_bytes() == before.out
    assert training.furthest(current(tmp_path), current(folder)) == 0.0
    assert not list((tmp_path / "policy").glob(".*"))


def test_a_resumed_output_has_every_update_once(whole, tmp_path):
    _, before = whole
    (tmp_path / "rows.jsonl").write_bytes(training.lines(training.rollouts(36)))
    line = [*COMMAND.argv, *USUAL, "-o", "out.jsonl", "rows.jsonl"]
    with frame.started(line, cwd=tmp_path, env=QUICK) as process:
        frame.wait_until(lambda: (tmp_path / "policy" / "v000002").exists(), "the second update")
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = frame.run([*line, "--resume"], cwd=tmp_path, env=QUICK)
    assert result.rc == 0, result.err
    assert (tmp_path / "out.jsonl").read_bytes() == before.out


@pytest.mark.parametrize("kept", [3, 5, 8])
def test_a_resumed_output_has_all_feedback_once(kept, tmp_path, train):
    """The state is of update 2; the output that a kill left lacks some of what tells of it, or has more."""
    feedback = ("--emit-feedback", "-o", "out.jsonl", "--resume")
    assert train(tmp_path, *feedback[:1], rows=training.rollouts(16)).rc == 0
    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole", *feedback[:1], rows=training.rollouts(36)).out
    (tmp_path / "out.jsonl.part").write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]) + b'{"id":"q')
    assert train(tmp_path, *feedback, rows=training.rollouts(36)).rc == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_updates_that_were_not_saved_are_made_again(whole, tmp_path):
    """With --publish 3 a kill loses what came since; the same rows give the same updates."""
    folder, before = whole
    (tmp_path / "rows.jsonl").write_bytes(training.lines(training.rollouts(36)))
    line = [*COMMAND.argv, *USUAL, "--publish", "3", "--steps-file", "curve.jsonl", "rows.jsonl"]
    with frame.started(line, cwd=tmp_path, env=QUICK) as process:
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert frame.run(line, cwd=tmp_path, env=QUICK).rc == 0
    assert (tmp_path / "curve.jsonl").read_bytes() == before.out
    assert training.furthest(current(tmp_path), current(folder)) == 0.0
    assert {path.name for path in (tmp_path / "policy").glob("v*")} == {"v000003", "v000005"}


def test_a_signal_ends_it_after_the_update_in_hand(whole, tmp_path, train):
    _, before = whole
    rows = training.lines(training.rollouts(36)).splitlines(keepends=True)
    with frame.started([*COMMAND.argv, *USUAL], cwd=tmp_path, env=QUICK) as process:
        process.stdin.write(b"".join(rows[:12]))
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        result = frame.ended(process)
    assert (result.rc, result.out) == (75, b"")
    assert (tmp_path / "policy" / "current").readlink() == Path("v000001")
    rest = train(tmp_path, rows=training.rollouts(36))
    assert first + rest.out == before.out


def test_two_processes_do_what_one_does(whole, tmp_path):
    """The gradient is that of one process, whoever had which row; only the order of sums differs."""
    folder, before = whole
    (tmp_path / "rows.jsonl").write_bytes(training.lines(training.rollouts(36)))
    (tmp_path / "run.py").write_text("from toolroll.tools.policy_train import main\nmain()\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line = [*launch, "run.py", *USUAL]
    result = frame.run([*line, "rows.jsonl"], cwd=tmp_path, env=QUICK)
    assert result.rc == 0, result.err
    assert "2 processes" in result.err
    assert len(result.rows) == len(before.rows) == 5
    for row, expected in zip(result.rows, before.rows, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    assert training.furthest(current(tmp_path), current(folder)) < 1e-5


def test_two_trainers_do_not_share_a_directory(tmp_path, train):
    with frame.started([*COMMAND.argv, *USUAL], cwd=tmp_path, env=QUICK) as process:
        frame.wait_until(lambda: (tmp_path / "policy" / "current").exists(), "the start model is published")
        result = train(tmp_path, rows=[])
        assert (result.rc, result.err.strip()) == (1, "policy-train: policy: another trainer is at work on it")
        assert frame.ended(process).rc == 0


def test_feedback_follows_the_version_it_is_about(tmp_path):
    """The next rollouts, which the request for draws sets off, find the new version."""
    rows = training.rollouts(16)
    rows[3] = {"id": "q0", "prompt_id": "q0", "draw": 0, "error": {"why": "lost", "where": "x"}}
    line = [*COMMAND.argv, *USUAL, "--emit-feedback", "--steps-file", "s"]
    with frame.started(line, cwd=tmp_path, env=QUICK) as process:
        for step, part in ((1, rows[:8]), (2, rows[8:])):
            process.stdin.write(training.lines(part))
            process.stdin.flush()
            told = [json.loads(process.stdout.readline()) for _ in range(3)]
            assert (tmp_path / "policy" / "current").readlink() == Path(f"v00000{step}")
            first, second = part[:4], part[4:]
            assert told == [
                {
                    "id": f"{group[0]['prompt_id']}#{group[0]['draw']}#{step}",
                    "distribution": group[0]["distribution"],
                    "advantages": [row["advantage"] for row in group if "error" not in row],
                    "step": step,
                }
                for group in (first, second)
            ] + [{"draws": 2, "step": step}]
        assert frame.ended(process).rc == 0
    steps = [json.loads(line) for line in (tmp_path / "s").read_bytes().splitlines()]
    assert [(row["step"], row["rows"], row["failed"]) for row in steps] == [(1, 7, 1), (2, 8, 0)]


def test_a_batch_of_failed_rows_asks_for_more_and_changes_nothing(tmp_path, train):
    failed = [{"id": f"q{i // 4}", "sample": i % 4, "error": {"why": "lost", "where": "x"}} for i in range(8)]
    result = train(tmp_path, "--emit-feedback", rows=failed)
    assert (result.rc, result.rows) == (0, [{"draws": 2, "step": 0}])
    assert (tmp_path / "policy" / "current").readlink() == Path("v000000")


def test_stale_and_long_rows_are_left_out_and_counted(tmp_path, train):
    rows = training.rollouts(16)
    rows[9]["response_ids"] *= 30
    rows[9]["loss_mask"] *= 30
    rows[9]["logprobs"] *= 30
    for row in rows[12:]:
        row["policy_version"] = "v000001"
    result = train(tmp_path, "--max-stale", "0", "--max-tokens", "80", rows=rows)
    assert [(row["rows"], row["stale"], row["long"]) for row in result.rows] == [(8, 0, 0), (4, 4, 0)]
    assert "4 rows were left out: their policy was more than 0 updates old" in result.err
    (tmp_path / "long").mkdir()
    result = train(tmp_path / "long", "--max-tokens", "80", rows=rows)
    assert [(row["rows"], row["long"]) for row in result.rows] == [(8, 0), (7, 1)]
    result = train(tmp_path / "long", "--max-tokens", "80", "--on-long", "fail", "--again", rows=rows)
    assert (result.rc, result.complaints[-1]) == (1, "policy-train: rows.jsonl:10: longer than --max-tokens 80")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_row_that_cannot_be_used(tmp_path, on_error, train):
    """It ends the run with what was done kept, or it counts as one of its update."""
    rows = training.rollouts(16)
    rows[10]["logprobs"] = [0.0]
    result = train(tmp_path, "--on-error", on_error, rows=rows)
    why = f"policy-train: rows.jsonl:11: 1 logprobs for {len(rows[10]['response_ids'])} response_ids"
    assert why in result.err.splitlines()
    assert (result.rc, len(result.rows)) == ((1, 1) if on_error == "stop" else (0, 2))
    assert (tmp_path / "policy" / "current").readlink() == Path(f"v00000{len(result.rows)}")
    if on_error == "skip":
        assert result.rows[1]["failed"] == 1


def test_an_incomplete_batch_is_kept_for_another_time(tmp_path, train):
    rows = training.rollouts(12)
    result = train(tmp_path, "--on-partial", "drop", rows=rows)
    assert [row["rows"] for row in result.rows] == [8]
    result = train(tmp_path, "--on-partial", "drop", rows=training.rollouts(16))
    assert [(row["step"], row["rows"]) for row in result.rows] == [(2, 8)]


def test_a_full_disk_leaves_the_good_state(tmp_path, train):
    rows = training.rollouts(16)
    assert train(tmp_path, rows=rows[:8]).rc == 0
    before = current(tmp_path)
    limited = f"ulimit -f 40; exec {shlex.join([COMMAND.name, *USUAL, 'rows.jsonl'])}"
    (tmp_path / "rows.jsonl").write_bytes(training.lines(rows))
    result = frame.shell(limited, cwd=tmp_path, env=QUICK)
    assert result.rc == 1
    assert result.complaints[-1].startswith("policy-train: policy/state/c000002: cannot be written: ")
    assert training.furthest(current(tmp_path), before) == 0.0
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == ["current", "state", "v000000", "v000001"]
    assert sorted(path.name for path in (tmp_path / "policy" / "state").iterdir()) == ["c000001", "current", "lock"]
    result = train(tmp_path, rows=rows)
    assert [row["step"] for row in result.rows] == [2]


def test_a_version_that_was_saved_and_not_published_is_published(tmp_path, train):
    assert train(tmp_path, rows=training.rollouts(16)).rc == 0
    policy = tmp_path / "policy"
    after = current(tmp_path)
    (policy / "current").unlink()
    (policy / "current").symlink_to("v000001")
    (policy / "v000002").rename(policy / ".v000002.part")
    assert train(tmp_path, rows=training.rollouts(16)).rc == 0
    assert (policy / "current").readlink() == Path("v000002")
    assert training.furthest(current(tmp_path), after) == 0.0
    assert not list(policy.glob(".*"))


def test_settings_that_make_another_training_are_refused_and_others_told(tmp_path, train):
    assert train(tmp_path, rows=training.rollouts(8)).rc == 0
    result = train(tmp_path, "--algo", "ppo", rows=training.rollouts(8))
    assert (result.rc, result.complaints[-1]) == (
        1,
        "policy-train: --algo: training began with grpo; ppo would be another one",
    )
    result = train(tmp_path, "--clip-ratio", ".3", rows=training.rollouts(8))
    assert result.rc == 0
    assert "policy-train: warning: --clip-ratio was 0.2, is now 0.3" in result.err


def test_a_damaged_directory_is_named(tmp_path, train):
    (tmp_path / "policy" / "v000001").mkdir(parents=True)
    (tmp_path / "policy" / "current").symlink_to("v000001")
    result = train(tmp_path, rows=[])
    assert result.rc == 1
    assert result.err.strip() == "policy-train: policy: `current` is not a whole model (no config.json in it)"
    (tmp_path / "new").mkdir()
    assert train(tmp_path / "new", rows=training.rollouts(8)).rc == 0
    tensors = tmp_path / "new" / "policy" / "state" / "c000001" / "tensors.safetensors"
    os.truncate(tensors, 100)
    result = train(tmp_path / "new", rows=training.rollouts(8))
    assert (result.rc, "the checkpoint is damaged" in result.complaints[-1]) == (1, True)


def test_a_directory_without_a_version_needs_a_model(tmp_path):
    result = frame.run([*COMMAND.argv, "--policy", "policy"], cwd=tmp_path)
    assert (result.rc, result.err.strip()) == (
        2,
        "policy-train: policy: has no version yet; name the model to start from with --model",
    )
    assert not (tmp_path / "policy").exists()


def test_divergence_stops_it_with_nothing_saved(tmp_path, train):
    rows = training.rollouts(16)
    for row in rows[8:]:
        row["advantage"] = 1e38
    result = train(tmp_path, "--clip-ratio", "1e30", rows=rows)
    assert result.rc == 1
    assert "training has diverged" in result.complaints[-1]
    assert (tmp_path / "policy" / "current").readlink() == Path("v000001")


def test_ppo_goes_on_after_a_kill(tmp_path, train):
    ppo = ("--algo", "ppo", "--kl-coef", ".01", "--reference", str(training.TINY), "--critic-lr", "1e-2")
    rows = training.rollouts(24)
    (tmp_path / "one").mkdir()
    before = train(tmp_path / "one", *ppo, rows=rows)
    assert before.rc == 0, before.err
    assert all(row["value_loss"] > 0 for row in before.rows)
    (tmp_path / "rows.jsonl").write_bytes(training.lines(rows))
    line = [*COMMAND.argv, *USUAL, *ppo, "--steps-file", "curve", "rows.jsonl"]
    with frame.started(line, cwd=tmp_path, env=QUICK) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert frame.run(line, cwd=tmp_path, env=QUICK).rc == 0
    assert (tmp_path / "curve").read_bytes() == before.out
    assert training.furthest(current(tmp_path), current(tmp_path / "one")) == 0.0


@pytest.mark.parametrize("publish_as", ["merged", "adapter"])
def test_adapters_go_on_after_a_kill_and_are_published(tmp_path, publish_as, train):
    pytest.importorskip("peft")
    lora = ("--lora", "4", "--lora-dropout", ".1", "--kl-coef", ".1", "--publish-as", publish_as)
    rows = training.rollouts(24)
    (tmp_path / "one").mkdir()
    before = train(tmp_path / "one", *lora, rows=rows)
    assert before.rc == 0, before.err
    assert before.rows[0]["kl"] == pytest.approx(0.0, abs=0.01)
    assert before.rows[2]["kl"] > before.rows[0]["kl"]
    (tmp_path / "rows.jsonl").write_bytes(training.lines(rows))
    line = [*COMMAND.argv, *USUAL, *lora, "--steps-file", "curve", "rows.jsonl"]
    with frame.started(line, cwd=tmp_path, env=QUICK) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = frame.run(line, cwd=tmp_path, env=QUICK)
    assert result.rc == 0, result.err
    assert (tmp_path / "curve").read_bytes() == before.out
    versions = sorted(path.name for path in (tmp_path / "policy").glob("v*"))
    assert versions == ["v000000", "v000002", "v000003"]
    from toolroll.models.device import Device
    from toolroll.models.load import load_causal_lm

    models = [
        load_causal_lm(str(place / "policy" / "current"), Device("cpu", "float32", 1, "cpu")).model.state_dict()
        for place in (tmp_path, tmp_path / "one")
    ]
    assert training.furthest(*models) == 0.0
    assert training.furthest(models[0], {**models[0], **training.tiny().state_dict()}) > 1e-3
    assert (tmp_path / "policy" / "current" / "adapter_config.json").exists() == (publish_as == "adapter")
