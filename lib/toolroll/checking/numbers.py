r"""Numbers in text: finding them, and reading them exactly.

A number is an integer or a decimal, with commas between thousands or without, perhaps with an exponent; or a fraction
of two such, a/b or \frac{a}{b}.
"""

from __future__ import annotations

import re
from fractions import Fraction

_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_DECIMAL = rf"(?:{_PLAIN})(?:[eE][-+]?[0-9]{{1,3}}(?![\w]))?"
_SIGN = "[-+\u2212]"
_FRACTION = rf"\\[dtc]?frac\s*\{{\s*(?:{_SIGN}\s*)?(?:{_DECIMAL})\s*\}}\s*\{{\s*(?:{_SIGN}\s*)?(?:{_DECIMAL})\s*\}}"
_NUMBER = rf"(?:{_FRACTION}|(?:{_DECIMAL})(?:\s?/\s?(?:{_DECIMAL}))?)"
_ALL = re.compile(rf"(?P<sign>{_SIGN})?\s*(?P<number>{_NUMBER})\.?")
#: A sign belongs to the number unless something stands before it that it could be subtracted from.
_ANY = re.compile(rf"(?<![\w.\\])(?:(?<![\w)\]}}])(?P<sign>{_SIGN}))?(?:\\?\$\s?)?(?P<number>{_NUMBER})")
_PARTS = re.compile(rf"(?:{_SIGN}\s*)?(?:{_DECIMAL})")
MAX_CHARS = 1000  #: a longer text is no number that is worth reading


def value(text: str) -> Fraction | None:
    r"""The number that a text is and nothing else; None for any other text.

    >>> value("1,234.50"), value(r"-\frac{1}{2}"), value("3/4"), value("1.5e-3"), value("5 cm"), value("1/0")
    (Fraction(2469, 2), Fraction(-1, 2), Fraction(3, 4), Fraction(3, 2000), None, None)
    """
    if len(text) > MAX_CHARS or (match := _ALL.fullmatch(text.strip())) is None:
        return None
    over, *under = (_read(part[0]) for part in _PARTS.finditer(match["number"]))
    if under and under[0] == 0:
        return None
    size = over / under[0] if under else over
    return -size if match["sign"] in ("-", "\u2212") else size


def _read(text: str) -> Fraction:
    return Fraction(re.sub(r"[,\s+]", "", text).replace("\u2212", "-"))


def last(text: str, start: int = 0) -> str | None:
    """The last number that stands in a text from `start` on, as written but for signs of currency.

    >>> last("It costs $1,200, so 3 of them -$3,600."), last("x-5, 10-3"), last("H2O"), last("from -3")
    ('-3,600', '3', None, '-3')
    """
    found = None
    for match in _ANY.finditer(text, start):
        found = match
    return None if found is None else (found["sign"] or "") + found["number"]


def first(text: str) -> str | None:
    """The first number that stands in a text, as `last` gives it."""
    match = _ANY.search(text)
    return None if match is None else (match["sign"] or "") + match["number"]
