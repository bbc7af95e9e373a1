"""The options of nvs-eval and nvs-bench that say what pictures are compared with, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from toolroll.errors import UsageError

SCENE = "{scene}"  #: stands for the name of a scene in nvs-bench's folders


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """The values of the options."""

    truth: str | None = None
    scene: str | None = None
    images: str | None = None
    split: str = "auto"
    side_by_side: bool = False
    only: str | None = None
    by_order: bool = False
    as_taken: bool = False
    background: str | None = None
    ssim_border: Literal["valid", "same"] = "valid"
    eight_bit: bool = True
    lpips_weights: tuple[str, ...] = ()
    lpips_kind: tuple[str, ...] = ()
    device: str = "auto"

    def check(self) -> None:
        """UsageError for options that exclude each other."""
        given = {"--truth": self.truth, "--side-by-side": self.side_by_side or None}
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) > 1 or (chosen and self.scene is not None):
            raise UsageError(f"does not go with {chosen[0]}", place=(chosen[1:] or ["--scene"])[0])

    def of(self, scene: str) -> ScoreOptions:
        """The options of a scene: with its name in the folders."""
        named = {name: value.replace(SCENE, scene) for name in ("truth", "scene") if (value := getattr(self, name))}
        return replace(self, **named)


def score_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `ScoreOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Pictures and scores", **settings)

    return [
        make("--truth", metavar="DIR", help="Compare with the photos in this folder, by name without suffix."),
        make("--scene", metavar="DIR", help="Compare with the tested photos of this scene; else the one trained on."),
        make("--images", metavar="NAME", help="The scene's folder of photos; else as trained on, else the largest."),
        make(
            "--split",
            default="auto",
            show_default=True,
            metavar="RULE",
            help="--scene: which photos are tested, as nvs-prep(1) has it. Of a folder of nvs-train: as trained.",
        ),
        make("--side-by-side", is_flag=True, help="Each picture has the photo in its left half."),
        make("--only", metavar="PATTERN", help="Only pictures with such a name, as 'eval_img_*'."),
        make("--by-order", is_flag=True, help="Pair pictures and photos in the order of names, not by names."),
        make("--as-taken", is_flag=True, help="--scene: compare with photos that are not straightened."),
        make(
            "--background",
            type=click.Choice(["black", "white"]),
            help="Lay what is transparent on this; else it does not count in photos.",
        ),
        make(
            "--ssim-border",
            type=click.Choice(["valid", "same"]),
            default="valid",
            show_default=True,
            help="SSIM: windows inside the picture alone, or at each pixel with zeros around.",
        ),
        make(
            "--eight-bit/--no-eight-bit",
            default=True,
            show_default=True,
            help="Round picture and photo to 8 bits first. PNGs mostly are; .npy is not.",
        ),
        make(
            "--lpips-weights",
            multiple=True,
            type=click.Path(),
            metavar="FILE.safetensors",
            help="Weights of AlexNet or VGG16 for LPIPS. Without, there is no LPIPS.",
        ),
        make(
            "--lpips-kind",
            multiple=True,
            type=click.Choice(["lpips-alex", "lpips-vgg", "lpips-vgg-3dgs"]),
            help="Which LPIPS; else lpips-alex or lpips-vgg, by the weights.",
        ),
        make("--device", default="auto", show_default=True, help="For LPIPS: auto, cpu, cuda or cuda:N."),
    ]
