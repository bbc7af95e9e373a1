"""Multiple choice: which letter a text chooses."""

from __future__ import annotations

import pytest

from toolroll.checking import checker

OPTIONS = ["Rome", "Paris", "0.5", "12 cm"]


@pytest.fixture(scope="module")
def check():
    with checker("choice") as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. 12 cm", "B"),
        ("b) 12 cm", "B"),
        ("**B**", "B"),
        ("I think so.\n\n**(B)**\n", "B"),
        ("The answer is B", "B"),
        ("The answer is (b).", "B"),
        ("The correct answer is **B**, because A is not.", "B"),
        ("The answer to this question would be B", "B"),
        ("**Answer:** B", "B"),
        ("Answer: $B$", "B"),
        (r"Answer: \(B\)", "B"),
        (r"answer: \textbf{B}", "B"),
        ('{"answer": "B"}', "B"),
        ("Final Answer\n\nB", "B"),
        ("Answer:\nB", "B"),
        ("Therefore, the correct choice is **B**.", "B"),
        ("I choose option B", "B"),
        ("Option A is wrong, so option B.", "B"),
        ("B is correct.", "B"),
        ("The answer is A. No, wait. The answer is B.", "B"),
        ("The answer is B, not (A).", "B"),
        ("This leaves us with (B)", "B"),
        ("A. 5\nB. 6\nC. 7\nThe correct answer is B. 6", "B"),
        (r"\boxed{B}", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{\textbf{(B)}\ 12}", "B"),
        (r"The answer is A, hence \boxed{B. 12}", "B"),
        (r"\boxed{A}, no: \boxed{B}", "B"),
        ("<think>The answer is A</think>B", "B"),
        ("<answer> B </answer>", "B"),
        ("The answer is J", "J"),
        ("", None),
        ("I do not know.", None),
        ("The answer is a prime number.", None),
        ("Before I answer I should think.", None),
        ("A man went to town.", None),
        ("The answer is not A.", None),
        ("A. 5\nB. 6\nC. 7\nHard to say.", None),
        ("f(a) = 2", None),
        ("The answer is K", None),
        (r"\boxed{12}", None),
        (r"The answer is B: \boxed{B", None),
        ("<think>The answer is B", None),
    ],
)
def test_the_letter_that_is_chosen(check, text, letter):
    verdict = check(text, "B")
    assert verdict.extracted == letter
    assert verdict.correct == (letter == "B")
    assert check(text, "C").correct == 0


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Paris.", "B"),
        ("The answer is Paris.", "B"),
        ("It is not Rome.\nParis", "B"),
        (r"\boxed{Paris}", "B"),
        (r"\boxed{\text{paris}}", "B"),
        (r"\boxed{1/2}", "C"),
        ("The answer is D: 12 cm", "D"),
        ("The answer is E", None),
        ("Bern", None),
    ],
)
def test_the_text_of_an_option(check, text, letter):
    assert check(text, "A", OPTIONS).extracted == letter
    assert check(text, "A", dict(zip("ABCD", OPTIONS, strict=True))).extracted == letter


@pytest.mark.parametrize(
    ("gold", "options", "correct"),
    [
        ("B", None, 1),
        ("(B)", None, 1),
        ("b", None, 1),
        ("B. Paris", OPTIONS, 1),
        ("Paris", OPTIONS, 1),
        (1, OPTIONS, 1),
        (0, OPTIONS, 0),
        (["A", "B"], None, 1),
        (1, None, None),
        (9, OPTIONS, None),
        ("E", OPTIONS, None),
        ("Bern", OPTIONS, None),
        ("", None, None),
        (1, ["1", "2", "3"], 0),
    ],
)
def test_the_right_answer(check, gold, options, correct):
    assert check("The answer is B", gold, options).correct == correct
    assert check("no idea", gold, options).correct == (None if correct is None else 0)
