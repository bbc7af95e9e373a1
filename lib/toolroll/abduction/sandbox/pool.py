"""The sandbox as its user sees it: an `Executor` on top of a zygote, which it starts again when that dies.

For each program a process is forked that reads the code and the inputs from files and writes one line for each input
into a pipe. The parent reads along. A process that has not finished a call when it should have, or that has ended in
one, is killed; the call's input is undefined, and a new process goes on with the input after it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from toolroll.abduction.execution import Fault, Limits, Outcome
from toolroll.abduction.sandbox.inputs import Inputs, unnamed
from toolroll.abduction.sandbox.launch import GoneError, Zygote
from toolroll.abduction.sandbox.progress import Progress, Stall
from toolroll.abduction.sandbox.wire import Lines
from toolroll.errors import ToolrollError

PIPE_BYTES = 1 << 20
CHECK_MS = 50  #: how often a process that says nothing is looked at
FIRST_PAUSE_S, LAST_PAUSE_S = 0.0002, 0.004  #: between reads, so that a process need not wake the parent for each line
OWN_BYTES = 64 << 20  #: address space of Python itself
STARTS = 3  #: how often a zygote is started before a program is given up


class Pool:
    """Runs programs one after the other, each in a process of its own."""

    def __init__(self, start: Callable[[], Zygote], limits: Limits) -> None:
        self._start = start
        self._limits = limits
        self._busy = threading.RLock()
        self._closed = False
        self._zygote: Zygote | None = start()

    def run(self, code: str, inputs: Sequence[bytes]) -> Outcome:
        """Run the one function that `code` defines on each input."""
        given = Inputs.of(inputs)
        progress = Progress(self._limits, len(given))
        with self._busy:
            try:
                while not progress.ended:
                    self._stretch(code, given, progress)
            except BaseException:
                self._discard()
                raise
        return progress.result()

    def _stretch(self, code: str, inputs: Inputs, progress: Progress) -> None:
        """One process: from the input at hand on until it has answered all, or ends, or has to be ended."""
        how: Fault | None
        reader = self._launch(self._job(code, progress.done), inputs)
        assert self._zygote is not None
        try:
            how = self._follow(reader, self._zygote, progress)
            ended = self._zygote.end()
        except GoneError as error:
            self._discard()
            progress.losses += 1
            if progress.ended or progress.losses == 1:
                return  # it may not be the program's doing: ask the same input again
            how, ended = "killed", str(error)
        finally:
            os.close(reader)
        if how is not None:
            why = "the time limit was met" if how == "timeout" else f"its process ended ({ended})"
            progress.interrupted(how, f"{why} while it was being defined")

    def _job(self, code: str, start: int) -> bytes:
        limits = self._limits
        head = {
            "start": start,
            "timeout_s": limits.timeout_s,
            "cpu_s": math.ceil(limits.total_s) + 1,
            "memory_bytes": (limits.memory_mb << 20) + OWN_BYTES,
            "output_bytes": limits.output_bytes,
        }
        return json.dumps(head).encode() + b"\n" + code.encode("utf-8", "surrogatepass")

    def _launch(self, job: bytes, inputs: Inputs) -> int:
        """The end of the pipe where the results of a new process come out."""
        for _ in range(STARTS):
            if self._closed:
                raise ToolrollError("the sandbox has been closed")
            if self._zygote is None:
                self._zygote = self._start()
            reader, writer = os.pipe()
            file = unnamed(job)
            try:
                fcntl.fcntl(writer, getattr(fcntl, "F_SETPIPE_SZ", fcntl.F_GETFD), PIPE_BYTES)
            except OSError:
                pass  # more than this user may have; the usual size is enough
            try:
                self._zygote.launch([writer, file, *(part.fd for part in inputs.parts)])
            except GoneError as error:
                os.close(reader)
                self._discard()
                why = error
            except BaseException:
                os.close(reader)
                raise
            else:
                return reader
            finally:
                os.close(writer)
                os.close(file)
        raise ToolrollError(f"the sandbox cannot start a process: {why}")

    def _follow(self, reader: int, zygote: Zygote, progress: Progress) -> Fault | None:
        """Read what the process says. A fault if it ended, or has to be ended, before the program came to an end."""
        lines = Lines(self._limits.output_bytes)
        stall = Stall(self._limits, zygote.cpu)
        waiting = select.poll()
        waiting.register(reader, select.POLLIN)
        pause, progress.loaded = FIRST_PAUSE_S, False
        while not progress.ended:
            if self._closed:
                raise ToolrollError("the sandbox has been closed")
            if time.monotonic() > progress.deadline:
                progress.overdue()
                break
            if not waiting.poll(CHECK_MS):
                if stall.over():
                    return "timeout"
                continue
            data = os.read(reader, PIPE_BYTES)
            if not data:
                return "killed"
            said = lines.feed(data)
            progress.take(said)
            if lines.forged and not progress.ended:
                progress.stop("killed", f"it wrote among its results: {lines.forged}")
            elif said and not progress.ended:
                stall.moved()
                time.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE_S)
            elif stall.over():
                return "timeout"
        return None

    def close(self) -> None:
        """End the zygote and what it runs. Another thread's `run` then raises ToolrollError."""
        self._closed = True
        zygote = self._zygote
        if zygote is not None:
            zygote.kill()
        with self._busy:
            self._discard()

    def _discard(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
