"""Things in photos, found by colour: regions that are compact and stand out from what is around them.

The photo is smoothed, its colours (Lab) are clustered by k-means, and the pieces of the clusters that are large enough
and do not touch the border are ranked by solidity x contrast / (unrest around + 8). A heuristic: it finds cups, balls
and shirts, not what has many colours. Masks of a real segmenter are better and go before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.world.draws import Draws
from toolroll.world.images import pillow
from toolroll.world.regions import dilated, labelled
from toolroll.world.render import Box, box_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

AREA = (0.004, 0.06)  #: share of the photo that a region may have
CLUSTERS = (6, 10, 16)
LEAST_SOLIDITY = 0.7
LEAST_CONTRAST = 15.0  #: between the mean colours of a region and of what is around it, in Lab units
CALM = 8.0  #: added to the unrest of a ring, in Lab units
MOST = 12  #: regions that are given


@dataclass(frozen=True)
class Region:
    """A thing in a photo: its pixels, and how well it stands out (larger is better)."""

    mask: Array
    score: float


def find_regions(photo: Array, seed: int) -> list[Region]:
    """The things that stand out most, best first; no two overlap by half."""
    lab = lab_of(smoothed(photo))
    height, width = lab.shape[:2]
    found: list[Region] = []
    for clusters in CLUSTERS:
        which = clustered(lab, clusters, Draws(seed))
        for cluster in range(clusters):
            labels, _ = labelled(which == cluster)
            areas = np.bincount(labels.ravel())
            for number in np.flatnonzero((areas >= AREA[0] * height * width) & (areas <= AREA[1] * height * width)):
                region = _judged(labels == number, lab) if number else None
                if region is not None:
                    found.append(region)
    found.sort(key=lambda region: -region.score)
    kept: list[Region] = []
    for region in found:
        if not any((region.mask & other.mask).sum() > 0.5 * min(region.mask.sum(), other.mask.sum()) for other in kept):
            kept.append(region)
    return kept[:MOST]


def region_in(photo: Array, box: Box, seed: int) -> Array:
    """The thing in a box: what in it has not the colours around it; the whole box where that is nearly nothing."""
    left, top, right, bottom = box
    height, width = photo.shape[:2]
    lab = lab_of(smoothed(photo))
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    ring = dilated(inside, max(3, min(right - left, bottom - top) // 6)) & ~inside
    if not ring.any():
        return inside
    around = lab[ring]
    centers = _centers(around, min(6, len(around)), Draws(seed))
    distance = np.min([((lab - center) ** 2).sum(axis=2) for center in centers], axis=0) ** 0.5
    labels, _ = labelled(inside & (distance > 14.0))
    areas = np.bincount(labels.ravel())[1:]
    if not len(areas) or areas.max() < 0.05 * inside.sum():
        return inside
    return _without_holes(labels == 1 + int(areas.argmax()))


def _judged(mask: Array, lab: Array) -> Region | None:
    mask = _without_holes(mask)
    box = box_of(mask)
    height, width = mask.shape
    if box is None or box[0] == 0 or box[1] == 0 or box[2] == width or box[3] == height:
        return None
    solidity = float(mask.sum()) / hull_area(mask)
    if solidity < LEAST_SOLIDITY or mask.mean() > AREA[1]:
        return None
    near = dilated(mask, 2)
    ring = dilated(near, max(4, min(height, width) // 40)) & ~near
    if not ring.any():
        return None
    inner, around = lab[mask], lab[ring]
    contrast = float(np.linalg.norm(inner.mean(axis=0) - around.mean(axis=0)))
    if contrast < LEAST_CONTRAST:
        return None
    unrest = float(np.linalg.norm(around.std(axis=0)))
    return Region(mask, solidity * contrast / (unrest + CALM))


def _without_holes(mask: Array) -> Array:
    """A mask with its holes filled: all that cannot be reached from outside without crossing it."""
    outside, _ = labelled(np.pad(~mask, 1, constant_values=True))
    filled: Array = outside[1:-1, 1:-1] != outside[0, 0]
    return filled


def hull_area(mask: Array) -> float:
    """Area of the convex hull of a mask's pixels, each a unit square.

    >>> hull_area(np.ones((2, 3), bool)), hull_area(np.eye(2, dtype=bool))
    (6.0, 3.0)
    """
    points: list[tuple[int, int]] = []
    for row in np.flatnonzero(mask.any(axis=1)):
        columns = np.flatnonzero(mask[row])
        for column in (int(columns[0]), int(columns[-1]) + 1):
            points += [(column, int(row)), (column, int(row) + 1)]
    points = sorted(set(points))
    hull = [*_half_hull(points)[:-1], *_half_hull(points[::-1])[:-1]]
    pairs = zip(hull, [*hull[1:], hull[0]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def _half_hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    hull: list[tuple[int, int]] = []
    for x, y in points:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            hull.pop()
        hull.append((x, y))
    return hull


def smoothed(photo: Array) -> Array:
    """A photo without its small texture, edges kept: a median of 5 x 5, twice."""
    from PIL import ImageFilter

    image = pillow().fromarray(photo)
    for _ in range(2):
        image = image.filter(ImageFilter.MedianFilter(5))
    return np.asarray(image)


def lab_of(rgb: Array) -> Array:
    """CIE L*a*b* (D65) of sRGB bytes: L 0 .. 100, a and b about -110 .. 110.

    >>> lab_of(np.array([[[255, 255, 255]]])).round(1).tolist()
    [[[100.0, 0.0, 0.0]]]
    """
    part = rgb / 255.0
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = light @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1) + 0.0


def clustered(lab: Array, clusters: int, draws: Draws) -> Array:
    """The cluster of each pixel, (height, width), by k-means on every so many of them."""
    pixels = lab.reshape(-1, 3)
    step = max(1, len(pixels) // 4000)
    centers = _centers(pixels[::step], clusters, draws)
    return _nearest(pixels, centers).reshape(lab.shape[:2])


def _centers(points: Array, clusters: int, draws: Draws) -> Array:
    """k-means: starts from points far from each other (k-means++), then ten rounds."""
    chosen = [points[draws.below(len(points))]]
    distance = ((points - chosen[0]) ** 2).sum(axis=1)
    while len(chosen) < clusters:
        total = float(distance.sum())
        at = int(np.searchsorted(np.cumsum(distance), draws.uniform(0.0, total))) if total > 0 else 0
        chosen.append(points[min(at, len(points) - 1)])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(axis=1))
    centers = np.array(chosen)
    for _ in range(10):
        which = _nearest(points, centers)
        for cluster in range(clusters):
            own = points[which == cluster]
            if len(own):
                centers[cluster] = own.mean(axis=0)
    return centers


def _nearest(points: Array, centers: Array) -> Array:
    square = (centers**2).sum(axis=1) - 2 * points @ centers.T
    found: Array = square.argmin(axis=1)
    return found
