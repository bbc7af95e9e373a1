r"""Mathematical answers: numbers, fractions, sets, tuples, intervals, equations, matrices, expressions.

Most answers are numbers or the same text, and are compared here, exactly. Everything else goes to math-verify, in a
process of its own (`process`), so that an answer that takes forever costs a limited time and is wrong.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec

from toolroll.checking import numbers, parts
from toolroll.checking.kinds import NothingFoundError, Options
from toolroll.checking.plain import box
from toolroll.checking.process import Asked, MathProcess
from toolroll.errors import ToolrollError

KEPT = 1024  #: verdicts: the samples of a problem, and its runs, often give the same few answers
MAX_CHARS = 5000  #: of a formula; a longer one is not compared
#: math-verify rounds decimals to six places; a difference beyond this is one by any rounding.
SURELY = Fraction(1, 100_000)
_DELIMITERS = re.compile(r"(?<!\\)(?:\$|\\[()\[\]]|\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[!,])")
_BLANK = re.compile(r"(?<!\\)\\[; ]|~")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SPACE = re.compile(r"(?<=\W)\s+|\s+(?=\W)")
_EXPONENT = re.compile(r"[-+\u2212]?[0-9.]+[eE][-+]?[0-9]{1,3}")
_MARK = "####"  #: stands before the right answer in GSM8K


class Formulas:
    """A formula or number; right if it is equal to the right one. See toolroll.checking.parts for what is taken."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        if find_spec("math_verify") is None:
            raise ToolrollError("mathematical answers need math-verify: pip install 'toolroll[math]'")
        self._process = MathProcess(timeout_s)
        self._asked = lru_cache(KEPT)(self._ask)

    def extract(self, text: str, _options: Options | None) -> str:
        """What the last box holds; without one, what `parts.unboxed` finds."""
        boxed = box(text)
        found = parts.unboxed(text) if boxed is None else boxed
        if found is None:
            raise NothingFoundError("there is no formula and no number")
        return found

    def compare(self, answer: str, gold: str, _options: Options | None) -> tuple[bool | None, str | None]:
        """Whether an answer equals the right one; None if math-verify cannot read the right one."""
        right, given = plain(bare(gold)), plain(answer)
        known = surely(given, right)
        if known is not None:
            return known, None
        if len(given) > MAX_CHARS:
            why = self.unreadable(gold, _options)
            return (None, why) if why else (False, f"the answer has more than {MAX_CHARS} characters")
        return self._asked(right, given)

    def unreadable(self, gold: str, _options: Options | None) -> str | None:
        """What math-verify does not make a formula of is."""
        right = plain(bare(gold))
        if numbers.value(right) is not None:
            return None
        verdict, why = self._asked(right, "0")
        return why if verdict is None else None

    def _ask(self, right: str, given: str) -> tuple[bool | None, str | None]:
        if len(right) > MAX_CHARS:
            return None, f"the right answer has more than {MAX_CHARS} characters"
        verdict, why = VERDICTS[self._process.ask(_decimal(right), _decimal(given))]
        return verdict, why and why.format(limit=f"{self._process.timeout_s:g} s")

    def close(self) -> None:
        """End the process."""
        self._process.close()


VERDICTS: dict[Asked, tuple[bool | None, str | None]] = {
    "equal": (True, None),
    "unequal": (False, None),
    "no_gold": (None, "the right answer cannot be read as mathematics"),
    "no_answer": (False, "the answer cannot be read as mathematics"),
    "gold_overrun": (None, "the right answer takes more than {limit} to read"),
    "overrun": (False, "the comparison takes more than {limit}"),
}


def bare(gold: str) -> str:
    r"""A right answer without what data sets put around it: a solution, a box, dollars.

    >>> bare("It is 6 * 7 = 42.\n#### 42"), bare(r"So $x = \boxed{42}$.")
    ('42', '42')
    """
    boxed = parts.last_box(gold)
    if boxed is not None:
        return boxed
    return gold.rpartition(_MARK)[2].strip()


def plain(formula: str) -> str:
    r"""A formula on one line, without delimiters and commands that change its looks only.

    >>> plain(r"$\left( 1,\, \dfrac{1}{2} \right)$."), plain("a b")
    ('(1,\\frac{1}{2})', 'a b')
    """
    text = _FRAC.sub(r"\\frac", _BLANK.sub(" ", _DELIMITERS.sub("", formula)))
    return _SPACE.sub("", text.strip()).strip().removesuffix(".")


def surely(answer: str, gold: str) -> bool | None:
    r"""Whether two plain formulas are equal, where this can be told without mathematics; else None.

    >>> surely("1,234", "1234.0"), surely("0.333", "1/3"), surely("0.333333", "1/3"), surely("x", "1")
    (True, False, None, None)
    """
    if answer == gold and answer:
        return True
    right = numbers.value(gold)
    given = numbers.value(answer) if right is not None else None
    if right is None or given is None:
        return None
    if given == right:
        return True
    exact = not any(mark in text for text in (answer, gold) for mark in ".eE")
    return False if exact or abs(given - right) > SURELY else None


def _decimal(text: str) -> str:
    """A number without its exponent, which is a product with Euler's number to LaTeX."""
    return f"{Decimal(text.replace(chr(0x2212), '-')):f}" if _EXPONENT.fullmatch(text) else text
