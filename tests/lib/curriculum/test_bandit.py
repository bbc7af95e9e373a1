"""Scores and probabilities: the numbers of the authors' controller, of SEC and of AdaRFT, and what must always hold."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.curriculum.bandit import Bandit, Seen, Settings, next_target, softmax, with_floor
from toolroll.errors import ToolrollError

NEAR = {"abs": 6e-10}


def shown(rule=None, /, **values):
    """A bandit whose arms have seen these advantages, in one batch."""
    bandit = Bandit.new(rule or Settings(), values)
    bandit.see({name: seen(given, k=bandit.settings.k) for name, given in values.items() if given})
    return bandit


def seen(values, *, k=300, prompts=0):
    given = [abs(value) for value in values]
    return Seen(last=given[-k:], rollouts=len(given), prompts=prompts, total=math.fsum(given))


VECTORS = {
    "V0": ({"a": [], "b": [], "c": []}, [1.177410023] * 3, [1 / 3] * 3),
    "V1": (
        {"a": [1, -1, 0.5, -0.5], "b": [], "c": []},
        [1.552356009, 1.794122578, 1.794122578],
        [0.042663432, 0.478668284, 0.478668284],
    ),
    "V2": (
        {"a": [0.5] * 8, "b": [1, -1, 1, -1], "c": [0] * 4},
        [1.293475246, 2.064558753, 1.064558753],
        [0.000447726, 0.999506896, 0.000045378],
    ),
    "V3": (
        {"a": [0.9] * 100, "b": [0.9] * 400, "c": [0.1] * 50},
        [1.253531961, 1.077425968, 0.597512826],
        [0.852312762, 0.146480691, 0.001206547],
    ),
    "V5": (
        {"a": [0.97] * 1000, "b": [0.73] * 1000, "c": [0] * 1000},
        [1.096480846, 0.856480846, 0.126480846],
        [0.916775793, 0.083168024, 0.000056183],
    ),
    "V6": ({"a": [0.6] * 20000, "b": [0.2] * 16}, [0.631470370, 1.279451778], [0.001531746, 0.998468254]),
    "P1": ({"a": [0.75] * 10, "b": [0.25] * 2}, [1.432901478, 1.557656774], [0.223124021, 0.776875979]),
    "P2": (
        {"a": [0.9] * 60, "b": [0.5] * 40, "c": [0] * 28},
        [1.299171782, 0.986892205, 0.578929595],
        [0.957140523, 0.042146618, 0.000712859],
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_authors_controller(name):
    given, scores, probabilities = VECTORS[name]
    bandit = shown(**given)
    assert bandit.scores() == pytest.approx(scores, **NEAR)
    assert bandit.probabilities() == pytest.approx(probabilities, **NEAR)


def test_a_window_that_moves_on():
    bandit = shown(a=[0.2] * 290, b=[0.5] * 10)
    assert bandit.probabilities() == pytest.approx([0.000013592, 0.999986408], **NEAR)
    bandit.see({"a": seen([1.0] * 20), "b": seen([0.5] * 10)})
    assert bandit.means == pytest.approx([0.253333333, 0.5], **NEAR)
    assert bandit.counts == [310, 20]
    assert bandit.scores() == pytest.approx([0.446498181, 1.243359067], **NEAR)
    assert bandit.probabilities() == pytest.approx([0.000346040, 0.999653960], **NEAR)


def test_twelve_arms_of_binary_rewards():
    rates = [0.6, 0.45, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01, 0]
    means = [2 * math.sqrt(p * (1 - p)) * math.sqrt(15 / 16) for p in rates]
    counts = [176] * 8 + [160] * 4
    given = {f"arm{i:02}": [mean] * n for i, (mean, n) in enumerate(zip(means, counts, strict=True))}
    bandit = shown(**given)
    assert [bandit.scores()[0], bandit.scores()[-1]] == pytest.approx([1.242212518, 0.307769115], **NEAR)
    expected = "288725274 334476653 224779349 095956749 037277902 011840143 004187956 001490525 000686911 000379891"
    expected += " 000173397 000025249"
    assert bandit.probabilities() == pytest.approx([float(f"0.{digits}") for digits in expected.split()], **NEAR)


@pytest.mark.parametrize(("tau", "expected"), [(1, [0.468851565, 0.531148435]), (0.05, [0.076201986, 0.923798014])])
def test_temperature(tau, expected):
    assert shown(Settings(tau=tau), a=[0.75] * 10, b=[0.25] * 2).probabilities() == pytest.approx(expected, **NEAR)


def test_a_floor_is_a_share_of_uniform_draws():
    bandit = shown(Settings(floor=0.1), a=[0.9] * 60, b=[0.5] * 40, c=[0] * 28)
    assert bandit.probabilities() == pytest.approx([0.894759804, 0.071265290, 0.033974906], **NEAR)
    assert with_floor([1.0, 0.0], 1.0) == [0.5, 0.5]


def test_sec():
    bandit = Bandit.new(Settings(policy="sec", alpha=0.5, tau=1.0), "abc")
    values = []
    for rewards in ((0.8, 0.4, None), (0.6, None, 0.2), (0.2, 0.6, 0.4)):
        bandit.see({arm: seen([reward]) for arm, reward in zip("abc", rewards, strict=True) if reward is not None})
        values.append(bandit.scores())
    assert values == [pytest.approx(row) for row in ([0.4, 0.2, 0.0], [0.5, 0.2, 0.1], [0.35, 0.4, 0.25])]
    assert bandit.probabilities() == pytest.approx([0.338283, 0.355627, 0.306091], abs=6e-7)


def test_adarft():
    target, targets = 0.0, []
    for reward in (0.9, 0.7, 0.3, 0.5, 0.1):
        target = next_target(target, reward, alpha=2.0, beta=0.5, eta=50.0)
        targets.append(target)
    assert targets == pytest.approx([33.201839, 52.199287, 33.201839, 33.201839, 0.0], abs=6e-7)


def test_adarft_follows_the_mean_reward_of_a_batch():
    rule = Settings(policy="adarft", alpha=2.0, difficulties={"easy": 5.0, "hard": 30.0})
    bandit = Bandit.new(rule, ["hard", "easy"])
    assert bandit.probabilities() == [1.0, 0.0]
    bandit.see({"easy": Seen(rewards=2.7, rewarded=3)})
    assert bandit.target == pytest.approx(33.201839, abs=6e-7)
    assert bandit.probabilities() == [0.0, 1.0]


def test_uniform_and_fixed():
    assert shown(Settings(policy="uniform"), a=[1.0], b=[]).probabilities() == [0.5, 0.5]
    assert shown(Settings(policy="fixed", weights={"b": 3.0, "c": 1.0}), a=[1.0], b=[], c=[]).probabilities() == [
        0.0,
        0.75,
        0.25,
    ]


def test_without_temperature_the_first_of_the_best_is_drawn():
    assert shown(Settings(tau=0), b=[0.5] * 4, a=[0.5] * 4, c=[0.1] * 4).probabilities() == [1.0, 0.0, 0.0]
    assert softmax([1.0, 2.0, 2.0], 0) == [0.0, 1.0, 0.0]


def test_without_a_bonus_the_mean_is_the_score():
    bandit = shown(Settings(bonus=0), a=[0.75] * 10, b=[0.25] * 2)
    assert bandit.scores() == [0.75, 0.25]
    assert shown(Settings(c=8), a=[]).scores() == pytest.approx([2 * 1.177410023], abs=2e-9)


def test_what_is_counted():
    batch = {"a": Seen(last=[0.5] * 4, rollouts=8, prompts=2)}
    for unit, n in (("rollouts", 8), ("prompts", 2), ("window", 4)):
        bandit = Bandit.new(Settings(count=unit, k=4), ["a"])
        bandit.see(batch)
        assert bandit.counts == [n]


def test_few_seen_and_frozen_arms():
    given = {"a": [0.9] * 10, "b": [0.1] * 3, "c": []}
    bandit = shown(Settings(min_seen=4), **given)
    assert bandit.probabilities() == [0.0, 0.5, 0.5]
    assert bandit.probabilities({"c"}) == [0.0, 1.0, 0.0]
    assert bandit.probabilities({"b", "c"}) == [1.0, 0.0, 0.0]
    p = shown(**given).probabilities()
    assert shown(**given).probabilities({"c"}) == pytest.approx([p[0] / (p[0] + p[1]), p[1] / (p[0] + p[1]), 0.0])
    with pytest.raises(ToolrollError, match="no arm can be drawn"):
        bandit.probabilities({"a", "b", "c"})


def test_normalised_scores_do_not_depend_on_the_scale():
    one, ten = (shown(Settings(normalise=True), a=[0.5 * scale] * 10, b=[0.2 * scale] * 10, c=[]) for scale in (1, 10))
    assert one.scores()[0] == pytest.approx(1.0 + one.bonuses()[0])
    assert one.probabilities() == pytest.approx(ten.probabilities())


def test_a_scale_that_tau_is_not_made_for_is_told():
    assert [*shown(a=[4.9]).warnings()] == []
    (told,) = shown(a=[5.5], b=[1.0]).warnings()
    assert "of a is 5.5" in told
    assert [*shown(Settings(normalise=True), a=[5.5]).warnings()] == []


def test_arms_are_sorted_and_new_ones_change_no_other():
    bandit = shown(c=[0.5], a=[0.25])
    bandit.add(["b", "a"])
    assert bandit.names == ["a", "b", "c"]
    assert bandit.means == [0.25, 0.0, 0.5]
    assert bandit.counts == [1, 0, 1]


windows = st.lists(
    st.lists(st.floats(0, 4), min_size=1, max_size=12), min_size=1, max_size=6
)  #: absolute advantages of some arms


@settings(deadline=None)
@given(windows, st.floats(0.01, 2), st.floats(-3, 3))
def test_a_constant_added_to_all_changes_no_probability(values, tau, constant):
    scores = shown(**{f"a{i}": given for i, given in enumerate(values)}).scores()
    moved = [score + constant for score in scores]
    assert softmax(moved, tau) == pytest.approx(softmax(scores, tau), abs=1e-9)


@settings(deadline=None)
@given(windows, st.sampled_from([0.0, 0.001, 0.1, 2.0]), st.floats(0, 1), st.integers(0, 8))
def test_probabilities_add_up_to_one(values, tau, floor, min_seen):
    rule = Settings(tau=tau, floor=floor, min_seen=min_seen)
    found = shown(rule, **{f"a{i}": given for i, given in enumerate(values)}).probabilities()
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)
    assert min(found) >= 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 9), st.lists(st.integers(0, 40), max_size=4))
def test_how_feedback_is_cut_into_batches_changes_nothing(values, k, cuts):
    whole = Bandit.new(Settings(k=k), ["a", "b"])
    whole.see({"a": seen(values, k=k)})
    cut = Bandit.new(Settings(k=k), ["a", "b"])
    edges = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    for start, end in pairwise(edges):
        cut.see({"a": seen(values[start:end], k=k)})
        cut.scores()
    assert cut.probabilities() == whole.probabilities()
    assert [*cut.arms["a"].window(k)] == values[-k:]
