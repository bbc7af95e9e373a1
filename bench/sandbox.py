"""What shutting a program in costs: calls a second in each sandbox against the same calls in this process.

    python bench/sandbox.py [--rounds 7] [--inputs 15101] [--sets 40] [--json FILE]

The inputs are lists as in GEAR's list-function space: the empty one, one number each, up to 1,000 lists of each length
from 2 to 16. The loop in this process reads each input, calls the function and writes its result with Python's json,
without any limit. Starting the sandbox is in no round, starting a program's process is in all. Calls a second are by
the wall clock, since they are made in another process.

gear-score scores sets of four hypotheses on these inputs with two workers and with one, start-up and all.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import common
from common import Line

from toolroll.abduction.execution import Executor, Limits
from toolroll.abduction.sandbox import open_sandbox
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.errors import ToolrollError

LOOP = "exec in this process"
KINDS = ("auto", "seccomp", "bwrap", "none", "monty")
PROGRAMS = [
    "def f(x):\n    return sorted(set(x))[::-1]\n",
    "def f(x):\n    return [y + 1 for y in x if y % 2 == 0]\n",
    "def f(x):\n    out = []\n    for i, y in enumerate(x):\n        if y > 9: out.append(y * i)\n    return out\n",
    "def f(x):\n    return x[x[0] % len(x):] + [sum(x)]\n",
]


def space(count: int) -> list[bytes]:
    """Lists of numbers below 100, short ones first."""
    draw = random.Random(2025)
    lists: list[list[int]] = [[], *([number] for number in range(100))]
    for length in range(2, 17):
        lists += [draw.sample(range(100), length) for _ in range(1000)]
    return [json.dumps(one, separators=(",", ":")).encode() for one in lists[:count]]


def bare(code: str, inputs: Inputs) -> None:
    """The same calls without a sandbox."""
    names: dict[str, Any] = {}
    exec(code, names)
    function = names["f"]
    write = json.JSONEncoder(separators=(",", ":")).encode
    outputs: list[str | None] = []
    for text in inputs:
        try:
            outputs.append(write(function(json.loads(text))))
        except Exception:
            outputs.append(None)


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Two lines for each kind of sandbox that is here, and one for two workers."""
    lists = space(arguments.inputs)
    return [*sandboxes(Inputs(lists), arguments.rounds), workers(lists, arguments.sets)]


def sandboxes(inputs: Inputs, rounds: int) -> list[Line]:
    """Calls a second in each kind of sandbox, and what it takes to start one."""
    started: dict[str, float] = {}
    ways: dict[str, Callable[[str, Inputs], object]] = {LOOP: bare}
    opened: list[Executor] = []
    try:
        for kind in KINDS:
            start = time.perf_counter()
            with suppress(ToolrollError):
                executor = open_sandbox(kind, Limits(), notify=lambda _: None)
                opened.append(executor)
                started[kind], ways[kind] = time.perf_counter() - start, executor.run
        best = common.least(
            {
                (way, code): common.timed(partial(run, code, inputs), time.perf_counter)
                for code in PROGRAMS
                for way, run in ways.items()
            },
            rounds,
            warm_up=False,
        )
    finally:
        for executor in opened:
            executor.close()
    rate = {way: len(PROGRAMS) * len(inputs) / sum(best[way, code] for code in PROGRAMS) for way in ways}
    return [
        *(Line(f"sandbox {kind}", "calls/s", rate[kind], LOOP, rate[LOOP]) for kind in started),
        *(Line(f"sandbox {kind}, start", "wall ms", 1e3 * seconds) for kind, seconds in started.items()),
    ]


def workers(lists: list[bytes], sets: int) -> Line:
    """gear-score with two workers beside one."""
    with tempfile.TemporaryDirectory() as name:
        inputs, rows = Path(name) / "space.jsonl", Path(name) / "rows.jsonl"
        inputs.write_bytes(b"\n".join(lists))
        hypotheses = [{"text": "", "code": code} for code in PROGRAMS]
        observations = [[[3, 1, 2], [3, 2, 1]], [[5, 8], [8, 5]]]
        scored = ({"id": str(i), "observations": observations, "hypotheses": hypotheses} for i in range(sets))
        rows.write_text("".join(json.dumps(row) + "\n" for row in scored))
        argv = [common.BIN / "gear-score", "--space", inputs, "-q", rows, "--workers"]
        rate = {count: sets / common.cost([*argv, count], runs=2, enough_s=60).wall_s for count in (1, 2)}
    return Line("gear-score --workers 2", "sets/s", rate[2], "--workers 1", rate[1])


if __name__ == "__main__":
    common.run(__doc__, measure, rounds=7, inputs=15_101, sets=40)
