"""How far the answers of one model differ between configurations that should give the same.

Symbols: configurations c = 1..C (batch sizes, devices, ...), problems i = 1..N, the tokens s_ci that configuration c
writes for problem i, and p_cij, the probability of the most probable token at position j of them.

The metrics are those of arXiv:2506.09501, section 3 and appendix C; its authors released no code for them, and what
the paper leaves open is said where it arises. A standard deviation has n - 1 below it (ddof 1): with that, and not
with n, the tables follow from the accuracies that the appendix lists. Sums do not depend on the order of their terms,
so that the order of configurations changes nothing, and values that are equal have a deviation of 0, not of 1e-17.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Gaps",
    "avg_div_index",
    "avg_std_output_length",
    "avg_std_top1_prob",
    "common_prefix",
    "div_index",
    "div_percent",
    "mean",
    "pass_at_1",
    "pass_at_k",
    "position_stds",
    "std_acc",
]

Floats = npt.NDArray[np.float64]
NO_DIVERGENCE = -1


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing. It lies between the least and the largest value, and is theirs where they are equal.

    >>> mean([0.1] * 12), mean([])
    (0.1, None)
    """
    if not values:
        return None
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def std(values: Sequence[float], *, ddof: int = 1) -> float | None:
    """sqrt(sum_c (x_c - mean x)^2 / (n - ddof)); None where n <= ddof, and for a single value whatever ddof is.

    >>> std([0.3667] * 12), std([0.3667]), round(std([1, 2, 3, 4]), 4)
    (0.0, None, 1.291)
    """
    if len(values) <= max(ddof, 1):
        return None
    centre = mean(values)
    assert centre is not None
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def std_acc(accuracies: Sequence[float]) -> float | None:
    """Std@Acc: the sample standard deviation of one accuracy for each configuration, in their unit; >= 0.

    For several samples a problem, of Pass@1: the stability of Pass@1. None for one configuration.

    >>> round(std_acc([0.4667, 0.4667, 0.3667, 0.4333, 0.5333, 0.4667]), 6)  # table 25, AIME'24 in bf16
    0.05442
    """
    return std(accuracies)


def avg_std_output_length(lengths: Sequence[Sequence[int]]) -> float | None:
    """Avg_Std@Output_Length: mean_i std_c len(s_ci), in tokens, >= 0. lengths: one list over c for each problem [N][C].

    >>> round(avg_std_output_length([[5, 5, 6], [3, 3, 3]]), 8)
    0.28867513
    """
    stds = [std(row) for row in lengths]
    return mean([value for value in stds if value is not None])


def common_prefix(a: Sequence[int] | npt.NDArray[Any], b: Sequence[int] | npt.NDArray[Any]) -> int:
    """The number of positions from the first on at which two sequences agree, in [0, min(len a, len b)].

    >>> common_prefix([5, 7, 9, 2, 4], [5, 7, 9, 3, 4]), common_prefix([1, 2, 3], [1, 2]), common_prefix([], [1])
    (3, 2, 0)
    """
    length = min(len(a), len(b))
    differ = np.asarray(a[:length]) != np.asarray(b[:length])
    return int(differ.argmax()) if differ.any() else length


def div_index(sequences: Sequence[Sequence[int]]) -> int:
    """Div_Index_i: the first position, from 0, at which the sequences s_1i..s_Ci are not all equal; -1 if they are.

    Where one ends and others go on, that is its length (the paper does not say; with the end-of-sequence token kept
    it follows from the rest).

    >>> div_index([[5, 7, 9, 2, 4], [5, 7, 9, 3, 4], [5, 7, 9, 2, 4, 8]]), div_index([[1, 2], [1, 2]])
    (3, -1)
    """
    first = sequences[0]
    if all(len(other) == len(first) == common_prefix(first, other) for other in sequences[1:]):
        return NO_DIVERGENCE
    return min(common_prefix(first, other) for other in sequences[1:])


def avg_div_index(indices: Sequence[int]) -> float | None:
    """Average Div_Index: the mean over the problems that diverge; -1 if none does, None if there are no problems.

    Table 8 has means of some thousand where 6 % of the problems diverge, so the others cannot be in it.

    >>> avg_div_index([3, -1, 5]), avg_div_index([-1, -1])
    (4.0, -1.0)
    """
    if not indices:
        return None
    found = mean([index for index in indices if index != NO_DIVERGENCE])
    return float(NO_DIVERGENCE) if found is None else found


def div_percent(indices: Sequence[int]) -> float | None:
    """Div_Percent: 100 * the problems with Div_Index >= 0 / N, in [0, 100]; None if there are no problems.

    >>> div_percent([3, -1, 0, -1])
    50.0
    """
    return 100 * sum(index != NO_DIVERGENCE for index in indices) / len(indices) if indices else None


