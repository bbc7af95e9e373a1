"""All speed tables in one run, written to bench/out/speed.md: what `make bench` does.

    python bench/run.py [--quick] [--only NAME]

Every table has its peers beside us; what counts is the ratio. Ends with exit code 1 when a target is missed grossly, by
more than a third, which on a busy machine is more than noise. `--quick` shows that the tables can be made, at a size
that says nothing about speed and several side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import common

GROSS = 4 / 3
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """One benchmark, its arguments, and what it has to reach: `worst` gives (figure, target), smaller being better."""

    name: str
    title: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    worst: Callable[[Records], tuple[float, float]] | None = None


def _startup(records: Records) -> tuple[float, float]:
    return max(row["times bare Python"] for row in records), 8.0


def _rows(records: Records) -> tuple[float, float]:
    targets = ("step-parse", "step-reward --judge given")
    return max(row["times the orjson loop"] for row in records if row["what"] in targets), 1.5


def _rollout(records: Records) -> tuple[float, float]:
    return 1 / records[1]["toolroll is times"], 1 / 2.0


def _training(records: Records) -> tuple[float, float]:
    return 1 / records[1]["policy-train is times"], 1 / 0.9


def _bandit(records: Records) -> tuple[float, float]:
    """The worse of: feedback at 2.5 times a loop that only decodes it, an answer in a millisecond."""
    updates = max(row["times the peer"] for row in records if row["what"].startswith("ucb-update"))
    answers = max(row["µs a row or request"] for row in records if row["what"].startswith("ucb-sample"))
    return max(updates / 2.5, answers / 1_000), 1.0


def _sandbox(records: Records) -> tuple[float, float]:
    return 1 / next((row["of no sandbox"] for row in records if row["what"] == "auto"), 1.0), 1 / 0.4


def _scenes(records: Records) -> tuple[float, float]:
    """The worse of: 20 times as fast as numpy, a large scene in a quarter of a second."""
    ours = [row for row in records if row["what"].startswith("toolroll, 9") or row["what"].startswith("toolroll, 3")]
    return max(max(20 / row["numpy is times"] for row in ours), max(row["ms"] for row in ours) / 250), 1.0


def _sprite(records: Records) -> tuple[float, float]:
    return 1 / max(row["times one by one"] for row in records), 1 / 4.0


def _spygame(records: Records) -> tuple[float, float]:
    """The worst of: 2,000 scripted games a second, rewards at 1.5 times the loop, a batch 4 times as fast as a game."""
    scripted = min(row["games/s"] for row in records if row["what"].startswith("scripted"))
    rewards = max(row["times the peer"] for row in records if row["what"].startswith("spy-reward"))
    together = [row["times the peer"] for row in records if row["what"].endswith("one batch")]
    return max(2000 / scripted, rewards / 1.5, *(4 / times for times in together)), 1.0


def _linear(records: Records) -> tuple[float, float]:
    """The worst of all targets, as a part of it; two threads are judged only where they do not wait for each other."""
    targets = {
        "fused": {1: 1.1, 4: 0.5, 8: 0.5, 128: 1.25},
        "blocked": {1: 2.2, 32: 1.1, 128: 1.1},
    }
    judged = [
        row[f"{way}, times fp32"] / of_rows[row["M"]]
        for row in records
        for way, of_rows in targets.items()
        if row["M"] in of_rows and (way == "fused" or row["threads"] == 1)
    ]
    return max(judged), 1.0


def _decode(records: Records) -> tuple[float, float]:
    return 1 / min(row["times fp32"] for row in records if row["precision"] == "layercast, fused"), 1 / 0.9


def _judgefree(records: Records) -> tuple[float, float]:
    """The worse of: two branches in a batch 5 times as fast as guidance, at 2.2 times the cost of plain decoding."""
    slower = {row["what"].split(",")[0]: row["times slower"] for row in records if row["of"] == "tokens"}
    return max(5 / slower["guidance of transformers"], 1 / (2.2 * slower["plain decoding"])), 1.0


def _vprune(records: Records) -> tuple[float, float]:
    """The worst of: 1.9 times the prefill at a quarter of the FLOPs, 0.8 of what FLOPs promise, less memory."""
    worst = []
    for row in records:
        if row["plan"] == "all, a quarter":
            worst.append(1.9 / row["times dense"])
        if row["plan"] == "cut and neurons":
            worst.append(0.8 * row["promised"] / row["times dense"])
        if row["plan"] == "dense":
            dense = row["peak MB"]
        elif row["peak MB"] is not None:
            worst.append(row["peak MB"] / dense)
    return max(worst), 1.0


def _kvquant(records: Records) -> tuple[float, float]:
    """The worst of all targets, as a part of it: of rates at least so much, of all else at most."""
    judged = [row for row in records if row["target"] is not None]
    return max(
        row["target"] / row["times"] if row["of"] == "G elements/s" else row["times"] / row["target"] for row in judged
    ), 1.0


def _pmp(records: Records) -> tuple[float, float]:
    """The worst of: 10 % of a decoder's time, 1.5 times a photo without the block, as fast as a Mask2Former."""
    targets = {"decoder, large": 1.1, "photo": 1.5, "update": 1.0}
    return max(
        row["times"] / goal for row in records for what, goal in targets.items() if row["what"].startswith(what)
    ), 1.0


