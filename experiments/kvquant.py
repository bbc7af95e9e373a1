"""Quality against bits: what is left of a context that is kept in few bits, by rule and beside peers.

Two tasks, each answered by kv-eval with every cache in turn:

    passages   a language model is to repeat a passage of its prompt word for word; the passage is packed. Without
               reading the packed tokens nobody can repeat them: the perplexity of the passage tells what is left.
    captions   an image-text model describes rendered scenes; what stands for the image is packed. F1 of the objects
               that the caption names, beside KL to the dense cache at the same tokens.

Rows go to a file, one for each task and cache: means over all prompts. A row that is there is not made again. The table
is printed.

    python experiments/kvquant.py [--passages 16] [--scenes 32] [--text-model embedded] [--image-model sprite] [--table]
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "kvquant.jsonl"
CORPUS = ROOT / "lib" / "toolroll" / "data" / "hotpotqa" / "corpus.jsonl.gz"
CACHES = (
    "dense",
    "minmax:bits=1",
    "calibquant:bits=1",
    "calibquant:bits=1,tau=0/3",
    "lloyd1:bits=1",
    "quantile:bits=1",
    "minmax:bits=2",
    "quantile:bits=2",
    "kivi:residual=0",
    "minmax:bits=4",
    "quantile:bits=4",
    "kivi:bits=4,residual=0",
    "minmax:bits=8",
    "fp8",
)
SIZE, FIRST = (320, 240), 9_900_000
Row = dict[str, Any]


def passages(count: int, _: Path) -> Iterable[Row]:
    """Passages of some 80 to 120 tokens to repeat."""
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        texts = [row for row in map(json.loads, file) if 330 < len(row["text"]) < 480][:count]
    for row in texts:
        text = row["text"]
        asked = f"Repeat this text word for word.\n\n{text}"
        yield {"id": row["id"], "prompt": asked, "packed_text": text, "reference": text}


def captions(count: int, folder: Path) -> Iterable[Row]:
    """Scenes of 3 to 6 objects to describe."""
    from toolroll.world.clevr import scene_json
    from toolroll.world.draws import Draws
    from toolroll.world.images import png
    from toolroll.world.place import drawn_scene
    from toolroll.world.questions import questions_about
    from toolroll.world.render import render

    for number in range(count):
        scene = drawn_scene(Draws(FIRST + number), 3 + number % 4, *SIZE)
        (folder / f"{number}.png").write_bytes(png(render(scene, *SIZE)))
        asked = next(one for one in questions_about(scene, Draws(FIRST + number)) if one.kind == "caption")
        objects = scene_json(scene, *SIZE)["objects"]
        yield {"id": number, "prompt": asked.question, "images": [f"{number}.png"], "objects": objects}


TASKS = {"passages": (passages, "text", "1"), "captions": (captions, "images", "100")}


def answered(task: str, count: int, model: str, caches: Sequence[str]) -> list[Row]:
    """The rows of kv-eval for all prompts of a task."""
    make, packed, tokens = TASKS[task]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(make(count, folder))
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [str(Path(sys.executable).parent / "kv-eval"), "in.jsonl", "--model", model, "--pack", packed]
        named = [word for cache in caches for word in ("--cache", cache)]
        done = subprocess.run(
            [*command, "--response-tokens", tokens, *named], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(task: str, model: str, cache: str, rows: Sequence[Row]) -> Row:
    """The means of a cache."""
    made = {
        "task": task,
        "model": model,
        "cache": cache,
        "prompts": len(rows),
        **{name: mean(row[name] for row in rows) for name in ("kl", "top1_frac", "kv_ratio")},
        "perplexity": math.exp(mean(row["nll"] for row in rows)),
        "packed_frac": sum(row["kv_visual_tokens"] for row in rows) / sum(row["kv_tokens"] for row in rows),
    }
    return made | ({"f1": mean(map(f1, rows))} if task == "captions" else {})


def f1(row: Row) -> float:
    """How well a caption names what there is."""
    from toolroll.preference.mentions import Scenes, compared

    return float(compared(Scenes(), row["response"], row["objects"]).scores()["f1"] or 0.0)


def table(rows: Sequence[Row]) -> str:
    """The rows of each task as Markdown."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        names = ["cache", "bytes of dense", "KL", "same top-1", "perplexity", *(["F1"] if "f1" in mine[0] else [])]
        about = (
            f"{task}: {mine[0]['prompts']} prompts, {mine[0]['model']}, {mine[0]['packed_frac']:.0%} of tokens packed"
        )
        lines += [about, "", f"| {' | '.join(names)} |", "|---" + "|---:" * (len(names) - 1) + "|"]
        for row in mine:
            cells = [
                f"{row['kv_ratio']:.3f}",
                f"{row['kl']:.3g}",
                f"{row['top1_frac']:.3f}",
                f"{row['perplexity']:.4g}",
            ]
            cells += [f"{row['f1']:.3f}"] if "f1" in row else []
            lines.append(f"| {' | '.join([row['cache'], *cells])} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="Quality against bits of packed caches.")
    parser.add_argument("--passages", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--text-model", default="embedded")
    parser.add_argument("--image-model", default="sprite")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    kept = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    plans = (
        ("passages", arguments.passages, arguments.text_model),
        ("captions", arguments.scenes, arguments.image_model),
    )
    for task, count, model in () if arguments.table else plans:
        there = {row["cache"] for row in kept if (row["task"], row["model"]) == (task, model)}
        missing = [cache for cache in CACHES if cache not in there]
        if not count or not missing:
            continue
        found = answered(task, count, model, missing)
        new = [summary(task, model, cache, [row for row in found if row["cache"] == cache]) for cache in missing]
        kept += new
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
    sys.stdout.write(table(kept) + "\n")


if __name__ == "__main__":
    main()
