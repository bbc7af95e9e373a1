"""How much CPU a command takes to answer --help, --version and a completion, against a Python that does nothing.

    python bench/startup.py [--runs 5] [--commands 0] [--json FILE]

Of each command the one of the three that takes longest. `--commands N` asks only the first N.
"""

from __future__ import annotations

import argparse
import sys

import common
from common import Line


def measure(arguments: argparse.Namespace) -> list[Line]:
    """A line for each command."""
    bare = common.cost([sys.executable, "-c", "pass"], runs=4 * arguments.runs)
    lines = []
    for name in common.entry_points()[: arguments.commands or None]:
        path = common.BIN / name
        variable = f"_{name}_COMPLETE".replace("-", "_").upper()
        words = {variable: "bash_complete", "COMP_WORDS": f"{name} --", "COMP_CWORD": "1"}
        asked = {
            "--help": [path, "--help"],
            "--version": [path, "--version"],
            "--<TAB>": ["env", *(f"{key}={value}" for key, value in words.items()), path],
        }
        used = {question: common.cost(argv, runs=arguments.runs).cpu_s for question, argv in asked.items()}
        slowest = max(used, key=lambda question: used[question])
        what = f"`{name} {slowest}`"
        lines.append(Line(what, "CPU ms", 1e3 * used[slowest], "`python -c pass`", 1e3 * bare.cpu_s))
    return lines


if __name__ == "__main__":
    common.run(__doc__, measure, runs=5, commands=0)
