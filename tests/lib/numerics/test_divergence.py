"""The metrics of arXiv:2506.09501: numbers of its tables, edges, and what must hold of any input."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolroll.numerics.divergence import (
    Gaps,
    avg_div_index,
    avg_std_output_length,
    avg_std_top1_prob,
    common_prefix,
    div_index,
    div_percent,
    mean,
    pass_at_1,
    pass_at_k,
    position_stds,
    std,
    std_acc,
)

AIME_A100 = [0.3, 0.3, 0.3667, 0.2333, 0.4, 0.3]
AIME_L40S = [0.3, 0.3667, 0.2667, 0.3333, 0.3, 0.3]
TABLES = {
    "AIME bf16 (table 25)": ([0.4667, 0.4667, 0.3667, 0.4333, 0.5333, 0.4667], 0.054420),
    "MATH500 bf16": ([0.8700, 0.8620, 0.8580, 0.8540, 0.8860, 0.8700], 0.011431),
    "MATH500 LayerCast": ([0.868] * 3 + [0.866] * 3, 0.001095),
    "LCB-Easy bf16": ([0.7198, 0.7418, 0.7253, 0.7418, 0.6978, 0.7363], 0.016922),
    "LCB-Easy LayerCast": ([0.7308] * 2 + [0.7363] * 2 + [0.7418] * 2, 0.004919),
    "Llama-8B AIME, A100": (AIME_A100, 0.058705),
    "Llama-8B AIME, L40S": (AIME_L40S, 0.034424),
    "Llama-8B AIME, all": (AIME_A100 + AIME_L40S, 0.045973),
    "Qwen3-32B bf16": (
        [80, 83.33, 83.33, 76.67, 83.33, 73.33, 73.33, 83.33, 70, 83.33, 76.67, 73.33],
        5.0244,
    ),
    "Qwen3-32B fp32": ([76.67] * 4 + [80] + [76.67] * 4, 1.1100),
    "GPQA bf16": (
        [33.84, 38.38, 41.41, 40.91, 41.92, 41.41, 43.43, 38.38, 44.95, 38.89, 43.94, 41.92],
        3.0311,
    ),
    "AIME of 16 samples bf16 (table 21)": ([53.33, 56.88, 55.42, 56.67, 53.54, 53.13], 1.7170),
}
TOP1 = [[0.9, 0.8, 0.7, 0.6], [0.9, 0.81, 0.7, 0.5], [0.9, 0.79, 0.73, 0.6]]

numbers = st.lists(st.floats(0, 1), min_size=2, max_size=12)
sequences = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=2, max_size=6)
tables = st.integers(1, 8).flatmap(
    lambda length: st.lists(st.lists(st.floats(0, 1), min_size=length, max_size=length), min_size=2, max_size=6)
)


def shuffled(values):
    """A strategy: values in any order, with them as they were."""
    return values.flatmap(lambda one: st.tuples(st.just(one), st.permutations(one)))


# --- the numbers of the paper


@pytest.mark.parametrize("name", TABLES)
def test_std_acc_is_that_of_the_tables(name):
    accuracies, expected = TABLES[name]
    assert std_acc(accuracies) == pytest.approx(expected, rel=1e-4, abs=5e-7)


def test_the_tables_do_not_divide_by_n():
    assert std([0.4667, 0.4667, 0.3667, 0.4333, 0.5333, 0.4667], ddof=0) == pytest.approx(0.049678, rel=1e-4)


def test_the_printed_stability_of_pass_at_1_is_near():
    accuracies, _ = TABLES["AIME of 16 samples bf16 (table 21)"]
    assert std_acc(accuracies) == pytest.approx(1.7151, rel=0.005)  # the paper's is of numbers before rounding


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([[5, 7, 9, 2, 4], [5, 7, 9, 3, 4], [5, 7, 9, 2, 4, 8]], 3),
        ([[1, 2, 3], [1, 2]], 2),
        ([[1, 2], [1, 2], [1, 2]], -1),
        ([[1, 2], [3, 2]], 0),
        ([[], [1]], 0),
        ([[], []], -1),
        ([[1, 2]], -1),
    ],
)
def test_div_index(answers, expected):
    assert div_index(answers) == expected


def test_lengths():
    assert std([5, 5, 6]) == pytest.approx(0.577350, rel=1e-5)
    assert avg_std_output_length([[5, 5, 6], [3, 3, 3]]) == pytest.approx(0.28867513)


def test_top1_probabilities_up_to_the_divergence():
    stds = position_stds([row[:3] for row in TOP1])
    assert stds == pytest.approx([0, 0.01, 0.01732051])
    assert avg_std_top1_prob([stds]) == pytest.approx(0.00910684, abs=1e-8)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"), [(4, 1, 1, 0.25), (4, 1, 2, 0.5), (16, 4, 4, 0.728022), (5, 5, 1, 1), (5, 0, 5, 0)]
)
def test_pass_at_k(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_pass_at_k_of_what_cannot_be(n, c, k):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, c, k)


def test_pass_at_1_weighs_problems_alike():
    assert pass_at_1([[1, 0], [1], []]) == 0.75


def test_sums_in_another_order_are_other_numbers_in_16_bits():
    a, b, c = (torch.tensor(value, dtype=torch.bfloat16) for value in (0.0016, 0.0027, 1.0))
    assert [bits((a + b) + c), bits((a + c) + b)] == ["0011111110000001", "0011111110000000"]
    a, b, c = (value.float() for value in map(torch.tensor, (0.0016, 0.0027, 1.0)))
    assert bits((a + b) + c) == bits((a + c) + b) == "00111111100000001000110011100111"


def test_how_near_to_one_a_number_can_be():
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    assert [torch.tensor(1.00012, dtype=kind).item() for kind in kinds] == [1.0001200437545776, 1.0, 1.0]


def bits(number):
    if number.dtype == torch.bfloat16:
        return f"{struct.unpack('<I', struct.pack('<f', number.item()))[0]:032b}"[:16]
    return f"{struct.unpack('<I', struct.pack('<f', number.item()))[0]:032b}"


# --- edges


def test_equal_values_have_no_deviation():
    assert np.std([0.3667] * 12, ddof=1) > 0  # what the paper prints as 5.8e-17
    assert std_acc([0.3667] * 12) == std_acc([0.1] * 12) == 0
    assert position_stds([[0.1, 0.3667]] * 12).tolist() == [0, 0]
    assert avg_std_top1_prob([position_stds([[0.1, 0.3667]] * 7)], micro=True) == 0


def test_one_configuration_has_no_deviation_to_tell():
    assert std_acc([0.5]) is None
    assert std([0.5], ddof=0) is None
    assert avg_std_output_length([[5], [6]]) is None


def test_nothing_is_none():
    assert mean([]) is avg_div_index([]) is div_percent([]) is avg_std_top1_prob([]) is None
    assert std_acc([]) is avg_std_output_length([]) is pass_at_1([]) is None


def test_indices():
    assert avg_div_index([3, -1, 5, 0]) == pytest.approx(8 / 3)
    assert avg_div_index([-1, -1]) == -1
    assert div_percent([3, -1, 0, -1]) == 50


def test_macro_and_micro_weigh_differently():
    long, short = np.array([0.1] * 9), np.array([0.3])
    assert avg_std_top1_prob([long, short]) == pytest.approx(0.2)
    assert avg_std_top1_prob([long, short], micro=True) == pytest.approx(0.12)
    empty = position_stds(np.zeros((3, 0)))
    assert avg_std_top1_prob([long, short, empty]) == pytest.approx(0.2)
    assert avg_std_top1_prob([empty]) is avg_std_top1_prob([empty], micro=True) is None


def test_ddof_0():
    assert position_stds([[0.1], [0.3]], ddof=0) == pytest.approx([0.1])


# --- gaps


def test_few_gaps_are_exact():
    gaps = Gaps()
    assert len(gaps) == 0
    gaps.add(np.array([0.3, 0.1]))
    gaps.add(np.array([0.7]))
    assert gaps.quantiles([0, 1 / 3, 0.5, 1]) == [0.1, 0.1, 0.3, 0.7]


def test_many_gaps_are_nearly_exact(monkeypatch):
    monkeypatch.setattr(Gaps, "EXACT", 100)
    values = np.concatenate([10.0 ** np.random.default_rng(0).uniform(-12, 0, 5000), [0.0, 1.0, 1e-30]])
    gaps = Gaps()
    for part in np.array_split(values, 60):
        gaps.add(part)
    assert len(gaps) == len(values)
    for level in (0, 0.01, 0.05, 0.5, 0.95, 1):
        exact = np.sort(values)[max(1, math.ceil(level * len(values))) - 1]
        assert gaps.quantiles([level])[0] == pytest.approx(exact, rel=3e-4, abs=1e-18)
    assert gaps.table()[1].sum() == len(values)


# --- what must hold of any input


@given(shuffled(numbers))
def test_the_order_of_configurations_does_not_matter_to_a_deviation(pair):
    values, others = pair
    assert std_acc(values) == std_acc(others)


@given(st.floats(0, 1), st.integers(2, 40))
def test_equal_values_have_no_deviation_ever(value, count):
    assert std_acc([value] * count) == 0
    assert position_stds([[value]] * count).tolist() == [0]


@given(numbers)
def test_a_deviation_is_that_of_numpy(values):
    assert std_acc(values) == pytest.approx(np.std(values, ddof=1), abs=1e-12)


@given(shuffled(sequences))
def test_the_order_of_configurations_does_not_matter_to_a_divergence(pair):
    answers, others = pair
    assert div_index(answers) == div_index(others)


@given(sequences)
def test_a_divergence_is_where_positions_first_differ(answers):
    end = object()
    padded = [[*answer, *[end] * (7 - len(answer))] for answer in answers]
    differing = [j for j, column in enumerate(zip(*padded, strict=True)) if len(set(map(repr, column))) > 1]
    assert div_index(answers) == (differing[0] if differing else -1)
    for other in answers:
        shared = common_prefix(answers[0], other)
        assert answers[0][:shared] == other[:shared]


@given(shuffled(tables))
def test_the_order_of_configurations_does_not_matter_to_probabilities(pair):
    table, other = pair
    assert position_stds(table).tolist() == position_stds(other).tolist()


@given(tables)
def test_deviations_of_probabilities_are_those_of_numpy(table):
    assert position_stds(table) == pytest.approx(np.std(table, axis=0, ddof=1), abs=1e-9)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_probability_that_grows_with_k(drawn):
    n, c, k = drawn
    assert 0 <= pass_at_k(n, c, k) <= 1
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert pass_at_k(n, c, k) >= pass_at_k(n, c, 1) - 1e-12
