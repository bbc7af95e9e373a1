"""Hypotheses that look observations up instead of explaining them.

Found are literals equal to the input of an observation where a program compares with them: as an operand of == or !=,
in the list behind `in` (or one that was given that name), as a key of a dict, in a `case`. A tuple counts as the list
of its elements, and a string that spells an input out counts as the input. A program that hides what it does is not
found. What every program may ask for in good faith is no look-up: null, booleans, and empty lists, objects and strings.

The released test compares with whole observations, pairs of input and output, and so finds next to nothing.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from toolroll.abduction.parse import UNREADABLE

__all__ = ["Lookup", "lookups"]


class Lookup(NamedTuple):
    """Where a program asks for an observation's input: its line in the code, by what, and which observation."""

    line: int
    by: str
    observation: int


def lookups(code: str, inputs: Sequence[bytes]) -> list[Lookup]:
    r"""The places at which `code` compares with one of `inputs`, JSON texts; each observation once a line.

    Code that is no Python has none.

    >>> code = "def f(x):\n    if x == [1, 2]:\n        return 3\n    return {(5,): 6}[tuple(x)]"
    >>> lookups(code, [b"[1,2]", b"[5]"])
    [Lookup(line=2, by='==', observation=0), Lookup(line=4, by='key', observation=1)]
    """
    known: dict[str, int] = {}
    for number, text in enumerate(inputs):
        known.setdefault(_canonical(json.loads(text)), number)
    for harmless in ("null", "true", "false", "[]", "{}", '""'):
        known.pop(harmless, None)
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(code)
    except UNREADABLE:
        return []
    found = (
        Lookup(node.lineno, by, known[text])
        for by, node in _compared(tree)
        for text in _spellings(node)
        if text in known
    )
    return sorted(set(found))


def _compared(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(by what, expression) of everything that something is compared with."""
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for place, operator in enumerate(node.ops):
                if isinstance(operator, ast.Eq | ast.NotEq):
                    by = "==" if isinstance(operator, ast.Eq) else "!="
                    yield from ((by, operand) for operand in operands[place : place + 2])
                elif isinstance(operator, ast.In | ast.NotIn):  # codespell:ignore notin
                    container = operands[place + 1]
                    container = named.get(container.id, container) if isinstance(container, ast.Name) else container
                    yield from (("in", element) for element in _elements(container))
        elif isinstance(node, ast.Dict):
            yield from (("key", key) for key in node.keys if key is not None)
        elif isinstance(node, ast.MatchValue):
            yield "case", node.value
        elif isinstance(node, ast.MatchSequence):
            values = [pattern.value for pattern in node.patterns if isinstance(pattern, ast.MatchValue)]
            if len(values) == len(node.patterns):
                yield "case", ast.copy_location(ast.List(values, ast.Load()), node)


def _elements(container: ast.expr) -> list[ast.expr]:
    if isinstance(container, ast.List | ast.Tuple | ast.Set):
        return container.elts
    return []


def _spellings(node: ast.expr) -> list[str]:
    """The value of a literal in one spelling, and for a string also that of the literal it spells out."""
    try:
        value = ast.literal_eval(node)
        found = [_canonical(value)]
    except UNREADABLE:
        return []
    if isinstance(value, str):
        try:
            with warnings.catch_warnings(action="ignore"):
                found.append(_canonical(ast.literal_eval(value.strip())))
        except UNREADABLE:
            pass
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
