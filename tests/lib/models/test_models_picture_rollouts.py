"""Answers about images: what is in hand at a stop is answered, and what was written is not written again."""

from __future__ import annotations

import json

from toolroll.io.rows import Row
from toolroll.models.base import Sampling
from toolroll.models.options import ModelOptions, PolicyOptions, PromptOptions
from toolroll.models.picture_rollouts import PictureRollouts
from toolroll.records import IMAGE_FIELDS, view
from toolroll.records.rollouts import ImagePrompt
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.signals import StopFlag

VIEW = view(ImagePrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "draw")


def answered(folder, *, stop_at=99, written=()):
    """The (id, sample) of rows made of three prompts with two samples; a signal comes at the `stop_at`-th request."""
    (folder / "script.jsonl").write_text('{"match": ".", "reply": "Red."}\n')
    raw = [json.dumps({"id": f"q{i}", "prompt": "?"}).encode() for i in range(3)]
    rows = [Row(line, VIEW(id=f"q{i}", prompt="?"), i, "in", i + 1) for i, line in enumerate(raw)]
    left = [*written]
    stop, seeds = StopFlag(), []

    def draw(seed):
        seeds.append(seed)
        if len(seeds) == stop_at:
            stop.asked_by = "SIGTERM"
        return Sampling(seed=seed)

    def done(key):
        one = (json.loads(key[0]), json.loads(key[1]))
        return one in left and (left.remove(one) or True)

    given = Rows(iter(rows), lambda: True, done, lambda _: None, more_written=lambda: bool(left))
    model = ModelOptions(backend="scripted", model=str(folder / "script.jsonl"))
    prompter = PromptOptions().prompter(lambda messages: messages[0]["content"])
    rollouts = PictureRollouts(model, PolicyOptions(), prompter, draw, 2, 0, folder, Log("test", level=-1), stop)
    made = [json.loads(row.encode()) for row in rollouts.run(given)]
    rollouts.close()
    assert all(row["response"] == "Red." for row in made)
    return [(row["id"], row["sample"]) for row in made]


def test_what_is_in_hand_at_a_stop_is_answered(tmp_path):
    assert answered(tmp_path, stop_at=3) == [("q0", 0), ("q0", 1), ("q1", 0)]


def test_what_was_written_is_not_written_again(tmp_path):
    assert answered(tmp_path, written=[("q0", 0), ("q0", 1), ("q1", 0)]) == [("q1", 1), ("q2", 0), ("q2", 1)]
