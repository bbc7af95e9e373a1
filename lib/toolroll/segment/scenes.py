"""Images with named segments, and the sets they come from.

A set is named by a text: `camvid:DIR` (folders of images and of label images), `coco:FILE.json` (instances),
`rows:FILE.jsonl` (rows with `image` and `truth`), `shapes[:SEED]` and `streets[:SEED]`, which are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import UsageError
from toolroll.segment.masks import Mask
from toolroll.segment.prompts import Prompts

KINDS = ("camvid", "coco", "rows", "shapes", "streets")


@dataclass(frozen=True, slots=True)
class Segment:
    """A thing, or all of some stuff: its class by name, and its mask [H, W]."""

    name: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class Scene:
    """An image [H, W, 3] in 8 bits, its segments, and the pixels [H, W] of which nothing is known (none if null).

    Pixels of no segment are none of the set's classes.
    """

    id: str
    image: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    ignore: Mask | None = None


class Scenes(Protocol):
    """A set of scenes: `classes` are all its prompts; `size` is None where scenes are drawn without end."""

    classes: Prompts
    size: int | None

    def scene(self, number: int) -> Scene:
        """The scene of this number. ToolrollError where its files are not sound."""
        ...

    def path(self, number: int) -> str:
        """The file of an image; of a drawn one there is none, and this is not asked."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What sets are asked for: `split` of camvid; `width` x `height` of drawn ones; `objects` and `held_out` of shapes;
    `images`, the folder of the images of coco and rows.

    `held_out`: "keep" draws all names, "without" none of those that are held out, "only" has one of them in each scene.
    """

    split: str = "train"
    width: int = 64
    height: int = 64
    objects: int = 8
    held_out: str = "without"
    images: Path | None = None


def open_scenes(name: str, settings: Settings) -> Scenes:
    """The set of this name. UsageError for a name that is none."""
    kind, _, rest = name.partition(":")
    if kind not in KINDS:
        raise UsageError(f"want one of {', '.join(KINDS)}, with what follows a colon", place=name)
    if kind in ("shapes", "streets") and rest and not rest.isdigit():
        raise UsageError("what follows the colon is a seed", place=name)
    if kind in ("camvid", "coco", "rows") and not rest:
        raise UsageError(f"{kind} needs a {'folder' if kind == 'camvid' else 'file'} behind a colon", place=name)
    return _OPENERS[kind](rest, settings)


def source_file(name: str) -> str | None:
    """The file that a set of this name is read from, if it is one.

    >>> source_file("rows:a.jsonl"), source_file("shapes:1")
    ('a.jsonl', None)
    """
    kind, _, rest = name.partition(":")
    return rest if kind in ("coco", "rows") and rest else None


def _camvid(rest: str, settings: Settings) -> Scenes:
    from toolroll.segment.folders import Camvid

    return Camvid(rest, settings.split)


def _coco(rest: str, settings: Settings) -> Scenes:
    from toolroll.segment.coco import Coco

    return Coco(rest, settings.images)


def _rows(rest: str, settings: Settings) -> Scenes:
    from toolroll.segment.folders import RowScenes

    return RowScenes(rest, settings.images)


def _shapes(rest: str, settings: Settings) -> Scenes:
    from toolroll.segment.shapes import Shapes

    return Shapes(int(rest or 0), settings.width, settings.height, objects=settings.objects, held_out=settings.held_out)


def _streets(rest: str, settings: Settings) -> Scenes:
    from toolroll.segment.streets import Streets

    return Streets(int(rest or 0), settings.width, settings.height)


_OPENERS: dict[str, Callable[[str, Settings], Scenes]] = {
    "camvid": _camvid,
    "coco": _coco,
    "rows": _rows,
    "shapes": _shapes,
    "streets": _streets,
}


def labels_of(
    segments: Sequence[Segment], ignore: Mask | None, prompts: Prompts, height: int, width: int
) -> NDArray[np.int64]:
    """The number of each pixel's class among K prompts [H, W], by any of their phrases; K where it is of none of them,
    -1 where that is not known. Where segments overlap the later one counts.
    """
    labels = np.full((height, width), len(prompts))
    numbers = {word.casefold(): number for number, words in enumerate(prompts) for word in words}
    for segment in segments:
        labels[segment.mask] = numbers.get(segment.name.casefold(), len(prompts))
    if ignore is not None:
        labels[ignore] = -1
    return labels
