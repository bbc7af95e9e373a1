"""Reading a prompt and writing tokens, dense against pruned, on random models of three shapes.

    python bench/vprune.py [--rounds 5] [--tokens 16] [--shapes tiles,llava,large] [--threads 1] [--json FILE]

The dense model and every plan read the same prompt in turns, and the best round of each counts; the dense model has
transformers' own attention (sdpa). Times are CPU time, which with one thread is the wall time of a machine that does
nothing else. The image encoder is tiny, so that the language model is what is measured. "promised" is what the FLOPs
that were executed say: those of the dense model over those of the plan, text and all. Peak memory is that of a process
of its own that reads the prompt, above what it held before; it has read it once, for what is only loaded then, and
gives freed blocks back at once (MALLOC_MMAP_THRESHOLD_), so that it is what tensors need and not the heap's holes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import torch

from toolroll.pruning.cached import held_bytes
from toolroll.pruning.executed import executed
from toolroll.pruning.flops import Tokens, dense_terms, pruned_terms, sum_over
from toolroll.pruning.plan import Plan, same_heads
from toolroll.pruning.planning import ratio_of
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.shape import Shape
from toolroll.pruning.support import parts_of

IMAGE, VOCABULARY, PATCH = 3, 1000, 4
QUARTER = 0.25


@dataclass(frozen=True)
class Case:
    """A prompt of `tiles` images of `side` x `side` tokens with `text` tokens around each, and a language model."""

    what: str
    tiles: int
    side: int
    text: int
    sizes: dict[str, int]


def _sizes(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


CASES = {
    "tiles": Case("17 tiles of 8x8, d 576", 17, 8, 5, _sizes(576, 1536, 4, 9, 3)),
    "llava": Case("one 24x24, d 1024", 1, 24, 32, _sizes(1024, 2752, 4, 16, 16)),
    "large": Case("one 48x48, d 512", 1, 48, 32, _sizes(512, 1376, 4, 8, 8)),
}


def tokens_of(case: Case) -> Tokens:
    """The tokens of its prompt."""
    return Tokens(((case.side, case.side),) * case.tiles, case.text * (case.tiles + 1))


def left(shape: Shape, tokens: Tokens, plan: Plan) -> float:
    """What a plan leaves of the visual FLOPs."""
    return sum_over(pruned_terms(shape, tokens, plan, "full")) / sum_over(dense_terms(shape, tokens, "full"))


def plans(shape: Shape, tokens: Tokens) -> dict[str, Plan]:
    """What is measured of each shape. "All, a quarter" has the neurons that make it a quarter of the visual FLOPs."""
    half, heads = shape.layers // 2, same_heads(shape.heads // 2, shape)
    whole = Plan(window=5, heads=heads, cut=half)
    fitted = (replace(whole, ffn=ratio_of(shape.ffn, neurons)) for neurons in range(shape.ffn, 0, -1))
    quarter = next(plan for plan in fitted if left(shape, tokens, plan) <= QUARTER)
    return {
        "dense": Plan(),
        "window 5": Plan(window=5),
        "half of the neurons": Plan(ffn=2),
        "half of the heads": Plan(heads=heads),
        "cut at half": Plan(cut=half),
        "cut and neurons": Plan(cut=half, ffn=2),
        "all, a quarter": quarter,
        "all, a tenth of the neurons": replace(whole, ffn=10),
    }


def model_of(case: Case) -> Any:
    """A random LLaVA of this shape, with an image encoder of one narrow layer."""
    from transformers import AutoModelForImageTextToText, LlavaConfig

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={
            **vision,
            "model_type": "clip_vision_model",
            "image_size": case.side * PATCH,
            "patch_size": PATCH,
        },
        text_config={
            **case.sizes,
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 8192,
        },
        image_token_index=IMAGE,
        image_seq_length=case.side**2,
        vision_feature_layer=-1,
    )
    return AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False)


def prompt_of(case: Case) -> dict[str, torch.Tensor]:
    """Text, an image, text, an image, ..., text."""
    words = [10 + i for i in range(case.text)]
    ids = [*words, *(token for _ in range(case.tiles) for token in [*[IMAGE] * case.side**2, *words])]
    pixels = torch.randn(
        case.tiles, 3, case.side * PATCH, case.side * PATCH, generator=torch.Generator().manual_seed(0)
    )
    return {"input_ids": torch.tensor([ids]), "pixel_values": pixels}


def read(model: Any, prompt: dict[str, torch.Tensor]) -> tuple[float, Any]:
    """CPU seconds to read the prompt, and its cache."""
    started = time.process_time()
    cache = model(**prompt, logits_to_keep=1).cache
    return time.process_time() - started, cache


def write(model: Any, cache: Any, tokens: int) -> float:
    """CPU seconds to write `tokens` tokens."""
    token = torch.tensor([[11]])
    started = time.process_time()
    for _ in range(tokens):
        token = model(input_ids=token, cache=cache).logits[:, -1:].argmax(-1)
    return time.process_time() - started


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each shape and plan."""
    torch.set_num_threads(arguments.threads)
    return [row for name in arguments.shapes.split(",") for row in measure_one(name, CASES[name], arguments)]


