"""The authors' tensors: pairs of files become run records; nothing else is loaded from them."""

from __future__ import annotations

import json
import math
import os
import pickle

import pytest
import torch

from toolroll.errors import ToolrollError
from toolroll.numerics.authors import lines

NAME = "problem_3_math500_{}_bs_8_bfloat16_max_tokens_2048.pt"
IDS, LOGS = NAME.format("token_ids"), NAME.format("logprobs")


@pytest.fixture
def pair(tmp_path):
    """The two files of a problem with three tokens."""
    torch.save(torch.arange(15).reshape(3, 5), tmp_path / IDS)
    torch.save(torch.log(torch.tensor([[0.5, 0.25, 0.1, 0.1, 0.05]] * 3)), tmp_path / LOGS)
    return tmp_path


def read(path, *, given=None):
    paths = tuple(map(str, given or [path]))
    return [json.loads(line) for line in lines(str(path), iter([path.read_bytes()]), paths)]


def test_a_pair_is_a_record(pair):
    (row,) = read(pair / IDS)
    assert (row["id"], row["tokens"], row["n_tokens"]) == ("math500/3", [0, 5, 10], 3)
    assert row["top1_prob"] == pytest.approx([0.5] * 3)
    assert row["top2_prob"] == pytest.approx([0.25] * 3)
    config = row["config"]
    assert (config["precision"], config["batch_size"], config["max_tokens"]) == ("bf16", 8, 2048)
    assert config["folder"] == str(pair)


def test_either_twin_may_be_given_and_both_give_one(pair):
    whole = read(pair / IDS)
    assert read(pair / LOGS) == whole
    both = [pair / LOGS, pair / "." / IDS]
    assert [row for path in both for row in read(path, given=both)] == whole


def test_folders_tell_the_rest_of_the_configuration(pair):
    for kind, precision in (("vllm_main", "bf16"), ("vllm_layercast", "bf16")):
        folder = pair / "outputs" / kind / "a100_2" / "org" / "model"
        folder.mkdir(parents=True)
        for name in (IDS, LOGS):
            (folder / name).write_bytes((pair / name).read_bytes())
        (row,) = read(folder / IDS)
        assert row["config"] | {"experiment": "a100_2", "model": "org/model", "precision": precision} == row["config"]
    for name in (IDS, LOGS):
        (folder / name).rename(folder / name.replace("bfloat16", "float32"))
    (row,) = read(folder / IDS.replace("bfloat16", "float32"))
    assert row["config"]["precision"] == "layercast"


def test_a_name_of_another_form_is_refused(pair):
    path = pair / "weights.pt"
    path.write_bytes(b"")
    with pytest.raises(ToolrollError, match="no name of the form"):
        read(path)


def test_a_missing_twin_is_told(pair):
    (pair / LOGS).unlink()
    with pytest.raises(ToolrollError, match=f"its twin {LOGS} cannot be read: No such file") as caught:
        read(pair / IDS)
    assert caught.value.place == str(pair / IDS)


def test_twins_of_other_shapes_are_refused(pair):
    torch.save(torch.zeros(4, 5), pair / LOGS)
    with pytest.raises(ToolrollError, match=r"is \[3, 5\], its twin \[4, 5\]"):
        read(pair / IDS)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3, 5, dtype=torch.int32),
        torch.zeros(15, dtype=torch.int64),
        torch.zeros(3, 0, dtype=torch.int64),
        torch.zeros(3, 5, dtype=torch.int64).to_sparse(),
        [1, 2],
    ],
)
def test_what_is_no_such_tensor_is_refused(pair, content):
    torch.save(content, pair / IDS)
    with pytest.raises(ToolrollError, match=r"holds no int64 tensor \[T, k\]"):
        read(pair / IDS)


def test_a_tensor_larger_than_its_file_is_refused(pair):
    torch.save(torch.zeros(1, 1, dtype=torch.int64).expand(10**9, 5), pair / IDS)
    with pytest.raises(ToolrollError, match="more than it holds"):
        read(pair / IDS)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_is_told_with_its_place(pair, value):
    tensor = torch.full((3, 5), -1.0)
    tensor[2, 1] = value
    torch.save(tensor, pair / LOGS)
    with pytest.raises(ToolrollError, match=r"not finite at \[2, 1\]") as caught:
        read(pair / IDS)
    assert caught.value.place == str(pair / LOGS)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_pickle_that_acts_is_refused_and_does_not_act(pair, save):
    trap = pair / "trap"
    save(Hostile(str(trap)), pair / IDS)
    with pytest.raises(ToolrollError, match=r"no file of torch\.save with nothing but tensors"):
        read(pair / IDS)
    assert not trap.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, -10])
def test_a_damaged_file_is_refused(pair, keep):
    (pair / IDS).write_bytes((pair / IDS).read_bytes()[:keep])
    with pytest.raises(ToolrollError, match=r"no file of torch\.save"):
        read(pair / IDS)
