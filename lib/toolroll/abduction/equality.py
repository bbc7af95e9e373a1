"""When an output agrees with an observation: equal as JSON values, or, as the released code has it, as Python values.

The two differ for booleans, tuples, and objects of classes with an equality of their own. JSON knows true and 1 apart
and has lists only; Python has True == 1 == 1.0 and (1,) != [1]. An executor hands out JSON, so Python's equality has
to be asked for where the values are: `python_check` makes a program of a program that gives verdicts.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["CHECKS", "UNDEFINED_TEXT", "json_equal", "pair_input", "python_check"]

UNDEFINED_TEXT = b'"N/A: cur input is not defined on this function"'  #: an output the released code takes for none

#: (code, input, output, whether they agree): what an executor that can compare Python values answers.
CHECKS = (
    ("def f(x):\n    return (x, True)", b"1", b"[1,1]", False),
    ("def f(x):\n    return [x, True]", b"1.0", b"[1,1]", True),
)

_PROGRAM = """
def agrees(pair, _made=[]):
    if not _made:
        names = {{"__name__": __name__}}
        exec(compile({code}, "<hypothesis>", "exec"), names)
        _made.extend(value for value in names.values() if type(value) is type(agrees))
    return bool(_made[0](pair[0]) == pair[1])
"""


def json_equal(output: bytes | None, wanted: bytes) -> bool:
    """Whether two JSON texts are the same value: numbers by what they are worth, objects whatever their order.

    None, the output of a function that has none, agrees with nothing.

    >>> json_equal(b"[1.0]", b"[1]"), json_equal(b"true", b"1"), json_equal(b'{"a":1,"b":2}', b'{"b":2,"a":1}')
    (True, False, True)
    """
    if output == wanted:
        return True
    if output is None:
        return False
    try:
        return _same(json.loads(output), json.loads(wanted))
    except (ValueError, RecursionError):
        return False


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def python_check(code: str) -> str:
    """A program whose one function takes [input, output] and says whether the one function of `code` agrees, by `==`.

    `code` must be one that an executor has run: its own errors are not told apart here.

    >>> names = {}
    >>> exec(python_check("def f(x): return (x,)"), names)
    >>> names["agrees"]([1, [1]])
    False
    """
    return _PROGRAM.format(code=repr(code))


def pair_input(given: bytes, wanted: bytes) -> bytes:
    """The input of `python_check` for an observation."""
    return b"[" + given + b"," + wanted + b"]"
