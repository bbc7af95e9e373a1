"""The momentum curriculum: the worked numbers of its released code, and what must hold of any."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.abduction.momentum import Curriculum, Rule, ema, momentum, quota, ratios
from toolroll.errors import RowError, ToolrollError

NAMES = ("parsing", "inconsistent", "fair")
LOSSES = [(0.69, 0.69, 0.69), (0.39, 0.64, 0.68), (0.29, 0.59, 0.70), (0.29, 0.49, 0.66)]
#: update: averages, momenta, ratios, quota of 1,280
TABLE = {
    1: ((0.66, 0.685, 0.689), (0.03, 0.005, 0.001), (1.160714, 0.937500, 0.901786), (495, 400, 384)),
    2: ((0.623, 0.6755, 0.6901), (0.03, 0.0145, 0), (1.132075, 0.997097, 0.870827), (483, 425, 371)),
    3: ((0.5897, 0.65695, 0.68709), (0.03, 0.02805, 0.00191), (1.083454, 1.067202, 0.849344), (462, 455, 362)),
}


def updates(losses, rule=Rule(), names=NAMES):  # noqa: B008
    curriculum = Curriculum(names, rule)
    found = [
        update
        for step, row in enumerate(losses)
        for name, loss in zip(names, row, strict=True)
        if (update := curriculum.take(name, step, loss)) is not None
    ]
    assert [update.step for update in found] == list(range(len(losses)))
    return found


@pytest.mark.parametrize("step", TABLE)
def test_the_worked_table(step):
    averages, momenta, weights, pairs = TABLE[step]
    update = updates(LOSSES)[step]
    assert tuple(update.ema.values()) == pytest.approx(averages, abs=1e-9)
    assert tuple(update.momentum.values()) == pytest.approx(momenta, abs=1e-9)
    assert tuple(update.ratios.values()) == pytest.approx(weights, abs=5e-7)
    assert tuple(quota(update.ratios, 1280).values()) == pairs
    assert update.weighted_loss == pytest.approx(
        sum(ratio * loss for ratio, loss in zip(weights, LOSSES[step], strict=True)), abs=1e-5
    )


def test_the_first_probe_is_where_everything_starts():
    first = updates(LOSSES)[0]
    assert first.ema == first.losses
    assert set(first.ratios.values()) == {1.0}
    assert quota(first.ratios, 1280) == dict.fromkeys(NAMES, 426)


def test_lag_1_compares_with_the_step_before():
    one, two = (updates(LOSSES, Rule(lag=lag, cap=1.0)) for lag in (1, 2))
    assert one[1].momentum == two[1].momentum  # there is nothing but the start before the first
    assert one[3].momentum["inconsistent"] == pytest.approx(0.6755 - 0.65695)
    assert two[3].momentum["inconsistent"] == pytest.approx(0.685 - 0.65695)


def test_a_longer_lag_reaches_back_to_the_start_at_most():
    found = updates(LOSSES, Rule(lag=9, cap=1.0))
    assert found[3].momentum["parsing"] == pytest.approx(0.69 - 0.5897)


def test_floor_and_ceil_bind_and_nothing_is_scaled_again():
    found = updates(LOSSES, Rule(eps=0.001))[1]
    assert found.ratios == {"parsing": 1.2, "inconsistent": 0.8, "fair": 0.8}
    assert sum(found.ratios.values()) != pytest.approx(3)


def test_with_the_default_cap_three_ratios_never_reach_floor_or_ceil():
    most = ratios({"a": 0.03, "b": 0.0, "c": 0.0}, Rule())
    least = ratios({"a": 0.0, "b": 0.03, "c": 0.03}, Rule())
    assert most["a"] == pytest.approx(1.181818, abs=1e-6)
    assert least["a"] == pytest.approx(0.833333, abs=1e-6)


@given(st.lists(st.tuples(*[st.floats(0, 1e6)] * 3), min_size=1, max_size=8), st.integers(1, 4))
def test_whatever_the_losses_ratios_are_bounded_and_a_state_in_between_changes_nothing(losses, lag):
    rule = Rule(lag=lag)
    whole = updates(losses, rule)
    state, found = None, []
    for step, row in enumerate(losses):
        for name, loss in zip(NAMES, row, strict=True):
            curriculum = Curriculum(NAMES, rule)
            if state is not None:
                curriculum = Curriculum.resumed(json.loads(state), NAMES, rule)
            found.append(curriculum.take(name, step, loss))
            state = json.dumps(curriculum.as_dict())
    assert [update for update in found if update is not None] == whole
    for update in whole:
        assert all(0.8 <= ratio <= 1.2 for ratio in update.ratios.values())
        assert all(0 <= value <= 0.03 for value in update.momentum.values())
        assert sum(quota(update.ratios, 1280).values()) in range(1278, 1281)


def test_a_rising_loss_has_no_momentum():
    assert momentum(ema(0.9, 0.69, 0.1), 0.69, 0.03) == 0.0


def test_losses_that_came_before_change_nothing():
    curriculum = Curriculum(NAMES, Rule())
    assert [curriculum.take(name, 0, 0.69) for name in NAMES][:2] == [None, None]
    before = json.dumps(curriculum.as_dict())
    assert [curriculum.take(name, 0, 0.1) for name in NAMES] == [None] * 3
    assert json.dumps(curriculum.as_dict()) == before
    assert [curriculum.take("fair", 1, 0.6) for _ in range(2)] == [None, None]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(loss):
    with pytest.raises(RowError, match="not finite"):
        Curriculum(NAMES, Rule()).take("fair", 0, loss)


def test_what_makes_no_step_is_refused():
    curriculum = Curriculum(NAMES, Rule())
    curriculum.take("fair", 0, 0.69)
    for taken, why in [
        (("fare", 0, 0.69), "unknown objective 'fare'"),
        (("fair", 0, 0.7), "a second loss of 'fair' at step 0"),
        (("fair", 1, 0.69), "step 0 still lacks parsing, inconsistent"),
    ]:
        with pytest.raises(RowError, match=why):
            curriculum.take(*taken)
    assert curriculum.losses == {"fair": 0.69}


def test_a_state_goes_with_its_settings():
    saved = Curriculum(NAMES, Rule()).as_dict()
    with pytest.raises(ToolrollError, match="other settings"):
        Curriculum.resumed(saved, NAMES, Rule(lag=1))
    with pytest.raises(ToolrollError, match="other settings"):
        Curriculum.resumed(saved, NAMES[:2], Rule())
    with pytest.raises(ToolrollError, match="no state"):
        Curriculum.resumed({"last": 1}, NAMES, Rule())


def test_nothing_to_share_gives_nothing():
    assert quota({"a": 0.0}, 10) == {"a": 0}
