"""What feedback costs, and how fast a resident sampler answers: ucb-update and ucb-sample --follow.

    python bench/bandit.py [--rows 600000] [--requests 2000] [--arms 1000] [--runs 3] [--json FILE]

Feedback rows have 16 rewards and 16 advantages, made here: 200 MB of them. ucb-update is compared with a bare loop that
decodes them, with rows of one big batch and with rows of steps of 64 rows, whose every advantage is journaled. A
request is a row with feedback and `draws`: 1, sent when the answer to the one before is there; its peer is a process
that only echoes. Its time is that of the wall clock.
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
from common import Line

ROWS_A_STEP = 64
DISTINCT = 5000  #: rows that differ
DECODE = "import sys, orjson\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"
ECHO = "import sys, orjson\nfor line in sys.stdin.buffer: print(orjson.loads(line)['draws'], flush=True)"


def feedback(count: int, *, with_steps: bool) -> Iterator[bytes]:
    """Lines of feedback of 12 arms, with GRPO advantages of made-up rewards; from some on only id and step differ."""
    draw = random.Random(1)
    tails = [_tail(draw, i) for i in range(min(count, DISTINCT))]
    for i in range(count):
        step = b'"step":%d,' % (i // ROWS_A_STEP + 1) if with_steps else b""
        yield b'{"id":"f%d",%s%s' % (i, step, tails[i % DISTINCT])


def _tail(draw: random.Random, number: int) -> bytes:
    """What stands behind the id and the step in a line."""
    rewards = [draw.choice((-3.0, -0.5, 3.0)) for _ in range(16)]
    mean, spread = statistics.fmean(rewards), statistics.stdev(rewards) + 1e-6
    row: dict[str, Any] = {"distribution": f"people_{draw.randrange(3, 15)}", "prompt_id": f"puzzle/{number}"}
    row |= {"rewards": rewards, "advantages": [round((reward - mean) / spread, 6) for reward in rewards]}
    return json.dumps(row, separators=(",", ":")).encode()[1:] + b"\n"


def made(folder: Path, names: list[str]) -> Path:
    """A new state with these arms."""
    state = Path(tempfile.mkdtemp(dir=folder)) / "state"
    arms = [part for name in names for part in ("--arm", name)]
    subprocess.run([common.BIN / "ucb-sample", "-q", "--state", state, "--init", *arms], check=True)
    return state


def updates(folder: Path, count: int, runs: int) -> Iterator[Line]:
    """The cost of a row of feedback."""
    names = [f"people_{i}" for i in range(3, 15)]
    for what, with_steps in (("one batch", False), (f"steps of {ROWS_A_STEP} rows", True)):
        path = folder / "feedback.jsonl"
        with open(path, "wb") as file:
            file.writelines(feedback(count, with_steps=with_steps))
        loop_s = common.cost([sys.executable, "-c", DECODE, path], runs=runs).cpu_s
        ours_s = min(
            common.cost([common.BIN / "ucb-update", "-q", "--state", made(folder, names), path], runs=1).cpu_s
            for _ in range(runs)
        )
        yield Line(
            f"ucb-update, {what}", "CPU µs/row", 1e6 * ours_s / count, "orjson decode loop", 1e6 * loop_s / count
        )


def answers(folder: Path, requests: int, arms: int) -> Iterator[Line]:
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
    echo, ours = _latencies([sys.executable, "-c", ECHO], lines), _latencies(follow, lines)
    what = f"ucb-sample --follow, {arms} arms"
    for name, of in (("a request", statistics.median), ("99 % of requests below", _most)):
        yield Line(f"{what}, {name}", "µs", 1e6 * of(ours), "echo", 1e6 * of(echo))


def _most(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)]


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


def measure(arguments: argparse.Namespace) -> list[Line]:
    """All lines."""
    common.OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=common.OUT) as folder:
        found = list(updates(Path(folder), arguments.rows, arguments.runs))
        return found + list(answers(Path(folder), arguments.requests, arguments.arms))


if __name__ == "__main__":
    common.run(__doc__, measure, rows=600_000, requests=2_000, arms=1_000, runs=3)
