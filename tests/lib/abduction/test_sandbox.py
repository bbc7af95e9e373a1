"""What running a program means: the same in every sandbox that is here."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from toolroll.abduction.execution import Limits
from toolroll.abduction.sandbox import KINDS, bwrap, launch, open_sandbox, seccomp
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.abduction.sandbox.wire import MAX_DEPTH
from toolroll.errors import ToolrollError

LIMITS = Limits(timeout_s=0.15, total_s=30, memory_mb=128, output_bytes=2000, max_timeouts=2)


def opened(kind, limits=LIMITS):
    """A sandbox of this kind, or a skip that says why there is none."""
    try:
        return open_sandbox(kind, limits, notify=lambda _: None)
    except ToolrollError as error:
        pytest.skip(error.why)


@pytest.fixture(scope="module", params=["seccomp", "bwrap"])
def sandbox(request):
    made = opened(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def one():
    """Some sandbox, for what does not depend on the kind."""
    made = opened("auto")
    yield made
    made.close()


def texts(*values):
    return [json.dumps(value).encode() for value in values]


def run(sandbox, code, *values):
    return sandbox.run(code, texts(*values))


# What a program is


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(x): return x", "ok"),
        ("f = lambda x: x", "ok"),
        ("import math\nfrom functools import reduce\nclass A: pass\ndef f(x): return x", "ok"),
        ("def f(x) return x", "syntax_error"),
        ("def f(x):\n\treturn x\n        return x", "syntax_error"),
        ("\0", "syntax_error"),
        ("'\ud800'\ndef f(x): return x", "syntax_error"),
        ("(" * 500, "syntax_error"),
        ("x = 1", "no_function"),
        ("", "no_function"),
        ("class A:\n    def f(self): return 1", "no_function"),
        ("def f(x): return x\ndef g(x): return x", "many_functions"),
        ("from copy import deepcopy\ndef f(x): return deepcopy(x)", "many_functions"),
        ("def f(x): return x\ng = f", "many_functions"),
        ("def f(x): return x\ndel f", "no_function"),
        ("1 / 0", "failed"),
        ("import numpy\ndef f(x): return x", "failed"),
        ("raise SystemExit(0)", "failed"),
        ("def f(x): return x\nwhile True: pass", "timeout"),
        ("import os\nos._exit(0)", "killed"),
    ],
)
def test_status(sandbox, code, status):
    outcome = run(sandbox, code, 1, 2)
    assert outcome.status == status
    assert (outcome.why == "") == (status == "ok")
    assert outcome.outputs == ([b"1", b"2"] if status == "ok" else [None, None])
    assert outcome.faults == ({} if status == "ok" else {0: "skipped", 1: "skipped"})


def test_why_is_one_line_without_control_characters(one):
    outcome = run(one, "raise ValueError('two\\nlines \\x1b[31m and a tail' + 'x' * 10_000)", 1)
    assert outcome.why.startswith("ValueError: two lines  [31m and a tail")
    assert outcome.why.isprintable()
    assert len(outcome.why) <= 200


def test_why_of_a_refused_import(one):
    assert run(one, "import numpy", 1).why == "ModuleNotFoundError: No module named 'numpy'"


def test_the_code_is_not_rewritten(sandbox):
    """The released code turns this into [[0] * 2] * 2, whose rows are one list."""
    code = """
def f(x):
    grid = [[0] * 2 for _ in range(2)]
    grid[0][0] = x
    x += 70_000 * 70_000
    return grid, x
