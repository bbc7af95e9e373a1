"""Small files are there whole or not at all; what cannot be replaced is written into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import frame
import pytest
from contract.limits import full_after

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.figures import write_figure
from toolroll.io.filesystem import is_special, opened, put, read_text, write_atomically
from toolroll.kvcache.tensors import TensorWriter
from toolroll.run.log import write_stderr


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with full_after(5), pytest.raises(OSError, match="File too large"):
        write_atomically(path, b"new" * 100)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("x", b"old")]


def test_a_failure_is_told_with_the_name_of_the_file(tmp_path):
    put(tmp_path / "new/a", b"old", make_folder=True)
    with full_after(5), pytest.raises(ToolrollError, match="new/a: File too large"):
        put(tmp_path / "new/a", b"other" * 100)
    assert [(one.name, one.read_bytes()) for one in (tmp_path / "new").iterdir()] == [("a", b"old")]
    with pytest.raises(ToolrollError, match="other/a: No such file or directory"):
        put(tmp_path / "other/a", b"")


@pytest.mark.parametrize("data", [b"\xff", b"a\0b"])
def test_what_is_no_text_is_told(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfa")
    assert read_text(path) == "a"
    path.write_bytes(data)
    with pytest.raises(ToolrollError, match="x: not a text file"):
        read_text(path)


@pytest.mark.parametrize("size", [0, 100, 400])
def test_a_full_disk_leaves_nothing_of_a_file_of_tensors(size, tmp_path):
    import numpy as np

    def write():
        with TensorWriter(tmp_path / "x", [("a", "U8", (300,))], {}) as writer:
            writer.write(np.zeros(300, np.uint8))

    with full_after(size), pytest.raises(ToolrollError, match="x: File too large"):
        write()
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(tmp_path / "x")
    with pytest.raises(ToolrollError, match="x: is no regular file"):
        write()


def test_pipes_and_devices_are_written_into(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(fifo, b"data")
    assert os.read(reader, 9) == b"data"
    os.close(reader)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(Path("/dev/full"), b"data")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["fifo"]


def test_an_open_file_is_written_behind_what_it_has(tmp_path):
    """Names like /dev/stdout are not opened anew, which would cut short what is there."""
    path = tmp_path / "x"
    with open(path, "wb", buffering=0) as file:
        file.write(b"one ")
        name = f"/dev/fd/{file.fileno()}"
        assert is_special(name)
        write_atomically(Path(name), b"two ")
        with opened(f"/proc/self/fd/{file.fileno()}") as again:
            again.write(b"three ")
        file.write(b"four")
    assert path.read_bytes() == b"one two three four"
    with pytest.raises(OSError, match="Bad file descriptor"):
        opened("/dev/fd/987654")
    assert not is_special(tmp_path)
    assert not is_special("a\0b")


@pytest.mark.parametrize("name", ["a.svg", "a", "a.PDF"])
def test_a_figure_has_the_name_and_the_kind_it_was_given(name, tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    write_figure(figure, tmp_path / name)
    starts = {"a.svg": b"<?xml", "a": b"\x89PNG", "a.PDF": b"%PDF"}
    assert (tmp_path / name).read_bytes().startswith(starts[name])
    with pytest.raises(UsageError, match=r"^--plot: Format 'doc' is not supported"):
        write_figure(figure, tmp_path / "a.doc")
    with full_after(100), pytest.raises(ToolrollError, match=r"b\.png: File too large"):
        write_figure(figure, tmp_path / "b.png")
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_any_text_can_be_said(capfdbinary):
    for text in ("\ud800 of a model", "a name \udcff"):
        write_stderr(text)
    assert capfdbinary.readouterr().err.splitlines() == [b"\\ud800 of a model", b"a name \xff"]


def test_rows_for_dev_stdout_go_where_stdout_goes(tmp_path):
    tag = frame.own("tag")
    rows = tag.lines(2)
    line = f"(echo first; {tag.shell(tmp_path)} -q -o /dev/stdout; echo last) > all"
    assert frame.shell(line, cwd=tmp_path, stdin=rows).rc == 0
    wanted = b"first\n" + tag.run(tmp_path, stdin=rows).out + b"last\n"
    assert (tmp_path / "all").read_bytes() == wanted
    assert os.path.realpath("/dev/stdout") != "/dev/stdout"
