"""Starts commands from a process that has their packages loaded already: a test then costs what the command does.

A keeper process imports third-party packages once and nothing of toolroll. For each command it forks, and the child
gets the standard streams, folder, environment, process group and limits of whoever asked, and runs the command to the
end of a process like any other: signals, exit codes, broken pipes and kills are real. What differs from a fresh start:
the seed of Python's string hashes and the variables that packages read when they are imported (OMP_NUM_THREADS is 1).
One keeper has torch, for runs that load it: it saves them the import, the patterns that transformers compiles for its
first model and what numba sets up for its first kernel. One has what all load.

`Popen` is subprocess.Popen by way of a keeper. `shims()` is a folder of scripts for PATH that do the same in a shell,
for commands with torch.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

LIMITS = [getattr(resource, name) for name in sorted(vars(resource)) if name.startswith("RLIMIT_")]
BARE = ("click", "orjson", "msgspec", "msgspec.inspect", "zstandard", "numpy", "concurrent.futures", "hashlib")
PLAIN = (*BARE, "numba", "PIL.Image", "matplotlib.figure")
TORCH = (*PLAIN, "torch", "transformers", "accelerate", "peft", "safetensors.torch")
MODELS = ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "LlavaForConditionalGeneration")
PICTURES = ("AutoProcessor", "CLIPModel", "CLIPImageProcessorPil", "LlavaProcessor")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


# --- who asks


@cache
def keeper(*, torch: bool) -> Path:
    """The folder with a keeper's socket and shims; it is started when first asked for and ends with this process."""
    from frame import WARM, entry_points, environment

    folder = Path(tempfile.mkdtemp(prefix="warm-", dir=os.environ.get("TMPDIR")))
    for name in WARM if torch else ():
        _write_shim(folder / name, folder)
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), json.dumps(entry_points()), *(TORCH if torch else PLAIN)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(_end, process, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "the process that loads packages for others did not start"
    return folder


def _write_shim(path: Path, folder: Path) -> None:
    path.write_text(
        f"#!{sys.executable} -E\nimport sys\nsys.path[0] = {str(Path(__file__).parent)!r}\n"
        f"import warm\nwarm.shim({str(folder)!r}, {path.name!r})\n"
    )
    path.chmod(0o755)


def _end(process: Any, folder: Path) -> None:
    process.stdin.close()
    process.wait()
    _remove(folder)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def shims() -> str:
    """A folder for the head of PATH."""
    return str(keeper(torch=True))


@cache
def more_shims(*names: str) -> str:
    """Another folder, for commands that load torch as they are called in some tests."""
    folder = Path(tempfile.mkdtemp(prefix="warm-more-"))
    atexit.register(_remove, folder)
    for name in names:
        _write_shim(folder / name, keeper(torch=True))
    return str(folder)


def _ask(
    folder: str, argv: list[str], fds: list[int], cwd: str | None, env: dict[str, str]
) -> tuple[socket.socket, int]:
    """Have `argv` run: the connection on which its wait status will come, and its process id."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{folder}/socket")
    request = {
        "argv": argv,
        "cwd": str(Path(cwd or ".").absolute()),
        "env": env,
        "group": os.getpgrp(),
        "limits": [resource.getrlimit(limit) for limit in LIMITS],
    }
    data = json.dumps(request).encode()
    socket.send_fds(connection, [len(data).to_bytes(4, "big")], fds)
    connection.sendall(data)
    return connection, int.from_bytes(_exactly(connection, 4), "big")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the process that keeps packages loaded went away")
        data += piece
    return data


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """subprocess.Popen, the process forked by a keeper: with `torch`, by the one that has it."""

    def __init__(self, *args: Any, torch: bool, **settings: Any) -> None:
        self._folder = str(keeper(torch=torch))
        super().__init__(*args, **settings)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        cwd, env = rest[4], rest[5]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[9:15]
        fds = [place if given == -1 else given for place, given in enumerate((p2cread, c2pwrite, errwrite))]
        name = Path(args[0]).name
        place = None if cwd is None else os.fspath(cwd)
        self._connection, self.pid = _ask(self._folder, [name, *args[1:]], fds, place, dict(env or os.environ))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags & os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        status = int.from_bytes(_exactly(self._connection, 4), "big")
        self._connection.close()
        return self.pid, status


def shim(folder: str, name: str) -> None:
    """What a script of `shims` does: run the command with this process's streams, and end as it ends."""
    connection, pid = _ask(folder, [name, *sys.argv[1:]], [0, 1, 2], None, dict(os.environ))
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    for fd in (0, 1, 2):
        os.close(fd)
    code = os.waitstatus_to_exitcode(int.from_bytes(_exactly(connection, 4), "big"))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


# --- the keeper


def serve(folder: str) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request until stdin ends; returns, with the request and its streams, only in the children."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    running: dict[int, tuple[int, socket.socket]] = {}  # by what becomes readable when a child ends
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0, *running], [], [])
        if 0 in ready:
            os._exit(0)
        for end in [end for end in running if end in ready]:
            pid, connection = running.pop(end)
            os.close(end)
            _tell(connection, os.waitpid(pid, 0)[1])
            connection.close()
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        size, fds, _, _ = socket.recv_fds(connection, 4, 3)
        request = json.loads(_exactly(connection, int.from_bytes(size, "big")))
        pid = os.fork()
        if pid == 0:
            for end, (_, other) in running.items():
                os.close(end)
                other.close()
            connection.close()
            listener.close()
            return request, fds
        _tell(connection, pid)
        running[os.pidfd_open(pid)] = pid, connection
        for fd in fds:
            os.close(fd)


def _tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(number.to_bytes(4, "big"))
    except OSError:
        pass  # whoever asked has gone


def become(request: dict[str, Any], fds: Iterable[int]) -> None:
    """Take on the streams, folder, environment, process group and limits of whoever asked."""
    for place, fd in enumerate(fds):
        os.dup2(fd, place)
        os.close(fd)
    try:
        os.setpgid(0, request["group"])
    except OSError:
        pass  # of another session
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for limit, (soft, hard) in zip(LIMITS, request["limits"], strict=True):
        resource.setrlimit(limit, (soft, hard))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
    sys.argv = request["argv"]


def load(packages: Iterable[str]) -> None:
    """Import what takes long, third parties only, and have them make what they would make at their first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in packages:
            importlib.import_module(name)
        if "numba" in sys.modules:
            context = importlib.import_module("numba.core.registry").cpu_target.target_context
            context.refresh()  # or the first kernel of each child would
        if "transformers" in sys.modules:
            for name in (*MODELS, *PICTURES):
                getattr(sys.modules["transformers"], name)
            mapping = importlib.import_module("transformers.conversion_mapping")
            mapping.get_checkpoint_conversion_mapping("llama")  # compiles patterns of all models, for all children


def main() -> None:
    """Load and serve; in a child, run its command and end as the interpreter would, but for taking torch apart."""
    folder, commands = sys.argv[1], json.loads(sys.argv[2])
    sys.path.pop(0)  # the tests' own modules are not the commands'
    load(sys.argv[3:])
    gc.freeze()  # or the children's collections would copy all pages
    become(*serve(folder))
    module, function = commands[sys.argv[0]].split(":")
    code = 0
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120  # as the interpreter says it
    os._exit(code)


if __name__ == "__main__":
    main()
