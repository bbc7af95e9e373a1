"""image-rollout: answers about images with what training needs, from a script and from a real model in training."""

from __future__ import annotations

import json
import shutil

import frame
import pytest
import tiny_models
from PIL import Image

from toolroll.tools.image_rollout import main as image_rollout
from toolroll.tools.policy_train import main as policy_train

TRAINING = ("prompt", "prompt_ids", "response_ids", "loss_mask", "logprobs")


@pytest.fixture
def questions(tmp_path):
    """Three questions about two images."""
    for name, color in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (32, 24), color).save(tmp_path / f"{name}.png")
    rows = [
        {"id": "a", "prompt": "COLOR?", "images": ["one.png"], "answer": "red"},
        {"id": "b", "prompt": "COLOR?", "images": ["two.png"], "answer": "blue"},
        {"id": "c", "messages": [{"role": "user", "content": "BOTH?"}], "images": ["one.png", "two.png"]},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = {"match": "COLOR", "reply": "Red."}, {"match": ".", "reply": "Two."}
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    return tmp_path


def scripted(folder, *args, stdin=b""):
    argv = ["image-rollout", "--backend", "scripted", "--model", "script.jsonl", *map(str, args)]
    return frame.run(argv, cwd=folder, stdin=stdin)


def run(tool, *args):
    assert tool.run([str(arg) for arg in args]) == 0


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_samples_in_order_with_all_that_is_known(questions):
    result = scripted(questions, "--samples", 2, "q.jsonl")
    assert [(row["id"], row["sample"], row["response"]) for row in result.rows] == [
        ("a", 0, "Red."), ("a", 1, "Red."), ("b", 0, "Red."), ("b", 1, "Red."), ("c", 0, "Two."), ("c", 1, "Two."),
    ]  # fmt: skip
    first, second = result.rows[:2]
    assert first["seed"] != second["seed"]
    assert first["prompt_id"] == "a"
    assert first["answer"] == "red"  # passed on


def test_answers_are_checked_and_compared(questions):
    (questions / "script.jsonl").write_text('{"match": "COLOR", "reply": "Red."}\n')
    line = (
        "head -n 2 q.jsonl | image-rollout --backend scripted --model script.jsonl --samples 2 |"
        " answer-check --kind exact | group-advantage --reward-field correct --group-size 2"
    )
    rows = frame.shell(line, cwd=questions).rows
    assert [row["correct"] for row in rows] == [1, 1, 0, 0]
    assert [row["advantage"] for row in rows] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", [{"image": "one.png"}, {"image": {"path": "one.png"}}, {"image_path": "one.png"}])
def test_one_image_has_other_names(questions, name):
    script = {"match": "<image>COLOR", "reply": "Seen."}, {"match": ".", "reply": "Not seen."}
    (questions / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    answered = scripted(questions, stdin=json.dumps({"id": "a", "prompt": "COLOR?", **name}).encode())
    assert [row["response"] for row in answered.rows] == ["Seen."]


def test_what_cannot_be_answered_is_an_error_row(questions):
    rows = [
        {"id": "gone", "prompt": "COLOR?", "images": ["no.png"]},
        {"id": "empty", "prompt": " ", "images": ["one.png"]},
        {"id": "silent", "images": ["one.png"]},
        {"id": "good", "prompt": "COLOR?", "images": ["one.png"]},
    ]
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    result = scripted(questions, "--on-error", "keep", stdin=stdin)
    assert result.rc == 0
    assert ["error" in row for row in result.rows] == [True, True, True, False]
    assert "no.png" in result.rows[0]["error"]["why"]
    assert result.rows[1]["error"]["why"] == "the prompt is empty"
    assert result.rows[2]["error"]["why"].startswith("no `prompt` and no `messages`")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--stop", ""), "--stop: an empty text would end every answer"),
        (("--raw-prompt",), "--raw-prompt: images have their places in messages"),
        (("--follow",), "--follow: goes with --policy"),
    ],
)
def test_settings_that_cannot_be(questions, args, why):
    result = scripted(questions, *args, "q.jsonl")
    assert (result.rc, result.out) == (2, b"")
    assert result.complaints == [f"image-rollout: {why}"]


def test_a_model_in_training_learns_from_its_answers(questions):
    model = tiny_models.write_image_text(questions / "model", "llava", most=512)
    settings = ("--samples", 2, "--response-tokens", 5, "--device", "cpu", "--temperature", 0.8)
    out, steps, policy = questions / "out.jsonl", questions / "steps", questions / "policy"
    shutil.copytree(model, policy / "v000003")
    (policy / "current").symlink_to("v000003")
    run(image_rollout, "--policy", policy, *settings, questions / "q.jsonl", "-o", out)
    rows = rows_of(out)
    assert len(rows) == 6
    assert {row["policy_version"] for row in rows} == {"v000003"}
    assert all(row[name] is not None for row in rows for name in TRAINING)
    assert all(len(row["response_ids"]) == len(row["logprobs"]) == len(row["loss_mask"]) <= 5 for row in rows)
    assert rows[4]["prompt"].count("<image>") == 2
    again = questions / "again.jsonl"
    run(image_rollout, "--model", model, *settings, questions / "q.jsonl", "-o", again)
    assert [row["response_ids"] for row in rows_of(again)] == [row["response_ids"] for row in rows]
    ready = questions / "ready.jsonl"  # beside the images
    ready.write_text("".join(json.dumps({**row, "advantage": 1 - 2.0 * row["sample"]}) + "\n" for row in rows[:4]))
    train = ("--policy", questions / "new", "--model", model, "--device", "cpu", "--batch-rows", 4)
    run(policy_train, *train, "--temperature", 0.8, ready, "-o", steps)
    (told,) = rows_of(steps)
    assert (told["rows"], told["failed"]) == (4, 0)
    image = max(rows[0]["prompt_ids"], key=rows[0]["prompt_ids"].count)
    strange = {**rows[0], "advantage": 1.0, "response_ids": [image, *rows[0]["response_ids"][1:]]}
    ready.write_text("".join(json.dumps(row) + "\n" for row in ({**rows[2], "advantage": 0.5}, strange)))
    run(policy_train, *train, "--temperature", 0.8, "--on-error", "skip", ready, "-o", questions / "more")
    (more,) = rows_of(questions / "more")
    assert (more["rows"], more["failed"]) == (1, 1)
    assert told["ratio_mean"] == pytest.approx(1, abs=1e-4)
