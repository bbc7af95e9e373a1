"""Shards: all together are the whole, groups stay together, and a job array is understood or refused."""

from __future__ import annotations

import json

import frame
import pytest

every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)


def array(task, low=0, high=3, count=None, step=None):
    """The environment of a task of a job array."""
    values = {"ID": task, "MIN": low, "MAX": high, "COUNT": high - low + 1 if count is None else count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items() if value is not None}


@every_streamer
def test_three_shards_are_the_whole(command, tmp_path):
    rows = command.lines(10)
    whole = command.run(tmp_path, stdin=rows)
    shards = [command.run(tmp_path, "--shard", f"{i}/3", stdin=rows) for i in range(3)]
    assert [shard.rc for shard in shards] == [0, 0, 0]
    for i, shard in enumerate(shards):
        if command.name in frame.WARM:  # sums depend in their last digits on what shares a batch
            assert_near(shard.rows, whole.rows[i::3])
        else:
            assert shard.lines == whole.lines[i::3]


def test_blank_and_bad_lines_move_no_row_to_another_shard(tmp_path):
    command = frame.own("tag")
    rows = command.lines(9).replace(b"\n", b"\n\n")
    spoilt = rows.replace(b'"n":4', b'"n":oops')
    options = ("--on-error", "keep", "--shard")
    for i in range(3):
        plain = command.run(tmp_path, *options, f"{i}/3", stdin=rows).rows
        other = command.run(tmp_path, *options, f"{i}/3", stdin=spoilt).rows
        assert [row.get("n") for row in other] == [None if row["n"] == 4 else row["n"] for row in plain]


def test_groups_stay_whole(tmp_path):
    command = frame.own("tag")
    row = b'{"id":"%d","prompt_id":"%s","n":%d}\n'
    groups = [b"q%d" % (i % 17) for i in range(170)]
    groups[20:22] = [b"caf\xc3\xa9", b"caf\\u00e9"]
    rows = b"".join(row % (i, group, i) for i, group in enumerate(groups))
    shards = [
        command.run(tmp_path, "--shard", f"{i}/4", "--group-by", "prompt_id", stdin=rows + b"oops\n").rows
        for i in range(4)
    ]
    assert sum(map(len, shards)) == 170
    found = [{row["prompt_id"] for row in shard} for shard in shards]
    assert sum(map(len, found)) == 18
    assert all(found)


def test_a_bad_row_belongs_to_one_shard_of_groups(tmp_path):
    command = frame.own("tag")
    options = ("--on-error", "keep", "--group-by", "prompt_id", "--shard")
    results = [command.run(tmp_path, *options, f"{i}/3", stdin=b"oops\n[1]\n").rows for i in range(3)]
    assert sum(map(len, results)) == 2


@pytest.mark.parametrize("bad", ["3/3", "1/0", "-1/3", "1", "/", "a/b", "1/2/3", "", "1.0/2"])
def test_a_wrong_shard_is_a_usage_error(bad, tmp_path):
    result = frame.own("tag").run(tmp_path, f"--shard={bad}", stdin=b"oops\n")
    assert (result.rc, result.out, len(result.complaints)) == (2, b"", 1)
    assert "--shard" in result.err


def test_group_by_goes_with_shard(tmp_path):
    result = frame.own("tag").run(tmp_path, "--group-by", "id")
    assert (result.rc, result.err) == (2, "tag: --group-by: goes with --shard\n")


def test_the_shard_number_in_an_output_name(tmp_path):
    command = frame.own("tag")
    rows = command.lines(4) + b"oops\n"
    arguments = ("-o", "out.{shard}.jsonl", "-e", "bad.{shard}", "--on-error", "skip")
    for i in range(2):
        assert command.run(tmp_path, "--shard", f"{i}/2", *arguments, stdin=rows).rc == 0
    files = {f"out.{i}.jsonl{end}" for i in range(2) for end in ("", ".meta.json")} | {"bad.0", "bad.1"}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert json.loads((tmp_path / "out.1.jsonl.meta.json").read_bytes())["shard"] == "1/2"
    result = command.run(tmp_path, *arguments, stdin=rows)
    assert (result.rc, result.err) == (2, "tag: out.{shard}.jsonl: {shard} in a file name needs --shard\n")


@every_mapper
def test_a_job_array_is_read_and_said(command, tmp_path):
    rows = command.lines(8)
    shards = [command.run(tmp_path, "--shard", f"{task}/4", stdin=rows).out for task in range(4)]
    for low, task in ((0, 0), (0, 3), (1, 0), (1, 3)):
        result = command.run(tmp_path, "--shard", "slurm", stdin=rows, env=array(low + task, low, low + 3))
        assert result.rc == 0
        assert f"{command.name}: slurm: this is shard {task}/4\n" in result.err
        assert result.out == shards[task]


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        {"SLURM_ARRAY_TASK_ID": "1"},
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
        array(3, 3, 7, 2),
        array(2, 0, 6, 4, 2),
        array(2, 0, 6, 4),
        array(9),
        array(-1),
        array("x"),
        array(""),
    ],
    ids=lambda env: ",".join(env.values()) or "none",
)
def test_a_job_array_with_gaps_or_parts_missing_is_refused(env, tmp_path):
    command = frame.own("tag")
    result = command.run(tmp_path, "--shard", "slurm", stdin=command.lines(3), env=env)
    assert (result.rc, result.out, len(result.complaints)) == (2, b"", 1)
    assert result.err.startswith("tag: --shard: slurm: ")


def test_the_environment_alone_shards_nothing(tmp_path):
    command = frame.own("tag")
    assert len(command.run(tmp_path, stdin=command.lines(8), env=array(1)).rows) == 8


def test_the_log_names_the_shard(tmp_path):
    command = frame.own("tag")
    result = command.run(tmp_path, "--shard", "1/2", "--log", "json", stdin=command.lines(2))
    assert {json.loads(line)["shard"] for line in result.err.splitlines()} == {"1/2"}


def assert_near(one, other):
    """The same JSON but for the last digits of numbers."""
    if isinstance(one, list):
        assert isinstance(other, list)
        assert len(one) == len(other)
        for part, twin in zip(one, other, strict=True):
            assert_near(part, twin)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_near(one[name], other[name])
    elif isinstance(one, float):
        assert one == pytest.approx(other)
    else:
        assert one == other
