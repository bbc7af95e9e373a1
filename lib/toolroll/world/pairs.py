"""Pairs of images that differ in a known way, and the checks that the difference can be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.world.clevr import scene_json
from toolroll.world.constants import least_pixels
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit, Change, Edit
from toolroll.world.regions import changed
from toolroll.world.render import Box, Owners, owners, render
from toolroll.world.scene import Scene

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

TRIES = 20  #: edits tried on a scene until it counts as one that cannot be edited so
SHARE = (0.01, 0.15)  #: of the pixels of a scene that an edit changes
UNCHANGED = ("same", "blank")  #: kinds of pairs in which nothing is edited


@dataclass(frozen=True)
class ImagePair:
    """Two images of one size, uint8 (height, width, 3), and how they differ.

    `boxes` are where the edited things are in each, `share` is the part of the pixels that changed, 0 .. 1, `about`
    what belongs to this kind of pair, such as the scenes.
    """

    original: Array
    modified: Array
    edit: str
    changes: list[dict[str, Any]]
    boxes: dict[str, list[Box]]
    share: float
    about: dict[str, Any] = field(default_factory=dict)


def difficulty(share: float, most: float) -> float:
    """How hard the change is to find, from its size: 0 if it takes `most` of the pixels or more, 1 for none.

    >>> difficulty(0.15, 0.15), difficulty(0.03, 0.15), difficulty(0.0, 0.15)
    (0.0, 0.8, 1.0)
    """
    return round(1.0 - min(share / most, 1.0), 6)


def unchanged_pair(image: Array, edit: str, blank: tuple[int, int, int], **about: Any) -> ImagePair:
    """A pair whose second image is the first once more (`same`), or of one colour (`blank`)."""
    modified = image.copy() if edit == "same" else np.broadcast_to(np.array(blank, np.uint8), image.shape).copy()
    share = float(changed(image, modified).mean())
    return ImagePair(image, modified, edit, [], {"original": [], "modified": []}, share, about)


@dataclass(frozen=True, slots=True)
class SceneRules:
    """What a pair of scenes has to keep: the size of its images, and the share of pixels that changes."""

    width: int = 320
    height: int = 240
    share: tuple[float, float] = SHARE

    @property
    def least(self) -> int:
        """Pixels that must be seen of an edited object."""
        return least_pixels(self.width, self.height)


def scene_pair(scene: Scene, name: str, edit: Edit, draws: Draws, rules: SceneRules) -> ImagePair:
    """The scene, and the scene after an edit that can be seen. Raises CannotEdit, with the reason met most often."""
    width, height = rules.width, rules.height
    before = owners(scene, width, height)
    allowed = [int(number) for number in np.flatnonzero(before.seen >= rules.least)]
    reasons: Counter[str] = Counter()
    original: Array | None = None
    for _ in range(TRIES):
        try:
            after_scene, changes = edit(scene, allowed, draws)
            after = owners(after_scene, width, height)
            check_visible(before, after, changes, rules.least)
            if original is None:
                original = render(scene, width, height)
            modified = render(after_scene, width, height)
            share = float(changed(original, modified).mean())
            if not rules.share[0] <= share <= rules.share[1]:
                low, high = rules.share
                raise CannotEdit(f"the edit would not change between {low:.3g} and {high:.3g} of the pixels")
        except CannotEdit as error:
            reasons[str(error)] += 1
            continue
        return ImagePair(
            original,
            modified,
            name,
            [change.as_json() for change in changes],
            edited_boxes(before, after, changes),
            share,
            {
                "original_scene": scene_json(scene, width, height),
                "modified_scene": scene_json(after_scene, width, height),
            },
        )
    raise CannotEdit(reasons.most_common(1)[0][0])


def check_visible(before: Owners, after: Owners, changes: Sequence[Change], least: int) -> None:
    """Raises CannotEdit unless all edited objects are seen, and no other goes out of sight."""
    for change in changes:
        if change.after is not None and after.seen[change.after] < least:
            raise CannotEdit("the edited object would be hidden")
    gone = {change.before for change in changes if change.after is None}
    stays = [number for number in range(len(before.alone)) if number not in gone]
    for number, later in zip(stays, range(len(stays)), strict=True):
        if before.seen[number] >= least > after.seen[later]:
            raise CannotEdit("another object would be hidden")


def edited_boxes(before: Owners, after: Owners, changes: Sequence[Change]) -> dict[str, list[Box]]:
    """The boxes of the edited objects in both images."""

    def boxes(of: Owners, numbers: Sequence[int | None]) -> list[Box]:
        return [box for number in numbers if number is not None and (box := of.box(number)) is not None]

    return {
        "original": boxes(before, [change.before for change in changes]),
        "modified": boxes(after, [change.after for change in changes]),
    }


def made_pair(
    make_scene: Callable[[Draws], Scene], name: str, edit: Edit, draws: Draws, rules: SceneRules, *, scenes: int
) -> ImagePair:
    """A pair from a scene that `make_scene` draws; drawn anew, `scenes` times at most, while it cannot be edited so."""
    why = CannotEdit("no scene was drawn")
    for _ in range(scenes):
        try:
            return scene_pair(make_scene(draws), name, edit, draws, rules)
        except CannotEdit as error:
            why = error
    raise why
