"""The tasks that draws are made from: the rows of a pool file, by arm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolroll.curriculum.draw import item, shuffled
from toolroll.errors import Stopped, ToolrollError
from toolroll.io.decoding import read_error
from toolroll.io.inputs import Reader
from toolroll.run.signals import StopFlag


@dataclass
class Task:
    """A row of the pool: its line, and its difficulty (0 to 100) where it has one."""

    line: bytes
    difficulty: float | None = None


@dataclass
class Pool:
    """The tasks of each arm, in the order of the file; which of them a draw takes."""

    name: str
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    _passes: dict[str, tuple[int, list[int]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str, *, by: str, difficulty: str | None = None, stop: StopFlag | None = None) -> Pool:
        """The pool in a file, its arms told by the field `by`; rows that an earlier command marked failed are left out.

        Raises ToolrollError for a row without an arm, and for a pool without a task.
        """
        pool = cls(path)
        read = _row_reader(by, difficulty)
        reader = Reader((path,), stop=stop or StopFlag(), before_wait=lambda: None)
        try:
            for name, number, line in reader.lines():
                if not (line := line.strip()):
                    continue
                try:
                    arm, task = read(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise ToolrollError(read_error(line, error), place=f"{name}:{number}") from error
                if arm is not None:
                    pool.tasks.setdefault(arm, []).append(task)
        finally:
            reader.close()
        if stop:
            raise Stopped(f"stopped by {stop.asked_by}")
        if not pool.tasks:
            raise ToolrollError("has no tasks", place=path)
        return pool

    def check(self, arms: Iterable[str], *, frozen: Collection[str] = ()) -> None:
        """See that every arm but the frozen ones has a task, and that no task is of another arm."""
        wanted = set(arms)
        for arm in sorted(set(self.tasks) - wanted):
            raise ToolrollError(f"has tasks of {arm!r}, which is no arm (take it in with --add-arm)", place=self.name)
        for arm in sorted(wanted.difference(self.tasks, frozen)):
            self.of(arm)

    def of(self, arm: str) -> list[Task]:
        """The tasks of an arm, at least one."""
        tasks = self.tasks.get(arm)
        if not tasks:
            raise ToolrollError(f"has no task of arm {arm!r} (--freeze keeps it from being drawn)", place=self.name)
        return tasks

    def independent(self, seed: int, arm: str, counter: int) -> Task:
        """The task of draw `counter`, whatever was drawn before."""
        tasks = self.of(arm)
        return tasks[item(seed, arm, counter, len(tasks))]

    def next_of_pass(self, seed: int, arm: str, drawn: int) -> Task:
        """The task when `drawn` of the arm were taken before: each once, in an order that is shuffled for each pass."""
        tasks = self.of(arm)
        number, place = divmod(drawn, len(tasks))
        if self._passes.get(arm, (-1, []))[0] != number:
            self._passes[arm] = (number, shuffled(seed, arm, number, len(tasks)))
        return tasks[self._passes[arm][1][place]]

    def difficulties(self) -> dict[str, float]:
        """The mean difficulty of each arm's tasks. Raises ToolrollError where one has none."""
        return {arm: sum(_difficulty(task, arm) for task in tasks) / len(tasks) for arm, tasks in self.tasks.items()}

    def graded(self, arms: Iterable[str]) -> Iterator[tuple[str, Task, float]]:
        """Every task of these arms with its difficulty."""
        for arm in arms:
            for task in self.of(arm):
                yield arm, task, _difficulty(task, arm)


def _difficulty(task: Task, arm: str) -> float:
    if task.difficulty is None:
        raise ToolrollError("a task has no difficulty (see --difficulty)", place=arm)
    return task.difficulty


def _row_reader(by: str, difficulty: str | None) -> Callable[[bytes], tuple[str | None, Task]]:
    """A function from a line to its arm, None for a failed row, and its task."""
    optional = (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    fields: list[Any] = [("error", *optional), ("arm", str | int | msgspec.UnsetType, msgspec.UNSET)]
    renamed = {"arm": by}
    if difficulty is not None:
        fields.append(("difficulty", float | None, None))
        renamed["difficulty"] = difficulty
    view = msgspec.defstruct("Task", fields, rename=renamed, gc=False)
    decode = msgspec.json.Decoder(view).decode

    def read(line: bytes) -> tuple[str | None, Task]:
        line.decode()
        row: Any = decode(line)
        if row.error is not msgspec.UNSET and bytes(row.error) != b"null":
            return None, Task(line)
        if row.arm is msgspec.UNSET or row.arm == "":
            raise msgspec.ValidationError(f"missing `{by}`, which names the arm (see --by)")
        return str(row.arm), Task(line, row.difficulty if difficulty is not None else None)

    return read
