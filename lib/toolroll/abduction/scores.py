"""The scores of a set of hypotheses, by their definitions: on sets of predictions, in plain Python.

S is the sample space, inputs without known outputs. A hypothesis f predicts P_f = {(x, f(x)) : x in S, f defined at x}.
W are the valid hypotheses of a problem: those that run and agree with all observations. Two predictions are the same
if input and output are; what outputs are compared as is up to the caller, who gives anything hashable.

    generalizability   g = mean over f in W of |P_f| / |S|
    gamma              Hill numbers of all predictions of W together; over |S|, q0 is the tables' gamma
    alpha              mean over f in W of the Hill numbers of f's own outputs
    beta               mean over pairs of W of the Jaccard distance of P_f and P_g, or of the Bray-Curtis
                       dissimilarity of their outputs
    novelty            of the k-th hypothesis: |P_k without the predictions of all before it|

`toolroll.abduction.matrix` computes the same from integer matrices, much faster. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Prediction = tuple[Hashable, Hashable]
Predictions = AbstractSet[Prediction]


class Hill(NamedTuple):
    """Hill numbers: how many kinds there are (q0), counting rare ones less (q1), and hardly (q2). q0 >= q1 >= q2."""

    q0: float
    q1: float
    q2: float


NONE = Hill(0.0, 0.0, 0.0)  #: of nothing


@dataclass(frozen=True, slots=True)
class Scores:
    """What a set of hypotheses scores on a sample space; None where it is not defined.

    n: hypotheses scored. space: |S|.
    """

    n: int
    space: int
    generalizability: float | None = None
    gamma: Hill | None = None
    gamma_out: Hill | None = None
    alpha: Hill | None = None
    beta_struct: float | None = None
    beta_dist: float | None = None

    @property
    def gamma_norm(self) -> float | None:
        """q0 of gamma over |S|, in [0, n]: the gamma of the paper's tables."""
        return self.gamma.q0 / self.space if self.gamma is not None and self.space else None


def hill_numbers(counts: Iterable[int]) -> Hill:
    """Hill numbers of a multiset, given how often each kind occurs.

    counts: positive integers c_1 .. c_K; with p_k = c_k / sum of c:

        q0 = K        q1 = exp(-sum p ln p)        q2 = 1 / sum p^2

    All are in [1, K], and 0 for no counts. The order of the counts changes nothing, not even the last bit.

    >>> [round(q, 6) for q in hill_numbers([2, 1, 1, 1, 1, 1, 1])]
    [7.0, 6.727171, 6.4]
    """
    return hill_of_spectrum(Counter(counts))


def hill_of_spectrum(spectrum: dict[int, int]) -> Hill:
    """Hill numbers where `spectrum[c]` kinds occur c times.

    >>> hill_of_spectrum({1: 4})
    Hill(q0=4.0, q1=4.0, q2=4.0)
    """
    total = sum(count * kinds for count, kinds in spectrum.items())
    if not total:
        return NONE
    kinds = float(sum(spectrum.values()))
    if len(spectrum) == 1:  # all alike: exact, where exp(log(K)) is not
        return Hill(kinds, kinds, kinds)
    weighted = math.fsum(many * count * math.log(count) for count, many in sorted(spectrum.items()))
    squares = sum(many * count * count for count, many in spectrum.items())
    return Hill(kinds, math.exp(math.log(total) - weighted / total), total * total / squares)


def jaccard_distance(a: AbstractSet[Hashable], b: AbstractSet[Hashable]) -> float:
    """1 - |a and b| / |a or b|, in [0, 1]; two empty sets are alike.

    >>> jaccard_distance({1, 2}, {2, 3, 4}), jaccard_distance(set(), set())
    (0.75, 0.0)
    """
    shared = len(a & b)
    union = len(a) + len(b) - shared
    return 1 - shared / union if union else 0.0


def bray_curtis(a: Iterable[Hashable], b: Iterable[Hashable]) -> float:
    """Bray-Curtis dissimilarity of two multisets with counts a_k, b_k: sum |a_k - b_k| / sum (a_k + b_k), in [0, 1].

    Two empty ones are alike.

    >>> bray_curtis([2, 3, 4, 5], [2, 4, 6, 8]), bray_curtis([], [])
    (0.5, 0.0)
    """
    first, second = Counter(a), Counter(b)
    total = first.total() + second.total()
    return (total - 2 * (first & second).total()) / total if total else 0.0


