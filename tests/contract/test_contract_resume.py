"""A killed run, resumed, gives the same bytes as one that was never interrupted."""

from __future__ import annotations

import gzip
import json
import os
import random
import time

import frame
import pytest
import zstandard

every_suffix = pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
ROWS = 200


def text(path):
    """What is in an output, whatever its compression."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def kill_after(command, folder, arguments, grown_by, part):
    """Start, and kill -9 as soon as the unfinished output has grown by so many bytes; False if it ended before."""
    before = part.stat().st_size if part.exists() else 0
    with command.start(folder, *arguments, inputs=("in.jsonl",)) as process:
        while process.poll() is None:
            if part.exists() and part.stat().st_size > before + grown_by:
                process.kill()
            time.sleep(0.001)
        return process.returncode != 0


@every_suffix
@pytest.mark.parametrize(("name", "cut"), [("slow-cat", 0), ("slow-cat", 3), ("expand", 0), ("expand", 3)])
def test_kill_and_resume_again_and_again(name, cut, suffix, tmp_path):
    command = frame.own(name)
    (tmp_path / "in.jsonl").write_bytes(command.lines(ROWS))
    out, part = tmp_path / f"out.jsonl{suffix}", tmp_path / f"out.jsonl{suffix}.part"
    arguments = ("--delay", 0.001, "-o", out.name, "--resume")
    moments = random.Random(f"{name}{cut}{suffix}")
    for _ in range(5):
        assert kill_after(command, tmp_path, arguments, moments.randrange(1, 400), part)
        os.truncate(part, max(0, part.stat().st_size - cut))
    last = command.run(tmp_path, *arguments, inputs=("in.jsonl",))
    assert last.rc == 0
    assert " skipped" in last.err or name == "expand"
    assert text(out) == command.run(tmp_path, inputs=("in.jsonl",)).out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", out.name, f"{out.name}.meta.json"]


@every_suffix
@every_streamer
def test_every_command_goes_on_where_it_was(command, suffix, tmp_path):
    rows = command.lines(6)
    whole = command.run(tmp_path, stdin=rows).out
    name = f"out.jsonl{suffix}"
    first = b"".join(rows.splitlines(keepends=True)[:4])
    assert command.run(tmp_path, "-o", name, stdin=first + b"oops\n").rc == 1
    assert not (tmp_path / name).exists()
    resumed = command.run(tmp_path, "-o", name, "--resume", stdin=rows)
    assert resumed.rc == 0
    assert "4 skipped" in resumed.err
    assert text(tmp_path / name) == whole


@pytest.mark.parametrize("mode", ["keep", "skip"])
def test_bad_rows_are_neither_lost_nor_doubled(mode, tmp_path):
    command = frame.own("fail-some")
    good = command.lines(9).splitlines(keepends=True)
    failed = b'{"id":"p","error":{"why":"w","where":"f:1"}}\n'
    rows = b"".join(line + b"oops %d\n" % i + failed + b"[]\n" for i, line in enumerate(good))
    (tmp_path / "in.jsonl").write_bytes(rows)
    modes = ("--on-error", mode)
    whole = command.run(tmp_path, *modes, "-e", "bad-whole", inputs=("in.jsonl",))
    lines = whole.lines
    for kept in range(0, len(lines), 3):
        (tmp_path / "out.part").write_bytes(b"".join(line + b"\n" for line in lines[:kept]) + lines[kept][:9])
        resumed = command.run(tmp_path, *modes, "-o", "out", "--resume", "-e", "bad", inputs=("in.jsonl",))
        assert resumed.rc == 0
        assert (tmp_path / "out").read_bytes() == whole.out
    assert sorted((tmp_path / "bad").read_bytes().splitlines()) == sorted(
        (tmp_path / "bad-whole").read_bytes().splitlines()
    )


def test_the_file_of_bad_rows_is_resumed_too(tmp_path):
    command = frame.own("fail-some")
    rows = command.lines(8)
    whole = command.run(tmp_path, "--on-error", "skip", "-e", "whole", stdin=rows)
    half = b"".join(rows.splitlines(keepends=True)[:5])
    with command.start(tmp_path, "--on-error", "skip", "-e", "bad", "-o", "out", "--line-buffered") as process:
        process.stdin.write(half)
        process.stdin.flush()
        frame.wait_until(
            lambda: (tmp_path / "out.part").exists() and (tmp_path / "out.part").read_bytes().count(b"\n") == 3,
            "three rows are written",
        )
        process.kill()
    assert (tmp_path / "bad").read_bytes().count(b"\n") == 2
    assert command.run(tmp_path, "--on-error", "skip", "-e", "bad", "-o", "out", "--resume", stdin=rows).rc == 0
    assert (tmp_path / "out").read_bytes() == whole.out
    assert (tmp_path / "bad").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_are_known_by_id_not_by_place(tmp_path):
    command = frame.own("slow-cat")
    lines = command.lines(6).splitlines(keepends=True)
    (tmp_path / "out.part").write_bytes(command.run(tmp_path, stdin=lines[4] + lines[1]).out)
    assert command.run(tmp_path, "-o", "out", "--resume", stdin=b"".join(lines)).rc == 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert ids == ["i4", "i1", "i0", "i2", "i3", "i5"]


@pytest.mark.parametrize("name", ["slow-cat", "expand"])
def test_an_id_is_the_same_however_it_is_escaped(name, tmp_path):
    command = frame.own(name)
    rows = b'{"id":"caf\\u00e9","n":1}\n{"id":"a\\/b","n":2}\n{"id":7,"n":3}\n'
    whole = command.run(tmp_path, stdin=rows)
    (tmp_path / "out.part").write_bytes(b"".join(line + b"\n" for line in whole.lines[:-1]))
    assert command.run(tmp_path, "-o", "out", "--resume", stdin=rows).rc == 0
    assert (tmp_path / "out").read_bytes() == whole.out


def test_a_row_without_an_id_cannot_be_resumed(tmp_path):
    command = frame.own("slow-cat")
    result = command.run(tmp_path, "-o", "out", "--resume", stdin=b'{"n":1}\n')
    assert (result.rc, result.complaints) == (1, ["slow-cat: stdin:1: no `id` to resume by"])


def test_rows_with_one_id_are_all_written(tmp_path):
    command = frame.own("slow-cat")
    rows = command.lines(1) * 5
    whole = command.run(tmp_path, stdin=rows)
    (tmp_path / "out.part").write_bytes(b"".join(line + b"\n" for line in whole.lines[:2]))
    assert command.run(tmp_path, "-o", "out", "--resume", stdin=rows).rc == 0
    assert (tmp_path / "out").read_bytes() == whole.out


def test_resuming_with_other_settings_is_refused_and_harms_nothing(tmp_path):
    command = frame.own("slow-cat")
    rows = command.lines(3)
    assert command.run(tmp_path, "--mark", "x", "-o", "out", stdin=rows + b"oops\n").rc == 1
    before = (tmp_path / "out.part").read_bytes()
    other = command.run(tmp_path, "--mark", "y", "-o", "out", "--resume", stdin=rows)
    assert (other.rc, other.err) == (2, "slow-cat: --resume: mark: was 'x' in the run to be resumed, is 'y' now\n")
    another = frame.own("tag").run(tmp_path, "-o", "out", "--resume", stdin=rows)
    assert (another.rc, another.err) == (2, "tag: --resume: out.part is of slow-cat\n")
    assert (tmp_path / "out.part").read_bytes() == before
    same = command.run(tmp_path, "--mark", "x", "-o", "out", "--resume", "-q", "--log", "json", stdin=rows)
    assert same.rc == 0


def test_resuming_nothing_is_a_fresh_start(tmp_path):
    command = frame.own("slow-cat")
    rows = command.lines(3)
    assert command.run(tmp_path, "--mark", "x", "-o", "out", stdin=b"oops\n").rc == 1
    assert command.run(tmp_path, "--mark", "y", "-o", "out", "--resume", stdin=rows).rc == 0
    assert (tmp_path / "out").read_bytes() == command.run(tmp_path, "--mark", "y", stdin=rows).out


@every_suffix
def test_without_resume_an_unfinished_output_is_written_anew(suffix, tmp_path):
    command = frame.own("slow-cat")
    for leftover in (f"out{suffix}.part", f"out{suffix}.part.old"):
        (tmp_path / leftover).write_bytes(b"left over\n")
    assert command.run(tmp_path, "-o", f"out{suffix}", stdin=command.lines(2)).rc == 0
    assert text(tmp_path / f"out{suffix}") == command.run(tmp_path, stdin=command.lines(2)).out
    assert not list(tmp_path.glob("*.part*"))


def test_something_else_is_not_resumed(tmp_path):
    command = frame.own("slow-cat")
    (tmp_path / "out.part").write_bytes(b"not rows\n")
    result = command.run(tmp_path, "-o", "out", "--resume", stdin=command.lines(1))
    assert (result.rc, len(result.complaints)) == (1, 1)
    assert result.complaints[0].startswith("slow-cat: out.part: ")
    assert (tmp_path / "out.part").read_bytes() == b"not rows\n"


def test_resume_needs_an_output_file_and_rows(tmp_path):
    for arguments in (("--resume",), ("--resume", "-o", "-")):
        result = frame.own("tag").run(tmp_path, *arguments)
        assert (result.rc, result.err) == (2, "tag: --resume: needs an output file (-o)\n")
    assert frame.own("total").run(tmp_path, "--resume", "-o", "out").rc == 2


@every_suffix
def test_two_processes_on_one_output_are_refused(suffix, tmp_path):
    command = frame.own("slow-cat")
    name = f"out{suffix}"
    with command.start(tmp_path, "-o", name) as process:
        process.stdin.write(command.lines(1))
        process.stdin.flush()
        part = tmp_path / f"{name}.part"
        frame.wait_until(lambda: part.exists() and part.stat().st_size, "a row is written")
        for more in ((), ("--resume",)):
            second = command.run(tmp_path, "-o", name, *more, stdin=command.lines(1))
            assert (second.rc, second.err) == (1, f"slow-cat: {name}.part: another process is writing it\n")
        assert frame.ended(process).rc == 0
    assert text(tmp_path / name).count(b"\n") == 1
