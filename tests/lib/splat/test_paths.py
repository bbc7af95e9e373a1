"""Ways through a scene: where they go and where they look."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolroll.errors import UsageError
from toolroll.splat.paths import WAYS, focus, interpolated, look_at, orbit, spiral

UP = np.array([0.0, 0.0, 1.0])


def ring(count: int = 8, target=(1.0, 2.0, 0.5), radius: float = 3.0, height: float = 1.0) -> list[np.ndarray]:
    made = []
    for a in 2 * math.pi * np.arange(count) / count:
        place = np.array(target) + np.array([radius * math.cos(a), radius * math.sin(a), height])
        made.append(look_at(place, np.array(target), UP))
    return made


def place(pose: np.ndarray) -> np.ndarray:
    return -pose[:3, :3].T @ pose[:3, 3]


def seen(pose: np.ndarray, point) -> np.ndarray:
    return pose[:3, :3] @ np.array(point) + pose[:3, 3]


def is_rotation(pose: np.ndarray) -> bool:
    turn = pose[:3, :3]
    return np.allclose(turn @ turn.T, np.eye(3), atol=1e-9) and np.linalg.det(turn) > 0.99


def test_look_at_puts_the_target_ahead_and_up_upwards():
    pose = look_at(np.array([3.0, 0.0, 0.0]), np.zeros(3), UP)
    assert is_rotation(pose)
    assert seen(pose, (0, 0, 0)) == pytest.approx([0, 0, 3])
    assert seen(pose, (0, 0, 1))[1] == pytest.approx(-1)  # y is down
    assert seen(pose, (0, 1, 0))[0] == pytest.approx(1)  # who looks along -x has +y to the right


@pytest.mark.parametrize("up", [UP, -UP])
def test_look_straight_down(up):
    pose = look_at(np.array([0.0, 0.0, 2.0]), np.zeros(3), up)
    assert is_rotation(pose)
    assert seen(pose, (0, 0, 0)) == pytest.approx([0, 0, 2])


def test_focus_is_where_all_look():
    assert focus(ring()) == pytest.approx([1.0, 2.0, 0.5])


def test_focus_of_parallel_cameras_is_ahead_of_them():
    poses = [look_at(np.array([x, 0.0, 0.0]), np.array([x, 5.0, 0.0]), UP) for x in (-1.0, 1.0)]
    assert focus(poses) == pytest.approx([0.0, 1.0, 0.0])


def test_orbit_goes_around_at_the_cameras_distance_and_height():
    made = orbit(ring(), 12)
    assert len(made) == 12
    for pose in made:
        assert is_rotation(pose)
        assert seen(pose, (1.0, 2.0, 0.5))[:2] == pytest.approx([0, 0], abs=1e-9)
        assert place(pose)[2] == pytest.approx(1.5)
        assert np.linalg.norm(place(pose)[:2] - [1, 2]) == pytest.approx(3.0)
    angles = np.unwrap([math.atan2(*(place(pose)[:2] - [1, 2])) for pose in made])
    assert np.abs(np.diff(angles)) == pytest.approx(2 * math.pi / 12)


def test_spiral_stays_around_the_mean_camera_and_looks_at_the_focus():
    poses = [look_at(np.array([x, -4.0, z]), np.zeros(3), UP) for x in (-1.0, 0.0, 1.0) for z in (0.5, 1.5)]
    made = spiral(poses, 19)
    middle = np.mean([place(pose) for pose in poses], axis=0)
    target = focus(poses)
    for pose in made:
        assert is_rotation(pose)
        assert np.linalg.norm(place(pose) - middle) < 2.0
        assert seen(pose, target)[2] > 0
        assert np.abs(seen(pose, target)[:2]).max() < 0.5
    assert len({tuple(place(pose).round(6)) for pose in made}) == 19


def test_interpolation_passes_through_every_camera():
    poses = ring(5)
    made = interpolated(poses, 17)
    for k, pose in enumerate(poses):
        assert np.allclose(made[4 * k], pose, atol=1e-9)
    assert all(map(is_rotation, made))
    steps = np.linalg.norm(np.diff([place(pose) for pose in made], axis=0), axis=1)
    assert steps.max() < 2 * steps.min()


def test_interpolation_between_opposite_signs_takes_the_short_way():
    poses = [look_at(np.array([3 * math.cos(a), 3 * math.sin(a), 0.0]), np.zeros(3), UP) for a in (3.1, 3.3)]
    middle = interpolated(poses, 3)[1]
    assert np.degrees(np.arccos(np.clip(middle[2, :3] @ poses[0][2, :3], -1, 1))) < 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2])
def test_few_frames(way, count):
    assert len(WAYS[way](ring(3), count)) == count


def test_one_camera():
    assert all(np.array_equal(pose, ring(1)[0]) for pose in interpolated(ring(1), 3))


def test_cameras_that_look_all_ways_have_no_middle():
    poses = [look_at(np.zeros(3), np.array([math.cos(a), math.sin(a), 0.0]), UP) for a in np.arange(4) * math.pi / 2]
    with pytest.raises(UsageError, match="the cameras look all ways"):
        spiral(poses, 4)
    both = [look_at(np.zeros(3), np.array([side, 0.0, 0.0]), UP) for side in (1, -1)]
    with pytest.raises(UsageError, match="they have no focus"):
        orbit(both, 4)
