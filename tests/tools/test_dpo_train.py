"""dpo-train and pair-logps as processes, with tiny models: what survives a kill, what is refused."""

from __future__ import annotations

import json
import signal
import sys
import warnings

import frame
import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import transformers

import tiny_pairs  # noqa: E402

COMMANDS = {command.name: list(command.argv) for command in frame.COMMANDS}
ONE_THREAD = {"SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1"}
SETTINGS = ["--device", "cpu", "--lr", "1e-2", "--batch-rows", "3", "--epochs", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("dpo")
    tiny_pairs.write_text_model(made / "model")
    (made / "pairs.jsonl").write_bytes(lines(talks(8)))
    return made


def talks(count: int) -> list[dict]:
    return [
        {
            "id": f"p{i}",
            "prompt": [{"role": "user", "content": f"Say {i}."}],
            "chosen": [{"role": "assistant", "content": "yes " * (1 + i % 3)}],
            "rejected": [{"role": "assistant", "content": "no" * (1 + i % 4)}],
        }
        for i in range(count)
    ]


def lines(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def train(folder, policy, *args, stdin=b"", rows=("pairs.jsonl",)):
    argv = [*COMMANDS["dpo-train"], "--policy", str(policy), "--model", "model", *SETTINGS, *args, *rows]
    return frame.run(argv, cwd=folder, stdin=stdin, env=ONE_THREAD)


def weights(policy) -> dict:
    from safetensors.torch import load_file

    return load_file(policy / "current" / "model.safetensors")


def furthest(one, other) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def same_but_for_rounding(rows, others) -> None:
    names = ("step", "pairs", "loss", "margin", "rewards_chosen", "rewards_rejected", "grad_norm", "lr")
    for one, other in zip(rows, others, strict=True):
        assert [one[name] for name in names] == pytest.approx([other[name] for name in names], rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def whole(folder):
    """A run that nothing disturbed."""
    done = train(folder, folder / "whole")
    assert done.rc == 0, done.err
    return done


def test_a_policy_is_published_and_prefers_the_better_answers(folder, whole):
    assert [(row["step"], row["epoch"], row["pairs"]) for row in whole.rows] == [
        *((1, 1, 3), (2, 1, 3), (3, 1, 2)),
        *((4, 2, 3), (5, 2, 3), (6, 2, 2)),
    ]
    assert whole.rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert whole.rows[-1]["margin"] > 1
    assert (folder / "whole" / "current").readlink().name == "v000006"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "whole" / "current")
    words = transformers.AutoTokenizer.from_pretrained(folder / "whole" / "current")
    asked = words.apply_chat_template(talks(1)[0]["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.no_grad():
        odds = model(torch.tensor([asked])).logits[0, -1]
    assert odds[words("y")["input_ids"][0]] > odds[words("n")["input_ids"][0]]


def test_a_killed_run_goes_on_to_the_same_weights(folder, whole, tmp_path):
    policy = tmp_path / "policy"
    argv = [*COMMANDS["dpo-train"], "--policy", str(policy), "--model", "model", *SETTINGS, "--publish", "2"]
    with frame.started([*argv, "pairs.jsonl"], cwd=folder, env=ONE_THREAD) as process:
        said = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert said == whole.rows[:3]
    again = train(folder, policy, "--publish", "2")
    assert again.rc == 0, again.err
    began = again.rows[0]["step"]
    assert 3 <= began <= 6
    assert again.rows == whole.rows[began - 1 :]
    assert f"going on after update {began - 1}" in again.err
    assert furthest(weights(policy), weights(folder / "whole")) == 0
    finished = train(folder, policy, "--publish", "2")
    assert (finished.rc, finished.rows) == (0, [])


def test_a_stopped_run_is_resumed_into_a_curve_without_gaps(folder, whole, tmp_path):
    policy, out = tmp_path / "policy", tmp_path / "steps.jsonl"
    argv = [*COMMANDS["dpo-train"], "--policy", str(policy), "--model", "model", *SETTINGS, "-o", str(out)]
    with frame.started([*argv, "pairs.jsonl"], cwd=folder, env=ONE_THREAD) as process:
        frame.wait_until(lambda: (part := out.with_name("steps.jsonl.part")).exists() and part.stat().st_size, "a row")
        process.send_signal(signal.SIGTERM)
        assert frame.ended(process).rc == 75
    done = train(folder, policy, "-o", str(out), "--resume")
    assert done.rc == 0, done.err
    assert [json.loads(line) for line in out.read_bytes().splitlines()] == whole.rows
    assert furthest(weights(policy), weights(folder / "whole")) == 0


def test_reference_log_probabilities_of_pair_logps_are_those_of_the_start(folder, whole, tmp_path):
    made = frame.run([*COMMANDS["pair-logps"], "--model", "model", "pairs.jsonl"], cwd=folder, env=ONE_THREAD)
    assert made.rc == 0, made.err
    assert {"ref_chosen_logps", "ref_rejected_logps", "chosen_tokens", "rejected_tokens"} < made.rows[0].keys()
    assert [row["chosen_tokens"] for row in made.rows[:3]] == [5, 9, 13]
    (tmp_path / "ready.jsonl").write_bytes(made.out)
    done = train(folder, tmp_path / "policy", rows=(str(tmp_path / "ready.jsonl"),))
    assert "reference log-probabilities" not in done.err
    assert not (tmp_path / "policy" / "state" / "reference.safetensors").exists()
    same_but_for_rounding(done.rows, whole.rows)


def test_other_pairs_and_other_settings_are_refused(folder, whole):
    other = train(folder, folder / "whole", stdin=lines(talks(7)), rows=())
    assert other.rc == 1
    why = "does not have the reference log-probabilities of these pairs; name another folder, or --reference"
    assert other.complaints == [f"dpo-train: {folder / 'whole'}: {why}"]
    ready = [{**row, "ref_chosen_logps": -9, "ref_rejected_logps": -8} for row in talks(7)]
    other = train(folder, folder / "whole", stdin=lines(ready), rows=())
    assert other.rc == 1
    assert "was trained on other pairs, or the same in another order; name another folder" in other.complaints[-1]
    empty = train(folder, folder / "whole", rows=("/dev/null",))
    assert (empty.rc, empty.rows) == (0, [])
    assert (folder / "whole" / "state" / "current").readlink().name == "c000006"
    changed = train(folder, folder / "whole", "--beta", "0.2")
    assert changed.complaints == ["dpo-train: --beta: training began with 0.1; 0.2 would be another one"]


def test_adapters_are_trained_and_merged(folder, tmp_path):
    done = train(folder, tmp_path / "policy", "--lora", "2", "--schedule", "cosine", "--warmup", "0.2")
    assert done.rc == 0, done.err
    assert [row["lr"] for row in done.rows][:2] == pytest.approx([0.005, 0.01])
    assert done.rows[-1]["margin"] > 0
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy" / "current") is not None


def test_pairs_with_images_train_an_image_text_model(tmp_path):
    tiny_pairs.write_image_model(tmp_path / "llava")
    (tmp_path / "photos").mkdir()
    rows = []
    for i, (name, other) in enumerate([("red", "blue"), ("blue", "red")] * 2):
        tiny_pairs.picture(tmp_path / "photos" / f"{name}.png", {"red": (250, 0, 0), "blue": (0, 0, 250)}[name])
        answers = {"chosen": name, "rejected": other}
        talk = {side: [{"role": "assistant", "content": text}] for side, text in answers.items()}
        prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Colour?"}]}]
        rows.append({"id": i, "prompt": prompt, **talk, "images": [f"photos/{name}.png"]})
    rows.append({"id": "text", "prompt": "Say: ", "chosen": "a", "rejected": "b"})
    (tmp_path / "pairs.jsonl").write_bytes(lines(rows))
    argv = [*COMMANDS["dpo-train"], "--policy", "policy", "--model", "llava", *SETTINGS, "--batch-rows", "5"]
    done = frame.run([*argv, "--epochs", "10", "pairs.jsonl"], cwd=tmp_path, env=ONE_THREAD)
    assert done.rc == 0, done.err
    assert done.rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert done.rows[-1]["accuracy"] == 1  # opposite answers to one question: only the images tell them apart
    argv = [*COMMANDS["pair-logps"], "--device", "cpu", "--max-tokens", "25", "--on-long", "skip"]
    after = frame.run([*argv, "--model", "policy/current", "pairs.jsonl"], cwd=tmp_path, env=ONE_THREAD)
    assert [row["id"] for row in after.rows] == ["text"]
    assert "pair-logps: warning: 4 pairs were left out: longer than --max-tokens 25" in after.complaints


def test_two_processes_train_as_one(folder, whole, tmp_path):
    code = "from toolroll.tools.dpo_train import main; main()"
    (tmp_path / "run.py").write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29577"]
    argv = [*launch, str(tmp_path / "run.py"), "--policy", str(tmp_path / "policy"), "--model", "model", *SETTINGS]
    done = frame.run([*argv, "pairs.jsonl"], cwd=folder, env=ONE_THREAD)
    assert done.rc == 0, done.err
    same_but_for_rounding(done.rows, whole.rows)


def test_rows_that_are_no_pairs_are_told_and_left_out(folder, tmp_path):
    good = {"id": "good", "prompt": "x", "chosen": "a", "rejected": "b"}
    bad = {
        "missing required field `chosen`": {"chosen": None},
        "`chosen` is empty": {"chosen": ""},
        "Expected `float` >= 0.0": {"weight": -1},
        "not JSON": {"weight": float("nan")},
        "the pair has images, and the model takes none": {"images": ["a.png"]},
        "one of `ref_chosen_logps` and `ref_rejected_logps` is missing": {"ref_chosen_logps": -1.0},
        "tokens, more than --max-tokens 64": {"prompt": "x" * 64},
    }
    rows = [{key: value for key, value in {**good, **wrong}.items() if value is not None} for wrong in bad.values()]
    same = {**good, "rejected": "a"}
    (tmp_path / "bad.jsonl").write_bytes(lines([good, *rows, same]))
    settings = ["--on-error", "skip", "--max-tokens", "64", "--epochs", "1"]
    done = train(folder, tmp_path / "policy", *settings, rows=(str(tmp_path / "bad.jsonl"),))
    assert done.rc == 0, done.err
    for number, (why, told) in enumerate(zip(bad, done.complaints, strict=False), 2):
        assert told.startswith(f"dpo-train: {tmp_path / 'bad.jsonl'}:{number}: ")
        assert why in told
    assert done.complaints[len(bad)].endswith(
        ": 1 pairs have the same answer twice: there is nothing to learn from them"
    )
    assert [row["pairs"] for row in done.rows] == [2]
