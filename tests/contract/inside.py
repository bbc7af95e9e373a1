"""Runs commands inside the test's process: for many runs that end by themselves, which then cost no start each."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frame


@dataclass(frozen=True)
class Ended:
    """How a run inside ended: its exit code, its rows, and the lines it said but for summaries and choices."""

    rc: int
    out: bytes
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr that complain."""
        return frame.Result(self.rc, self.out, self.err).complaints


class Inside:
    """Runs commands in a folder, with nothing on stdin."""

    def __init__(self, folder: Path, capture: Any) -> None:
        self.folder = folder
        self._capture = capture

    def arguments(self, command: frame.Command, new: Path | None = None) -> list[str]:
        """The arguments of the specimen, its files written into the folder; what it makes itself is at `new`."""
        made = new or self.folder / "made"
        for name, data in command.specimen.files:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(data)
        return [arg.replace("{dir}", str(self.folder)).replace("{new}", str(made)) for arg in command.specimen.args]

    def inputs(self, command: frame.Command, rows: bytes | None = None, new: Path | None = None) -> list[str]:
        """Names of its input files, with `rows` or two of its own in them, and of what it makes of them."""
        if command.specimen.row is None:
            return []
        path = self.folder / "in.jsonl"
        path.write_bytes(command.lines(2) if rows is None else rows)
        return [str(path), *([str(new or self.folder / "made")] if command.specimen.names_output else [])]

    def run(self, command: frame.Command, *args: Any) -> Ended:
        """Run to the end; a command that asks on stdin finds its end."""
        self._capture.readouterr()
        held, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # pytest makes errors of them
                rc = command.tool.run([os.fspath(arg) if isinstance(arg, Path) else str(arg) for arg in args])
        finally:
            os.dup2(held, 0)
            os.close(held)
            os.close(empty)
        out, err = self._capture.readouterr()
        return Ended(rc, out, err.decode(errors="surrogateescape"))
