"""What a row costs: row-wise commands beside a bare decode-and-encode loop, `jq -c .` and Python's json.

    python bench/rows.py [--size-mb 200] [--runs 3] [--json FILE]

The rows are rollouts of the usual form with real passages in them (the shipped HotpotQA corpus, of which a quarter has
letters beyond ASCII), the same on every machine, and what step-parse makes of them. Memory is compared with that for a
twentieth of the rows, the wall clock of a pipe with that of its slowest command alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import common
from common import Cost, Line

CORPUS = common.HOTPOTQA / "corpus.jsonl.gz"
MALFORMED = 0.037  #: share of trajectories that are not well formed, as HiPRAG reports of its models (appendix F)
DISTINCT = 3000  #: rows that differ; after them only ids do
FEWER = 20  #: times as few rows, for the memory

_LOOP = """
import sys, {module} as codec
with open(sys.argv[1], "rb") as rows:
    for line in rows:
        sys.stdout.buffer.write({encode} + b"\\n")
"""
ORJSON_LOOP = (sys.executable, "-c", _LOOP.format(module="orjson", encode="codec.dumps(codec.loads(line))"))
JSON_LOOP = (sys.executable, "-c", _LOOP.format(module="json", encode="codec.dumps(codec.loads(line)).encode()"))
PEERS = {"`jq -c .`": ("jq", "-c", "."), "json loop": JSON_LOOP}
COMMANDS = {
    "rollouts": ("step-parse",),
    "parsed": ("step-reward --judge given", "step-reward --judge lexical,evidence", "step-stats"),
}
PIPE = ("step-parse", "step-reward --judge given", "step-stats")


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Lines for the commands that read each input, then one for the pipe."""
    common.OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=common.OUT) as name:
        many, few = Path(name) / "many", Path(name) / "few"
        made(many, arguments.size_mb * 1_000_000)
        made(few, arguments.size_mb * 1_000_000 // FEWER)
        used = {
            command: common.cost([*_argv(command), many / source], runs=arguments.runs)
            for source, commands in COMMANDS.items()
            for command in commands
        }
        lines = [line for source in COMMANDS for line in _beside(used, many / source, few / source, arguments.runs)]
        return [*lines, _piped(used, many / "rollouts", arguments.runs)]


def made(folder: Path, size: int) -> None:
    """Write `size` bytes of rollouts, and what step-parse makes of them."""
    folder.mkdir()
    (folder / "rollouts").write_bytes(b"".join(rollouts(size)))
    subprocess.run([*_argv("step-parse"), "-q", "--no-meta", "-o", folder / "parsed", folder / "rollouts"], check=True)


def _argv(command: str) -> list[str]:
    name, *arguments = command.split()
    return [str(common.BIN / name), *arguments]


def _beside(used: dict[str, Cost], many: Path, few: Path, runs: int) -> Iterator[Line]:
    """What the commands that read an input used, beside the loop, other programs, and themselves with few rows."""
    count, megabytes = _count(many), many.stat().st_size / 1e6
    loop = common.cost([*ORJSON_LOOP, many], runs=runs)
    others = {
        peer: megabytes / common.cost([*argv, many], runs=runs).cpu_s if shutil.which(argv[0]) else None
        for peer, argv in PEERS.items()
    }
    for command in COMMANDS[many.name]:
        ours = used[command]
        yield Line(command, "CPU µs/row", 1e6 * ours.cpu_s / count, "orjson loop", 1e6 * loop.cpu_s / count)
        for peer, rate in others.items():
            yield Line(command, "MB/CPU s", megabytes / ours.cpu_s, peer, rate)
        if command == "step-stats":
            peer = "step-reward --judge given"
            yield Line(command, "MB/CPU s", megabytes / ours.cpu_s, peer, megabytes / used[peer].cpu_s)
        less = common.cost([*_argv(command), few], runs=1)
        yield Line(f"{command}, memory", "MB", ours.rss_mb, f"for a {FEWER}th of the rows", less.rss_mb)


def _piped(used: dict[str, Cost], rollouts: Path, runs: int) -> Line:
    first, *others = (shlex.join(_argv(command)) for command in PIPE)
    pipe = common.cost(["sh", "-c", " | ".join([f"{first} {shlex.quote(str(rollouts))}", *others])], runs=runs)
    slowest = max(PIPE, key=lambda command: used[command].wall_s)
    return Line(" | ".join(PIPE), "wall s", pipe.wall_s, f"{slowest} alone", used[slowest].wall_s)


def rollouts(size: int) -> Iterator[bytes]:
    """Lines of rollouts, `size` bytes of them."""
    made: list[bytes] = []
    index = 0
    while size > 0:
        if index < DISTINCT:
            made.append(json.dumps(_rollout(random.Random(index)), ensure_ascii=False, separators=(",", ":")).encode())
        line = b'{"id":"q%d","sample":%d,%s\n' % (index // 4, index % 4, made[index % DISTINCT][1:])
        size -= len(line)
        index += 1
        yield line


def _rollout(draw: random.Random) -> dict[str, Any]:
    steps, turns = [], []
    for _ in range(draw.randint(1, 3)):
        hits = [_hit(draw) for _ in range(2)]
        query = f"{hits[0]['title']} {draw.randrange(1900, 2020)}"
        context = "".join(f"Doc {i}(Title: {hit['title']}) {hit['text']}\n" for i, hit in enumerate(hits, start=1))
        steps.append(f"<search>{query}</search>\n    <context>{context}</context>\n    ")
        turns.append({"query": query, "hits": hits, "n_gen_tokens": draw.randint(20, 90), "ms": draw.random() * 9})
    steps.insert(draw.randrange(len(steps) + 1), "")
    body = "\n".join(
        f"<step>\n    <reasoning>{_words(draw, 20)}</reasoning>\n    {part}"
        f"<conclusion>{_words(draw, 12)}</conclusion>\n</step>"
        for part in steps
    )
    answer = _words(draw, 2)
    closed = "" if draw.random() < MALFORMED else "\n</think>"
    count = draw.randint(40, 120)
    return {
        "data_source": draw.choice(["nq", "hotpotqa", "musique"]),
        "question": _words(draw, 14) + "?",
        "golden_answers": [answer if draw.random() < 0.5 else _words(draw, 2)],
        "prompt_id": None,
        "response": f"<think>\n{body}{closed}\n<answer>{answer}</answer>",
        "turns": turns,
        "n_search": len(turns),
        "finish": "answer",
        "response_ids": [draw.randrange(50_000) for _ in range(count)],
        "logprobs": [round(-draw.expovariate(2.0), 6) for _ in range(count)],
        "seed": draw.getrandbits(62),
    }


@cache
def _corpus() -> list[dict[str, str]]:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _hit(draw: random.Random) -> dict[str, Any]:
    passage = draw.choice(_corpus())
    return {**passage, "text": passage["text"][:300], "score": draw.random() * 20}


def _words(draw: random.Random, count: int) -> str:
    """The first words of some passage."""
    return " ".join(draw.choice(_corpus())["text"].split()[:count]).replace("<", "")


def _count(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


if __name__ == "__main__":
    common.run(__doc__, measure, size_mb=200, runs=3)
