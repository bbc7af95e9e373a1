"""Words, numbers and turns of speech: what the judges without a model look at.

A *term* is a word in lower case without accents, or a number or month in one spelling, so that "1,000", "1000" and
"21st" and "21" agree. Numbers and months are kept apart from words because nearly right is wrong for them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Terms", "abstains", "plans", "terms"]

_TERM = re.compile(r"\d[\d,]*(?:\.\d+)?(?:st|[nr]d|th|s)?\b|[^\W\d_](?:[^\W_]|['’](?=[^\W_]))*|\d+")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_UNITS = "zero _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_COUNTS = {word: str(n) for n, word in enumerate(f"{_UNITS} eighteen nineteen twenty".split()) if word != "_"}
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = frozenset(_MONTH_NAMES.split())

#: Words that carry no claim of their own, `one` among them. Negations are not here: they change what is said.
_STOP_WORDS = """
    a about after all also although am among an and any are as at be because been before being between both but by
    can could did do does each either else etc few first for from further had has have having he her here hers him his
    how however i if in into is it its itself just last like many may me might mine more most much must my of off on
    once one only onto or other our out over own per same she should so some such than that the their them then there
    these they this those though through to too under until up upon us very was we were what when where whether which
    while who whom whose why will with within would you your s
    according answer answers asked based conclude confirm confirmed confirms context doc document documents fact
    finally given hence indicate indicated indicates indicating information known means mention mentioned mentions
    need note passage passages provided question result results search searched says show shown shows state stated
    states step text therefore thus
"""
_STOP = frozenset(_STOP_WORDS.split())

_NOT = r"(?:not|n['’]t)"
_ABSTAINS = re.compile(
    rf"\b(?:(?:i|we) (?:\w+ )?(?:do|did|could|can|ca|would) ?{_NOT} (?:\w+ ){{0,2}}?"
    r"(?:know|have|find|determine|answer|provide|say|tell)"
    rf"|(?:passages?|documents?|context|text|results?|search) (?:\w+ ){{0,3}}?(?:do|does|did) ?{_NOT} "
    r"|(?:cannot|can ?not|can['’]t) be (?:\w+ )?(?:determined|answered|found|confirmed|established)"
    r"|i cannot (?:\w+ )?(?:determine|answer|find|say|provide|confirm|tell)"
    r"|(?:i am|i['’]m|we are) (?:not sure|unsure|unable|not able|uncertain)"
    r"|(?:is|are|was|were|remains) (?:unknown|unclear|uncertain|not clear)"
    r"|(?:no|not enough|not sufficient|insufficient|lack of) (?:\w+ )?(?:information|answer|results?|mention|evidence)"
    r"|not (?:\w+ )?(?:mentioned|provided|specified|stated)"
    r"|as an ai|(?:need|requires?) more (?:information|context)|more information (?:is|would be) (?:needed|required))\b"
)
_NOTHING = frozenset(
    ["", "unknown", "none", "n/a", "na", "null", "unsure", "not sure", "no idea", "no answer", "unclear"]
)

_PLANS = re.compile(
    r"(?:(?:so|then|now|next|first|therefore|thus|hence|to (?:answer|find|determine)\b[^,.]*),? )*"
    r"(?:(?:i|we) (?:(?:still|also|now|first|next|then) )?(?:need|have to|should|will|must|want|am going|are going"
    r"|plan)"
    r"|i['’]ll|we['’]ll|let['’]s|let (?:me|us)|it (?:is|will be) necessary|(?:the )?next step|what is needed)"
    r"(?: \w+){0,4}? (?:look|find|search|determine|identify|check|verify|know|figure|establish|get|gather|retrieve"
    r"|confirm|compare)\b(?! that)"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a text that carry meaning: `sequence` in order, and the same as sets of words and of numbers."""

    sequence: tuple[str, ...]
    words: frozenset[str]
    numbers: frozenset[str]

    def without(self, other: Terms) -> Terms:
        """These terms but for those that are in `other`."""
        known = other.words | other.numbers
        return _terms_of([term for term in self.sequence if term not in known])


def terms(text: str) -> Terms:
    """The terms of `text` without stop words.

    Number words up to twenty are numbers, "1.5 million" is 1500000, a decade ("1960s") is not its first year.

    >>> terms("He was born on July 21st, 1961, in São Paulo.").sequence
    ('born', '#july', '#21', '#1961', 'sao', 'paulo')
    """
    found: list[str] = []
    for word in _TERM.findall(_plain(text)):
        if word[0].isdigit():
            found.append("#" + _number(word))
        elif word in _SCALES and found and found[-1].removeprefix("#").replace(".", "", 1).isdecimal():
            found[-1] = "#" + _scaled(found[-1][1:], _SCALES[word])
        elif word in _COUNTS:
            found.append("#" + _COUNTS[word])
        elif word in _MONTHS and (word not in ("may", "march") or _is_date(text, word)):
            found.append("#" + word)
        elif (bare := re.sub(r"['’]s$", "", word)) not in _STOP:
            found.append(bare)
    return _terms_of(found)


def _terms_of(sequence: list[str]) -> Terms:
    return Terms(
        tuple(sequence),
        frozenset(term for term in sequence if term[0] != "#"),
        frozenset(term for term in sequence if term[0] == "#"),
    )


def _plain(text: str) -> str:
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in spread if not unicodedata.combining(char)) if not spread.isascii() else spread


def _number(word: str) -> str:
    digits = word.replace(",", "")
    if digits.endswith("s"):
        return digits
    digits = re.sub(r"(?:st|[nr]d|th)$", "", digits)
    whole, _, part = digits.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def _scaled(number: str, zeros: int) -> str:
    whole, _, part = number.partition(".")
    digits = whole + part.ljust(zeros, "0")[:zeros]
    rest = part[zeros:]
    return (digits.lstrip("0") or "0") + (f".{rest}" if rest else "")


def _is_date(text: str, month: str) -> bool:
    """Whether `may` or `march` stands there as a month: with a capital letter and a number beside it."""
    name = month.capitalize()
    return re.search(rf"\b{name},? \d|\d(?:st|[nr]d|th)?(?: of)? {name}\b|\bin {name}\b", text) is not None


def abstains(text: str) -> bool:
    """Whether a text says that it has nothing to say; only its first sentence is looked at.

    >>> abstains("I don't know."), abstains("There is no information about it."), abstains("Paris. I know no other.")
    (True, True, False)
    """
    plain = " ".join(_plain(text).split())
    first = re.split(r"(?<=[.!?]) ", plain, maxsplit=1)[0]
    return first.rstrip(" .!") in _NOTHING or _ABSTAINS.search(f"{first} ") is not None


def plans(text: str) -> bool:
    """Whether a text only says what is to be done next ("I need to look up his age"), and so claims nothing.

    >>> plans("I need to look up his age."), plans("He was 41.")
    (True, False)
    """
    return _PLANS.match(" ".join(_plain(text).split())) is not None
