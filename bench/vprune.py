"""Reading a prompt and writing tokens, dense against pruned, on random models of three shapes.

    python bench/vprune.py [--rounds 5] [--tokens 16] [--shapes tiles,llava,large] [--threads 1] [--json FILE]

The dense model and every plan read the same prompt in turns; the dense model has transformers' own attention (sdpa).
Times are CPU time, which with one thread is the wall time of a machine that does nothing else. The image encoder is
tiny, so that the language model is what is measured. "Promised" is what the FLOPs that were executed say: those of the
dense model over those of the plan, text and all. Peak memory is that of a process of its own that reads the prompt,
above what it held before; it has read it once, for what is only loaded then, and gives freed blocks back at once
(MALLOC_MMAP_THRESHOLD_), so that it is what tensors need and not the heap's holes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import common
import torch
from common import Line

from toolroll.models.device import choose_device
from toolroll.numerics.runner import forget_peak, peak
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
QUARTERED = "all, a quarter"


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
    "tiny": Case("2 tiles of 4x4, d 48", 2, 4, 5, _sizes(48, 96, 2, 4, 4)),
}
SHAPES = ["tiles", "llava", "large"]


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
        QUARTERED: quarter,
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


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Lines for each shape and plan."""
    torch.set_num_threads(arguments.threads)
    return [line for name in arguments.shapes for line in lines(name, CASES[name], arguments)]


def lines(name: str, case: Case, arguments: argparse.Namespace) -> Iterator[Line]:
    """The lines of a shape."""
    found, tokens = measured(case, arguments), tokens_of(case)
    count = tokens.visual + tokens.text
    dense = found.pop("dense")
    peaks = peak_memory(name, arguments.threads)
    for plan, one in found.items():
        what = f"{case.what}, {plan}"
        yield Line(f"{what}: prefill", "tokens/CPU s", count / one.read_s, "dense", count / dense.read_s)
        yield Line(f"{what}: speed-up", "times", dense.read_s / one.read_s, "promised", dense.flops / one.flops)
        written = arguments.tokens
        yield Line(f"{what}: decode", "tokens/CPU s", written / one.write_s, "dense", written / dense.write_s)
        if plan in peaks:
            yield Line(f"{what}: keys and values", "MB", one.held / 1e6, "dense", dense.held / 1e6)
            yield Line(f"{what}: peak memory", "MB", peaks[plan], "dense", peaks["dense"])


@dataclass
class Found:
    """What a plan took: the least seconds to read and to write, the FLOPs of the prompt, bytes of keys and values."""

    read_s: float = float("inf")
    write_s: float = float("inf")
    flops: int = 0
    held: int = 0


@torch.inference_mode()
def measured(case: Case, arguments: argparse.Namespace) -> dict[str, Found]:
    """What each plan takes for a shape; the first round warms up."""
    model, prompt = model_of(case), prompt_of(case)
    wanted = plans(parts_of(model, Plan()).shape, tokens_of(case))
    found = {plan: Found() for plan in wanted}
    for turn in range(arguments.rounds + 1):
        for name, plan in wanted.items():
            one = found[name]
            with Pruner(model, plan) as pruner:
                read_s, cache = read(model, prompt)
                one.flops, one.held = sum_over(executed(pruner)), held_bytes(cache)
                write_s = write(model, cache, arguments.tokens if turn else 1)
            if turn:
                one.read_s, one.write_s = min(read_s, one.read_s), min(write_s, one.write_s)
    return found


def peak_memory(name: str, threads: int) -> dict[str, float]:
    """MB that a process needs at most to read the prompt under some plans, above what it has with the model loaded."""
    child = [sys.executable, __file__, "--child", name, "--threads", str(threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    peaks: dict[str, float] = json.loads(done.stdout)
    return peaks


@torch.inference_mode()
def child(name: str, threads: int) -> None:
    """Print what `peak_memory` says."""
    device, peaks = choose_device("cpu"), {}
    torch.set_num_threads(threads)
    case = CASES[name]
    model, prompt = model_of(case), prompt_of(case)
    wanted = plans(parts_of(model, Plan()).shape, tokens_of(case))
    for kind in ("dense", "cut and neurons", QUARTERED):
        with Pruner(model, wanted[kind]):
            read(model, prompt)
            forget_peak(device)
            before = peak(device)
            read(model, prompt)
            peaks[kind] = (peak(device) - before) / 1e6
    print(json.dumps(peaks))


def main() -> None:
    """Measure, or be the process whose memory is measured."""
    if "--child" in sys.argv:
        _, _, name, _, threads = sys.argv
        child(name, int(threads))
        return
    common.run(__doc__, measure, rounds=5, tokens=16, shapes=SHAPES, threads=1)


if __name__ == "__main__":
    main()
