"""Inputs and outputs: compressed, atomic, never the same; what is said when one cannot be used."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import zlib

import frame
import pytest
import zstandard

every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
COMPRESS = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
}
DECOMPRESS = {
    ".gz": gzip.decompress,
    ".zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
every_suffix = pytest.mark.parametrize("suffix", sorted(COMPRESS))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("script.jsonl", "bandit"))


@every_streamer
def test_files_are_read_in_order_and_a_dash_is_stdin(command, tmp_path):
    first, second, third = command.lines(3).splitlines(keepends=True)
    (tmp_path / "a").write_bytes(first.rstrip())
    (tmp_path / "b").write_bytes(third)
    result = command.run(tmp_path, inputs=("a", "-", "b"), stdin=second)
    assert result.rc == 0
    assert result.out == command.run(tmp_path, stdin=first + second + third).out


@every_suffix
@every_reader
def test_compressed_files_are_read_by_suffix_and_stdin_by_its_first_bytes(command, suffix, tmp_path):
    rows = command.lines(4)
    data = COMPRESS[suffix](rows[:50]) + COMPRESS[suffix](rows[50:])
    (tmp_path / f"in.jsonl{suffix}").write_bytes(data)
    plain = command.run(tmp_path, stdin=rows)
    by_suffix = command.run(tmp_path, inputs=(f"in.jsonl{suffix}",))
    by_magic = command.run(tmp_path, stdin=data)
    assert (by_suffix.rc, by_magic.rc) == (0, 0)
    if not command.specimen.names_output:
        assert by_suffix.out == by_magic.out == plain.out


@every_suffix
@every_reader
def test_output_is_compressed_by_suffix(command, suffix, tmp_path):
    rows = command.lines(4)
    result = command.run(tmp_path, "-o", f"out.jsonl{suffix}", stdin=rows)
    assert (result.rc, result.out) == (0, b"")
    data = DECOMPRESS[suffix]((tmp_path / f"out.jsonl{suffix}").read_bytes())
    if command.specimen.names_output:
        assert json.loads(data)
    else:
        assert data == command.run(tmp_path, stdin=rows).out


@every_suffix
@pytest.mark.parametrize("command", [frame.own("tag"), *frame.MAPPERS], ids=str)
def test_a_cut_or_damaged_compressed_input_fails_in_one_line(command, suffix, tmp_path):
    data = COMPRESS[suffix](command.wide_lines(250))  # more than is read at once
    for name, damaged in (
        ("cut", data[:-5]),
        ("half", data[: len(data) // 2]),
        ("noise", data[:40] + bytes(200)),
        ("plain", b'{"n":1}\n'),
        ("tail", data + b"tail"),
    ):
        (tmp_path / f"{name}{suffix}").write_bytes(damaged)
        result = command.run(tmp_path, inputs=(f"{name}{suffix}",))
        assert result.rc == 1, name
        assert len(result.complaints) == 1, name
        assert result.complaints[0].startswith(f"{command.name}: {name}{suffix}: "), name
    cut = command.run(tmp_path, stdin=data[:-5])
    assert (cut.rc, len(cut.complaints)) == (1, 1)


def test_an_empty_compressed_file_has_no_rows(tmp_path):
    tag = frame.own("tag")
    for suffix, compress in COMPRESS.items():
        for data in (b"", compress(b"")):
            (tmp_path / f"in{suffix}").write_bytes(data)
            result = tag.run(tmp_path, inputs=(f"in{suffix}",))
            assert (result.rc, result.out) == (0, b"")


@pytest.mark.parametrize("kind", ["same name", "symlink", "hard link", "other path"])
@every_reader
def test_the_same_file_in_and_out_is_refused(command, kind, tmp_path):
    source = tmp_path / "f.jsonl"
    source.write_bytes(command.lines(2))
    target = {"same name": "f.jsonl", "other path": "./f.jsonl"}.get(kind, "link.jsonl")
    if kind == "symlink":
        (tmp_path / target).symlink_to("f.jsonl")
    elif kind == "hard link":
        os.link(source, tmp_path / target)
    before = names(tmp_path)
    for arguments in (("-o", target), ("-e", target)):
        result = command.run(tmp_path, *arguments, inputs=("f.jsonl",))
        assert (result.rc, result.out) == (2, b"")
        assert result.complaints == [f"{command.name}: f.jsonl: input and output are the same file"]
        assert source.read_bytes() == command.lines(2)
        assert names(tmp_path) == before


@every_reader
def test_appending_to_the_input_by_redirection_is_refused(command, tmp_path):
    source = tmp_path / "f.jsonl"
    source.write_bytes(command.lines(2))
    line = command.shell(tmp_path) if command.specimen.names_output else f"{command.shell(tmp_path)} f.jsonl"
    if command.specimen.names_output:
        line += " < f.jsonl"
    result = frame.shell(f"{line} >> f.jsonl", cwd=tmp_path)
    assert (result.rc, len(result.complaints)) == (2, 1)
    assert "the same file" in result.err
    assert source.read_bytes() == command.lines(2)


def test_an_unfinished_output_given_as_input_is_refused_and_kept(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "f.part").write_bytes(tag.lines(2))
    result = tag.run(tmp_path, "-o", "f", inputs=("f.part",))
    assert result.rc == 2
    assert (tmp_path / "f.part").read_bytes() == tag.lines(2)


def test_rows_and_errors_do_not_go_to_one_place(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "link").symlink_to("out")
    for arguments in (("-o", "out", "-e", "out"), ("-o", "out", "-e", "link"), ("-e", "-")):
        result = tag.run(tmp_path, *arguments, stdin=tag.lines(1))
        assert (result.rc, result.out, len(result.complaints)) == (2, b"", 1), arguments
    assert names(tmp_path) == ["link"]


@every_reader
def test_no_output_file_until_it_is_complete(command, tmp_path):
    with command.start(tmp_path, "-o", "out.jsonl") as process:
        process.stdin.write(command.lines(2))
        process.stdin.flush()
        frame.wait_until((tmp_path / "out.jsonl.part").exists, "the unfinished output is there")
        assert not (tmp_path / "out.jsonl").exists()
        assert frame.ended(process).rc == 0
    assert (tmp_path / "out.jsonl").stat().st_size > 0
    made = {name for name in names(tmp_path) if not name.startswith(("made-", "new-"))}
    assert made == {"out.jsonl", "out.jsonl.meta.json"}


def test_a_failed_run_leaves_the_old_output_alone(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "out").write_bytes(b"old\n")
    assert tag.run(tmp_path, "-o", "out", stdin=tag.lines(1) + b"oops\n").rc == 1
    assert (tmp_path / "out").read_bytes() == b"old\n"
    assert (tmp_path / "out.part").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_run_that_made_nothing_leaves_nothing(suffix, tmp_path):
    tag = frame.own("tag")
    assert tag.run(tmp_path, "-o", f"out{suffix}", stdin=b"oops\n").rc == 1
    assert names(tmp_path) == []
    assert tag.run(tmp_path, "-o", f"out{suffix}", "--no-meta", stdin=b"").rc == 0
    assert names(tmp_path) == [f"out{suffix}"]


@every_mapper
def test_the_manifest_says_how_the_output_was_made(command, tmp_path):
    rows = command.lines(3)
    (tmp_path / "in.jsonl").write_bytes(rows)
    arguments = ["--on-error", "skip"]
    assert command.run(tmp_path, *arguments, "-o", "out.jsonl", inputs=("in.jsonl", "-"), stdin=b"oops\n").rc == 0
    meta = json.loads((tmp_path / "out.jsonl.meta.json").read_bytes())
    line = command.line(tmp_path, *arguments, "-o", "out.jsonl", inputs=("in.jsonl", "-"))
    assert meta["argv"] == [command.name, *line[len(command.argv) :]]
    assert meta["command"] == command.name
    assert meta["inputs"] == [
        {"name": "in.jsonl", "bytes": len(rows), "blake2b": hashlib.blake2b(rows, digest_size=16).hexdigest()},
        {"name": "stdin", "bytes": 5, "blake2b": hashlib.blake2b(b"oops\n", digest_size=16).hexdigest()},
    ]
    assert meta["counts"] == {"read": 4, "written": 3, "errors": 1, "passed": 0, "skipped": 0}
    assert meta["output"] == {"name": "out.jsonl", "bytes": (tmp_path / "out.jsonl").stat().st_size}
    assert {"toolroll", "python", "packages", "git", "started", "seconds", "settings"} <= meta.keys()
    assert meta["settings"]["on_error"] == "skip"


def test_the_manifest_has_the_seed_and_the_versions(tmp_path):
    tag = frame.own("tag")
    assert tag.run(tmp_path, "--seed", 5, "-o", "out", stdin=tag.lines(1)).rc == 0
    meta = json.loads((tmp_path / "out.meta.json").read_bytes())
    assert meta["settings"]["seed"] == 5
    assert {"orjson", "msgspec"} <= meta["packages"].keys()


@every_reader
def test_no_manifest_when_none_is_wanted(command, tmp_path):
    assert command.run(tmp_path, "--no-meta", "-o", "out.jsonl", stdin=command.lines(1)).rc == 0
    assert not [name for name in names(tmp_path) if "meta" in name]


@pytest.mark.parametrize("name", [b"a b", b"two\nlines", b"caf\xc3\xa9", b"\xff\xfe", b"-o", b"'q\"$(x)"])
def test_any_file_name_will_do(name, tmp_path):
    tag = frame.own("tag")
    folder = os.fsencode(tmp_path)
    for wrong in (b"", b"oops\n"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(tag.lines(1) + wrong)
        done = frame.run([*tag.argv, "--on-error", "keep", "-o", b"out" + name, "--", name], cwd=tmp_path)
        assert done.rc == 0
        assert len(done.err.splitlines()) == (2 if wrong else 1)
    with open(folder + b"/out" + name, "rb") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 2
    assert rows[1]["error"]["where"].endswith(":2")
    with open(folder + b"/out" + name + b".meta.json", "rb") as file:
        assert json.load(file)["counts"]["errors"] == 1


def test_a_message_shows_the_name_byte_for_byte_but_on_one_line(tmp_path):
    result = frame.run([*frame.own("tag").argv, b"\xffa\nb"], cwd=tmp_path)
    assert (result.rc, result.err) == (1, "tag: \udcffa\\nb: No such file or directory\n")


@every_reader
def test_unusable_inputs_are_told_before_anything_is_read(command, tmp_path):
    (tmp_path / "good").write_bytes(command.lines(1))
    (tmp_path / "folder").mkdir()
    for name, why in (("missing", "No such file or directory"), ("folder", "Is a directory")):
        result = command.run(tmp_path, inputs=("good", name))
        assert (result.rc, result.out) == (1, b"")
        assert result.complaints == [f"{command.name}: {name}: {why}"]


@every_reader
def test_unusable_outputs_are_told_in_one_line(command, tmp_path):
    (tmp_path / "folder").mkdir()
    for name, why in (("nowhere/out", "No such file or directory"), ("folder", "Is a directory")):
        for option in ("-o", "-e"):
            result = command.run(tmp_path, option, name, stdin=command.lines(1))
            assert (result.rc, result.out) == (1, b"")
            assert result.complaints == [f"{command.name}: {name}: {why}"]


def test_special_files_are_written_directly(tmp_path):
    tag = frame.own("tag")
    os.mkfifo(tmp_path / "fifo")
    result = frame.shell(f"cat fifo > copy & {tag.shell(tmp_path)} -o fifo; wait", cwd=tmp_path, stdin=tag.lines(3))
    assert result.rc == 0
    assert (tmp_path / "copy").read_bytes() == tag.run(tmp_path, stdin=tag.lines(3)).out
    assert tag.run(tmp_path, "-o", "/dev/null", stdin=tag.lines(1)).rc == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert names(tmp_path) == ["copy", "fifo"]
    assert tag.run(tmp_path, "-o", "-", stdin=tag.lines(1)).rows[0]["tag"] == 0


def test_more_inputs_than_a_process_may_have_open(tmp_path):
    tag = frame.own("tag")
    for number in range(80):
        (tmp_path / f"in{number:03}").write_bytes(tag.lines(1, start=number))
    result = frame.shell(f"ulimit -n 40; {tag.shell(tmp_path)} in*", cwd=tmp_path)
    assert result.rc == 0
    assert [row["n"] for row in result.rows] == list(range(80))


def test_a_closed_standard_stream_harms_no_file(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "in").write_bytes(tag.lines(3))
    line = tag.shell(tmp_path)
    assert frame.shell(f"{line} -o out --on-error skip - in 2>&-", cwd=tmp_path, stdin=b"oops\n").rc == 0
    assert (tmp_path / "out").read_bytes() == tag.run(tmp_path, stdin=tag.lines(3)).out
    no_stdout = frame.shell(f"{line} in >&-", cwd=tmp_path)
    assert (no_stdout.rc, no_stdout.complaints) == (1, ["tag: stdout: Bad file descriptor"])
    no_stdin = frame.shell(f"{line} <&-", cwd=tmp_path)
    assert (no_stdin.rc, no_stdin.complaints) == (1, ["tag: stdin: Bad file descriptor"])
    assert (tmp_path / "in").read_bytes() == tag.lines(3)


def test_a_long_line_is_read_in_time(tmp_path):
    tag = frame.own("tag")
    line = b'{"n":1,"x":"' + b"a" * 30_000_000 + b'"}\n'
    result = frame.shell(f"{tag.shell(tmp_path)} | wc -c", cwd=tmp_path, stdin=line)
    assert int(result.out) > len(line)


def test_gzip_output_can_be_read_by_others(tmp_path):
    tag = frame.own("tag")
    assert tag.run(tmp_path, "--line-buffered", "-o", "out.gz", stdin=tag.lines(50)).rc == 0
    data = (tmp_path / "out.gz").read_bytes()
    assert zlib.decompress(data, 31).count(b"\n") == 50
