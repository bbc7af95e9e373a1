import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError
from toolroll.rag.metrics import Tally
from toolroll.rag.reward import Verdicts

MIXED: Verdicts = [("search", "over"), ("search", "ok"), ("nonsearch", "under")]


def test_rates_are_pooled_over_the_steps_of_well_formed_rows() -> None:
    tally = Tally()
    tally.add(question_id=1, score=1, format_valid=True, verdicts=MIXED)
    fine: Verdicts = [("search", "ok"), ("search", "ok"), ("search", "ok"), ("nonsearch", "ok"), ("nonsearch", "ok")]
    tally.add(question_id=2, score=0, format_valid=True, verdicts=fine)
    tally.add(question_id=3, score=0, format_valid=False, verdicts=[("search", "over")] * 9)
    (row,) = tally.report()
    assert (row["osr"], row["n_over"], row["n_search_steps"]) == (1 / 5, 1, 5)
    assert (row["usr"], row["n_under"], row["n_nonsearch_steps"]) == (1 / 3, 1, 3)
    assert (row["valid_frac"], row["n_valid"], row["n_rows"]) == (2 / 3, 2, 3)
    assert row["searches_per_question"] == pytest.approx((2 + 3 + 9) / 3)


def test_an_unknown_step_is_in_neither_rate() -> None:
    tally = Tally()
    tally.add(
        question_id=1, score=1, format_valid=True,
        verdicts=[("search", "over"), ("search", "unknown"), ("nonsearch", "unknown")],
    )  # fmt: skip
    (row,) = tally.report()
    assert (row["osr"], row["n_search_steps"], row["usr"], row["n_nonsearch_steps"], row["n_unknown"]) == (
        1,
        1,
        None,
        0,
        2,
    )
    assert row["searches_per_question"] == 2


def test_empty_denominators_are_null() -> None:
    (row,) = Tally().report()
    means = ("cem", "osr", "usr", "searches_per_question", "valid_frac")
    assert [row[name] for name in means] == [None] * 5
    assert row["data_source"] is None
    assert row["n_rows"] == 0


def test_the_mean_is_over_questions_and_not_over_samples_or_data_sets() -> None:
    tally = Tally()
    for score in (1, 1, 0, 0, 0, 0, 0, 0):
        tally.add(question_id="q1", score=score, format_valid=True, verdicts=[], data_source="nq")
    tally.add(question_id="q2", score=1, format_valid=True, verdicts=MIXED, data_source="nq")
    tally.add(question_id="q2", score=1, format_valid=True, verdicts=MIXED, data_source="hotpot")
    nq, hotpot, overall = tally.report()
    assert [row["data_source"] for row in (nq, hotpot, overall)] == ["nq", "hotpot", None]
    assert (nq["cem"], nq["n_scored"], nq["n_questions"]) == ((0.25 + 1) / 2, 2, 2)
    assert (hotpot["cem"], hotpot["n_questions"]) == (1, 1)
    assert (overall["cem"], overall["n_questions"], overall["n_rows"]) == (2.25 / 3, 3, 10)
    assert nq["searches_per_question"] == (0 + 2) / 2


def test_published_averages_are_weighted_by_question() -> None:
    sizes = {"nq": 4, "bamboogle": 1}
    tally = Tally()
    for source, size in sizes.items():
        for k in range(size):
            tally.add(question_id=k, score=source == "nq", format_valid=True, verdicts=[], data_source=source)
    assert tally.report()[-1]["cem"] == 4 / 5


def test_rows_without_a_gold_answer_or_a_source() -> None:
    tally = Tally()
    tally.add(question_id=1, score=None, format_valid=True, verdicts=[("search", "ok")])
    tally.add(question_id=2, score=0.5, format_valid=True, verdicts=[], n_search=4)
    (row,) = tally.report()
    assert (row["cem"], row["n_scored"], row["n_questions"]) == (0.5, 1, 2)
    assert row["searches_per_question"] == 2.5


def test_samples_apart_are_questions_apart() -> None:
    tally = Tally()
    for question in ("a", "b", "a"):
        tally.add(question_id=question, score=1, format_valid=True, verdicts=[])
    assert tally.report()[0]["n_questions"] == 3


def test_a_report_in_between_changes_nothing() -> None:
    tally = Tally()
    tally.add(question_id="q", score=1, format_valid=True, verdicts=MIXED, data_source="nq")
    first = tally.report()
    assert tally.report() == first
    tally.add(question_id="q", score=0, format_valid=True, verdicts=MIXED, data_source="nq")
    row = tally.report()[-1]
    assert (row["cem"], row["n_questions"], row["n_over"]) == (0.5, 1, 2)


def test_a_verdict_its_step_cannot_have_is_refused_before_anything_is_counted() -> None:
    tally = Tally()
    with pytest.raises(RowError):
        tally.add(question_id=1, score=1, format_valid=True, verdicts=[("nonsearch", "over")])
    assert tally.report()[0]["n_rows"] == 0


def test_memory_does_not_grow_with_the_rows() -> None:
    tally = Tally()
    tally.add(question_id="warm", score=1, format_valid=True, verdicts=MIXED, data_source="nq")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for k in range(5000):
        tally.add(question_id=f"question {k}", score=1, format_valid=True, verdicts=MIXED, data_source="nq")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000
    assert tally.report()[0]["n_questions"] == 5001


@given(
    st.lists(
        st.tuples(st.sampled_from(["nq", "hotpot", None]), st.integers(0, 3), st.floats(0, 1), st.booleans()),
        max_size=30,
    )
)
def test_the_sources_add_up(rows: list[tuple[str | None, int, float, bool]]) -> None:
    tally, unsourced = Tally(), Tally()
    for source, question, score, valid in rows:
        tally.add(question_id=question, score=score, format_valid=valid, verdicts=MIXED, data_source=source)
        # One question a row, so that the overall mean has a plain definition to be compared with.
        unsourced.add(question_id=(source, question), score=score, format_valid=valid, verdicts=MIXED)
    overall, plain = tally.report()[-1], unsourced.report()[-1]
    assert overall == pytest.approx(plain)
    assert overall["n_rows"] == len(rows)
