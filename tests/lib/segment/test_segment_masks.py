"""Run lengths and polygons, beside COCO's own library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.errors import RowError
from toolroll.segment import masks


@st.composite
def any_mask(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits).reshape(height, width)


@given(any_mask())
@settings(max_examples=60, deadline=None)
def test_a_mask_comes_back(mask):
    assert (masks.decode(masks.encode(mask)) == mask).all()
    assert (masks.decode({"size": list(mask.shape), "counts": masks.counts_of(mask)}) == mask).all()


def test_run_lengths_are_cocos():
    judge = pytest.importorskip("pycocotools.mask")
    draws = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (120, 161), (333, 40)):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = draws.random((height, width)) < share
            theirs = judge.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert masks.encode(mask) == {"size": [height, width], "counts": theirs["counts"].decode()}
            assert (masks.decode({**theirs, "counts": theirs["counts"].decode()}) == mask).all()


def test_polygons_are_filled_as_coco_fills_them():
    judge = pytest.importorskip("pycocotools.mask")
    draws = np.random.default_rng(1)
    for points in (3, 4, 7, 20):
        for _ in range(10):
            polygon = (draws.random(2 * points) * np.tile([70, 50], points) - 5).round(2).tolist()
            (theirs,) = judge.frPyObjects([polygon], 40, 60)
            theirs = masks.decode({**theirs, "counts": theirs["counts"].decode()})
            assert (masks.fill([polygon], 40, 60) == theirs).all()


def test_several_polygons_are_one_mask():
    square = [1, 1, 4, 1, 4, 4, 1, 4]
    other = [6, 6, 9, 6, 9, 9, 6, 9]
    both = masks.read_segmentation([square, other], 10, 10)
    assert both.sum() == 18
    assert (both == (masks.fill([square], 10, 10) | masks.fill([other], 10, 10))).all()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (7, "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "three or more points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three or more points"),
        ({"size": [10, 10]}, "no `size`"),
        ({"size": [10, 10], "counts": [5, 5]}, "run lengths of 10"),
        ({"size": [10, 10], "counts": [101, -1]}, "are no run lengths"),
        ({"size": [10, 10], "counts": "~~"}, "none of COCO's"),
        ({"size": [10, 10], "counts": "o"}, "end within a number"),
        ({"size": [5, 20], "counts": [100]}, "in an image of 10 x 10"),
        ({"size": [200_000, 200_000], "counts": [40_000_000_000]}, "too large"),
    ],
)
def test_what_is_no_mask(given, why):
    with pytest.raises(RowError, match=why):
        masks.read_segmentation(given, 10, 10)


def test_boxes():
    assert masks.box_of(np.zeros((3, 4), bool)) == [0, 0, 0, 0]
    assert masks.box_of(masks.fill([[1, 1, 4, 1, 4, 3, 1, 3]], 10, 10)) == [1, 1, 4, 3]
