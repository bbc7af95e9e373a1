r"""What of a model's text is its answer: the part that counts, boxes, formulas and the words before an answer.

Every rule takes time linear in the text, whatever stands in it: a reply may be a megabyte of open braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolroll.checking import numbers

_BLOCK_START, _BLOCK_END = "<answer>", "</answer>"
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_BRACE = re.compile(r"\\f?box(?:ed)?\s*\{|\\.|[{}]", re.DOTALL)
#: "The final answer is", "**Answer:**", "the answer to the question would be": up to six words between.
_PHRASE = re.compile(
    r"\banswers?(?:[^\S\n]{1,3}[\w']{1,30}){0,6}?[^\S\n]{0,3}(?:(?<=\s)(?:is|are|be)\b|[:=])[^\S\n]{0,3}:?",
    re.IGNORECASE,
)
_FORMULA = r"(?:\$\$?(?P<{0}a>[^$]+)\$\$?|\\\((?P<{0}b>.+?)\\\)|\\\[(?P<{0}c>.+?)\\\])"
_FIRST_FORMULA = re.compile(_FORMULA.format("x"))
_NEXT_FORMULA = re.compile(r"\s*(?:,?\s*(?:and|or)\b|,)\s*" + _FORMULA.format("x"))
_DELIMITER = re.compile(r"\$|\\[(\[]")
_DOLLAR = re.compile(r"(?<!\\)\$\$?")
_GROUP = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2}")
_AND = re.compile(r"\s*,?\s*\b(?:and|or)\b\s*")
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")
_DECORATION = " \t\r\n*_`"
LINE_CHARS = 1000  #: of the line behind "the answer is"; an answer that is longer stands in a box
SENTENCE_CHARS = 100  #: of an answer in words


def said(text: str) -> str | None:
    """The part of a text that can hold its answer; None if it ends before the thoughts do.

    That is what follows the last </think>, and of this the last <answer> block that is closed, if there is one.

    >>> said("<think>7?</think> It is 8."), said("<think>7, no"), said("<answer>9</answer> Done.")
    (' It is 8.', None, '9')
    """
    _, end, text = text.rpartition("</think>")
    if not end and "<think>" in text:
        return None
    closed = text.rfind(_BLOCK_END)
    if closed >= 0 and (start := text.rfind(_BLOCK_START, 0, closed)) >= 0:
        return text[start + len(_BLOCK_START) : closed]
    return text


def has_box(text: str) -> bool:
    r"""Whether a \boxed{ or \fbox{ is opened in it."""
    return _BOX.search(text) is not None


def last_box(text: str) -> str | None:
    r"""What the last \boxed{...} or \fbox{...} holds that is closed; of boxes in a box, the inner one.

    >>> last_box(r"\boxed{1}, no: \boxed{\frac{1}{2}}. Or \boxed{3"), last_box("1")
    ('\\frac{1}{2}', None)
    """
    first = _BOX.search(text)
    if first is None:
        return None
    opened: list[int | None] = []  # for each open brace: where the content of a box begins, None for another brace
    found = None
    for token in _BRACE.finditer(text, first.start()):
        mark = token[0]
        if mark == "}":
            start = opened.pop() if opened else None
            found = text[start : token.start()] if start is not None else found
        elif mark == "{":
            opened.append(None)
        elif mark[-1] == "{" and len(mark) > 2:
            opened.append(token.end())
    if found is None:
        return None
    inner = last_box(found)
    return found.strip() if inner is None else inner


def is_formula(text: str) -> bool:
    r"""Whether a text is one line without words: two letters in a row make one, except in a LaTeX command.

    >>> is_formula(r"x^2 + \sin y"), is_formula(r"5\text{ cm}"), is_formula("5 cm")
    (True, True, False)
    """
    return bool(text.strip()) and "\n" not in text.strip() and _WORD.search(_GROUP.sub(" ", text)) is None


def after_phrase(text: str) -> str | None:
    r"""The line, or what is left of it, behind the last "answer is", "Answer:" or the like.

    >>> after_phrase("The answer is 5.\nSo the final answer to this is **7**."), after_phrase("It is 7.")
    ('7**.', None)
    """
    end = None
    for match in _PHRASE.finditer(text):
        end = match.end()
    if end is None:
        return None
    rest = text[end:].lstrip(_DECORATION)
    return rest.partition("\n")[0][:LINE_CHARS]


def unboxed(text: str) -> str | None:
    r"""The formula or number that a text without a box gives as its answer.

    It stands behind the last "answer is" or the like, or is all of the text, or is the last in it. Without any, a few
    words are the answer.

    >>> unboxed("The answer is $x=2$ or $x=3$."), unboxed("(1, 2]"), unboxed("It costs $5 and lasts 3 days")
    ('x=2,x=3', '(1, 2]', '3')
    """
    line = after_phrase(text)
    if line is not None and (found := _first(line)) is not None:
        return found
    whole = text.strip(_DECORATION + "#")
    if is_formula(whole) and not _DELIMITER.search(whole):
        return whole.removesuffix(".")
    return _last(text) or _words(whole if line is None else line)


def _first(line: str) -> str | None:
    """The first formula of a line, with those that "and", "or" or a comma join to it; else what is said there."""
    match = _FIRST_FORMULA.search(line)
    if match is not None and is_formula(match["xa"] or match["xb"] or match["xc"]):
        found = []
        while match is not None:
            found.append((match["xa"] or match["xb"] or match["xc"]).strip())
            match = _NEXT_FORMULA.match(line, match.end())
        return ",".join(found)
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].strip(_DECORATION)
    joined = _AND.sub(", ", sentence)
    return joined if is_formula(joined) else numbers.first(line)


def _words(text: str) -> str | None:
    """A sentence of a few words, which a right answer in words can be compared with."""
    sentence = _SENTENCE_END.split(text, maxsplit=1)[0].strip(_DECORATION)
    return sentence if sentence and len(sentence) <= SENTENCE_CHARS and "\n" not in sentence else None


def _last(text: str) -> str | None:
    """The last formula or number, whichever comes later."""
    spans = [span for span in (_last_dollars(text), *_last_brackets(text)) if span is not None]
    start, end = max(spans, default=(0, 0))
    number = numbers.last(text, end)
    return number if number is not None else text[start:end].strip(" $\\()[]\n") or None if spans else number


def _last_dollars(text: str) -> tuple[int, int] | None:
    """Where the last formula between dollars stands; a sum of money is none."""
    marks = [match.span() for match in _DOLLAR.finditer(text)]
    for opening, closing in zip(reversed(marks[:-1]), reversed(marks[1:]), strict=True):
        if is_formula(text[opening[1] : closing[0]].replace("\n", " ")):
            return opening[1], closing[0]
    return None


def _last_brackets(text: str) -> Iterator[tuple[int, int] | None]:
    for left, right in ((r"\(", r"\)"), (r"\[", r"\]")):
        end = text.rfind(right)
        start = text.rfind(left, 0, end) if end >= 0 else -1
        yield (start + 2, end) if start >= 0 else None
