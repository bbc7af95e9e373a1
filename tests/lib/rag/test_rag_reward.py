import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError, UsageError
from toolroll.rag.reward import (
    REWARDS,
    Ablation,
    Compat,
    Evidence,
    OnUnknown,
    RewardParts,
    Settings,
    Verdicts,
    beta_grpo_reward,
    min_query_prob,
    r1_searcher_reward,
    search_r1_reward,
    trajectory_reward,
)


def verdicts(short: str) -> Verdicts:
    """`So Sx Su No Nx Nu`: search or nonsearch step; optimal, not, unknown."""
    meaning: dict[str, Verdicts] = {
        "So": [("search", "ok")],
        "Sx": [("search", "over")],
        "Su": [("search", "unknown")],
        "No": [("nonsearch", "ok")],
        "Nx": [("nonsearch", "under")],
        "Nu": [("nonsearch", "unknown")],
    }
    return [meaning[word][0] for word in short.split()]


def right(
    short: str,
    *,
    process_weight: float = 0.4,
    format_weight: float = 0.2,
    compat: Compat = "paper",
    on_unknown: OnUnknown = "skip",
    ablation: Ablation = "none",
) -> RewardParts:
    return trajectory_reward(
        answer_correct=True,
        format_valid=True,
        verdicts=verdicts(short),
        process_weight=process_weight,
        format_weight=format_weight,
        compat=compat,
        on_unknown=on_unknown,
        ablation=ablation,
    )


@pytest.mark.parametrize(
    ("steps", "main", "low", "high", "release"),
    [
        ("So No Sx", 1.266667, 1.133333, 1.4, 1.4),
        ("No No", 1.4, 1.2, 1.6, 1.4),
        ("Nx Nx", 1.0, 1.0, 1.0, 1.4),
        ("So No No No", 1.4, 1.2, 1.6, 2.6),
        ("Sx", 1.0, 1.0, 1.0, 1.0),
        ("Sx Sx Sx Sx Sx", 1.0, 1.0, 1.0, 1.0),
        ("So So Sx Nx", 1.2, 1.1, 1.3, 1.266667),
    ],
)
def test_equation_1_and_the_released_code(steps: str, main: float, low: float, high: float, release: float) -> None:
    assert right(steps).total == pytest.approx(main, abs=1e-6)
    assert right(steps, process_weight=0.2).total == pytest.approx(low, abs=1e-6)
    assert right(steps, process_weight=0.6).total == pytest.approx(high, abs=1e-6)
    assert right(steps, compat="release").total == pytest.approx(release, abs=1e-6)


@pytest.mark.parametrize(("correct", "valid", "total"), [(True, False, 0.8), (False, True, 0.2), (False, False, 0.0)])
@pytest.mark.parametrize("compat", ["paper", "release"])
@pytest.mark.parametrize("process_weight", [0.2, 0.4, 0.6])
def test_steps_pay_nothing_without_a_right_and_well_formed_answer(
    correct: bool, valid: bool, total: float, compat: Compat, process_weight: float
) -> None:
    reward = trajectory_reward(
        answer_correct=correct,
        format_valid=valid,
        verdicts=verdicts("So No"),
        process_weight=process_weight,
        compat=compat,
    )
    assert reward.total == pytest.approx(total, abs=1e-6)
    assert (reward.parts["process"], reward.A, reward.F) == (0, int(correct), int(valid))


def test_the_parts_and_counts_of_a_reward() -> None:
    reward = right("So Sx Su No Nx Nx")
    assert reward.parts == pytest.approx({"outcome": 0.8, "format": 0.2, "process": 0.4 * 2 / 5})
    assert reward.total == pytest.approx(sum(reward.parts.values()))
    assert (reward.n_steps, reward.n_ok, reward.n_over, reward.n_under, reward.n_unknown) == (6, 2, 1, 2, 1)
    assert (reward.A, reward.F) == (1, 1)


@pytest.mark.parametrize(
    ("on_unknown", "process"), [("optimal", 0.4 * 2 / 3), ("suboptimal", 0.4 / 3), ("skip", 0.4 / 2)]
)
def test_a_step_without_a_verdict(on_unknown: OnUnknown, process: float) -> None:
    assert right("So Su Nx", on_unknown=on_unknown).parts["process"] == pytest.approx(process)


def test_a_missing_verdict_can_fail_the_row_where_it_matters() -> None:
    with pytest.raises(RowError, match="step 1: no verdict"):
        right("So Su", on_unknown="fail")
    wrong = trajectory_reward(answer_correct=False, format_valid=True, verdicts=verdicts("Su"), on_unknown="fail")
    assert wrong.total == pytest.approx(0.2)


def test_no_step_to_count_pays_no_bonus() -> None:
    assert right("").total == right("Su Nu").total == pytest.approx(1.0)
    assert right("Su Nu", compat="release").total == pytest.approx(1.0)


def test_the_released_code_counts_unknown_steps_by_the_same_rule() -> None:
    assert right("Su No", compat="release", on_unknown="optimal").total == pytest.approx(1 + 0.4 * 2 / 1)
    assert right("Su No", compat="release", on_unknown="skip").total == pytest.approx(1 + 0.4)