@torch.inference_mode()
def measure_one(name: str, case: Case, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of a shape."""
    model, prompt = model_of(case), prompt_of(case)
    shape, tokens = parts_of(model, Plan()).shape, tokens_of(case)
    wanted = plans(shape, tokens)
    reading: dict[str, float] = {}
    writing: dict[str, float] = {}
    flops: dict[str, int] = {}
    held: dict[str, int] = {}
    for turn in range(arguments.rounds + 1):
        for kind, plan in wanted.items():
            with Pruner(model, plan) as pruner:
                first, cache = read(model, prompt)
                flops[kind], held[kind] = sum_over(executed(pruner)), held_bytes(cache)
                rest = write(model, cache, arguments.tokens if turn else 1)
            if turn:  # the first round warms up
                reading[kind] = min(first, reading.get(kind, first))
                writing[kind] = min(rest, writing.get(kind, rest))
    peak = {kind: memory(name, kind, arguments.threads) for kind in ("dense", "cut and neurons", "all, a quarter")}
    return [
        {
            "shape": case.what,
            "plan": kind,
            "visual FLOPs": round(left(shape, tokens, plan), 3),
            "prefill ms": round(reading[kind] * 1000, 1),
            "times dense": round(reading["dense"] / reading[kind], 2),
            "promised": round(flops["dense"] / flops[kind], 2),
            "decode ms/token": round(writing[kind] * 1000 / arguments.tokens, 2),
            "decode, times dense": round(writing["dense"] / writing[kind], 2),
            "KV MB": round(held[kind] / 1e6, 2),
            "peak MB": peak.get(kind),
        }
        for kind, plan in wanted.items()
    ]


def memory(name: str, kind: str, threads: int) -> float:
    """MB that a process which reads the prompt needs at most, above what it had with the model loaded."""
    child = [sys.executable, __file__, "--child", f"{name}:{kind}", "--threads", str(threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(child, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout))


@torch.inference_mode()
def child(asked: str, threads: int) -> None:
    """Print what `memory` says."""
    torch.set_num_threads(threads)
    name, kind = asked.split(":")
    case = CASES[name]
    model, prompt = model_of(case), prompt_of(case)
    with Pruner(model, plans(parts_of(model, Plan()).shape, tokens_of(case))[kind]):
        read(model, prompt)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = most_memory()
        read(model, prompt)
        print(json.dumps(round(most_memory() - before, 1)))


def most_memory() -> float:
    """MB of memory that this process had at most, since it was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure, or be the process whose memory is measured."""
    if "--child" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--child")
        parser.add_argument("--threads", type=int, default=1)
        given = parser.parse_args()
        child(given.child, given.threads)
        return
    common.run(
        "Reading and writing, dense against pruned.",
        measure,
        ("--rounds", {"type": int, "default": 5}),
        ("--tokens", {"type": int, "default": 16}),
        ("--shapes", {"default": ",".join(CASES)}),
        ("--threads", {"type": int, "default": 1}),
    )


if __name__ == "__main__":
    main()
