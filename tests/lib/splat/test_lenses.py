"""Lenses: numbers of the specification, ways there and back, pinholes without a blank pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from toolroll.errors import ToolrollError
from toolroll.splat import lenses
from toolroll.splat.drawn import BENDS, draw, lens_of, made_poses, made_solids
from toolroll.splat.scene import Lens

every_model = pytest.mark.parametrize("model", BENDS)
FOX = (0.0578421, -0.0805099, -0.000980296, 0.00015575)


def grid(most=0.6):
    side = np.linspace(-most, most, 13)
    return np.stack(np.meshgrid(side, side), -1)


def test_opencv_distortion_of_a_real_lens():
    lens = Lens("OPENCV", 100, 100, 50, 50, 50, 50, FOX)
    made = lenses.distort(lens, np.array([0.3, -0.4]))
    assert made == pytest.approx([0.303130840415, -0.404367611220], abs=1e-12)
    assert lenses.pixels_of(lens, np.array([0.3, -0.4])) == pytest.approx(50 + 50 * made, abs=1e-12)


def test_distortion_by_hand():
    # r^2 = .25 at (.3, .4): D = (1 + .4 .25 + .8 .0625) / (1 + .2 .25) = 1.15 / 1.05
    full = Lens("FULL_OPENCV", 1, 1, 1, 1, 0, 0, (0.4, 0.8, 0, 0, 0, 0.2, 0, 0))
    assert lenses.distort(full, np.array([0.3, 0.4])) == pytest.approx([0.3 * 1.15 / 1.05, 0.4 * 1.15 / 1.05])
    # p1 = .1, p2 = .2: x + 2 .1 .12 + .2 (.25 + .18), y + .1 (.25 + .32) + 2 .2 .12
    tangential = Lens("OPENCV", 1, 1, 1, 1, 0, 0, (0, 0, 0.1, 0.2))
    assert lenses.distort(tangential, np.array([0.3, 0.4])) == pytest.approx([0.41, 0.505])
    # 45 degrees: t (1 + .1 t^2)
    eye = Lens("OPENCV_FISHEYE", 1, 1, 1, 1, 0, 0, (0.1, 0, 0, 0))
    t = np.pi / 4
    assert lenses.distort(eye, np.array([1.0, 0.0])) == pytest.approx([t * (1 + 0.1 * t * t), 0])


@every_model
def test_there_and_back(model):
    lens = lens_of(model, 96, 64)
    assert lenses.undistort(lens, lenses.distort(lens, grid())) == pytest.approx(grid(), abs=1e-12)
    pixels = lenses.pixels_of(lens, grid())
    rays = lenses.rays(lens, pixels)
    assert np.linalg.norm(rays, axis=-1) == pytest.approx(1)
    assert rays[..., :2] / rays[..., 2:] == pytest.approx(grid(), abs=1e-12)


def test_the_axis_is_where_it_is():
    for model in BENDS:
        lens = lens_of(model, 96, 64)
        assert lenses.rays(lens, np.array([lens.cx, lens.cy])).tolist() == [0, 0, 1]


def test_a_fisheye_sees_what_is_beside_it():
    lens = Lens("OPENCV_FISHEYE", 400, 400, 100, 100, 200, 200, (0.0, 0, 0, 0))
    side = lenses.rays(lens, np.array([200 + 100 * np.pi / 2, 200]))
    assert side == pytest.approx([1, 0, 0], abs=1e-12)
    assert lenses.rays(lens, np.array([200 + 100 * 2.0, 200]))[2] == pytest.approx(np.cos(2.0))
    assert np.isnan(lenses.undistort(lens, np.array([1.6, 0.0]))).all()  # beyond 90 degrees there is no point
    assert not lens.straight


def test_where_a_lens_folds_there_is_no_ray():
    lens = Lens("SIMPLE_RADIAL", 100, 100, 50, 50, 50, 50, (-0.3,))
    fold = 1 / np.sqrt(0.9)  # of r (1 - .3 r^2)
    highest = fold * (1 - 0.3 * fold**2)
    assert np.isfinite(lenses.undistort(lens, np.array([highest - 0.01, 0]))).all()
    assert np.isnan(lenses.undistort(lens, np.array([highest + 0.01, 0]))).all()
    pinhole = lenses.straightened(lens)  # its corners would be beyond the fold
    corners = np.array([[0, 0], [100, 0], [0, 100], [100, 100.0]])
    places = lenses.pixels_of(lens, (corners - (pinhole.cx, pinhole.cy)) / (pinhole.fx, pinhole.fy))
    assert ((places >= -1e-6) & (places <= 100 + 1e-6)).all()


@every_model
def test_a_straightened_photo_has_no_pixel_that_the_photo_lacks(model):
    lens = lens_of(model, 96, 64)
    pinhole = lenses.straightened(lens)
    assert (pinhole.model, pinhole.width, pinhole.height, pinhole.straight) == ("PINHOLE", 96, 64, True)
    edge = np.concatenate([np.stack([np.full(50, x), np.linspace(0, 64, 50)], -1) for x in (0, 96)])
    edge = np.concatenate([edge, *(np.stack([np.linspace(0, 96, 50), np.full(50, y)], -1) for y in (0, 64))])
    places = lenses.pixels_of(lens, (edge - (pinhole.cx, pinhole.cy)) / (pinhole.fx, pinhole.fy))
    over = np.maximum(-places, places - (96, 64)).reshape(4, 50, 2)
    assert over.max() < 0.01
    assert np.all(over.max((1, 2)) > -0.01)  # and no side could show more


def test_a_pinhole_stays_what_it_is():
    lens = Lens("SIMPLE_PINHOLE", 96, 64, 70, 70, 47, 33)
    assert lenses.straightened(lens) == Lens("PINHOLE", 96, 64, 70, 70, 47, 33)
    photo = np.arange(12).reshape(3, 4)
    assert lenses.straighten(photo, lens) is photo


def test_a_wide_fisheye_is_cut_to_140_degrees():
    lens = Lens("OPENCV_FISHEYE", 400, 200, 80, 80, 200, 100, (0.0, 0, 0, 0))
    pinhole = lenses.straightened(lens)
    assert np.degrees(np.arctan(pinhole.cx / pinhole.fx)) == pytest.approx(70)


def test_a_lens_that_looks_past_its_photo():
    with pytest.raises(ToolrollError, match="looks past its photo"):
        lenses.straightened(Lens("SIMPLE_RADIAL", 100, 100, 50, 50, 150, 50, (0.1,)))


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "SIMPLE_RADIAL"])
def test_straightened_photos_are_those_of_the_pinhole(model):
    draws = np.random.default_rng(3)
    solids, (pose,) = made_solids(draws), made_poses(1, draws)
    lens = lens_of(model, 192, 128)
    bent, pinhole = draw(solids, pose, lens), lenses.straightened(lens)
    made = lenses.straighten(bent, lens)
    assert made.dtype == np.uint8

    def miss(photo, right=0.0, down=0.0):
        truth = draw(solids, pose, replace(pinhole, cx=pinhole.cx + right, cy=pinhole.cy + down))
        return np.abs(photo - truth.astype(float)).mean()

    error = miss(made)
    assert error < 2.5
    assert miss(bent) > 1.5 * error  # what leaving it as it is would cost
    for right, down in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):  # half a pixel off is worse
        assert miss(made, right, down) > error


def test_remapping_by_hand():
    photo = np.array([[0.0, 10], [20, 30]])
    places = np.array([[[1.0, 1.0], [0.5, 0.5]], [[1.25, 0.5], [-3, 9]]])
    assert lenses._bilinear(photo, places).tolist() == [[15, 0], [7.5, 20]]
    assert lenses._nearest(photo, places).tolist() == [[30, 0], [10, 20]]


def test_each_axis_is_scaled_on_its_own():
    lens = lenses.scaled(Lens("OPENCV", 3840, 2160, 3000, 3000, 1900, 1100, FOX), 960, 560)
    assert (lens.fx, lens.cx, lens.fy) == (750, 475, pytest.approx(3000 * 560 / 2160))
    assert lens.distortion == FOX


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fx": -1}, "fx of a lens is -1"),
        ({"fy": float("nan")}, "fy of a lens is nan"),
        ({"width": 0}, "width of a lens is 0"),
        ({"cx": float("inf")}, "not finite"),
        ({"fx": 1e300}, r"fx of a lens is 1e\+300"),
        ({"fy": 1e-300}, "fy of a lens is 1e-300"),
        ({"width": 10**400, "height": 10**400}, r"width of a lens is 1e\+300"),
        ({"height": (1 << 24) + 1}, "height of a lens is"),
        ({"distortion": (0.1, 1e16, 0, 0)}, "not finite, or beyond"),
        ({"distortion": (0.1,)}, "OPENCV has 4 numbers of distortion, not 1"),
    ],
)
def test_lenses_that_cannot_be(change, why):
    values = {"width": 4, "height": 3, "fx": 2, "fy": 2, "cx": 2, "cy": 1, "distortion": FOX, **change}
    with pytest.raises(ToolrollError, match=why):
        lenses.checked(Lens("OPENCV", **values), "here")
