"""Edits of photos: a thing is removed, recoloured or put in once more; outside its mask no pixel changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.errors import RowError
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit
from toolroll.world.images import photo_size, pillow, read_mask, read_photo
from toolroll.world.pairs import ImagePair
from toolroll.world.regions import changed, difference, dilated
from toolroll.world.render import Box, box_of
from toolroll.world.segment import find_regions, region_in

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

EDITS = ("remove", "recolor", "insert")
LEAST_SEEN = 20.0  #: of 255: mean difference within the mask below which an edit is invisible
LEAST_SIDE = 24  #: pixels of the shorter side of a photo
PLACES = 60  #: looked at for a thing that is put in once more


@dataclass(frozen=True)
class Photo:
    """A photo and the things in it that may be edited; `given` if their masks are the user's."""

    image: Array
    masks: list[Array]
    given: bool


def photo_of(path: str, mask: str | None, bbox: Sequence[float] | None, *, longest: int, seed: int) -> Photo:
    """A photo with the user's mask or box (left, top, right, bottom, in pixels of the file), or what stands out in it.

    Raises RowError where the image, the mask or the box is not usable, or nothing stands out.
    """
    image = read_photo(path, longest)
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise RowError(f"a photo of {width}x{height} pixels is too small: {path}")
    if mask is not None:
        return Photo(image, [read_mask(mask, photo_size(path), width, height)], given=True)
    if bbox is not None:
        return Photo(image, [region_in(image, _box(bbox, photo_size(path), width, height), seed)], given=True)
    found = [region.mask for region in find_regions(image, seed)]
    if not found:
        raise RowError(f"nothing in it stands out; give a mask or a bbox: {path}")
    return Photo(image, found, given=False)


def _box(bbox: Sequence[float], photo: tuple[int, int], width: int, height: int) -> Box:
    if len(bbox) != 4:
        raise RowError("bbox: want left, top, right, bottom")
    across, down = width / photo[0], height / photo[1]
    left, top, right, bottom = (
        round(value * scale) for value, scale in zip(bbox, (across, down, across, down), strict=True)
    )
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise RowError(f"bbox {list(bbox)} is not within a photo of {photo[0]}x{photo[1]}, or is empty")
    if (right - left) * (bottom - top) > 0.9 * width * height:
        raise RowError(f"bbox {list(bbox)} is nearly the whole photo")
    return left, top, right, bottom


def photo_pair(photo: Photo, edit: str, draws: Draws) -> ImagePair:
    """The photo, and the photo after an edit that can be seen. Raises CannotEdit, with the last reason."""
    why = "it has nothing to edit"
    for mask in photo.masks if photo.given else _best_first(photo.masks, draws):
        try:
            modified, touched, new_box = _EDITS[edit](photo.image, mask, draws)
        except CannotEdit as error:
            why = str(error)
            continue
        seen = float(difference(photo.image, modified)[touched].mean())
        if seen < LEAST_SEEN:
            why = f"the edit would hardly be seen: it changes its pixels by {seen:.1f} of 255, {LEAST_SEEN:g} are asked"
            continue
        box = box_of(mask)
        assert box is not None
        change = {"op": edit, "box": list(box), "now": list(new_box) if new_box else None, "said": _SAID[edit]}
        before = [box] if edit != "insert" else []
        after = [new_box] if new_box else []
        share = float(changed(photo.image, modified).mean())
        return ImagePair(photo.image, modified, edit, [change], {"original": before, "modified": after}, share)
    raise CannotEdit(why)


def _best_first(masks: list[Array], draws: Draws) -> list[Array]:
    """The masks, where one of the best three comes first by chance."""
    start = draws.below(min(3, len(masks)))
    return [masks[start], *masks[:start], *masks[start + 1 :]]


Edited = tuple["Array", "Array", Box | None]  #: image, the pixels that may have changed, where the thing is now


def remove(image: Array, mask: Array, draws: Draws) -> Edited:  # noqa: ARG001
    """The thing is gone: its pixels and some around them are filled with what is near."""
    from toolroll.world.inpaint import filled

    height, width = mask.shape
    hole = dilated(mask, max(2, round(0.012 * min(height, width))))
    if hole.mean() > 0.5:
        raise CannotEdit("the thing takes more than half of the photo")
    return filled(image, hole), hole, None


def recolor(image: Array, mask: Array, draws: Draws) -> Edited:
    """The thing has another hue, and some saturation if it had none."""
    hsv = np.asarray(pillow().fromarray(image).convert("HSV")).astype(np.int16)
    turn = draws.whole(75, 180)  # of 256
    shifted = hsv.copy()
    shifted[..., 0] = (hsv[..., 0] + turn) % 256
    shifted[..., 1] = np.maximum(hsv[..., 1], 110)
    # dark things get some light, or their hue could not be seen
    middle = float(np.median(hsv[..., 2][mask]))
    if middle < 90:
        shifted[..., 2] = np.minimum(hsv[..., 2] * (90 / max(middle, 25)), 255).astype(np.int16)
    planes = [pillow().fromarray(plane.astype(np.uint8)) for plane in np.moveaxis(shifted, -1, 0)]
    colored = np.asarray(pillow().merge("HSV", planes).convert("RGB"))
    return blended(image, colored, mask), mask, box_of(mask)


def insert(image: Array, mask: Array, draws: Draws) -> Edited:
    """The thing is there once more, at another place that is as calm as can be found."""
    box = box_of(mask)
    assert box is not None
    left, top, right, bottom = box
    height, width = mask.shape
    wide, high = right - left, bottom - top
    if width - wide < 3 or height - high < 3:
        raise CannotEdit("there is no room to put the thing in once more")
    cut = mask[top:bottom, left:right]
    smooth = np.abs(np.diff(image.astype(np.int16), axis=1)).max(axis=2)
    best: tuple[float, Array] | None = None
    near = dilated(mask, 2)
    for _ in range(PLACES):
        x, y = 1 + draws.below(width - wide - 1), 1 + draws.below(height - high - 1)
        there = np.zeros_like(mask)
        there[y : y + high, x : x + wide] = cut
        if (there & near).any():
            continue
        unrest = float(smooth[y : y + high, x : x + wide - 1].mean()) if wide > 1 else 0.0
        if best is None or unrest < best[0]:
            best = (unrest, there)
    if best is None:
        raise CannotEdit("there is no room to put the thing in once more")
    there = best[1]
    new = box_of(there)
    assert new is not None
    moved = image.copy()
    moved[new[1] : new[3], new[0] : new[2]] = image[top:bottom, left:right]
    return blended(image, moved, there), there, new


def blended(image: Array, other: Array, mask: Array) -> Array:
    """`other` within a mask, laid over with a soft edge that lies inside it; outside, `image` to the bit."""
    from PIL import ImageFilter

    soft = pillow().fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.0))
    weight = np.clip(np.asarray(soft).astype(float) / 255 * 2 - 1, 0.0, 1.0)
    weight = np.where(mask, np.maximum(weight, 0.25), 0.0)[..., None]
    mixed = np.rint(weight * other + (1 - weight) * image).astype(np.uint8)
    found: Array = np.where(mask[..., None], mixed, image)
    return found


_EDITS = {"remove": remove, "recolor": recolor, "insert": insert}
_SAID = {
    "remove": "a thing was removed",
    "recolor": "a thing has another colour",
    "insert": "a thing was put in once more",
}
