"""A training in a folder: it goes on to the bit whatever was written last, and shares the folder with nobody."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from toolroll.errors import ToolrollError  # noqa: E402
from toolroll.io.filesystem import put  # noqa: E402
from toolroll.train.resumable import Resumable, check_alike  # noqa: E402


@dataclass(frozen=True)
class Did:
    step: int
    loss: float


class Adding:
    """Adds the number of each step to a sum."""

    def __init__(self):
        self.step, self.sum = 0, torch.zeros(1)

    def steps(self):
        while True:
            self.step += 1
            self.sum += self.step
            yield Did(self.step, 1 / self.step)

    def tensors(self):
        return {"sum": self.sum.clone()}

    def restore(self, tensors, step):
        check_alike(tensors, self.tensors())
        self.step, self.sum = step, tensors["sum"]


class Sums(Resumable[Adding]):
    def __init__(self, folder: Path, steps: int = 6) -> None:
        super().__init__(Adding(), steps, folder, "sum.txt")
        self.scored: list[int] = []
        self.cameras: list[tuple[int, ...]] = [(1, 2)]

    def write_model(self):
        put(self.folder / "sum.txt", str(float(self.fit.sum)).encode())

    def told(self):
        return {"step": self.step, "cameras": self.cameras}

    def scores(self):
        assert (self.folder / "state/current").exists() or self.step < 6  # a bad score costs no step
        self.scored.append(self.step)
        return {"score": float(self.fit.sum)}


def run(folder, last=99, settings=None, steps=6, firm=frozenset(), warn=print):
    made = Sums(folder, steps)
    made.resume(settings or {"seed": 0}, firm, warn)
    return list(made.rows(lambda: False, report_every=2, eval_every=4, save_every=3, last=last))


def bytes_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows(tmp_path):
    rows = run(tmp_path)
    assert [(row["step"], row.get("score")) for row in rows] == [(2, None), (4, 10), (6, 21)]
    assert rows[1]["loss"] == pytest.approx((1 / 3 + 1 / 4) / 2)


@pytest.mark.parametrize("last", [1, 2, 3, 5, 6])
def test_a_stop_leaves_no_trace(tmp_path, last):
    run(tmp_path / "whole")
    run(tmp_path / "half", last)
    assert (tmp_path / "half/sum.txt").read_text() == str(float(sum(range(last + 1))))
    run(tmp_path / "half")
    assert bytes_of(tmp_path / "half") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["sum.txt", "train.json", "both"])
def test_a_kill_between_the_checkpoint_and_the_model(tmp_path, lost):
    """At the last step nothing is saved again, so that the model has to be made up for."""
    run(tmp_path / "whole")
    run(tmp_path / "killed", last=3)
    old = bytes_of(tmp_path / "killed")
    run(tmp_path / "killed")
    for name in ("sum.txt", "train.json"):
        if lost == "both" or name == "train.json":
            (tmp_path / "killed" / name).write_bytes(old[name])
    if lost == "sum.txt":
        (tmp_path / "killed/sum.txt").unlink()
    assert run(tmp_path / "killed") == []
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_nobody_else_may_train_there(tmp_path):
    first = Sums(tmp_path)
    first.resume({}, frozenset(), print)
    rows = first.rows(lambda: False, report_every=1, eval_every=0, save_every=1, last=9)
    next(rows)
    with pytest.raises(ToolrollError, match="another trainer is at work on it"):
        Sums(tmp_path).resume({}, frozenset(), print)
    assert [row["step"] for row in rows] == [2, 3, 4, 5, 6]
    run(tmp_path)  # it is free again


def test_a_refusal_leaves_the_folder_free(tmp_path):
    run(tmp_path, last=3)
    for _ in range(2):
        with pytest.raises(ToolrollError, match="--seed: training began with 0; 1 would be another one"):
            run(tmp_path, settings={"seed": 1}, firm=frozenset(["seed"]))
    warnings: list[str] = []
    run(tmp_path, settings={"seed": 1}, warn=warnings.append)
    assert warnings == ["--seed was 0, is now 1"]


def test_a_model_without_a_state(tmp_path):
    (tmp_path / "sum.txt").write_text("5")
    with pytest.raises(ToolrollError, match="has a model, and no state to go on from"):
        run(tmp_path)
    assert (tmp_path / "sum.txt").read_text() == "5"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tensors.safetensors", pickle.dumps({"sum": 3})),
        ("tensors.safetensors", b""),
        ("tensors.safetensors", (10**12).to_bytes(8, "little") + b"{}"),
        ("about.json", pickle.dumps({})),
        ("about.json", b"[]"),
        ("about.json", b"[" * 100_000),
        ("about.json", b'{"step": "3", "settings": {}, "last": {}}'),
        ("about.json", b'{"step": true, "settings": {}, "last": {}}'),
        ("about.json", b'{"step": -3, "settings": {}, "last": {}}'),
        ("about.json", b'{"step": 3, "settings": [], "last": {}}'),
        ("consumed", None),
    ],
)
def test_a_checkpoint_that_is_not_sound(tmp_path, name, data):
    run(tmp_path, last=3)
    path = tmp_path / "state/current" / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    before = bytes_of(tmp_path)
    with pytest.raises(ToolrollError, match="current: its checkpoint is damaged; another --out begins anew"):
        run(tmp_path)
    assert bytes_of(tmp_path) == before


def test_tensors_of_another_training(tmp_path):
    good = {"a": torch.zeros(3, 2), "b": torch.zeros(3), "own": torch.zeros(5)}
    check_alike(good, good)
    check_alike({**good, "a": torch.zeros(7, 2), "b": torch.zeros(7)}, good, frozenset("ab"))
    for change in (
        {"a": torch.zeros(7, 2)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(2)},
        {"a": torch.zeros(3, 2, dtype=torch.float64)},
        {"own": torch.zeros(6)},
        {"a": torch.tensor(1.0)},
    ):
        with pytest.raises(ToolrollError, match="its state is of another training"):
            check_alike({**good, **change}, good, frozenset("ab"))
    with pytest.raises(ToolrollError, match="its state is of another training"):
        check_alike({"a": good["a"]}, good)


def test_what_train_json_says_is_the_step_of_the_model(tmp_path):
    run(tmp_path, last=3)
    assert json.loads((tmp_path / "train.json").read_text()) == {"step": 3, "cameras": [[1, 2]]}


def test_other_cameras_are_told_of(tmp_path):
    run(tmp_path, last=3)
    warnings: list[str] = []
    for cameras, count in ([(1, 2)], 0), ([(1, 3)], 1):
        made = Sums(tmp_path)
        made.cameras = cameras
        made.resume({"seed": 0}, frozenset(), warnings.append)
        list(made.rows(lambda: False, report_every=9, eval_every=0, save_every=9, last=4))
        assert len(warnings) == count
    assert "cameras are not those that training began with" in warnings[0]


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, "3"])
def test_a_train_json_that_is_none_is_written_anew(tmp_path, text):
    run(tmp_path)
    whole = bytes_of(tmp_path)
    (tmp_path / "train.json").write_text(text)
    run(tmp_path)
    assert bytes_of(tmp_path) == whole
