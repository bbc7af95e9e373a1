"""The parent's end of the process that runs math-verify: started when it is needed, and again when it had to die.

The limit is of CPU time and lies in the kernel, which ends the process when a comparison has used it up, whatever code
is running then. So the verdict does not depend on how busy the machine is, and no signal handler of this process is
touched.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from toolroll.errors import ToolrollError

#: What came of a comparison. no_gold, no_answer: it cannot be read. gold_overrun: even reading the right answer took
#: too long. overrun: the rest did.
Asked = Literal["equal", "unequal", "no_gold", "no_answer", "gold_overrun", "overrun"]

REPLIES: dict[bytes, Asked] = {b"1": "equal", b"0": "unequal", b"g": "no_gold", b"a": "no_answer"}
GOLD_READ = b"r"
READY = b"+"
START_S = 120.0  #: for Python and SymPy to start, on a busy machine
WAIT_FACTOR = 20  #: a process that has used up its CPU time ends by itself; one that sleeps is ended after so much
_ROOT = Path(__file__).resolve().parents[2]
_RUN = "import sys; sys.path.append(sys.argv.pop(1)); from toolroll.checking import worker; worker.main()"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")


class _GoneError(Exception):
    """The process ended; `read` says whether it had read the right answer."""

    def __init__(self, how: int, *, read: bool) -> None:
        super().__init__(how)
        self.how = how
        self.read = read


class MathProcess:
    """Compares formulas with math-verify."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()

    def ask(self, gold: str, answer: str) -> Asked:
        """Compare an answer with the right one, both in LaTeX without delimiters."""
        order = json.dumps([self.timeout_s, gold, answer]).encode() + b"\n"
        with self._busy:
            for last in (False, True):
                try:
                    return self._asked(order)
                except _GoneError as error:
                    # One that ends otherwise than at its limit may have been ended from outside: it is asked again.
                    if last or error.how == -signal.SIGPROF:
                        return "overrun" if error.read else "gold_overrun"
        raise AssertionError

    def _asked(self, order: bytes) -> Asked:
        process = self._process or self._start()
        read = False
        try:
            assert process.stdin is not None
            process.stdin.write(order)
            process.stdin.flush()
            until = time.monotonic() + WAIT_FACTOR * self.timeout_s
            while (reply := self._reply(process, until)) == GOLD_READ:
                read = True
            return REPLIES[reply]
        except (OSError, EOFError, KeyError) as error:
            raise _GoneError(self._end(), read=read) from error
        except BaseException:  # a signal that asks to stop: its answer would be taken for that of the next question
            self._end()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-c", _RUN, str(_ROOT)],
            env={**environment, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command, which ends this one
        )
        self._process = process
        try:
            hello = self._reply(process, time.monotonic() + START_S)
        except (OSError, EOFError) as error:
            self._end()
            raise ToolrollError("the process for mathematical answers did not start") from error
        except BaseException:
            self._end()
            raise
        if hello != READY:
            why = hello + (process.stdout.read() if process.stdout is not None else b"")
            self._end()
            raise ToolrollError(f"math-verify cannot be used: {why.decode(errors='replace').strip()}")
        return process

    def _reply(self, process: subprocess.Popen[bytes], until: float) -> bytes:
        """One letter of it. EOFError if it ended or says nothing for too long."""
        assert process.stdout is not None
        waiting = select.poll()
        waiting.register(process.stdout, select.POLLIN)
        if not waiting.poll(max(until - time.monotonic(), 0) * 1000):
            raise EOFError
        reply = os.read(process.stdout.fileno(), 1)
        if not reply:
            raise EOFError
        return reply

    def _end(self) -> int:
        """End the process, if it has not ended; how it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # it does not read any more
        try:
            process.wait(0.05)  # one that is at its limit is about to end, and its end tells why
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait()

    def close(self) -> None:
        """End the process."""
        with self._busy:
            self._end()
