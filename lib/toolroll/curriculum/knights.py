"""Knights and Knaves: what people say, when it is true, and who they can be.

n people are numbered from 0. What a knight says is true, what a knave says is false. Statements are nested tuples:

    S = ('telling-truth', i)            person i is a knight
      | ('lying', i)                    person i is a knave
      | ('not', S)
      | ('and', S, S, ...) | ('or', S, S, ...)        two or more; `or` is inclusive
      | ('->', S, S)                    false only where the first is true and the second false
      | ('<=>', S, S)                   both true or both false

An *assignment* is a number a, 0 <= a < 2^n, whose bit i is 1 where person i is a knight. A *table* is an integer of 2^n
bits, whose bit a is 1 where something holds under the assignment a. Python's integers work on all 2^n assignments at
once, so that the 16,384 of 14 people are some 2 KB and one statement is a handful of operations on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

from toolroll.errors import RowError

Statement: TypeAlias = tuple[Any, ...]

MAX_PEOPLE = 20  #: a table of 2^20 bits is 128 KB
MAX_DEPTH = 16  #: of a statement that is read; a bare claim has depth 1
MAX_CHARS = 50_000  #: of the text of all statements of a puzzle
CLAIMS = ("telling-truth", "lying")
ARITY = {"not": (1, 1), "and": (2, 64), "or": (2, 64), "->": (2, 2), "<=>": (2, 2)}  #: fewest and most parts

_TOKENS = re.compile(r"""(?:[(), \t\r\n]|['"](?:telling-truth|lying|not|and|or|->|<=>)['"]|[0-9]{1,2})*+""")


def parse_statements(text: str, n: int) -> tuple[Statement, ...]:
    """The statements of `n` people, one each, out of the text of a Python literal.

    Nothing but the tokens of the grammar is read, and nothing is evaluated. RowError, in one line, for anything else.

    >>> parse_statements("(('lying', 1), ('not', ('telling-truth', 0)))", 2)
    (('lying', 1), ('not', ('telling-truth', 0)))
    """
    import ast

    if not 1 <= n <= MAX_PEOPLE:
        raise RowError(f"{n} people; 1 to {MAX_PEOPLE} can be solved")
    if len(text) > MAX_CHARS:
        raise RowError(f"the statements have more than {MAX_CHARS} characters")
    if not (known := _TOKENS.match(text)) or known.end() < len(text):
        at = known.end() if known else 0
        raise RowError(f"no word of the grammar at character {at} of the statements: {text[at : at + 12]!r}")
    if _nesting(text) > MAX_DEPTH + 1:
        raise RowError(f"the statements are nested more than {MAX_DEPTH} deep")
    try:
        said = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise RowError("the statements are no tuple of tuples") from error
    if not isinstance(said, tuple) or len(said) != n:
        raise RowError(f"the statements are not a tuple of {n}, one for each person")
    for speaker, statement in enumerate(said):
        if why := _fault(statement, n):
            raise RowError(f"statement {speaker + 1}: {why}")
    return said


def _nesting(text: str) -> int:
    """How deep the brackets of a text go."""
    depth = deepest = 0
    for character in text:
        if character == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif character == ")":
            depth -= 1
    return deepest


def _fault(statement: Any, n: int) -> str:
    """What makes something no statement about `n` people; "" where it is one."""
    if not isinstance(statement, tuple) or not statement or not isinstance(statement[0], str):
        return f"no tuple that begins with what it is: {str(statement)[:40]}"
    kind, *parts = statement
    if kind in CLAIMS:
        if len(parts) == 1 and type(parts[0]) is int and parts[0] < n:
            return ""
        return f"{kind!r} is about one person, 0 to {n - 1}: {str(statement)[:40]}"
    if kind not in ARITY:
        return f"unknown kind {kind[:20]!r}"
    least, most = ARITY[kind]
    if not least <= len(parts) <= most:
        return f"{kind!r} has {len(parts)} parts"
    return next(filter(None, (_fault(part, n) for part in parts)), "")


def mentioned(statement: Statement) -> Iterator[int]:
    """The people a statement is about, as often as it names them.

    >>> list(mentioned(("or", ("lying", 1), ("not", ("telling-truth", 0)))))
    [1, 0]
    """
    kind, *parts = statement
    if kind in CLAIMS:
        yield parts[0]
    else:
        for part in parts:
            yield from mentioned(part)


@cache
def knight_tables(n: int) -> tuple[int, ...]:
    """For each of `n` people, the table of "is a knight".

    >>> [f"{table:04b}" for table in knight_tables(2)]
    ['1010', '1100']
    """
    tables = []
    for i in range(n):
        half = 1 << i
        table, width = ((1 << half) - 1) << half, 2 * half
        while width < 1 << n:
            table |= table << width
            width *= 2
        tables.append(table)
    return tuple(tables)


def everywhere(n: int) -> int:
    """The table of what always holds: 2^n ones."""
    return (1 << (1 << n)) - 1


def truth_table(statement: Statement, n: int) -> int:
    """The table of a statement about `n` people.

    >>> f"{truth_table(('->', ('telling-truth', 0), ('lying', 1)), 2):04b}"
    '0111'
    """
    kind, first, *rest = statement
    if kind == "telling-truth":
        return knight_tables(n)[first]
    always = everywhere(n)
    if kind == "lying":
        return always ^ knight_tables(n)[first]
    table = truth_table(first, n)
    if kind == "not":
        return always ^ table
    for part in rest:
        other = truth_table(part, n)
        if kind == "and":
            table &= other
        elif kind == "or":
            table |= other
        elif kind == "->":
            table = (always ^ table) | other
        else:
            table = always ^ table ^ other
    return table


def consistent(speaker: int, table: int, n: int) -> int:
    """The table of "`speaker` may say this": a knight says what is true, a knave what is false."""
    return everywhere(n) ^ knight_tables(n)[speaker] ^ table


def solution_table(statements: Sequence[Statement]) -> int:
    """The table of the assignments under which each of n people may say what they say; n = len(statements).

    >>> solution_table((("lying", 1), ("and", ("telling-truth", 0), ("lying", 0)))).bit_count()
    1
    """
    n = len(statements)
    left = everywhere(n)
    for speaker, statement in enumerate(statements):
        left &= consistent(speaker, truth_table(statement, n), n)
    return left


def assignments(table: int) -> Iterator[int]:
    """The numbers of the ones of a table, the smallest first.

    >>> list(assignments(0b10110))
    [1, 2, 4]
    """
    ones = bin(table)[:1:-1]
    at = ones.find("1")
    while at >= 0:
        yield at
        at = ones.find("1", at + 1)


def roles(assignment: int, n: int) -> list[bool]:
    """For each of `n` people: true = knight.

    >>> roles(0b110, 3)
    [False, True, True]
    """
    return [bool(assignment >> i & 1) for i in range(n)]


def solutions(statements: Sequence[Statement]) -> Iterator[list[bool]]:
    """All solutions of a puzzle, in the order of their assignments.

    >>> list(solutions((("lying", 1), ("and", ("telling-truth", 0), ("lying", 0)))))
    [[True, False]]
    """
    for assignment in assignments(solution_table(statements)):
        yield roles(assignment, len(statements))


def unsound(table: int, names: Sequence[str], solution: Sequence[bool]) -> str:
    """What is wrong with the stored solution of a puzzle whose solutions are `table`; "" where it is the only one.

    >>> unsound(0b0110, ["Ada", "Omar"], [True, False])
    'has 2 solutions'
    >>> unsound(0b1000, ["Ada", "Omar"], [True, False])
    'the solution is not the stored one: Omar is a knight'
    """
    number = table.bit_count()
    if number != 1:
        return f"has {number or 'no'} solution{'s' if number else ''}"
    found = roles(next(assignments(table)), len(names))
    wrong = next((i for i, (a, b) in enumerate(zip(found, solution, strict=True)) if a != b), None)
    if wrong is None:
        return ""
    return f"the solution is not the stored one: {names[wrong]} is a {'knight' if found[wrong] else 'knave'}"
