"""The kernel's filter: what a process that runs a hypothesis may ask of it, as a BPF program made here.

The list allows computing and answering: memory without execute permission, writing to descriptors that are open,
ending, clocks, sleeping, random bytes. Everything else fails with EPERM: files, sockets, processes, threads, signals,
timers, ioctl, fcntl. A call by the numbers of another architecture kills the process. No package is needed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
EPERM = 1
PROT_EXEC, MAP_ANONYMOUS, MAP_HUGETLB = 0x4, 0x20, 0x40000
X32_BIT = 0x40000000

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE = 0, 4  #: offsets in the kernel's struct seccomp_data

#: What is allowed as it is. `mmap` and `mprotect` have conditions besides.
ALLOWED = {
    "write": (1, 64),
    "rt_sigreturn": (15, 139),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
MMAP = (9, 222)
MPROTECT = (10, 226)


@dataclass(frozen=True)
class Machine:
    """An architecture: its audit word, its column in the table, and whether it has the x32 numbers."""

    audit: int
    column: int
    x32: bool


MACHINES = {"x86_64": Machine(0xC000003E, 0, x32=True), "aarch64": Machine(0xC00000B7, 1, x32=False)}


@dataclass
class Assembler:
    """BPF instructions with names to jump to."""

    code: list[tuple[int, str, str, int]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        self.labels[name] = len(self.code)

    def load(self, offset: int) -> None:
        """Put the 32-bit word at this offset of seccomp_data in the accumulator."""
        self.code.append((LOAD, "", "", offset))

    def jump(self, kind: int, value: int, then: str = "", otherwise: str = "") -> None:
        """Go to a label if the accumulator compares so with a value; no label is the next instruction."""
        self.code.append((kind, then, otherwise, value))

    def end(self, verdict: int) -> None:
        """Decide."""
        self.code.append((RETURN, "", "", verdict))

    def bytes(self) -> bytes:
        """The program as the kernel reads it: struct sock_filter { u16 code; u8 jt, jf; u32 k; }."""
        steps = enumerate(self.code, start=1)
        return b"".join(
            struct.pack("=HBBI", kind, self._distance(then, i), self._distance(otherwise, i), value)
            for i, (kind, then, otherwise, value) in steps
        )

    def _distance(self, name: str, here: int) -> int:
        return self.labels[name] - here if name else 0


def program(machine: str) -> bytes:
    """The filter for x86_64 or aarch64.

    >>> len(program("x86_64")) % 8, len(program("aarch64")) < len(program("x86_64"))
    (0, True)
    """
    kind = MACHINES[machine]
    out = Assembler()
    out.load(ARCHITECTURE)
    out.jump(EQUAL, kind.audit, otherwise="kill")
    out.load(NUMBER)
    if kind.x32:
        out.jump(AT_LEAST, X32_BIT, then="kill")
    for numbers in ALLOWED.values():
        number = numbers[kind.column]
        if number is not None:
            out.jump(EQUAL, number, then="allow")
    out.jump(EQUAL, MMAP[kind.column], then="mmap")
    out.jump(EQUAL, MPROTECT[kind.column], then="protection")
    out.end(ERRNO | EPERM)
    out.label("mmap")
    out.load(argument(3))
    out.jump(ANY_BIT, MAP_HUGETLB, then="refuse")
    out.jump(ANY_BIT, MAP_ANONYMOUS, otherwise="refuse")
    out.label("protection")
    out.load(argument(2))
    out.jump(ANY_BIT, PROT_EXEC, otherwise="allow")
    out.label("refuse")
    out.end(ERRNO | EPERM)
    out.label("allow")
    out.end(ALLOW)
    out.label("kill")
    out.end(KILL_PROCESS)
    return out.bytes()


def argument(index: int) -> int:
    """Where the low word of a system call's argument is (both architectures are little-endian)."""
    return 16 + 8 * index


def missing() -> str:
    """Why this system cannot have the filter, as far as one can say without trying; empty when it seems it can."""
    machine = os.uname().machine
    if sys.platform != "linux":
        return f"seccomp needs Linux, this is {sys.platform}"
    if machine not in MACHINES or sys.maxsize < 2**32 or sys.byteorder != "little":
        return f"there is no system call filter for {machine} (only for {' and '.join(MACHINES)}, 64 bit)"
    return ""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


class Filter:
    """The filter of this machine, ready to be put on a process."""

    def __init__(self) -> None:
        code = program(os.uname().machine)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._code))

    def install(self) -> None:
        """Put it on this process, for good. OSError when the kernel refuses."""
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self._program))


def prctl(option: int, first: int, second: int = 0) -> None:
    """Have the kernel set something about this process, with an OSError when it does not."""
    if _libc_prctl()(option, first, second, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _libc_prctl() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    return call
