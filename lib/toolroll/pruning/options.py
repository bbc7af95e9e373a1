"""The options that say what is pruned, the same in every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from toolroll.errors import ToolrollError, UsageError

if TYPE_CHECKING:
    from toolroll.pruning.heads import Mask
    from toolroll.pruning.plan import Plan, Softmax
    from toolroll.pruning.shape import Shape

SECTION = "Pruning"


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The values of the options; `window` 0 is none."""

    plan: Path | None = None
    window: int | None = None
    window_causal: bool | None = None
    cross_tile: bool | None = None
    heads: str | None = None
    ffn: float | None = None
    cut: int | None = None
    softmax: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files they name."""
        heads = None if self.heads is None or _is_number(self.heads) else Path(self.heads)
        return tuple(path for path in (self.plan, heads) if path is not None)

    def check(self) -> None:
        """UsageError for files that have no plan or no mask, whatever model they are for."""
        from toolroll.pruning.heads import read_mask
        from toolroll.pruning.plan import read_plan

        for path in self.files:
            try:
                read_plan(path) if path is self.plan else read_mask(path)
            except ToolrollError as error:
                raise UsageError(error.why, place=error.place) from error

    def read(self, shape: Shape) -> Plan:
        """The plan for a model of this shape: that of --plan, with what other options say. UsageError if none."""
        from dataclasses import replace

        from toolroll.pruning.plan import Plan, read_plan

        changes: dict[str, Any] = {}
        if self.window is not None:
            changes["window"] = self.window or None
        for name in ("window_causal", "cross_tile", "ffn", "cut"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.softmax is not None:
            changes["softmax"] = cast("Softmax", self.softmax)
        try:
            base = Plan() if self.plan is None else read_plan(self.plan)
            if self.heads is not None:
                changes["heads"] = read_heads(self.heads, shape)
            return replace(base, **changes).checked(shape)
        except ToolrollError as error:
            place = error.place
            if place in ("heads", "cut", "ffn"):
                told = getattr(self, place)
                place = f"--{place}" if told is not None else str(self.plan)
                if place == "--heads" and not _is_number(str(told)):
                    place = str(told)
            raise UsageError(error.why, place=place) from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def read_heads(text: str, shape: Shape) -> Mask:
    """Heads from a file, or from the number of heads in every layer."""
    from toolroll.pruning.heads import read_mask
    from toolroll.pruning.plan import same_heads

    if _is_number(text):
        return same_heads(int(text), shape)
    return read_mask(Path(text)).heads


def plan_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `PlanOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section=SECTION, **settings)

    return [
        make(
            "--plan",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What vprune-plan --out wrote (.json); the options below go before it.",
        ),
        make(
            "--window",
            type=click.IntRange(min=0),
            metavar="W",
            help="A visual token attends to the W x W square around it in its own image, and to the text before; 0 is "
            "no window. [default: 0]",
        ),
        *window_options(option),
        make(
            "--heads",
            metavar="FILE|N",
            help="The heads that see visual tokens: a mask of vprune-calibrate (.safetensors), one of the authors' "
            "(.npy), or the first N of every layer. [default: all]",
        ),
        make(
            "--ffn",
            type=click.FloatRange(min=1),
            metavar="R",
            help="Visual tokens use the first m/R of m neurons. [default: 1]",
        ),
        make(
            "--cut",
            type=click.IntRange(min=0),
            metavar="LAYER",
            help="The first layer, from 0, that visual tokens do not enter. [default: none]",
        ),
        make(
            "--softmax",
            type=click.Choice(["renorm", "authors"]),
            help="renorm: what is pruned is not in the softmax, and not computed. authors: it is multiplied by 0 "
            "behind the softmax, as in the authors' code, which saves nothing but --ffn. [default: renorm]",
        ),
    ]


def window_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `PlanOptions` that say what a window leaves out."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section=SECTION, **settings)

    return [
        make(
            "--window-causal/--no-window-causal",
            default=None,
            help="In the window, only what comes earlier; or later neighbours too, as the authors' checkpoints need. "
            "[default: window-causal]",
        ),
        make(
            "--cross-tile/--no-cross-tile",
            default=None,
            help="With a window, all visual tokens of earlier images and tiles are seen too. [default: no-cross-tile]",
        ),
    ]


def pairs_option(option: Callable[..., click.Option]) -> click.Option:
    """--pairs."""
    return option(
        ["--pairs"],
        type=click.Choice(["full", "causal"]),
        default="full",
        show_default=True,
        help="Count all pairs of visual tokens, as the paper does, or each once.",
    )


def choice_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of commands that choose heads."""
    return [
        option(
            ["--protect-layers"],
            type=click.IntRange(min=0),
            default=2,
            show_default=True,
            metavar="N",
            help="The first N layers keep all heads.",
        ),
        option(["--group-heads"], is_flag=True, help="Decide together on heads that share keys and values."),
    ]
