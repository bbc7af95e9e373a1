"""The options of pmp-train: what is trained, on what, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from toolroll.errors import UsageError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The values of the options of a new model."""

    base: str = ""
    pmp: str = "on"
    text_pos: str = "first"
    text: str = "lexicon"
    text_tokens: str = "sentence"
    templates: str = "none"
    queries: int = 20
    layers: int = 3
    width: int = 64
    freeze_base: bool = False

    def __post_init__(self) -> None:
        if self.width % 32:
            raise UsageError("want a multiple of 32", place="--decoder-width")
        if self.freeze_base and not self.base:
            raise UsageError("goes with --base", place="--freeze-base")


@dataclass(frozen=True, slots=True)
class DataOptions:
    """The values of the options of training data."""

    data: tuple[str, ...]
    images: Path | None = None
    split: str = "train"
    size: str = "160x128"
    objects: int = 8
    held_out: str = "without"
    train_prompts: str = "1-16"
    prompt_drop: float = 0.3
    most_present: int = 0

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height in which images are seen."""
        return read_size(self.size, 32)


def read_size(text: str, step: int = 1) -> tuple[int, int]:
    """Width and height in pixels, both multiples of `step`.

    >>> read_size("160x128", 32)
    (160, 128)
    """
    wide, _, high = text.partition("x")
    if not (wide.isascii() and wide.isdigit() and high.isascii() and high.isdigit()) or not all(
        32 <= int(one) <= 4096 for one in (wide, high)
    ):
        raise UsageError("want WIDTHxHEIGHT from 32x32 to 4096x4096", place=text)
    if int(wide) % step or int(high) % step:
        raise UsageError(f"both sides have to be multiples of {step}", place=text)
    return int(wide), int(high)


def shape_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `ModelShape`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Model", **settings)

    return [
        make(
            "--base",
            default="",
            metavar="NAME",
            help="Start from a Mask2Former, a folder or hub id of transformers; else the small model is made.",
        ),
        make(
            "--pmp",
            type=click.Choice(["on", "off"]),
            default="on",
            show_default=True,
            help="Whether the queries attend to the prompts.",
        ),
        make(
            "--text-pos",
            type=click.Choice(["first", "after-cross", "last"]),
            default="first",
            show_default=True,
            help="Where in a layer of the mask decoder queries attend to the prompts: first, behind the attention to "
            "the image, or last.",
        ),
        make(
            "--text-encoder",
            "text",
            default="lexicon",
            show_default=True,
            metavar="NAME",
            help="The text encoder: the table of words that ships, or a folder or hub id of a CLIP or a sentence "
            "encoder. It is not trained.",
        ),
        make(
            "--text-tokens",
            type=click.Choice(["sentence", "words"]),
            default="sentence",
            show_default=True,
            help="What the queries attend to: a token for each phrase, or for each of its words.",
        ),
        make(
            "--templates",
            default="none",
            show_default=True,
            metavar="none|vild|FILE",
            help="Sentences that phrases are put into: none, ViLD's 14, or a file with a line for each.",
        ),
        make(
            "--queries", type=click.IntRange(min=1), default=20, show_default=True, help="Queries of the small model."
        ),
        make(
            "--layers",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            help="Layers of the small model's mask decoder.",
        ),
        make(
            "--decoder-width",
            "width",
            type=click.IntRange(min=32),
            default=64,
            show_default=True,
            help="Width of the small model's mask decoder.",
        ),
        make("--freeze-base", is_flag=True, help="--base: train only the block and the head for classes."),
    ]


def data_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `DataOptions`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Data", **settings)

    return [
        make(
            "--data",
            multiple=True,
            required=True,
            metavar="NAME",
            help="camvid:DIR, coco:FILE, rows:FILE, shapes[:SEED] or streets[:SEED]. Can be given more than once: an "
            "example is of any of them, by equal chances.",
        ),
        make(
            "--images",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="coco, rows: where the images are; else near the file.",
        ),
        make("--split", default="train", show_default=True, metavar="NAME", help="camvid: the folder's part."),
        make(
            "--size",
            default="160x128",
            show_default=True,
            metavar="WxH",
            help="Size that images are seen in; both sides multiples of 32.",
        ),
        make("--objects", type=click.IntRange(1, 18), default=8, show_default=True, help="shapes: objects in a scene."),
        make(
            "--held-out",
            type=click.Choice(["keep", "without", "only"]),
            default="without",
            show_default=True,
            help="shapes: the six names that are held out are drawn like others, or not, or one is in each scene.",
        ),
        make(
            "--train-prompts",
            default="1-16",
            show_default=True,
            metavar="all|MIN-MAX",
            help="Prompts an image is asked with: all of the set in its order, or a number drawn for each, some of "
            "classes that the image has and some of others.",
        ),
        make(
            "--prompt-drop",
            type=click.FloatRange(0, 1, max_open=True),
            default=0.3,
            show_default=True,
            metavar="P",
            help="Chance that a class the image has is not asked for; its segments are then not to be found.",
        ),
        make(
            "--most-present",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            help="At most N prompts of classes that the image has; 0 is no limit.",
        ),
    ]
