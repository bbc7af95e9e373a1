"""How much CPU a command takes to answer --help, --version and a completion, against a Python that does nothing.

python bench/startup.py [--runs 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import common

LIMIT = 8.0  #: times a bare Python, for --help, --version and completion


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for a bare Python and one for each command and question."""
    bare = common.cost([sys.executable, "-c", "pass"], runs=4 * arguments.runs)
    records = [_record("python -c pass", bare, bare)]
    for name in common.entry_points():
        path = common.script(name)
        if path is None:
            continue
        records += [
            _record(f"{name} {option}", common.cost([path, option], runs=arguments.runs), bare)
            for option in ("--help", "--version")
        ]
        variable = f"_{name}_COMPLETE".replace("-", "_").upper()
        words = {variable: "bash_complete", "COMP_WORDS": f"{name} --", "COMP_CWORD": "1"}
        asked = ["env", *(f"{key}={value}" for key, value in words.items()), path]
        records.append(_record(f"{name} --<TAB>", common.cost(asked, runs=arguments.runs), bare))
    return records


def _record(what: str, used: common.Cost, bare: common.Cost) -> dict[str, Any]:
    ratio = used.cpu_s / bare.cpu_s
    return {
        "what": what,
        "CPU ms": used.cpu_s * 1000,
        "RSS MB": used.rss_mb,
        "times bare Python": round(ratio, 1),
        f"at most {LIMIT:g}": "yes" if ratio <= LIMIT else "NO",
    }


if __name__ == "__main__":
    common.run("Start-up cost of every command.", measure, ("--runs", {"type": int, "default": 15}))
