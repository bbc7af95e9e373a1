"""One writer at a time: by an fcntl lock, or, where a network file system has none, by making a folder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 10.0  #: after so long a wait for a folder, say who has it


@contextmanager
def locked(directory: Path, kind: str, notify: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock of a folder; `kind` is fcntl or dir.

    The kernel gives an fcntl lock back when its holder dies. A folder stays, with the holder's host and process in its
    name's file `owner`, and has to be removed by hand then.
    """
    if kind == "dir":
        with _folder(directory / "lock.d", notify):
            yield
        return
    with open(directory / "lock", "ab") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _folder(path: Path, notify: Callable[[str], None]) -> Iterator[None]:
    told, since = False, time.monotonic()
    while True:
        try:
            path.mkdir()
            break
        except FileExistsError:
            if not told and time.monotonic() - since > PATIENCE_S:
                notify(f"{path}: waiting; held by {_owner(path)}; remove the folder if that process is gone")
                told = True
            time.sleep(0.01)
    owner = path / "owner"
    try:
        owner.write_text(f"{socket.gethostname()} process {os.getpid()}\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        path.rmdir()


def _owner(path: Path) -> str:
    try:
        return (path / "owner").read_text().strip()
    except OSError:
        return "an unknown process"
