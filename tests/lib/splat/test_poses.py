"""Poses: quaternions, matrices of files, and steps between worlds."""

from __future__ import annotations

import numpy as np
import pytest

from toolroll.splat import poses
from toolroll.splat.drawn import made_poses


def some(count=6, seed=1):
    return made_poses(count, np.random.default_rng(seed))


def test_quaternions_there_and_back():
    draws = np.random.default_rng(0)
    for given in [*draws.normal(size=(50, 4)), [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 3, -4, 0]]:
        turn = poses.rotation(given)
        assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        found = poses.quaternion(turn)
        assert found[0] >= 0
        wanted = np.array(given) / np.linalg.norm(given)
        assert min(np.abs(found - wanted).max(), np.abs(found + wanted).max()) < 1e-12


def test_a_quarter_turn_around_z():
    assert poses.rotation([1, 0, 0, 1]) == pytest.approx(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), abs=1e-15)


def test_opengl_and_opencv():
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    pose = poses.from_opengl(matrix)
    # a point above and before an OpenGL camera (y up, z back) has negative y and positive z for OpenCV
    assert pose @ [1, 2.5, 2, 1] == pytest.approx([0, -0.5, 1, 1])
    for one in some():
        assert poses.from_opengl(poses.to_opengl(one)) == pytest.approx(one, abs=1e-12)


def test_matrices_that_are_nearly_rigid():
    pose = some()[0]
    rough = np.round(pose, 4)
    made = poses.rigid(rough.tolist())
    assert made[:3, :3] @ made[:3, :3].T == pytest.approx(np.eye(3), abs=1e-14)
    assert made == pytest.approx(pose, abs=2e-4)
    large = pose.copy()
    large[:3, :3] *= 3.5
    assert poses.rigid(large) == pytest.approx(pose, abs=1e-12)  # a scale says nothing of a camera
    assert poses.rigid(pose[:3]) == pytest.approx(pose, abs=1e-12)


def test_matrices_that_are_no_pose():
    pose = some()[0]
    mirrored, sheared, flat, nan = (pose.copy() for _ in range(4))
    mirrored[:, 0] *= -1
    sheared[0, :3] *= 1.2
    flat[0, :3] = 0
    nan[1, 3] = np.nan
    for wrong in (mirrored, sheared, flat, nan, np.zeros((4, 4)), np.eye(3), "text", None, [[1, 2], [3]], {}):
        assert poses.rigid(wrong) is None


def test_the_step_between_worlds():
    first = some()
    turn = poses.rotation([0.3, -0.5, 0.2, 0.9])
    step = np.concatenate([2.5 * turn, np.array([[1.0], [-2], [0.5]])], 1)
    second = []
    for pose in first:
        placed = poses.inverse(pose)
        placed[:3] = np.concatenate([turn @ placed[:3, :3], poses.moved(placed[None, :3, 3], step).T], 1)
        second.append(poses.inverse(placed))
    found = poses.step_between(first, second)
    assert found == pytest.approx(step, abs=1e-9)
    assert poses.leads(step, first, second)
    assert not poses.leads(step * 1.1, first, second)
    assert poses.step_between(first, second[::-1]) is None
    assert poses.step_between(first[:1], second[:1]) is None


def test_quaternions_of_any_length():
    turn = poses.rotation([0.9, 0.1, -0.3, 0.2])
    for scale in (1e308, 1e-320, 7.0):
        with np.errstate(all="raise", under="ignore"):
            assert poses.rotation(np.array([0.9, 0.1, -0.3, 0.2]) * scale) == pytest.approx(turn, abs=1e-3)


def test_matrices_that_are_no_poses():
    good = np.linalg.inv(some(1)[0])
    far, nearly = good.copy(), good.copy()
    far[0, 3], nearly[0, 3] = 2e30, 1e30
    assert poses.rigid(good) is not None
    assert poses.rigid(nearly) is not None
    for matrix in (far, good.T, good * 2, [[10**400] * 4] * 4, [[1, 0], [2]], {"a": 1}, "matrix", None):
        assert poses.rigid(matrix) is None


def test_a_single_camera_far_from_the_origin_leads_but_for_its_digits():
    pose = some(1)[0].copy()
    pose[:3, 3] = -pose[:3, :3] @ (4_500_000.25, 600_000.5, 70)
    step = np.concatenate([np.eye(3), np.zeros((3, 1))], 1)
    other = pose.copy()
    other[:3, 3] += 1e-6
    assert poses.leads(step, [pose], [other])
    other[:3, 3] += 1
    assert not poses.leads(step, [pose], [other])
