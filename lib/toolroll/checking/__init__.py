r"""Whether an answer is right: mathematics, numbers, multiple choice, words.

    from toolroll.checking import checker

    with checker("math", timeout_s=5.0) as check:
        check(text, gold)  # Checked(correct=1, extracted="\\frac{1}{2}", why=None)

Two steps, apart from each other. What of the text is the answer is decided here, by rules that a person can follow
(`parts`, `choice`); the right answer plays no part in it. Then the two are compared. A model that gives no answer is
wrong; where there is no right answer, or none that can be read, there is no verdict.
"""

from toolroll.checking.kinds import KINDS, Checked, Checker, checker

__all__ = ["KINDS", "Checked", "Checker", "checker"]
