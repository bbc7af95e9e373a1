"""Answers that are numbers or words, compared without any mathematics."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from toolroll.checking import numbers
from toolroll.checking.kinds import Ignored, NothingFoundError, Options
from toolroll.checking.match import cem_word
from toolroll.checking.parts import has_box, last_box

_ARTICLE = re.compile(r"\b(?:a|an|the)\b\s*", re.IGNORECASE)
_ENDS = " .,;:!?\"'`“”‘’«»*_"  #: not - + % $ or brackets, which may be part of what is meant


def box(text: str) -> str | None:
    """What the last box holds; None if there is none. A box that is empty, or the only one and open, is no answer."""
    found = last_box(text)
    if found is None and has_box(text):
        raise NothingFoundError("the box is not closed")
    if found is not None and not found:
        raise NothingFoundError("the box is empty")
    return found


@dataclass(frozen=True, slots=True)
class Numbers:
    """The last number of the last box, or of the text if there is none; right if it is within `tolerance`."""

    tolerance: float = 0.0

    def extract(self, text: str, _options: Options | None) -> str:
        """The number, as written."""
        boxed = box(text)
        found = numbers.last(text if boxed is None else boxed)
        if found is None:
            raise NothingFoundError("there is no number" if boxed is None else "there is no number in the box")
        return found

    def compare(self, answer: str, gold: str, _options: Options | None) -> tuple[bool | None, str | None]:
        """Whether |answer - gold| <= tolerance |gold|. Of a right answer with words around it, its last number."""
        right, given = _right(gold), numbers.value(answer)
        if right is None:
            return None, self.unreadable(gold, _options)
        return given is not None and abs(given - right) <= Fraction(self.tolerance) * abs(right), None

    def unreadable(self, gold: str, _options: Options | None) -> str | None:
        """Without a number it is."""
        return "the right answer is no number" if _right(gold) is None else None

    def close(self) -> None:
        """Nothing is held."""


def _right(gold: str) -> Fraction | None:
    right = numbers.value(gold)
    return numbers.value(numbers.last(gold) or "") if right is None else right


@dataclass(frozen=True, slots=True)
class Exact:
    """What the last box holds, or all of the text; right if it is the same, `ignore` and white space aside."""

    ignore: frozenset[Ignored] = frozenset({"case", "punctuation"})

    def extract(self, text: str, _options: Options | None) -> str:
        """The answer, without white space around it."""
        boxed = box(text)
        found = (text if boxed is None else boxed).strip()
        if not found:
            raise NothingFoundError("the text is empty")
        return found

    def compare(self, answer: str, gold: str, _options: Options | None) -> tuple[bool | None, str | None]:
        """Whether both are the same text."""
        return normal(answer, self.ignore) == normal(gold, self.ignore), None

    def unreadable(self, _gold: str, _options: Options | None) -> str | None:
        """Any text can be compared with."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def normal(text: str, ignore: frozenset[Ignored]) -> str:
    """A text in the Unicode form NFKC with single spaces, and without what is ignored.

    Punctuation is ignored at both ends only, so that 3.5 stays another number than 35.

    >>> normal("  The  “Cat”. ", frozenset(["case", "punctuation", "articles"])), normal("－3.5", frozenset())
    ('cat', '-3.5')
    """
    text = unicodedata.normalize("NFKC", text)
    if "case" in ignore:
        text = text.casefold()
    if "articles" in ignore:
        text = _ARTICLE.sub("", text)
    if "punctuation" in ignore:
        text = text.strip(_ENDS)
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Contained:
    """All of the text; right if the right answer stands in it, on whole words (`match.cem_word`)."""

    def extract(self, text: str, _options: Options | None) -> str:
        """The text, without white space around it."""
        if not text.strip():
            raise NothingFoundError("the text is empty")
        return text.strip()

    def compare(self, answer: str, gold: str, _options: Options | None) -> tuple[bool | None, str | None]:
        """Whether the right answer stands in it."""
        return cem_word(answer, gold), None

    def unreadable(self, _gold: str, _options: Options | None) -> str | None:
        """Any text can be compared with."""
        return None

    def close(self) -> None:
        """Nothing is held."""
