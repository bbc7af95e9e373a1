"""Rollouts on a policy directory, with tiny real models: a new version is taken up as soon as there is one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import frame
import pytest
import tiny_models

torch = pytest.importorskip("torch")


def publish(policy: Path, name: str, seed: int) -> None:
    """Write a tiny Llama with weights of this seed and make it the current version."""
    tiny_models.write_byte_llama(policy / name, seed, most=4096)
    link = policy / "next"
    link.symlink_to(name)
    link.replace(policy / "current")


def publish_adapter(policy: Path, name: str, base: Path) -> None:
    """Write an adapter with random weights for the model in `base` and make it the current version."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn each other
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(policy / name)
    link = policy / "next"
    link.symlink_to(name)
    link.replace(policy / "current")


def question(number: int) -> bytes:
    return json.dumps({"id": f"q{number}", "question": "Where is it?"}).encode() + b"\n"


def prompt(number: int) -> bytes:
    return json.dumps({"id": f"q{number}", "prompt": "Where is it?"}).encode() + b"\n"


def test_a_new_version_is_taken_up_and_named(tmp_path):
    policy = tmp_path / "policy"
    publish(policy, "v000001", seed=1)
    argv = [str(frame.BIN / "rag-rollout"), "--policy", "policy", "--follow", "--retriever", "none", "--device", "cpu"]
    caps = ["--turn-tokens", "8", "--max-searches", "1", "--on-invalid", "stop", "--max-tokens", "4000"]
    with frame.started([*argv, *caps], cwd=tmp_path) as process:

        def ask(number: int) -> dict:
            process.stdin.write(question(number))
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        first, again = ask(0), ask(1)
        publish(policy, "v000002", seed=2)
        second = ask(0)
        done = frame.ended(process)
    assert done.rc == 0, done.err
    assert [row["policy_version"] for row in (first, again, second)] == ["v000001", "v000001", "v000002"]
    assert first["seed"] == second["seed"]
    assert first["logprobs"] != second["logprobs"]
    assert len(first["response_ids"]) == len(first["loss_mask"]) == len(first["logprobs"])


def test_a_half_written_version_is_refused(tmp_path):
    policy = tmp_path / "policy"
    (policy / "v000001").mkdir(parents=True)
    (policy / "current").symlink_to("v000001")
    argv = [str(frame.BIN / "rag-rollout"), "--policy", "policy", "--retriever", "none"]
    done = frame.run(argv, cwd=tmp_path, stdin=question(0))
    assert done.rc == 1
    assert done.err.strip() == "rag-rollout: policy: `current` is not a whole model (no config.json in it)"


def test_the_same_command_gives_the_same_bytes_and_samples_differ(tmp_path):
    policy = tmp_path / "policy"
    publish(policy, "v000001", seed=1)
    argv = [str(frame.BIN / "rag-rollout"), "--policy", "policy", "--retriever", "none", "--device", "cpu"]
    caps = ["--turn-tokens", "8", "--max-searches", "1", "--samples", "3", "--max-tokens", "4000"]
    first, again = (frame.run([*argv, *caps], cwd=tmp_path, stdin=question(0) + question(1)) for _ in range(2))
    assert first.rc == 0, first.err
    assert first.out == again.out
    assert len({row["response"] for row in first.rows}) > 1


def test_text_rollout_takes_up_weights_and_adapters(tmp_path):
    policy = tmp_path / "policy"
    publish(policy, "v000001", seed=1)
    argv = [str(frame.BIN / "text-rollout"), "--policy", "policy", "--follow", "--device", "cpu"]
    with frame.started([*argv, "--samples", "2", "--response-tokens", "6"], cwd=tmp_path) as process:

        def ask(number: int) -> list[dict]:
            process.stdin.write(prompt(number))
            process.stdin.flush()
            return [json.loads(process.stdout.readline()) for _ in range(2)]

        made = [ask(0)]
        publish(policy, "v000002", seed=2)
        made.append(ask(0))
        publish_adapter(policy, "v000003", base=policy / "v000002")
        made += [ask(0), ask(0)]
        done = frame.ended(process)
    assert done.rc == 0, done.err
    names = ["v000001", "v000002", "v000003", "v000003"]
    assert [[row["policy_version"] for row in rows] for rows in made] == [[name] * 2 for name in names]
    assert [[row["model"] for row in rows] for rows in made] == [[f"hf:{name}"] * 2 for name in names]
    first, second, third, again = (torch.tensor([row["logprobs"] for row in rows]) for rows in made)
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(second, third, atol=1e-3)
    # A kept prompt is not read again, so the shapes of the products differ, and with them the last bits.
    assert [row["response_ids"] for row in made[2]] == [row["response_ids"] for row in made[3]]
    assert torch.allclose(third, again, atol=1e-5)


def test_a_version_that_cannot_be_loaded_ends_the_rollout_in_one_line(tmp_path):
    policy = tmp_path / "policy"
    publish(policy, "v000001", seed=1)
    argv = [str(frame.BIN / "text-rollout"), "--policy", "policy", "--follow", "--device", "cpu"]
    with frame.started([*argv, "--response-tokens", "6"], cwd=tmp_path) as process:
        process.stdin.write(prompt(0))
        process.stdin.flush()
        process.stdout.readline()
        publish(policy, "v000002", seed=2)
        (policy / "v000002" / "model.safetensors").write_bytes(b"cut short")
        process.stdin.write(prompt(1))
        done = frame.ended(process)
    assert (done.rc, done.out) == (1, b"")
    assert len(done.complaints) == 1
    assert "v000002: cannot be loaded as a causal language model" in done.complaints[0]


def test_text_rollout_gives_the_same_bytes_and_samples_differ(tmp_path):
    policy = tmp_path / "policy"
    publish(policy, "v000001", seed=1)
    argv = [str(frame.BIN / "text-rollout"), "--policy", "policy", "--device", "cpu", "--samples", "3"]
    given = b"".join(prompt(i) for i in range(3))
    first, again = (frame.run([*argv, "--response-tokens", "8"], cwd=tmp_path, stdin=given) for _ in range(2))
    assert first.rc == 0, first.err
    assert first.out == again.out
    assert len({row["response"] for row in first.rows}) == 9
