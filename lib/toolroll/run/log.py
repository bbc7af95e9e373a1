"""What a run says on stderr: messages, progress, one summary line.

Text by default, one JSON object a line with `--log json`. Progress is a bar on a terminal and a
line a minute elsewhere, because bars break in the logs of batch jobs.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

QUIET, NORMAL, INFO, DEBUG = -1, 0, 1, 2
REPORT_EVERY_S = 60.0


@dataclass
class Counts:
    """Rows of a run. `passed` are error rows of earlier commands, handed on untouched."""

    read: int = 0
    written: int = 0
    errors: int = 0
    passed: int = 0
    skipped: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts as they stand in manifests and JSON logs."""
        return dict(vars(self))


@dataclass
class Log:
    """The voice of one run of one command."""

    command: str
    level: int = NORMAL
    json: bool = False
    shard: str | None = None
    counts: Counts = field(default_factory=Counts)
    failed: bool = False  #: by `fail`

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._next_report = self._started + REPORT_EVERY_S
        self._bar: Any = None
        self._status = ""

    def error(self, why: str, place: str = "") -> None:
        """Why the run failed or a row was refused; said at every level."""
        self._say("error", why, place)

    def fail(self, why: str, place: str = "") -> None:
        """What the result says is not as it should be: the run is completed, and its exit code is 1."""
        self.failed = True
        self.error(why, place)

    def warn(self, why: str, place: str = "") -> None:
        """Something the user should know although the run goes on."""
        if self.level >= NORMAL:
            self._say("warning", why, place)

    def note(self, why: str, place: str = "") -> None:
        """A choice made on the user's behalf: a device, a model."""
        if self.level >= NORMAL:
            self._say("info", why, place)

    def info(self, why: str, place: str = "") -> None:
        """Said with -v."""
        if self.level >= INFO:
            self._say("info", why, place)

    def debug(self, text: str) -> None:
        """Said with -v -v; may have several lines."""
        if self.level < DEBUG:
            return
        if self.json:
            self._say("debug", text)
            return
        for line in text.splitlines():
            write_stderr(line)

    def start_bar(self, total: int | None) -> None:
        """Show a bar when stderr is a terminal; `total` in rows."""
        if self.level < NORMAL or self.json or not _is_terminal():
            return
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=self.command, unit="row", file=sys.stderr, leave=False, dynamic_ncols=True)

    def advance(self) -> None:
        """One more row is written."""
        if self._bar is not None:
            self._bar.update()
        else:
            self._report()

    def status(self, text: str) -> None:
        """How far the work is on rows that are not written yet: shown beside the bar, or in the line a minute."""
        self._status = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            self._report()

    def _report(self) -> None:
        """The line a minute, when it is due."""
        now = time.monotonic()
        if now < self._next_report or self.level < NORMAL:
            return
        self._next_report = now + REPORT_EVERY_S
        counts = self.counts
        parts = [
            f"{counts.written} done",
            f"{counts.written / (now - self._started):.3g} rows/s",
            f"{counts.errors} errors",
        ]
        self._say("progress", ", ".join(filter(None, [*parts, self._status])))

    def summary(self) -> None:
        """The one line at the end of a run."""
        self.close()
        if self.level < NORMAL:
            return
        counts = self.counts
        parts = [f"{counts.read} in", f"{counts.written} out"]
        parts += [
            f"{value} {name}"
            for name, value in (("errors", counts.errors), ("passed on", counts.passed), ("skipped", counts.skipped))
            if value
        ]
        self._say("summary", f"{', '.join(parts)}, {time.monotonic() - self._started:.1f} s")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, level: str, why: str, place: str = "") -> None:
        if self._bar is not None:
            self._bar.clear()
        if self.json:
            line = self._json_line(level, why, place)
        else:
            line = ": ".join(filter(None, [self.command, place, why if level != "warning" else f"warning: {why}"]))
        write_stderr(line)
        if self._bar is not None:
            self._bar.refresh()

    def _json_line(self, level: str, why: str, place: str) -> str:
        import orjson

        from toolroll.io.rows import clean

        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "level": "info" if level in ("summary", "progress") else level,
            "event": level,
            "command": self.command,
            "shard": self.shard,
            "place": clean(place) or None,
            "message": why.encode(errors="replace").decode(),
            "counts": self.counts.as_dict(),
        }
        return orjson.dumps(record).decode()


def write_stderr(line: str) -> None:
    """Write one line to stderr; a closed or full stderr never ends a run."""
    line = line.replace("\r", "\\r").replace("\n", "\\n") + "\n"
    try:
        data = line.encode(errors="surrogateescape")  # names of files are said byte for byte
    except UnicodeEncodeError:
        data = line.encode(errors="backslashreplace")
    try:
        os.write(2, data)
    except OSError:
        pass


def _is_terminal() -> bool:
    try:
        return os.isatty(2)
    except OSError:
        return False