"""
    assert run(sandbox, code, 1).outputs == [b"[[[1,0],[0,0]],4900000001]"]


def test_names_and_modules_work_as_in_a_module(one):
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass as _d\nimport sys\n"
        "@_d\nclass P:\n    a: int = 1\n"
        "del _d\ndef f(x):\n    return [__name__, P(x).a, sys.modules[__name__].f is f]"
    )
    assert run(one, code, 5).outputs == [b'["hypothesis",5,true]']


# What an output is


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ("(1, [2.0, True, None])", b"[1,[2.0,true,null]]"),
        ("None", b"null"),
        ("{'b': 1, 'a': 2}", b'{"b":1,"a":2}'),
        ("{1: 'x', None: 2, True: 3, 2.5: 4}", b'{"1":3,"null":2,"2.5":4}'),
        ("'é\\n\\ud800'", b'"\\u00e9\\n\\ud800"'),
        ("[float('nan'), float('inf'), -float('inf'), 'NaN']", b'[NaN,Infinity,-Infinity,"NaN"]'),
        ("10 ** 100", b"1" + b"0" * 100),
        ("__import__('collections').OrderedDict(z=1, a=2)", b'{"z":1,"a":2}'),
        ("type('L', (list,), {'__iter__': lambda s: iter([9, 8])})([1])", b"[9,8]"),
        ("type('I', (int,), {'__repr__': lambda s: 'x', '__str__': lambda s: 'x'})(7)", b"7"),
        ("type('F', (float,), {'__repr__': lambda s: ']'})(7)", b"7.0"),
        ("__import__('enum').IntEnum('E', 'A B').B", b"2"),
    ],
)
def test_outputs(sandbox, result, output):
    outcome = run(sandbox, f"def f(x): return {result}", 0)
    assert (outcome.status, outcome.outputs, outcome.faults) == ("ok", [output], {})


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ("1 / 0", "error"),
        ("__import__('sys').exit()", "error"),
        ("f(x)", "error"),
        ("[].append(", "skipped"),
        ("{1, 2}", "not_json"),
        ("1j", "not_json"),
        ("b'x'", "not_json"),
        ("{(1, 2): 3}", "not_json"),
        ("f", "not_json"),
        ("(y for y in [1])", "not_json"),
        ("object()", "not_json"),
        ("'x' * 1998", None),
        ("'x' * 1999", "too_large"),
        ("10 ** 5000", "too_large"),
        ("[0] * 10 ** 10", "memory"),
        ("__import__('os')._exit(0)", "killed"),
    ],
)
def test_faults(sandbox, result, fault):
    outcome = run(sandbox, f"def f(x): return {result}", 0)
    assert outcome.faults.get(0) == fault
    assert (outcome.outputs[0] is None) == (fault is not None)


def test_async_functions_have_no_output(one):
    assert run(one, "async def f(x): return 1", 0).faults == {0: "not_json"}


@pytest.mark.parametrize(
    ("levels", "fault"), [(MAX_DEPTH, {}), (MAX_DEPTH + 1, {0: "not_json"}), (5000, {0: "not_json"})]
)
def test_depth(one, levels, fault):
    code = "def f(n):\n    out = []\n    for _ in range(n - 1): out = [out]\n    return out"
    limits = Limits(output_bytes=100_000)
    with opened("seccomp", limits) as sandbox:
        assert run(sandbox, code, levels).faults == fault


def test_results_that_contain_themselves(one):
    assert run(one, "def f(x):\n    x.append(x)\n    return x", []).faults == {0: "not_json"}
    assert run(one, "def f(x):\n    x['a'] = {'b': x}\n    return x", {}).faults == {0: "not_json"}


# Inputs


def test_each_call_gets_its_own_value(sandbox):
    code = "def f(x):\n    x.append(9)\n    x[0].clear()\n    return x"
    assert run(sandbox, code, [[1]], [[1]], [[1]]).outputs == [b"[[],9]"] * 3


def test_globals_last_from_call_to_call_and_no_longer(sandbox):
    code = "seen = []\ndef f(x):\n    seen.append(x)\n    return seen"
    for _ in range(2):
        assert run(sandbox, code, 1, 2).outputs == [b"[1]", b"[1,2]"]


def test_inputs_of_any_form(one):
    inputs = [
        b' {"a" :\r\n[1,\n2]} ',
        "é".encode().join([b'"', b'"']),
        b"NaN",
        b"-0.0",
        b"1e400",
        b"1" + b"0" * 30,
        b'"\\n"',
    ]
    outcome = one.run("def f(x): return x", inputs)
    wanted = [b'{"a":[1,2]}', b'"\\u00e9"', b"NaN", b"-0.0", b"Infinity", b"1" + b"0" * 30, b'"\\n"']
    assert outcome.outputs == wanted


def test_no_inputs(one):
    outcome = one.run("def f(x): return x", [])
    assert (outcome.status, outcome.outputs, outcome.faults) == ("ok", [], {})
    assert one.run("def f(x) return x", []).status == "syntax_error"


@pytest.mark.parametrize("text", [b"", b"[1", b"\xff", b"[1] 2", b"[" * 100_000, "[1]".encode("utf-16")])
def test_inputs_that_are_not_json_are_the_callers_error(one, text):
    with pytest.raises(ToolrollError, match="input 1: not JSON"):
        one.run("def f(x): return x", [b"1", text])


def test_joined_inputs_are_one_sequence(one):
    space = Inputs(texts(*range(5)))
    both = Inputs(texts(8, 9)) + space + Inputs() + Inputs(texts(7))
    assert list(both) == texts(8, 9, 0, 1, 2, 3, 4, 7)
    assert both[1:3] == (b"9", b"0")
    assert one.run("def f(x): return -x", both).outputs == [b"-8", b"-9", b"0", b"-1", b"-2", b"-3", b"-4", b"-7"]
    many = sum((Inputs(texts(i)) for i in range(300)), Inputs())
    assert one.run("def f(x): return x", many).outputs == list(many)


def test_input_files_cannot_be_written():
    part = Inputs(texts(1, 2)).parts[0]
    assert os.pread(part.fd, 100, 0) == b"1\n2"
    with pytest.raises(OSError, match=r"not permitted|Bad file"):
        os.pwrite(part.fd, b"9", 0)
    fd = part.fd
    del part
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# Time, and going on after a call that was cut short

LOOPS = {
    "a loop": "while True: pass",
    "a loop in C": "sum(range(10 ** 12))",
    "a loop that swallows": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "waiting": "__import__('time').sleep(1000)",
    "a regular expression": "__import__('re').match('(a+)+b', 'a' * 60)",
    "a power": "x = 10 ** 10 ** 8",
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_call_that_does_not_end_has_no_output_and_the_next_ones_do(one, name):
    outlasts(one, LOOPS[name])


@pytest.mark.parametrize("name", ["a loop", "a loop in C"])
def test_a_call_that_does_not_end_in_every_kind(sandbox, name):
    outlasts(sandbox, LOOPS[name])


def outlasts(sandbox, loop):
    body = "\n".join("        " + line for line in loop.splitlines())
    started = time.monotonic()
    outcome = run(sandbox, f"def f(x):\n    if x == 2:\n{body}\n    return x", 0, 1, 2, 3, 4)
    assert time.monotonic() - started < 12
    assert (outcome.status, outcome.faults) == ("ok", {2: "timeout"})
    assert outcome.outputs == [b"0", b"1", None, b"3", b"4"]


def test_the_program_is_given_up_after_some_such_calls(sandbox):
    outcome = run(sandbox, "def f(x):\n    while x % 2: pass\n    return x", 0, 1, 2, 3, 4, 5)
    assert (outcome.status, outcome.why) == ("timeout", "2 calls were cut short")
    assert outcome.outputs == [b"0", None, b"2", None, None, None]
    assert outcome.faults == {1: "timeout", 3: "timeout", 4: "skipped", 5: "skipped"}


def test_a_program_that_ends_its_process_goes_on_with_the_next_input(sandbox):
    outcome = run(sandbox, "import os\ndef f(x):\n    if x == 1: os._exit(3)\n    return x", 0, 1, 2)
    assert (outcome.status, outcome.outputs, outcome.faults) == ("ok", [b"0", None, b"2"], {1: "killed"})
    outcome = run(sandbox, "import os\ndef f(x):\n    os._exit(3)", 0, 1, 2)
    assert (outcome.status, outcome.faults) == ("killed", {0: "killed", 1: "killed", 2: "skipped"})


def test_errors_and_running_out_of_memory_do_not_count_as_cut_short(sandbox):
    outcome = run(sandbox, "def f(x):\n    return [0] * 10 ** x", 10, 10, 10, 10, 0)
    assert (outcome.status, outcome.outputs[-1]) == ("ok", b"[0]")
    assert outcome.faults == dict.fromkeys(range(4), "memory")


@pytest.mark.parametrize("pause", [0.2, 0.002])
def test_time_in_all_is_limited(pause):
    with opened("seccomp", Limits(timeout_s=5, total_s=0.5)) as sandbox:
        outcome = run(sandbox, f"import time\ndef f(x):\n    time.sleep({pause})\n    return x", *range(2000))
    assert (outcome.status, outcome.why) == ("timeout", "0.5 s for all inputs were not enough")
    assert outcome.outputs[0] == b"0"
    assert list(outcome.faults.values())[:2] == ["timeout", "skipped"]


def test_outputs_in_all_are_limited():
    with opened("seccomp", Limits(total_bytes=1000)) as sandbox:
        outcome = run(sandbox, "def f(x): return 'x' * 100", *range(50))
    assert (outcome.status, outcome.why) == ("killed", "more than 1000 bytes of outputs")
    assert sum(output is not None for output in outcome.outputs) == 10
    assert outcome.faults[11] == "skipped"


def test_a_definition_that_differs_the_second_time_ends_it():
    code = """
