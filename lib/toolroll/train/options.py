"""The options of training, the same in every command that trains a language model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from toolroll.errors import UsageError
from toolroll.models.single_options import device_option

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The values of the training options. `lora` is the rank, 0 for full training."""

    lr: float = 1e-6
    schedule: Schedule = "constant"
    warmup: float = 0.0
    total_steps: int | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    lora: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"
    gradient_checkpointing: bool = False
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.total_steps is None and (self.schedule != "constant" or 0 < self.warmup < 1):
            raise UsageError("a schedule that ends, or a warm-up given as a share, needs it", place="--total-steps")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError("both are from 0 up to, not including, 1", place="--betas")

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 1. See `learning_rate`."""
        return learning_rate(
            step, lr=self.lr, schedule=self.schedule, warmup=self.warmup, total_steps=self.total_steps or 0
        )


def learning_rate(step: int, *, lr: float, schedule: Schedule, warmup: float, total_steps: int) -> float:
    """The learning rate of update `step` >= 1: a linear warm-up, then `schedule`.

    `warmup` is a number of updates, or, below 1, a share of `total_steps`: update s of w gets s / w of `lr`. linear
    falls to 0 at the update after the last, cosine likewise along half a wave. Past `total_steps` it is 0.

    >>> [learning_rate(s, lr=1.0, schedule="linear", warmup=2, total_steps=6) for s in (1, 2, 3, 6, 7)]
    [0.5, 1.0, 1.0, 0.25, 0.0]
    """
    ramp = math.ceil(warmup * total_steps) if warmup < 1 else int(warmup)
    if step <= ramp:
        return lr * step / ramp
    if schedule == "constant":
        return lr
    done = min(1.0, (step - 1 - ramp) / max(1, total_steps - ramp))
    return lr * (1 - done) if schedule == "linear" else lr * (1 + math.cos(math.pi * done)) / 2


def train_options(option: Callable[..., click.Option], *, lr: float) -> list[click.Option]:
    """The options of `TrainOptions`, made by `option`, which is click.Option with a `section`; `lr` is the default."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Training", **settings)

    positive = click.FloatRange(min=0)
    return [
        make("--lr", type=positive, default=lr, show_default=True, help="Learning rate of AdamW."),
        make(
            "--schedule",
            type=click.Choice(["constant", "linear", "cosine"]),
            default="constant",
            show_default=True,
            help="How the learning rate goes on after the warm-up; linear and cosine end at 0 after --total-steps.",
        ),
        make(
            "--warmup",
            type=positive,
            default=0.0,
            show_default=True,
            help="Updates in which the learning rate rises to --lr; below 1, their share of --total-steps.",
        ),
        make(
            "--total-steps",
            type=click.IntRange(min=1),
            metavar="N",
            help="Updates the schedule is made for, over all runs.",
        ),
        make("--weight-decay", type=positive, default=0.01, show_default=True, help="Weight decay of AdamW."),
        make(
            "--betas",
            type=float,
            nargs=2,
            default=(0.9, 0.999),
            show_default=True,
            help="The two decay rates of AdamW.",
        ),
        make(
            "--max-grad-norm",
            type=positive,
            default=1.0,
            show_default=True,
            help="Gradients longer than this are scaled down to it; 0 is no limit.",
        ),
        make(
            "--lora",
            type=click.IntRange(min=0),
            metavar="RANK",
            default=0,
            show_default=True,
            help="Train low-rank adapters of this rank in place of all weights (package peft); 0 trains all.",
        ),
        make(
            "--lora-alpha", type=positive, help="Scale of the adapters, divided by the rank; twice the rank if unset."
        ),
        make(
            "--lora-dropout",
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            help="Dropout in front of the adapters.",
        ),
        make(
            "--lora-targets",
            default="all-linear",
            show_default=True,
            metavar="NAME,...",
            help="Layers that get an adapter.",
        ),
        make("--gradient-checkpointing", is_flag=True, help="Less memory for about a third more time."),
        device_option(partial(option, section="Training"), "; under accelerate each process has its own"),
        make(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16"]),
            default="auto",
            show_default=True,
            help="Arithmetic; weights stay in float32. auto is bfloat16 on a GPU that has it, else float32.",
        ),
    ]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The values of the options of a policy directory that is written."""

    policy: Path
    model: str | None = None
    publish: int = 1
    keep: int = 2
    publish_as: Literal["merged", "adapter"] = "merged"
    publish_dtype: str = "auto"


def publish_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `PublishOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Policy", **settings)

    return [
        make(
            "--policy",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            required=True,
            help="The policy directory: read and written; made from --model when it is not there.",
        ),
        make(
            "--model",
            metavar="NAME",
            help="What the policy starts from: a Hugging Face folder or hub id, a .gguf file, or `embedded` "
            "(SmolLM2-135M-Instruct). Not looked at once DIR has a version.",
        ),
        make(
            "--publish",
            type=click.IntRange(min=1),
            metavar="N",
            default=1,
            show_default=True,
            help="Save and publish every N updates, and at the end.",
        ),
        make(
            "--keep",
            type=click.IntRange(min=1),
            metavar="N",
            default=2,
            show_default=True,
            help="Versions that stay; with --lora v000000, the base, does as well.",
        ),
        make(
            "--publish-as",
            type=click.Choice(["merged", "adapter"]),
            default="merged",
            show_default=True,
            help="With --lora: publish whole models or adapters.",
        ),
        make(
            "--publish-dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="Number format of published weights; auto is bfloat16 on a GPU, else float32. v000000 has its model's "
            "own.",
        ),
    ]


def length_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of pairs that are too long."""
    return [
        option(
            ["--max-tokens"],
            type=click.IntRange(min=2),
            default=8192,
            show_default=True,
            metavar="N",
            help="Longest prompt with an answer, images and all, in tokens.",
        ),
        option(
            ["--on-long"],
            type=click.Choice(["fail", "skip", "cut"]),
            default="fail",
            show_default=True,
            help="A longer pair: treat it as one that cannot be processed; leave it out and count it; or cut its "
            "answers, which pairs with images do not allow.",
        ),
    ]
