"""Answers that take forever, take all memory, or try to be run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from toolroll.checking import checker
from toolroll.checking.process import MathProcess

LIMIT_S = 1.0


@pytest.fixture(scope="module")
def check():
    with checker("math", timeout_s=LIMIT_S) as opened:
        yield opened


ENDLESS = [
    "10^{10^{10}}",
    "9999999!",
    "2^{2^{2^{2^{2^{2}}}}}",
    "(" * 2000 + ")" * 2000,
    "(x+y+z)^{300}",
]


@pytest.mark.parametrize("formula", ENDLESS, ids=lambda formula: formula[:12])
def test_a_comparison_that_does_not_end_is_wrong(check, formula):
    verdict = check(rf"\boxed{{{formula}}}", "42")
    assert (verdict.correct, verdict.why) == (0, "the comparison takes more than 1 s")
    assert check(r"\boxed{\sqrt{4}}", "2").correct == 1
    assert check(rf"\boxed{{{formula}}}", formula).correct == 1


@pytest.mark.parametrize(
    "formula",
    [r"\operatorname{zeros}(100000,100000)", "1" * 4999, r"\frac{1}{" * 150 + "x" + "}" * 150, "x" * 1_000_000],
)
def test_what_is_too_large_is_wrong(check, formula):
    assert check(rf"\boxed{{{formula}}}", "42").correct == 0
    assert check(r"\boxed{\sqrt{4}}", "2").correct == 1


def test_a_right_answer_that_takes_forever_to_read_gives_no_verdict(check):
    verdict = check(r"\boxed{42}", "(" * 2000 + ")" * 2000)
    assert (verdict.correct, verdict.why) == (None, "the right answer takes more than 1 s to read")


CODE = [
    "__import__('os').system('touch {}')",
    "eval(compile('open(\"{}\",\"w\")','','exec'))",
    "().__class__.__base__.__subclasses__()",
    r"\text{{__import__('os').system('touch {}')}}",
    r"\mathrm{{open('{}','w')}}",
    r"\operatorname{{exec}}(open('{}','w'))",
    r"f_{{__import__('os').system('touch {}')}}(x)",
    r"\int_0^1 __import__('os').system('touch {}') dx",
    r"\variable{{__import__('os').system('touch {}')}}",
    r"\sum_{{open('{}','w')=1}}^{{10}} x",
]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("around", [r"\boxed{%s}", "The answer is %s", "$%s$", "%s"])
def test_no_text_is_run(check, code, around, tmp_path):
    target = tmp_path / "x"
    hostile = code.format(target)
    check(around % hostile, "42")
    check(r"\boxed{42}", hostile)
    check(around % hostile, rf"{hostile} + 1")
    assert not target.exists()


@pytest.mark.parametrize(
    "attempt",
    [
        "os.system('touch {}')",
        "subprocess.run(['touch', '{}'])",
        "os.open('{}', os.O_CREAT | os.O_WRONLY)",
        "open('{}', 'w')",
        "os.execv('/bin/touch', ['touch', '{}'])",
        "os.mkdir('{}')",
        "os.fork()",
        "socket.create_connection(('127.0.0.1', 9))",
    ],
)
def test_the_process_refuses_all_but_computing(attempt, tmp_path):
    target = tmp_path / "x"
    code = (
        "import os, socket, subprocess, sys\n"
        "from toolroll.checking.worker import refuse\n"
        f"open({str(__file__)!r}).close(); sys.addaudithook(refuse); open({str(__file__)!r}).close()\n"
        f"try: {attempt.format(target)}\n"
        "except PermissionError as error: print('refused', error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.startswith("refused"), result
    assert not target.exists()


def test_a_process_that_was_killed_is_started_again():
    with checker("math") as check:
        assert check(r"\boxed{\sqrt{4}}", "2").correct == 1
        for _ in range(2):
            os.kill(check._rule._process._process.pid, signal.SIGKILL)
            assert check(r"\boxed{\sqrt{9}}", "3").correct == 1


def test_threads_share_a_checker():
    with checker("math") as check:
        found = []

        def work(number):
            answer = rf"\boxed{{\sqrt{{{number**2}}}}}"
            found.extend(check(answer, str(other)).correct == (number == other) for other in range(10))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 40


def test_our_signals_stay_as_they_are():
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with checker("math", timeout_s=0.5) as check:
        check(r"\boxed{10^{10^{10}}}", "42")
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (handler, timer)


def test_an_interruption_leaves_no_answer_for_the_next_question(monkeypatch):
    process = MathProcess(5.0)
    asked = process._reply
    assert process.ask("1", r"\sqrt{1}") == "equal"

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "_reply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.ask("1", r"\sqrt{1}")
    monkeypatch.setattr(process, "_reply", asked)
    assert process.ask("1", r"\sqrt{4}") == "unequal"
    process.close()


LONG = [
    r"\boxed{",
    "{",
    "$",
    r"\(",
    "answer ",
    "answer a ",
    "answer is ",
    "option ",
    "(A) ",
    "A.\n",
    "1,",
    "1",
    "1/",
    r"\frac{",
    "<answer>",
    "<think>",
    " ",
    "a'",
]


@pytest.mark.parametrize("piece", LONG)
@pytest.mark.parametrize("kind", ["math", "number", "choice", "exact", "contains"])
def test_a_megabyte_of_anything_is_read_in_linear_time(kind, piece):
    text = piece * (1_000_000 // len(piece))
    with checker(kind) as check:
        started = time.process_time()
        check(text, "A")
        assert time.process_time() - started < 10
