"""The process of one program: it shuts itself in, loads the program and answers each input. It never returns.

Everything up to `confine` is trusted; from the first line of the program on, nothing that this process does or says is.
The time limit is kept by a timer that ticks eight times in it. A call is cut short when it has used its CPU seconds, or
four times as many on the clock; so a busy machine does not change what a program computes. The timer is set before the
filter is, which takes setitimer and sigaction away: a program can swallow the exception but not stop the ticking.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic, process_time
from typing import Any, NoReturn

RESULTS = 3  #: the descriptor that is left, besides /dev/null
MAX_FDS = 512  #: above the highest descriptor the zygote can have given
TICKS = 8  #: in the time limit
WAITING = 4  #: times the time limit on the clock, for a call that does not compute
STACK_BYTES = 8 << 20
TEXT_BYTES = 64  #: of a Python string, besides its characters
NAME = "hypothesis"

MEMORY, ERROR, TIMEOUT, NOT_JSON, TOO_LARGE = b"!m\n", b"!e\n", b"!t\n", b"!j\n", b"!l\n"


class OutOfTime(BaseException):
    """Raised in a call that has used up its time. Not an Exception, so that `except Exception` lets it through."""


@dataclass(frozen=True)
class Job:
    """A program, and what it may use."""

    code: str
    start: int
    timeout_s: float
    cpu_s: int
    memory_bytes: int
    output_bytes: int

    @classmethod
    def read(cls, fd: int) -> Job:
        """From the file the parent made: a line of JSON, then the code."""
        head, _, code = contents(fd).partition(b"\n")
        return cls(code.decode("utf-8", "surrogatepass"), **json.loads(head))


class Watch:
    """The time limit of the call that is being made."""

    __slots__ = ("calling", "limit_s", "since")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.calling = False
        self.since: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin to tick. Ticks outside a call do nothing."""
        signal.signal(signal.SIGALRM, self.tick)
        every = max(self.limit_s / TICKS, 0.001)
        signal.setitimer(signal.ITIMER_REAL, every, every)

    def tick(self, _number: int, _frame: types.FrameType | None) -> None:
        """Note the time at the first tick in a call, compare at the others."""
        if not self.calling:
            return
        if self.since is None:
            self.since = process_time(), monotonic()
        elif process_time() - self.since[0] > self.limit_s or monotonic() - self.since[1] > WAITING * self.limit_s:
            self.since = None  # a call that swallows it gets the same time again, unless the parent ends it before
            raise OutOfTime


def main(job_fd: int, part_fds: list[int], confine: Callable[[], None]) -> NoReturn:
    """Be the process of the program in this file; the results go to descriptor 3.

    `confine` takes away what a program must not have, as the last thing before it is loaded.
    """
    try:
        job = Job.read(job_fd)
        texts = [text for fd in part_fds for text in contents(fd).decode().split("\n")]
        held = sum(2 * os.fstat(fd).st_size for fd in part_fds) + TEXT_BYTES * len(texts)
        os.closerange(RESULTS + 1, MAX_FDS)
        limit(job, held)
        random.seed(0)
        watch = Watch(job.timeout_s)
        watch.start()
        confine()
        function = load(job.code, watch)
        if function is not None:
            answer(function, texts[job.start :], watch, job.output_bytes)
    except BaseException:
        os._exit(1)
    os._exit(0)


def contents(fd: int) -> bytes:
    """All of a file. Its offset is shared with whoever else reads it, so it is not used."""
    size = os.fstat(fd).st_size
    parts, at = [], 0
    while at < size:
        parts.append(os.pread(fd, size - at, at))
        at += len(parts[-1])
    return b"".join(parts)


def limit(job: Job, held: int) -> None:
    """What the kernel lets this process use, besides the bytes of memory that its inputs hold."""
    caps = {
        resource.RLIMIT_AS: job.memory_bytes + held,
        resource.RLIMIT_CPU: job.cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: RESULTS + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if sys.platform == "linux":
        caps |= {resource.RLIMIT_NPROC: 0, resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_MSGQUEUE: 0}
    for which, cap in caps.items():
        hard = resource.getrlimit(which)[1]
        value = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        try:
            resource.setrlimit(which, (value, value))
        except (OSError, ValueError):
            if sys.platform == "linux":
                raise


def load(code: str, watch: Watch) -> Callable[[Any], Any] | None:
    """The one function the program defines, after saying so; None after saying why there is none."""
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    space = module.__dict__
    status, why = "failed", ""
    watch.since, watch.calling = None, True
    try:
        status = "syntax_error"
        program = compile(code, f"<{NAME}>", "exec", dont_inherit=True)
        status = "failed"
        exec(program, space)  # noqa: S102 - this is what the process is for
        status = "ok"
    except OutOfTime:
        status, why = "timeout", "the time limit was met while it was being defined"
    except BaseException as error:
        why = describe(error)
    watch.calling = False
    functions = [value for value in space.values() if type(value) is types.FunctionType]
    if status == "ok" and len(functions) != 1:
        status = "many_functions" if functions else "no_function"
        why = f"{len(functions)} functions in its namespace" if functions else "no function in its namespace"
    say(f"~{status} {why}".encode("ascii", "backslashreplace").replace(b"\n", b" ") + b"\n")
    return functions[0] if status == "ok" else None


def describe(error: BaseException) -> str:
    """The error in a few words, which its class may refuse to give."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return "an error that cannot be shown"


def answer(function: Callable[[Any], Any], texts: Iterable[str], watch: Watch, output_bytes: int) -> None:
    """Call the function on a fresh value of each text, and say what came of each before the next."""
    read = json.JSONDecoder().raw_decode
    write = json.JSONEncoder(separators=(",", ":")).encode
    for text in texts:
        try:
            watch.since = None
            watch.calling = True
            try:
                result = function(read(text)[0])
            except (OutOfTime, MemoryError):
                raise
            except BaseException:
                line = ERROR
            else:
                line = b"=" + write(result).encode() + b"\n"
                if len(line) > output_bytes + 2:
                    line = TOO_LARGE
            watch.calling = False
        except OutOfTime:
            line = TIMEOUT
        except MemoryError:
            line = MEMORY
        except ValueError as error:
            line = NOT_JSON if "ircular" in describe(error) else TOO_LARGE
        except BaseException:
            line = NOT_JSON
        watch.calling = False
        result = None
        say(line)


def say(line: bytes) -> None:
    """Write all of a line; a tick may cut a long write short."""
    done = os.write(RESULTS, line)
    while done < len(line):
        done += os.write(RESULTS, line[done:])
