"""The examples of every command run as they stand, on data that is shipped or that an earlier line of them makes.

A line with a word in capitals, such as NAME or PAIRS.jsonl, has to be filled in first and is not run: what needs a
model of one's own, much data or much time. Each command has a line that runs.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import frame
import pytest

PATIENCE_S = 600.0  #: for all lines of a command
_TO_FILL_IN = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Z0-9_-]+(?![A-Za-z0-9])")
_GOES_ON = ("\\", "|", "&&")
#: Programs of examples beside the commands.
PROGRAMS = ("jq", "curl")


def lines_of(examples: str) -> Iterator[str]:
    """The lines of shell in the examples of a command, those that go on joined."""
    held = ""
    for line in examples.splitlines():
        if not line.startswith("    "):
            assert not held, f"a line goes on in none: {held}"
            continue
        held += line[4:] + "\n"
        if not line.endswith(_GOES_ON) and _is_whole(held):
            yield held.rstrip("\n")
            held = ""
    assert not held, f"a line goes on in none: {held}"


def _is_whole(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:  # within quotation marks
        return False
    return True


def is_to_be_filled_in(line: str) -> bool:
    """Whether a line has a word in capitals; what stands in quotation marks may have some."""
    plain = re.sub(r"'[^']*'", "''", line)
    return any(_TO_FILL_IN.search(word) for word in shlex.split(plain)) or bool(
        re.search(r'"(image|images)": \[?"[A-Z]+\.', line)
    )


def runnable(command: frame.Command) -> list[str]:
    return [line for line in lines_of(command.tool.examples) if not is_to_be_filled_in(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("step-parse ROLLOUTS.jsonl | jq .", True),
        ("vprune --model NAME q.jsonl", True),
        ("rag-rollout --retriever bm25:INDEX", True),
        ("pmp-data camvid:CAMVID --split val", True),
        ("repro-report OUTPUTS/main/*/*.pt", True),
        ('echo \'{"image": "DESK.jpg"}\' | pair-make photos -', True),
        ('echo \'{"id": "A", "text": "NBA Slam"}\' | answer-check', False),
        ('head -n 1 "$(toolroll --data-path)/questions.jsonl"', False),
        ("pair-make scenes -n 2 --size 96x72 --out . | step-parse", False),
    ],
)
def test_what_is_in_capitals_is_to_be_filled_in(line, expected):
    assert is_to_be_filled_in(line) is expected


def test_lines_that_go_on_are_joined():
    examples = "  One:\n    a |\n      b\n  Two, and three:\n    c 'd\n      e'\n    f \\\n      g &\n"
    assert list(lines_of(examples)) == ["a |\n  b", "c 'd\n  e'", "f \\\n  g &"]


@pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
def test_a_command_has_an_example_that_runs(command):
    assert any(re.search(rf"(^|[|&\s]){command.name}(\s|$)", line) for line in runnable(command))


@pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
def test_the_examples_run(command, tmp_path):
    missing = [name for name in PROGRAMS if name in command.tool.examples and not _is_there(name)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    script = "\n".join(["set -e -o pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT", *runnable(command)])
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/data").symlink_to(frame.ROOT / "tests/data")  # as in a fresh checkout
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=frame.environment({"PATH": frame.warm_path()}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    told = err.decode(errors="replace")
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert not [line for line in told.splitlines() if "warning: " in line]
    assert out or any(tmp_path.iterdir())


def _is_there(name: str) -> bool:
    return frame.run(["which", name]).rc == 0
