r"""Multiple choice: which letter an answer chooses.

The first of these that gives a letter; of several such places, the last:

    1. the last box: \boxed{B}, \boxed{\text{(B)}}, \boxed{\textbf{(B)}\ 12}; or the text of an option
    2. behind "answer is", "Answer:", "option", "choose" or the like, or before "is correct": "Option B", "B is right"
    3. lines that are a letter, "B" or "**(B)**"; or that begin with one, "B. 12", if all such lines have the same
    4. a letter in brackets: "so it must be (B)"
    5. all of the text, or its last line, is the text of one option, if the options are known
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolroll.checking import numbers
from toolroll.checking.kinds import IGNORED, NothingFoundError, Options
from toolroll.checking.parts import after_phrase
from toolroll.checking.plain import box, normal

LETTERS = "ABCDEFGHIJ"  #: where the options are not known
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm|mbox)\b\s*|[{}$]|\\[,;!]")
_ALONE = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_LED = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:])(?:\s.*)?", re.DOTALL)
_OPENING = r"(?:[\s*_`(\[{$\"'“‘]|\\[(\[]){0,6}(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s?\(?)?"
_NAMED = re.compile(
    r"\b(?:answers?\b[^\S\n]{0,2}(?:\*\*|__|\")?(?:[^\S\n]{1,2}[\w']{1,30}){0,6}?[^\S\n]{0,2}(?:\b(?:is|be)\b|[:=]|(?=\())"
    r"|\b(?:options?|choice|choose|chose|pick|select)\b)(?:[^\S\n]{0,2}(?:is|be|option|choice|letter)){0,4}:?"
    rf"{_OPENING}(?P<letter>[A-Z])(?![\w'’])"
    r"|(?<![\w'’])(?P<subject>[A-Z])\)?(?:\*\*)? is (?:the )?(?:correct|right|best)\b",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"(?<!\w)\(([A-Za-z])\)")
_ALL = frozenset(IGNORED)


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter; right if it is the right one."""

    def extract(self, text: str, options: Options | None) -> str:
        """The letter, as a capital."""
        letters = letters_of(options)
        boxed = box(text)
        if boxed is not None:
            places: Iterator[str | None] = iter((_boxed(boxed), option(boxed, options)))
        else:
            places = _places(text, letters, options)
        for letter in places:
            if letter is not None and letter in letters:
                return letter
        raise NothingFoundError(f"no letter from {letters[0]} to {letters[-1]} is chosen")

    def compare(self, answer: str, gold: str, options: Options | None) -> tuple[bool | None, str | None]:
        """Whether it is the letter of the right answer."""
        right = right_letter(gold, options)
        return (None, self.unreadable(gold, options)) if right is None else (answer == right, None)

    def unreadable(self, gold: str, options: Options | None) -> str | None:
        """One that is no letter and no option is."""
        letters = letters_of(options)
        known = right_letter(gold, options) is not None
        return None if known else f"the right answer is none of {letters[0]} to {letters[-1]}"

    def close(self) -> None:
        """Nothing is held."""


def letters_of(options: Options | None) -> str:
    """The letters of these options; all that are usual if they are not known."""
    if isinstance(options, Mapping) and all(len(name) == 1 for name in options):
        return "".join(options).upper() or LETTERS
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)] if options else LETTERS


def right_letter(gold: str, options: Options | None) -> str | None:
    """The letter of a right answer that is given as a letter, or as an option's text or number.

    The number of an option counts from 0, as data sets have it that give numbers.

    >>> right_letter("(b)", None), right_letter("Paris", ["Rome", "Paris"]), right_letter("1", ["Rome", "Paris"])
    ('B', 'B', 'B')
    """
    letter, letters = option(gold, options) or _boxed(gold), letters_of(options)
    if letter is None and options and re.fullmatch("[0-9]{1,2}", gold.strip()):
        letter = letters[int(gold) : int(gold) + 1] or None
    return letter if letter is not None and letter in letters else None


def option(text: str, options: Options | None) -> str | None:
    """The letter of the one option whose text this is, or whose number.

    >>> option("paris.", ["Rome", "Paris"]), option("0.50", ["1/2", "1/3"]), option("Bern", ["Rome", "Paris"])
    ('B', 'A', None)
    """
    if not options:
        return None
    told = options.values() if isinstance(options, Mapping) else options
    wanted = normal(_bare(text), _ALL)
    number = numbers.value(text)
    found = [
        letter
        for letter, one in zip(letters_of(options), told, strict=False)
        if normal(_bare(one), _ALL) == wanted or (number is not None and numbers.value(one) == number)
    ]
    return found[0] if len(found) == 1 else None


def _bare(text: str) -> str:
    """A text without LaTeX around its letters."""
    return _WRAPPED.sub("", text.replace("\\ ", " "))


def _boxed(text: str) -> str | None:
    """The letter that a box holds, alone or before the text of its option."""
    plain = _bare(text).strip(" *_`\n")
    match = _ALONE.fullmatch(plain) or _LED.fullmatch(plain)
    return next(filter(None, match.groups())).upper() if match else None


def _places(text: str, letters: str, options: Options | None) -> Iterator[str | None]:
    """What each rule for a text without a box gives."""
    yield _last(_named(text), letters)
    lines = [line.strip(" \t\r*_`#>") for line in text.splitlines()]
    yield _last((_boxed(line) for line in lines if _ALONE.fullmatch(line)), letters)
    led = {letter for line in lines if (letter := _boxed(line)) is not None}
    yield led.pop() if len(led) == 1 else None
    yield _last((match[1].upper() for match in _BRACKETED.finditer(text)), letters)
    for part in (after_phrase(text), text, next((line for line in reversed(lines) if line), None)):
        yield None if part is None else option(part.strip(" \t\n*_`"), options)


def _named(text: str) -> Iterator[str | None]:
    """Letters behind a word like "answer". A small letter is one only in brackets: "the answer is a prime"."""
    for match in _NAMED.finditer(text):
        letter = match["letter"] or match["subject"]
        if letter.isupper() or text[match.start("letter") - 1 : match.start("letter")] == "(":
            yield letter.upper()


def _last(found: Iterator[str | None], letters: str) -> str | None:
    """The last that is the letter of an option."""
    last = None
    for letter in found:
        if letter is not None and letter in letters:
            last = letter
    return last