import os, time
if time.time() > {at}: 1 / 0
def f(x):
    if x:
        time.sleep(max({at} - time.time(), 0) + 0.01)
        os._exit(1)
    return x
"""
    with opened("seccomp", Limits(timeout_s=5)) as sandbox:
        outcome = run(sandbox, code.format(at=time.time() + 1), 0, 1, 2)
    assert (outcome.status, outcome.outputs) == ("failed", [b"0", None, None])
    assert outcome.faults == {1: "killed", 2: "skipped"}


# The same everywhere


def test_two_sandboxes_and_all_kinds_agree():
    code = (
        "import random\ndef f(x):\n    import hashlib\n"
        "    return [list({'a', 'b', 'c', 'd', 'e', *x}), hash('x') % 97, random.random(), random.sample(range(9), 3)]"
    )
    said = []
    for kind in ["seccomp", "seccomp", "bwrap", "none"]:
        try:
            made = open_sandbox(kind, LIMITS, notify=lambda _: None)
        except ToolrollError:
            continue
        with made:
            said += [run(made, code, ["z", "y"]).outputs for _ in range(2)]
    assert len(said) >= 2
    assert all(outputs == said[0] and outputs[0] for outputs in said)


def test_the_usual_modules_work_behind_the_filter(one):
    code = """
