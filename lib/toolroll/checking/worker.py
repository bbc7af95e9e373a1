"""The process that runs math-verify. It reads lines `[timeout_s, gold, answer]` and answers with letters (`process`).

math-verify's own limits are signal handlers in Python, which code in C keeps waiting; they are off, and the kernel's
timer of CPU time ends the process instead. Memory is limited, and what a formula should make a library do beside
computing, on whatever path, is refused: to start programs, to write files, to open connections.

Formulas reach math-verify's LaTeX parser only, a grammar that makes SymPy objects. SymPy's `parse_expr`, which is an
`eval`, is what math-verify reads plain text with; no text gets there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from toolroll.checking.process import GOLD_READ, READY

MEMORY_BYTES = 2 << 30
#: Events of Python's audit hooks, by how they begin.
_REFUSED = (
    *("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess."),
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"),
    *("shutil.", "socket.", "ctypes."),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Compare = Callable[[str, str, Callable[[], object]], bytes]


def main() -> None:
    """Answer until the parent closes its end."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ValueError, OSError):
        pass  # not every system has it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        compare = load()
    except ImportError as error:
        os.write(out, f"{error}\n".encode())
        return
    sys.addaudithook(refuse)
    os.write(out, READY)
    for line in sys.stdin.buffer:
        timeout_s, gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        reply = compare(gold, answer, partial(os.write, out, GOLD_READ))
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(out, reply)


def load() -> Compare:
    """What compares two formulas: math-verify, with its limits of time off."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy.core.random import seed

    logging.disable(logging.CRITICAL)
    latex = [LatexExtractionConfig()]

    def read(formula: str) -> list[Any]:
        found: list[Any] = parse(
            f"${formula}$", extraction_config=latex, fallback_mode="no_fallback", parsing_timeout=None
        )
        return found

    def compare(gold: str, answer: str, gold_read: Callable[[], object]) -> bytes:
        seed(0)  # SymPy tries random numbers; no verdict may depend on what was asked before
        right = read(gold)
        if not right:
            return b"g"
        gold_read()
        given = read(answer)
        if not given:
            return b"a"
        return b"1" if verify(right, given, timeout_seconds=None) else b"0"

    return compare


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses what has no place in comparing formulas."""
    if event == "open":
        _, mode, flags = arguments
        refused = flags & _WRITING if mode is None else set(mode) & set("wax+")
    else:
        refused = event.startswith(_REFUSED)
    if refused:
        raise PermissionError(event)
