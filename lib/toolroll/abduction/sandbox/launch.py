"""The parent's end of the zygote: starting it, giving it orders, ending it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolroll.abduction.sandbox import bwrap
from toolroll.errors import ToolrollError

START_S = 60.0  #: for a Python to start, on a busy machine
REPLY_S = 30.0
_RUN = "import sys; sys.path.append(sys.argv.pop(1)); from toolroll.abduction.sandbox import zygote; zygote.main()"
_PACKAGE = Path(__file__).resolve().parent
_ROOT = _PACKAGE.parents[2]


class GoneError(Exception):
    """The zygote died or does not answer."""


class Zygote:
    """A running zygote, with at most one program's process.

    `filtered` puts the system call filter on programs, `wrapped` bubblewrap around everything. ToolrollError says why
    that cannot be had.
    """

    def __init__(self, *, filtered: bool, wrapped: bool) -> None:
        python = getattr(sys, "_base_executable", None) or sys.executable
        argv = [os.path.realpath(python), "-s", "-S", "-P", "-B", "-c", _RUN, str(_ROOT)]
        argv += ["filter"] if filtered else []
        if wrapped:
            argv = bwrap.wrapped(argv, _files())
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                argv,
                env=_environment(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        """Wait until it says that it is ready, or why it is not."""
        assert self._process.stderr is not None
        try:
            hello: dict[str, Any] = json.loads(self._read(START_S))
        except GoneError as error:
            raise ToolrollError(f"the sandbox did not start: {self._complaint() or error}") from error
        if hello["refused"]:
            raise ToolrollError(hello["refused"])
        self._process.stderr.close()

    def _complaint(self) -> str:
        """The last line it wrote to stderr before it ended."""
        self.kill()
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else ""

    def launch(self, fds: Sequence[int]) -> None:
        """Fork a process that gets these descriptors: for the results, of the job, of the inputs."""
        try:
            socket.send_fds(self._control, [b"r"], list(fds))
        except OSError as error:
            raise GoneError(str(error)) from error
        reply = self._read(REPLY_S)
        if reply != "ok":
            raise GoneError(reply)

    def cpu(self) -> float | None:
        """CPU seconds that the program's process has used; None where the system does not say."""
        reply = self._ask(b"c")
        return None if reply == "?" else float(reply)

    def end(self) -> str:
        """Kill the program's process if it has not ended; how it ended."""
        code = os.waitstatus_to_exitcode(int(self._ask(b"k")))
        return f"exit code {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"

    def _ask(self, order: bytes) -> str:
        try:
            self._control.sendall(order)
        except OSError as error:
            raise GoneError(str(error)) from error
        return self._read(REPLY_S)

    def _read(self, patience_s: float) -> str:
        """One line of it."""
        line, until = b"", time.monotonic() + patience_s
        while not line.endswith(b"\n"):
            self._control.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self._control.recv(4096)
            except OSError as error:
                raise GoneError(str(error) or "no answer") from error
            if not data:
                raise GoneError("it ended")
            line += data
        return line.decode().strip()

    def close(self) -> None:
        """End it and all it has started."""
        self.kill()
        self._control.close()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def kill(self) -> None:
        """Kill it and all it has started; it can still be asked, and does not answer."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # another thread was faster
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process that was started: the zygote, or bubblewrap around it."""
        return int(self._process.pid)


def _environment() -> dict[str, str]:
    """Nothing, but for what makes the order of sets the same everywhere and lets Python find its own libraries."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **kept}


def _files() -> list[Path]:
    """What the zygote imports of toolroll."""
    base = _ROOT / "toolroll"
    return [base / "__init__.py", base / "errors.py", base / "abduction/__init__.py", _PACKAGE]
