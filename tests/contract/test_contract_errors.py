"""Bad rows: stop, skip or keep; error rows of earlier commands; how failures are told."""

from __future__ import annotations

import json
import re

import frame
import pytest

every_command = pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)
BAD = b'{"id": oops}\n'
FAILED = b'{"id" : "x" , "error":{"why":"before","where":"f:9"},  "big":1e400}\n'


@every_mapper
def test_stop_writes_what_came_before_and_names_the_place(command, tmp_path):
    good = command.lines(3)
    (tmp_path / "in put.jsonl").write_bytes(good + b"\n" + BAD + good)
    result = command.run(tmp_path, inputs=("in put.jsonl",))
    assert result.rc == 1
    (told,) = result.complaints
    assert told.startswith(f"{command.name}: in put.jsonl:5: not JSON: ")
    assert result.out == command.run(tmp_path, stdin=good).out


@every_streamer
def test_skip_leaves_the_row_out_and_goes_on(command, tmp_path):
    first, second = command.lines(2).splitlines(keepends=True)
    result = command.run(tmp_path, "--on-error", "skip", stdin=first + BAD + second)
    assert result.rc == 0
    assert result.out == command.run(tmp_path, stdin=first + second).out
    assert result.complaints[0].startswith(f"{command.name}: stdin:2: ")
    assert "3 in, 2 out, 1 error" in result.err


@every_streamer
def test_keep_puts_an_error_row_in_its_place(command, tmp_path):
    first, second = command.lines(2).splitlines(keepends=True)
    wrong = json.dumps({**json.loads(second), "id": {}, "keep": 1}).encode() + b"\n"
    if command.name == "step-parse":
        wrong = b'{"id":"w","response":[],"keep":1}\n'
    result = command.run(tmp_path, "--on-error", "keep", stdin=first + wrong + BAD + second)
    assert result.rc == 0
    good = command.run(tmp_path, stdin=first + second).lines
    assert [result.lines[0], result.lines[3]] == good
    typed, broken = result.rows[1:3]
    assert typed["keep"] == 1
    assert typed["error"]["where"] == "stdin:2"
    assert broken["raw"] == BAD.decode().strip()
    assert broken["error"]["where"] == "stdin:3"
    assert set(broken["error"]) == {"why", "where"}


@pytest.mark.parametrize("command", frame.REDUCERS, ids=str)
def test_reducers_leave_bad_rows_out(command, tmp_path):
    good = command.lines(2)
    for mode in ("skip", "keep"):
        result = command.run(tmp_path, "--on-error", mode, stdin=good + BAD + FAILED)
        assert (result.rc, len(command.results(result))) == (0, 1)
        assert "1 error" in result.err
        assert "1 passed on" in result.err
    result = command.run(tmp_path, stdin=good + BAD)
    assert (result.rc, result.out, len(result.complaints)) == (1, b"", 1)


@every_streamer
def test_error_rows_of_earlier_commands_pass_untouched_and_are_counted(command, tmp_path):
    first, second = command.lines(2).splitlines(keepends=True)
    for mode in ("stop", "skip", "keep"):
        result = command.run(tmp_path, "--on-error", mode, stdin=first + FAILED + second)
        assert result.rc == 0
        assert FAILED.strip() in result.lines[1:-1]
        assert len(result.lines) == 3
        assert "1 passed on" in result.err
        assert "error" not in " ".join(result.complaints)


@every_reader
def test_a_file_collects_the_bad_rows(command, tmp_path):
    first, second = command.lines(2).splitlines(keepends=True)
    result = command.run(tmp_path, "--on-error", "skip", "-e", "bad.jsonl", stdin=first + BAD + FAILED + second)
    assert result.rc == 0
    (row,) = map(json.loads, (tmp_path / "bad.jsonl").read_bytes().splitlines())
    assert row["raw"] == BAD.decode().strip()
    assert not list(tmp_path.glob("*.part"))


def test_the_file_of_bad_rows_is_there_after_a_failure_and_without_any(tmp_path):
    tag = frame.own("tag")
    assert tag.run(tmp_path, "-e", "bad.jsonl", stdin=tag.lines(1) + BAD).rc == 1
    assert len((tmp_path / "bad.jsonl").read_bytes().splitlines()) == 1
    assert tag.run(tmp_path, "-e", "bad.jsonl", stdin=tag.lines(1)).rc == 0
    assert (tmp_path / "bad.jsonl").read_bytes() == b""


@every_reader
def test_max_errors(command, tmp_path):
    rows = command.lines(1) + BAD * 3
    tolerated = command.run(tmp_path, "--on-error", "skip", "--max-errors", 3, stdin=rows)
    assert tolerated.rc == 0
    given_up = command.run(tmp_path, "--on-error", "skip", "--max-errors", 2, stdin=rows)
    assert given_up.rc == 1
    assert given_up.complaints[-1] == f"{command.name}: stdin:4: more than 2 bad rows"


