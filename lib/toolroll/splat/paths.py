"""Ways for a camera through a scene, from the cameras that there are: spiral, orbit, and from one to the next.

Poses are float64 [4, 4], world to camera; the camera looks along +z, x right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import UsageError
from toolroll.splat.poses import inverse, quaternion, rotation

Pose = NDArray[np.float64]
Floats = NDArray[np.float64]
TURNS = 2  #: of a spiral
REACH = 90  #: percentile of the cameras' distances from their mean, which a spiral goes as far as


def focus(poses: Sequence[Pose]) -> Floats:
    """The point [3] that is nearest to all axes of view; of parallel ones, one unit in front of the mean camera."""
    turned: Any = np.zeros((3, 3))
    summed: Any = np.zeros(3)
    for pose in poses:
        place, ahead = _place(pose), pose[2, :3]
        across = np.eye(3) - np.outer(ahead, ahead)
        turned += across
        summed += across @ place
    if np.linalg.cond(turned) > 1e9:
        if _ahead(poses) is None:
            raise UsageError("the cameras look along one line, both ways: they have no focus", place="--path")
        mean = _mean(poses)
        return _place(mean) + mean[2, :3]
    found: Floats = np.linalg.solve(turned, summed)
    return found


def orbit(poses: Sequence[Pose], count: int) -> list[Pose]:
    """Once around the focus, as far from its axis and as high as the cameras are on average, looking at it."""
    centre, up = focus(poses), upwards(poses)
    offsets = np.stack([_place(pose) - centre for pose in poses])
    heights = offsets @ up
    flat = offsets - heights[:, None] * up
    radius, height = float(np.median(np.linalg.norm(flat, axis=1))), float(np.mean(heights))
    if radius <= 1e-9 * float(np.linalg.norm(offsets, axis=1).max()):
        raise UsageError("the cameras are above their focus: there is no way around it", place="--path")
    first = flat[int(np.argmax(np.linalg.norm(flat, axis=1)))]
    first = first / np.linalg.norm(first)
    second = np.cross(up, first)
    angles = 2 * math.pi * np.arange(count) / count
    return [
        look_at(centre + height * up + radius * (math.cos(a) * first + math.sin(a) * second), centre, up)
        for a in angles
    ]


def spiral(poses: Sequence[Pose], count: int) -> list[Pose]:
    """Two turns around the mean camera, which looks at the focus's depth all along (Mildenhall et al. 2019)."""
    mean = _mean(poses)
    back = inverse(mean)
    depth = max(float((mean[:3, :3] @ focus(poses) + mean[:3, 3])[2]), 1e-6)
    places = np.stack([mean[:3, :3] @ _place(pose) + mean[:3, 3] for pose in poses])
    reach = np.percentile(np.abs(places), REACH, axis=0)
    target = back[:3, :3] @ [0.0, 0.0, depth] + back[:3, 3]
    made = []
    for a in 2 * math.pi * TURNS * np.arange(count) / count:
        here = reach * [math.cos(a), -math.sin(a), -math.sin(a / 2)]
        made.append(look_at(back[:3, :3] @ here + back[:3, 3], target, -back[:3, 1]))
    return made


def interpolated(poses: Sequence[Pose], count: int) -> list[Pose]:
    """From the first camera through all others to the last: a smooth curve of places, the shortest turns between."""
    if len(poses) == 1:
        return [poses[0]] * count
    places = np.stack([_place(pose) for pose in poses])
    turns = [np.array(quaternion(pose[:3, :3])) for pose in poses]
    made = []
    for at in np.linspace(0, len(poses) - 1, count):
        k = min(int(at), len(poses) - 2)
        part = float(at) - k
        pose = np.eye(4)
        pose[:3, :3] = rotation(_between(turns[k], turns[k + 1], part).tolist())
        pose[:3, 3] = -pose[:3, :3] @ _curve(places, k, part)
        made.append(pose)
    return made


WAYS: dict[str, Callable[[Sequence[Pose], int], list[Pose]]] = {
    "orbit": orbit,
    "spiral": spiral,
    "interpolate": interpolated,
}


def look_at(place: Floats, target: Floats, up: Floats) -> Pose:
    """The pose of a camera at a place that looks at a target, with `up` upwards in its picture."""
    ahead = target - place
    ahead = ahead / np.linalg.norm(ahead)
    right: Any = np.cross(ahead, up)
    if np.linalg.norm(right) < 1e-9 * np.linalg.norm(up):  # straight up or down: any way round
        right = np.cross(ahead, np.eye(3)[int(np.argmin(np.abs(ahead)))])
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead])
    pose[:3, 3] = -pose[:3, :3] @ place
    return pose


def _place(pose: Pose) -> Floats:
    found: Floats = -pose[:3, :3].T @ pose[:3, 3]
    return found


def upwards(poses: Sequence[Pose]) -> Floats:
    """The direction [3] that is up in the cameras' pictures, on average. UsageError where there is none."""
    total = -np.sum([pose[1, :3] for pose in poses], axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6 * len(poses):
        raise UsageError("the cameras have no common upwards", place="--path")
    found: Floats = total / length
    return found


def _ahead(poses: Sequence[Pose]) -> Floats | None:
    """The sum of all axes of view; None where there is none."""
    ahead: Floats = np.sum([pose[2, :3] for pose in poses], axis=0)
    return None if np.linalg.norm(ahead) < 1e-6 * len(poses) else ahead


def _mean(poses: Sequence[Pose]) -> Pose:
    """The camera in the middle of all: mean place, mean axis of view, upright as they are."""
    ahead = _ahead(poses)
    if ahead is None:
        raise UsageError("the cameras look all ways: there is no camera in their middle; take orbit", place="--path")
    place = np.mean([_place(pose) for pose in poses], axis=0)
    return look_at(place, place + ahead, upwards(poses))


def _between(one: Floats, other: Floats, part: float) -> Floats:
    """The quaternion a part of the shortest way from one to another."""
    cosine = float(one @ other)
    if cosine < 0:
        other, cosine = -other, -cosine
    if cosine > 0.9995:
        made = one + part * (other - one)
    else:
        angle = math.acos(cosine)
        made = (math.sin((1 - part) * angle) * one + math.sin(part * angle) * other) / math.sin(angle)
    found: Floats = made / np.linalg.norm(made)
    return found


def _curve(places: Floats, k: int, part: float) -> Floats:
    """A place on the curve of Catmull and Rom through all, between the k-th and the next."""
    before, after = places[max(k - 1, 0)], places[min(k + 2, len(places) - 1)]
    start, end = places[k], places[k + 1]
    found: Floats = 0.5 * (
        2 * start
        + (end - before) * part
        + (2 * before - 5 * start + 4 * end - after) * part**2
        + (3 * start - before - 3 * end + after) * part**3
    )
    return found
