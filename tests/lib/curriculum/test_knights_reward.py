"""What an answer to a Knights and Knaves puzzle says, and what it is worth; and puzzles out of rows."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.curriculum.knights_reward import (
    Said,
    answer_text,
    format_problem,
    outcome,
    reward,
    right_share,
    said,
)
from toolroll.curriculum.knights_rows import known_puzzle
from toolroll.curriculum.knights_words import NAMES, solution_text
from toolroll.errors import RowError

THREE = ["Ada", "Omar", "Zeno"]
RIGHT = [True, False, True]
GOOD = "(1) Ada is a knight\n(2) Omar is a knave\n(3) Zeno is a knight"


# --- form


@pytest.mark.parametrize(
    ("response", "thought_and_answer", "answer_alone"),
    [
        ("<think>t</think><answer>a</answer>", None, None),
        ("<think>t</think>\n\n<answer>\na\n</answer>\n", None, None),
        ("Well. <think>t</think> So: <answer>a</answer>", None, None),
        ("<think></think><answer></answer>", None, None),
        ("<think>t</think><answer>a</answer><|im_end|>", None, None),
        ("<think>t</think><answer>a</answer> <|im_end|>\n", None, None),
        ("<think>t</think><answer>a</answer><|im_end|><|im_end|>", "text_after_answer", "text_after_answer"),
        ("<think>t</think><answer>a</answer>.", "text_after_answer", "text_after_answer"),
        ("<answer>a</answer><think>t</think>", "wrong_order", "text_after_answer"),
        ("<think><answer>a</answer></think>", "wrong_order", "text_after_answer"),
        ("<think>t<answer></think>a</answer>", "wrong_order", None),
        ("</think>t<think><answer>a</answer>", "wrong_order", None),
        ("<think>t</think></answer>a<answer>", "wrong_order", "wrong_order"),
        ("<answer>a</answer>", "no_think", None),
        ("t</think><answer>a</answer>", "no_think", None),
        ("<think>t<answer>a</answer>", "think_unclosed", None),
        ("<think>t<think>u</think><answer>a</answer>", "multi_think", None),
        ("<think>t</think></think><answer>a</answer>", "multi_think", None),
        ("<think>t</think>", "no_answer", "no_answer"),
        ("<think>t</think>a</answer>", "no_answer", "no_answer"),
        ("<think>t</think><answer>a", "answer_unclosed", "answer_unclosed"),
        ("<think>t</think><answer>a</answer><answer>b</answer>", "multi_answer", "multi_answer"),
        ("<think><answer>?</answer></think><answer>a</answer>", "multi_answer", "multi_answer"),
        ("<think>t</think><answer>a</answer></answer>", "multi_answer", "multi_answer"),
        ("<THINK>t</THINK><answer>a</answer>", "no_think", None),
        ("< think>t</think><answer>a</answer>", "no_think", None),
        ("", "no_think", "no_answer"),
    ],
)
def test_form(response, thought_and_answer, answer_alone):
    assert format_problem(response, "think-answer") == thought_and_answer
    assert format_problem(response, "answer") == answer_alone
    assert format_problem(response, "none") is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>t</think><answer>a</answer>", "a"),
        ("<answer>a</answer><answer>b</answer> c", "b"),
        ("<answer>a</answer><answer>b", "a"),
        ("<answer>a<answer>b</answer>", "b"),
        ("</think>a<answer>b\n<answer>", "b\n<answer>"),
        ("</answer>a<answer>b", "b"),
        ("<answer>a", "a"),
        ("<answer>\n(1) a\n\n", "\n(1) a\n\n"),
        ("a</answer>", "a</answer>"),
        ("t</think>a", "a"),
        ("<think>t</think>u</think>a", "a"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_where_the_answer_is(response, answer):
    assert answer_text(response) == answer


# --- what is said


@pytest.mark.parametrize(
    ("answer", "roles", "problem"),
    [
        (GOOD, RIGHT, None),
        (GOOD.upper(), RIGHT, None),
        (GOOD.replace("\n", " "), RIGHT, None),
        ("Zeno is a knight, Omar is a knave, and Ada is a knight.", RIGHT, None),
        ("1. Ada: Knight\n2. Omar: Knave\n3. Zeno: Knight", RIGHT, None),
        ("- **Ada** is a **knight**\n- *Omar* - knave\n- `Zeno` → knight", RIGHT, None),
        ('{"Ada": "knight", "Omar": "knave", "Zeno": "knight"}', RIGHT, None),
        ("Ada=knight; Omar => knave; Zeno (knight)", RIGHT, None),
        ("Ada is not a knave. Omar isn't a knight. Zeno must be a knight.", RIGHT, None),
        ("Ada is a knight; Omar is indeed a knave; so Zeno is therefore the knight.", RIGHT, None),
        ("Ada is\na knight\nOmar is  a   knave\n\tZeno is a knight", RIGHT, None),
        ("ADA IS AN KNIGHT OMAR IS KNAVE ZENO WAS A KNIGHT", RIGHT, None),
        ("", [None] * 3, "missing"),
        ("(1)", [None] * 3, "missing"),
        ("knight, knave, knight", [None] * 3, "missing"),
        ("(1) knight (2) knave (3) knight", [None] * 3, "missing"),
        ("Ada is a knight\nOmar is a knave", [True, False, None], "missing"),
        ("Ada is a knight\nOmar is a knave\nZenobia is a knight", [True, False, None], "missing"),
        ("Ada is a knight\nOmar is a knave\nZeno is a knigh", [True, False, None], "missing"),
        ("Knights: Ada, Zeno. Knaves: Omar.", [None] * 3, "missing"),
        ("Ada and Zeno are knights, Omar is a knave", [None, False, None], "missing"),
        ("Ada is a knight or a knave, Omar is a knave, Zeno is a knight", [None, False, True], "missing"),
        ("Ada is a knight/knave, Omar is a knave, Zeno is a knight", [None, False, True], "missing"),
        ("Ada is a knight. Ada is a knave. Omar is a knave", [None, False, None], "contradiction"),
        (GOOD + " Ada is not a knight", [None, False, True], "contradiction"),
        (GOOD + "\n(4) Hugo is a knave", RIGHT, "extra"),
        (GOOD + "\nAda is a knight", RIGHT, "extra"),
        (GOOD + "\nknights", RIGHT, "extra"),
        ("If Ada were a knave she would lie. " + GOOD, RIGHT, "extra"),
    ],
)
def test_what_an_answer_says(answer, roles, problem):
    assert said(answer, THREE) == Said(roles, problem)


@pytest.mark.parametrize(
    ("names", "answer", "roles"),
    [
        (["Ann Lee", "Lee"], "Lee is a knave, Ann Lee is a knight", [True, False]),
        (["Lee", "Ann Lee"], "Ann Lee is a knave, Lee is a knight", [True, False]),
        (["Ann Lee", "Mary Ann Lee"], "Mary Ann Lee is a knave; Ann Lee is a knight", [True, False]),
        (["Jean-Luc", "Luc"], "Jean-Luc is a knight. Luc is a knave", [True, False]),
        (["O'Neil", "Zoë"], "O’Neil is a knight. ZOË: knave", [True, False]),
        (["Dr. Who", "the king (old)"], "dr. who is a knight, the king (old) is a knave", [True, False]),
        (["Straße", "А1"], "STRASSE is a knight, а1 is a knave", [True, False]),  # the second in Cyrillic
        (["a+b", "c*d"], "a+b is a knight and c*d is a knave", [True, False]),
        (["is", "a"], "Is is a knight, a is a knave", [True, False]),
    ],
)
def test_names_of_every_kind(names, answer, roles):
    assert said(answer, names) == Said(roles, None)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["Ada", "ada"], "two people are called 'ada'"),
        (["Ann Lee", "ann-lee"], "two people are called 'ann-lee'"),
        (["Ada", ""], "a name has no letter and no digit: ''"),
        (["Ada", "*?"], "a name has no letter and no digit"),
    ],
)
def test_names_that_no_answer_could_tell_apart(names, why):
    with pytest.raises(RowError, match=why.replace("*", r"\*").replace("?", r"\?")):
        said("Ada is a knight", names)


puzzles = st.lists(st.sampled_from(NAMES), min_size=2, max_size=14, unique=True).flatmap(
    lambda names: st.tuples(st.just(names), st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
)


@settings(deadline=None)
@given(puzzles)
def test_a_solution_in_words_is_read_back_and_paid_in_full(puzzle):
    names, solution = puzzle
    words = solution_text(names, solution)
    assert said(words, names) == Said(solution, None)
    for credit in ("all", "people"):
        assert reward(f"<think>t</think><answer>{words}</answer>", names, solution, credit=credit)["total"] == 3


@pytest.mark.parametrize(
    "text",
    [
        *("_" * 100_000, "a" * 100_000, " " * 100_000, "zeno " + "-" * 100_000, "zeno is" + " " * 100_000),
        *(
            "a " * 50_000,
            "zeno is not " * 9_000,
            "zeno is a knight or " * 5_000,
            "<answer>" * 12_000,
            "zeno (" * 17_000,
        ),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_a_model_gone_mad_takes_no_more_time_than_a_sane_one(text):
    start = time.thread_time()
    assert reward(text, THREE, RIGHT, form="none", credit="people")["total"] <= -0.3
    assert time.thread_time() - start < 1


# --- what it is worth


@pytest.mark.parametrize(
    ("roles", "problem", "of_all", "of_people"),
    [
        ([True, False, True], None, 2, 2),
        ([True, False, False], None, -1.5, -1.5 + 7 / 3),
        ([True, True, False], None, -1.5, -1.5 + 3.5 / 3),
        ([False, True, False], None, -1.5, -1.5),
        ([True, False, None], "missing", -2, -1.5 + 7 / 3),
        ([None, None, False], "contradiction", -2, -1.5),
        ([None, None, None], "missing", -2, -2),
        ([True, False, True], "extra", -2, 2),
    ],
)
def test_outcome(roles, problem, of_all, of_people):
    heard = Said(roles, problem)
    assert outcome(heard, RIGHT, "all") == of_all
    assert outcome(heard, RIGHT, "people") == pytest.approx(of_people)
    assert right_share(heard, RIGHT) == sum(a is b for a, b in zip(roles, RIGHT, strict=True)) / 3


WELL = "<think>t</think><answer>{}</answer>"


@pytest.mark.parametrize(
    ("response", "form", "credit", "total", "parts"),
    [  # the four values of the paper's reward
        (WELL.format(GOOD), "think-answer", "all", 3, (2, 1)),
        (WELL.format(GOOD.replace("knave", "knight")), "think-answer", "all", -0.5, (-1.5, 1)),
        (WELL.format("I do not know"), "think-answer", "all", -1, (-2, 1)),
        (WELL.format(GOOD) + "!", "think-answer", "all", -3, (-2, -1)),
        (f"<answer>{GOOD}</answer>", "think-answer", "all", -3, (-2, -1)),
        (f"<answer>{GOOD}</answer>", "answer", "all", 3, (2, 1)),
        (f"<answer>{GOOD}", "answer", "all", -3, (-2, -1)),
        (f"<answer>{GOOD}", "none", "all", 2, (2, 0)),
        (GOOD, "none", "all", 2, (2, 0)),
        ("", "none", "all", -2, (-2, 0)),
        ("<answer>(1) Ada is a knight\n(2) Omar is", "none", "people", -1.5 + 3.5 / 3, (-1.5 + 3.5 / 3, 0)),
        (WELL.format("Ada is a knight"), "think-answer", "people", -0.5 + 3.5 / 3, (-1.5 + 3.5 / 3, 1)),
        ("<answer>Ada is a knight", "think-answer", "people", -3, (-2, -1)),
    ],
)
def test_reward(response, form, credit, total, parts):
    found = reward(response, THREE, RIGHT, form=form, credit=credit)
    assert found["total"] == pytest.approx(total)
    assert (found["parts"]["outcome"], found["parts"]["format"]) == pytest.approx(parts)


def test_what_a_reward_tells():
    assert reward(WELL.format("Ada is a knight. Omar: knight."), THREE, RIGHT) == {
        "total": -1.0,
        "parts": {"outcome": -2.0, "format": 1.0},
        "A": 0,
        "F": 1,
        "right_frac": 1 / 3,
        "said": [True, True, None],
        "problem": "missing",
        "scheme": "dump",
    }
    found = reward(f"<answer>{GOOD}</answer>", THREE, RIGHT)
    assert (found["A"], found["F"], found["problem"], found["right_frac"]) == (1, 0, "no_think", 1)
    assert reward(GOOD, THREE, RIGHT, form="none", credit="people")["scheme"] == "people"


TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
words = st.sampled_from([*TAGS, *THREE, " is a ", " is not a ", ": ", "knight", "knave", "\n", " or ", "(1) ", "x"])


@settings(deadline=None, max_examples=300)
@given(st.lists(words, max_size=40).map("".join), st.lists(st.booleans(), min_size=3, max_size=3))
def test_every_reward_is_within_its_range_and_the_sum_of_its_parts(response, solution):
    for form in ("think-answer", "answer", "none"):
        bound = 2 if form == "none" else 3
        by_all, by_people = (reward(response, THREE, solution, form=form, credit=c) for c in ("all", "people"))
        for found in (by_all, by_people):
            assert -bound <= found["total"] <= bound
            assert found["total"] == pytest.approx(sum(found["parts"].values()))
        assert by_all["parts"]["outcome"] in (-2, -1.5, 2)
        assert by_people["total"] >= by_all["total"]
        assert (by_all["parts"]["outcome"] == 2) == (by_all["A"] == 1 and by_all["F"] == 1)


# --- puzzles out of rows

TRUTH = {"solution_text_format": "(1) Ada is a knight\n(2) Omar is a knave", "statements": "((),)"}


def row(**fields):
    return SimpleNamespace(**{"names": None, "solution": None, "reward_model": None, **fields})


@pytest.mark.parametrize(
    ("fields", "statements"),
    [
        ({"names": ["Ada", "Omar"], "solution": [True, False]}, None),
        ({"names": ["Ada", "Omar"], "solution": [True, False], "reward_model": {"ground_truth": 7}}, None),
        ({"reward_model": {"style": "rule", "ground_truth": json.dumps(TRUTH)}}, "((),)"),
        ({"reward_model": {"ground_truth": TRUTH}}, "((),)"),
        ({"reward_model": {"ground_truth": {**TRUTH, "statements": []}}}, None),
        ({"reward_model": {"ground_truth": TRUTH["solution_text_format"]}}, None),
        ({"reward_model": {"ground_truth": "\n Ada is a Knight.\n\n2. Omar is a KNAVE;\n"}}, None),
        ({"names": ["x"], "reward_model": {"ground_truth": TRUTH}}, "((),)"),
    ],
)
def test_puzzles_in_the_forms_that_data_sets_have(fields, statements):
    assert known_puzzle(row(**fields)) == (["Ada", "Omar"], [True, False], statements)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "no `names`"),
        ({"names": ["Ada"]}, "no `solution`"),
        ({"solution": [True]}, "no `names`"),
        ({"names": [], "solution": []}, "0 names"),
        ({"names": ["Ada"], "solution": [True, False]}, "1 names, but a solution for 2"),
        ({"reward_model": {}}, "no solution in `reward_model.ground_truth`"),
        ({"reward_model": {"ground_truth": 7}}, "no solution in"),
        ({"reward_model": {"ground_truth": {"solution_text_format": 7}}}, "no solution in"),
        ({"reward_model": {"ground_truth": '{"x": 1}'}}, "no solution in"),
        ({"reward_model": {"ground_truth": "42"}}, "a line of the solution says of nobody what they are: '42'"),
        ({"reward_model": {"ground_truth": "(1) Ada is a spy"}}, "a line of the solution"),
        ({"reward_model": {"ground_truth": "(1) is a knight"}}, "a line of the solution"),
        ({"reward_model": {"ground_truth": ""}}, "0 names"),
        ({"reward_model": {"ground_truth": "\ud800"}}, "a line of the solution"),
        ({"reward_model": {"ground_truth": "[" * 100_000}}, "a line of the solution"),
    ],
)
def test_what_is_no_puzzle(fields, why):
    with pytest.raises(RowError) as caught:
        known_puzzle(row(**fields))
    assert why in caught.value.why
    assert len(caught.value.why) < 150


def test_a_solution_is_read_in_linear_time():
    text = "a is a " * 20_000 + "b" + " " * 100_000
    start = time.thread_time()
    with pytest.raises(RowError):
        known_puzzle(row(reward_model={"ground_truth": text}))
    assert time.thread_time() - start < 1
