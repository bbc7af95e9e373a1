"""The sandbox's filter, read as the kernel reads it, and what it lets through of what a process writes."""

import json
import os
import re
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.abduction.sandbox import seccomp
from toolroll.abduction.sandbox.wire import FAULTS, MAX_DEPTH, STATUSES, Lines, Loaded, checked, depth

# The filter, interpreted here


def verdict(program, number, audit, arguments=(0,) * 6):
    """What the kernel would make of a call: a small interpreter for the instructions the filter has."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments)
    steps = list(struct.iter_unpack("<HBBI", program))
    at, accumulator = 0, 0
    while True:
        kind, then, otherwise, value = steps[at]
        if kind == seccomp.RETURN:
            return value
        if kind == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
            at += 1
            continue
        holds = {
            seccomp.EQUAL: accumulator == value,
            seccomp.AT_LEAST: accumulator >= value,
            seccomp.ANY_BIT: bool(accumulator & value),
        }[kind]
        at += 1 + (then if holds else otherwise)


REFUSED = seccomp.ERRNO | seccomp.EPERM


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@given(
    number=st.one_of(st.integers(0, 600), st.integers(0, 2**32 - 1)),
    flags=st.integers(0, 2**64 - 1),
    prot=st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_filter(machine, number, flags, prot):
    kind, program = seccomp.MACHINES[machine], seccomp.program(machine)
    allowed = {numbers[kind.column] for numbers in seccomp.ALLOWED.values()}
    arguments = (0, 0, prot, flags, 0, 0)
    found = verdict(program, number, kind.audit, arguments)
    if kind.x32 and number >= seccomp.X32_BIT:
        assert found == seccomp.KILL_PROCESS
    elif number == seccomp.MMAP[kind.column]:
        assert found == (seccomp.ALLOW if flags & 0x20 and not flags & 0x40000 and not prot & 4 else REFUSED)
    elif number == seccomp.MPROTECT[kind.column]:
        assert found == (REFUSED if prot & 4 else seccomp.ALLOW)
    else:
        assert found == (seccomp.ALLOW if number in allowed else REFUSED)
    others = {0x40000003, 0x40000028, 0xC000003E, 0xC00000B7, 0} - {kind.audit}
    assert {verdict(program, number, audit, arguments) for audit in others} == {seccomp.KILL_PROCESS}


def test_filter_numbers_are_those_of_this_system():
    lines = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", lines)}
    if not numbers or seccomp.missing():
        pytest.skip("no C compiler with the kernel's headers")
    column = seccomp.MACHINES[os.uname().machine].column
    table = {**seccomp.ALLOWED, "mmap": seccomp.MMAP, "mprotect": seccomp.MPROTECT}
    assert {name: row[column] for name, row in table.items()} == {name: numbers.get(name) for name in table}


# What a process says

LINES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"~ok ", b"~failed why", b"=[1]", b"=NaN", b"!e", b"!t", b"!x", b"=", b"", b'="a"', b"={}", b"=1 2"]
    ),
    st.text(alphabet='[]{}",:0123456789eE+-.\\ntrufalsNI ', max_size=30).map(lambda text: b"=" + text.encode()),
    st.integers(1, 400).map(lambda n: b"=" + b"[" * n + b"]" * n),
    st.integers(1, 9000).map(lambda n: b"=" + b"9" * n),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(lambda value: b"=" + json.dumps(value).encode()),
)


@given(
    lines=st.lists(LINES, max_size=8),
    first=st.sampled_from([b"", b"~ok \n"]),
    cut=st.lists(st.integers(0, 50), max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_forged_lines_give_nothing_but_json_and_faults(lines, first, cut):
    """However a process words and cuts its bytes, what comes through is readable, bounded, and the same."""
    data = first + b"\n".join(lines)
    whole, pieces = Lines(6000), Lines(6000)
    said = whole.feed(data)
    parts, at = [], 0
    for size in [*cut, len(data)]:
        parts += pieces.feed(data[at : at + size])
        at += size
    assert parts == said
    assert pieces.forged == whole.forged
    assert whole.feed(b"=1\n" if whole.forged else b"") == []
    for answer in said:
        if isinstance(answer, Loaded):
            assert answer.status in STATUSES.values()
            assert answer.why.isprintable()
        elif isinstance(answer, bytes):
            json.loads(answer)
            assert answer.isascii()
            assert len(answer) <= 6000
            assert depth(answer) <= MAX_DEPTH
        else:
            assert answer in FAULTS.values()
    assert sum(isinstance(answer, Loaded) for answer in said) <= 1


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
@settings(max_examples=80, deadline=None)
def test_what_json_writes_comes_through(value):
    text = json.dumps(value, separators=(",", ":")).encode()
    assert checked(text, 10**6) == text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"=" + b"1" * 101, "too large"),
        (b"=\xc3\xa9", "not ASCII"),
        (b"=[1,]", "not JSON"),
        (b"=", "not JSON"),
        (b"=1,2", "not JSON"),
        (b"~ok ", "no answer"),
        (b"", "no answer"),
        (b"!killed", "no answer"),
    ],
)
def test_forged_lines_end_it(line, why):
    lines = Lines(100)
    lines.feed(b"~ok \n=1\n")
    assert lines.feed(line + b"\n=2\n") == []
    assert why in lines.forged


def test_endless_lines_end_it():
    lines = Lines(100)
    for _ in range(9):
        lines.feed(b"x" * 100)
    assert lines.forged == "a line without end"
    assert lines.feed(b"y" * 10**6) == []


def test_long_numbers_are_read_by_pythons_rules():
    """Python's json refuses a number of more digits than it converts; so must what we pass on."""
    lines = Lines(10_000)
    assert lines.feed(b"~ok \n=" + b"9" * 4300 + b"\n")[1] == b"9" * 4300
    lines.feed(b"=" + b"9" * 4301 + b"\n")
    assert lines.forged