def _splat(records: Records) -> tuple[float, float]:
    """The worst of: torch 15 times as long, two threads 1.7, at most 60 % not drawing, 26 dB and .875 of the doll."""
    least = {"torch, times as long": 15.0, "one, times as long": 1.7, "PSNR, dB": 26.0, "SSIM": 0.875}
    worst = [least[row["of"]] / row["figure"] for row in records if row["of"] in least]
    return max(*worst, *(row["figure"] / 0.6 for row in records if row["what"] == "step")), 1.0


TABLES = [
    Table("startup", "Start-up", worst=_startup, quick=("--runs", "1")),
    Table("rows", "Row-wise commands", quick=("--size-mb", "2", "--runs", "1"), worst=_rows),
    Table("retrieval", "Retrieval: 4,016 passages, 400 questions, top 3"),
    Table("rollout", "Rollouts on the embedded model", quick=("--questions", "1"), worst=_rollout),
    Table("bandit", "The bandit", quick=("--rows", "2000", "--requests", "50"), worst=_bandit),
    Table("sandbox", "Hypotheses in a sandbox", quick=("--rounds", "1", "--inputs", "500"), worst=_sandbox),
    Table("scenes", "Scenes of six objects", quick=("--scenes", "2"), worst=_scenes),
    Table("sprite", "Captions of the embedded model", quick=("--scenes", "8", "--rounds", "1"), worst=_sprite),
    Table(
        "spygame",
        "Games of who is the spy",
        quick=("--games", "100", "--runs", "1", "--model-games", "2"),
        worst=_spygame,
    ),
    Table(
        "kvquant",
        "Keys and values in few bits, 32 heads of 3,328 tokens",
        quick=("--heads", "4", "--rounds", "2"),
        worst=_kvquant,
    ),
    Table("linear", "LayerCast's linear layer", quick=("--rounds", "1", "--rows", "1,4"), worst=_linear),
    Table(
        "decode",
        "Decoding with the embedded model in each precision",
        quick=("--tokens", "2", "--rounds", "1", "--batches", "1"),
        worst=_decode,
    ),
    Table(
        "judgefree",
        "Pairs without a judge",
        quick=("--prompts", "2", "--images", "2", "--tokens", "4", "--rounds", "1"),
        worst=_judgefree,
    ),
    Table(
        "vprune",
        "Pruned visual tokens",
        quick=("--rounds", "1", "--tokens", "2", "--shapes", "tiles"),
        worst=_vprune,
    ),
    Table("pmp", "Listening to prompts", quick=("--rounds", "1", "--updates", "1", "--shapes", "small"), worst=_pmp),
    Table(
        "splat",
        "Gaussians on a CPU, and a scene trained with them",
        quick=("--rounds", "1", "--count", "2000", "--steps", "10"),
        worst=_splat,
    ),
    Table("training", "Updates of the embedded model", quick=("--rows", "2", "--rounds", "1"), worst=_training),
]


def main() -> int:
    """Run the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is judged")
    parser.add_argument("--only", choices=[table.name for table in TABLES], help="just this table")
    asked = parser.parse_args()
    common.OUT.mkdir(parents=True, exist_ok=True)
    parts, missed = ["# Speed\n\nMade by `make bench`. Ratios within a table count, not the numbers.\n"], []
    tables = [table for table in TABLES if asked.only in (None, table.name)]
    at_once = len(os.sched_getaffinity(0)) if asked.quick else 1
    make = partial(_records, quick=asked.quick)
    # closed, so that no further table is made behind one that failed
    with ThreadPoolExecutor(at_once) as pool, closing(pool.map(make, tables)) as made:
        for table, records in zip(tables, made, strict=True):
            parts.append(f"## {table.title}\n\n{common.markdown(records)}\n")
            print(parts[-1], flush=True)
            if table.worst is not None and not asked.quick:
                figure, target = table.worst(records)
                if figure > target:
                    line = f"{table.name}: {figure:.2f}, target {target:.2f}"
                    parts.append(f"Short of the target: {line}\n")
                    print(parts[-1], flush=True)
                if figure > target * GROSS:
                    missed.append(table.name)
    (common.OUT / "speed.md").write_text("\n".join(parts))
    return 1 if missed else 0


def _records(table: Table, *, quick: bool) -> Records:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        arguments = table.quick if quick else table.arguments
        script = str(Path(__file__).with_name(f"{table.name}.py"))
        subprocess.run([sys.executable, script, *arguments, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
        records: Records = json.loads(path.read_text())
        return records


if __name__ == "__main__":
    sys.exit(main())
