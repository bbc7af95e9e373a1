"""Files that a function turns into lines."""

from __future__ import annotations

import hashlib
import tracemalloc
from contextlib import contextmanager

import pytest

from toolroll.errors import ToolrollError
from toolroll.io.compression import CHUNK
from toolroll.io.inputs import Reader
from toolroll.run.signals import StopFlag

OPENS = {".words": "test_io_inputs_opener:lines"}
OPENER = """
from toolroll.errors import ToolrollError

def lines(path, chunks, paths):
    data = next(chunks, b"") if path.startswith("first") else b"".join(chunks)
    if data == b"bad":
        raise ToolrollError("no words", place=path)
    for word in data.split():
        yield b"%s %d" % (word, len(paths))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files, from which the function can be imported."""
    (tmp_path / "test_io_inputs_opener.py").write_text(OPENER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.words").write_bytes(b"x yy  z\n")
    (tmp_path / "b.jsonl").write_bytes(b"one\ntwo\n")
    return tmp_path


@contextmanager
def reader(*paths, stop=None, hashed=False):
    read = Reader(
        paths, stop=StopFlag() if stop is None else stop, before_wait=lambda: None, hashed=hashed, opens=OPENS
    )
    yield read
    read.close()


def test_lines_of_such_files_stand_where_the_file_does(folder):
    with reader("b.jsonl", "a.words", "b.jsonl") as read:
        found = list(read.lines())
    plain = [("b.jsonl", 1, b"one"), ("b.jsonl", 2, b"two")]
    assert found == [*plain, ("a.words", 1, b"x 3"), ("a.words", 2, b"yy 3"), ("a.words", 3, b"z 3"), *plain]


def test_what_is_not_asked_for_is_read_past(folder):
    """A file of any size is never in memory as a whole unless the function takes it."""
    size = 64 << 20
    with open("first.words", "wb") as file:
        file.write(b"x yy " + bytes(CHUNK))
        file.truncate(size)
    with reader("first.words", hashed=True) as read:
        tracemalloc.start()
        found = list(read.lines())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found[0] == ("first.words", 1, b"x 1")
    assert read.files[0].size == size
    assert peak < size / 8


def test_their_bytes_are_counted_and_hashed(folder):
    with reader("a.words", hashed=True) as read:
        assert len(list(read.lines())) == 3
    (file,) = read.files
    assert file.size == 8
    assert file.digest == hashlib.blake2b(b"x yy  z\n", digest_size=16).hexdigest()


def test_what_the_function_refuses_is_told(folder):
    (folder / "a.words").write_bytes(b"bad")
    with reader("a.words") as read, pytest.raises(ToolrollError, match="no words"):
        list(read.lines())


def test_a_signal_ends_them(folder):
    stop = StopFlag()
    with reader("a.words", "b.jsonl", stop=stop) as read:
        lines = read.lines()
        assert next(lines)[2] == b"x 2"
        stop.asked_by = "SIGTERM"
        assert list(lines) == []


def test_other_files_are_read_as_they_are(folder):
    (folder / "words").write_bytes(b"x y\n")
    with reader("words") as read:
        assert [line for _, _, line in read.lines()] == [b"x y"]
