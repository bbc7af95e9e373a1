"""The options of preference training, and the settings that published work used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import click

from toolroll.errors import UsageError
from toolroll.train.options import TrainOptions

T = TypeVar("T")
Loss = Literal["sigmoid", "ipo"]

#: Settings of released training scripts: RLAIF-V's for LLaVA 1.5, and CSR's, which STIC and POVID share.
PRESETS: dict[str, dict[str, Any]] = {
    "rlaif-v": {"beta": 0.1, "epochs": 10, "lr": 5e-7, "weight_decay": 0.01, "warmup": 0.05, "schedule": "cosine"},
    "csr": {
        "beta": 0.1,
        "epochs": 1,
        "lr": 1e-7,
        "warmup": 0.03,
        "schedule": "cosine",
        "lora": 128,
        "lora_alpha": 256.0,
    },
}


@dataclass(frozen=True, slots=True)
class Preference:
    """What is minimised, over what, and of how many pairs at a time. See `losses.dpo_loss`."""

    beta: float = 0.1
    loss: Loss = "sigmoid"
    label_smoothing: float = 0.0
    epochs: int = 1
    batch_rows: int = 32
    micro_tokens: int = 8192

    def __post_init__(self) -> None:
        if self.loss == "ipo" and self.label_smoothing:
            raise UsageError("goes with --loss sigmoid", place="--label-smoothing")


@dataclass(frozen=True, slots=True)
class EpochTraining(TrainOptions):
    """Training whose number of updates is known once the pairs are: a schedule needs no --total-steps."""

    def __post_init__(self) -> None:
        self.whole(self.total_steps or 1)  # for what it refuses

    def whole(self, steps: int) -> TrainOptions:
        """The training options with a schedule made for `steps` updates, unless another number was asked for."""
        values = {field.name: getattr(self, field.name) for field in fields(TrainOptions)}
        return TrainOptions(**{**values, "total_steps": self.total_steps or steps})


def with_preset(name: str | None, options: T, given: Callable[[str], bool]) -> T:
    """A dataclass of options with a preset's values where the user has not `given` any."""
    own = {field.name for field in fields(options)}  # type: ignore[arg-type]
    values = {key: value for key, value in PRESETS.get(name or "", {}).items() if key in own and not given(key)}
    made: T = replace(options, **values)  # type: ignore[type-var]
    return made


def preference_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `Preference`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Preference", show_default=True, **settings)

    return [
        make(
            "--beta",
            type=click.FloatRange(min=0, min_open=True),
            default=0.1,
            help="How far the policy may go from the reference; less is farther.",
        ),
        make(
            "--loss",
            type=click.Choice(["sigmoid", "ipo"]),
            default="sigmoid",
            help="sigmoid is DPO; ipo bounds the margin, and measures it by the mean over tokens.",
        ),
        make(
            "--label-smoothing",
            type=click.FloatRange(0, 0.5, max_open=True),
            default=0.0,
            help="Share of the pairs believed to be the wrong way round.",
        ),
        make("--epochs", type=click.IntRange(min=1), default=1, help="How often each pair is trained on."),
        make("--batch-rows", type=click.IntRange(min=1), metavar="N", default=32, help="Pairs that make an update."),
        make(
            "--micro-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            default=8192,
            help="Tokens computed at a time, padding included, on each process: memory, not results.",
        ),
    ]
