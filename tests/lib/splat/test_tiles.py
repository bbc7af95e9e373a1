"""What is sorted into tiles is in order."""

from __future__ import annotations

import numpy as np
import pytest

from toolroll.splat.tiles import nearest_first


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
@pytest.mark.parametrize("digits", [1, 3, 7])
def test_the_nearest_are_first_and_equal_ones_stay_in_order(count, digits):
    draws = np.random.default_rng(count + digits)
    depths = draws.normal(scale=10.0 ** draws.integers(-3, 4, count)).round(digits).astype(np.float32) + np.float32(0)
    assert np.array_equal(nearest_first(depths), np.argsort(depths, kind="stable"))


def test_infinite_depths_are_sorted_too():
    depths = np.array([np.inf, 1.0, -np.inf, -2.0, 1.0, np.inf], np.float32)
    assert nearest_first(depths).tolist() == [2, 3, 1, 4, 0, 5]
