"""What experiments share: files of rows that several processes write and a kill does not spoil, and plans to change."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

P = TypeVar("P")


def whole_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that was cut when its run was killed is taken off."""
    text = out.read_bytes() if out.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        sys.stderr.write(f"{out}: the last line was cut and is made again\n")
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def append(row: Mapping[str, Any], out: Path) -> None:
    """Add a row, whole, whoever else does."""
    with out.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file.fileno(), json.dumps(row).encode() + b"\n")


def as_read(plan: Any) -> Any:
    """A plan (a dataclass) as it is read back from a row."""
    return json.loads(json.dumps(asdict(plan)))


def changed(plan: P, settings: Sequence[str]) -> P:
    """The plan (a dataclass) with some NAME=VALUE set otherwise; a value that is not JSON is text.

    SystemExit, with what is wrong, for what the plan does not have.
    """
    values: dict[str, Any] = {}
    for name, _, value in (pair.partition("=") for pair in settings):
        if name not in as_read(plan):
            raise SystemExit(f"--set {name}: the plan has {', '.join(as_read(plan))}")
        try:
            read = json.loads(value)
        except json.JSONDecodeError:
            read = value
        values[name] = tuple(read) if isinstance(read, list) else read
    return replace(plan, **values)  # type: ignore[type-var]


def parser_of(told: str, arms: Sequence[str], *, option: str, first_seed: int, out: Path) -> argparse.ArgumentParser:
    """The options of an experiment whose runs are arms by seeds; `told` is what its module says of itself."""
    parser = argparse.ArgumentParser(description=told.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy of a few seconds that shows only that it runs")
    parser.add_argument(option, dest="arms", nargs="+", choices=list(arms), default=list(arms))
    parser.add_argument("--seeds", type=int, default=8, help="how many")
    parser.add_argument("--first-seed", type=int, default=first_seed)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan")
    return parser


def missing(
    options: argparse.Namespace, is_of: Callable[[Mapping[str, Any]], bool], *, field: str = "arm"
) -> Iterator[tuple[int, list[str]]]:
    """For each seed that is asked for, the arms without a row that `is_of` this experiment's plan yet."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    there = {(row[field], row["seed"]) for row in whole_rows(options.out) if is_of(row)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if left := [arm for arm in options.arms if (arm, seed) not in there]:
            yield seed, left
