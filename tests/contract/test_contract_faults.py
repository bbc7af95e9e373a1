"""Faults that any command may meet: a disk that is full or read-only, bad files, strange names, another process.

These run inside the test's process, because there are many of them: see `contract.inside`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import frame
import pytest
from contract.inside import Inside

WRITERS = [command for command in frame.COMMANDS if command.tool.contract.writes]
SERVERS = {"nvs-view", "rag-serve"}  #: run until they are stopped, or write no rows
LIGHT = [command for command in WRITERS if command.name not in frame.WARM]
WITH_TORCH = [command for command in WRITERS if command.name in frame.WARM]
every_writer = pytest.mark.parametrize("command", WRITERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)
stateful = pytest.mark.parametrize(
    "command",
    [
        command
        for command in frame.READERS
        if any(param.name == "state" and param.metavar == "FILE" for param in command.tool.params)
    ],
    ids=str,
)
OVERRIDE = 1 << 1 | 1 << 2  #: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@pytest.fixture
def inside(tmp_path, capfdbinary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Inside(tmp_path, capfdbinary)


@contextmanager
def no_override():
    """A stretch in which permissions count, for root too."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = struct.pack("Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    assert libc.capget(head, held) == 0
    words = list(struct.unpack("6I", held.raw))
    words[0] &= ~OVERRIDE
    assert libc.capset(head, struct.pack("6I", *words)) == 0
    try:
        yield
    finally:
        libc.capset(head, held.raw)


def assert_told(command, ended, codes=(1, 2)):
    """One line, of the command, without a traceback."""
    assert ended.rc in codes, ended.err
    assert "internal error" not in ended.err
    assert "Traceback" not in ended.err
    if ended.rc:
        errors = [line for line in ended.complaints if "warning: " not in line and " on cpu" not in line]
        assert len(errors) == 1, ended.err
        assert errors[0].startswith(f"{command.name}: ")
        assert not errors[0].endswith(".")


@every_writer
def test_a_folder_that_cannot_be_written(command, inside, tmp_path):
    own, locked = inside.arguments(command), tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    inputs = inside.inputs(command)
    with no_override():
        ended = inside.run(command, *own, command.rows_option, locked / "out", *inputs)
    assert_told(command, ended, codes=(1,))
    assert str(locked / "out") in ended.err
    assert "ermission denied" in ended.err
    if inside.arguments(command, locked / "made") != own or command.specimen.names_output:
        own, inputs = inside.arguments(command, locked / "made"), inside.inputs(command, new=locked / "made")
        with no_override():
            ended = inside.run(command, *own, *inputs)
        assert_told(command, ended)
    assert not list(locked.iterdir())


@every_reader
def test_an_input_that_cannot_be_read(command, inside, tmp_path):
    own, (name, *made) = inside.arguments(command), inside.inputs(command)
    Path(name).chmod(0)
    with no_override():
        ended = inside.run(command, *own, name, *made)
    assert_told(command, ended, codes=(1,))
    assert ended.complaints[-1] == f"{command.name}: {name}: Permission denied"
    assert ended.out == b""


@pytest.mark.parametrize("command", frame.SOURCES, ids=str)
def test_a_full_disk_for_a_source(command, inside):
    ended = inside.run(command, *inside.arguments(command), command.rows_option, "/dev/full")
    assert_told(command, ended, codes=(1,))
    assert "No space left on device" in ended.err


#: What stands in a file in place of what should.
JUNK = [
    b"",
    b"\n",
    b"\0" * 4096,
    b"null",
    b"0",
    b"[]",
    b"{}",
    b'{"a":',
    b"[1,2",
    b'"text"',
    b"\xff\xfe\x00\x01" * 100,
    b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
    b"PK\x03\x04" + bytes(100),
    b"\x1f\x8b\x08" + bytes(20),
    b"ply\nformat ascii 1.0\n",
    b"GGUF" + b"\xff" * 40,
    b"\x89PNG\r\n\x1a\n" + bytes(30),
    b"[" * 100_000,
    b'{"id":1e999}\n',
    b"a" * 1_000_000,
]


