"""spy-game with real models: a policy in training against a frozen one, and a training step on what came of it.

The commands run in this process, as each would take seconds to load what it needs.
"""

from __future__ import annotations

import json
import shutil

import frame
import pytest
import tiny_models
from PIL import Image

from toolroll.tools.policy_train import main as policy_train
from toolroll.tools.spy_game import main as spy_game
from toolroll.tools.spy_reward import main as spy_reward

TINY = str(frame.ROOT / "tests/data/tiny-llama")
SCENE = {"objects": [{"color": "red", "shape": "cube", "size": "large", "material": "metal"}]}


def run(tool, *args):
    assert tool.run([str(arg) for arg in args]) == 0


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_policy_against_a_frozen_model_and_a_training_step_on_its_turns(tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(TINY, policy / "v000007")
    (policy / "current").symlink_to("v000007")
    (tmp_path / "clue").write_text("PLAYER {player} OF {players} SAYS")
    (tmp_path / "vote").write_text("WHO IS THE SPY OF {players}")
    pair = {"id": "p", "kind": "scenes", "original_scene": SCENE, "modified_scene": {"objects": []}}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair))
    turns, own, ready, steps = (tmp_path / name for name in ("turns", "own", "ready", "steps"))
    prompts = ("--clue-prompt", tmp_path / "clue", "--vote-prompt", tmp_path / "vote")
    settings = ("--preset", "code", "--samples", 2, "--turns", "--response-tokens", 6, "--device", "cpu")
    seats = ("--policy", policy, "--civ-model", TINY)
    run(spy_game, *seats, *prompts, *settings, tmp_path / "pairs.jsonl", "-o", turns)
    rows = rows_of(turns)
    assert len(rows) == 2 * (8 + 8)
    assert all(row["policy_version"] == ("v000007" if row["role"] == "spy" else None) for row in rows)
    assert {row["model"] for row in rows} == {"hf:v000007", "hf:tiny-llama"}
    for row in rows:
        assert row["messages"][0]["content"] in row["prompt"]
        assert len(row["response_ids"]) == len(row["logprobs"]) == len(row["loss_mask"]) > 0
        assert row["prompt_ids"]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows if row["policy_version"]))
    run(spy_reward, "--advantages", own, "-o", ready)
    train = ("--policy", tmp_path / "new", "--model", TINY, "--device", "cpu", "--batch-rows", 4)
    run(policy_train, *train, "--temperature", 0.8, ready, "-o", steps)
    (told,) = rows_of(steps)
    assert (told["rows"], told["failed"]) == (4, 0)
    assert told["ratio_mean"] == pytest.approx(1, abs=1e-4)


def test_an_image_text_model_on_all_seats(tmp_path):
    tiny_models.write_image_text(tmp_path / "model", "llava")
    for name, color in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (32, 24), color).save(tmp_path / f"{name}.png")
    pair = {"id": "p", "kind": "photos", "original": "one.png", "modified": "two.png"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair))
    settings = ("--wording", "short", "--rounds", 1, "--civilians", 2, "--response-tokens", 4, "--device", "cpu")
    made = {}
    for image in ("modified", "blank"):
        out = tmp_path / f"{image}.jsonl"
        run(
            spy_game,
            "--model",
            tmp_path / "model",
            "--spy-image",
            image,
            *settings,
            tmp_path / "pairs.jsonl",
            "-o",
            out,
        )
        (made[image],) = rows_of(out)
    for image, seen in (("modified", "two.png"), ("blank", "blank_32x24.png")):
        row = made[image]
        assert {tuple(turn["images"]) for turn in row["turns"] if turn["role"] == "spy"} == {(seen,)}
        assert {tuple(turn["images"]) for turn in row["turns"] if turn["role"] == "civilian"} == {("one.png",)}
        assert all(turn["prompt_ids"] and "<image>" in turn["prompt"] for turn in row["turns"])
    assert made["modified"]["spy"] == made["blank"]["spy"]
    spies = [next(turn for turn in row["turns"] if turn["role"] == "spy") for row in made.values()]
    assert spies[0]["seed"] == spies[1]["seed"]
    assert spies[0]["logprobs"] != spies[1]["logprobs"]
