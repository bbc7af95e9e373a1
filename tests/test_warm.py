"""A command that starts warm ends, speaks and is killed like one that has a start of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import frame
import pytest
import warm
from contract.test_contract_pipes import receive, send

COMMAND = next(command for command in frame.COMMANDS if command.name == "answer-check")
ROWS = COMMAND.lines(3)
START = pytest.mark.parametrize("warm_start", [True, False], ids=["warm", "real"])


def run(folder, *args, warm_start, **settings):
    return frame.run([*COMMAND.argv, *args], cwd=folder, warm_start=warm_start, **settings)


def start(folder, *args, warm_start=True, **settings):
    return frame.started([*COMMAND.argv, *args], cwd=folder, warm_start=warm_start, **settings)


def opened(pid):
    """What a process has open, by number."""
    return {int(path.name): str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def pipes_to(process):
    """The other ends of its standard streams, by the same names."""
    streams = (process.stdin, process.stdout, process.stderr)
    return [str(Path(f"/proc/self/fd/{stream.fileno()}").readlink()) for stream in streams]


@pytest.mark.parametrize(
    ("args", "stdin", "rc"),
    [
        (("-q",), ROWS, 0),
        (("-q",), b"oops\n", 1),
        (("-q", "nowhere.jsonl"), b"", 1),
        (("--no-such-option",), b"", 2),
        (("--help",), b"", 0),
        (("--show-config",), b"", 0),
    ],
    ids=["good rows", "a bad row", "no such file", "no such option", "help", "settings"],
)
def test_it_ends_and_says_what_a_real_start_does(args, stdin, rc, tmp_path):
    result = run(tmp_path, *args, stdin=stdin, warm_start=True)
    assert result == run(tmp_path, *args, stdin=stdin, warm_start=False)
    assert result.rc == rc


def test_it_is_a_process_of_its_own_in_the_folder_and_group_of_whoever_asked(tmp_path):
    with start(tmp_path) as process:
        send(process, ROWS)
        receive(process)
        assert isinstance(process, warm.Popen)
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        assert os.getpgid(process.pid) == os.getpgrp()
        ends = opened(process.pid)
        assert [ends[fd] for fd in range(3)] == pipes_to(process)


def test_it_holds_nothing_of_the_keeper_or_of_its_neighbours(tmp_path):
    with start(tmp_path) as first, start(tmp_path) as second:
        for process in (first, second):
            send(process, ROWS)
            receive(process)
        assert not [end for end in opened(second.pid).values() if "socket" in end or "pidfd" in end]
        assert not set(pipes_to(first)) & set(opened(second.pid).values())
        first.stdin.close()
        assert first.wait(frame.PATIENCE_S) == 0  # its input ended, although the second still runs
        assert second.poll() is None


def test_the_environment_is_what_was_asked_for_and_nothing_of_an_earlier_run(tmp_path):
    for env, value in (({"TOOLROLL_ON_ERROR": "keep"}, '"keep"  # environment'), ({}, '"stop"  # default')):
        shown = run(tmp_path, "--show-config", env=env, warm_start=True).out.decode()
        assert f"on_error = {value}\n" in shown


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({"PYTHONHASHSEED": "1"}, subprocess.Popen),
        ({"OMP_NUM_THREADS": "2"}, subprocess.Popen),
        ({"OMP_NUM_THREADS": "1"}, warm.Popen),
        ({"COLUMNS": "70"}, warm.Popen),
    ],
    ids=str,
)
def test_what_is_read_at_a_start_needs_a_real_one(env, kind, tmp_path):
    with start(tmp_path, env=env) as process:
        assert type(process) is kind


@START
@pytest.mark.parametrize(
    ("number", "rc"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGSEGV, -signal.SIGSEGV),
        (signal.SIGUSR2, -signal.SIGUSR2),
        (signal.SIGTERM, 75),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_signals_end_it(number, rc, warm_start, tmp_path):
    with start(tmp_path, warm_start=warm_start) as process:
        send(process, ROWS)
        receive(process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.send_signal(number)
        assert process.wait(frame.PATIENCE_S) == rc
        assert process.returncode == process.poll() == rc


def test_ctrl_c_ends_it_even_where_whoever_asked_is_deaf_to_it(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with start(tmp_path) as process:
            send(process, ROWS)
            receive(process)
            process.send_signal(signal.SIGINT)
            assert process.wait(frame.PATIENCE_S) == 130
    finally:
        signal.signal(signal.SIGINT, before)


@START
def test_a_reader_that_goes_away_ends_it_by_sigpipe(warm_start, tmp_path):
    with start(tmp_path, warm_start=warm_start) as process:
        process.stdout.close()
        send(process, ROWS)
        assert process.wait(frame.PATIENCE_S) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@START
def test_a_full_disk_is_seen_at_its_end(warm_start, tmp_path):
    with open("/dev/full", "wb") as full, start(tmp_path, "--help", stdout=full, warm_start=warm_start) as process:
        result = frame.ended(process)
    assert (result.rc, result.err) == (1, "answer-check: No space left on device\n")


def test_much_goes_in_and_out(tmp_path):
    rows = COMMAND.wide_lines(1000)
    result = run(tmp_path, "-q", stdin=rows, warm_start=True)
    assert [row["id"] for row in result.rows] == [f"q{i}" for i in range(1000)]
    assert len(result.out) > len(rows) > 1_000_000


def test_each_of_many_gets_its_own_end(tmp_path):
    lines = [(["--help"], 0), (["--no-such-option"], 2), (["nowhere.jsonl"], 1)] * 4
    found = [warm.Popen([*COMMAND.argv, *args], torch=False, cwd=tmp_path, **QUIET) for args, _ in lines]
    assert [process.wait(frame.PATIENCE_S) for process in found] == [rc for _, rc in lines]
    assert len({process.pid for process in found}) == len(lines)


QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def test_a_shim_in_a_shell_ends_as_its_command_does(tmp_path):
    line = "layercast-run --no-such-option; echo $?; layercast-run --version | wc -l; layercast-run --help > /dev/full"
    result = frame.shell(line, cwd=tmp_path)
    assert (result.out, result.rc) == (b"2\n1\n", 1)
    assert "layercast-run: No space left on device" in result.err
