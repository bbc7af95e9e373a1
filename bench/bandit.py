"""What feedback costs, and how fast a resident sampler answers: ucb-update and ucb-sample --follow.

python bench/bandit.py [--rows 200000] [--requests 2000] [--arms 1000] [--json FILE]

Feedback rows have 16 rewards and 16 advantages, made here. ucb-update is compared with a bare loop that decodes them,
with rows of one big batch and with rows of steps of 64 rows, whose every advantage is journaled. A request is a row
with feedback and `draws`: 1, sent when the answer to the one before is there; its peer is a process that only echoes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

ROWS_A_STEP = 64
DECODE = "import sys, orjson\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"
ECHO = "import sys, orjson\nfor line in sys.stdin.buffer: print(orjson.loads(line)['draws'], flush=True)"
DECODE_CASE = "orjson decode loop"


def feedback(count: int, *, with_steps: bool) -> Iterator[bytes]:
    """Lines of feedback of 12 arms, with GRPO advantages of made-up rewards."""
    draw = random.Random(1)
    for i in range(count):
        rewards = [draw.choice((-3.0, -0.5, 3.0)) for _ in range(16)]
        mean, spread = statistics.fmean(rewards), statistics.stdev(rewards) + 1e-6
        row: dict[str, Any] = {"id": f"f{i}"}
        if with_steps:
            row["step"] = i // ROWS_A_STEP + 1
        row |= {"distribution": f"people_{draw.randrange(3, 15)}", "prompt_id": f"puzzle/{i}", "rewards": rewards}
        row["advantages"] = [round((reward - mean) / spread, 6) for reward in rewards]
        yield json.dumps(row, separators=(",", ":")).encode() + b"\n"


def made(folder: Path, names: list[str]) -> Path:
    """A new state with these arms."""
    state = Path(tempfile.mkdtemp(dir=folder)) / "state"
    arms = [part for name in names for part in ("--arm", name)]
    subprocess.run([common.BIN / "ucb-sample", "-q", "--state", state, "--init", *arms], check=True)
    return state


def updates(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """The cost of a row of feedback."""
    names = [f"people_{i}" for i in range(3, 15)]
    for what, with_steps in (("one batch", False), (f"steps of {ROWS_A_STEP} rows", True)):
        path = folder / "feedback.jsonl"
        with open(path, "wb") as file:
            file.writelines(feedback(count, with_steps=with_steps))
        loop = min(common.cost([sys.executable, "-c", DECODE, path], runs=1).cpu_s for _ in range(5))
        ours = [
            common.cost([common.BIN / "ucb-update", "-q", "--state", made(folder, names), path], runs=1)
            for _ in range(5)
        ]
        for name, cpu_s in ((DECODE_CASE, loop), ("ucb-update", min(one.cpu_s for one in ours))):
            yield {
                "what": f"{name}, {what}",
                "rows/s": count / cpu_s,
                "µs a row or request": cpu_s / count * 1e6,
                "99 % below": None,
                "times the peer": cpu_s / loop,
            }


def answers(folder: Path, requests: int, arms: int) -> Iterator[dict[str, Any]]:
    """How long a request takes to be answered."""
    names = [f"arm_{i}" for i in range(arms)]
    state = made(folder, names)
    follow = [common.BIN / "ucb-sample", "-q", "--state", state, "-n", "0", "--follow"]
    draw = random.Random(2)
    lines = [
        b'{"id":"r%d","distribution":"%s","advantages":%s,"draws":1}\n'
        % (i, draw.choice(names).encode(), json.dumps([round(draw.gauss(0, 1), 6) for _ in range(16)]).encode())
        for i in range(requests)
    ]
    echo = _latencies([sys.executable, "-c", ECHO], lines)
    for name, waits in (("echo", echo), (f"ucb-sample --follow, {arms} arms", _latencies(follow, lines))):
        yield {
            "what": f"{name}, a request",
            "rows/s": 1 / statistics.median(waits),
            "µs a row or request": statistics.median(waits) * 1e6,
            "99 % below": sorted(waits)[int(len(waits) * 0.99)] * 1e6,
            "times the peer": statistics.median(waits) / statistics.median(echo),
        }


def _latencies(argv: list[Any], lines: list[bytes]) -> list[float]:
    waits = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in lines:
            start = time.perf_counter()
            process.stdin.write(line)
            if not process.stdout.readline():
                raise SystemExit(f"no answer from {argv[0]}")
            waits.append(time.perf_counter() - start)
        process.stdin.close()
    return waits[1:]  # the first waits for the process to start


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All records."""
    common.OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=common.OUT) as folder:
        found = list(updates(Path(folder), arguments.rows))
        return found + list(answers(Path(folder), arguments.requests, arguments.arms))


if __name__ == "__main__":
    common.run(
        "What feedback costs, and how fast a resident sampler answers.",
        measure,
        ("--rows", {"type": int, "default": 200_000}),
        ("--requests", {"type": int, "default": 2_000}),
        ("--arms", {"type": int, "default": 1_000}),
    )
