"""What all benchmarks share: measuring, the lines of their tables, and the main that shows them.

CPU time (user and system) of the best of several runs is what is compared, because the wall clock of a busy machine
says little; the wall clock is where threads or processes work side by side. Ratios within one run are worth more than
the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or commands would be compiled at each start
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "out"
BIN = Path(sys.executable).parent
HOTPOTQA = ROOT / "lib/toolroll/data/hotpotqa"

Name = TypeVar("Name", bound=Hashable)

# A small process in between is the parent of what is measured: a child starts with the memory of the one that forks it.
_PROBE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Line:
    """A line of a table: what was measured, the unit, our figure, and what it is compared with and its figure.

    Units of time, memory and size are better when less, rates when more. `theirs` is None where there is no peer, and
    where a peer that is named could not be run here.
    """

    what: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.theirs else None


@dataclass(frozen=True)
class Cost:
    """What a process used: CPU and wall-clock seconds, and its largest resident memory in MB."""

    cpu_s: float
    wall_s: float
    rss_mb: float


def cost(argv: Sequence[Any], *, runs: int = 3, enough_s: float = 10.0) -> Cost:
    """The least a process uses in `runs` runs, fewer once they took `enough_s` together; its output is thrown away."""
    found: list[Cost] = []
    while len(found) < runs and sum(one.wall_s for one in found) < enough_s:
        probe = [sys.executable, "-S", "-c", _PROBE, *map(str, argv)]
        done = subprocess.run(probe, capture_output=True, text=True, check=True)
        code, *used = json.loads(done.stdout)
        if code != 0:
            raise SystemExit(f"{' '.join(map(str, argv))} ended with {code}:\n{done.stderr}")
        found.append(Cost(*used))
    return Cost(min(one.cpu_s for one in found), min(one.wall_s for one in found), max(one.rss_mb for one in found))


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> Callable[[], float]:
    """Does some work and returns the seconds it took."""

    def took() -> float:
        started = clock()
        work()
        return clock() - started

    return took


def clock_of(threads: int) -> Callable[[], float]:
    """CPU time for one thread, the wall clock for several: they may wait for each other, and at work they are many."""
    return time.process_time if threads == 1 else time.perf_counter


def least(ways: Mapping[Name, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> dict[Name, float]:
    """The least seconds of each way in so many rounds, in which all have their turn, so that a busy machine slows all.

    A first round, which does not count, warms up.
    """
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + warm_up):
        for name, way in ways.items():
            seconds = way()
            if turn or not warm_up:
                best[name] = min(best[name], seconds)
    return best


def entry_points() -> list[str]:
    """The commands that pyproject.toml installs."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [
        (line.what, line.unit, number(line.ours), line.peer, number(line.theirs), number(line.ratio)) for line in lines
    ]
    return table(("what", "unit", "ours", "peer", "theirs", "ours / theirs"), "llrlrr", rows)


def table(names: Sequence[str], sides: str, rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `sides` has an r for each column that is set to the right."""
    rule = ["---:" if side == "r" else "---" for side in sides]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, rule, *cells])


def number(value: float | None) -> str:
    """Three digits, or all that stand before the point."""
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def run(page: str | None, measure: Callable[[argparse.Namespace], list[Line]], **options: Any) -> None:
    """The main of a benchmark: an option with its default for each of `options`, and --json FILE; prints its table.

    page: the docstring; its first line is the help. A list is given with commas.
    """
    parser = argparse.ArgumentParser(description=(page or "").split("\n")[0])
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=_kind(default), default=default)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    arguments = parser.parse_args()
    lines = measure(arguments)
    if arguments.json:
        write(arguments.json, lines)
    print(markdown(lines))


def write(path: Path, lines: Sequence[Line]) -> None:
    """Keep lines in a file."""
    path.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


def read(path: Path) -> list[Line]:
    """The lines in such a file."""
    return [Line(**line) for line in json.loads(path.read_text())]


def _kind(default: Any) -> Callable[[str], Any]:
    if not isinstance(default, list):
        return type(default)
    kind = type(default[0])
    return lambda text: [kind(part) for part in text.split(",")]
