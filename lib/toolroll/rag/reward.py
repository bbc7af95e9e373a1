"""What a trajectory earns: by its outcome, its format and its steps.

HiPRAG (arXiv:2510.07794, section 3.3, equation 1):

    R = A (1 - f) + f F + p A F Ncorr / N

    A      1 if the final answer is right, else 0          f   `format_weight`, 0.2 in the paper
    F      1 if the format is valid, else 0                p   `process_weight`, 0.4 in the paper
    Ncorr  search steps not over-searched plus nonsearch steps not under-searched, of N steps in all

so that R is in [0, 1 + p], and good steps are paid only on top of a right, well-formed answer: judges are needed
for those trajectories alone. The rewards of HiPRAG's peers stand beside it under the same `RewardParts`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from toolroll.checking.match import f1, score
from toolroll.errors import RowError, UsageError

__all__ = [
    "REWARDS",
    "Ablation",
    "Compat",
    "Evidence",
    "Kind",
    "OnUnknown",
    "RewardParts",
    "Settings",
    "Verdict",
    "beta_grpo_reward",
    "check_verdicts",
    "min_query_prob",
    "r1_searcher_reward",
    "search_r1_reward",
    "trajectory_reward",
]

Kind = Literal["search", "nonsearch"]
Verdict = Literal["ok", "over", "under", "unknown"]
Compat = Literal["paper", "release"]
OnUnknown = Literal["optimal", "suboptimal", "skip", "fail"]
Ablation = Literal["none", "over-only", "under-only"]
Verdicts = Sequence[tuple[Kind, Verdict]]

_POSSIBLE = {("search", verdict) for verdict in ("ok", "over", "unknown")}
_POSSIBLE |= {("nonsearch", verdict) for verdict in ("ok", "under", "unknown")}
_IGNORED = {"none": None, "over-only": "nonsearch", "under-only": "search"}


@dataclass(frozen=True, slots=True)
class RewardParts:
    """A reward and what it is made of.

    total: the sum of `parts`, whose keys are `outcome`, `format` and `process`.
    A, F: 1 if the answer is right, if the format is valid; else 0.
    n_steps = n_ok + n_over + n_under + n_unknown: the verdicts as they were given, before any rule is applied.
    """

    total: float
    parts: dict[str, float]
    A: int
    F: int
    n_steps: int
    n_ok: int
    n_over: int
    n_under: int
    n_unknown: int


def check_verdicts(verdicts: Iterable[tuple[str, str]]) -> None:
    """Raise RowError unless each is a kind of step with a verdict such a step can have.

    Only a search can be `over`, only a step without one `under`; `ok` and `unknown` fit both.
    """
    for i, pair in enumerate(verdicts):
        if pair not in _POSSIBLE:
            raise RowError(f"step {i}: a {pair[0]} step cannot be {pair[1]!r}")


def trajectory_reward(
    *,
    answer_correct: bool,
    format_valid: bool,
    verdicts: Verdicts,
    process_weight: float = 0.4,
    format_weight: float = 0.2,
    compat: Compat = "paper",
    on_unknown: OnUnknown = "skip",
    ablation: Ablation = "none",
) -> RewardParts:
    """HiPRAG's reward R (arXiv:2510.07794, section 3.3, equation 1); symbols at the top of this module.

    verdicts: one (kind, verdict) a step, in order. process_weight: p >= 0. format_weight: f in [0, 1].
    compat: `release` pays as the released code does: the steps that are fine, of both kinds, divided by the number
        of search steps alone, or a flat p if there is none; and nothing for steps if f = 0, which is how its
        validation asks for A alone. Upstream p is always 0.4.
    on_unknown: a step without a verdict counts as `optimal` (upstream's rule), as `suboptimal`, is left out of
        Ncorr and N (`skip`), or raises (`fail`) if the bonus depends on it, which is when A = F = 1.
    ablation: `over-only` takes every nonsearch step as optimal, `under-only` every search step, judged or not.

    With no step left to count (N = 0) the process part is 0.

    Raises RowError for a verdict the step's kind cannot have, and for an unknown one under `fail`.

    >>> steps = [("search", "ok"), ("nonsearch", "ok"), ("search", "over")]
    >>> round(trajectory_reward(answer_correct=True, format_valid=True, verdicts=steps).total, 6)
    1.266667
    """
    check_verdicts(verdicts)
    bonus = 0.0
    if answer_correct and format_valid and not (compat == "release" and format_weight == 0):
        counted = _counted(verdicts, on_unknown, ablation)
        bonus = process_weight * _optimal_share(counted, compat)
    return _parts(
        outcome=answer_correct * (1 - format_weight),
        format_=format_valid * format_weight,
        process=bonus,
        answer_correct=answer_correct,
        format_valid=format_valid,
        verdicts=verdicts,
    )


def _counted(verdicts: Verdicts, on_unknown: OnUnknown, ablation: Ablation) -> list[tuple[Kind, bool]]:
    """The steps that count, each with its kind and whether it is optimal."""
    counted = []
    for i, (kind, verdict) in enumerate(verdicts):
        if kind == _IGNORED[ablation]:
            counted.append((kind, True))
        elif verdict != "unknown":
            counted.append((kind, verdict == "ok"))
        elif on_unknown == "fail":
            raise RowError(f"step {i}: no verdict")
        elif on_unknown != "skip":
            counted.append((kind, on_unknown == "optimal"))
    return counted


def _optimal_share(counted: Sequence[tuple[Kind, bool]], compat: Compat) -> float:
    if not counted:
        return 0.0
    n_optimal = sum(optimal for _, optimal in counted)
    if compat == "paper":
        return n_optimal / len(counted)
    n_search = sum(kind == "search" for kind, _ in counted)
    return n_optimal / n_search if n_search else 1.0


def _parts(
    *, outcome: float, format_: float, process: float, answer_correct: bool, format_valid: bool, verdicts: Verdicts
) -> RewardParts:
    count = Counter(verdict for _, verdict in verdicts)
    return RewardParts(
        total=outcome + format_ + process,
        parts={"outcome": float(outcome), "format": float(format_), "process": float(process)},
        A=int(answer_correct),
        F=int(format_valid),
        n_steps=len(verdicts),
        n_ok=count["ok"],
        n_over=count["over"],
        n_under=count["under"],
        n_unknown=count["unknown"],
    )


def search_r1_reward(
    *, answer_correct: bool, format_valid: bool, format_weight: float = 0.2, verdicts: Verdicts = ()
) -> RewardParts:
    """Outcome and format, without a look at the steps: equation 1 with p = 0 (arXiv:2505.15117, equation 3).

    format_weight: f in [0, 1]; 0 pays the outcome alone, as Search-R1 first did (arXiv:2503.09516, equation 4).
    verdicts are only counted.

    >>> search_r1_reward(answer_correct=True, format_valid=False).total
    0.8
    """
    return trajectory_reward(
        answer_correct=answer_correct,
        format_valid=format_valid,
        verdicts=verdicts,
        process_weight=0,
        format_weight=format_weight,
    )


def min_query_prob(query_logprobs: Iterable[Sequence[float]]) -> float:
    """The smallest probability, in (0, 1], of a token the model wrote into a query; 1 if it wrote none.

    query_logprobs: for each query its tokens' log-probabilities, natural logarithm.
    Raises RowError for one that is not a number or above 0.

    >>> min_query_prob([[0.0, -0.6931471805599453], [-0.1]])
    0.5
    """
    logprobs = [logprob for query in query_logprobs for logprob in query]
    if not all(logprob <= 0 for logprob in logprobs):
        raise RowError("a token log-probability is not a number at or below 0")
    return math.exp(min(logprobs, default=0.0))


def beta_grpo_reward(
    *,
    answer_correct: bool,
    format_valid: bool,
    query_logprobs: Iterable[Sequence[float]],
    threshold: float,
    verdicts: Verdicts = (),
) -> RewardParts:
    """1 for a right answer found with confident queries only, else 0 (beta-GRPO, arXiv:2505.17281).

    threshold: beta in [0, 1]; the reward needs `min_query_prob` >= threshold. A trajectory without a query has
    no query to doubt. The format is reported and not paid; verdicts are only counted.
    Raises RowError as `min_query_prob` does.

    >>> beta_grpo_reward(answer_correct=True, format_valid=True, query_logprobs=[[-2.0]], threshold=0.4).total
    0.0
    """
    check_verdicts(verdicts)
    confident = min_query_prob(query_logprobs) >= threshold
    return _parts(
        outcome=float(answer_correct and confident),
        format_=0.0,
        process=0.0,
        answer_correct=answer_correct,
        format_valid=format_valid,
        verdicts=verdicts,
    )


def r1_searcher_reward(*, answer_f1: float, format_valid: bool, verdicts: Verdicts = ()) -> RewardParts:
    """F1 of the answer, less 2 for a format fault: in [-2, 1] (R1-Searcher, arXiv:2503.05592, section 3).

    answer_f1: in [0, 1], see `toolroll.checking.match.f1`. A is 1 only for an F1 of 1; verdicts are only counted.

    >>> r1_searcher_reward(answer_f1=0.8, format_valid=False).total
    -1.2
    """
    check_verdicts(verdicts)
    return _parts(
        outcome=answer_f1,
        format_=0.0 if format_valid else -2.0,
        process=0.0,
        answer_correct=answer_f1 == 1,
        format_valid=format_valid,
        verdicts=verdicts,
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that any of the rewards looks at.

    query_logprobs: as in `min_query_prob`; None if the trajectory was stored without log-probabilities.
    """

    answer: str | None
    golds: Sequence[str]
    format_valid: bool
    verdicts: Verdicts = ()
    query_logprobs: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of all rewards, as in `trajectory_reward` and `beta_grpo_reward`; `match` names a rule of match.

    The answer is right (A = 1) if it scores 1 under that rule. `threshold` has no default because beta-GRPO's
    depends on the model.
    """

    match: str = "cem"
    process_weight: float = 0.4
    format_weight: float = 0.2
    compat: Compat = "paper"
    on_unknown: OnUnknown = "skip"
    ablation: Ablation = "none"
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("compat", Compat), ("on_unknown", OnUnknown), ("ablation", Ablation)):
            if getattr(self, name) not in get_args(allowed):
                raise UsageError(f"{name} must be one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}")


def _right(evidence: Evidence, rule: str) -> bool:
    return score(evidence.answer, evidence.golds, rule) == 1


def _hiprag(evidence: Evidence, settings: Settings) -> RewardParts:
    return trajectory_reward(
        answer_correct=_right(evidence, settings.match),
        format_valid=evidence.format_valid,
        verdicts=evidence.verdicts,
        process_weight=settings.process_weight,
        format_weight=settings.format_weight,
        compat=settings.compat,
        on_unknown=settings.on_unknown,
        ablation=settings.ablation,
    )


def _search_r1(evidence: Evidence, settings: Settings) -> RewardParts:
    return search_r1_reward(
        answer_correct=_right(evidence, settings.match),
        format_valid=evidence.format_valid,
        format_weight=settings.format_weight,
        verdicts=evidence.verdicts,
    )


def _em(evidence: Evidence, settings: Settings) -> RewardParts:  # noqa: ARG001 - all rewards are called alike
    return search_r1_reward(
        answer_correct=_right(evidence, "em"),
        format_valid=evidence.format_valid,
        format_weight=0,
        verdicts=evidence.verdicts,
    )


def _beta_grpo(evidence: Evidence, settings: Settings) -> RewardParts:
    if settings.threshold is None:
        raise UsageError("beta-grpo needs a threshold")
    if evidence.query_logprobs is None:
        raise RowError("beta-grpo needs the log-probabilities of the query tokens")
    return beta_grpo_reward(
        answer_correct=_right(evidence, settings.match),
        format_valid=evidence.format_valid,
        query_logprobs=evidence.query_logprobs,
        threshold=settings.threshold,
        verdicts=evidence.verdicts,
    )


def _r1_searcher(evidence: Evidence, settings: Settings) -> RewardParts:  # noqa: ARG001 - all rewards are called alike
    return r1_searcher_reward(
        answer_f1=f1(evidence.answer, evidence.golds), format_valid=evidence.format_valid, verdicts=evidence.verdicts
    )


#: The rewards by name, each from what is known of a trajectory and the settings.
REWARDS: dict[str, Callable[[Evidence, Settings], RewardParts]] = {
    "hiprag": _hiprag,
    "beta-grpo": _beta_grpo,
    "r1-searcher-f1": _r1_searcher,
    "search-r1": _search_r1,
    "em": _em,
}
