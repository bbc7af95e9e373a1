"""The state on disk: what is journaled comes back bit for bit, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys

import frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolroll.curriculum import state as state_module
from toolroll.curriculum.bandit import Bandit, Seen, Settings
from toolroll.curriculum.history import check_replay, compact, rows_of_history
from toolroll.curriculum.state import Batch, State
from toolroll.curriculum.sync import Syncer
from toolroll.errors import ToolrollError, UsageError


def made(path, names=("a", "b"), **rule):
    State.make(path, Settings(**rule), names)
    return State.open(path)


def learn(state, *batches, arms=()):
    with state.writing():
        state.learn([batch(*one) for one in batches], arms=arms)
    state.sync()


def batch(values, ids=(), step=None):
    return Batch({arm: Seen(last=list(given), rollouts=len(given)) for arm, given in values.items()}, list(ids), step)


def lines(path):
    return (path / "journal.jsonl").read_bytes().splitlines(keepends=True)


values = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(0, 1e3), max_size=9), min_size=1), max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values, st.integers(0, 8), st.sampled_from(["rollouts", "window"]))
def test_a_replay_equals_what_was_lived(tmp_path_factory, batches, snapshot_after, count):
    path = tmp_path_factory.mktemp("state") / "s"
    live = made(path, "abc", k=7, count=count)
    plain = Bandit.new(Settings(k=7, count=count), "abc")
    for i, one in enumerate(batches):
        learn(live, (one, [f"r{i}"], i))
        plain.see({arm: Seen(last=given[-7:], rollouts=len(given)) for arm, given in one.items()})
        if i == snapshot_after:
            with live.writing():
                live._save_snapshot()
    for again in (State.open(path), State.open(path, use_snapshot=False)):
        assert again.image("") == live.image("")
        assert again.bandit.probabilities() == live.bandit.probabilities() == plain.probabilities()
    check_replay(State.open(path))


def test_making_it_again_is_nothing_and_with_other_settings_an_error(tmp_path):
    made(tmp_path / "s", k=5)
    learn(State.open(tmp_path / "s"), ({"a": [1.0]},))
    made(tmp_path / "s", k=5)
    assert State.open(tmp_path / "s").seq == 1
    with pytest.raises(UsageError, match=r"--k was 5, is 6"):
        made(tmp_path / "s", k=6)
    with pytest.raises(UsageError, match="no arm 'c'"):
        made(tmp_path / "s", "abc", k=5)
    with pytest.raises(UsageError, match="needs arms"):
        made(tmp_path / "t", ())
    with pytest.raises(ToolrollError, match="no state here"):
        State.open(tmp_path / "u")


@pytest.mark.parametrize("left", [1, 20, -1, -12])
def test_a_line_torn_by_a_crash_is_cut_off(tmp_path, left):
    """`left` bytes of the last line are on the disk; the update it was part of was never acknowledged."""
    state = made(tmp_path / "s")
    learn(state, ({"a": [0.25]}, ["x"]))
    before, whole = State.open(tmp_path / "s").image(""), (tmp_path / "s/journal.jsonl").read_bytes()
    learn(state, ({"b": [0.5]}, ["y"]))
    torn = lines(tmp_path / "s")[-1][:left]
    (tmp_path / "s/journal.jsonl").write_bytes(whole + torn)
    told = []
    again = State.open(tmp_path / "s", notify=told.append)
    assert again.image("") == before
    assert told == []  # a reader changes nothing
    learn(again, ({"b": [0.5]}, ["y"]))
    assert told == [f"{tmp_path}/s/journal.jsonl: cut off {len(torn)} bytes of a line that a crash left unfinished"]
    assert State.open(tmp_path / "s").image("") == state.image("")


@pytest.mark.parametrize("change", [(b"0.25", b"0.26"), (b'"seq":1', b'"seq":9'), (b'"crc":"', b'"crc":"0')])
def test_a_changed_line_is_an_error(tmp_path, change):
    state = made(tmp_path / "s")
    learn(state, ({"a": [0.25]},), ({"a": [0.5]},))
    journal = tmp_path / "s/journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(*change, 1))
    with pytest.raises(ToolrollError, match=r"journal\.jsonl: byte \d+: does not have its checksum"):
        State.open(tmp_path / "s")


def test_a_lost_line_is_an_error(tmp_path):
    learn(made(tmp_path / "s"), ({"a": [0.25]},), ({"a": [0.5]},), ({"a": [0.75]},))
    kept = lines(tmp_path / "s")
    (tmp_path / "s/journal.jsonl").write_bytes(b"".join([*kept[:2], kept[3]]))
    with pytest.raises(ToolrollError, match="batch 3 follows batch 1"):
        State.open(tmp_path / "s")


def test_a_snapshot_saves_reading_the_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(state_module, "SNAPSHOT_BYTES", 400)
    state = made(tmp_path / "s", k=3)
    for i in range(12):
        learn(state, ({"a": [i / 10, i / 7]}, [f"r{i}"]))
    assert (tmp_path / "s/snapshot.json").exists()
    again = State(tmp_path / "s")
    assert again.seq > 0
    assert len(list(again.replay())) == 12 - json.loads((tmp_path / "s/snapshot.json").read_bytes())["seq"] < 12
    assert again.image("") == state.image("")
    journal = tmp_path / "s/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:150])
    with pytest.raises(ToolrollError, match="shorter than the snapshot says"):
        State.open(tmp_path / "s")


def test_a_damaged_snapshot_is_told_and_can_be_removed(tmp_path):
    state = made(tmp_path / "s")
    learn(state, ({"a": [0.5]},))
    with state.writing():
        state._save_snapshot()
    snapshot = tmp_path / "s/snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes().replace(b"0.5", b"0.6"))
    with pytest.raises(ToolrollError, match=r"snapshot\.json: .*remove it"):
        State.open(tmp_path / "s")
    snapshot.unlink()
    assert State.open(tmp_path / "s").image("") == state.image("")


def test_names_are_remembered_and_the_oldest_forgotten(tmp_path):
    state = made(tmp_path / "s", remember=3)
    for i in range(9):
        learn(state, ({"a": [0.5]}, [f"r{i}"]))
        assert all(state.knows_any([f"r{j}"]) for j in range(max(0, i - 2), i + 1))
        assert State.open(tmp_path / "s").image("") == state.image("")
    assert not state.knows_any(["r0", "r1", "r2"])


def test_writers_see_what_others_wrote(tmp_path):
    one, two = made(tmp_path / "s"), State.open(tmp_path / "s")
    learn(one, ({"a": [0.5]}, ["x"]))
    learn(two, ({"b": [0.25]}, ["y"]), arms=["c"])
    with one.writing():
        assert one.seq == 2
        assert one.bandit.names == ["a", "b", "c"]
    assert one.image("") == two.image("")


def test_a_compacted_journal_is_the_same_state_with_the_same_history(tmp_path):
    state, other = made(tmp_path / "s", k=4, remember=2), State.open(tmp_path / "s")
    for step in range(1, 6):
        learn(state, ({"a": [step / 10], "b": [step / 3] * 2}, [f"r{step}"], step))
    other.refresh()
    history = list(rows_of_history(tmp_path / "s"))
    size = (tmp_path / "s/journal.jsonl").stat().st_size
    compact(state)
    assert (tmp_path / "s/journal.jsonl").stat().st_size < size
    assert len(lines(tmp_path / "s")) == 1
    assert list(rows_of_history(tmp_path / "s")) == history
    learn(other, ({"a": [0.9]}, ["r6"], 6))  # had the journal open when it was replaced
    assert other.seq == 6
    again = State.open(tmp_path / "s")
    assert again.image("") == other.image("")
    assert list(rows_of_history(tmp_path / "s"))[:-2] == history
    check_replay(again)
    compact(again)
    assert len(list(rows_of_history(tmp_path / "s"))) == len(history) + 2


def test_a_snapshot_of_another_past_is_found_out(tmp_path):
    state = made(tmp_path / "s")
    learn(state, ({"a": [0.5]},))
    with state.writing():
        state.bandit.see({"a": Seen(last=[0.75], rollouts=1)})
        state._save_snapshot()
    with pytest.raises(ToolrollError, match="not what the journal leads to"):
        check_replay(State.open(tmp_path / "s"))


def test_a_full_disk_is_told_and_leaves_the_state_as_it_was(tmp_path):
    state = made(tmp_path / "s")
    learn(state, ({"a": [0.5]}, ["x"]))
    journal = tmp_path / "s/journal.jsonl"
    before, image = journal.read_bytes(), state.image("")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
        with pytest.raises(ToolrollError, match=r"journal\.jsonl: (File too large|No space left)"):
            learn(state, ({"a": [0.125] * 40}, ["y"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.read_bytes() == before
    assert state.image("") == image
    learn(state, ({"a": [0.125] * 40}, ["y"]))
    assert State.open(tmp_path / "s").image("") == state.image("")


def test_syncing_in_the_background_gets_everything_to_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(Syncer, "_to_disk", lambda self: synced.append(os.stat(self._path).st_size))
    state = made(tmp_path / "s")
    for i in range(20):
        with state.writing():
            state.learn([batch({"a": [0.5]}, [f"r{i}"])])
        state.sync_soon()
    state.sync()
    assert synced[-1] == state.journal.stat().st_size


def test_a_failure_to_sync_in_the_background_is_told(tmp_path, monkeypatch):
    state = made(tmp_path / "s")

    def fail(_syncer):
        raise ToolrollError("Input/output error")

    monkeypatch.setattr(Syncer, "_to_disk", fail)
    with state.writing():
        state.learn([batch({"a": [0.5]})])
    state.sync_soon()
    with pytest.raises(ToolrollError, match="Input/output error"):
        state.sync()


def test_a_folder_as_lock(tmp_path):
    state = made(tmp_path / "s")
    by_folder = State.open(tmp_path / "s", lock_kind="dir")
    with by_folder.writing():
        assert "process" in (tmp_path / "s/lock.d/owner").read_text()
        by_folder.learn([batch({"a": [0.5]})])
    assert not (tmp_path / "s/lock.d").exists()
    state.refresh()
    assert state.seq == 1


def test_ten_thousand_arms_fit_in_memory(tmp_path):
    code = (
        "import resource\n"
        "from toolroll.curriculum.bandit import Bandit, Seen, Settings\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = used()\n"
        "bandit = Bandit.new(Settings(), (f'arm{i}' for i in range(10_000)))\n"
        "for i in range(10_000):\n"
        "    bandit.see({f'arm{i}': Seen(last=[j / 300 for j in range(300)], rollouts=300)})\n"
        "    if i % 100 == 0:\n"
        "        bandit.counts\n"
        "assert sum(bandit.probabilities()) > 0.99\n"
        "print(used() - before)\n"
    )
    result = frame.run([sys.executable, "-c", code])
    assert result.rc == 0, result.err
    assert float(result.out) < 32


def test_floats_come_back_as_the_same_bits(tmp_path):
    state = made(tmp_path / "s")
    odd = [5e-324, 0.1 + 0.2, math.pi, 1 / 3, 1e100]
    learn(state, ({"a": odd},))
    assert [*State.open(tmp_path / "s").bandit.arms["a"].window(300)] == odd
