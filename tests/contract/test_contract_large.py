"""Streams and files of gigabytes: nothing of a stream is held, and what no memory should hold is refused in one line.

The usual run has streams of 200 MB and the 2 GB that cost no time; `make faults` has 2 GB of each.
"""

from __future__ import annotations

import json
import os
import resource
import sys

import frame
import pytest
from contract.limits import limited
from contract.test_contract_faults import WRITERS, assert_told

COMMANDS = {command.name: command for command in frame.COMMANDS}
LARGE = 2 << 30
SMALL = 20_000_000
LIMIT_MB, GROWTH_MB = 40, 4
SHAPES = ["step-reward", "step-stats", "spy-stats"]  #: rows in and out; one result of all rows; mere counts

#: Writes the file of its first argument as often as its second says to the rest, a command; says the most memory that
#: had, in kilobytes, and how many lines came out.
FEEDER = """
import resource, subprocess, sys
block = open(sys.argv[1], "rb").read()
command = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
lines = subprocess.Popen(["wc", "-l"], stdin=command.stdout, stdout=subprocess.PIPE)
command.stdout.close()
try:
    for _ in range(int(sys.argv[2])):
        command.stdin.write(block)
    command.stdin.close()
except BrokenPipeError:
    pass
count = int(lines.communicate()[0])
code = command.wait()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, count)
sys.exit(code)
"""


def fed(command, folder, block, times, *args):
    """Run a command on so many times the bytes of `block`; how it ended, its most memory in MB, its lines."""
    (folder / "block").write_bytes(block)
    line = command.line(folder, *args)
    result = frame.run([sys.executable, "-S", "-c", FEEDER, str(folder / "block"), str(times), *line], cwd=folder)
    peak, lines = map(int, result.out.split())
    return result, peak / 1024, lines


@pytest.mark.parametrize("size", [200_000_000, pytest.param(LARGE, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", SHAPES)
def test_memory_is_flat_over_a_long_stream(name, size, tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "PATIENCE_S", 600.0)
    command = COMMANDS[name]
    rows = [{**command.specimen.row(i), "padding": "some words " * 700} for i in range(120)]
    block = "".join(json.dumps(row) + "\n" for row in rows).encode()
    _, few, _ = fed(command, tmp_path, block, SMALL // len(block))
    result, many, lines = fed(command, tmp_path, block, size // len(block))
    count = len(rows) * (size // len(block))
    assert result.rc == 0, result.err
    assert f"{name}: {count} in, " in result.err
    assert lines == (count if command in frame.MAPPERS else 1)
    assert many < LIMIT_MB
    assert many - few < GROWTH_MB


@pytest.mark.parametrize("name", SHAPES)
def test_a_line_of_two_gigabytes_is_refused(name, tmp_path):
    """As it comes, long before it is whole."""
    command = COMMANDS[name]
    result, peak, lines = fed(command, tmp_path, b"a" * 2**20, LARGE >> 20)
    assert (result.rc, lines) == (1, 0)
    assert result.complaints == [f"{name}: stdin:1: a line of more than 256 MiB"]
    assert peak < 400


def named():
    """Each file that a command's options name; in the usual run, those that are not read as a whole."""
    for command in WRITERS:
        for name, _ in command.specimen.files:
            usual = name.endswith((".safetensors", ".bmp", ".ply")) and command.name != "nvs-render"
            marks = () if usual else pytest.mark.faults
            yield pytest.param(command, name, marks=marks, id=f"{command}-{name}")


@pytest.mark.parametrize(("command", "name"), list(named()))
def test_two_gigabytes_in_place_of_a_file_that_an_option_names(command, name, tmp_path):
    (tmp_path / "in").write_bytes(command.lines(2) if command.specimen.row is not None else b"")
    line = command.line(tmp_path, inputs=("in",) if command.specimen.row is not None else ())
    os.truncate(tmp_path / name, 0)
    os.truncate(tmp_path / name, LARGE)
    with limited(resource.RLIMIT_AS, 5 << 30):
        result = frame.run(line, cwd=tmp_path)
    if name != "bandit/journal.jsonl":  # whose end may be damaged
        assert result.rc == 1
    assert_told(command, result, codes=(0, 1))
