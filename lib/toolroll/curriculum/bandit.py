"""Which distribution to train on next: scores and probabilities from what feedback has shown so far.

An *arm* is a distribution of tasks. DUMP (arXiv:2504.09710, section 3): with A_j the window of the last k absolute
advantages of arm j, n_j how often it was seen and n = sum n_j,

    L_j = mean(A_j)  (0 when empty)      UCB_j = L_j + bonus sqrt(c ln(n + 1) / (n_j + 1))      P = softmax(UCB / tau)

The paper's values are k = 300, tau = 0.1, c = 2, bonus = 1. Other policies stand beside it: SEC (arXiv:2505.14970), a
running value Q <- (1 - a) Q + a r without counts; AdaRFT (arXiv:2504.05520), a target difficulty that follows the mean
reward; uniform; fixed weights. Everything is float64 and exact sums, so that a replay gives the same bits.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from toolroll.errors import ToolrollError

Share = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(ge=0)]
Weight = Annotated[float, Meta(ge=0)]
LOUD = 5.0  #: a mean absolute advantage above this is on another scale than GRPO's, which is at most about 1


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """What a bandit is set to when its state is made; it does not change after that.

    `weights` are of policy fixed, `difficulties` (0 to 100) of adarft. alpha is SEC's step or AdaRFT's sensitivity.
    """

    policy: Literal["ucb", "sec", "adarft", "uniform", "fixed"] = "ucb"
    k: Annotated[int, Meta(ge=1)] = 300
    tau: Weight = 0.1
    c: Weight = 2.0
    bonus: Weight = 1.0
    count: Literal["rollouts", "prompts", "window"] = "rollouts"
    floor: Share = 0.0
    seed: Whole = 1
    alpha: Weight = 0.5
    beta: float = 0.5
    eta: Weight = 50.0
    target: Annotated[float, Meta(ge=0, le=100)] = 0.0
    normalise: bool = False
    ignore_zero_groups: bool = False
    min_seen: Whole = 0
    weights: dict[str, Weight] = {}
    difficulties: dict[str, float] = {}
    remember: Annotated[int, Meta(ge=1)] = 100_000


class Seen(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one batch of feedback says of one arm: its last advantages, signed or not, and totals over all of them."""

    last: list[float] = []
    rollouts: int = 0
    prompts: int = 0
    total: float = 0.0
    rewards: float = 0.0
    rewarded: int = 0


@dataclass(slots=True)
class Arm:
    """One distribution: its window of absolute advantages, its counts, its running value (SEC)."""

    kept: array[float] = field(default_factory=lambda: array("d"))
    rollouts: int = 0
    prompts: int = 0
    value: float = 0.0
    _new: list[float] = field(default_factory=list)  # of the window, not yet in `kept`

    def see(self, seen: Seen, rule: Settings) -> None:
        """Take in what a batch says of the arm."""
        self._new += seen.last
        if len(self._new) > 4 * rule.k:
            self.window(rule.k)
        self.rollouts += seen.rollouts
        self.prompts += seen.prompts
        if rule.policy == "sec" and seen.rollouts:
            self.value = next_value(self.value, seen.total / seen.rollouts, alpha=rule.alpha)

    def window(self, k: int) -> array[float]:
        """The last k absolute advantages."""
        if self._new:
            self.kept = (self.kept + array("d", map(abs, self._new[-k:])))[-k:]
            self._new = []
        return self.kept

    def count(self, rule: Settings) -> int:
        """n_j in the unit of `count`."""
        if rule.count == "window":
            return len(self.window(rule.k))
        return self.prompts if rule.count == "prompts" else self.rollouts


