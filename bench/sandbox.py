"""What shutting a program in costs: calls a second in each sandbox against the same calls in this process.

    python bench/sandbox.py [--rounds 7] [--inputs 15101] [--json FILE]

The inputs are lists as in GEAR's list-function space: the empty one, one number each, up to 1,000 lists of each length
from 2 to 16. The loop in this process reads each input, calls the function and writes its result with Python's json,
without any limit. Rounds take turns, and the best of each kind counts; starting the sandbox is in none of them,
starting a program's process is in all.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any

import common

from toolroll.abduction.execution import Executor, Limits
from toolroll.abduction.sandbox import open_sandbox
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.errors import ToolrollError

LOOP = "no sandbox: exec in this process"
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


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for the loop and one for each kind of sandbox that is here."""
    inputs = Inputs(space(arguments.inputs))
    started: dict[str, float] = {LOOP: 0.0}
    ways: dict[str, Callable[[str, Inputs], object]] = {LOOP: bare}
    opened: list[Executor] = []
    for kind in KINDS:
        start = time.perf_counter()
        try:
            executor = open_sandbox(kind, Limits(), notify=lambda _: None)
        except ToolrollError:
            continue
        opened.append(executor)
        started[kind], ways[kind] = time.perf_counter() - start, executor.run
    best = {(way, code): float("inf") for way in ways for code in PROGRAMS}
    try:
        for _ in range(arguments.rounds):
            for code in PROGRAMS:
                for way, run in ways.items():
                    start = time.perf_counter()
                    run(code, inputs)
                    best[way, code] = min(best[way, code], time.perf_counter() - start)
    finally:
        for executor in opened:
            executor.close()
    rates = {way: len(PROGRAMS) * len(inputs) / sum(best[way, code] for code in PROGRAMS) for way in ways}
    return [
        {"what": way, "calls/s": rates[way], "of no sandbox": rates[way] / rates[LOOP], "start ms": started[way] * 1e3}
        for way in ways
    ]


if __name__ == "__main__":
    common.run(
        "What shutting a program in costs.",
        measure,
        ("--rounds", {"type": int, "default": 7}),
        ("--inputs", {"type": int, "default": 15_101}),
    )
