"""Poses of cameras: rotations and quaternions, matrices of files made rigid, and the step from one world to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  #: between the axes of OpenGL (y up, z back) and OpenCV (y down, z ahead)
ROUGH = 1e-2  #: how far a rotation of a file may be from one, per number
FAR = 1e30  #: what is farther away than this is nowhere
SAME = 1e-2  #: how far cameras may be from where a step between worlds takes them, of the size of their cloud


def rotation(quaternion: Sequence[float]) -> Floats:
    """The rotation [3, 3] of a quaternion w, x, y, z of any length.

    >>> rotation([0.0, 0.0, 0.0, 2.0]).tolist()
    [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    given = np.asarray(quaternion, float)
    given = given / np.abs(given).max()  # so that no square is too large or too small
    w, x, y, z = given / np.linalg.norm(given)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion(turn: Floats) -> Floats:
    """The quaternion w, x, y, z, with w 0 or more, of a rotation [3, 3].

    >>> quaternion(np.diag([-1.0, -1.0, 1.0])).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    (a, b, c), (d, e, f), (g, h, i) = turn
    outer = (  # four times the product of the quaternion with itself
        np.array(
            [
                [1 + a + e + i, h - f, c - g, d - b],
                [h - f, 1 + a - e - i, b + d, c + g],
                [c - g, b + d, 1 - a + e - i, f + h],
                [d - b, c + g, f + h, 1 - a - e + i],
            ]
        )
    )
    row = outer[int(np.argmax(np.diag(outer)))]
    found = row / np.linalg.norm(row)
    return np.asarray(-found if found[0] < 0 else found) + 0.0


def rigid(matrix: Any) -> Floats | None:
    """A pose [4, 4] out of a file, with a rotation that is one to the last digit; None where it is no pose.

    A rotation may be off by the digits that were left out in writing, and have a scale, which says nothing of a camera.
    None: numbers that are not finite, a place beyond `FAR`, a mirrored or sheared rotation, another last row than 0, 0,
    0, 1, as of a matrix with its columns as rows, another shape than 4x4 or 3x4.
    """
    try:
        given = np.asarray(matrix, float)
    except (TypeError, ValueError, OverflowError):
        return None
    if given.shape not in ((4, 4), (3, 4)) or not np.isfinite(given).all() or np.abs(given[:3, 3]).max() > FAR:
        return None
    if len(given) == 4 and np.abs(given[3] - (0, 0, 0, 1)).max() > ROUGH:
        return None
    left, sizes, right = np.linalg.svd(given[:3, :3])
    turn = left @ right
    if sizes[2] <= ROUGH * sizes[0] or sizes[0] / sizes[2] > 1 + ROUGH or np.linalg.det(turn) < 0:
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, given[:3, 3]
    return pose


def inverse(pose: Floats) -> Floats:
    """Camera to world from world to camera, and back. [4, 4]."""
    made = np.eye(4)
    made[:3, :3] = pose[:3, :3].T
    made[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return made


def from_opengl(matrix: Floats) -> Floats:
    """World to camera in the axes of OpenCV, from camera to world in those of OpenGL. [4, 4]."""
    return inverse(matrix @ FLIP)


def to_opengl(pose: Floats) -> Floats:
    """The inverse of `from_opengl`."""
    return np.asarray(inverse(pose) @ FLIP)


def moved(points: Floats, step: Floats) -> Floats:
    """Points [P, 3] in another world; `step` is [3, 4]: a linear part and a shift."""
    with np.errstate(over="ignore", invalid="ignore"):  # of points that are nowhere, and stay there
        return np.asarray(points @ step[:, :3].T + step[:, 3])


def step_between(first: Sequence[Floats], second: Sequence[Floats]) -> Floats | None:
    """The similarity [3, 4] from one world to another, by the poses [4, 4], world to camera, of cameras in both.

    None with less than two places, or where no similarity leads from one to the other.
    """
    if len(first) < 2:
        return None
    old, new = (np.stack([inverse(pose) for pose in poses]) for poses in (first, second))
    left, _, right = np.linalg.svd(sum(b[:3, :3] @ a[:3, :3].T for a, b in zip(old, new, strict=True)))
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    a, b = old[:, :3, 3], new[:, :3, 3]
    a0, b0 = a.mean(0), b.mean(0)
    turned = (a - a0) @ turn.T
    size = float((turned**2).sum())
    scale = float((turned * (b - b0)).sum()) / size if size > 0 else 0.0
    step = np.concatenate([scale * turn, (b0 - scale * turn @ a0)[:, None]], 1)
    return step if scale > 0 and leads(step, first, second) else None


def leads(step: Floats, first: Sequence[Floats], second: Sequence[Floats]) -> bool:
    """Whether a step [3, 4] takes the places of cameras from one world to the other, but for the digits of a file."""
    a, b = (np.stack([inverse(pose)[:3, 3] for pose in poses]) for poses in (first, second))
    size = float(np.linalg.norm(b - b.mean(0), axis=1).max())
    digits = 1e-9 + 1e-9 * float(np.abs(b).max())
    return bool(np.linalg.norm(moved(a, step) - b, axis=1).max() <= SAME * size + digits)
