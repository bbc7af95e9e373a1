"""What a row costs: row-wise commands against a bare decode-and-encode loop, `jq -c .` and Python's json.

python bench/rows.py [--size-mb 200] [--runs 3] [--json FILE]

The rows are rollouts of the usual form with real passages in them (the shipped HotpotQA corpus, of which a quarter has
letters beyond ASCII). The input is made once for each size, the same on every machine, and kept in bench/out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import common

LIMIT = 1.5  #: times the bare loop's CPU, for a command that works row by row
CORPUS = common.ROOT / "lib/toolroll/data/hotpotqa/corpus.jsonl.gz"
MALFORMED = 0.037  #: share of trajectories that are not well formed, as HiPRAG reports of its models (appendix F)
DISTINCT = 3000  #: rows that differ; after them only ids do

LOOP = """
import sys, {module} as codec
with open(sys.argv[1], "rb") as rows:
    for line in rows:
        sys.stdout.buffer.write({encode} + b"\\n")
"""
ORJSON_LOOP = LOOP.format(module="orjson", encode="codec.dumps(codec.loads(line))")
JSON_LOOP = LOOP.format(module="json", encode="codec.dumps(codec.loads(line)).encode()")


@dataclass(frozen=True)
class Case:
    """Something that reads rows and writes rows: `argv`, with the input's name behind it."""

    name: str
    argv: tuple[str, ...]
    source: str = "rollouts"

    def found(self) -> bool:
        """Whether it is installed."""
        return Path(self.argv[0]).exists() or shutil.which(self.argv[0]) is not None


def _command(line: str, source: str) -> Case:
    name, *arguments = line.split()
    return Case(line, (str(common.BIN / name), *arguments), source)


LOOP_CASE = "orjson loop"
CASES = [
    Case(LOOP_CASE, (sys.executable, "-c", ORJSON_LOOP)),
    _command("step-parse", "rollouts"),
    Case("Python json loop", (sys.executable, "-c", JSON_LOOP)),
    Case("jq -c .", ("jq", "-c", ".")),
    Case(LOOP_CASE, (sys.executable, "-c", ORJSON_LOOP), "parsed"),
    _command("step-reward --judge given", "parsed"),
    _command("step-reward --judge lexical,evidence", "parsed"),
    _command("step-stats", "parsed"),
]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each case that is installed."""
    records: list[dict[str, Any]] = []
    loops: dict[str, float] = {}
    for case in CASES:
        if not case.found():
            continue
        path = source(case.source, arguments.size_mb)
        used = common.cost([*case.argv, path], runs=arguments.runs)
        if case.name == LOOP_CASE:
            loops[case.source] = used.cpu_s
        megabytes, count = path.stat().st_size / 1e6, _count(path)
        records.append(
            {
                "input": f"{case.source}, {megabytes:.0f} MB",
                "what": case.name,
                "CPU s": used.cpu_s,
                "MB/s": megabytes / used.cpu_s,
                "µs/row": used.cpu_s / count * 1e6,
                "RSS MB": used.rss_mb,
                "times the orjson loop": used.cpu_s / loops[case.source],
            }
        )
    return records


def source(name: str, size_mb: int) -> Path:
    """The input of this name, made if it is not there: `size_mb` MB of rollouts, or what step-parse makes of them."""
    common.OUT.mkdir(parents=True, exist_ok=True)
    path = common.OUT / f"{name}-{size_mb}mb.jsonl"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    if name == "parsed":
        subprocess.run(
            [common.BIN / "step-parse", "-q", "--no-meta", "-o", part, source("rollouts", size_mb)], check=True
        )
    else:
        with open(part, "wb") as file:
            file.writelines(rollouts(size_mb * 1_000_000))
    part.replace(path)
    return path


def rollouts(size: int) -> Iterator[bytes]:
    """Lines of rollouts, `size` bytes of them."""
    made: list[dict[str, Any]] = []
    index = 0
    while size > 0:
        if index < DISTINCT:
            made.append(_rollout(random.Random(index)))
        record = {"id": f"q{index // 4}", "sample": index % 4, **made[index % DISTINCT]}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
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
    common.run(
        "What a row costs.",
        measure,
        ("--size-mb", {"type": int, "default": 200}),
        ("--runs", {"type": int, "default": 3}),
    )
