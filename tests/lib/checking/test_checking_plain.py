"""Numbers, texts, and where the right answers stand in a row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toolroll.checking import KINDS, checker
from toolroll.checking.golden import golden_answers
from toolroll.errors import UsageError


@pytest.mark.parametrize(
    ("text", "gold", "correct"),
    [
        ("There are 3 pens of $1,200 each, so -$3,600.", "-3600", 1),
        ("12%", "12", 1),
        ("about 0.333", "1/3", 0),
        ("It is 3/4 of it", 0.75, 1),
        ("10-3", 3, 1),
        ("10 - 3", 3, 1),
        ("= -3", -3, 1),
        ("H2O", 2, 0),
        (r"\boxed{5 \text{ cm}} after 3 steps", "5 cm", 1),
        (r"\boxed{five} of 5", 5, 0),
        (r"\boxed{5", 5, 0),
        ("Two.", "2", 0),
        ("2", "two", None),
        ("2", "Add.\n#### 2", 1),
        ("3", "1/0", None),
    ],
)
def test_number(text, gold, correct):
    with checker("number") as check:
        assert check(text, gold).correct == correct


@pytest.mark.parametrize(("text", "correct"), [("105", 1), ("105.0001", 0), ("95", 1), ("94.9", 0), ("-100", 0)])
def test_number_within_a_tolerance(text, correct):
    with checker("number", tolerance=0.05) as check:
        assert check(text, 100).correct == correct


@pytest.mark.parametrize(
    ("text", "gold", "ignore", "correct"),
    [
        ("Paris", "Paris", (), 1),
        (" Paris\n", "Paris", (), 1),
        ("paris", "Paris", (), 0),
        ("paris", "Paris", ("case",), 1),
        ("Paris.", "Paris", ("case",), 0),
        ("**“Paris.”**", "Paris", ("punctuation",), 1),
        ("The  Hague", "the hague", ("case",), 1),
        ("The Hague", "Hague", ("articles",), 1),
        ("It is Paris", "Paris", ("case", "punctuation", "articles"), 0),
        ("-3.5", "35", ("punctuation",), 0),
        ("-3", "3", ("punctuation",), 0),
        ("Ｐaris", "Paris", (), 1),
        ("cafe\u0301", "café", (), 1),
        ("STRASSE", "Straße", ("case",), 1),
        (r"So \boxed{Paris}", "Paris", (), 1),
        ("<think>Rome?</think>\nParis", "Paris", (), 1),
        ("I think:\n<answer>Paris</answer>\nBye", "Paris", (), 1),
        ("", "Paris", (), 0),
        ("Paris", "", (), None),
    ],
)
def test_exact(text, gold, ignore, correct):
    with checker("exact", ignore=ignore) as check:
        assert check(text, gold).correct == correct


@pytest.mark.parametrize(
    ("text", "gold", "correct"),
    [
        ("It is Paris, of course.", "paris", 1),
        ("Parisian", "Paris", 0),
        ("It is Paris", ["Rome", "Paris"], 1),
        ("anything", "the", 0),
        ("", "x", 0),
    ],
)
def test_contains(text, gold, correct):
    with checker("contains") as check:
        assert check(text, gold).correct == correct


def test_what_is_shown_of_a_long_answer_is_cut_off():
    with checker("exact") as check:
        assert check("x" * 5000, "x" * 5000) == (1, "x" * 1000 + "…", None)


def test_a_kind_that_does_not_exist():
    assert KINDS == ("math", "number", "choice", "exact", "contains")
    with pytest.raises(UsageError, match="there is no kind of answers `maths`; there are math, number"):
        checker("maths")


@pytest.mark.parametrize(
    ("fields", "golds"),
    [
        ({}, None),
        ({"answer": 7}, ["7"]),
        ({"answer": ["a", 0.5]}, ["a", "0.5"]),
        ({"answer": [True]}, None),
        ({"answer": "said", "golden_answers": ["x"]}, ["x"]),
        ({"answer": "said", "answers": ["x"]}, ["x"]),
        ({"reward_model": {"ground_truth": "7"}}, ["7"]),
        ({"reward_model": {"ground_truth": {"target": ["x", "y"]}}}, ["x", "y"]),
        ({"reward_model": {"style": "rule"}, "answer": "x"}, ["x"]),
    ],
)
def test_where_the_right_answers_stand(fields, golds):
    names = ("golden_answers", "answers", "reward_model", "answer")
    assert golden_answers(SimpleNamespace(**{name: fields.get(name) for name in names})) == golds


def test_in_a_parsed_row_the_answer_is_the_models():
    row = SimpleNamespace(golden_answers=None, answers=None, reward_model=None, answer="said")
    assert golden_answers(row, parsed=True) is None
