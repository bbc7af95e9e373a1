"""The frequency metric: numbers by hand, and those of PyWavelets 1.9.0 for the same wavelet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from toolroll.splat.frequency import bands, by_median, detail, scene_frequency

ROOT = np.sqrt(2)


def test_a_flat_picture_has_one_band():
    low, *fine = bands(np.full((6, 9), 0.25))
    assert low == pytest.approx(0.5)  # each axis multiplies by the root of 2
    for band in fine:
        assert band == pytest.approx(0)


def test_a_slope_has_no_detail_inside():
    """The fine filter is a second difference; only borders, where the slope is mirrored, have any."""
    slope = np.tile(np.arange(12.0), (3, 1))
    _, across, down, both = bands(slope)
    assert across[:, 2:-2] == pytest.approx(0)
    assert down == pytest.approx(0)
    assert both == pytest.approx(0)
    # x[0], x[0], x[1]: (0 - 0 + 1) root 2 / 4, times root 2 for the rows, which are alike
    assert across[0, 1] == pytest.approx(0)
    assert across[0, 0] == pytest.approx(ROOT / 4 * (1 - 2 * 0 + 0) * ROOT)


def test_a_line_by_hand():
    """One bright row in a dark picture: second differences of it, 1, -2, 1, where they meet it."""
    picture = np.zeros((10, 4))
    picture[5] = 1
    _, across, down, _ = bands(picture)
    assert across == pytest.approx(0)
    # number k looks at rows 2 k - 2, 2 k - 1, 2 k: the row is in the middle for k = 3; the columns' factor is root 2
    assert down[:, 1] == pytest.approx([0, 0, 0, -2 * ROOT / 4 * ROOT, 0, 0, 0])


def test_numbers_of_pywavelets():
    y, x = np.mgrid[0:9, 0:12]
    grey = (np.sin(x / 2) + np.cos(y * x / 9) + 2) / 4
    found = bands(grey)
    assert found[0].shape == (7, 8)
    wanted = [1.812537033947707, -0.022200322240214676, -0.007424545903401856, 0.0023410459818359796]
    assert [band[2, 3] for band in found] == pytest.approx(wanted, abs=1e-14)
    assert detail(grey) == pytest.approx(0.005049739748983912, abs=1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 8), (64, 97)])
def test_sizes(shape):
    made = bands(np.random.default_rng(0).random(shape))
    assert {band.shape for band in made} == {((shape[0] + 5) // 2, (shape[1] + 5) // 2)}


def test_a_scene_is_the_mean_of_some_photos(tmp_path):
    draws = np.random.default_rng(0)
    paths = []
    for number in range(3):
        pixels = draws.integers(0, 256, (16, 20, 3)).astype(np.uint8) // (number + 1)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    each = [scene_frequency([path]) for path in paths]
    assert each[0] > each[1] > each[2] > 0
    assert scene_frequency(paths) == pytest.approx(np.mean(each))
    with Image.open(paths[0]) as image:
        grey = np.asarray(image).astype(float) @ [0.299, 0.587, 0.114] / 255
    assert each[0] == pytest.approx(detail(grey), rel=1e-6)


def test_the_median_splits():
    found = {"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0}
    high = [name for name, group in by_median(found).items() if group == "high_freq"]
    assert high == ["a", "d"]
    assert by_median({"a": 3e-6, "b": 2e-6}, 2.6e-6) == {"a": "high_freq", "b": "low_freq"}
    assert by_median({}) == {}