import collections, itertools, functools, operator, re, copy, heapq, bisect, statistics, string, fractions, decimal
import datetime, typing, dataclasses, enum, math, random, textwrap, unicodedata, json, time, array, hashlib, calendar
def f(x):
    print("words")
    return [
        collections.Counter(x).most_common(1), statistics.median(x), statistics.mode(x), str(fractions.Fraction(1, 3)),
        str(decimal.Decimal(1) / 3), copy.deepcopy({"a": x}), re.sub("(?i)A", "b", "aA"), heapq.nlargest(2, x),
        str(datetime.datetime.strptime("2020-02-29", "%Y-%m-%d")), unicodedata.name("é"), "é".encode("cp1252")[0],
        string.Template("$a").substitute(a=1), textwrap.shorten("a b c", 3, placeholder=""), sorted(x, key=abs),
        "\\N{BULLET}", f"{3.14159:.2f}", list(itertools.pairwise(x)), json.loads("[1]"), calendar.isleap(2000),
        isinstance(time.time(), float), hashlib.sha256(b"x").hexdigest()[:4], random.Random(1).randint(1, 9),
        datetime.datetime.fromtimestamp(0).year, type(datetime.datetime.now()).__name__, len("x".center(5)),
    ]
"""
    outcome = run(one, code, [3, 1, 3])
    assert (outcome.status, outcome.faults) == ("ok", {})
    assert json.loads(outcome.outputs[0])[:5] == [[[3, 2]], 3, 3, "1/3", "0.3333333333333333333333333333"]


# The zygote and its parent


def descendants(of):
    """The processes in the session of this one."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == of and fields[0] != "Z":
            found.add(int(entry.name))
    return found


def gone(session):
    """Whether all processes of a session are gone, or soon will be."""
    until = time.monotonic() + 10
    while descendants(session) and time.monotonic() < until:
        time.sleep(0.02)
    return not descendants(session)


@pytest.mark.parametrize("kind", ["seccomp", "bwrap"])
def test_a_zygote_that_dies_is_started_again(kind):
    with opened(kind) as sandbox:
        first = sandbox._zygote.pid
        os.killpg(first, signal.SIGKILL)
        assert run(sandbox, "def f(x): return x", 1).outputs == [b"1"]
        assert sandbox._zygote.pid != first
        threading.Timer(0.2, os.killpg, [sandbox._zygote.pid, signal.SIGKILL]).start()
        slow = "import time\ndef f(x):\n    time.sleep(0.2)\n    return x"
        assert run(sandbox, slow, 1, 2, 3).outputs == [b"1", b"2", b"3"]
        last = sandbox._zygote.pid
    assert gone(last)


def test_it_ends_when_its_parent_is_killed():
    script = """
from toolroll.abduction.execution import Limits
from toolroll.abduction.sandbox import open_sandbox
sandbox = open_sandbox("auto", Limits(timeout_s=100, total_s=200), notify=lambda _: None)
print(sandbox._zygote.pid, flush=True)
sandbox.run("def f(x): return sum(range(10 ** 12))", [b"1"])
"""
    opened("auto").close()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        zygote = int(parent.stdout.readline())
        time.sleep(0.3)
        assert descendants(zygote)
        parent.kill()
    assert gone(zygote)


