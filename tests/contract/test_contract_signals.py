"""Being asked to stop: what is in hand is finished and kept, and the exit code says that it can be resumed."""

from __future__ import annotations

import os
import signal
import time

import frame
import pytest
from contract.test_contract_pipes import receive, send

every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)
every_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)


@every_signal
@every_streamer
def test_a_signal_while_waiting_ends_with_75_and_an_output_to_resume(command, number, tmp_path):
    with command.start(tmp_path, "-o", "out.jsonl") as process:
        send(process, command.lines(2))
        frame.wait_until(lambda: _lines(tmp_path / "out.jsonl.part") == 2, "both rows are written")
        process.send_signal(number)
        result = frame.ended(process)
    assert result.rc == 75
    assert result.complaints == [f"{command.name}: warning: stopped by {number.name}; --resume continues it"]
    assert not (tmp_path / "out.jsonl").exists()
    again = command.run(tmp_path, "-o", "out.jsonl", "--resume", stdin=command.lines(4))
    assert again.rc == 0
    assert "2 skipped" in again.err
    assert (tmp_path / "out.jsonl").read_bytes() == command.run(tmp_path, stdin=command.lines(4)).out


def _lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _size(path):
    return path.exists() and path.stat().st_size


def test_a_signal_lets_the_row_in_hand_be_finished(tmp_path):
    slow = frame.own("slow-cat")
    (tmp_path / "in").write_bytes(slow.lines(50))
    with slow.start(tmp_path, "--delay", 0.3, inputs=("in",)) as process:
        receive(process)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert result.rc == 75
    assert [row["n"] for row in result.rows] == [1]


def test_a_second_signal_stops_at_once(tmp_path):
    slow = frame.own("slow-cat")
    with slow.start(tmp_path, "--delay", 50) as process:
        send(process, slow.lines(1))
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(frame.subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 75
        assert process.stderr.read() == b"slow-cat: warning: stopped at once by a second SIGTERM\n"


def test_half_a_row_is_not_taken_for_a_row(tmp_path):
    tag = frame.own("tag")
    with tag.start(tmp_path, "--on-error", "keep") as process:
        send(process, tag.lines(1) + b'{"id":"half')
        receive(process)
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert (result.rc, result.out) == (75, b"")
    assert result.complaints == ["tag: warning: stopped by SIGTERM"]


@every_reader
def test_a_signal_while_waiting_for_the_first_row(command, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with command.start(tmp_path, inputs=("fifo",)) as process:
        frame.wait_until(lambda: _blocked(process.pid), "it waits")
        process.send_signal(signal.SIGTERM)
        assert process.wait(frame.PATIENCE_S) == 75


def _blocked(pid):
    """Whether a process has handlers for our signals and sleeps."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    catches = int(status["SigCgt"], 16)
    return bool(catches >> (signal.SIGTERM - 1) & 1) and status["State"].startswith("S")


@pytest.mark.parametrize("command", [*frame.REDUCERS, frame.own("total")], ids=str)
def test_a_reducer_asked_to_stop_gives_no_result_of_a_part(command, tmp_path):
    with command.start(tmp_path) as process:
        send(process, command.lines(3))
        frame.wait_until(lambda: _blocked(process.pid), "it waits for more")
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert (result.rc, result.out) == (75, b"")
    assert not [path for path in tmp_path.glob("made-*") if not path.name.startswith(".")]


@every_streamer
def test_ctrl_c_ends_with_130_and_without_a_traceback(command, tmp_path):
    with command.start(tmp_path, "-o", "out.jsonl") as process:
        send(process, command.lines(1))
        frame.wait_until(lambda: _size(tmp_path / "out.jsonl.part"), "a row is written")
        process.send_signal(signal.SIGINT)
        result = frame.ended(process)
    assert (result.rc, result.complaints) == (130, [])
    assert (tmp_path / "out.jsonl.part").exists()
