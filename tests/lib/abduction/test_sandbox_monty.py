"""Programs in pydantic-monty: the same outcomes for what it knows of Python."""

import json
import sys

import pytest

from toolroll.abduction.execution import Limits
from toolroll.abduction.sandbox import open_sandbox
from toolroll.errors import ToolrollError

LIMITS = Limits(timeout_s=0.15, total_s=30, memory_mb=128, output_bytes=2000, max_timeouts=2)


def run(sandbox, code, *values):
    return sandbox.run(code, [json.dumps(value).encode() for value in values])


@pytest.fixture(scope="module")
def monty():
    pytest.importorskip("pydantic_monty")
    made = open_sandbox("monty", LIMITS, notify=print)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(x): return x", "ok"),
        ("f = lambda x: x", "ok"),
        ("import math\nclass A: pass\ndef f(x): return x", "ok"),
        ("def f(x) return x", "syntax_error"),
        ("x = 1", "no_function"),
        ("text = '''\ndef f(x): pass\n'''", "no_function"),
        ("def f(x): return x\ndef g(x): return x", "many_functions"),
        ("1 / 0", "failed"),
        ("import numpy", "failed"),
        ("while True: pass", "timeout"),
    ],
)
def test_monty_status(monty, code, status):
    outcome = run(monty, code, 1, 2)
    assert outcome.status == status
    assert outcome.outputs == ([b"1", b"2"] if status == "ok" else [None, None])


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ("(1, [2.0, True, None])", b"[1,[2.0,true,null]]"),
        ("[float('nan'), {'b': 1, 'a': 2}]", b'[NaN,{"b":1,"a":2}]'),
        ("1 / 0", "error"),
        ("f(x)", "error"),
        ("{1, 2}", "not_json"),
        ("'x' * 3000", "too_large"),
        ("[0] * 10 ** 10", "memory"),
        ("sum(range(10 ** 11))", "timeout"),
        ("open('/etc/passwd').read()", "error"),
    ],
)
def test_monty_outputs(monty, result, wanted):
    outcome = run(monty, f"def f(x): return {result}", 0)
    assert (outcome.outputs[0] or outcome.faults[0]) == wanted


def test_monty_goes_on_after_a_call_that_does_not_end(monty):
    code = "def f(x):\n    while x == 402: pass\n    return x"
    outcome = run(monty, code, *range(600))
    assert (outcome.status, outcome.faults) == ("ok", {402: "timeout"})
    assert outcome.outputs[401:404] == [b"401", None, b"403"]
    outcome = run(monty, "def f(x):\n    while x > 400: pass\n    return x", *range(600))
    assert (outcome.status, outcome.faults[401], outcome.faults[402]) == ("timeout", "timeout", "timeout")
    assert outcome.faults[403] == "skipped"


def test_monty_answers_are_checked(monty):
    code = "import json\njson.dumps = 1\ndef f(x):\n    print('x' * 100_000)\n    return x"
    assert run(monty, code, 1).status in ("ok", "failed")
    forged = "_answers = 1\ndef f(x): return x"
    assert run(monty, forged, 1).outputs == [None]


def test_monty_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    with pytest.raises(ToolrollError, match=r"pip install 'toolroll\[monty\]'"):
        open_sandbox("monty", LIMITS, notify=print)
