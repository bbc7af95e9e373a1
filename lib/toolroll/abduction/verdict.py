"""From the trials of a problem's hypotheses to the fields of its scored row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolroll.abduction.scores import Hill, Scores
from toolroll.abduction.stop import Judgement, StopRule
from toolroll.abduction.trial import Trial

__all__ = ["Rules", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How hypotheses are judged.

    truncate: leave out what was said after the stop rule would have stopped. distinct: score hypotheses that do the
    same on the whole space once. lookups: tell of them; exclude_lookups: and count such hypotheses as not valid.
    authors: the rules of the released code. top_k: check the test pairs for the first k = 1 .. top_k hypotheses.
    """

    stop: StopRule = field(default_factory=StopRule)
    truncate: bool = False
    distinct: bool = False
    lookups: bool = False
    exclude_lookups: bool = False
    authors: bool = False
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged set of hypotheses: those that count, in order.

    new: for each, the inputs at which it predicts what none before it did. twins: for each valid one, the first that
    does the same everywhere. stop_after: after how many the stop rule stops, None if it goes on.
    """

    trials: Sequence[Trial]
    new: list[int]
    twins: dict[int, int]
    stop_after: int | None
    scores: Scores
    bad: list[list[str]]

    @property
    def valid(self) -> list[int]:
        """The places of the valid hypotheses."""
        return [place for place, trial in enumerate(self.trials) if trial.status == "consistent"]

    @property
    def n_unparsed(self) -> int:
        """How many could not be run to their end."""
        return sum(not trial.ran for trial in self.trials)

    @property
    def instruction_following(self) -> float | None:
        """IF = 1 - P / n for P of n hypotheses that cannot be run; None without any."""
        return (len(self.trials) - self.n_unparsed) / len(self.trials) if self.trials else None

    @property
    def consistency(self) -> float | None:
        """C = valid / (n - P); 0 if none of them runs, None without any."""
        running = len(self.trials) - self.n_unparsed
        return (len(self.valid) / running if running else 0.0) if self.trials else None


def judge(trials: Sequence[Trial], space: int, rules: Rules) -> Verdict:
    """Score what hypotheses did; `space` is the number of inputs of the sample space."""
    new = _novelty(trials)
    judged = [
        Judgement(
            parsed=trial.ran,
            consistent=trial.status != "inconsistent",
            new_frac=count / space,
            lookup=trial.status == "lookup",
        )
        for trial, count in zip(trials, new, strict=True)
    ]
    stop_after = rules.stop.stops_after(judged)
    kept = stop_after if rules.truncate and stop_after is not None else len(trials)
    trials = trials[:kept]
    valid = [place for place, trial in enumerate(trials) if trial.status == "consistent"]
    twins = _twins(trials, valid)
    scored = [place for place in valid if twins[place] == place] if rules.distinct else valid
    return Verdict(
        trials=trials,
        new=new[:kept],
        twins=twins,
        stop_after=stop_after,
        scores=_scores(trials, scored, space),
        bad=[rules.stop.faults(one) for one in judged[:kept]],
    )


def _novelty(trials: Sequence[Trial]) -> list[int]:
    running = [(place, trial.ids) for place, trial in enumerate(trials) if trial.ids is not None]
    new = [0] * len(trials)
    if running:
        import numpy as np

        from toolroll.abduction.matrix import novelty

        for (place, _), count in zip(running, novelty(np.stack([ids for _, ids in running])), strict=True):
            new[place] = count
    return new


def _twins(trials: Sequence[Trial], valid: list[int]) -> dict[int, int]:
    if not valid:
        return {}
    from toolroll.abduction.matrix import first_of_each

    firsts = first_of_each(_stacked(trials, valid))
    return {place: valid[first] for place, first in zip(valid, firsts, strict=True)}


def _scores(trials: Sequence[Trial], scored: list[int], space: int) -> Scores:
    if not scored:
        return Scores(0, space)
    from toolroll.abduction.matrix import matrix_scores

    return matrix_scores(_stacked(trials, scored), space)


def _stacked(trials: Sequence[Trial], places: Sequence[int]) -> Any:
    import numpy as np

    return np.stack([trials[place].ids for place in places])  # type: ignore[misc]


def row_fields(verdict: Verdict, rules: Rules, *, has_test: bool = False) -> dict[str, Any]:
    """The fields that a scored row gets, in their order; None where a score is not defined.

    has_test: whether there are test pairs.
    """
    scores, trials = verdict.scores, verdict.trials
    fields: dict[str, Any] = {
        "status": [trial.status for trial in trials],
        "space": scores.space,
        "n": len(trials),
        "parse_errors": verdict.n_unparsed,
        "valid": len(verdict.valid),
        "distinct": len(set(verdict.twins.values())),
        "instruction_following": verdict.instruction_following,
        "consistency": verdict.consistency,
        "generalizability": scores.generalizability,
        **_hill("gamma", scores.gamma),
        "gamma_norm": scores.gamma_norm,
        **_hill("gamma_out", scores.gamma_out),
        **_hill("alpha", scores.alpha),
        "beta_struct": scores.beta_struct,
        "beta_dist": scores.beta_dist,
        "new_predictions": verdict.new,
        "stop_after": verdict.stop_after,
        "details": [_detail(verdict, place, rules) for place in range(len(trials))],
    }
    if rules.top_k:
        fields["transfer"] = transfer(trials, rules.top_k) if has_test else None
    return fields


def transfer(trials: Sequence[Trial], top_k: int) -> list[bool]:
    """For k = 1 .. top_k: whether one of the first k hypotheses gets all test pairs right."""
    return [any(trial.passes for trial in trials[:k]) for k in range(1, top_k + 1)]


def _hill(name: str, numbers: Hill | None) -> dict[str, float | None]:
    return {f"{name}_q{q}": None if numbers is None else numbers[q] for q in range(3)}


def _detail(verdict: Verdict, place: int, rules: Rules) -> dict[str, Any]:
    trial = verdict.trials[place]
    detail: dict[str, Any] = {
        "status": trial.status,
        "why": trial.why,
        "failed": trial.failed,
        "undefined": None if trial.ids is None else int((trial.ids < 0).sum()),
        "timeouts": trial.timeouts,
        "new": verdict.new[place],
        "bad": verdict.bad[place],
    }
    if rules.lookups:
        detail["lookups"] = [found._asdict() for found in trial.lookups]
    if (first := verdict.twins.get(place, place)) != place:
        detail["same_as"] = first
    return detail
