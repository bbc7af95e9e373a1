"""Preference pairs: of two hypotheses, which is the better answer after those that are there already, and why.

A context is a set of k = 0, 1, 2 valid hypotheses that were given before. Two candidates are compared level by level,
and the first level at which they differ decides and names the reason:

    parsing       one can be run, the other cannot
    cheating      one explains, the other looks observations up
    inconsistent  one agrees with all observations, the other does not
    fair          the larger of  w_g g + w_n novelty + w_b beta

with g the share of the sample space at which the candidate has an output, novelty the share at which it predicts what
nothing in the context does, and beta the mean Jaccard distance of context and candidate together, 0 without a context.
Two candidates that are both bad at a level, and two with the same sum, make no pair. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

from toolroll.abduction.scores import Preference
from toolroll.abduction.trial import Trial
from toolroll.run.seeds import record_seed

if TYPE_CHECKING:
    from toolroll.abduction.matrix import Matrix

__all__ = ["REASONS", "Comparison", "Judge", "Plan", "Weights", "answer_pairs", "compare", "contexts", "shares"]

Reason = Literal["parsing", "cheating", "inconsistent", "fair"]
REASONS: tuple[Reason, ...] = ("parsing", "cheating", "inconsistent", "fair")
SAME = 1e-9  #: sums that differ by no more are the same, but for rounding


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of the sum counts, each at least 0."""

    generalizability: float = 1.0
    novelty: float = 1.0
    beta: float = 1.0

    def total(self, parts: Preference) -> float:
        """The weighted sum.

        >>> Weights(1, 0, 2).total(Preference(0, 1.0, 0.75, 0.5))
        2.0
        """
        return self.generalizability * parts.generalizability + self.novelty * parts.novelty + self.beta * parts.beta


class Comparison(NamedTuple):
    """How two candidates compare. better: 0 or 1, None where they make no pair; scores: their sums, if it came to it.

    reason: the level that decides; or the one at which both are bad, or the last, for two that make no pair.
    """

    better: int | None
    reason: Reason
    scores: tuple[float, float] | None = None


class Judge:
    """Compares candidates after one context; what was computed of a candidate is kept.

    context: outputs [S] of each hypothesis of the context. space: |S|.
    """

    def __init__(self, context: Sequence[Matrix], space: int, weights: Weights) -> None:
        self._context = context
        self._space = space
        self._weights = weights
        self._known: dict[int, float] = {}

    def worth(self, place: int, trial: Trial) -> float:
        """The weighted sum of a candidate; `place` tells candidates apart."""
        if place not in self._known:
            import numpy as np

            from toolroll.abduction.matrix import preference

            assert trial.ids is not None
            context = np.stack(self._context) if self._context else np.empty((0, self._space), np.int32)
            self._known[place] = self._weights.total(preference(context, trial.ids, self._space))
        return self._known[place]


def compare(judge: Judge, trials: Sequence[Trial], a: int, b: int) -> Comparison:
    """Compare the candidates at places `a` and `b` of `trials`."""
    pair = (trials[a], trials[b])
    levels: tuple[tuple[Reason, list[bool]], ...] = (
        ("parsing", [trial.ran for trial in pair]),
        ("cheating", [not trial.lookups for trial in pair]),
        ("inconsistent", [trial.status != "inconsistent" for trial in pair]),
    )
    for reason, good in levels:
        if good[0] != good[1]:
            return Comparison(good.index(True), reason)
        if not good[0]:
            return Comparison(None, reason)
    scores = (judge.worth(a, pair[0]), judge.worth(b, pair[1]))
    if math.isclose(*scores, rel_tol=0, abs_tol=SAME):
        return Comparison(None, "fair", scores)
    return Comparison(int(scores[1] > scores[0]), "fair", scores)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which contexts and pairs to make of a problem's hypotheses.

    sizes: of contexts. most_valid: valid hypotheses that contexts are made of. per_context: pairs after a context that
    is not empty; without one, all are made. seed: of the draws; those after a context depend on nothing else.
    """

    sizes: tuple[int, ...] = (0, 1, 2)
    most_valid: int = 20
    per_context: int = 15
    seed: int = 0


def contexts(valid: Sequence[int], plan: Plan) -> Iterator[tuple[int, ...]]:
    """All sets of valid hypotheses, by place, of each size of the plan, of at most `plan.most_valid` drawn ones.

    >>> list(contexts([0, 2], Plan()))
    [(), (0,), (2,), (0, 2)]
    """
    drawn = list(valid)
    if len(drawn) > plan.most_valid:
        drawn = sorted(random.Random(record_seed(plan.seed, "contexts")).sample(drawn, plan.most_valid))
    for size in plan.sizes:
        yield from combinations(drawn, size)


def answer_pairs(count: int, context: tuple[int, ...], plan: Plan) -> list[tuple[int, int]]:
    """The pairs of candidates to compare after a context: of all `count` hypotheses but those in it.

    >>> answer_pairs(4, (1,), Plan())
    [(0, 2), (0, 3), (2, 3)]
    """
    pairs = list(combinations([place for place in range(count) if place not in context], 2))
    if context and len(pairs) > plan.per_context:
        rng = random.Random(record_seed(plan.seed, "pairs", *context))
        pairs = sorted(rng.sample(pairs, plan.per_context))
    return pairs


def shares(counts: dict[str, int], weights: dict[str, float], most: int | None = None) -> dict[str, int]:
    """How many pairs of each reason to keep, so that they stand to each other as `weights` do.

    counts: pairs there are. most: of all together. What is scarcest for its weight decides; reasons without a pair are
    left out, and so are those without a weight.

    >>> shares({"parsing": 900, "fair": 30, "inconsistent": 40}, {"parsing": 1, "inconsistent": 1, "fair": 1})
    {'parsing': 30, 'inconsistent': 30, 'fair': 30}
    >>> shares({"parsing": 900, "fair": 300}, {"parsing": 1, "fair": 2}, most=30)
    {'parsing': 10, 'fair': 20}
    """
    wanted = {reason: weight for reason, weight in weights.items() if weight > 0 and counts.get(reason)}
    if not wanted:
        return {}
    total = math.fsum(wanted.values())
    whole = min(counts[reason] * total / weight for reason, weight in wanted.items())
    if most is not None:
        whole = min(whole, most)
    return {reason: math.floor(whole * weight / total + SAME) for reason, weight in wanted.items()}