class Bandit:
    """The arms and what they have shown, sorted by name: nothing depends on the order they came in.

    What the scores are made of is kept up to date with every batch, so that a thousand arms are scored in a fraction of
    a millisecond.
    """

    def __init__(self, settings: Settings, arms: Mapping[str, Arm], target: float) -> None:
        self.settings = settings
        self.target = target
        self._arrange(arms)

    def _arrange(self, arms: Mapping[str, Arm]) -> None:
        self.arms = dict(sorted(arms.items()))
        self._place = {name: i for i, name in enumerate(self.arms)}
        self._counts = [0] * len(self.arms)  # n_j
        self._means = [0.0] * len(self.arms)  # L_j
        self._rarities = [1.0] * len(self.arms)  # 1 / sqrt(n_j + 1)
        self._changed = set(self.arms)

    @classmethod
    def new(cls, settings: Settings, names: Iterable[str] = ()) -> Bandit:
        """A bandit that has seen nothing."""
        return cls(settings, {name: Arm() for name in names}, settings.target)

    def add(self, names: Iterable[str]) -> None:
        """Add arms; those that are there already stay as they are."""
        self._arrange({name: Arm() for name in names} | self.arms)

    @property
    def names(self) -> list[str]:
        """The arms, sorted."""
        return list(self.arms)

    @property
    def total(self) -> int:
        """n, the sum of all n_j."""
        return sum(self.counts)

    def see(self, batch: Mapping[str, Seen]) -> None:
        """Take in what a batch of feedback says of the arms."""
        rule = self.settings
        for name, seen in batch.items():
            self.arms[name].see(seen, rule)
            self._changed.add(name)
        if rule.policy == "adarft" and (rewarded := sum(seen.rewarded for seen in batch.values())):
            mean = math.fsum(seen.rewards for seen in batch.values()) / rewarded
            self.target = next_target(self.target, mean, alpha=rule.alpha, beta=rule.beta, eta=rule.eta)

    def _update(self) -> None:
        """Bring up to date what the scores of the arms that changed are made of."""
        for name in self._changed:
            arm, i = self.arms[name], self._place[name]
            self._counts[i] = arm.count(self.settings)
            self._means[i] = mean_of(arm.window(self.settings.k))
            self._rarities[i] = 1 / math.sqrt(self._counts[i] + 1)
        self._changed.clear()

    @property
    def counts(self) -> list[int]:
        """n_j of each arm."""
        self._update()
        return self._counts

    @property
    def means(self) -> list[float]:
        """L_j of each arm: the mean of its window, 0 when that is empty."""
        self._update()
        return self._means

    def learnability(self) -> list[float]:
        """L_j of each arm; with `normalise` over the largest of them, so that they lie in [0, 1]."""
        means = self.means
        most = max(means, default=0.0)
        return [mean / most for mean in means] if self.settings.normalise and most > 0 else means

    def bonuses(self) -> list[float]:
        """The bonus sqrt(c ln(n + 1) / (n_j + 1)) of each arm; before anything was seen n is 1, as in the code."""
        total = self.total
        scale = self.settings.bonus * math.sqrt(self.settings.c * math.log(max(1, total) + 1))
        return [scale * rarity for rarity in self._rarities]

    def scores(self) -> list[float]:
        """What the softmax is taken of: UCB_j, or Q_j under sec."""
        if self.settings.policy == "sec":
            return [arm.value for arm in self.arms.values()]
        return list(map(operator.add, self.learnability(), self.bonuses()))

    def probabilities(self, frozen: Collection[str] = ()) -> list[float]:
        """P of each arm, adding up to 1, in the order of `names`; `frozen` arms get nothing."""
        raw = self._weights()
        if self.settings.floor:
            raw = with_floor(raw, self.settings.floor)
        if not frozen and not self.settings.min_seen:
            return raw
        free = [name not in frozen for name in self.arms]
        scarce = [n < self.settings.min_seen and is_free for n, is_free in zip(self.counts, free, strict=True)]
        return normalised(list(map(float, scarce)) if any(scarce) else list(map(operator.mul, raw, free)))

    def warnings(self) -> Iterator[str]:
        """What its user should know: advantages on a scale that tau and the bonus are not made for."""
        if self.settings.policy == "ucb" and not self.settings.normalise and max(self.means, default=0.0) > LOUD:
            most, name = max(zip(self.means, self.arms, strict=True))
            yield (
                f"the mean absolute advantage of {name} is {most:.3g}; tau and the bonus are made "
                "for about 1: see --normalise, --tau, --bonus"
            )

    def _weights(self) -> list[float]:
        rule = self.settings
        if rule.policy == "uniform":
            return normalised([1.0] * len(self.arms))
        if rule.policy == "fixed":
            return normalised([rule.weights.get(name, 0.0) for name in self.arms])
        if rule.policy == "adarft":
            away = [abs(rule.difficulties.get(name, 0.0) - self.target) for name in self.arms]
            least = min(away, default=0.0)
            return normalised([float(distance == least) for distance in away])
        return softmax(self.scores(), rule.tau)


def mean_of(window: Collection[float]) -> float:
    """The mean, 0 of nothing; an exact sum, so that it does not depend on how the window came to be."""
    return math.fsum(window) / len(window) if window else 0.0


def softmax(scores: Sequence[float], tau: float) -> list[float]:
    """exp(s / tau) / sum exp(s / tau); tau = 0 puts everything on the best, the first of equals.

    >>> [round(p, 9) for p in softmax([1.552356009, 1.794122578, 1.794122578], 0.1)]
    [0.042663432, 0.478668284, 0.478668284]
    """
    if not scores:
        return []
    best = max(scores)
    if tau == 0:
        winner = scores.index(best)
        return [float(i == winner) for i in range(len(scores))]
    return normalised([math.exp((score - best) / tau) for score in scores])


def normalised(weights: Sequence[float]) -> list[float]:
    """Weights over their sum. ToolrollError when that is 0."""
    total = math.fsum(weights)
    if not total > 0:
        raise ToolrollError("no arm can be drawn: all are frozen or have weight 0")
    return [weight / total for weight in weights]


def with_floor(probabilities: Sequence[float], floor: float) -> list[float]:
    """A mixture of the probabilities with the uniform distribution, which gets the share `floor`."""
    total = math.fsum(probabilities)
    return [(1 - floor) * p / total + floor / len(probabilities) for p in probabilities]


def next_value(value: float, reward: float, *, alpha: float) -> float:
    """SEC's value of an arm after a batch whose mean absolute advantage is `reward`: (1 - alpha) Q + alpha r.

    >>> round(next_value(next_value(0.0, 0.8, alpha=0.5), 0.6, alpha=0.5), 9)
    0.5
    """
    return (1 - alpha) * value + alpha * reward


def next_target(target: float, mean_reward: float, *, alpha: float, beta: float, eta: float) -> float:
    """AdaRFT's target difficulty in [0, 100]: T + eta tanh(alpha (R - beta)), clipped.

    >>> round(next_target(0.0, 0.9, alpha=2.0, beta=0.5, eta=50.0), 6)
    33.201839
    """
    return min(100.0, max(0.0, target + eta * math.tanh(alpha * (mean_reward - beta))))
