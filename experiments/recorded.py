"""What experiments share: files of rows that several processes write and a kill does not spoil, and plans to change."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Mapping, Sequence
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
