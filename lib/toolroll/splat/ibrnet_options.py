"""The options of nvs-train --method ibrnet: what the network is, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolroll.splat.ibrnet_fit import IbrRecipe

FIFTH = 5  #: rates are halved after each fifth of a run, as published


@dataclass(frozen=True, slots=True)
class IbrOptions:
    """The values of the options."""

    pretrained: str | None = None
    trunk_width: int | None = None
    views: int = 10
    samples: int = 64
    fine_samples: int | None = None
    rays: int = 500
    photo_side: int = 0
    lr_features: float = 1e-3
    lr_rays: float = 5e-4
    halve_every: int | None = None
    eval_photos: int = 0

    def recipe(self, steps: int) -> IbrRecipe:
        """The recipe of a run of so many steps."""
        from toolroll.splat.ibrnet_fit import IbrRecipe

        return IbrRecipe(
            steps=steps,
            width=self.trunk_width,
            views=self.views,
            samples=self.samples,
            fine=self.fine_samples,
            rays=self.rays,
            side=self.photo_side,
            lr_features=self.lr_features,
            lr_rays=self.lr_rays,
            halve_every=self.halve_every or -(-steps // FIFTH),
            start=self.pretrained or "",
            eval_photos=self.eval_photos,
        )


def ibr_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `IbrOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="IBRNet", **settings)

    rate = click.FloatRange(min=0)
    return [
        make(
            "--pretrained",
            type=click.Path(exists=True, file_okay=False),
            metavar="DIR",
            help="Begin with the network of a folder, on other scenes or on some more.",
        ),
        make(
            "--trunk-width",
            type=click.IntRange(1, 1024),
            metavar="N",
            help="Channels of the trunk's first stage. [default: as in --pretrained, else 64, ResNet-34's]",
        ),
        make(
            "--views",
            type=click.IntRange(min=2),
            default=10,
            show_default=True,
            metavar="N",
            help="Photos that a picture is drawn from.",
        ),
        make(
            "--samples",
            type=click.IntRange(min=3),
            default=64,
            show_default=True,
            metavar="N",
            help="Points along each ray, evenly in 1 / depth.",
        ),
        make(
            "--fine-samples",
            type=click.IntRange(min=0),
            metavar="N",
            help="More points where something is, for a second network; 0: none. [default: as in --pretrained, "
            "else 64]",
        ),
        make(
            "--rays", type=click.IntRange(min=1), default=500, show_default=True, metavar="N", help="Rays in each step."
        ),
        make(
            "--photo-side",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="PIXELS",
            help="Make photos smaller, whose longer side is more than this; 0: none.",
        ),
        make("--lr-features", type=rate, default=1e-3, show_default=True, help="Rate of the trunk."),
        make("--lr-rays", type=rate, default=5e-4, show_default=True, help="Rate of the networks along rays."),
        make(
            "--halve-every",
            type=click.IntRange(min=1),
            metavar="N",
            help="Halve both rates every N steps. [default: a fifth of --steps]",
        ),
        make(
            "--eval-photos",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            help="Score and draw N test photos of each scene at most; 0: all.",
        ),
    ]
