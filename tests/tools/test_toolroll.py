"""toolroll: the list of commands, and running one by it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import sys
from itertools import groupby
from pathlib import Path

import frame
import pytest

from toolroll import roll
from toolroll.docs.blocks import commands_table
from toolroll.docs.command_page import summary
from toolroll.errors import UsageError

TOOLROLL = str(frame.BIN / "toolroll")
ROW = b'{"id": "q1", "response": "<answer>Paris</answer>"}\n'


def toolroll(tmp_path, *args, **settings):
    return frame.run([TOOLROLL, *map(str, args)], cwd=tmp_path, **settings)


def test_it_lists_every_command_under_its_system(tmp_path):
    result = toolroll(tmp_path, env={"COLUMNS": "200"})
    assert (result.rc, result.err) == (0, "")
    text = result.out.decode()
    for command in frame.COMMANDS:
        if command.name != "toolroll":
            name = command.name.removeprefix("toolroll-")
            part = text.split(f"\n{command.tool.system}:\n")[1].split("\n\n")[0]
            line = next(line for line in part.splitlines() if line.split()[0] == name)
            assert summary(command.tool).startswith(" ".join(line.split()[1:4]))
    assert toolroll(tmp_path, "help", env={"COLUMNS": "200"}).out == result.out


def test_the_roll_is_what_the_commands_declare():
    declared = {(command.name, command.tool.system, summary(command.tool)) for command in frame.COMMANDS}
    assert {(entry.name, entry.system, entry.summary) for entry in roll.entries()} == declared
    assert {entry.name: entry.place for entry in roll.entries()} == frame.entry_points()


def test_systems_come_in_one_order():
    """That of the README's table of papers; then what they share, and toolroll itself."""
    papers = (frame.ROOT / "README.md").read_text().split("| system | what is asked |")[1].split("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in papers.splitlines()[2:]] == [*roll.SYSTEMS[:10]]
    assert [system for system, _ in groupby(entry.system for entry in roll.entries())] == [*roll.SYSTEMS]
    table = commands_table(command.tool for command in frame.COMMANDS)
    assert [system for line in table.splitlines()[2:] if (system := line.split(" | ")[0][2:])] == [*roll.SYSTEMS]


def test_no_command_is_loaded_to_list_them(tmp_path):
    code = (
        "import sys; from toolroll.tools.toolroll import main\ntry: main([])\n"
        "finally: sys.stderr.write(' '.join(name for name in sys.modules if name.startswith('toolroll.tools.')))"
    )
    assert frame.run([sys.executable, "-c", code], cwd=tmp_path).err == "toolroll.tools.toolroll"


def test_a_command_run_by_it_is_the_command(tmp_path):
    plain = frame.run([str(frame.BIN / "step-parse")], stdin=ROW, cwd=tmp_path)
    through = toolroll(tmp_path, "step-parse", stdin=ROW)
    assert (through.rc, through.out) == (plain.rc, plain.out) == (0, plain.out)
    assert re.sub(r"\d+\.\d s", "", through.err) == re.sub(r"\d+\.\d s", "", plain.err)
    toolroll(tmp_path, "step-parse", "-o", "parsed.jsonl", stdin=ROW)
    meta = json.loads((tmp_path / "parsed.jsonl.meta.json").read_text())
    assert (meta["command"], meta["argv"]) == ("step-parse", ["step-parse", "-o", "parsed.jsonl"])


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("--schema",), ("--dialect", "none"), ("--none",)])
def test_all_behind_a_command_is_its_own(args, tmp_path):
    plain = frame.run([str(frame.BIN / "step-parse"), *args], cwd=tmp_path)
    through = toolroll(tmp_path, "step-parse", *args)
    assert (through.rc, through.out, through.err) == (plain.rc, plain.out, plain.err)


def test_it_ends_as_the_command_ends(tmp_path):
    assert toolroll(tmp_path, "step-parse", stdin=b"no JSON\n").rc == 1
    cut = frame.shell(f"{TOOLROLL} kk-make -n 2000 | head -n 1; echo ${{PIPESTATUS[0]}}", cwd=tmp_path)
    assert cut.out.splitlines()[-1] == b"141"
    assert cut.err == ""
    with frame.started([TOOLROLL, "kk-make", "-n", "1000000"], cwd=tmp_path) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        result = frame.ended(process)
    assert result.rc == 75
    assert "kk-make: warning: stopped by SIGTERM" in result.err


def test_help_is_the_command_s_where_nobody_looks(tmp_path):
    for name, command in (("step-parse", "step-parse"), ("doctor", "toolroll-doctor"), ("toolroll", "toolroll")):
        result = toolroll(tmp_path, "help", name)
        assert (result.rc, result.err) == (0, "")
        assert result.out == frame.run([str(frame.BIN / command), "--help"], cwd=tmp_path).out


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_help_is_the_manual_page_on_a_terminal(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(TOOLROLL, [TOOLROLL, "help", "step-parse"], frame.environment({"MANPAGER": "cat", "TERM": "dumb"}))
    shown = b""
    while True:
        try:
            new = os.read(terminal, 65536)
        except OSError:
            break
        if not new:
            break
        shown += new
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    plain = re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown.decode(errors="replace"))
    assert "STEP-PARSE(1)" in plain
    assert "EXIT STATUS" in plain


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("step-prase",), "toolroll: step-prase: no such command; is it step-parse?\n"),
        (("xyzzy",), "toolroll: xyzzy: no such command (toolroll lists them)\n"),
        (("help", "xyzzy"), "toolroll: xyzzy: no such command (toolroll lists them)\n"),
        (("help", "step-parse", "kk-make"), "toolroll: help: one command at a time\n"),
        (("toolroll",), "toolroll: toolroll: no such command"),
        (("-q", "step-parse"), "toolroll: --quiet: goes behind the command: toolroll step-parse --quiet\n"),
        (("--log", "json", "step-parse"), '"place":"--log"'),
    ],
)
def test_what_cannot_be_is_a_usage_error(args, told, tmp_path):
    result = toolroll(tmp_path, *args, stdin=ROW)
    assert (result.rc, result.out, len(result.err.splitlines())) == (2, b"", 1)
    assert told in result.err


def test_it_says_where_things_are(tmp_path):
    data = toolroll(tmp_path, "--data-path").out.decode().rstrip("\n")
    assert Path(data, "hotpotqa/questions.jsonl").is_file()
    pages = toolroll(tmp_path, "--man-path").out.decode().rstrip("\n")
    assert roll.manual("step-parse") is not None
    assert roll.manual("step-parse").startswith(pages)
    assert roll.manual("no-such-command") is None


def test_names_are_found_with_and_without_what_they_begin_with():
    assert roll.find("doctor") == roll.find("toolroll-doctor")
    with pytest.raises(UsageError):
        roll.find("toolroll")
