"""The options of a policy update: what is minimised and in which portions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click

from toolroll.errors import UsageError


@dataclass(frozen=True, slots=True)
class Objective:
    """The values of the options of a policy update."""

    algo: Literal["grpo", "ppo"] = "grpo"
    epochs: int = 1
    mini_batch: int | None = None
    micro_tokens: int = 4096
    loss_norm: Literal["token", "sequence", "constant"] = "token"
    loss_constant: float | None = None
    clip_ratio: float = 0.2
    clip_ratio_high: float | None = None
    dual_clip: float | None = None
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    old: Literal["behaviour", "recompute"] = "behaviour"
    importance: Literal["none", "token", "sequence"] = "none"
    importance_cap: float = 2.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.loss_norm == "constant" and self.loss_constant is None:
            raise UsageError("needs --loss-constant", place="--loss-norm constant")
        if self.importance != "none" and self.old != "recompute":
            raise UsageError("goes with --old recompute", place="--importance")

    @property
    def needs_logprobs(self) -> bool:
        """Whether rows must carry the log-probabilities they were sampled with."""
        return self.old == "behaviour" or self.importance != "none"


@dataclass(frozen=True, slots=True)
class CriticOptions:
    """The values of the options of PPO's critic."""

    critic: str | None = None
    critic_lr: float = 1e-5
    critic_warmup: float = 0.0
    gamma: float = 1.0
    gae_lambda: float = 1.0
    value_clip: float = 0.5


def objective_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `Objective`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Update", **settings)

    def choice(name: str, choices: list[str], default: str, text: str) -> click.Option:
        return make(name, type=click.Choice(choices), default=default, show_default=True, help=text)

    def number(
        name: str,
        default: float | None,
        text: str,
        *,
        above: float = 0.0,
        strictly: bool = False,
        most: float | None = None,
    ) -> click.Option:
        kind = click.FloatRange(min=above, min_open=strictly, max=most)
        return make(name, type=kind, default=default, show_default=default is not None, help=text)

    return [
        choice("--algo", ["grpo", "ppo"], "grpo", "grpo: the rows' advantages. ppo: their rewards, with a critic."),
        make(
            "--epochs",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Passes over the rows of an update.",
        ),
        make(
            "--mini-batch",
            type=click.IntRange(min=1),
            metavar="ROWS",
            help="Rows to a step of the optimizer, at most; all rows of the update if unset.",
        ),
        make(
            "--micro-tokens",
            type=click.IntRange(min=1),
            default=4096,
            show_default=True,
            metavar="N",
            help="Tokens computed at a time, padding included, on each process: memory, not results.",
        ),
        choice(
            "--loss-norm",
            ["token", "sequence", "constant"],
            "token",
            "What weighs the same: every token of a mini-batch, every row, or every token of all mini-batches.",
        ),
        number("--loss-constant", None, "With --loss-norm constant: a row's loss is divided by this.", strictly=True),
        number(
            "--clip-ratio",
            0.2,
            "The ratio of new to old probability is held above 1 - RATIO and below 1 + RATIO.",
            most=1e30,  # a number of 32 bits
        ),
        number("--clip-ratio-high", None, "The upper bound is 1 + this instead.", most=1e30),
        number(
            "--dual-clip", None, "For negative advantages: a token's loss is at most this times -advantage.", above=1
        ),
        number("--kl-coef", 0.0, "Weight of the divergence from the reference; with ppo it is taken off the reward."),
        choice("--kl", ["k1", "k2", "k3"], "k3", "How a token's divergence is estimated; ppo takes k1."),
        number("--entropy-coef", 0.0, "Weight of the bonus for entropy."),
        choice(
            "--old",
            ["behaviour", "recompute"],
            "behaviour",
            "Old probabilities: those the rows were sampled with, or made anew with the weights before the update.",
        ),
        choice(
            "--importance",
            ["none", "token", "sequence"],
            "none",
            "With --old recompute: weigh tokens, or rows, by old over sampling probability.",
        ),
        number("--importance-cap", 2.0, "With --importance: no weight is larger than this.", strictly=True),
        number("--temperature", 1.0, "What the rows were sampled at.", strictly=True),
    ]


def critic_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `CriticOptions`, made by `option`."""

    def make(name: str, kind: Any, default: Any, text: str, **settings: Any) -> click.Option:
        shown = default is not None
        return option(
            [name], section="Critic (ppo)", type=kind, default=default, show_default=shown, help=text, **settings
        )

    share, positive = click.FloatRange(0, 1), click.FloatRange(min=0)
    return [
        make("--critic", str, None, "The model the critic starts from; the policy's if unset.", metavar="NAME"),
        make("--critic-lr", positive, 1e-5, "Learning rate of the critic."),
        make("--critic-warmup", positive, 0.0, "Like --warmup, of the critic."),
        make("--gamma", share, 1.0, "Discount of rewards a token later."),
        make("--gae-lambda", share, 1.0, "Lambda of generalized advantage estimation."),
        make("--value-clip", positive, 0.5, "Values are held this close to the old ones; 0 is no limit."),
    ]
