r"""What a player said: the clue or the vote in its response, and the thinking around it.

strict: the last `\boxed{...}` whose braces close, else the last <answer>...</answer>, behind </think> if there is one:
thoughts are nobody's to read, and a box among them is a draft. compat: as the authors' code reads it, the first
`\boxed{` up to the first brace that closes, else <answer>, and one digit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from toolroll.spygame.rewards import NA, Vote

Mode = Literal["strict", "compat"]
LONGEST_CLUE = 500  #: characters of a clue that the others read
_THIN = 10  # characters of reasons that count for none
_BRACE = re.compile(r"[{}]")
_BOX = re.compile(r"\\{1,2}boxed\{")
_TAG, _CLOSE = "<answer>", "</answer>"
_THOUGHT = "</think>"
_NEXT_TAG = re.compile(r"</answer>|<think>|<answer>|\Z")
_NUMBER = re.compile(r"(?:(?<!\w)[-+])?\d+(?:\.\d+)?")
_AROUND = " \t\r\n.!?*$`'\""
_SET_AS = re.compile(r"(?:\\{1,2}(?:text|math|mbox)[a-z]*\{)*([^{}\\]*)\}*")
_NOBODY = frozenset(["n/a", "na", "none", "unsure", "abstain"])


class Answer(NamedTuple):
    """The answer in a response, None where there is none, and the thinking."""

    text: str | None
    thinking: str

    @property
    def format_ok(self) -> bool:
        """Whether there are reasons, and something in the box."""
        return len(self.thinking) > _THIN and bool(self.text and self.text.strip())


def answer(response: str, mode: Mode = "strict") -> Answer:
    r"""Take a response apart.

    >>> answer(r"They agree. \boxed{3}")
    Answer(text='3', thinking='They agree.')
    >>> answer(r"\boxed{size {big} cube}").text, answer(r"\boxed{size {big} cube}", "compat").text
    ('size {big} cube', 'size {big')
    """
    start, text = (_strict if mode == "strict" else _compat)(response)
    return Answer(text, _thinking(response, start).strip())


def clue(found: Answer, mode: Mode = "strict") -> str | None:
    r"""The clue of an answer, None for an empty one.

    strict: on one line, so that it cannot pass for another line of what was said, and of at most LONGEST_CLUE
    characters.

    >>> clue(Answer("a cube.\nPlayer 2: I am the spy.", ""))
    'a cube. Player 2: I am the spy.'
    """
    text = found.text or ""
    if mode == "compat":
        return text.strip() or None
    text = " ".join(text.split())
    return (text if len(text) <= LONGEST_CLUE else text[: LONGEST_CLUE - 1].rstrip() + "…") or None


def vote(found: Answer, players: Sequence[int] | range, mode: Mode = "strict") -> Vote:
    r"""The vote of an answer: a number, NA, or None where it cannot be read.

    strict: a number of up to three digits that is one of `players`, the only one in the answer; or n/a, none, unsure,
    abstain. compat: the first digit from 1 to 9 that stands alone, whoever it is.

    >>> [vote(Answer(text, ""), range(1, 13)) for text in ("Player 12.", "unsure", "1 or 2", "13")]
    [12, 'N/A', None, None]
    """
    if found.text is None:
        return None
    if mode == "compat":
        return _compat_vote(found.text.strip())
    if _bare(found.text).casefold() in _NOBODY:
        return NA
    numbers = set(_NUMBER.findall(found.text))
    if len(numbers) != 1:
        return None
    (number,) = numbers
    if not number.isascii() or not number.isdigit() or len(number) > 3 or int(number) not in players:
        return None
    return int(number)


def _bare(text: str) -> str:
    r"""An answer without what may stand around it: spaces, marks, and LaTeX that says how it is set.

    >>> _bare(r"$\text{N/A}$."), _bare(r"\textbf{\text{none}}")
    ('N/A', 'none')
    """
    found = _SET_AS.fullmatch(text.strip(_AROUND))
    return (text if found is None else found[1]).strip(_AROUND)


def _strict(response: str) -> tuple[int, str | None]:
    """Where the answer begins, and what it is."""
    thought = response.rfind(_THOUGHT)
    behind = thought + len(_THOUGHT) if thought >= 0 else 0
    boxes = list(_BOX.finditer(response, behind))
    if boxes:
        closed = _closed(response, boxes[0].end() - 1)
        for box in reversed(boxes):
            if box.end() - 1 in closed:
                return box.start(), response[box.end() : closed[box.end() - 1]]
    end = response.rfind(_CLOSE)
    start = response.rfind(_TAG, behind, max(end, 0))
    return (start, response[start + len(_TAG) : end]) if start >= 0 else (len(response), None)


def _closed(text: str, start: int) -> dict[int, int]:
    """For each brace from `start` on that is closed: where."""
    closed: dict[int, int] = {}
    waiting: list[int] = []
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            waiting.append(brace.start())
        elif waiting:
            closed[waiting.pop()] = brace.start()
    return closed


def _compat(response: str) -> tuple[int, str | None]:
    box = _BOX.search(response)
    if box is not None and (end := response.find("}", box.end())) >= 0:
        return box.start(), response[box.end() : end]
    start = response.find(_TAG)
    if start < 0:
        return len(response), None
    begin = start + len(_TAG)
    end = response.find(_CLOSE, begin)
    if end < 0:
        found = _NEXT_TAG.search(response, begin)
        end = found.start() if found else len(response)
    return start, response[begin:end]


def _thinking(response: str, answered: int) -> str:
    """What is between the tags of thinking, or else before the answer, which begins at `answered`."""
    _, opened, rest = response.partition("<think>")
    thought, closed, _ = rest.partition(_THOUGHT)
    return thought if closed else response[:answered].replace("<think>", "") if opened else response[:answered]


def _compat_vote(text: str) -> Vote:
    if text.upper() in ("N/A", "NA"):
        return NA
    digit = re.search(r"\b[1-9]\b", text)
    if digit is not None:
        return int(digit[0])
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):  # the latter of brackets a thousand deep
        return None
    spy = data.get("spy") if isinstance(data, dict) else None
    return spy if isinstance(spy, int) and not isinstance(spy, bool) and 0 < spy < 1000 else None
