"""A share of a job array: which arrays are understood, and that a share of another array is not gone on with."""

from __future__ import annotations

import json

import frame
import pytest

from toolroll.errors import UsageError
from toolroll.io.shard import Shard, parse_shard


def array(task: int, low: int, high: int) -> dict[str, str]:
    values = {"ID": task, "MIN": low, "MAX": high, "COUNT": high - low + 1, "STEP": 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize("low", [0, 1])
def test_an_array_counts_from_0_or_1(low):
    assert parse_shard("slurm", array(low + 2, low, low + 3)) == Shard(2, 4)


@pytest.mark.parametrize(("low", "high"), [(2, 5), (3, 3), (7, 8)])
def test_an_array_that_begins_higher_is_taken_for_a_part_of_another(low, high):
    with pytest.raises(UsageError, match=f"begins at {low}; .* --shard I/N"):
        parse_shard("slurm", array(low, low, high))


def test_a_share_of_another_array_is_not_gone_on_with(tmp_path):
    """The rows that are there are shares of four; to go on as one of two would write some of them twice."""
    command = frame.own("slow-cat")
    rows = command.lines(8)
    arguments = ("--shard", "slurm", "-o", "out.{shard}")
    broken = command.run(tmp_path, *arguments, stdin=rows + b"oops\n", env=array(0, 0, 3))
    assert broken.rc == 1
    before = (tmp_path / "out.0.part").read_bytes()
    assert before
    other = command.run(tmp_path, *arguments, "--resume", stdin=rows, env=array(0, 0, 1))
    assert other.rc == 2
    assert other.complaints[-1] == "slow-cat: --resume: shard: was '0/4' in the run to be resumed, is '0/2' now"
    assert (tmp_path / "out.0.part").read_bytes() == before
    by_number = command.run(tmp_path, "--shard", "0/4", *arguments[2:], "--resume", stdin=rows)
    assert by_number.rc == 0
    assert json.loads((tmp_path / "out.0.meta.json").read_bytes())["settings"]["shard"] == "0/4"
