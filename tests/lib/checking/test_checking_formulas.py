"""Mathematical answers: what is equal, what is not, what cannot be said."""

from __future__ import annotations

import importlib.util

import pytest

from toolroll.checking import checker
from toolroll.checking.formulas import plain, surely
from toolroll.checking.process import MathProcess
from toolroll.errors import ToolrollError


@pytest.fixture(scope="module")
def check():
    with checker("math", timeout_s=5.0) as opened:
        yield opened


#: Right answers and what stands in the box, in the manner of AIME, MATH-500 and their like.
RIGHT = [
    ("204", "204"),
    ("033", "33"),
    ("33", "033"),
    ("1234", "1,234"),
    ("1234", r"1\,234"),
    ("1,234", "1234"),
    ("-1/2", r"\frac{-1}{2}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", "0.50"),
    ("1/3", "0.333333"),
    (r"2\frac{1}{2}", "2.5"),
    ("0.5", r"50\%"),
    ("12", r"12\%"),
    ("12", r"12\text{ cm}"),
    ("12", "12 cm"),
    ("12", r"\$12"),
    ("12", r"\$12.00"),
    ("90", r"90^\circ"),
    ("12", "x = 12"),
    ("12", "12."),
    ("12", r" \text{12} "),
    ("1000000", "10^6"),
    ("1e3", "1000"),
    ("-3", "−3"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\frac{3\pi}{4}", r"0.75\pi"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{1}{2}x", "x/2"),
    ("1+i", "i+1"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1,2", "2,1"),
    ("2,3", r"x=2 \text{ or } x=3"),
    (r"3\pm\sqrt{2}", r"3-\sqrt{2},\ 3+\sqrt{2}"),
    ("(1,2)", r"\left( 1, 2 \right)"),
    (r"(-\infty, 2]", r"(-\infty,2]"),
    (r"x \le 2", r"(-\infty,2]"),
    ("x>2", "2<x"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\text{(B)}", "B"),
    ("B", r"\text{(B)}"),
    (r"\text{east}", "east"),
    (r"\emptyset", r"\{\}"),
    (r"\infty", r"\infty"),
    ("Sum: 60 + 12 = 72.\n#### 72", "72"),
    (r"We get $x = \boxed{7}$.", "7"),
    ("$7$", "7"),
]
#: Answers that look right.
WRONG = [
    ("1/3", "0.333"),
    ("1/3", "0.33"),
    (r"\pi", "3.14159"),
    ("(1,2)", "(2,1)"),
    ("[1,2)", "[1,2]"),
    (r"(-\infty,2]", r"(-\infty,3]"),
    ("2,3", "2"),
    ("2", "2,3"),
    ("3", r"3 \text{ or } 4"),
    ("1234", "1,243"),
    ("1234", "1.234"),
    ("x=5", "y=5"),
    ("-5", "5"),
    (r"\frac{2}{3}", r"\frac{3}{2}"),
    ("3", "3.0000001"),
    (r"\sqrt{2}", "2"),
    ("x+1", "x-1"),
    ("i", "j"),
    (r"\text{A}", r"\text{B}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
    (r"\ln 2", r"\log 2"),
    ("101", "5"),
    ("42", "Paris"),
    ("42", "}{"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(check, gold, answer):
    assert check(rf"So it is \boxed{{{answer}}}, as was to be found.", gold)[::2] == (1, None)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(check, gold, answer):
    assert check(rf"So it is \boxed{{{answer}}}, as was to be found.", gold).correct == 0


@pytest.mark.parametrize(
    ("text", "gold", "correct", "extracted"),
    [
        ("The answer is 42.", "42", 1, "42"),
        ("The answer is $\\frac{1}{2}$, not $2$.", "0.5", 1, "\\frac{1}{2}"),
        ("It is 42, I think.", "42", 1, "42"),
        (r"Hence \(x = 42\).", "42", 1, "x = 42"),
        (r"\[ x+1 \]", "1+x", 1, "x+1"),
        (r"\boxed{\(x+1\)}", "x+1", 1, r"\(x+1\)"),
        ("The answers are 2 and 3.", "3,2", 1, "2, 3"),
        ("The answer is $x=2$ or $x=3$.", "2,3", 1, "x=2,x=3"),
        ("(1, 2]", "(1,2]", 1, "(1, 2]"),
        ("#### 72", "72", 1, "72"),
        ("The answer is east.", r"\text{east}", 1, "east"),
        ("no box, no number", "42", 0, "no box, no number"),
        (
            "no box and no number, but so many words that nobody could take them for an answer, or for two " * 2,
            42,
            0,
            None,
        ),
        (r"\boxed{1} and then \boxed{2}", "2", 1, "2"),
        (r"\boxed{1} and then \boxed{2}", "1", 0, "2"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", r"\sqrt{3}/2", 1, r"\frac{\sqrt{3}}{2}"),
        (r"First \boxed{3}. No: \boxed{4", "3", 1, "3"),
        (r"so \boxed{4", "4", 0, None),
        (r"\boxed{}", "4", 0, None),
        ("", "4", 0, None),
        ("1.5e-3", 0.0015, 1, "1.5e-3"),
        (r"\boxed{10^{-5}}", 1e-05, 1, "10^{-5}"),
        (r"\boxed{7}", 7, 1, "7"),
        (r"\boxed{7}", ["8", 7], 1, "7"),
        (r"\boxed{7}", [8, 9], 0, "7"),
        (r"<think>\boxed{7}</think> I give up", 7, 0, "I give up"),
        (r"<think>\boxed{7}", 7, 0, None),
    ],
)
def test_what_is_taken_as_the_answer(check, text, gold, correct, extracted):
    assert check(text, gold)[:2] == (correct, extracted)


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("Paris } {", "the right answer cannot be read as mathematics"),
        ("x" * 6000, "the right answer has more than 5000 characters"),
        ("", "there is no right answer to compare with"),
        (None, "there is no right answer to compare with"),
        ([], "there is no right answer to compare with"),
    ],
)
def test_no_verdict_without_a_right_answer_that_can_be_read(check, gold, why):
    assert check(r"\boxed{3}", gold) == (None, "3", why)


def test_whether_there_is_a_verdict_does_not_depend_on_whether_there_is_an_answer(check):
    for text in ("", r"\boxed{3", r"\boxed{3}", r"\boxed{%s}" % ("x" * 6000)):
        assert check(text, "Paris } {").correct is None
        assert check(text, None).correct is None
        assert check(text, r"\sqrt{2}").correct == 0
        assert check(text, ["Paris } {", r"\sqrt{2}"]).correct is None


def test_a_right_answer_that_cannot_be_read_is_no_obstacle_to_one_that_can(check):
    assert check(r"\boxed{3}", ["Paris } {", 3]).correct == 1
    assert check(r"\boxed{4}", ["Paris } {", 3]).correct is None
    assert check("} Paris } {", ["} Paris } {"]).correct == 1


NUMBERS = [
    "1",
    "-1",
    "1.0",
    "0.333333",
    "0.333",
    "1/3",
    r"\frac{2}{6}",
    "1,000",
    "1000.000001",
    "999.9999996",
    "0.5",
    "1/2",
]


def test_what_is_compared_without_mathematics_agrees_with_math_verify():
    process = MathProcess(5.0)
    try:
        for gold in NUMBERS:
            for answer in NUMBERS:
                known = surely(plain(answer), plain(gold))
                if known is not None:
                    assert process.ask(gold, answer) == ("equal" if known else "unequal"), (gold, answer)
    finally:
        process.close()


def test_plain_numbers_and_equal_texts_start_no_process():
    with checker("math") as check:
        for text, gold in (
            (r"\boxed{7}", "8"),
            (r"\boxed{7.0}", "7"),
            (r"\boxed{$\pi$ }", r"\pi"),
            ("so many words " * 20, "1"),
        ):
            check(text, gold)
        assert check._rule._process._process is None


def test_a_comparison_is_made_once(monkeypatch):
    with checker("math") as check:
        first = check(r"\boxed{\sqrt{4}}", "2")
        monkeypatch.setattr(check._rule._process, "ask", lambda *_: pytest.fail("asked again"))
        assert check(r"So \boxed{ \sqrt{4} }.", "2").correct == first.correct == 1


def test_a_missing_package_is_said_in_one_line(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "toolroll.checking.formulas.find_spec", lambda name: None if name == "math_verify" else found(name)
    )
    with pytest.raises(ToolrollError, match=r"pip install 'toolroll\[math\]'"):
        checker("math")
