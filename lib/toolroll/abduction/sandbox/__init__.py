"""A sandbox for programs that nobody has read: one Python function each, called on thousands of inputs.

What it covers. Each program runs in a process of its own, forked from a clean Python that holds no data, no other
program's code and no environment. Before the program is loaded, its process gives up, for good, every system call but
those for computing and answering: it cannot open, read, change or list files, open connections, start processes or
threads, run other programs, send signals, look at other processes, or set timers and signal handlers. As root it first
becomes nobody. Its memory, its CPU time, the time of each call, the time of all calls and the size of its outputs are
limited, and what it prints goes nowhere. A call that does not end is ended from outside; the input has no output then,
and the next input gets a new process. What a program writes in answer is read as data and checked: it can make up its
own outputs, which it could as well return, and no one else's. Where bubblewrap works, all of this happens in namespaces
without network, without other processes, and with no files but Python's and the system's libraries.

What it does not cover. A bug in the kernel or in the processor, reached by the few system calls that are left. Side
channels: a program can measure time, and so the load of the machine. A fair share of the CPU: a program may keep one
core busy until its time is over. What is in the process that programs are forked from can be read by each of them:
Python's library, and the names of the folders where it and toolroll are installed. A program sees all inputs it is run
on, the later ones included. What it keeps in global variables stays from one call to the next, and is lost when a call
has to be ended from outside. `none` has the limits of time and memory only; a program can then do what its user can.

What a program is. Its code is run as it stands, with hash seed 0 and `random` seeded with 0. Afterwards there must be
one function in its namespace, counting imported ones that are written in Python; a second name for a function counts.
It can import the usual modules of computing (`zygote.PRELOADED`) and no others. Each call gets a fresh value of its
input. The output is what Python's json makes of the result, without blanks: a tuple is a list, NaN is NaN, the order
of keys is kept. An exception, a result that is no JSON or is nested deeper than 200, and an output above the limit of
size leave the function undefined at that input.

Kinds:

    seccomp   the system call filter; Linux on x86_64 or aarch64
    bwrap     that, in bubblewrap
    auto      bwrap where it works, else seccomp, and a note which; never less
    monty     pydantic-monty, an interpreter for a part of Python that has no system calls (`monty`)
    none      limits of time and memory, no protection; only when asked for
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from toolroll.errors import ToolrollError

if TYPE_CHECKING:
    from toolroll.abduction.execution import Executor, Limits

__all__ = ["KINDS", "SAFETY", "open_sandbox"]

SAFETY = (__doc__ or "").partition("\n\n")[2]  #: for the manual pages of commands that run programs

KINDS = ("auto", "seccomp", "bwrap", "monty", "none")
WITHOUT = "; --sandbox none runs programs without protection"


def open_sandbox(kind: str, limits: Limits, *, notify: Callable[[str], None]) -> Executor:
    """An executor of this kind. `notify` hears what was chosen; ToolrollError says in a line what is missing."""
    if kind == "monty":
        from toolroll.abduction.sandbox.monty import Monty

        return Monty(limits)
    if kind == "none":
        notify("sandbox: none; programs can do what you can")
        return _pool(limits, filtered=False, wrapped=False)
    if kind == "seccomp":
        return _filtered(limits, wrapped=False)
    if kind == "bwrap":
        return _filtered(limits, wrapped=True)
    try:
        executor = _filtered(limits, wrapped=True)
        notify("sandbox: seccomp and bubblewrap")
    except ToolrollError as error:
        executor = _filtered(limits, wrapped=False)
        notify(f"sandbox: seccomp, without bubblewrap ({error.why.removesuffix(WITHOUT)})")
    return executor


def _filtered(limits: Limits, *, wrapped: bool) -> Executor:
    from toolroll.abduction.sandbox import bwrap, seccomp

    why = seccomp.missing() or (bwrap.missing() if wrapped else "")
    if why:
        raise ToolrollError(why + WITHOUT)
    try:
        return _pool(limits, filtered=True, wrapped=wrapped)
    except ToolrollError as error:
        raise ToolrollError(error.why + WITHOUT) from error


def _pool(limits: Limits, *, filtered: bool, wrapped: bool) -> Executor:
    from toolroll.abduction.sandbox.launch import Zygote
    from toolroll.abduction.sandbox.pool import Pool

    return Pool(partial(Zygote, filtered=filtered, wrapped=wrapped), limits)
