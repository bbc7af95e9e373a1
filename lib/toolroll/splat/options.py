"""The options of nvs-train: how Gaussians are trained, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolroll.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from toolroll.splat.fit import Recipe
    from toolroll.splat.growth import Growth

LONG = 30_000  #: steps that gsplat's schedules and rates are made for
WIDE = 1000  #: pixels of a longer side that its threshold of growth is made for
NETWORK = "ibrnet.json"  #: the file that shows that a folder has a network
COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """The values of the options."""

    sh_degree: int = 3
    sh_every: int | None = None
    ssim_weight: float = 0.2
    lr_means: float = 1.6e-4
    lr_scales: float | None = None
    lr_opacities: float = 5e-2
    lr_quats: float = 1e-3
    lr_sh: float = 2.5e-3
    opacity_reg: float | None = None
    scale_reg: float | None = None
    exposure: bool = False
    antialiased: bool = False
    background: str = "black"

    def recipe(self, steps: int, growth: Growth) -> Recipe:
        """The recipe of a run of so many steps; what is not given is as `recipe_options` says."""
        from toolroll.splat.fit import Recipe

        mcmc = 0.01 if growth.kind == "mcmc" else 0.0
        haste = (max(1.0, LONG / steps)) ** (1 / 3)
        return Recipe(
            steps=steps,
            degree=self.sh_degree,
            degree_every=self.sh_every or max(1, min(1000, steps // 6)),
            means=self.lr_means,
            scales=5e-3 * haste if self.lr_scales is None else self.lr_scales,
            logits=self.lr_opacities,
            quats=self.lr_quats,
            sh0=self.lr_sh,
            shn=self.lr_sh / 20,
            ssim=self.ssim_weight,
            opacity_reg=mcmc if self.opacity_reg is None else self.opacity_reg,
            scale_reg=mcmc if self.scale_reg is None else self.scale_reg,
            exposure=0.01 if self.exposure else 0.0,
            antialiased=self.antialiased,
            background=COLOURS.get(self.background),
            growth=growth,
        )


@dataclass(frozen=True, slots=True)
class GrowthOptions:
    """The values of the options."""

    growth: str = "default"
    cap: int = 1_000_000
    refine_from: int | None = None
    refine_until: int | None = None
    refine_every: int | None = None
    reset_every: int = 3000
    grow_gradient: float | None = None

    def of(self, steps: int, longer_side: int) -> Growth:
        """The growth in a run of so many steps on photos of this size."""
        from dataclasses import replace
        from typing import cast

        from toolroll.splat.growth import Growth, Kind, growth_for

        gradient = 2e-4 * max(1.0, WIDE / longer_side) if self.grow_gradient is None else self.grow_gradient
        made = Growth(kind=cast("Kind", self.growth), reset_every=self.reset_every, gradient=gradient, cap=self.cap)
        made = growth_for(steps, made)
        given = {"first": self.refine_from, "until": self.refine_until, "every": self.refine_every}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(made, **changes)


def recipe_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `RecipeOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Training", **settings)

    rate = click.FloatRange(min=0)
    return [
        make(
            "--sh-degree",
            type=click.IntRange(0, 3),
            default=3,
            show_default=True,
            help="Degree of the spherical harmonics that make colours depend on the direction of view.",
        ),
        make(
            "--sh-every",
            type=click.IntRange(min=1),
            metavar="N",
            help="Begin with degree 0, and take a degree more every N steps. [default: a 6th of --steps, at most 1000]",
        ),
        make(
            "--ssim-weight",
            type=click.FloatRange(0, 1),
            default=0.2,
            show_default=True,
            help="Weight of 1 - SSIM in the loss; the rest is for the absolute error.",
        ),
        make(
            "--lr-means",
            type=rate,
            default=1.6e-4,
            show_default=True,
            help="Rate of means, which are where Gaussians are, in extents of the scene; falls to a 100th.",
        ),
        make("--lr-scales", type=rate, help="Rate of scales. [default: .005 times the cube root of 30000 / --steps]"),
        make("--lr-opacities", type=rate, default=5e-2, show_default=True, help="Rate of opacities."),
        make("--lr-quats", type=rate, default=1e-3, show_default=True, help="Rate of rotations."),
        make(
            "--lr-sh",
            type=rate,
            default=2.5e-3,
            show_default=True,
            help="Rate of colours; what depends on the direction of view has a 20th.",
        ),
        make("--opacity-reg", type=rate, help="Weight of the mean opacity. [default: 0; .01 with mcmc]"),
        make("--scale-reg", type=rate, help="Weight of the mean scale. [default: 0; .01 with mcmc]"),
        make("--exposure", is_flag=True, help="Train a gain and an offset of each colour of each photo, too."),
        make("--antialiased", is_flag=True, help="Keep the light of small Gaussians; viewers have to know of it."),
        make(
            "--background",
            type=click.Choice(["black", "white", "random"]),
            default="black",
            show_default=True,
            help="What is behind everything; random is another colour in each step.",
        ),
    ]


def growth_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `GrowthOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Density", **settings)

    count = click.IntRange(min=1)
    return [
        make(
            "--growth",
            type=click.Choice(["default", "mcmc", "none"]),
            default="default",
            show_default=True,
            help="Clone, split and prune; or move and add by opacity; or leave the number as it is.",
        ),
        make(
            "--cap",
            type=click.IntRange(min=0),
            default=1_000_000,
            show_default=True,
            metavar="N",
            help="Most Gaussians, also at the start; 0 is no limit.",
        ),
        make(
            "--refine-from",
            type=click.IntRange(min=0),
            metavar="STEP",
            help="Change the number of Gaussians only behind this step. [default: a 15th of --steps, up to 500]",
        ),
        make(
            "--refine-until",
            type=count,
            metavar="STEP",
            help="Change the number of Gaussians only before this step. [default: the half of --steps; 5/6 with mcmc]",
        ),
        make(
            "--refine-every",
            type=count,
            metavar="N",
            help="Change the number of Gaussians every N steps. [default: a 60th of --steps, at most 100]",
        ),
        make(
            "--reset-every",
            type=count,
            default=3000,
            show_default=True,
            metavar="N",
            help="--growth default: let opacities fall every N steps, so that what is not needed stays faint and goes.",
        ),
        make(
            "--grow-gradient",
            type=click.FloatRange(min=0),
            help="--growth default: how much a mean has to be pulled for its Gaussian to grow, in halves of the "
            "picture. [default: .0002, and more for photos of less than 1000 pixels]",
        ),
    ]


def checked_folder(out: Path) -> Path:
    """A folder to write into, which need not be there. UsageError where something else is."""
    if out.exists() and not out.is_dir():
        raise UsageError("is no folder", place="--out")
    return out


def refuse_given(names: Container[str], why: str) -> None:
    """UsageError for one of these options that is on the command line."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise UsageError(why, place=param.opts[0])


def read_bytes(text: str) -> int:
    """A number of bytes, with k, m or g.

    >>> read_bytes("2g"), read_bytes("500m")
    (2147483648, 524288000)
    """
    factors = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in factors else (text, "")
    if not number.isdecimal():
        raise UsageError("want a number of bytes, as 500m or 2g", place=text)
    return int(number) * factors.get(unit, 1)