def position_stds(probabilities: npt.ArrayLike, *, ddof: int = 1) -> Floats:
    """std_c p_cij for each position j [T], from p [C, T] of one problem at positions before its Div_Index.

    >>> position_stds([[0.9, 0.8], [0.9, 0.81], [0.9, 0.79]]).round(8).tolist()
    [0.0, 0.01]
    """
    table = np.sort(np.asarray(probabilities, dtype=np.float64), axis=0)
    beyond = table - table[0]  # 0 wherever all are equal, and so is what follows
    squares = ((beyond - beyond.mean(axis=0)) ** 2).sum(axis=0)
    stds: Floats = np.sqrt(squares / (len(table) - ddof))
    stds[beyond[-1] == 0] = 0.0
    return stds


def avg_std_top1_prob(stds: Sequence[Floats], *, micro: bool = False) -> float | None:
    """Avg_Std@top1_prob, in [0, 1], from the `position_stds` of each problem [T_i].

        macro: mean_i mean_{j < T_i} std_c p_cij        micro: sum_ij std_c p_cij / sum_i T_i

    with T_i = Div_Index_i, or the whole length where the problem does not diverge. The paper's words ("averaged over
    all positions 0..Div_Index and all examples") fit both. Problems with T_i = 0 are in neither; None if all are.

    >>> p = [[0.9, 0.8, 0.7], [0.9, 0.81, 0.7], [0.9, 0.79, 0.73]]
    >>> round(avg_std_top1_prob([position_stds(p)]), 8)
    0.00910684
    """
    there = [row for row in stds if len(row)]
    if micro:
        return math.fsum(float(row.sum()) for row in there) / sum(map(len, there)) if there else None
    return mean([float(row.mean()) for row in there])


def pass_at_1(correct: Sequence[Sequence[int]]) -> float | None:
    """Pass@1, in [0, 1]: the mean of 0 and 1 over the samples of a problem, then over problems. correct: [N][n].

    >>> pass_at_1([[1, 0], [1, 1]])
    0.75
    """
    return mean([sum(samples) / len(samples) for samples in correct if samples])


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that of k samples, drawn from n of which c are right, at least one is right, in [0, 1].

        1 - C(n - c, k) / C(n, k)

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), round(pass_at_k(16, 4, 4), 6), pass_at_k(5, 5, 1), pass_at_k(5, 0, 5)
    (0.25, 0.5, 0.728022, 1.0, 0.0)
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} right in {n}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


class Gaps:
    """The distribution of gaps p(top 1) - p(top 2), each in [0, 1], in memory that does not grow beyond some MB.

    The first `EXACT` are kept as they are. When there are more, they are counted by the first 12 bits of their
    fraction, which tells a gap to 0.03 % of itself, however small it is.

    Why it matters: where no logit moves by more than e, a token can only flip if the gap of the logits is <= 2e.

    >>> gaps = Gaps()
    >>> gaps.add(np.array([0.5, 0.1, 0.3]))
    >>> gaps.quantiles((0, 0.5, 1)), len(gaps)
    ([0.1, 0.3, 0.5], 3)
    """

    EXACT = 2**19
    _DROPPED = 52 - 12  # bits at the end of a float64
    _LEAST = (1023 - 64) << 12  # 2^-64: what is smaller counts as 0

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._n = 0
        self._counts: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._n

    def add(self, gaps: Floats) -> None:
        """Take in the gaps of one answer [T]."""
        self._n += len(gaps)
        self._kept.append(gaps)
        if self._counts is not None or self._n > self.EXACT:
            self._count()

    def table(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The gaps from the least to the largest, and how often each occurs."""
        if self._counts is None:
            return np.unique(np.concatenate([np.zeros(0), *self._kept]), return_counts=True)
        (seen,) = self._counts.nonzero()
        bits = np.where(seen == 0, 0, seen + self._LEAST) << self._DROPPED
        return bits.view(np.float64), self._counts[seen]

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """For each level q in [0, 1] the least gap that at least a share q of all gaps does not exceed."""
        values, counts = self.table()
        reached = counts.cumsum()
        return [float(values[int(np.searchsorted(reached, max(1, math.ceil(q * self._n))))]) for q in levels]

    def _count(self) -> None:
        if self._counts is None:
            self._counts = np.zeros(((1023 << 12) - self._LEAST) + 1, dtype=np.int64)
        for gaps in self._kept:
            places = (np.ascontiguousarray(gaps).view(np.int64) >> self._DROPPED) - self._LEAST
            np.add.at(self._counts, places.clip(0), 1)
        self._kept.clear()