def test_signals_to_its_group_do_not_end_it():
    """Schedulers send these to every process of a job; the parent decides when to end."""
    with opened("seccomp") as sandbox:
        first = sandbox._zygote.pid
        slow = "import time\ndef f(x):\n    time.sleep(0.1)\n    return x"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            threading.Timer(0.1, os.killpg, [first, number]).start()
            assert run(sandbox, slow, 1, 2).outputs == [b"1", b"2"]
        assert sandbox._zygote.pid == first


def test_closing_ends_a_run_in_another_thread():
    sandbox = opened("seccomp", Limits(timeout_s=30))
    failures = []

    def loop():
        try:
            run(sandbox, "def f(x):\n    while True: pass", 1)
        except ToolrollError as error:
            failures.append(error.why)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    sandbox.close()
    thread.join()
    assert time.monotonic() - started < 5
    assert failures == ["the sandbox has been closed"]
    with pytest.raises(ToolrollError, match="closed"):
        run(sandbox, "def f(x): return x", 1)


def test_an_exception_in_the_parent_leaves_nothing_running():
    sandbox = opened("seccomp", Limits(timeout_s=30))
    zygote = sandbox._zygote.pid

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(sandbox, "def f(x):\n    while True: pass", 1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone(zygote)
    assert run(sandbox, "def f(x): return x", 1).outputs == [b"1"]
    sandbox.close()


def test_no_descriptors_are_left_open(one):
    run(one, "def f(x): return x", 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for code in ["def f(x): return x", "x", "import os\ndef f(x): os._exit(1)"]:
        run(one, code, 1, 2, 3)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Which sandbox


def test_auto_says_what_it_is_and_is_never_less_than_the_filter(monkeypatch):
    said = []
    monkeypatch.setattr(bwrap, "missing", lambda: "bwrap is on holiday")
    try:
        open_sandbox("auto", LIMITS, notify=said.append).close()
    except ToolrollError as error:
        pytest.skip(error.why)
    assert said == ["sandbox: seccomp, without bubblewrap (bwrap is on holiday)"]
    with pytest.raises(ToolrollError, match="on holiday; --sandbox none runs programs without protection"):
        open_sandbox("bwrap", LIMITS, notify=said.append)
    monkeypatch.setattr(seccomp, "missing", lambda: "there is no filter for s390x")
    for kind in ("auto", "seccomp", "bwrap"):
        with pytest.raises(ToolrollError, match="no filter for s390x; --sandbox none runs"):
            open_sandbox(kind, LIMITS, notify=said.append)
    assert len(said) == 1


def test_a_bubblewrap_that_does_not_work_is_told(tmp_path, monkeypatch):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = []
    try:
        open_sandbox("auto", LIMITS, notify=said.append).close()
    except ToolrollError as error:
        pytest.skip(error.why)
    assert "setting up uid map: Permission denied" in said[0]
    assert said[0].startswith("sandbox: seccomp, without bubblewrap")


def test_a_kernel_without_filters_is_told(monkeypatch):
    if seccomp.missing():
        pytest.skip(seccomp.missing())
    broken = launch._RUN.replace(
        "zygote.main()", "seccomp; zygote.seccomp.PR_SET_SECCOMP = 9999; zygote.main()"
    ).replace("import zygote", "import zygote, seccomp")
    monkeypatch.setattr(launch, "_RUN", broken)
    with pytest.raises(ToolrollError, match=r"refuses the system call filter \(Invalid argument\); --sandbox none"):
        open_sandbox("seccomp", LIMITS, notify=print)


def test_a_filter_that_does_nothing_is_noticed(monkeypatch):
    if seccomp.missing():
        pytest.skip(seccomp.missing())
    broken = launch._RUN.replace("zygote.main()", "zygote.seccomp.Filter.install = lambda self: None; zygote.main()")
    monkeypatch.setattr(launch, "_RUN", broken)
    with pytest.raises(ToolrollError, match="refuses the system call filter"):
        open_sandbox("seccomp", LIMITS, notify=print)


def test_none_says_so():
    said = []
    with open_sandbox("none", LIMITS, notify=said.append) as sandbox:
        assert run(sandbox, "def f(x):\n    while x: pass\n    return x", 0, 1, 0).outputs == [b"0", None, b"0"]
        assert run(sandbox, "import os\ndef f(x): os._exit(1)", 0, 1).status == "killed"
        assert run(sandbox, "def f(x) return x", 0).status == "syntax_error"
    assert said == ["sandbox: none; programs can do what you can"]
    assert "none" in KINDS
