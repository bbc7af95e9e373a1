"""What a bandit thinks of each arm, and why, as rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from toolroll.curriculum.bandit import Bandit


def rows_of_stats(bandit: Bandit, frozen: Collection[str] = (), *, explain: bool = False) -> Iterator[dict[str, Any]]:
    """A row of `records.ArmStats` for each arm, by name."""
    probabilities, scores, bonuses = bandit.probabilities(frozen), bandit.scores(), bandit.bonuses()
    total = bandit.total
    for i, (name, arm) in enumerate(bandit.arms.items()):
        row = {
            "distribution": name,
            "p": probabilities[i],
            "ucb": scores[i],
            "mean_abs_advantage": bandit.means[i],
            "n": bandit.counts[i],
            "window": len(arm.window(bandit.settings.k)),
        }
        if explain:
            row |= {"bonus": bonuses[i], "n_total": total, "why": _why(bandit, i, name in frozen)}
        yield row


def _why(bandit: Bandit, i: int, is_frozen: bool) -> str:
    """Where the probability of arm i comes from, in words."""
    rule = bandit.settings
    if is_frozen:
        return "frozen"
    if min(bandit.counts) < rule.min_seen:
        few = bandit.counts[i] < rule.min_seen
        return f"{'seen fewer' if few else 'others were seen fewer'} than {rule.min_seen} times"
    if rule.policy == "uniform":
        return "all arms alike"
    if rule.policy == "fixed":
        return f"weight {rule.weights.get(list(bandit.arms)[i], 0.0):g}"
    if rule.policy == "adarft":
        return f"difficulty {rule.difficulties.get(list(bandit.arms)[i], 0.0):.4g}, target {bandit.target:.4g}"
    scores = bandit.scores()
    behind = max(scores) - scores[i]
    place = "the best" if behind == 0 else f"{behind:.4g} behind the best"
    if rule.policy == "sec":
        return f"value {scores[i]:.4g}: {place}"
    seen = "never seen" if bandit.counts[i] == 0 else f"advantage {bandit.learnability()[i]:.4g}"
    return f"{seen} + bonus {bandit.bonuses()[i]:.4g}: {place}, tau {rule.tau:g}"