@pytest.mark.parametrize("command", [one for one in WRITERS if one.specimen.files], ids=str)
def test_twenty_bad_files_for_each_that_a_command_names(command, inside, tmp_path):
    inputs = inside.inputs(command)
    for name, good in command.specimen.files:
        for number, junk in enumerate((*JUNK, good[: len(good) // 2])):
            own = inside.arguments(command, tmp_path / f"made{number}")
            (tmp_path / name).write_bytes(junk)
            assert_told(command, inside.run(command, *own, *inputs), codes=(0, 1, 2))


@stateful
def test_a_state_that_is_none(command, inside, tmp_path):
    own = [arg for arg in inside.arguments(command) if arg not in ("--state", str(tmp_path / "made"))]
    own = {"group-advantage": ["--estimator", "rae"], "spy-reward": ["--turns", "--advantages"]}.get(command.name, own)
    for junk in JUNK:
        (tmp_path / "state").write_bytes(junk)
        assert_told(command, inside.run(command, *own, "--state", tmp_path / "state", *inside.inputs(command)))
        assert (tmp_path / "state").read_bytes() == junk


#: What stands in a field in place of what should.
NUMBERS = [-1, 0.5, 2**63 - 1, -(2**63), 1e308, -1e308]
TEXTS = ["", "\0", "a" * 9999, "\u202e\ufeff"]
ODD = [None, True, *NUMBERS, *TEXTS, [], {}, [None], [[]], [{}], {"a": 1}, [1, "a"], {"role": 1, "content": None}]


@every_reader
def test_twenty_bad_values_for_each_field(command, inside, tmp_path):
    """None of them ends a run that keeps bad rows; each comes out, as a good row or a bad one."""
    good = command.specimen.row(0)
    rows = [{**good, name: odd, "odd": f"{name} {i}"} for name in good for i, odd in enumerate(ODD)]
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    ended = inside.run(command, *inside.arguments(command), "--on-error", "keep", "-q", *inside.inputs(command, stdin))
    assert ended.rc in ((0,) if command.tool.contract.passes_rows else (0, 1)), ended.err
    assert "internal error" not in ended.err
    if command in frame.MAPPERS:
        assert [json.loads(line)["odd"] for line in ended.out.splitlines()] == [row["odd"] for row in rows]


NAMES = ["a b", "'q\"$(x)`y`", "two\nlines", os.fsdecode(b"\xff\xfe"), "-o", "{shard", "caf\u00e9 %s {0}"]
#: All of that at once, but for bytes that are no UTF-8, which the name of no model's folder may have.
READABLE = "-a 'q\"$(x)`y`\n{shard caf\u00e9 %s {0}"
WHOLE = READABLE + os.fsdecode(b"\xff")


def run_in(folder, command, name, capfdbinary, monkeypatch):
    """Run with a folder, files and outputs of this name; how many lines came out."""
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    inside = Inside(folder, capfdbinary)
    inputs = []
    if command.specimen.row is not None:
        (folder / f"{name}.jsonl").write_bytes(command.lines(2))
        inputs = [str(folder / f"{name}.jsonl")]
    made = folder / f"{name}.made"
    inputs += [str(made)] if command.specimen.names_output else []
    out = folder / f"{name}.out"
    ended = inside.run(command, *inside.arguments(command, made), command.rows_option, out, *inputs)
    assert ended.rc == 0, ended.err
    assert len(ended.err.splitlines()) == len(ended.err.rstrip("\n").split("\n"))
    assert (folder / f"{name}.out.meta.json").is_file()
    return out.read_bytes().count(b"\n")


@pytest.mark.parametrize("command", LIGHT, ids=str)
def test_folders_and_files_of_any_name(command, capfdbinary, tmp_path, monkeypatch):
    counts = {
        run_in(tmp_path / str(number) / name, command, name, capfdbinary, monkeypatch)
        for number, name in enumerate(["plain", *NAMES])
    }
    assert len(counts) == 1


@pytest.mark.parametrize("name", [WHOLE, *(pytest.param(name, marks=pytest.mark.faults) for name in NAMES)])
@pytest.mark.parametrize("command", WITH_TORCH, ids=str)
def test_folders_and_files_of_any_name_with_torch(command, name, capfdbinary, tmp_path, monkeypatch):
    """The usual run has one name with all that is odd in it."""
    if command.name in ("dpo-train", "policy-train"):  # which make folders of models: see below
        name = name.encode(errors="replace").decode()
    count = run_in(tmp_path / "plain", command, "plain", capfdbinary, monkeypatch)
    assert run_in(tmp_path / "odd" / name, command, name, capfdbinary, monkeypatch) == count


@pytest.mark.parametrize("name", ["dpo-train", "policy-train"])
def test_a_policy_whose_name_is_no_text_is_refused(name, inside, tmp_path):
    """Nobody could read its models."""
    command = next(one for one in WITH_TORCH if one.name == name)
    ended = inside.run(command, *inside.arguments(command, tmp_path / WHOLE), *inside.inputs(command))
    assert_told(command, ended, codes=(2,))
    assert "its name is no UTF-8" in ended.err
    assert not (tmp_path / WHOLE).exists()


@pytest.mark.parametrize("command", [one for one in WITH_TORCH if str(frame.ROOT) in str(one.specimen.args)], ids=str)
def test_models_and_images_in_a_folder_of_any_name(command, capfdbinary, tmp_path):
    """The libraries that read models want a name in UTF-8; another one is told."""
    for name, rc in ((READABLE, 0), (WHOLE, 1)):
        args = []
        for arg in command.specimen.args:
            if arg.startswith(str(frame.ROOT)):
                place = tmp_path / name / Path(arg).name
                shutil.copytree(arg, place, dirs_exist_ok=True)
                arg = str(place)
            args.append(arg)
        moved = replace(command, specimen=replace(command.specimen, args=tuple(args)))
        inside = Inside(tmp_path, capfdbinary)
        ended = inside.run(moved, *inside.arguments(moved, tmp_path / f"made{rc}"), *inside.inputs(moved))
        assert_told(command, ended, codes=(0,) if command in frame.SOURCES else (rc,))


@stateful
def test_two_processes_on_one_state(command, tmp_path):
    rows = command.lines(2)
    state = tmp_path / "state"
    (tmp_path / "in.jsonl").write_bytes(rows)
    own = [arg for arg in command.specimen.args if arg not in ("--state", "{new}")]
    if command.name == "group-advantage":
        own = ["--estimator", "rae"]
    if command.name == "spy-reward":
        own = ["--turns", "--advantages"]
    line = [*command.argv, *own, "--state", str(state)]
    with frame.started(line, cwd=tmp_path) as process:
        frame.wait_until((tmp_path / "state.lock").exists, "it has the state")
        second = frame.run([*line, "in.jsonl"], cwd=tmp_path)
        assert (second.rc, second.complaints) == (1, [f"{command.name}: {state}: another process is writing it"])
        assert frame.ended(process).rc == 0
    assert not (tmp_path / "state.lock").exists()


def test_a_complete_output_with_a_state_is_gone_on_from(tmp_path):
    """Killed behind the last row, and run again: the state knows all rows, so they must not be lost."""
    command = next(one for one in frame.READERS if one.name == "gear-momentum")
    (tmp_path / "in.jsonl").write_bytes(command.lines(5))
    line = [*command.argv, "--objectives", "fair", "--state", "s", "-o", "out", "--resume", "in.jsonl"]
    assert frame.run(line, cwd=tmp_path).rc == 0
    whole = (tmp_path / "out").read_bytes()
    assert whole.count(b"\n") == 5
    for leftover in (None, b""):  # of a run that was killed as it began
        if leftover is not None:
            (tmp_path / "out.part").write_bytes(leftover)
        assert frame.run(line, cwd=tmp_path).rc == 0
        assert (tmp_path / "out").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out", "out.meta.json", "s"]


def test_momentum_without_a_state_is_resumed_too(tmp_path):
    command = next(one for one in frame.READERS if one.name == "gear-momentum")
    (tmp_path / "in.jsonl").write_bytes(command.lines(5))
    line = [*command.argv, "--objectives", "fair", "in.jsonl"]
    whole = frame.run(line, cwd=tmp_path)
    (tmp_path / "out.part").write_bytes(b"".join(whole.out.splitlines(keepends=True)[:3]) + b'{"step":')
    resumed = frame.run([*line, "-o", "out", "--resume"], cwd=tmp_path)
    assert resumed.rc == 0
    assert "3 skipped" in resumed.err
    assert (tmp_path / "out").read_bytes() == whole.out


def test_half_a_file_of_settings_is_told(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "out.part").write_bytes(b"")
    (tmp_path / "out.part.meta.json").write_bytes(b'{"command":')
    result = tag.run(tmp_path, "-o", "out", "--resume", stdin=tag.lines(1))
    assert result.rc == 1
    assert result.err == "tag: out.part.meta.json: is damaged, so that its settings are not known\n"


@pytest.mark.parametrize("option", ["-e", "-o"])
def test_what_an_option_reads_is_not_written(option, inside, tmp_path):
    """The script, the space and the like are as much inputs as the rows are."""
    for command in LIGHT:
        if command.specimen.row is None or not command.specimen.files:
            continue
        own = inside.arguments(command)
        for name, data in command.specimen.files:
            if not any(str(tmp_path / name) in arg for arg in own):
                continue
            ended = inside.run(command, *own, option, tmp_path / name, *inside.inputs(command))
            assert_told(command, ended, codes=(2,))
            assert "the same file" in ended.err
            assert (tmp_path / name).read_bytes() == data


def test_a_suffix_counts_whatever_its_case(tmp_path):
    import gzip

    tag = frame.own("tag")
    rows = tag.lines(3)
    (tmp_path / "IN.JSONL.GZ").write_bytes(gzip.compress(rows))
    assert tag.run(tmp_path, "-o", "OUT.Gz", inputs=("IN.JSONL.GZ",)).rc == 0
    assert gzip.decompress((tmp_path / "OUT.Gz").read_bytes()) == tag.run(tmp_path, stdin=rows).out
    first = gzip.decompress((tmp_path / "OUT.Gz").read_bytes()).splitlines(keepends=True)[0]
    (tmp_path / "NEW.GZ.part").write_bytes(gzip.compress(first))
    assert tag.run(tmp_path, "-o", "NEW.GZ", "--resume", inputs=("IN.JSONL.GZ",)).rc == 0
    assert gzip.decompress((tmp_path / "NEW.GZ").read_bytes()) == tag.run(tmp_path, stdin=rows).out


#: What stands for a number, a whole number, or one of several words in place of what should.
NO_NUMBERS = ["", "x", "nan", "inf", "-inf", "1e999", "0x1p3", "1,5", "--", "\x1b[31m"]
NO_WHOLE = ["1.5", "1e5", "0x10", "9" * 40, "-" + "9" * 40, "9223372036854775808"]
NO_WORDS = ["", "no-such", "NAN", "-1", "\x1b[31m", "a" * 9999, "two\nlines", "\udcff"]


def bad_values(param):
    """What an option takes in no command."""
    if isinstance(param.type, click.Choice):
        return NO_WORDS
    if isinstance(param.type, click.types.IntParamType):
        return [*NO_NUMBERS, *NO_WHOLE]
    return NO_NUMBERS if isinstance(param.type, click.types.FloatParamType) else []


@pytest.mark.parametrize("command", WRITERS, ids=str)
def test_bad_values_of_each_option_that_is_a_number_or_a_choice(command, inside, tmp_path):
    own, inputs = inside.arguments(command), inside.inputs(command)
    for param in command.tool.params:
        if not isinstance(param, click.Option) or param.is_flag or param.count:
            continue
        for value in bad_values(param):
            ended = inside.run(command, *own, f"{param.opts[-1]}={value}", *[value] * (param.nargs - 1), *inputs)
            assert_told(command, ended, codes=(2,))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "option"), [("dpo-train", "--lora"), ("kv-quant", "--queries"), ("kv-eval", "--beams")]
)
def test_more_memory_than_there_is(name, option, inside):
    command = next(one for one in WRITERS if one.name == name)
    for size in (10**13, 2**63 - 1):
        ended = inside.run(command, *inside.arguments(command), option, size, *inside.inputs(command))
        assert (ended.rc, ended.complaints[-1]) == (1, f"{name}: out of memory")


@pytest.mark.parametrize("option", ["--clip-ratio", "--clip-ratio-high"])
def test_a_number_that_no_tensor_holds(option, inside):
    command = next(one for one in WITH_TORCH if one.name == "policy-train")
    ended = inside.run(command, *inside.arguments(command), option, "1e300", *inside.inputs(command))
    assert_told(command, ended, codes=(2,))