def mean_over_pairs(items: Sequence[T], distance: Callable[[T, T], float]) -> float | None:
    """Mean of a distance over all unordered pairs of places; None for fewer than two items.

    >>> mean_over_pairs([1, 2, 4], lambda a, b: abs(a - b))
    2.0
    """
    if len(items) < 2:
        return None
    return math.fsum(distance(a, b) for a, b in combinations(items, 2)) / math.comb(len(items), 2)


def generalizability(defined: Collection[int], space: int) -> float | None:
    """g: mean share of the sample space that hypotheses are defined on, in [0, 1]; None without hypotheses.

    defined: for each hypothesis, at how many inputs of S it has an output. space: |S|, positive.

    >>> round(generalizability([4, 4, 3], 4), 6)
    0.916667
    """
    if not defined:
        return None
    return min(1.0, max(0.0, math.fsum(count / space for count in defined) / len(defined)))


def novelty(predictions: Iterable[Predictions]) -> list[int]:
    """For each hypothesis in order: how many of its predictions none before it makes.

    >>> novelty([{(1, 2), (2, 3)}, {(1, 2), (2, 4)}, set(), {(2, 3)}])
    [2, 1, 0, 0]
    """
    seen: set[Prediction] = set()
    new: list[int] = []
    for made in predictions:
        before = len(seen)
        seen |= made
        new.append(len(seen) - before)
    return new


def mean_hill(numbers: Sequence[Hill]) -> Hill | None:
    """The mean of each of the Hill numbers; None of nothing."""
    if not numbers:
        return None
    q0, q1, q2 = (math.fsum(values) / len(numbers) for values in zip(*numbers, strict=True))
    return Hill(q0, q1, q2)


def set_scores(valid: Sequence[Predictions], space: int) -> Scores:
    """All scores of the valid hypotheses W, one set of predictions each, on a sample space of `space` inputs.

    Equal hypotheses count each. Undefined (None) is everything but `n` for no hypotheses, beta for one.

    >>> add, double = ({(x, x + 1) for x in range(1, 5)}, {(x, 2 * x) for x in range(1, 5)})
    >>> scores = set_scores([add, double], 4)
    >>> scores.gamma_norm, round(scores.beta_struct, 6), scores.beta_dist
    (1.75, 0.857143, 0.5)
    """
    if not valid:
        return Scores(0, space)
    outputs = [[output for _, output in made] for made in valid]
    return Scores(
        n=len(valid),
        space=space,
        generalizability=generalizability([len(made) for made in valid], space),
        gamma=hill_numbers(Counter(pair for made in valid for pair in made).values()),
        gamma_out=hill_numbers(Counter(output for own in outputs for output in own).values()),
        alpha=mean_hill([hill_numbers(Counter(own).values()) for own in outputs]),
        beta_struct=mean_over_pairs(valid, jaccard_distance),
        beta_dist=mean_over_pairs(outputs, bray_curtis),
    )


class Preference(NamedTuple):
    """What a hypothesis is worth to a set of others, and why."""

    total: float
    generalizability: float
    novelty: float
    beta: float


def preference(context: Sequence[Predictions], candidate: Predictions, space: int) -> Preference:
    """The score by which preference pairs are chosen: g + novelty + beta, in [0, 3].

    context: the hypotheses that are there already, valid ones. g = |P_f| / |S| of the candidate alone; novelty is the
    share of S at which it predicts what nothing in the context does; beta is that of context and candidate together,
    0 without a context.

    >>> add, double = ({(x, x + 1) for x in range(1, 5)}, {(x, 2 * x) for x in range(1, 5)})
    >>> [round(part, 6) for part in preference([add], double, 4)]
    [2.607143, 1.0, 0.75, 0.857143]
    """
    g = len(candidate) / space
    new = novelty([*context, candidate])[-1] / space
    beta = mean_over_pairs([*context, candidate], jaccard_distance) or 0.0
    return Preference(g + new + beta, g, new, beta)
