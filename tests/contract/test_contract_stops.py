"""Commands that make rows or files of their own: asked to stop, left by their reader, or by the room on a disk.

Runs are compared as in the campaign of kills: see `contract.campaign`.
"""

from __future__ import annotations

import random
import re
import shutil
import signal

import frame
import pytest
from contract.campaign import Campaign, found, furnish, line
from contract.limits import full_after
from contract.test_contract_pipes import receive

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SIZES = (0, 300, 5000)  #: in bytes, of what fits on a disk
TRIES = 5  #: a quick command may be done before it is asked


def makes_files(command):
    return command.specimen.names_output or any("new}" in arg or "/new-" in arg for arg in command.specimen.args)


def consumes(command):
    return command.tool.contract.consumes


MAKERS = [
    command
    for command in frame.COMMANDS
    if command.tool.contract.writes and (command in frame.SOURCES or consumes(command) or makes_files(command))
]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("stops"), 0)


def asked():
    """Every command and each signal; in the usual run, one signal for each command, in turn."""
    for place, command in enumerate(MAKERS):
        for number in SIGNALS:
            usual = number is SIGNALS[place % 2]
            marks = () if usual else pytest.mark.faults
            yield pytest.param(command, number, marks=marks, id=f"{command}-{number.name}")


@pytest.mark.parametrize(("command", "number"), list(asked()))
def test_asked_to_stop_it_leaves_what_the_same_line_makes_whole(command, number, campaign):
    _, wanted = campaign.whole(command)
    for _ in range(TRIES):
        folder = campaign.anew(command)
        with frame.started(line(command, folder), cwd=folder, stdin=None) as process:
            frame.wait_until(lambda: answers(process, number), "it answers signals, or is done")
            process.send_signal(number)
            stopped = frame.ended(process)
        if stopped.rc != 0:
            break
    assert stopped.rc == 75, stopped.err
    (told,) = [one for one in stopped.complaints if " on cpu" not in one]
    assert told.startswith(f"{command.name}: warning: stopped by {number.name}")
    assert not (folder / "out.jsonl").exists()
    again = frame.run(line(command, folder), cwd=folder)
    assert again.rc == 0, again.err
    assert comparable(command, found(command, folder)) == comparable(command, wanted)


def comparable(command, files):
    """What must be the same; not how long a picture took, nor the numbers of draws, none of which comes twice."""
    if command.name == "ucb-sample":
        return {name: data.count(b"\n") for name, data in files.items() if name == "out.jsonl"}
    return {name: re.sub(rb'"ms":[0-9.]+', b'"ms":0', data) for name, data in files.items()}


ENDLESS = {
    "kk-make": ("-n", "1000000"),
    "nvs-train": ("--steps", "1000000"),
    "pair-make": ("-n", "1000000"),
    "pmp-data": ("-n", "1000000"),
    "pmp-train": ("--steps", "1000000", "--report-every", "1"),
}  #: ucb-sample gives all draws whose numbers it has taken


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_source_at_work_ends_behind_a_whole_row(name, number, tmp_path):
    command = next(one for one in frame.SOURCES if one.name == name)
    with command.start(tmp_path, *ENDLESS[name], "--line-buffered", stdin=None) as process:
        receive(process)
        process.send_signal(number)
        ended = frame.ended(process)
    assert ended.rc == 75, ended.err
    assert [told for told in ended.complaints if " on cpu" not in told] == [
        f"{name}: warning: stopped by {number.name}"
    ]
    assert ended.out.endswith(b"}\n") or not ended.out
    assert len(ended.rows) < 900_000  # all of which can be read


def full():
    """Every command and some sizes; in the usual run, one size for each command, in turn."""
    for place, command in enumerate(MAKERS):
        for size in SIZES:
            marks = () if size == SIZES[place % len(SIZES)] else pytest.mark.faults
            yield pytest.param(command, size, marks=marks, id=f"{command}-{size}")


