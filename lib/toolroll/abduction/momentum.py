"""The momentum curriculum: which kind of pair deserves more of the next epoch, by how fast its loss falls.

For each objective r, probed with loss x at update t = 0, 1, 2, ...:

    E_t = alpha x + (1 - alpha) E_{t-1}          E_0 = x at the first probe, before training
    m_t = min(max(E_{t-lag} - E_t, 0), cap)      with E_0 for E of updates before the first
    ratio_r = min(max(n (eps + m_r) / sum over objectives of (eps + m), floor), ceil)

for n objectives; the ratios are not scaled again after that, so they need not add up to n. An epoch of N pairs has
floor(N ratio_r / sum of ratios) of objective r. What falls fastest gets most; a rising loss has m = 0.
Paper: arXiv:2509.24096; numbers of its released code, in which lag is 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolroll.errors import RowError, ToolrollError

__all__ = ["Curriculum", "Rule", "Update", "ema", "momentum", "quota", "ratios"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The constants: alpha in [0, 1], cap >= 0, eps > 0, 0 <= floor <= ceil, lag >= 1, all finite."""

    alpha: float = 0.1
    cap: float = 0.03
    eps: float = 0.1
    floor: float = 0.8
    ceil: float = 1.2
    lag: int = 2


class Update(NamedTuple):
    """What one probe of all objectives leads to."""

    step: int
    losses: dict[str, float]
    ema: dict[str, float]
    momentum: dict[str, float]
    ratios: dict[str, float]

    @property
    def weighted_loss(self) -> float:
        """Sum of ratio times loss: what early stopping looks at."""
        return math.fsum(self.ratios[name] * loss for name, loss in self.losses.items())


def ema(loss: float, before: float, alpha: float) -> float:
    """The moving average of a loss: alpha loss + (1 - alpha) before.

    >>> round(ema(0.39, 0.69, 0.1), 6)
    0.66
    """
    return alpha * loss + (1 - alpha) * before


def momentum(now: float, earlier: float, cap: float) -> float:
    """How much the moving average fell, in [0, cap].

    >>> momentum(0.5, 0.9, 0.03), momentum(0.9, 0.5, 0.03)
    (0.03, 0.0)
    """
    return min(max(earlier - now, 0.0), cap)


def ratios(momenta: Mapping[str, float], rule: Rule) -> dict[str, float]:
    """The weight of each objective, 1 for all where none stands out, in [rule.floor, rule.ceil].

    >>> {name: round(ratio, 6) for name, ratio in ratios({"a": 0.03, "b": 0.005, "c": 0.001}, Rule()).items()}
    {'a': 1.160714, 'b': 0.9375, 'c': 0.901786}
    """
    raw = {name: rule.eps + value for name, value in momenta.items()}
    total = math.fsum(raw.values())
    return {name: min(max(len(raw) * value / total, rule.floor), rule.ceil) for name, value in raw.items()}


def quota(weights: Mapping[str, float], pairs: int) -> dict[str, int]:
    """How many of `pairs` pairs each objective gets, rounded down, so that a few may be left over.

    A billionth below a whole number is taken for rounding of the ratios, not for less than it.

    >>> quota({"a": 1.160714, "b": 0.9375, "c": 0.901786}, 1280)
    {'a': 495, 'b': 400, 'c': 384}
    """
    total = math.fsum(weights.values())
    return {name: math.floor(pairs * weight / total + 1e-9) if total else 0 for name, weight in weights.items()}


@dataclass(slots=True)
class Curriculum:
    """The state over a run: of each objective the last `lag` moving averages, newest first, and losses still to come.

    A step is complete when each objective has a loss; the first one complete is where everything starts.

    >>> curriculum = Curriculum(("a", "b"), Rule())
    >>> curriculum.take("a", 0, 0.7), curriculum.take("b", 0, 0.7).ratios
    (None, {'a': 1.0, 'b': 1.0})
    """

    objectives: tuple[str, ...]
    rule: Rule
    last: int | None = None
    averages: dict[str, list[float]] = field(default_factory=dict)
    step: int | None = None
    losses: dict[str, float] = field(default_factory=dict)

    def take(self, objective: str, step: int, loss: float) -> Update | None:
        """Take in a loss; the update when it completes its step.

        What belongs to a step that is complete, and a loss that came before, changes nothing. Raises RowError for a
        loss that is not finite, an unknown objective, a second value, and a step that begins while one is incomplete.
        """
        if not math.isfinite(loss):
            raise RowError("the loss is not finite")
        if objective not in self.objectives:
            raise RowError(f"unknown objective {objective!r}, not one of {', '.join(self.objectives)}")
        if self.last is not None and step <= self.last:
            return None
        if self.losses and step != self.step:
            missing = ", ".join(name for name in self.objectives if name not in self.losses)
            raise RowError(f"step {step} begins, but step {self.step} still lacks {missing}")
        if self.losses.get(objective, loss) != loss:
            raise RowError(f"a second loss of {objective!r} at step {step}")
        self.step = step
        self.losses[objective] = loss
        return self._complete(step) if len(self.losses) == len(self.objectives) else None

    def _complete(self, step: int) -> Update:
        losses = {name: self.losses[name] for name in self.objectives}
        first = not self.averages
        now = losses if first else {n: ema(x, self.averages[n][0], self.rule.alpha) for n, x in losses.items()}
        momenta = dict.fromkeys(losses, 0.0)
        if not first:
            momenta = {n: momentum(now[n], self.averages[n][-1], self.rule.cap) for n in losses}
        for name, value in now.items():
            kept = self.averages.get(name) or [value] * (self.rule.lag - 1)
            self.averages[name] = [value, *kept][: self.rule.lag]
        self.last, self.step, self.losses = step, None, {}
        return Update(step, losses, dict(now), momenta, ratios(momenta, self.rule))

    def as_dict(self) -> dict[str, Any]:
        """The state, for a file."""
        return {
            "objectives": list(self.objectives),
            "rule": {name: getattr(self.rule, name) for name in Rule.__dataclass_fields__},
            "last": self.last,
            "averages": self.averages,
            "step": self.step,
            "losses": self.losses,
        }

    @classmethod
    def resumed(cls, saved: Mapping[str, Any], objectives: Sequence[str], rule: Rule) -> Curriculum:
        """The state of an earlier process. Raises ToolrollError where it was another curriculum."""
        fresh = cls(tuple(objectives), rule)
        wanted = fresh.as_dict()
        if set(saved) != set(wanted):
            raise ToolrollError("no state of gear-momentum")
        for name in ("objectives", "rule"):
            if saved[name] != wanted[name]:
                raise ToolrollError(f"it was begun with other settings ({name}: {saved[name]})")
        fresh.last, fresh.step = saved["last"], saved["step"]
        fresh.averages, fresh.losses = dict(saved["averages"]), dict(saved["losses"])
        return fresh
