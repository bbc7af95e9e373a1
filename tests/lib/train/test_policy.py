"""The policy directory: whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from toolroll.errors import ToolrollError
from toolroll.train.policy import PolicyDirectory, install, version_name, version_number


def write(text):
    def fill(folder):
        (folder / "config.json").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_text(text * 10)

    return fill


def opened(path, **settings):
    return PolicyDirectory(path / "policy", **settings).open()


def versions(path):
    return sorted(entry.name for entry in (path / "policy").iterdir() if entry.name != "state")


def test_versions_are_named_after_the_updates_they_have_seen():
    assert version_name(1234567) == "v1234567"
    assert version_number("v1234567") == 1234567
    assert [version_number(name) for name in ("v12", "v00001x", ".v000001.part", "state")] == [None] * 4


def test_the_newest_versions_stay_and_those_asked_for(tmp_path):
    directory = opened(tmp_path, keep=2)
    assert directory.published() is None
    for step in range(5):
        assert directory.publish(step, write(str(step)), also_keep=(0,)) == version_name(step)
        assert directory.published() == step
    assert versions(tmp_path) == ["current", "v000000", "v000003", "v000004"]
    assert (tmp_path / "policy" / "current" / "config.json").read_text() == "4"
    directory.close()


def test_going_back_keeps_what_is_current(tmp_path):
    """A version older than others that are there may be published; it is not the one to go."""
    directory = opened(tmp_path, keep=1)
    directory.publish(9, write("nine"))
    directory.publish(3, write("three"))
    assert versions(tmp_path) == ["current", "v000003"]
    directory.close()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("x")])
def test_what_goes_wrong_while_writing_changes_nothing(tmp_path, error):
    directory = opened(tmp_path)
    directory.publish(1, write("one"))

    def breaks(folder):
        (folder / "config.json").write_text("two")
        raise error

    with pytest.raises(ToolrollError if isinstance(error, OSError) else KeyError) as caught:
        directory.publish(2, breaks)
    if isinstance(error, OSError):
        assert (caught.value.why, caught.value.place) == (
            "cannot be written: No space left on device",
            str(tmp_path / "policy" / "v000002"),
        )
    assert versions(tmp_path) == ["current", "v000001"]
    assert directory.published() == 1
    directory.close()


def test_what_a_killed_trainer_left_is_removed_at_the_start(tmp_path):
    directory = opened(tmp_path)
    directory.publish(1, write("one"))
    directory.close()
    (tmp_path / "policy" / ".v000002.part" / "sub").mkdir(parents=True)
    (tmp_path / "policy" / ".current.part").symlink_to("v000002")
    opened(tmp_path).close()
    assert versions(tmp_path) == ["current", "v000001"]


def test_one_trainer_at_a_time(tmp_path):
    first = opened(tmp_path)
    with pytest.raises(ToolrollError, match="another trainer is at work on it"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_a_whole_folder_replaces_one_of_the_same_name(tmp_path):
    install(tmp_path, "made", write("old"))
    install(tmp_path, "made", write("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "sub" / "weights").read_text() == "new" * 10
    assert (tmp_path / "made" / "config.json").stat().st_mode & 0o777 == 0o644


def test_a_current_that_is_no_version_is_refused(tmp_path):
    directory = opened(tmp_path)
    (tmp_path / "policy" / "mine").mkdir()
    (tmp_path / "policy" / "mine" / "config.json").write_text("{}")
    (tmp_path / "policy" / "current").symlink_to("mine")
    with pytest.raises(ToolrollError, match="`current` is mine, not a version like v000012"):
        directory.published()
    (tmp_path / "policy" / "current").unlink()
    (tmp_path / "policy" / "current").symlink_to("gone")
    with pytest.raises(ToolrollError, match="has no version yet"):
        directory.published()
    directory.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "policy").write_text("a file")
    with pytest.raises(ToolrollError) as caught:
        opened(tmp_path)
    assert Path(caught.value.place).name == "policy"
