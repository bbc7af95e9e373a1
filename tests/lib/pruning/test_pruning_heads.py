"""Head masks: ratios, votes, thresholds, files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import ToolrollError
from toolroll.pruning.heads import HeadMask, active, ratio, ratios, read_mask, threshold_for, voted, write_mask


def test_the_ratio_of_two_heads():
    first = [[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]]
    second = [[0.7, 0.1, 0.1, 0.1], [0.6, 0.05, 0.05, 0.3]]
    assert ratios([first, second], [1, 2]) == pytest.approx([1.0, 0.17647], abs=5e-6)
    assert ratio(0.5, 0.0) == math.inf
    assert ratio(0.0, 0.0) == 0.0


def test_forty_one_of_a_hundred_votes_keep_a_head():
    def kept(votes):
        samples = [[0.3]] * votes + [[0.1]] * (100 - votes)
        return active([voted(samples, 0.4)], 0.2, 0)[0][0]

    assert kept(41)
    assert not kept(40)
    assert not active([voted([[0.2]] * 100, 0.4)], 0.2, 0)[0][0]  # equality does not count


@given(
    st.lists(st.lists(st.floats(0, 4), min_size=3, max_size=3), min_size=1, max_size=12),
    st.floats(0, 0.99),
    st.floats(0, 4),
)
def test_one_number_a_head_is_the_vote(samples, vote, threshold):
    counted = [sum(row[head] > threshold for row in samples) > round(vote * len(samples), 9) for head in range(3)]
    assert list(active([voted(samples, vote)], threshold, 0)[0]) == counted


def test_votes_that_cannot_decide():
    with pytest.raises(ToolrollError, match="no sample can decide"):
        voted([[1.0]], 1.0)
    with pytest.raises(ToolrollError, match="no sample can decide"):
        voted([], 0.4)


def test_a_threshold_for_so_many_heads():
    scores = [[9.0, 9.0, 9.0], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    assert active(scores, threshold_for(scores, 2, 1), 1) == ((True,) * 3, (False,) * 3, (True,) * 3)
    assert active(scores, threshold_for(scores, 3, 1), 1) == ((True,) * 3,) * 3
    assert active(scores, threshold_for(scores, 1, 1), 1) == ((True,) * 3, (False,) * 3, (False,) * 3)
    equal = [[0.5] * 3] * 2
    assert active(equal, threshold_for(equal, 1, 0), 0) == ((False,) * 3,) * 2  # never more than asked
    with pytest.raises(ToolrollError, match="fewer than 1 protected"):
        threshold_for(scores, 0.5, 1)


def test_masks_in_files(tmp_path):
    mask = HeadMask(((True, False, True), (False,) * 3), {"model": "tiny", "threshold": "0.2"})
    path = tmp_path / "heads.safetensors"
    write_mask(path, mask)
    assert read_mask(path) == mask
    first = path.read_bytes()
    write_mask(path, mask)
    assert path.read_bytes() == first
    for kind in (bool, np.int64, np.float32):
        np.save(tmp_path / "heads.npy", np.array(mask.heads).astype(kind))
        assert read_mask(tmp_path / "heads.npy").heads == mask.heads


def test_files_that_hold_no_mask(tmp_path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "part.npy", np.full((2, 2), 0.5))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    save_file({"other": np.ones((2, 2))}, tmp_path / "other.safetensors")
    (tmp_path / "text.npy").write_text("no")
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, why in (
        ("flat.npy", "true and false"),
        ("part.npy", "true and false"),
        ("objects.npy", "neither .safetensors nor .npy"),
        ("other.safetensors", "no tensor 'headmask'"),
        ("text.npy", "neither"),
        ("text.safetensors", "neither"),
        ("empty.npy", "neither"),
        ("none.npy", "No such file"),
        ("none.safetensors", "No such file|cannot be read"),
    ):
        with pytest.raises(ToolrollError, match=why) as told:
            read_mask(tmp_path / name)
        assert told.value.place == str(tmp_path / name)
        assert "\n" not in str(told.value)
