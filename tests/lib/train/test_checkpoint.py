"""Checkpoints, what was consumed, and the file of steps."""

from __future__ import annotations

import json

import pytest
import training

from toolroll.errors import ToolrollError
from toolroll.train import checkpoint
from toolroll.train.checkpoint import Checkpoint, Consumed
from toolroll.train.steps import StepsFile

torch = training.torch


def state(step, **fields):
    return Checkpoint(step, {"weight": torch.full((3,), float(step))}, {"lr": 0.1}, b"12345678", {"row": {}}, **fields)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2, 2, 2, 3):
        checkpoint.save(tmp_path, state(step))
        found = checkpoint.load(tmp_path)
        assert (found.step, found.settings, found.consumed, found.last) == (step, {"lr": 0.1}, b"12345678", {"row": {}})
        assert found.tensors["weight"].tolist() == [step] * 3
        assert len([path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()]) == 1


@pytest.mark.parametrize("file", ["about.json", "tensors.safetensors", "consumed"])
def test_damage_is_told(tmp_path, file):
    checkpoint.save(tmp_path, state(1))
    (tmp_path / "current" / file).unlink()
    with pytest.raises(ToolrollError, match="the checkpoint is damaged"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "about",
    [
        *("[]", "3", "null", "{", "[" * 100_000, '{"step": 1, "settings": {}}'),
        *('{"step": "1", "settings": {}, "last": {}}', '{"step": -1, "settings": {}, "last": {}}'),
        *('{"step": 1, "settings": [], "last": {}}', '{"step": 1, "settings": {}, "last": 0}'),
    ],
)
def test_what_is_said_of_a_checkpoint_is_checked(tmp_path, about):
    checkpoint.save(tmp_path, state(1))
    (tmp_path / "current/about.json").write_text(about)
    with pytest.raises(ToolrollError, match="the checkpoint is damaged"):
        checkpoint.load(tmp_path)


def test_settings_that_differ():
    saved = {"algo": "grpo", "lr": 0.1, "betas": [0.9, 0.99], "gone": 1}
    assert checkpoint.compare(saved, {"algo": "grpo", "lr": 0.1, "betas": (0.9, 0.99), "new": 3}, frozenset()) == []
    assert checkpoint.compare(saved, {"lr": None}, frozenset({"algo"})) == ["--lr was 0.1, is now unset"]
    with pytest.raises(ToolrollError, match="training began with grpo; ppo would be another one"):
        checkpoint.compare(saved, {"algo": "ppo"}, frozenset({"algo"}))


def test_a_row_is_known_as_often_as_it_came():
    one, other = Consumed.digest(b"one"), Consumed.digest(b"other")
    first = Consumed()
    assert not first.knows(one)
    first.add([one, other, one])
    assert not first.knows(one)  # twice in one run is twice
    later = Consumed(first.data())
    assert [later.knows(one), later.knows(one), later.knows(one)] == [True, True, False]
    assert later.knows(other)
    assert later.n_known == 3
    assert later.data() == first.data()


def test_the_oldest_rows_are_forgotten(monkeypatch):
    monkeypatch.setattr(checkpoint, "REMEMBERED", 2)
    consumed = Consumed()
    digests = [Consumed.digest(bytes([i])) for i in range(3)]
    consumed.add(digests)
    later = Consumed(consumed.data())
    assert [later.knows(digest) for digest in digests] == [False, True, True]


def rows(path):
    return [json.loads(line)["step"] for line in path.read_bytes().splitlines()]


def test_the_file_of_steps_fits_the_weights(tmp_path):
    path = tmp_path / "steps"
    fresh = StepsFile(path, 0)
    for step in (1, 2, 3):
        fresh.write({"step": step})
    fresh.close()
    with path.open("ab") as file:
        file.write(b'{"step": 4, "lo')  # cut off by a kill
    StepsFile(path, 2).close()
    assert rows(path) == [1, 2]
    again = StepsFile(path, 3, {"step": 3})
    assert rows(path) == [1, 2, 3]
    again.write({"step": 4})
    again.close()
    assert rows(path) == [1, 2, 3, 4]
    StepsFile(None, 3).write({"step": 4})


def test_another_file_is_not_taken_for_steps(tmp_path):
    path = tmp_path / "steps"
    path.write_text("a diary\nof mine\n")
    with pytest.raises(ToolrollError, match="not rows of updates"):
        StepsFile(path, 0)
    assert path.read_text() == "a diary\nof mine\n"
