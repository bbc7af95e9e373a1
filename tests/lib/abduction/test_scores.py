"""The scores of hypothesis sets: worked vectors, and that matrices give what sets give."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.abduction import matrix
from toolroll.abduction.scores import (
    Hill,
    bray_curtis,
    generalizability,
    hill_numbers,
    jaccard_distance,
    novelty,
    preference,
    set_scores,
)

S = (1, 2, 3, 4)
A = {1: 2, 2: 3, 3: 4, 4: 5}  # x + 1
B = {1: 2, 2: 4, 3: 6, 4: 8}  # 2 x
C = {1: 2, 2: 3, 3: 4}  # x + 1, not at 4
Z = {}  # nowhere on S

VECTORS = {
    "A": ([A], 1, (4, 4, 4), 1.0, (4, 4, 4), None, None),
    "A B": ([A, B], 1, (7, 6.727171, 6.4), 1.75, (6, 5.656854, 5.333333), 6 / 7, 0.5),
    "A B C": ([A, B, C], 0.916667, (7, 6.335826, 5.761905), 1.75, (6, 5.326133, 4.84), 0.646825, 0.357143),
    "A D": ([A, A], 1, (4, 4, 4), 1.0, (4, 4, 4), 0, 0),
    "A B D": ([A, B, A], 1, (7, 6.44742, 6.0), 1.75, (6, 5.498919, 5.142857), 4 / 7, 0.333333),
    "A Z": ([A, Z], 0.5, (4, 4, 4), 1.0, (4, 4, 4), 1, 1),
    "Z Z": ([Z, Z], 0, (0, 0, 0), 0, (0, 0, 0), 0, 0),
}


def predictions(function):
    return set(function.items())


def row(function):
    return [function.get(x, -1) for x in S]


def as_matrix(functions):
    return np.array([row(f) for f in functions], dtype=np.int32).reshape(len(functions), len(S))


@pytest.mark.parametrize("form", ["sets", "matrix"])
@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_vectors(vector, form):
    functions, g, gamma, norm, out, beta, dist = vector
    if form == "sets":
        found = set_scores([predictions(f) for f in functions], len(S))
    else:
        found = matrix.matrix_scores(as_matrix(functions))
    assert found.generalizability == pytest.approx(g, abs=1e-6)
    assert found.gamma == pytest.approx(gamma, abs=1e-6)
    assert found.gamma_norm == pytest.approx(norm)
    assert found.gamma_out == pytest.approx(out, abs=1e-6)
    for value, wanted in ((found.beta_struct, beta), (found.beta_dist, dist)):
        assert value is None if wanted is None else value == pytest.approx(wanted, abs=1e-6)


def test_no_hypotheses_have_no_scores():
    for found in (set_scores([], 4), matrix.matrix_scores(as_matrix([]))):
        assert (found.n, found.space) == (0, 4)
        assert found.generalizability is found.gamma is found.gamma_norm is found.alpha is found.beta_struct is None


def test_pairs_of_the_third_vector():
    a, b, c = map(predictions, (A, B, C))
    assert jaccard_distance(a, b) == pytest.approx(6 / 7)
    assert jaccard_distance(a, c) == pytest.approx(1 / 4)
    assert jaccard_distance(b, c) == pytest.approx(5 / 6)


def test_alpha_is_over_each_ones_own_outputs():
    constant = dict.fromkeys(S, 0)
    found = set_scores([predictions(A), predictions(constant)], 4)
    assert found.alpha == Hill(2.5, 2.5, 2.5)
    assert matrix.matrix_scores(as_matrix([A, constant])).alpha == found.alpha


PREFERENCES = [
    ([], A, 2.0, (1, 1, 0)),
    ([], C, 1.5, (0.75, 0.75, 0)),
    ([A], B, 2.607143, (1, 0.75, 0.857143)),
    ([A], C, 1.0, (0.75, 0, 0.25)),
    ([A, B], C, 1.396825, (0.75, 0, 0.646825)),
    ([A, B], A, 1.571429, (1, 0, 0.571429)),
]


@pytest.mark.parametrize(("context", "candidate", "total", "parts"), PREFERENCES)
def test_preference_vectors(context, candidate, total, parts):
    by_sets = preference([predictions(f) for f in context], predictions(candidate), 4)
    by_matrix = matrix.preference(as_matrix(context), as_matrix([candidate])[0])
    assert by_sets == by_matrix
    assert by_sets.total == pytest.approx(total, abs=1e-6)
    assert by_sets[1:] == pytest.approx(parts, abs=1e-6)


def test_generalizability_can_outvote_novelty():
    context = [predictions(A), predictions(B)]
    assert preference(context, predictions(A), 4).total > preference(context, predictions(C), 4).total


def test_hill_numbers_of_nothing_and_of_one_kind():
    assert hill_numbers([]) == (0, 0, 0)
    assert hill_numbers([5]) == (1, 1, 1)
    assert generalizability([], 4) is None


# --- properties

sets_of_functions = st.lists(st.dictionaries(st.integers(0, 6), st.integers(0, 4), max_size=7), max_size=6)


def both(functions, size=7):
    grid = np.full((len(functions), size), -1, dtype=np.int32)
    for f, function in enumerate(functions):
        for x, y in function.items():
            grid[f, x] = y
    return [predictions(f) for f in functions], grid


@given(sets_of_functions)
def test_a_matrix_gives_what_the_sets_give(functions):
    sets, grid = both(functions)
    assert matrix.matrix_scores(grid) == set_scores(sets, 7)
    assert (matrix.novelty(grid) if len(grid) else []) == novelty(sets)


@given(sets_of_functions, st.randoms(use_true_random=False))
def test_neither_order_nor_numbering_matter(functions, rng):
    _, grid = both(functions)
    shuffled = list(range(len(functions)))
    rng.shuffle(shuffled)
    names = rng.sample(range(100), 5)
    renamed = np.array([[names[y] if y >= 0 else -1 for y in line] for line in grid], dtype=np.int32).reshape(
        grid.shape
    )
    columns = rng.sample(range(7), 7)
    assert matrix.matrix_scores(renamed[shuffled][:, columns]) == matrix.matrix_scores(grid)


@given(sets_of_functions.filter(bool))
def test_bounds(functions):
    sets, _ = both(functions)
    found = set_scores(sets, 7)
    for hill in (found.gamma, found.gamma_out, found.alpha):
        assert hill.q0 + 1e-9 >= hill.q1 >= hill.q2 - 1e-9 >= -1e-9
    assert 0 <= found.generalizability <= 1
    assert 0 <= found.gamma_norm <= len(functions)
    assert sum(novelty(sets)) == found.gamma.q0
    for beta in (found.beta_struct, found.beta_dist):
        assert beta is None if len(functions) < 2 else 0 <= beta <= 1


@given(sets_of_functions.filter(bool), st.data())
def test_an_exact_copy_changes_no_richness_and_brings_nothing_new(functions, data):
    sets, _ = both(functions)
    copied = [*sets, data.draw(st.sampled_from(sets))]
    assert set_scores(copied, 7).gamma.q0 == set_scores(sets, 7).gamma.q0
    assert novelty(copied)[-1] == 0


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 4)), st.integers(2, 4))
def test_copies_of_one_hypothesis_are_alike(function, times):
    sets, grid = both([function] * times)
    found = set_scores(sets, 7)
    assert (found.beta_struct, found.beta_dist) == (0, 0)
    assert matrix.first_of_each(grid) == [0] * times


@given(st.lists(st.integers(1, 50), max_size=20), st.randoms(use_true_random=False))
def test_hill_numbers_do_not_depend_on_the_order_to_the_last_bit(counts, rng):
    mixed = counts.copy()
    rng.shuffle(mixed)
    assert hill_numbers(mixed) == hill_numbers(counts)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_hill_numbers_are_what_they_are_defined_as(counts):
    shares = [count / sum(counts) for count in counts]
    q0, q1, q2 = hill_numbers(counts)
    assert q0 == len(counts)
    assert q1 == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert q2 == pytest.approx(1 / sum(p * p for p in shares))


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_distances_are_symmetric_and_nought_for_equals(a, b):
    assert bray_curtis(a, b) == bray_curtis(b, a)
    assert bray_curtis(a, list(reversed(a))) == 0
    assert jaccard_distance(set(a), set(b)) == jaccard_distance(set(b), set(a))
    assert jaccard_distance(set(a), set(a)) == 0


def test_differences_between_hypotheses():
    found = matrix.differing(as_matrix([A, B, C]), [0, 2, 5])
    assert [(a, b, list(places)) for a, b, places in found] == [(0, 2, [1, 2, 3]), (0, 5, [3]), (2, 5, [1, 2, 3])]


def test_as_many_outputs_as_there_can_be():
    grid = np.arange(26 * 15_101, dtype=np.int32).reshape(26, 15_101)
    found = matrix.matrix_scores(grid)
    assert (found.gamma_norm, found.beta_struct, found.beta_dist) == (26, 1, 1)
    assert found.gamma == found.gamma_out == Hill(26 * 15_101, 26 * 15_101, 26 * 15_101)
