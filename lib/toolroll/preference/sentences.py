"""Texts in sentences by rule, and sentences in windows of as many tokens as an encoder reads.

A contrastive encoder reads 77 tokens, the beginning and the end among them, and takes its vector from the end. What is
longer is read in windows, each with an end of its own; nothing is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]

_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[”’」』）]*")
_BULLET = re.compile(r"^\s*(?:[-*•–·]|\(?\d{1,3}[.)]|#+)\s+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“])(?:(?-i:[A-Z])|mr|mrs|ms|dr|prof|st|jr|sr|vs|e\.g|i\.e|cf|approx|fig|no|inc|ltd|dept|u\.s|a\.m|p\.m)\.$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"(?<=[;；，、])|(?<=,)(?=\s)|\s(?=and\s)")
_SIGNED = ("a.m.", "p.m.", "u.s.", "no.", "st.")  # may end a sentence, when a capital letter follows


def sentences(text: str, *, min_chars: int = 4) -> list[str]:
    """The sentences of a text, without bullets, in its order.

    A sentence ends at . ! ? … with white space behind, at 。！？, and at the end of a line; not in "3.5", behind an
    abbreviation or an initial, and not where a small letter follows three dots or a closing quote. What has no letter
    is left out; what is shorter than `min_chars` belongs to the sentence before it.

    >>> sentences("Dr. J. Smith holds 3.5 l. There are cats, e.g. two... or more! 有一只猫。红色的。")
    ['Dr. J. Smith holds 3.5 l.', 'There are cats, e.g. two... or more!', '有一只猫。', '红色的。']
    """
    return [sentence for sentence, _ in ended(text, min_chars=min_chars)]


def ended(text: str, *, min_chars: int = 4) -> list[tuple[str, int]]:
    """The sentences of a text, and behind how many of its characters each of them ends.

    >>> ended("- A cat. 3! - A dog.", min_chars=4)
    [('A cat.', 8), ('- A dog.', 20)]
    """
    pieces: list[tuple[str, int]] = []
    start = 0
    for line in text.splitlines(keepends=True):
        bullet = _BULLET.match(line)
        skipped = bullet.end() if bullet else 0
        for piece, end in _of_line(line[skipped:]):
            if not any(letter.isalpha() for letter in piece):
                continue
            at = start + skipped + end
            if len(piece) < min_chars and pieces:
                pieces[-1] = (f"{pieces[-1][0]} {piece}", at)
            else:
                pieces.append((piece, at))
        start += len(line)
    return pieces


def windows(sentence: str, encode: Encode, limit: int) -> list[list[int]]:
    """The token ids of a sentence in windows of at most `limit` > 0.

    A sentence that is too long is taken apart at ; , and "and", into as few parts as fit, and a part that is still too
    long into equal stretches.

    >>> windows("a red cube, a ball", lambda text: [len(word) for word in text.split()], 3)
    [[1, 3, 5], [1, 4]]
    """
    ids = list(encode(sentence))
    if len(ids) <= limit:
        return [ids] if ids else []
    parts: list[tuple[str, int]] = []  # a text, and about how many tokens it has
    for clause in _CLAUSE.split(sentence):
        size = len(encode(clause))
        if parts and parts[-1][1] + size <= limit:
            parts[-1] = (f"{parts[-1][0]}{_gap(parts[-1][0])}{clause}", parts[-1][1] + size)
        elif size:
            parts.append((clause, size))
    found: list[list[int]] = []
    for text, _ in parts:
        ids = list(encode(text))
        count = -(-len(ids) // limit)
        found += [ids[len(ids) * i // count : len(ids) * (i + 1) // count] for i in range(count)]
    return found


def _of_line(line: str) -> list[tuple[str, int]]:
    pieces = []
    line = line.rstrip()
    start = 0
    for end in _END.finditer(line):
        if _goes_on(line, start, end):
            continue
        pieces.append((line[start : end.end()].strip(), end.end()))
        start = end.end()
    return [*pieces, (line[start:].strip(), len(line))]


def _goes_on(line: str, start: int, end: re.Match[str]) -> bool:
    """Whether the sentence goes on behind this mark."""
    rest = line[end.end() :].lstrip()
    mark = end[0]
    if not rest:
        return False
    if mark == ".":
        tail = line[max(start, end.start() - 12) : end.end()]
        found = _ABBREVIATION.search(tail)
        return found is not None and not (tail.lower().endswith(_SIGNED) and rest[0].isupper())
    return rest[0].islower() and (mark.startswith(("..", "…")) or mark[-1] in "\"'”’»")


def _gap(text: str) -> str:
    return "" if text.endswith(("；", "，", "、")) else " "
