"""Files that are written beside the rows: none of those that are read, and told early where they cannot be."""

from __future__ import annotations

import pytest

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.paths import check_apart, check_writable, same_file


def test_names_of_one_file(tmp_path):
    one, link, hard = tmp_path / "one", tmp_path / "link", tmp_path / "hard"
    one.write_text("x")
    link.symlink_to(one)
    hard.hardlink_to(one)
    assert same_file(one, link)
    assert same_file(one, hard)
    assert same_file(tmp_path / "new", tmp_path / "." / "new")
    assert not same_file(one, tmp_path / "new")


def test_what_is_written_is_not_read(tmp_path):
    one, link, new = tmp_path / "one", tmp_path / "link", tmp_path / "new"
    one.write_text("x")
    link.symlink_to(one)
    with pytest.raises(UsageError, match="input and output are the same file"):
        check_apart((None, link), (new, one))
    with pytest.raises(UsageError, match="two outputs cannot be the same file"):
        check_apart((new, tmp_path / "." / "new"), ())
    check_apart((new, None, "-", "-", "/dev/null"), (one, None, "-", "/dev/null"))


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(ToolrollError, match="No such file or directory"):
        check_writable(tmp_path / "gone" / "x")
    with pytest.raises(ToolrollError, match="Is a directory"):
        check_writable(tmp_path)
    check_writable(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
