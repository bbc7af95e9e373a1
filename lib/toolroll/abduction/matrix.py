"""The scores of `toolroll.abduction.scores` from a matrix of output ids: the same numbers, far faster.

M[f, x] is the id of hypothesis f's output for the x-th input of the sample space S, a non-negative integer, or -1
where f is undefined. Equal ids are equal outputs; which id stands for what changes nothing. With D_f the number of
inputs at which f is defined and E = #{x : M[f, x] = M[g, x] >= 0}, the Jaccard distance is 1 - E / (D_f + D_g - E).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from toolroll.abduction.scores import (
    Hill,
    Preference,
    Scores,
    generalizability,
    hill_of_spectrum,
    mean_hill,
    mean_over_pairs,
)

Matrix: TypeAlias = npt.NDArray[np.int32]  # [F, S]
UNDEFINED = -1


def matrix_scores(valid: Matrix, space: int | None = None) -> Scores:
    """All scores of the valid hypotheses, the rows of `valid`: what `set_scores` gives for the sets they stand for.

    valid: [F, S] of output ids. space: |S|, if not the number of columns.

    >>> scores = matrix_scores(np.array([[2, 3, 4, 5], [2, 4, 6, 8], [2, 3, 4, -1]], dtype=np.int32))
    >>> scores.gamma_norm, round(scores.beta_struct, 6), round(scores.beta_dist, 6)
    (1.75, 0.646825, 0.357143)
    """
    size = valid.shape[1] if space is None else space
    if not len(valid):
        return Scores(0, size)
    rows = list(valid)
    defined = [int(count) for count in np.count_nonzero(valid >= 0, axis=1)]
    kinds = [_kinds(row) for row in rows]
    return Scores(
        n=len(valid),
        space=size,
        generalizability=generalizability(defined, size),
        gamma=gamma(valid),
        gamma_out=_hill(np.unique(valid[valid >= 0], return_counts=True)[1]),
        alpha=mean_hill([_hill(counts) for _, counts in kinds]),
        beta_struct=mean_over_pairs(rows, jaccard_distance),
        beta_dist=mean_over_pairs(kinds, _bray_curtis),
    )


def gamma(valid: Matrix) -> Hill:
    """Hill numbers of all (input, output) pairs of the rows of `valid` [F, S] together."""
    keys = valid.astype(np.int64) + np.arange(valid.shape[1]) * (int(valid.max(initial=0)) + 1)
    return _hill(np.unique(keys[valid >= 0], return_counts=True)[1])


def jaccard_distance(f: Matrix, g: Matrix) -> float:
    """Jaccard distance of the predictions of two hypotheses, f and g of shape [S]; two that predict nothing are alike.

    >>> jaccard_distance(np.array([1, 2, -1]), np.array([1, 3, -1]))
    0.6666666666666667
    """
    shared = int(np.count_nonzero((f == g) & (f >= 0)))
    union = int(np.count_nonzero(f >= 0)) + int(np.count_nonzero(g >= 0)) - shared
    return 1 - shared / union if union else 0.0


def novelty(predicted: Matrix) -> list[int]:
    """For each row of `predicted` [F, S] in order: at how many inputs it has an output that no earlier row has there.

    >>> novelty(np.array([[2, 3], [2, 4], [-1, -1], [-1, 3]]))
    [2, 1, 0, 0]
    """
    new = predicted >= 0
    for later in range(1, len(predicted)):
        new[later] &= ~(predicted[:later] == predicted[later]).any(axis=0)
    return [int(count) for count in new.sum(axis=1)]


def first_of_each(rows: Matrix) -> list[int]:
    """For each row of `rows` [F, S]: the first row that is the same; a row that is new names itself.

    >>> first_of_each(np.array([[1, 2], [1, 3], [1, 2]]))
    [0, 1, 0]
    """
    seen: dict[bytes, int] = {}
    return [seen.setdefault(np.ascontiguousarray(row).tobytes(), number) for number, row in enumerate(rows)]


def preference(context: Matrix, candidate: Matrix, space: int | None = None) -> Preference:
    """What a candidate [S] is worth to a context [F, S]: `toolroll.abduction.scores.preference` on ids.

    >>> round(preference(np.array([[2, 3, 4, 5]]), np.array([2, 4, 6, 8])).total, 6)
    2.607143
    """
    size = len(candidate) if space is None else space
    rows = [*context, candidate]
    g = int(np.count_nonzero(candidate >= 0)) / size
    new = novelty(np.stack(rows))[-1] / size
    beta = mean_over_pairs(rows, jaccard_distance) or 0.0
    return Preference(g + new + beta, g, new, beta)


def differing(rows: Matrix, names: Sequence[int]) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """For each pair of the rows [F, S], named by `names`: the inputs at which they differ."""
    pairs = combinations(zip(names, rows, strict=True), 2)
    return [(a, b, np.flatnonzero(f != g)) for (a, f), (b, g) in pairs]


def _kinds(row: Matrix) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """The ids in a row, ascending, and how often each occurs."""
    return np.unique(row[row >= 0], return_counts=True)


def _hill(counts: npt.NDArray[np.intp]) -> Hill:
    count, kinds = np.unique(counts, return_counts=True)
    return hill_of_spectrum(dict(zip(count.tolist(), kinds.tolist(), strict=True)))


def _bray_curtis(a: tuple[Matrix, npt.NDArray[np.intp]], b: tuple[Matrix, npt.NDArray[np.intp]]) -> float:
    total = int(a[1].sum() + b[1].sum())
    if not total:
        return 0.0
    _, at_a, at_b = np.intersect1d(a[0], b[0], assume_unique=True, return_indices=True)
    return (total - 2 * int(np.minimum(a[1][at_a], b[1][at_b]).sum())) / total
