"""Advantages against numbers worked out by hand and by the papers' code."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.train.advantage import RoleBaselines, centred, grpo, leave_one_out

rewards_of_a_group = st.lists(st.floats(-3, 3), min_size=1, max_size=16)


@pytest.mark.parametrize(
    ("rewards", "spread", "eps", "expected"),
    [
        ([1.4, 1.266667, 0.8, 0.2, 0], "sample", 1e-6, [1.0690, 0.8552, 0.1069, -0.8552, -1.1759]),
        ([1.4, 1.266667, 0.8, 0.2, 0], "population", 1e-6, [1.1952, 0.9562, 0.1195, -0.9562, -1.3147]),
        ([3, 3, -0.5, -3], "sample", 1e-6, [0.811639, 0.811639, -0.384461, -1.238818]),
        ([3, -0.5, -0.5, -0.5], "sample", 1e-6, [1.4999991, -0.4999997, -0.4999997, -0.4999997]),
        ([1, -0.5, -1, -1], "population", 1e-8, [1.677484, -0.152499, -0.762493, -0.762493]),
        ([1, -0.5, -1, -1], "sample", 1e-8, [1.452744, -0.132068, -0.660338, -0.660338]),
        ([2.49, -0.3, -0.9, -0.9], "population", 1e-8, [1.705444, -0.283350, -0.711047, -0.711047]),
        ([0.1, 0.1, 0.1], "sample", 1e-6, [0, 0, 0]),
        ([5.0], "sample", 1e-6, [0]),
        ([5.0], "population", 1e-6, [0]),
    ],
)
def test_grpo(rewards, spread, eps, expected):
    digits = 4 if len(rewards) == 5 else 6
    assert grpo(rewards, spread=spread, eps=eps) == pytest.approx(expected, abs=0.6 * 10**-digits)


@pytest.mark.parametrize(
    ("size", "right", "mean"),
    [
        *[(16, 1, 0.468750), (16, 2, 0.640434), (16, 4, 0.838525), (16, 8, 0.968246)],
        *[(8, 1, 0.618718), (8, 2, 0.810093), (8, 4, 0.935414), (4, 1, 0.75), (4, 2, 0.866025)],
    ],
)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 3.0)])
def test_the_mean_advantage_of_a_success_rate_does_not_depend_on_the_scale(size, right, mean, low, high):
    found = grpo([high] * right + [low] * (size - right))
    assert sum(map(abs, found)) / size == pytest.approx(mean, abs=3e-6)


@pytest.mark.parametrize("rule", [grpo, centred, leave_one_out])
def test_equal_rewards_give_exactly_nothing(rule):
    for reward in (0.1, 1 / 3, -0.0):
        assert [math.copysign(1, a) * (a == 0) for a in rule([reward] * 7)] == [1] * 7


@given(rewards_of_a_group)
def test_advantages_of_a_group_cancel(rewards):
    for rule in (grpo, centred, leave_one_out):
        assert math.fsum(rule(rewards)) == pytest.approx(0, abs=1e-6)


@given(rewards_of_a_group)
def test_leave_one_out_is_what_it_says(rewards):
    for i, advantage in enumerate(leave_one_out(rewards)):
        others = rewards[:i] + rewards[i + 1 :]
        expected = rewards[i] - sum(others) / len(others) if others else 0
        assert advantage == pytest.approx(expected, abs=1e-9)


def test_a_small_spread_is_only_centred():
    assert grpo([1.0, 1.0 + 1e-9], spread="population", least_spread=1e-8) == pytest.approx([-5e-10, 5e-10], rel=1e-6)


GAMES = [
    [("c", 0.1), ("s", -0.3), ("c", 0.1), ("c", 0.1)],
    [("c", -0.2333333333333333), ("s", 0.1), ("c", 0.0666666666666667), ("c", 0.0666666666666667)],
    [("c", -0.0111111111111111), ("s", -0.1666666666666667), ("c", 0.0888888888888889), ("c", 0.0888888888888889)],
]


@pytest.mark.parametrize(
    ("alpha", "advantages", "baselines"),
    [
        (
            0.9,
            [
                [0.09, -0.27, 0.09, 0.09],
                [-0.239, 0.117, 0.061, 0.061],
                [-0.021767, -0.1347, 0.078233, 0.078233],
            ],
            [(-0.03, 0.01), (-0.017, 0.00566667), (-0.03196667, 0.01065556)],
        ),
        (
            0.95,
            [
                [0.095, -0.285, 0.095, 0.095],
                [-0.236417, 0.10925, 0.063583, 0.063583],
                [-0.016818, -0.149546, 0.083182, 0.083182],
            ],
            [(-0.015, 0.005), (-0.00925, 0.00308333), (-0.01712083, 0.00570694)],
        ),
    ],
)
def test_role_advantages(alpha, advantages, baselines):
    roles = RoleBaselines(alpha)
    for game, expected, (spy, civilian) in zip(GAMES, advantages, baselines, strict=True):
        assert roles.advantages(game) == pytest.approx(expected, abs=1e-6)
        assert roles.baselines == pytest.approx({"s": spy, "c": civilian}, abs=1e-8)
        assert roles.baselines["s"] == pytest.approx(-3 * roles.baselines["c"], abs=1e-12)  # games sum to zero


def test_pre_subtracts_the_baseline_before_it_moves():
    roles = RoleBaselines(0.9, "pre")
    assert roles.advantages(GAMES[0]) == [0.1, -0.3, 0.1, 0.1]
    assert roles.advantages(GAMES[1]) == pytest.approx([-0.243333, 0.13, 0.056667, 0.056667], abs=1e-6)
