"""In a pipe: rows are handed on when the input pauses, and a reader or writer that goes away is no drama."""

from __future__ import annotations

import json
import os
import pty
import select
import signal

import frame
import pytest

every_command = pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)


def send(process, data):
    process.stdin.write(data)
    process.stdin.flush()


def receive(process):
    """The next line of the output, which must come although the input stays open."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], frame.PATIENCE_S)
        assert ready, "nothing was handed on"
        piece = os.read(process.stdout.fileno(), 1)
        assert piece, "the output ended"
        line += piece
    return json.loads(line)


@every_streamer
def test_rows_are_handed_on_when_the_input_pauses(command, tmp_path):
    with command.start(tmp_path, "--on-error", "keep") as process:
        for i in range(3):
            send(process, command.lines(1, start=i))
            assert receive(process)["id"] == command.specimen.row(i)["id"]
        result = frame.ended(process)
    assert (result.rc, result.out) == (0, b"")


@every_mapper
def test_error_rows_are_handed_on_too(command, tmp_path):
    passed = b'{"id":"p","error":{"why":"w","where":"f:1"}}\n'
    with command.start(tmp_path, "--on-error", "keep") as process:
        for sent in (passed, b"oops\n", command.lines(1), passed, b"oops\n"):
            send(process, sent)
            assert ("error" in receive(process)) is (sent in (passed, b"oops\n"))


def test_half_a_row_holds_nothing_back(tmp_path):
    tag = frame.own("tag")
    with tag.start(tmp_path) as process:
        send(process, b'{"n":1}\n{"n":')
        assert receive(process)["tag"] == 2
        send(process, b"2}\n")
        assert receive(process)["tag"] == 4


def test_rows_of_a_file_are_handed_on_before_waiting_for_stdin(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "first").write_bytes(tag.lines(2))
    with tag.start(tmp_path, inputs=("first", "-")) as process:
        assert [receive(process)["n"], receive(process)["n"]] == [0, 1]
        send(process, tag.lines(1, start=7))
        assert receive(process)["n"] == 7


def test_rows_are_handed_on_before_waiting_for_a_named_pipe(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "first").write_bytes(tag.lines(1))
    os.mkfifo(tmp_path / "fifo")
    with tag.start(tmp_path, inputs=("first", "fifo")) as process:
        assert receive(process)["n"] == 0
        (tmp_path / "fifo").write_bytes(tag.lines(1, start=3))
        assert receive(process)["n"] == 3


def test_a_batch_takes_what_is_there_and_does_not_wait_for_more(tmp_path):
    command = frame.own("batch")
    with command.start(tmp_path) as process:
        for count in (1, 3, 4):
            send(process, command.lines(count))
            assert [receive(process)["batch"] for _ in range(count)] == [count] * count
    sizes = [row["batch"] for row in command.run(tmp_path, stdin=command.lines(10)).rows]
    assert sizes == [4] * 8 + [2] * 2


@pytest.mark.parametrize("options", [(), ("--line-buffered",)], ids=str)
def test_line_buffered_hands_on_every_row_although_more_is_there(options, tmp_path):
    tag = frame.own("tag")
    with tag.start(tmp_path, "--delay", 0.3, *options) as process:
        send(process, tag.lines(2))
        receive(process)
        more_at_once = bool(select.select([process.stdout], [], [], 0)[0])
        receive(process)
    assert more_at_once is not bool(options)


def test_long_pipes_of_resident_commands_do_not_jam(tmp_path):
    tag, slow = frame.own("tag"), frame.own("slow-cat")
    (tmp_path / "in").write_bytes(tag.lines(30_000))
    pipe = f"{tag.shell(tmp_path)} < in | {slow.shell(tmp_path)} | {frame.own('batch').shell(tmp_path)} | tail -n 1"
    result = frame.shell(pipe, cwd=tmp_path)
    assert result.rows[0]["n"] == 29_999


@pytest.mark.parametrize("count", [0, 1, 777, 65_536, 200_001])
@pytest.mark.parametrize("command", [*frame.MAPPERS, frame.own("slow-cat")], ids=str)
def test_a_reader_that_goes_away_ends_the_command_by_sigpipe(command, count, tmp_path):
    (tmp_path / "in").write_bytes(command.wide_lines(300))  # more than is read and what a pipe holds
    with command.start(tmp_path, inputs=("in",)) as process:
        taken = 0
        while taken < count:
            taken += len(process.stdout.read1(count - taken))
        process.stdout.close()
        assert process.wait(frame.PATIENCE_S) == -signal.SIGPIPE
        assert frame.Result(0, b"", process.stderr.read().decode()).complaints == []


@every_streamer
def test_a_pause_notices_that_the_reader_is_gone(command, tmp_path):
    with command.start(tmp_path) as process:
        process.stdout.close()
        send(process, command.lines(1))
        assert process.wait(frame.PATIENCE_S) == -signal.SIGPIPE
        assert b"ipe" not in process.stderr.read()


def test_the_shell_sees_141(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "in").write_bytes(tag.lines(20_000))
    result = frame.shell(f"{tag.shell(tmp_path)} in | head -n 1 > /dev/null; echo ${{PIPESTATUS[0]}}", cwd=tmp_path)
    assert (result.out, result.err) == (b"141\n", "")


@every_command
def test_help_into_a_closed_pipe_is_silent(command, tmp_path):
    with frame.started([*command.argv, "--help"], cwd=tmp_path, stdin=None) as process:
        process.stdout.close()
        assert process.wait(frame.PATIENCE_S) in (0, -signal.SIGPIPE)
        assert process.stderr.read() == b""


@every_reader
def test_a_full_disk_is_told_in_one_line(command, tmp_path):
    result = frame.shell(f"{command.shell(tmp_path)} > /dev/full", cwd=tmp_path, stdin=command.lines(3))
    assert result.rc == 1
    assert result.complaints == [f"{command.name}: stdout: No space left on device"]
    named = command.run(tmp_path, "-o", "/dev/full", stdin=command.lines(3))
    assert (named.rc, named.complaints) == (1, [f"{command.name}: /dev/full: No space left on device"])


@every_reader
def test_a_full_disk_for_the_bad_rows_is_told(command, tmp_path):
    result = command.run(tmp_path, "-e", "/dev/full", "--on-error", "skip", stdin=command.lines(1) + b"oops\n")
    assert result.rc == 1
    assert result.complaints[-1] == f"{command.name}: /dev/full: No space left on device"


@every_command
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_full_disk_is_told_for_help_too(command, option, tmp_path):
    with open("/dev/full", "wb") as full, frame.started([*command.argv, option], cwd=tmp_path, stdout=full) as process:
        result = frame.ended(process)
    assert (result.rc, result.err) == (1, f"{command.name}: No space left on device\n")


def test_a_closed_stderr_ends_no_run(tmp_path):
    tag = frame.own("tag")
    for redirection in ("2>&-", "2>/dev/full"):
        result = frame.shell(
            f"{tag.shell(tmp_path)} --on-error skip {redirection}", cwd=tmp_path, stdin=b"x\n" + tag.lines(1)
        )
        assert (result.rc, len(result.rows)) == (0, 1)


@every_reader
def test_a_command_that_waits_for_the_terminal_says_so(command, tmp_path):
    master, terminal = pty.openpty()
    try:
        with command.start(tmp_path, stdin=terminal) as process:
            os.write(master, command.lines(1) + b"\x04")
            result = frame.ended(process)
    finally:
        os.close(master)
        os.close(terminal)
    assert result.rc == 0
    assert len(command.results(result)) == 1
    assert "reading from the terminal" in result.err


def test_a_bar_is_for_terminals_and_leaves_whole_messages(tmp_path):
    tag = frame.own("tag")
    master, terminal = pty.openpty()
    try:
        with tag.start(tmp_path, "--on-error", "skip", stderr=terminal) as process:
            out, _ = process.communicate(tag.lines(3) + b"oops\n", timeout=frame.PATIENCE_S)
        shown = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(terminal)
    assert out.count(b"\n") == 3
    assert "tag: stdin:4: not JSON" in shown
    assert "tag: 4 in, 3 out, 1 error" in shown
