"""Drawn scenes: what is drawn, written and read is one scene."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from toolroll.splat.drawn import BENDS, GROUND, Solid, look, write_scene
from toolroll.splat.finding import open_scene
from toolroll.splat.lenses import pixels_of


def pixels(shot):
    with Image.open(shot.path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
@pytest.mark.parametrize("lens", BENDS)
def test_it_is_read_as_it_was_written(lens, kind, tmp_path):
    made = write_scene(tmp_path / "a scene", shots=3, size=(32, 24), lens=lens, kind=kind, points=50)
    found = open_scene(tmp_path / "a scene", strict=True)
    assert found.warnings == ()
    assert found.source == made.source
    for one, other in zip(made.shots, found.shots, strict=True):
        assert (one.name, one.path, one.lens) == (other.name, other.path, other.lens)
        assert one.pose == pytest.approx(other.pose, abs=1e-9)
        assert pixels(one).shape == (24, 32, 3)
    assert found.points.places == pytest.approx(made.points.places, abs=1e-6)
    assert np.array_equal(found.points.colours, made.points.colours)


@pytest.mark.parametrize("lens", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
def test_points_are_seen_where_they_are(lens, tmp_path):
    """A point's colour is that of the pixel it falls on, unless something hides it."""
    scene = write_scene(tmp_path, shots=4, size=(128, 96), lens=lens, points=400)
    near = 0
    for shot in scene.shots:
        at = scene.points.places @ shot.pose[:3, :3].T + shot.pose[:3, 3]
        places = np.floor(pixels_of(shot.lens, at[:, :2] / at[:, 2:])).astype(int)
        inside = ((places >= 0) & (places < (128, 96))).all(1) & (at[:, 2] > 0)
        x, y = places[inside].T
        off = np.abs(pixels(shot)[y, x].astype(int) - scene.points.colours[inside]).max(1)
        near += (off < 30).mean() / 4
        shuffled = np.abs(pixels(shot)[y, x].astype(int) - scene.points.colours[inside][::-1]).max(1)
        assert (off < 30).mean() > 2 * (shuffled < 30).mean()
    assert near > 0.5


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(tmp_path):
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scene(tmp_path / name, shots=2, size=(24, 16), seed=seed, points=20)
        files.append({p.name: p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()})
    assert files[0] == files[1]
    assert files[0].keys() == files[2].keys()
    assert all(files[0][name] != files[2][name] for name in files[0])


def test_cameras_are_around_the_middle_and_see_all_sorts_of_colours(tmp_path):
    scene = write_scene(tmp_path, shots=5, size=(48, 32))
    assert len(scene.points) == 2000
    assert np.hypot(*scene.points.places[:, :2].T).max() < GROUND
    assert scene.points.places[:, 2].min() > -1e-9
    for shot in scene.shots:
        assert shot.pose[:3, :3] @ shot.pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(shot.pose[:3, :3]) == pytest.approx(1)
        assert (shot.pose @ [0, 0, 0.3, 1])[2] > 2.5  # the middle is ahead
        assert pixels(shot).std((0, 1)).min() > 20


def test_rays_meet_what_is_nearest():
    both = np.array([[1.0, 0, 0], [1, 0, 0]])
    ball = Solid("ball", np.array([0, 0, 0.5]), np.full(3, 0.5), np.eye(3), both, 0, 0.1)
    box = Solid("box", np.array([0, 0, 3.0]), np.array([0.2, 0.2, 0.5]), np.eye(3), both[:, ::-1], 0, 0.1)
    down = np.diag([1.0, -1, -1, 1])
    down[:3, 3] = -down[:3, :3] @ [0, 0, 10]  # a camera 10 above the ground that looks down
    ahead = np.array([[0, 0, 1.0], [0.1, 0, 1.0], [0, 1.0, 0]])
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    colours, away = look([ball, box], down, ahead)
    assert away[0] == pytest.approx(10 - 3.5)
    assert away[1] == pytest.approx(10 * np.sqrt(1.01))
    assert np.isinf(away[2])
    assert colours[0] == pytest.approx([0, 0, 0.45 + 0.55 * 0.77 / np.linalg.norm([0.4, 0.5, 0.77])])
    assert look([ball], down, ahead[:1])[1][0] == pytest.approx(9)
