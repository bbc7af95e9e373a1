"""Knights and Knaves: puzzles with one solution, as an endless sequence for each number of people.

Candidate c of a sequence is drawn from its own seed. It is left out unless it has exactly one solution and no puzzle
before it says the same; those that remain are numbered 0, 1, 2, ... So a puzzle depends on the seed, the number of
people, depth, width and its number, never on how many are asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Literal

from toolroll.curriculum.knights import (
    CLAIMS,
    Statement,
    assignments,
    consistent,
    everywhere,
    mentioned,
    roles,
    truth_table,
)
from toolroll.errors import UsageError
from toolroll.run.seeds import record_seed

LEAST, MOST = 2, 14  #: people
KINDS = ("claim", "not", "and", "or", "->", "<=>")  #: of a statement, each as likely as the others
PATIENCE = 10_000  #: puzzles in a row that were there before, until a sequence counts as exhausted
ROUNDS = 3  #: of looking at whom people speak about

Draw = Callable[[int], int]
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Wordless:
    """A puzzle without words: its number in its sequence, what each says, who is a knight, and its split."""

    index: int
    statements: tuple[Statement, ...]
    solution: list[bool]
    split: Split


def people(text: str) -> list[int]:
    """Numbers of people out of a list of numbers and ranges, each once, the smallest first.

    >>> people("5,2-3,3")
    [2, 3, 5]
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", part, re.ASCII)
        if match is None:
            raise UsageError(f"not a number or a range like 3-14: {part.strip()!r}", place="--people")
        first, last = int(match[1]), int(match[2] or match[1])
        if not LEAST <= first <= last <= MOST:
            raise UsageError(f"{part.strip()} is not within {LEAST} to {MOST}", place="--people")
        found.update(range(first, last + 1))
    return sorted(found)


def drawer(seed: int) -> Draw:
    """A function that draws whole numbers below its argument, the same on every machine and Python."""
    random = Random(seed).random
    return lambda below: int(random() * below)


def puzzles(n: int, *, seed: int, depth: int, width: int) -> Iterator[Wordless]:
    """The sequence of puzzles with `n` people. Ends where no new ones are found any more.

    >>> next(puzzles(2, seed=0, depth=2, width=2))  # doctest: +NORMALIZE_WHITESPACE
    Wordless(index=0, statements=(('not', ('lying', 1)), ('or', ('telling-truth', 1), ('lying', 0))),
             solution=[True, True], split='train')
    """
    seen: set[bytes] = set()
    repeated = 0
    for candidate in count():
        found = unique_puzzle(drawer(record_seed(seed, "kk", n, candidate)), n, depth, width)
        if found is None:
            continue
        key = fingerprint(found[0])
        if key in seen:
            repeated += 1
            if repeated == PATIENCE:
                return
            continue
        repeated = 0
        yield Wordless(len(seen), *found, split_of(key))
        seen.add(key)


def unique_puzzle(draw: Draw, n: int, depth: int, width: int) -> tuple[tuple[Statement, ...], list[bool]] | None:
    """Statements of `n` people and their only solution; None where what is drawn has none or several."""
    statements: list[Statement] = []
    left = everywhere(n)
    for speaker in range(n):
        statement, table = fitting_statement(draw, speaker, n, depth, width)
        statements.append(statement)
        left &= table
        if not left:
            return None
    if left.bit_count() > 1:
        return None
    return tuple(statements), roles(next(assignments(left)), n)


def fitting_statement(draw: Draw, speaker: int, n: int, depth: int, width: int) -> tuple[Statement, int]:
    """A statement that tells something, and the table of the assignments under which `speaker` may make it.

    Drawn again: what is always or never true ("A is a knight and A is a knave"), and what the speaker may say always
    or never ("I am a knight", "I am a knave").
    """
    constant = (0, everywhere(n))
    while True:
        statement = drawn_statement(draw, n, depth, width)
        table = truth_table(statement, n)
        allowed = consistent(speaker, table, n)
        if table not in constant and allowed not in constant:
            return statement, allowed


def drawn_statement(draw: Draw, n: int, depth: int, width: int) -> Statement:
    """A statement about `n` people, nested at most `depth` deep, whose `and` and `or` have 2 to `width` parts.

    Each kind is as likely as the others; parts of one statement differ, and no `not` stands right under another.
    """
    kind = KINDS[draw(len(KINDS))] if depth > 1 else "claim"
    if kind == "claim":
        return (CLAIMS[draw(2)], draw(n))
    while True:
        size = 1 if kind == "not" else 2 + draw(width - 1) if kind in ("and", "or") else 2
        parts = [drawn_statement(draw, n, depth - 1, width) for _ in range(size)]
        if len(set(parts)) == size and not kind == parts[0][0] == "not":
            return (kind, *parts)


def fingerprint(statements: Sequence[Statement]) -> bytes:
    """What puzzles have in common that differ only by who is called what, who comes first, and the order of parts.

    Each person gets a digest of the shape of their statement, in which others stand by the digests they had in the
    round before, and of the digests of those who speak about them; the fingerprint is one of the sorted digests.
    Puzzles that are the same always agree, others practically never.

    >>> a, b = ("lying", 1), ("and", ("telling-truth", 0), ("lying", 1))
    >>> fingerprint((a, b)) == fingerprint((("and", ("lying", 0), ("telling-truth", 1)), ("lying", 0)))
    True
    """
    speakers: list[list[int]] = [[] for _ in statements]
    for speaker, statement in enumerate(statements):
        for person in set(mentioned(statement)):
            speakers[person].append(speaker)
    marks = [b"."] * len(statements)
    for _ in range(ROUNDS):
        shapes = [_shape(statement, me, marks) for me, statement in enumerate(statements)]
        heard = [b"".join(sorted(marks[speaker] for speaker in those)) for those in speakers]
        marks = [_digest(shape + b"<" + by) for shape, by in zip(shapes, heard, strict=True)]
    return _digest(b"".join(sorted(marks)))


def _shape(statement: Statement, me: int, marks: Sequence[bytes]) -> bytes:
    kind, first, *rest = statement
    if kind in CLAIMS:
        whom: bytes = b"me" if first == me else marks[first]
        return (b"+" if kind == CLAIMS[0] else b"-") + whom
    if kind == "not" and first[0] in CLAIMS:
        return _shape((CLAIMS[first[0] == CLAIMS[0]], first[1]), me, marks)
    parts = [_shape(part, me, marks) for part in (first, *rest)]
    if kind != "->":
        parts.sort()
    return b"(%s %s)" % (str(kind).encode(), b"|".join(parts))


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=12).digest()


def split_of(key: bytes) -> Split:
    """The split of a puzzle with this fingerprint: one in ten is of the test, whatever the seed.

    >>> split_of(bytes([0, 0, 10])), split_of(bytes([0, 1, 0]))
    ('test', 'train')
    """
    return "test" if int.from_bytes(key[:3], "big") % 10 == 0 else "train"