def test_the_released_code_pays_the_outcome_alone_at_validation() -> None:
    assert right("So No", compat="release", format_weight=0).total == 1
    assert right("So No", format_weight=0).total == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("ablation", "process"), [("none", 0.4 * 1 / 4), ("over-only", 0.4 * 3 / 4), ("under-only", 0.4 * 2 / 4)]
)
def test_an_ablation_takes_the_other_kind_as_optimal(ablation: Ablation, process: float) -> None:
    reward = right("So Sx Nx Nx", ablation=ablation)
    assert reward.parts["process"] == pytest.approx(process)
    assert (reward.n_over, reward.n_under) == (1, 2)


def test_an_ablation_does_not_need_the_other_verdicts() -> None:
    assert right("So Nu", ablation="over-only", on_unknown="fail").total == pytest.approx(1.4)
    with pytest.raises(RowError):
        right("So Nu", ablation="under-only", on_unknown="fail")


@pytest.mark.parametrize("pair", [("nonsearch", "over"), ("search", "under"), ("search", "fine"), ("think", "ok")])
def test_a_verdict_its_step_cannot_have_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(RowError, match="step 0"):
        trajectory_reward(answer_correct=False, format_valid=False, verdicts=[pair])  # type: ignore[list-item]


ANY_VERDICTS = st.lists(st.sampled_from(["So", "Sx", "Su", "No", "Nx", "Nu"]), max_size=8).map(" ".join).map(verdicts)


@given(st.booleans(), st.booleans(), ANY_VERDICTS, st.floats(0, 2), st.floats(0, 1))
def test_the_reward_stays_in_its_range(
    correct: bool, valid: bool, steps: Verdicts, process_weight: float, format_weight: float
) -> None:
    reward = trajectory_reward(
        answer_correct=correct,
        format_valid=valid,
        verdicts=steps,
        process_weight=process_weight,
        format_weight=format_weight,
    )
    assert -1e-9 <= reward.total <= 1 + process_weight + 1e-9
    assert reward.n_steps == reward.n_ok + reward.n_over + reward.n_under + reward.n_unknown


def test_search_r1_pays_outcome_and_format() -> None:
    totals = [
        search_r1_reward(answer_correct=correct, format_valid=valid).total
        for correct in (True, False)
        for valid in (True, False)
    ]
    assert totals == pytest.approx([1.0, 0.8, 0.2, 0.0])


def test_min_query_prob() -> None:
    assert min_query_prob([[math.log(0.9), math.log(0.3)], [math.log(0.5)]]) == pytest.approx(0.3)
    assert min_query_prob([]) == min_query_prob([[]]) == 1
    for bad in (math.nan, 0.5):
        with pytest.raises(RowError):
            min_query_prob([[-1.0, bad]])


@pytest.mark.parametrize(("correct", "lowest", "total"), [(True, 0.41, 1.0), (True, 0.39, 0.0), (False, 0.41, 0.0)])
def test_beta_grpo_needs_a_right_answer_and_confident_queries(correct: bool, lowest: float, total: float) -> None:
    logprobs = [[math.log(0.99)], [math.log(lowest), math.log(0.8)]]
    reward = beta_grpo_reward(answer_correct=correct, format_valid=False, query_logprobs=logprobs, threshold=0.4)
    assert (reward.total, reward.F) == (total, 0)


def test_beta_grpo_pays_at_the_threshold_and_without_a_query() -> None:
    def total(logprobs: list[list[float]], threshold: float) -> float:
        return beta_grpo_reward(
            answer_correct=True, format_valid=True, query_logprobs=logprobs, threshold=threshold
        ).total

    assert total([[0.0]], 1.0) == total([], 1.0) == 1


def test_r1_searcher_takes_two_off_for_a_format_fault() -> None:
    assert r1_searcher_reward(answer_f1=0.8, format_valid=True).total == pytest.approx(0.8)
    assert r1_searcher_reward(answer_f1=0.8, format_valid=False).total == pytest.approx(-1.2)
    assert r1_searcher_reward(answer_f1=0.0, format_valid=False).parts == {"outcome": 0, "format": -2, "process": 0}


def test_rewards_by_name() -> None:
    evidence = Evidence("It is Paris", ["Paris"], True, verdicts("So Sx"), [[math.log(0.5)]])
    totals = {name: reward(evidence, Settings(threshold=0.4)).total for name, reward in REWARDS.items()}
    assert totals == pytest.approx(
        {"hiprag": 1.2, "search-r1": 1.0, "em": 0.0, "beta-grpo": 1.0, "r1-searcher-f1": 0.5}
    )
    assert REWARDS["hiprag"](evidence, Settings(match="em")).total == pytest.approx(0.2)


def test_beta_grpo_wants_a_threshold_and_log_probabilities() -> None:
    evidence = Evidence("Paris", ["Paris"], True)
    with pytest.raises(UsageError, match="threshold"):
        REWARDS["beta-grpo"](evidence, Settings())
    with pytest.raises(RowError, match="log-probabilities"):
        REWARDS["beta-grpo"](evidence, Settings(threshold=0.4))


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="on_unknown must be one of"):
        Settings(on_unknown="ignore")  # type: ignore[arg-type]
