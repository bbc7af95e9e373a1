"""Rewards to advantages: over the samples of a prompt (GRPO, Dr. GRPO, RLOO), or over the roles of a game (RAE).

Plain Python floats, because a group has a handful of rewards and the commands that need this start without numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Spread = Literal["sample", "population"]
Order = Literal["post", "pre"]


def grpo(
    rewards: Sequence[float], *, spread: Spread = "sample", eps: float = 1e-6, least_spread: float = 0.0
) -> list[float]:
    """Group-relative advantages: (r_i - mean) / (sd + eps).

    `spread` "sample" divides the squares by G - 1 (verl, DUMP, HiPRAG), "population" by G (Vision-Zero). Where sd or
    the range is at most `least_spread` rewards are only centred. All-equal rewards, and a group of one, give exactly 0.
    Source: arXiv:2402.03300, section 4.1.2.

    >>> [round(a, 4) for a in grpo([1.4, 1.266667, 0.8, 0.2, 0])]
    [1.069, 0.8552, 0.1069, -0.8552, -1.1759]
    """
    deviations = centred(rewards)
    freedom = len(rewards) - (spread == "sample")
    if not any(deviations) or freedom < 1:
        return [0.0] * len(rewards)
    deviation = math.sqrt(math.fsum(d * d for d in deviations) / freedom)
    if min(deviation, max(rewards) - min(rewards)) <= least_spread:
        return deviations
    return [d / (deviation + eps) + 0.0 for d in deviations]


def centred(rewards: Sequence[float]) -> list[float]:
    """Dr. GRPO's advantages: r_i - mean, on the scale of the rewards. Source: arXiv:2503.20783, equation 3.

    >>> centred([1.0, 0.0])
    [0.5, -0.5]
    """
    if not rewards or max(rewards) == min(rewards):  # the mean of equal numbers may round to another one
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    return [r - mean + 0.0 for r in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """RLOO's advantages: r_i minus the mean of the others, = G / (G - 1) * (r_i - mean). 0 for a group of one.

    Source: arXiv:2402.14740, equation 8.

    >>> leave_one_out([1.0, 0.0, 0.0])
    [1.0, -0.5, -0.5]
    """
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    return [d * len(rewards) / (len(rewards) - 1) for d in centred(rewards)]


@dataclass
class RoleBaselines:
    """Role-advantage estimation: a running mean reward for each role, taken from what a player of that role got.

    Per game: b_role <- alpha * b_role + (1 - alpha) * mean reward of the role, and A = r - b_role with the baseline
    after that ("post", Vision-Zero, arXiv:2509.25541, equation 2) or before it ("pre", SPIRAL, arXiv:2506.24119, which
    keeps the estimate unbiased). Baselines start at 0. alpha in [0, 1): 0.95 in the papers, 0.9 in Vision-Zero's code.

    >>> roles = RoleBaselines(alpha=0.9)
    >>> [round(a, 6) for a in roles.advantages([("civilian", 0.1), ("spy", -0.3), ("civilian", 0.1)])]
    [0.09, -0.27, 0.09]
    """

    alpha: float = 0.95
    order: Order = "post"
    baselines: dict[str, float] | None = None

    def advantages(self, game: Sequence[tuple[str, float]]) -> list[float]:
        """Advantages of the players of one game, given as (role, reward); the baselines learn from it."""
        before = dict(self.baselines or {})
        self.baselines = after = {**before, **self._moved(before, game)}
        return self.given(game, after if self.order == "post" else before)

    @staticmethod
    def given(game: Sequence[tuple[str, float]], baselines: Mapping[str, float]) -> list[float]:
        """Advantages r - b_role of the players, with these baselines."""
        return [reward - baselines.get(role, 0.0) + 0.0 for role, reward in game]

    def _moved(self, before: Mapping[str, float], game: Sequence[tuple[str, float]]) -> dict[str, float]:
        rewards: dict[str, list[float]] = {}
        for role, reward in game:
            rewards.setdefault(role, []).append(reward)
        return {
            role: self.alpha * before.get(role, 0.0) + (1 - self.alpha) * math.fsum(values) / len(values)
            for role, values in rewards.items()
        }
