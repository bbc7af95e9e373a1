"""Iterative self-play: which stage of the game to train next, clues or decisions.

Per iteration, from the share `accuracy` of games in which the spy got most votes and the share `na_share` of votes for
nobody, with x for either:

    e_x = rho e_x + (1 - rho) x                              e_x = 0 before the first
    dwell = dwell + 1
    decision -> clue    where e_accuracy >= 0.9 and e_na <= 0.1            and dwell >= 5
    clue -> decision    where 1 - e_accuracy >= 0.4 or e_na >= 0.5         and dwell >= 5
    either              where dwell >= patience

and dwell = 0 at a switch. The averages are never begun anew, and training begins with decisions.
Paper: arXiv:2509.25541, equations 7 to 10, algorithm 1 and table 5. Its code trains L iterations of each in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

from toolroll.errors import RowError, ToolrollError

Stage = Literal["decision", "clue"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When to switch. `rule` threshold uses all but `cycle_length`, cycle nothing but that and `start`.

    Shares are in [0, 1], rho in [0, 1); `patience` 0 waits for ever. `ema_debias` divides the averages by
    1 - rho^t at iteration t, which makes up for their start at 0.
    """

    rule: Literal["threshold", "cycle"] = "threshold"
    start: Stage = "decision"
    rho: float = 0.95
    clue_accuracy: float = 0.9
    clue_na: float = 0.1
    decision_error: float = 0.4
    decision_na: float = 0.5
    min_dwell: int = 5
    patience: int = 20
    ema_debias: bool = False
    cycle_length: int = 1


class Told(NamedTuple):
    """What an iteration leads to: `stage` is what to train next."""

    step: int
    stage: str
    switched: bool
    why: str | None
    accuracy_ema: float
    na_ema: float
    dwell: int


@dataclass(slots=True)
class Switch:
    """The state over a run. `seen` counts iterations, `step` is the number of the last one.

    >>> switch = Switch(Rule(rho=0.0, patience=0))
    >>> [switch.take(1.0, 0.0).stage for _ in range(6)]
    ['decision', 'decision', 'decision', 'decision', 'clue', 'clue']
    """

    rule: Rule
    stage: Stage = "decision"
    step: int = 0
    seen: int = 0
    dwell: int = 0
    accuracy: float = 0.0
    na: float = 0.0

    @classmethod
    def begun(cls, rule: Rule) -> Switch:
        """A state before the first iteration."""
        return cls(rule, stage=rule.start)

    def take(self, accuracy: float, na_share: float, step: int | None = None) -> Told | None:
        """Take in an iteration; None where it came before. Without `step` it is the next one.

        RowError for shares outside [0, 1].
        """
        for name, value in (("accuracy", accuracy), ("na_share", na_share)):
            if not 0 <= value <= 1:  # which NaN is not
                raise RowError(f"`{name}` is {value}, not a share from 0 to 1")
        if step is None:
            step = self.step + 1
        elif self.seen and step <= self.step:
            return None
        rho = self.rule.rho
        self.accuracy = rho * self.accuracy + (1 - rho) * accuracy
        self.na = rho * self.na + (1 - rho) * na_share
        self.step, self.seen, self.dwell = step, self.seen + 1, self.dwell + 1
        why = self._why()
        dwell = self.dwell
        if why is not None:
            self.stage = "clue" if self.stage == "decision" else "decision"
            self.dwell = 0
        return Told(step, self.stage, why is not None, why, *self._averages(), dwell)

    def now(self) -> Told:
        """Where it stands."""
        return Told(self.step, self.stage, False, None, *self._averages(), self.dwell)

    def _averages(self) -> tuple[float, float]:
        weight = 1 - math.pow(self.rule.rho, self.seen) if self.rule.ema_debias and self.seen else 1.0
        return self.accuracy / weight, self.na / weight

    def _why(self) -> str | None:
        """What makes the stage change now."""
        rule = self.rule
        if rule.rule == "cycle":
            return "cycle" if self.dwell >= rule.cycle_length else None
        accuracy, na = self._averages()
        if self.dwell >= rule.min_dwell:
            if self.stage == "decision":
                if accuracy >= rule.clue_accuracy and na <= rule.clue_na:
                    return "accuracy"
            elif 1 - accuracy >= rule.decision_error:
                return "error"
            elif na >= rule.decision_na:
                return "na"
        return "patience" if 0 < rule.patience <= self.dwell else None

    def as_dict(self) -> dict[str, Any]:
        """The state, for a file."""
        return asdict(self)

    @classmethod
    def resumed(cls, saved: Any, rule: Rule) -> Switch:
        """The state of an earlier process. Raises ToolrollError where it was begun with another rule."""
        fresh = cls.begun(rule)
        kinds = {field.name: type(getattr(fresh, field.name)) for field in fields(cls) if field.name != "rule"}
        if not isinstance(saved, Mapping) or set(saved) != {"rule", *kinds}:
            raise ToolrollError("no state of spy-switch")
        wanted = asdict(rule)
        if saved["rule"] != wanted:
            was = saved["rule"] if isinstance(saved["rule"], Mapping) else {}
            other = [f"{name} {was.get(name)}, not {value}" for name, value in wanted.items() if was.get(name) != value]
            raise ToolrollError(f"it was begun with other settings ({'; '.join(other)})")
        for name, kind in kinds.items():
            value = saved[name]
            if kind is str:
                sound = value in ("decision", "clue")
            elif kind is float:
                sound = type(value) in (int, float) and 0 <= value <= 1
            else:
                sound = type(value) is int and value >= 0
            if not sound:
                raise ToolrollError("no state of spy-switch")
            setattr(fresh, name, value)
        return fresh
