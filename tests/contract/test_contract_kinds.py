"""Commands that make rows of their own, that see failed rows, and that consume their rows."""

from __future__ import annotations

import json
import signal

import frame
import pytest

every_source = pytest.mark.parametrize("command", [*frame.SOURCES, frame.own("count-up")], ids=str)
BAD = b"this is no JSON\n"
FAILED = b'{"id":"f","n":7,"error":{"why":"before","where":"x:1"}}\n'


@every_source
def test_a_source_leaves_stdin_alone(command, tmp_path):
    """What follows it in a shell script gets all of stdin."""
    line = f"{command.shell(tmp_path)} > made; cat"
    result = frame.shell(line, cwd=tmp_path, stdin=b"the rest\n")
    assert (result.rc, result.out) == (0, b"the rest\n"), result.err
    assert all(isinstance(json.loads(row), dict) for row in (tmp_path / "made").read_bytes().splitlines())
    assert (tmp_path / "made").stat().st_size


@every_source
def test_a_source_writes_a_file_when_it_is_complete(command, tmp_path):
    assert command.run(tmp_path, command.rows_option, tmp_path / "made").rc == 0
    record = json.loads((tmp_path / "made.meta.json").read_text())
    assert record["counts"]["written"] == len((tmp_path / "made").read_bytes().splitlines()) > 0
    assert not (tmp_path / "made.part").exists()


@every_source
def test_a_source_cut_off_by_its_reader_is_quiet(command, tmp_path):
    result = frame.shell(f"{command.shell(tmp_path)} | head -c 1 > one; echo ${{PIPESTATUS[0]}}", cwd=tmp_path)
    assert result.out.strip() in (b"0", b"141")
    assert not result.complaints


def test_a_source_answers_a_signal(tmp_path):
    with frame.own("count-up").start(tmp_path, "--to", "1000", "--delay", ".05", "--line-buffered") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert (result.rc, result.err) == (75, "count-up: warning: stopped by SIGTERM\n")


def test_a_source_may_read_when_it_is_asked_to(tmp_path):
    command = frame.own("echo-if")
    rows = command.lines(2)
    assert [row["n"] for row in command.run(tmp_path, stdin=rows).rows] == [-1]
    assert [row["n"] for row in command.run(tmp_path, "--follow", stdin=rows).rows] == [-1, 0, 1]


def test_a_failed_row_counts_where_rows_are_counted(tmp_path):
    command = frame.own("pairs")
    first, second = command.lines(2).splitlines(keepends=True)
    result = command.run(tmp_path, stdin=first + FAILED + second)
    assert result.rc == 0
    assert result.lines[1] == FAILED.strip()
    assert [row.get("of") for row in result.rows] == [1, None, 1]
    assert "1 passed on" in result.err


@pytest.mark.parametrize(("on_error", "of"), [("skip", [1, 1]), ("keep", [1, None, 1])])
def test_a_bad_row_counts_where_rows_are_counted(tmp_path, on_error, of):
    command = frame.own("pairs")
    first, second = command.lines(2).splitlines(keepends=True)
    result = command.run(tmp_path, "--on-error", on_error, stdin=first + BAD + second)
    assert result.rc == 0
    assert [row.get("of") for row in result.rows] == of
    assert [row["raw"] for row in result.rows if "raw" in row] == ["this is no JSON"] * (on_error == "keep")


def test_what_is_incomplete_is_not_released_after_a_bad_row(tmp_path):
    command = frame.own("pairs")
    result = command.run(tmp_path, stdin=command.lines(3) + BAD + command.lines(1, start=3))
    assert result.rc == 1
    assert [row["id"] for row in result.rows] == ["i0", "i1"]


def test_what_is_incomplete_is_taken_up_by_a_resumed_run(tmp_path):
    command = frame.own("pairs")
    good = command.lines(4)
    (tmp_path / "in").write_bytes(command.lines(3) + BAD)
    assert command.run(tmp_path, "-o", tmp_path / "out", inputs=("in",)).rc == 1
    (tmp_path / "in").write_bytes(good)
    assert command.run(tmp_path, "-o", tmp_path / "out", "--resume", inputs=("in",)).rc == 0
    rows = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [(row["id"], row["of"]) for row in rows] == [(f"i{i}", 2) for i in range(4)]


def test_rows_that_are_consumed_do_not_come_out(tmp_path):
    command = frame.own("learn")
    first, second, third = command.lines(3).splitlines(keepends=True)
    result = command.run(tmp_path, "--on-error", "keep", stdin=first + FAILED + second + BAD + third)
    assert (result.rc, result.rows) == (0, [{"step": 1, "failed": 1}, {"step": 2, "failed": 1}])


def test_a_resumed_run_reads_consumed_rows_again_and_writes_what_is_missing(tmp_path):
    command = frame.own("learn")
    (tmp_path / "in").write_bytes(command.lines(6))
    (tmp_path / "out.part").write_bytes(b'{"step":1,"failed":0}\n{"step":2,')
    assert command.run(tmp_path, "-o", tmp_path / "out", "--resume", inputs=("in",)).rc == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert steps == [1, 2, 3]


def test_only_rank_0_reads_and_writes(tmp_path):
    command = frame.own("learn")
    (tmp_path / "in").write_bytes(command.lines(4))
    other = command.run(tmp_path, "-o", tmp_path / "out", inputs=("in",), env={"RANK": "1"})
    assert (other.rc, other.out, other.err) == (0, b"", "")
    assert not (tmp_path / "out").exists()
    assert command.run(tmp_path, "-o", tmp_path / "out", inputs=("in",), env={"RANK": "0"}).rc == 0
    assert len((tmp_path / "out").read_bytes().splitlines()) == 2
