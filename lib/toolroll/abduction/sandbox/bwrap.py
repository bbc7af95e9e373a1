"""The bubblewrap layer: the zygote in namespaces of its own, with no files but Python's, which it cannot write.

The system call filter already forbids all that this layer does; it is there in case the filter has a hole. No network,
no other processes to be seen, no files but Python's library, no rights, and all that is left ends with the zygote.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

ALONE = ("user", "ipc", "pid", "net", "uts", "cgroup-try")
NOBODY = ("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "sandbox")


def missing() -> str:
    """Why there is no bubblewrap here, as far as one can say without trying; empty when there is."""
    return "" if shutil.which("bwrap") else "bwrap (bubblewrap) is not installed"


def wrapped(argv: list[str], ours: list[Path]) -> list[str]:
    """The command that runs `argv`, a Python, in bubblewrap; `ours` are the files of toolroll it needs."""
    binds = []
    for path in [*_system(), *_python(argv[0]), *map(str, ours)]:
        if Path(path).is_symlink() and Path(path).parent == Path("/"):
            binds += ["--symlink", str(Path(path).readlink()), path]
        else:
            binds += ["--ro-bind-try", path, path]
    alone = [f"--unshare-{what}" for what in ALONE]
    return [shutil.which("bwrap") or "bwrap", *alone, *NOBODY, *binds, "--chdir", "/", "--", *argv]


def _system() -> list[str]:
    """Where the C library and its loader are."""
    return ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/nix/store"]


def _python(executable: str) -> list[str]:
    """The interpreter, its library, and the directories of its shared libraries."""
    prefix = Path(sys.base_prefix)
    places = [
        executable,
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
    ]
    if prefix != Path("/usr"):
        places += [str(prefix / "lib"), str(prefix / "lib64")]
    return [str(place) for place in places if place] + _library_path()


def _library_path() -> list[str]:
    return [place for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
