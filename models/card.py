"""The models' folders: weights in 16 bits, tokenizer, processor, and a card that says what they are and score."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import evaluate
import glance
import sprite
from sizes import Size
from tokenizers import Tokenizer
from transformers import CLIPModel, LlavaForConditionalGeneration

COUNT = {True: 400, False: 4}  #: held-out scenes of the full size, of another

SPRITE = """\
---
license: mit
library_name: transformers
pipeline_tag: image-text-to-text
---
# sprite

A `LlavaForConditionalGeneration` of {parameters:.1f} million parameters that knows one small world: rendered scenes of
spheres, cubes and cylinders (CLEVR's colours, sizes and materials), and simple charts. It describes such a picture,
answers short questions about it, and gives clues and votes in the game of `spy-game --wording short`. It knows nothing
of photos and has no conversation: it is there so that pipelines can run for real on a CPU.

Every picture is scaled to {side} x {side} pixels, and is {seen} tokens. Byte-level BPE, {words} tokens.

| asked | right |
|---|---|
{rows}

Measured on {scenes} scenes of 320 x 240 pixels with 3 to 6 objects that were not learned from, greedy, by
`python models/evaluate.py --only sprite`. `attributes` are questions for colour, shape, size and material of an object
that is named by its other attributes, `answers` all questions with one right answer. F1 is that of `caption-eval`. Mind
what it is weak at: counting, the values of charts, and voting: it abstains in {abstains:.0%} of its votes, where
{undecided:.0%} of them have nobody to name.

Made by `python models/make.py --seed {seed}` from rendered pictures alone: {pictures} scenes and {charts} charts. The
vision tower learned in {tower} steps what each patch shows, the language half in {steps} steps what is said of
the pictures, in {answers} more mostly to answer questions, and in another {practice} to hold many names against a
picture, as counts, lists and votes do. Training took {minutes:.0f} minutes on {threads} thread(s) of a CPU.

`model.safetensors` has SHA-256 {digest}.
"""
GLANCE = """\
---
license: mit
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# glance

A `CLIPModel` of {parameters:.1f} million parameters that tells which sentences fit a rendered scene of spheres, cubes
and cylinders (CLEVR's colours, sizes and materials). Don't use it on photos: it has never seen one.

Every picture is scaled to {side} x {side} pixels. Byte-level BPE, {words} tokens, {length} tokens a text.

| made false by another | true sentence is nearer |
|---|---|
{rows}

Measured on {scenes} scenes of 320 x 240 pixels with 3 to 6 objects that were not learned from, three pairs of
sentences each, by `python models/evaluate.py --only glance`. A sentence names one object by all its attributes;
`object` exchanges it for another, `caption` one object of a sentence about all.

Made by `python models/make.py --seed {seed}` from {pictures} rendered scenes: the vision half starts as sprite's
tower ({tower} steps), of which the last {learning} layers and the text half learned in {steps} steps. Training
took {minutes:.0f} minutes, without the tower's, on {threads} thread(s) of a CPU.

`model.safetensors` has SHA-256 {digest}.
"""


def write_sprite(
    model: LlavaForConditionalGeneration, words: Tokenizer, size: Size, given: argparse.Namespace, told: dict[str, Any]
) -> None:
    """Write and measure sprite."""
    folder = given.out / "sprite"
    _saved(model, folder, sprite.processor(words))
    scores = evaluate.sprite_scores(str(folder), COUNT[given.size == "full"])
    seconds = sum(told[stage]["seconds"] for stage in ("tower", "sprite", "answers", "practice"))
    text = SPRITE.format(
        **_common(model, words, size, given, scores, folder),
        seen=sprite.SEEN,
        abstains=scores["vote N/A"],
        undecided=scores["N/A is right"],
        charts=size.charts,
        steps=size.sprite.steps,
        answers=size.answers.steps,
        practice=size.practice.steps,
        minutes=seconds / 60,
    )
    _record(folder, text, scores, told, size)


def write_glance(
    model: CLIPModel, words: Tokenizer, size: Size, given: argparse.Namespace, told: dict[str, Any]
) -> None:
    """Write and measure glance."""
    folder = given.out / "glance"
    _saved(model, folder, glance.processor(words))
    scores = evaluate.glance_scores(str(folder), COUNT[given.size == "full"])
    text = GLANCE.format(
        **_common(model, words, size, given, scores, folder),
        length=glance.LENGTH,
        learning=glance.LEARNING,
        steps=size.glance.steps,
        minutes=told["glance"]["seconds"] / 60,
    )
    _record(folder, text, scores, told, size)


def _saved(model: Any, folder: Path, processor: Any) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)


def _common(
    model: Any, words: Tokenizer, size: Size, given: argparse.Namespace, scores: dict[str, Any], folder: Path
) -> dict[str, Any]:
    rows = [f"| {kind} | {value:.3f} |" for kind, value in scores.items() if isinstance(value, float)]
    return {
        "parameters": sum(part.numel() for part in model.parameters()) / 1e6,
        "side": sprite.SIDE,
        "words": words.get_vocab_size(),
        "rows": "\n".join(rows),
        "scenes": scores["scenes"],
        "seed": given.seed,
        "pictures": size.scenes,
        "tower": size.tower.steps,
        "threads": given.threads or os.cpu_count(),
        "digest": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }


def _record(folder: Path, text: str, scores: dict[str, Any], told: dict[str, Any], size: Size) -> None:
    (folder / "README.md").write_text(text)
    record = {"scores": scores, "training": told, "size": asdict(size)}
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(folder.name, json.dumps(scores), flush=True)
