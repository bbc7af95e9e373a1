"""What is wrong with an answer by itself, whatever the other one says."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Collection

#: Characters, as in a set of a regular expression, that are a word each: of Chinese, Japanese and Korean.
CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{CJK}]|[^\s{CJK}]+")
_REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am|we are) (?:very |so |really )?(?:sorry|unable|not able)\b"
    r"|(?:i|we) (?:can ?not|can['’]?t|could ?n[o'’]?t|won['’]?t)"
    r" (?:see|view|describe|help|assist|provide|answer)"
    r"|(?:sorry|unfortunately),? (?:but )?(?:i|we) |as an? (?:ai|language model)\b|unable to (?:see|view|describe))",
    re.IGNORECASE,
)
_LONGEST, _TIMES = 8, 4  # a loop: so many units at most that follow each other so often


def words(text: str) -> list[str]:
    """The words of a text: what stands between spaces; of Chinese, Japanese and Korean each character.

    >>> words("Two red  cubes."), words("红色 cube")
    (['Two', 'red', 'cubes.'], ['红', '色', 'cube'])
    """
    return _WORD.findall(text)


def folded(text: str) -> str:
    r"""A text with each run of white space as one space, for comparison.

    >>> folded(" A\n cube. ") == folded("A cube.")
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def is_empty(text: str) -> bool:
    """Whether a text says nothing: it has neither letters nor digits.

    >>> is_empty(" ... "), is_empty("😀"), is_empty("7")
    (True, True, False)
    """
    return not any(letter.isalnum() for letter in text)


def is_refusal(text: str) -> bool:
    """Whether an answer begins as those do that refuse to answer; English only.

    >>> is_refusal("I'm sorry, but I can't see the image."), is_refusal("A man who says: I am sorry.")
    (True, False)
    """
    return _REFUSAL.match(text) is not None


def has_loop(text: str) -> bool:
    """Whether up to 8 words come 4 times one behind the other, or up to 8 characters 12 times.

    >>> has_loop("a red cube " * 4), has_loop("aaaaaaaaaaaa"), has_loop("Red, red, red and red.")
    (True, True, False)
    """
    return _repeats(words(text.lower()), _TIMES) or _repeats(
        [letter for letter in text if letter.isalnum()], 3 * _TIMES
    )


def _repeats(units: list[str], times: int) -> bool:
    for length in range(1, _LONGEST + 1):
        run = 0  # how many units in a row are the same as `length` before
        for one, earlier in zip(units[length:], units, strict=False):
            run = run + 1 if one == earlier else 0
            if run >= length * (times - 1):
                return True
    return False


def is_script(script: str) -> bool:
    """Whether there are letters of this script, whose Unicode names begin with it.

    >>> is_script("latin"), is_script("old italic"), is_script("latn")
    (True, True, False)
    """
    return any(_is_of(letter, script) for letter in map(chr, range(sys.maxunicode + 1)) if letter.isalpha())


def _is_of(letter: str, script: str) -> bool:
    return unicodedata.name(letter, "").startswith(f"{script.upper()} ")


def script_share(text: str, script: str) -> float:
    """Share of the letters of a text that are of a script, by their Unicode names; 1 without letters.

    >>> script_share("Würfel куб", "latin"), script_share("...", "latin")
    (0.6666666666666666, 1.0)
    """
    letters = [letter for letter in text if letter.isalpha()]
    own = sum(_is_of(letter, script) for letter in letters)
    return own / len(letters) if letters else 1.0


#: Further faults that an answer may be dropped for, by name: `--drop`.
FAULTS: dict[str, Callable[[str], bool]] = {"refusal": is_refusal, "loop": has_loop}


def fault(text: str, wanted: Collection[str] = (), script: str | None = None) -> str | None:
    """The first fault of an answer: empty, those of `wanted` in FAULTS, script; None for a sound one.

    `script`: less than half of its letters are of it.
    """
    if is_empty(text):
        return "empty"
    found = next((name for name, has in FAULTS.items() if name in wanted and has(text)), None)
    if found is None and script is not None and script_share(text, script) < 0.5:
        return "script"
    return found
