"""What all benchmarks share: measuring a process, and showing the result.

CPU time (user and system) of the best of several runs is what is compared, because the wall clock of a busy machine
says little. Ratios within one run are worth more than the numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "out"
BIN = Path(sys.executable).parent

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
class Cost:
    """What a process used: CPU and wall-clock seconds, and its largest resident memory in MB."""

    cpu_s: float
    wall_s: float
    rss_mb: float


def cost(argv: Sequence[str | Path], *, runs: int = 3, enough_s: float = 20.0) -> Cost:
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


def entry_points() -> list[str]:
    """The commands that pyproject.toml installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project.get("scripts", {}))


def script(name: str) -> Path | None:
    """The installed command of this name, None when there is none."""
    path = BIN / name
    return path if path.exists() else None


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of records that all have the same fields; numbers to the right."""
    names = list(records[0])
    numeric = {name: all(not isinstance(record[name], str) for record in records) for name in names}
    cells = [[_cell(record[name]) for name in names] for record in records]
    rule = ["---:" if numeric[name] else "---" for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, rule, *cells])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def run(
    description: str,
    measure: Callable[[argparse.Namespace], list[dict[str, Any]]],
    *options: tuple[str, dict[str, Any]],
) -> None:
    """The main of a benchmark: its options and --json FILE, then its table on stdout."""
    parser = argparse.ArgumentParser(description=description)
    for name, settings in options:
        parser.add_argument(name, **settings)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    arguments = parser.parse_args()
    records = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    print(markdown(records))
