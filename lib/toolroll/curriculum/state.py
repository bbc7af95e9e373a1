"""A bandit's state on disk: a journal of what was learned and drawn, and a snapshot that saves reading all of it.

    DIR/settings.json    what it was set to when it was made
    DIR/journal.jsonl    one line a batch of feedback, of draws, or of new arms, each with a checksum
    DIR/snapshot.json    the bandit after the first so many bytes of the journal
    DIR/history.jsonl    what the journal said of earlier batches before it was compacted
    DIR/lock             held by whoever writes

A writer takes the lock, reads what others wrote since, appends a line, and syncs before it says that it is done. A
reader takes no lock: whole lines are all it needs. A last line that is not whole was torn by a crash; the next writer
cuts it off. Feedback has ids; the last `remember` of them at least are known, so feedback sent twice counts once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from toolroll.curriculum.bandit import Bandit, Seen, Settings
from toolroll.curriculum.journal import Damaged, Entry, Image, opened, sealed
from toolroll.curriculum.lock import locked
from toolroll.curriculum.sync import Syncer
from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import write_atomically

SNAPSHOT_BYTES = 16 << 20  #: of journal after which a snapshot is written, at the end of a run after a 16th of it
SETTINGS, JOURNAL, SNAPSHOT, HISTORY = "settings.json", "journal.jsonl", "snapshot.json", "history.jsonl"


class Batch(NamedTuple):
    """What a batch of feedback says: of each arm, the names of its rows, and its step."""

    seen: dict[str, Seen]
    ids: list[str]
    step: int | None


class State:
    """The state in a folder, as far as its journal has been read. Raises ToolrollError where it is damaged.

    `seq` counts the batches of feedback, `step` is that of the last one. `draws` counts the draws, `drawn` those of an
    arm that went through its tasks without putting them back.
    """

    def __init__(
        self,
        directory: Path,
        *,
        use_snapshot: bool = True,
        lock_kind: str = "fcntl",
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.journal = directory / JOURNAL
        self.settings = _read_settings(directory)
        self._lock_kind = lock_kind
        self._notify = notify
        self._syncer = Syncer(self.journal)
        self._begin()
        if use_snapshot:
            self._restore()

    @classmethod
    def open(cls, directory: Path, **how: Any) -> State:
        """The state as it is now."""
        state = cls(directory, **how)
        state.refresh()
        return state

    @staticmethod
    def make(directory: Path, settings: Settings, names: Iterable[str], *, lock_kind: str = "fcntl") -> None:
        """Make a state, or see that the one there has the same settings, and the arms among its own."""
        arms = sorted(set(names))
        if not arms:
            raise UsageError("needs arms: --arm NAME or --arms FILE", place="--init")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with locked(directory, lock_kind):
                if (directory / SETTINGS).exists():
                    _check_same(State.open(directory), settings, arms)
                    return
                write_atomically(directory / JOURNAL, sealed(msgspec.json.encode(Entry(add=arms))))
                write_atomically(directory / SETTINGS, msgspec.json.encode(settings) + b"\n")
                _sync_folder(directory)
        except OSError as error:
            raise _failure(error, directory) from error

    # --- reading

    def refresh(self) -> None:
        """Read and take in what the journal has more than before."""
        for _ in self.replay():
            pass

    def replay(self) -> Iterator[Entry]:
        """Take in what the journal has more than before, an entry at a time."""
        if self._journal_is_new():
            self._begin()
            self._restore()
        for line, entry in self._new_entries():
            self._take(entry)
            self._read_bytes += len(line)
            yield entry

    def _begin(self) -> None:
        self.bandit = Bandit.new(self.settings)
        self.seq = 0
        self.step: int | None = None
        self.draws = 0
        self.drawn: dict[str, int] = {}
        self._ids: set[str] = set()
        self._older_ids: set[str] = set()
        self._read_bytes = self._snapshot_bytes = 0
        self._inode: int | None = None

    def _journal_is_new(self) -> bool:
        """Whether another process has compacted the journal since it was read."""
        return self._inode is not None and self._status().st_ino != self._inode

    def _status(self) -> os.stat_result:
        try:
            return self.journal.stat()
        except OSError as error:
            raise _failure(error, self.journal) from error

    def _new_entries(self) -> Iterator[tuple[bytes, Entry]]:
        if self._status().st_size == self._read_bytes:
            return
        try:
            with open(self.journal, "rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                file.seek(self._read_bytes)
                for line in file:
                    try:
                        entry = msgspec.json.decode(opened(line), type=Entry)
                    except (Damaged, msgspec.MsgspecError) as error:
                        if file.read(1):
                            raise ToolrollError(str(error), place=f"{self.journal}: byte {self._read_bytes}") from error
                        return  # the last line, torn by a crash or being written
                    yield line, entry
        except OSError as error:
            raise _failure(error, self.journal) from error

    def _take(self, entry: Entry) -> None:
        if entry.image is not None:
            self._take_image(entry.image)
        if entry.add:
            self.bandit.add(entry.add)
        if entry.seq is not None:
            if entry.seq != self.seq + 1:
                raise ToolrollError(f"batch {entry.seq} follows batch {self.seq}", place=str(self.journal))
            self.seq, self.step = entry.seq, entry.step
            self.bandit.see(entry.seen)
            self._remember(entry.ids)
        self.draws += entry.draws
        for name, count in entry.drawn.items():
            self.drawn[name] = self.drawn.get(name, 0) + count

    def knows_any(self, names: Collection[str]) -> bool:
        """Whether feedback of one of these names was counted before."""
        return not (self._ids.isdisjoint(names) and self._older_ids.isdisjoint(names))

    def _remember(self, ids: Iterable[str]) -> None:
        self._ids.update(ids)
        if len(self._ids) >= self.settings.remember:  # forgetting all of the older at a time costs nothing
            self._ids, self._older_ids = set(), self._ids

    # --- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock, with all that others wrote taken in and a torn end cut off."""
        with locked(self.directory, self._lock_kind, self._notify):
            self.refresh()
            if (torn := self._status().st_size - self._read_bytes) > 0:
                self._notify(f"{self.journal}: cut off {torn} bytes of a line that a crash left unfinished")
                os.truncate(self.journal, self._read_bytes)
            yield

    def learn(self, batches: Sequence[Batch], *, arms: Iterable[str] = ()) -> None:
        """Journal batches of feedback, and new arms before them, and take them in. Inside `writing`."""
        self.add_arms(arms)
        first = self.seq + 1
        self._append(*(Entry(seq=i, step=b.step, seen=b.seen, ids=b.ids) for i, b in enumerate(batches, first)))
        if self._read_bytes - self._snapshot_bytes > SNAPSHOT_BYTES:
            self._save_snapshot()

    def add_arms(self, names: Iterable[str]) -> None:
        """Journal new arms and take them in. Inside `writing`."""
        if new := sorted({name for name in names if name not in self.bandit.arms}):
            self._append(Entry(add=new))

    def reserve(self, draws: int, drawn: Mapping[str, int] | None = None) -> None:
        """Journal that so many draws are about to be made; a negative number gives back. Inside `writing`."""
        self._append(Entry(draws=draws, drawn=dict(drawn or {})))

    def _append(self, *entries: Entry) -> None:
        lines = b"".join([sealed(msgspec.json.encode(entry)) for entry in entries])
        try:
            with open(self.journal, "ab", buffering=0) as file:
                try:
                    rest = memoryview(lines)
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError:
                    file.truncate(self._read_bytes)
                    raise
        except OSError as error:
            raise _failure(error, self.journal) from error
        self._syncer.wrote()
        for entry in entries:
            self._take(entry)
        self._read_bytes += len(lines)

    def sync(self) -> None:
        """Return when all that was journaled is on the disk."""
        self._syncer.sync()

    def sync_soon(self) -> None:
        """See to it that what was journaled gets to the disk, without waiting."""
        self._syncer.sync_soon()

    # --- snapshots

    def close(self) -> None:
        """Return when all is on the disk, with a snapshot that makes opening the state quick."""
        self.sync()
        if self._read_bytes - self._snapshot_bytes > SNAPSHOT_BYTES // 16:
            with self.writing():
                self._save_snapshot()

    def _save_snapshot(self) -> None:
        """Write down the bandit as it is now, so that the journal so far need not be read again. Inside `writing`."""
        self.sync()
        try:
            write_atomically(self.directory / SNAPSHOT, sealed(msgspec.json.encode(self.image(self._journal_name()))))
            _sync_folder(self.directory)
        except OSError as error:
            raise _failure(error, self.directory) from error
        self._snapshot_bytes = self._read_bytes

    def compact(self) -> None:
        """Replace the journal by one line that says where it has led to. Inside `writing`."""
        line = sealed(msgspec.json.encode(Entry(image=self.image(""))))
        try:
            write_atomically(self.journal, line)
            (self.directory / SNAPSHOT).unlink(missing_ok=True)
            _sync_folder(self.directory)
        except OSError as error:
            raise _failure(error, self.directory) from error
        self._begin()
        self.refresh()

    def image(self, journal: str) -> Image:
        """All there is to know of the state, after so much of this journal."""
        return Image.of(
            self.bandit,
            journal=journal,
            journal_bytes=self._read_bytes,
            seq=self.seq,
            step=self.step,
            draws=self.draws,
            drawn=self.drawn,
            ids=self._ids,
            older_ids=self._older_ids,
        )

    def _restore(self) -> None:
        path = self.directory / SNAPSHOT
        if not path.exists():
            return
        try:
            image = msgspec.json.decode(opened(path.read_bytes()), type=Image)
        except (OSError, Damaged, msgspec.MsgspecError) as error:
            raise ToolrollError(f"{error}; remove it, and the journal is read instead", place=str(path)) from error
        if image.journal != self._journal_name():
            return  # of the journal before it was compacted
        status = self._status()
        if image.journal_bytes > status.st_size:
            raise ToolrollError("is shorter than the snapshot says: something is lost", place=str(self.journal))
        self._take_image(image)
        self._read_bytes = self._snapshot_bytes = image.journal_bytes
        self._inode = status.st_ino

    def _take_image(self, image: Image) -> None:
        self.seq, self.step, self.draws, self.drawn = image.seq, image.step, image.draws, dict(image.drawn)
        self._ids, self._older_ids = set(image.ids), set(image.older_ids)
        self.bandit = image.bandit(self.settings)

    def _journal_name(self) -> str:
        """The checksum of its first line, which changes when it is compacted."""
        try:
            with open(self.journal, "rb") as file:
                return file.readline()[-11:-3].decode(errors="replace")
        except OSError as error:
            raise _failure(error, self.journal) from error


def _read_settings(directory: Path) -> Settings:
    path = directory / SETTINGS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError as error:
        raise ToolrollError(
            "no state here; make one: ucb-sample --init --arm NAME ...", place=str(directory)
        ) from error
    except OSError as error:
        raise _failure(error, path) from error
    except msgspec.MsgspecError as error:
        raise ToolrollError(f"cannot be read: {error}", place=str(path)) from error


def _check_same(there: State, settings: Settings, arms: list[str]) -> None:
    was, now = (msgspec.structs.asdict(one) for one in (there.settings, settings))
    changed = [f"--{name.replace('_', '-')} was {was[name]}, is {now[name]}" for name in was if was[name] != now[name]]
    missing = sorted(set(arms) - set(there.bandit.arms))
    if changed:
        raise UsageError(f"there is a state with other settings: {', '.join(changed)}", place=str(there.directory))
    if missing:
        raise UsageError(f"the state there has no arm {missing[0]!r} (see --add-arm)", place=str(there.directory))


def _sync_folder(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(error: OSError, place: Path) -> ToolrollError:
    return ToolrollError(error.strerror or str(error), place=str(place))
