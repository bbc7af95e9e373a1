"""Tasks as raw data sets have them: pairs to learn from and to test with, in one of several forms of file.

    JSON lines    {"idx" or "id": ..., "train": [{"input", "output"}, ...], "test": [...]}, or pairs as arrays
    ARC           one JSON object: {"train": ..., "test": ...} of one task, or {id: task, ...}

A test pair may have no output. List functions are stored as strings; those that are asked for as literals are read.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from toolroll.abduction.problems import Pair, compact
from toolroll.errors import RowError, ToolrollError
from toolroll.io.decoding import read_error
from toolroll.io.inputs import Reader
from toolroll.run.signals import StopFlag

__all__ = ["Task", "draw_observations", "inputs_of", "read_tasks"]


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `pairs` are those with an output, train before test; `inputs` are all inputs; `test` the test pairs."""

    id: str
    pairs: tuple[Pair, ...]
    inputs: tuple[bytes, ...]
    test: tuple[Pair, ...] = ()


class _Pair(msgspec.Struct, gc=False):
    input: msgspec.Raw
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_Pairs = list[tuple[msgspec.Raw, msgspec.Raw] | _Pair]


class _Task(msgspec.Struct, gc=False):
    train: _Pairs
    test: _Pairs = []
    id: str | int | None = None
    idx: str | int | None = None


_decode = msgspec.json.Decoder(_Task).decode
_decode_many = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_tasks(
    paths: Sequence[str], *, literals: bool = False, prefix: str = "", stop: StopFlag | None = None
) -> Iterator[Task]:
    """The tasks in files, in order.

    literals: strings are Python literals and stand for their values. prefix: of ids that rows have as `idx`.
    Raises ToolrollError for what is no task, naming the place.
    """
    stop = stop or StopFlag()
    for path in paths:
        for place, name, raw in _records(path, stop):
            try:
                yield _task(raw, name, literals, prefix)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ToolrollError(read_error(bytes(raw), error).partition(";")[0], place=place) from error
            except RowError as error:
                raise ToolrollError(error.why, place=place) from error


def _records(path: str, stop: StopFlag) -> Iterator[tuple[str, str, Any]]:
    """(place, id or "", JSON of the task) of each task in a file."""
    reader = Reader((path,), stop=stop, before_wait=lambda: None)
    try:
        lines = [(number, line.strip()) for _, number, line in reader.lines() if line.strip()]
    finally:
        reader.close()
    if stop:  # there may be half of them
        return
    if not lines:
        raise ToolrollError("no tasks", place=path)
    if len(lines) > 1 and lines[0][1] not in (b"{", b"["):
        yield from ((f"{path}:{number}", "", line) for number, line in lines)
        return
    whole = b"\n".join(line for _, line in lines)
    try:
        fields = _decode_many(whole)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ToolrollError(read_error(whole, error).partition(";")[0], place=path) from error
    if "train" in fields:
        yield path, "" if {"id", "idx"} & fields.keys() else Path(path).name.partition(".")[0], whole
    else:
        yield from ((f"{path}: {name}", name, raw) for name, raw in fields.items())


def _task(raw: Any, name: str, literals: bool, prefix: str) -> Task:
    row = _decode(raw)
    if row.id is not None:
        name = str(row.id)
    elif row.idx is not None:
        name = f"{prefix}{row.idx}"
    elif not name:
        raise RowError("no `id` and no `idx`")
    train, test = ([_pair(pair, literals) for pair in pairs] for pairs in (row.train, row.test))
    known = [(given, out) for given, out in (*train, *test) if out is not None]
    held = tuple((given, out) for given, out in test if out is not None)
    return Task(name, tuple(known), tuple(given for given, _ in (*train, *test)), held)


def _pair(pair: Any, literals: bool) -> tuple[bytes, bytes | None]:
    given, out = pair if isinstance(pair, tuple) else (pair.input, pair.output)
    return _value(given, literals), None if out is msgspec.UNSET else _value(out, literals)


def _value(raw: Any, literals: bool) -> bytes:
    value = msgspec.json.decode(raw)
    if literals and isinstance(value, str):
        try:
            return msgspec.json.encode(ast.literal_eval(value))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise RowError(f"{value[:40]!r} is no Python literal") from error
    return compact(raw)


def inputs_of(tasks: Iterable[Task]) -> list[bytes]:
    """Every input of these tasks once, as compact JSON texts, in the order in which they first come."""
    return list(dict.fromkeys(given for task in tasks for given in task.inputs))


def draw_observations(
    tasks: Sequence[Task], n: int, *, count: int, seed: int, one_of: Sequence[bytes] = ()
) -> list[tuple[Task, list[Pair]]]:
    """Draw `n` pairs of each task, and then `count` of the tasks, as the released code does it.

    Two streams of random numbers are begun with the same seed: one draws the pairs, task after task; the other draws
    the tasks. Tasks with fewer than `n` pairs are left out, and tasks whose id came before. one_of: outputs of which
    one pair each is drawn first, pairs with other outputs left out; then `n` are drawn in all. Where there are fewer
    tasks than `count`, all are taken.
    """
    pairs_rng, tasks_rng = random.Random(seed), random.Random(seed)
    drawn: dict[str, tuple[Task, list[Pair]]] = {}
    for task in tasks:
        if len(task.pairs) >= n:
            pairs = _with_each(task, n, one_of, pairs_rng) if one_of else pairs_rng.sample(task.pairs, n)
            drawn.setdefault(task.id, (task, pairs))
    names = tasks_rng.sample(list(drawn), min(count, len(drawn)))
    return [drawn[name] for name in names]


def _with_each(task: Task, n: int, outputs: Sequence[bytes], rng: random.Random) -> list[Pair]:
    groups = [[pair for pair in task.pairs if pair[1] == output] for output in outputs]
    chosen: list[Pair] = []
    for output, group in zip(outputs, groups, strict=True):
        if not group:
            raise ToolrollError(f"no pair with the output {output.decode()}", place=task.id)
        (pair,) = rng.sample(group, 1)
        group.remove(pair)
        chosen.append(pair)
    rest = [pair for group in groups for pair in group]
    if len(rest) < n - len(chosen):
        raise ToolrollError(f"fewer than {n} pairs with these outputs", place=task.id)
    return chosen + rng.sample(rest, n - len(chosen))
