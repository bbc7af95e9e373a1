"""The options of pairs that a model writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from toolroll.errors import UsageError
from toolroll.models.single_options import length_option
from toolroll.preference.strength import Strength, numbers, read_strength


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """The values of the options."""

    h: str = "normal:0.5,0.15"
    h_range: str = "0.1,1"
    h_clip: bool = False
    h_chosen: float = 0.0
    ladder: str | None = None
    samples: int = 1
    mix: str = "logit"
    plausibility: float = 0.1
    uncond: str = "drop"
    prompt_list: Path | None = None
    response_tokens: int = 256
    round: int | None = None

    def strength(self) -> Strength | None:
        """Where the h of rejected answers comes from; None with a ladder."""
        if self.ladder is not None:
            return None
        within = numbers(self.h_range, "--h-range")
        if len(within) != 2 or within[0] > within[1]:
            raise UsageError("expected two numbers, the smaller one first", place="--h-range")
        return read_strength(self.h, (within[0], within[1]), clip=self.h_clip)

    def levels(self) -> tuple[float, ...]:
        """The levels of a ladder."""
        if self.ladder is None:
            return ()
        found = numbers(self.ladder, "--ladder")
        if len(set(found)) < 2 or len(set(found)) < len(found):
            raise UsageError("expected two or more levels, each once", place="--ladder")
        return found

    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest h of any answer."""
        strength = self.strength()
        if strength is not None and self.h_chosen > strength.bounds[1]:
            raise UsageError("the chosen answer would hallucinate more than any rejected one", place="--h-chosen")
        ends = (*self.levels(),) if strength is None else (*strength.bounds, self.h_chosen)
        return min(ends), max(ends)


def generation_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `GenerationOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Generation", show_default=True, **settings)

    return [
        make(
            "--h",
            default="normal:0.5,0.15",
            metavar="H",
            help="How much the rejected answer hallucinates: a number, normal:MEAN,SD, uniform:LOW,HIGH, or "
            "grid:H,... for pair after pair; 0 is plain decoding, 1 the prompt alone, below 0 contrastive decoding.",
        ),
        make("--h-range", default="0.1,1", metavar="LOW,HIGH", help="What --h normal may give."),
        make("--h-clip", is_flag=True, help="Set what is outside to the bound; else it is drawn again."),
        make("--h-chosen", type=float, default=0.0, help="The h of the chosen answer."),
        make(
            "--ladder",
            metavar="H,...",
            help="An answer for each of these levels, and all pairs of them; the lower h is chosen.",
        ),
        make("--samples", type=click.IntRange(min=1), default=1, help="Pairs, or ladders, a row."),
        make(
            "--mix",
            type=click.Choice(["logit", "prob", "switch", "switch-word", "switch-sentence"]),
            default="logit",
            help="How the two branches are mixed: their logits, their probabilities, or in turn, by a coin for each "
            "token, word or sentence.",
        ),
        make(
            "--plausibility",
            type=click.FloatRange(0, 1),
            default=0.1,
            help="With h below 0: the share of the best token's probability below which none is taken.",
        ),
        make(
            "--uncond",
            default="drop",
            metavar="KIND",
            help="What the other branch sees: drop (no image), blank, noise:STEP, corrupt, prompt:FILE (a line of the "
            "file as prompt), shuffle:FILE (the image of another row of the file).",
        ),
        make(
            "--prompt-list",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What rows without a prompt ask: a line of this file, else one of eight that ask for a description "
            "(of sprite the one that it knows).",
        ),
        length_option(partial(option, section="Generation"), 256),
        make(
            "--round",
            type=click.IntRange(min=0),
            metavar="N",
            help="Note this number in `made`: the round of training the model stands in.",
        ),
    ]
