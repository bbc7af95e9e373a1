"""The clean process that programs are forked from: a Python with the usual modules loaded and nothing else in it.

It starts with an empty environment and hash seed 0, so that sets and dicts have one order everywhere. It takes orders
on a socket, one letter each, and answers with one line: `r` with descriptors (results, job, inputs...) forks a
process for a program, `c` asks how many CPU seconds that has used, `k` ends it and gives its wait status. No program's
code and no inputs ever pass through this process; they are read from the descriptors by the child.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from toolroll.abduction.sandbox import child, seccomp

CONTROL = 3
#: What programs can import. Nothing can be imported later: the filter forbids opening files.
PRELOADED = """
    math cmath collections collections.abc itertools functools operator re copy heapq bisect statistics string fractions
    decimal numbers json random typing dataclasses enum datetime _strptime calendar array textwrap unicodedata time
    types abc contextlib pprint queue graphlib colorsys zlib hashlib base64 struct
    encodings.ascii encodings.latin_1 encodings.utf_16 encodings.utf_32 encodings.cp1252
"""
OURS = ("toolroll", "ctypes", "_ctypes", "socket", "_socket", "selectors", "select", "resource")
IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU")
NOBODY = 65534
MAX_FDS = 250


def main() -> None:
    """Load, give up what is not needed, and serve until the parent goes away."""
    for name in IGNORED:  # the parent decides when to end
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in PRELOADED.split():
        importlib.import_module(name)
    filtered = sys.argv[1:] == ["filter"]
    os.dup2(0, CONTROL)  # it is our stdin; stdout is /dev/null, which can be read, too
    os.dup2(1, 0)
    control = socket.socket(fileno=CONTROL)
    forget()
    drop()
    confine, why = confinement() if filtered else (_nothing, "")
    hello = {"refused": why, "uid": os.getuid(), "hash": sys.flags.hash_randomization}
    control.sendall(json.dumps(hello).encode() + b"\n")
    if not why:
        os.dup2(1, 2)
        gc.collect()
        gc.freeze()
        serve(control, confine)


def forget() -> None:
    """Leave nothing here that a program could use or that would make two runs differ."""
    os.environ.clear()
    os.chdir("/")
    sys.argv, sys.path = [""], []
    sys.path_importer_cache.clear()
    for name in list(sys.modules):
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
    warnings.simplefilter("ignore")


def drop() -> None:
    """Be nobody rather than root, and not a process that others may look into."""
    if os.getuid() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError:
            pass  # a container without these rights; the filter does not depend on them
    if sys.platform == "linux":
        seccomp.prctl(seccomp.PR_SET_DUMPABLE, 0)


def confinement() -> tuple[Callable[[], None], str]:
    """What puts the filter on a child, and why it does not work here: tried on a process, empty when it does."""
    if why := seccomp.missing():
        return _nothing, why
    made = seccomp.Filter()
    pid = os.fork()
    if pid == 0:
        _try(made)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return made.install, "" if code == 0 else f"the kernel refuses the system call filter ({os.strerror(abs(code))})"


def _try(made: seccomp.Filter) -> NoReturn:
    try:
        made.install()
        try:
            os.open("/", os.O_RDONLY)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    except OSError as error:
        os._exit(error.errno or 1)
    finally:
        os._exit(1)


def _nothing() -> None:
    """No confinement."""


def serve(control: socket.socket, confine: Callable[[], None]) -> None:
    """Answer the parent's orders; returns when it is gone."""
    pid = 0
    while True:
        order, fds, _, _ = socket.recv_fds(control, 1, MAX_FDS)
        if order == b"r":
            pid, reply = launch(fds, confine)
        elif order == b"c":
            reply = cpu(pid)
        else:
            reply = end(pid)
            pid = 0
        if not order:
            return
        control.sendall(reply.encode() + b"\n")


def launch(fds: list[int], confine: Callable[[], None]) -> tuple[int, str]:
    """Fork the process of a program: its number, and "ok" or what went wrong."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        pid = -1
        reply = error.strerror or "fork failed"
    else:
        reply = "ok"
    if pid == 0:
        try:
            if sys.platform == "linux":
                seccomp.prctl(seccomp.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                os.dup2(fds[0], child.RESULTS)
                child.main(fds[1], fds[2:], confine)
        finally:
            os._exit(1)
    for fd in fds:
        os.close(fd)
    return max(pid, 0), reply


def cpu(pid: int) -> str:
    """The CPU seconds the process has used; "?" where the system does not say."""
    try:
        return repr(time.clock_gettime(~pid << 3 | 2)) if pid else "?"
    except OSError:
        return "?"


def end(pid: int) -> str:
    """Kill the process if it is still there; its wait status."""
    if not pid:
        return "0"
    os.kill(pid, signal.SIGKILL)
    return str(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