@pytest.mark.parametrize(("command", "size"), list(full()))
def test_a_disk_that_fills_up_is_told_and_the_same_line_goes_on(command, size, campaign):
    _, wanted = campaign.whole(command)
    folder = campaign.anew(command)
    argv = line(command, folder)
    with full_after(size), frame.started(argv, cwd=folder, stdin=None) as process:
        ended = frame.ended(process)
    assert ended.rc in (0, 1), ended.err
    told = [one for one in ended.complaints if re.fullmatch(rf"{command.name}: .+: .*File too large.*", one)]
    assert len(told) == ended.rc, ended.err
    assert "Traceback" not in ended.err
    if not told or "out.jsonl.meta.json: " in told[0]:  # which is written last
        assert comparable(command, found(command, folder)) == comparable(command, wanted)
        return
    assert not (folder / "out.jsonl").exists()
    again = frame.run(argv, cwd=folder)
    assert again.rc == 0, again.err
    assert comparable(command, found(command, folder)) == comparable(command, wanted)


def answers(process, number):
    """Whether a process has a handler for a signal, or has ended."""
    if process.poll() is not None:
        return True
    with open(f"/proc/{process.pid}/status") as file:
        (caught,) = [one for one in file if one.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


LEFT = [one for one in frame.COMMANDS if one.tool.contract.writes and one not in frame.MAPPERS]
SURE = [command for command in LEFT if command.tool.contract.expands]  #: write more than a pipe holds


@pytest.mark.parametrize("at", ["a random byte", pytest.param("once", marks=pytest.mark.faults)])
@pytest.mark.parametrize("command", LEFT, ids=str)
def test_left_by_its_reader_it_ends_by_sigpipe_and_runs_again(command, at, tmp_path):
    argv = to_stdout(command, tmp_path)
    if command.specimen.row is not None:
        (tmp_path / "in.jsonl").write_bytes(command.wide_lines(8 if command.name in frame.WARM else 300))
    count = random.Random(command.name).randrange(2000) if at == "a random byte" else 0
    count = 0 if command in frame.REDUCERS else count  # all of it comes at once
    with frame.started(argv, cwd=tmp_path, stdin=None) as process:
        taken = b""
        while len(taken) < count and (piece := process.stdout.read1(count - len(taken))):
            taken += piece
        process.stdout.close()
        sure = count == 0 or (command in SURE and len(taken) == count)
        assert process.wait(frame.PATIENCE_S) in (-signal.SIGPIPE, *([] if sure else [0]))
        said = frame.ended(process).complaints
        assert not [told for told in said if " on cpu" not in told and "warning: " not in told]
    if command.name == "rag-index":  # one that is there is not made again
        shutil.rmtree(tmp_path / "made")
    again = frame.run(argv, cwd=tmp_path)
    assert again.rc == 0, again.err


def to_stdout(command, folder):
    """The line whose rows go to stdout, and its files in the folder."""
    furnish(command, folder)
    argv = [arg for arg in line(command, folder) if arg != "--resume"]
    return ["-" if arg == "out.jsonl" else arg for arg in argv]


def test_a_journal_on_a_disk_that_fills_up_loses_and_doubles_nothing(tmp_path):
    update, stats = (next(one for one in frame.COMMANDS if one.name == f"ucb-{what}") for what in ("update", "stats"))
    learned, codes = set(), set()
    for size in (None, *range(30, 300, 45), 5000):
        folder = tmp_path / str(size)
        furnish(update, folder)
        argv = line(update, folder)
        if size is not None:
            with full_after(size), frame.started(argv, cwd=folder, stdin=None) as process:
                ended = frame.ended(process)
            assert ended.rc in (0, 1), ended.err
            assert [told for told in ended.complaints if "File too large" in told] == ended.complaints
            assert len(ended.complaints) == ended.rc
            codes.add(ended.rc)
        assert frame.run(argv, cwd=folder).rc == 0
        learned.add(frame.run([*stats.argv, "--state", str(folder / "bandit")], cwd=folder).out)
    assert len(learned) == 1
    assert codes == {0, 1}
