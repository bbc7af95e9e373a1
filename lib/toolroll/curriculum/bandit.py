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
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(ge=0)]
Weight = Annotated[float, Meta(ge=0)]


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
    remember: Annotated[int, Meta(ge=1)] = 1_000_000


class Seen(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one batch of feedback says of one arm: its last absolute advantages, and totals over all of them."""

    last: list[float] = []
    rollouts: int = 0
    prompts: int = 0
    total: float = 0.0
    rewards: float = 0.0
    rewarded: int = 0


@dataclass(slots=True)
class Arm:
    """One distribution: its window of absolute advantages, its counts, its running value (SEC)."""

    window: deque[float]
    rollouts: int = 0
    prompts: int = 0
    value: float = 0.0
    mean: float = 0.0

    def see(self, seen: Seen) -> None:
        """Take in a batch."""
        self.window.extend(seen.last)
        self.rollouts += seen.rollouts
        self.prompts += seen.prompts
        if seen.last:
            self.mean = math.fsum(self.window) / len(self.window)


@dataclass
class Bandit:
    """The arms and what they have shown. `names` are sorted: nothing depends on the order arms came in."""

    settings: Settings
    arms: dict[str, Arm] = field(default_factory=dict)
    target: float = 0.0

    @classmethod
    def new(cls, settings: Settings, names: Iterable[str] = ()) -> Bandit:
        """A bandit that has seen nothing."""
        bandit = cls(settings, target=settings.target)
        bandit.add(names)
        return bandit

    def add(self, names: Iterable[str]) -> None:
        """Add arms; those that are there already stay as they are."""
        for name in names:
            self.arms.setdefault(name, Arm(deque(maxlen=self.settings.k)))
        self.arms = {name: self.arms[name] for name in sorted(self.arms)}

    @property
    def names(self) -> list[str]:
        """The arms, sorted."""
        return list(self.arms)

    def see(self, batch: Mapping[str, Seen]) -> None:
        """Take in what a batch of feedback says of the arms."""
        rule = self.settings
        for name, seen in batch.items():
            arm = self.arms[name]
            arm.see(seen)
            if rule.policy == "sec" and seen.rollouts:
                arm.value = (1 - rule.alpha) * arm.value + rule.alpha * (seen.total / seen.rollouts)
        if rule.policy == "adarft" and (rewarded := sum(seen.rewarded for seen in batch.values())):
            mean = math.fsum(seen.rewards for seen in batch.values()) / rewarded
            self.target = next_target(self.target, mean, alpha=rule.alpha, beta=rule.beta, eta=rule.eta)

    def count(self, arm: Arm) -> int:
        """n_j in the unit of `count`."""
        unit = self.settings.count
        return len(arm.window) if unit == "window" else arm.prompts if unit == "prompts" else arm.rollouts

    def learnability(self) -> list[float]:
        """L_j of each arm; with `normalise` over the largest of them, so that they lie in [0, 1]."""
        means = [arm.mean for arm in self.arms.values()]
        most = max(means, default=0.0)
        return [mean / most for mean in means] if self.settings.normalise and most > 0 else means

    def bonuses(self) -> list[float]:
        """Bonus sqrt(c ln(n + 1) / (n_j + 1)) of each arm; before anything was seen n counts as 1, as in the code."""
        rule = self.settings
        counts = [self.count(arm) for arm in self.arms.values()]
        total = rule.c * math.log(max(1, sum(counts)) + 1)
        return [rule.bonus * math.sqrt(total / (n + 1)) for n in counts]

    def scores(self) -> list[float]:
        """What the softmax is taken of: UCB_j, or Q_j under sec."""
        if self.settings.policy == "sec":
            return [arm.value for arm in self.arms.values()]
        return [mean + bonus for mean, bonus in zip(self.learnability(), self.bonuses(), strict=True)]

    def probabilities(self, frozen: frozenset[str] = frozenset()) -> list[float]:
        """P of each arm, adding up to 1, in the order of `names`; `frozen` arms get nothing."""
        raw = self._weights()
        if self.settings.floor:
            raw = with_floor(raw, self.settings.floor)
        scarce = [self.count(arm) < self.settings.min_seen for arm in self.arms.values()]
        if any(scarce):
            raw = [float(is_scarce) for is_scarce in scarce]
        if frozen:
            raw = [0.0 if name in frozen else p for name, p in zip(self.arms, raw, strict=True)]
        return normalised(raw)

    def _weights(self) -> list[float]:
        rule = self.settings
        if rule.policy == "uniform":
            return [1.0] * len(self.arms)
        if rule.policy == "fixed":
            return normalised([rule.weights.get(name, 0.0) for name in self.arms])
        if rule.policy == "adarft":
            away = [abs(rule.difficulties.get(name, 0.0) - self.target) for name in self.arms]
            return normalised([float(distance == min(away)) for distance in away])
        return softmax(self.scores(), rule.tau)


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
    """Weights over their sum; ValueError when that is 0 (no arm may be drawn)."""
    total = math.fsum(weights)
    if not total > 0:
        raise ValueError("no arm has a weight")
    return [weight / total for weight in weights]


def with_floor(probabilities: Sequence[float], floor: float) -> list[float]:
    """A mixture of the probabilities with the uniform distribution, which gets the share `floor`."""
    total = math.fsum(probabilities)
    return [(1 - floor) * p / total + floor / len(probabilities) for p in probabilities]


def next_target(target: float, mean_reward: float, *, alpha: float, beta: float, eta: float) -> float:
    """AdaRFT's target difficulty in [0, 100]: T + eta tanh(alpha (R - beta)), clipped.

    >>> round(next_target(0.0, 0.9, alpha=2.0, beta=0.5, eta=50.0), 6)
    33.201839
    """
    return min(100.0, max(0.0, target + eta * math.tanh(alpha * (mean_reward - beta))))