def test_rows_that_a_command_fails_keep_what_was_made_of_them(tmp_path):
    command = frame.own("fail-some")
    rows = command.lines(5)
    kept = command.run(tmp_path, "--on-error", "keep", stdin=rows)
    assert kept.rc == 0
    assert [row["id"] for row in kept.rows] == ["i0", "i1", "i2", "i3", "i4"]
    assert kept.rows[3] == {
        "id": "i3",
        "n": 3,
        "half": 1.5,
        "error": {"why": "a multiple of three", "where": "stdin:4"},
    }
    skipped = command.run(tmp_path, "--on-error", "skip", stdin=rows)
    assert [row["id"] for row in skipped.rows] == ["i1", "i2", "i4"]
    stopped = command.run(tmp_path, stdin=command.lines(5, start=1))
    assert (stopped.rc, stopped.complaints) == (1, ["fail-some: stdin:3: a multiple of three"])
    assert [row["id"] for row in stopped.rows] == ["i1", "i2"]


@pytest.mark.parametrize("how", ["nan", "surrogate", "big", "exit"])
def test_a_value_a_record_cannot_hold_fails_its_row_only(how, tmp_path):
    command = frame.own("spoil")
    result = command.run(tmp_path, "--how", how, "--on-error", "keep", stdin=command.lines(4))
    assert result.rc == 0
    assert [("error" in row, row.get("made", 0)) for row in result.rows] == [(False, None), (True, 0)] * 2
    assert result.rows[1]["error"]["where"] == "stdin:2"
    assert "\n" not in result.rows[1]["error"]["why"]


def test_a_defect_is_told_in_one_line_and_with_a_traceback_on_request(tmp_path):
    command = frame.own("spoil")
    result = command.run(tmp_path, "--how", "raise", stdin=command.lines(2))
    assert (result.rc, len(result.lines)) == (1, 1)
    assert result.err == "spoil: internal error: ZeroDivisionError: by nought (run with -v -v for the traceback)\n"
    loud = command.run(tmp_path, "--how", "raise", "-v", "-v", stdin=command.lines(2))
    assert "Traceback (most recent call last)" in loud.err
    as_json = command.run(tmp_path, "--how", "raise", "-v", "-v", "--log", "json", stdin=command.lines(2))
    records = [json.loads(line) for line in as_json.err.splitlines()]
    assert [record["level"] for record in records] == ["debug", "error"]


def test_many_bad_rows_are_counted_not_all_told(tmp_path):
    tag = frame.own("tag")
    result = tag.run(tmp_path, "--on-error", "skip", stdin=BAD * 500)
    assert len(result.complaints) == 20
    assert "500 errors" in result.err


def test_bad_rows_stay_in_order_around_batches(tmp_path):
    command = frame.own("batch")
    good = command.lines(9).splitlines(keepends=True)
    bad = [b'{"id":"bad%d"}\n' % i for i in range(9)]
    result = command.run(tmp_path, "--on-error", "keep", stdin=b"".join(a + b for a, b in zip(good, bad, strict=True)))
    assert [row["id"] for row in result.rows] == [name for i in range(9) for name in (f"i{i}", f"bad{i}")]


def test_a_reducer_can_refuse_a_row(tmp_path):
    total = frame.own("total")
    rows = total.lines(3) + b'{"id":"m","n":-1}\n'
    stopped = total.run(tmp_path, stdin=rows)
    assert (stopped.rc, stopped.out, stopped.err) == (1, b"", "total: stdin:4: a negative number\n")
    skipped = total.run(tmp_path, "--on-error", "skip", "-e", "bad.jsonl", stdin=rows)
    assert skipped.rows == [{"name": "all", "count": 3, "total": 3}]
    assert json.loads((tmp_path / "bad.jsonl").read_bytes())["id"] == "m"


@every_reader
def test_quiet_says_errors_only(command, tmp_path):
    assert command.run(tmp_path, "-q", stdin=command.lines(1)).err == ""
    result = command.run(tmp_path, "-q", "--on-error", "skip", stdin=command.lines(1) + BAD)
    assert (result.rc, len(result.err.splitlines())) == (0, 1)


@every_reader
def test_a_run_ends_with_one_summary_line(command, tmp_path):
    result = command.run(tmp_path, stdin=command.lines(2))
    assert re.fullmatch(rf"{command.name}: 2 in, \d out, \d+\.\d s", result.err.splitlines()[-1])
    assert len([line for line in result.err.splitlines() if " in, " in line]) == 1


@every_reader
def test_the_log_as_json_is_json_lines(command, tmp_path):
    result = command.run(tmp_path, "--log", "json", "--on-error", "skip", stdin=command.lines(2) + BAD + FAILED)
    records = [json.loads(line) for line in result.err.splitlines()]
    assert {record["command"] for record in records} == {command.name}
    assert all({"time", "level", "event", "message", "shard", "counts"} <= record.keys() for record in records)
    error = next(record for record in records if record["level"] == "error")
    assert error["place"] == "stdin:3"
    assert records[-1]["event"] == "summary"
    counts = records[-1]["counts"]
    assert (counts["read"], counts["errors"], counts["passed"]) == (4, 1, 1)
    assert not re.search(r"\x1b", result.err)


@every_command
def test_messages_have_no_colour_and_no_full_stop(command, tmp_path):
    result = command.run(tmp_path, "--log", "xml")
    assert "\x1b" not in result.err
    assert not result.err.rstrip().endswith(".")
