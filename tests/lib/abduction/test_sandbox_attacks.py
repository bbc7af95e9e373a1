"""Hostile programs: none gets out, none runs for long, and a neighbour notices nothing.

An attack that succeeds returns "escaped". Most are also run without a sandbox, where they must succeed: an attack that
cannot work anywhere would say nothing about the sandbox.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolroll.abduction.execution import Limits
from toolroll.abduction.sandbox import open_sandbox
from toolroll.errors import ToolrollError

LIMITS = Limits(timeout_s=0.1, total_s=4, memory_mb=128, output_bytes=5000, total_bytes=50_000, max_timeouts=1)
INPUTS = [b"1", b"2", b"3"]
BOUND_S = 20.0  #: on a busy machine; each takes a fraction of a second on an idle one
SECRET = "the-secret-of-the-test"


@dataclass(frozen=True)
class Attack:
    """A function body, what it may not come to, and how it ends where only that tells whether it was stopped."""

    name: str
    body: str
    control: bool = True  #: whether it is run without a sandbox, where it must succeed
    status: str | None = None
    fault: str | None = None
    output: str | None = None
    top: str = ""  #: code outside the function

    def code(self, arena):
        values = {"CANARY": str(arena.canary), "ROOM": str(arena.room), "PORT": arena.port, "SECRET": SECRET}
        head = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        return f"{head}{textwrap.dedent(self.top)}\ndef f(x):\n{body}\n"


#: Finds a module that the sandbox's own code has loaded, by way of its stack, where `import` does not find it.
REACH = """
import sys
try:
    {name} = __import__("{name}")
except ImportError:
    frame = sys._getframe()
    found = []
    while frame is not None:
        found += [frame.f_globals, *(vars(v) for v in frame.f_globals.values() if type(v) is type(sys))]
        frame = frame.f_back
    {name} = next(names["{name}"] for names in found if "{name}" in names)
"""
#: The C library, and through it any system call.
LIBC = (
    REACH.format(name="ctypes")
    + """
libc = ctypes.CDLL(None, use_errno=True)
"""
)


def c(name, call, **more):
    """An attack by a call of the C library, which has succeeded when it does not return -1, and has to be made."""
    body = f"{LIBC}\nreturn 'escaped' if ({call}) not in (-1, 2**64 - 1, None) else 'refused'"
    return Attack(name, body, output="refused", **more)


FILES = [
    Attack("open", "return 'escaped' if SECRET in open(CANARY).read() else 'no'"),
    Attack("write a file", "open(ROOM + '/written', 'w').write('x')\nreturn 'escaped'"),
    Attack("os.open", "import os\nos.open(CANARY, os.O_RDONLY)\nreturn 'escaped'"),
    Attack("posix.open", "import posix\nposix.open(CANARY, posix.O_RDONLY)\nreturn 'escaped'"),
    Attack("listdir", "import os\nos.listdir('/')\nreturn 'escaped'"),
    Attack("stat", "import os\nos.stat(CANARY)\nreturn 'escaped'"),
    Attack("remove", "import os\nos.remove(CANARY)\nreturn 'escaped'", control=False),
    Attack("symlink", "import os\nos.symlink(CANARY, ROOM + '/link')\nreturn 'escaped'"),
    Attack("mkdir", "import os\nos.mkdir(ROOM + '/made')\nreturn 'escaped'"),
    Attack("getcwd", "import os\nos.getcwd()\nreturn 'escaped'"),
    Attack("/dev/zero", "open('/dev/zero', 'rb').read(1)\nreturn 'escaped'"),
    Attack("/proc memory", "open('/proc/self/mem', 'rb')\nreturn 'escaped'"),
    Attack("/proc environment", "open('/proc/self/environ', 'rb').read()\nreturn 'escaped'"),
    Attack("duplicate a descriptor", "import os\nos.dup(1)\nreturn 'escaped'"),
    Attack("import from disk", "import antigravity\nreturn 'escaped'", control=False),
    Attack(
        "the way through subclasses",
        """
        for kind in ().__class__.__mro__[1].__subclasses__():
            if kind.__name__ == '_wrap_close':
                found = kind.__init__.__globals__
                found['system']('echo x > ' + ROOM + '/by-subclass')
                found['stat'](ROOM + '/by-subclass')
                return 'escaped'
        """,
    ),
    Attack(
        "the loader's own reading",
        """
        import importlib.machinery
        importlib.machinery.FileFinder.__init__.__globals__['_io'].FileIO(CANARY).read()
        return 'escaped'
        """,
    ),
    c("open in C", "libc.open(CANARY.encode(), 0)"),
    c("memfd", "libc.memfd_create(b'x', 0)"),
    c("read a descriptor", "libc.pread(1, ctypes.create_string_buffer(1), 1, 0)", control=False),
]

OTHERS = [
    Attack(
        "connect",
        REACH.format(name="socket")
        + "socket.create_connection(('127.0.0.1', PORT), timeout=5).close()\nreturn 'escaped'",
    ),
    c("a socket in C", "libc.socket(2, 1, 0)"),
    c("a socket pair", "libc.socketpair(1, 1, 0, (ctypes.c_int * 2)())"),
    Attack("environment", "import os\nreturn 'escaped' if 'ATTACK_SECRET' in os.environ else 'no'"),
    Attack(
        "environment in C",
        LIBC + "libc.getenv.restype = ctypes.c_char_p\n"
        "return 'escaped' if libc.getenv(b'ATTACK_SECRET') == SECRET.encode() else 'no'",
        output="no",
    ),
    Attack("fork", "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nreturn 'escaped'"),
    c("fork in C", "libc.fork() or libc._exit(0)", control=False),
    Attack("fork bomb", "import os\nwhile True:\n    os.fork()", control=False, fault="error"),
    Attack(
        "fork bomb that insists",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        control=False,
        status="timeout",
    ),
    Attack(
        "a background process",
        """
        import os
        if os.fork() == 0:
            os.setsid()
            import time
            time.sleep(0.5)
            open(ROOM + '/from-behind', 'w').close()
            os._exit(0)
        return 'escaped'
        """,
    ),
    Attack("a thread", "import _thread\n_thread.start_new_thread(lambda: None, ())\nreturn 'escaped'"),
    Attack("a shell", "import os\nreturn 'escaped' if os.system('true') == 0 else 'refused'"),
    Attack("spawn", "import os\nos.posix_spawn('/bin/true', ['true'], {})\nreturn 'escaped'"),
    Attack("exec", "import os\nos.execv('/bin/true', ['true'])", control=False, fault="error"),
    Attack("kill the parent", "import os\nos.kill(os.getppid() or 1, 9)\nreturn 'escaped'", control=False),
    Attack("kill all", "import os\nos.kill(-1, 9)\nreturn 'escaped'", control=False),
    Attack("kill the group", "import os\nos.killpg(0, 9)\nreturn 'escaped'", control=False),
    Attack("signal 0", "import os\nos.kill(os.getpid(), 0)\nreturn 'escaped'"),
    c("a signal by fcntl", "libc.fcntl(1, 8, libc.getppid())"),
    c("ptrace", "libc.ptrace(0, 0, 0, 0)"),
    c("another's memory", "libc.process_vm_readv(libc.getppid(), 0, 0, 0, 0, 0)"),
    c("shared memory", "libc.shmget(0, 4096, 0o1600)", control=False),
    c("shared memory by name", "libc.shm_open(b'/attack', 0o102, 0o600)", control=False),
    c("message queue", "libc.msgget(0, 0o1600)", control=False),
    c("a namespace", "libc.unshare(0x10000000)", control=False),
    c("personality", "libc.personality(0xffffffff)"),
    c("prctl", "libc.prctl(3, 0, 0, 0, 0)"),
    c("a filter of its own", "libc.prctl(22, 1, 0, 0, 0)", control=False),
    c("more resources", "libc.getrlimit(7, (ctypes.c_long * 2)())"),
    c("priority", "libc.getpriority(0, 0)"),
    c("io_uring", "libc.syscall(425, 1, ctypes.create_string_buffer(200))", control=False),
    c("bpf", "libc.syscall(321, 0, 0, 0)", control=False),
    c("a signal handler", "libc.signal(10, 1)"),
    c("blocking signals", "libc.sigprocmask(0, ctypes.create_string_buffer(b'\\xff' * 128), 0)"),
    c("a timer", "libc.setitimer(0, ctypes.create_string_buffer(32), 0)"),
    Attack(
        "code of its own",
        LIBC
        + """
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
return 'escaped' if libc.mmap(0, 4096, 7, 0x22, -1, 0) != 2**64 - 1 else 'refused'
""",
    ),
    Attack(
        "data made code",
        LIBC
        + """
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
page = libc.mmap(0, 4096, 3, 0x22, -1, 0)
return 'escaped' if libc.mprotect(ctypes.c_void_p(page), 4096, 5) == 0 else 'refused'
""",
    ),
    Attack("input", "input()\nreturn 'escaped'", control=False, fault="error"),
]

TIME = [
    Attack("a loop", "while True: pass", control=False, status="timeout", fault="timeout"),
    Attack("a loop at the top", "return 1", top="while True: pass", control=False, status="timeout", fault="skipped"),
    Attack(
        "a loop that ignores the timer",
        """
        import signal
        for name in ('SIGALRM', 'SIGVTALRM', 'SIGPROF', 'SIGXCPU'):
            try: signal.signal(getattr(signal, name), signal.SIG_IGN)
            except OSError: pass
        try: signal.setitimer(signal.ITIMER_REAL, 0)
        except OSError: pass
        try: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        except OSError: pass
        signal.alarm(0)
        while True: pass
        """,
        control=False,
        status="timeout",
        fault="timeout",
    ),
    Attack(
        "a loop that catches",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        control=False,
        status="timeout",
        fault="timeout",
    ),
    Attack(
        "a loop in an exit",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
        control=False,
        status="timeout",
        fault="timeout",
    ),
    Attack(
        "a handler that has been changed",
        """
        import signal
        signal.getsignal(signal.SIGALRM).__func__.__code__ = (lambda s, n, f: None).__code__
        while True: pass
        """,
        control=False,
        status="timeout",
        fault="timeout",
    ),
    Attack("a long C call", "return sum(range(10 ** 12))", control=False, status="timeout", fault="timeout"),
    Attack("a regular expression", "import re\nre.match('(a|aa)+$', 'a' * 99 + 'b')", control=False, status="timeout"),
    Attack("sleeping", "import time\ntime.sleep(10 ** 6)", control=False, status="timeout", fault="timeout"),
    Attack(
        "sleeping that insists",
        "import time\nwhile True:\n    try: time.sleep(10 ** 6)\n    except BaseException: pass",
        control=False,
        status="timeout",
    ),
    Attack(
        "a deadlock", "import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\nlock.acquire()", control=False
    ),
    Attack(
        "a destructor that loops",
        "return type('D', (), {'__del__': lambda s: [0 for _ in iter(int, 1)]})() and 1",
        control=False,
    ),
    Attack("items without end", "return type('M', (dict,), {'items': lambda s: iter(int, 1)})(a=1)", control=False),
    Attack(
        "a list without end",
        "return type('L', (list,), {'__iter__': lambda s: (0 for _ in iter(int, 1))})([1])",
        control=False,
    ),
    Attack(
        "a message that loops",
        "return 1",
        top="raise type('E', (Exception,), {'__str__': lambda s: [0 for _ in iter(int, 1)]})",
        control=False,
    ),
    Attack("a generator", "while True: yield 1", control=False, fault="not_json"),
    Attack(
        "its own time-out", "import sys\nraise sys._getframe(1).f_globals['OutOfTime']", control=False, fault="timeout"
    ),
    Attack("settrace", "import sys\nsys.settrace(lambda *a: [0 for _ in iter(int, 1)])\nreturn 1", control=False),
    Attack("a profile", "import sys\nsys.setprofile(lambda *a: [0 for _ in iter(int, 1)])\nreturn 1", control=False),
]

SPACE = [
    Attack("a large list", "return len([0] * 10 ** 10)", control=False, fault="memory"),
    Attack("a growing list", "out = []\nwhile True: out.append(bytes(10 ** 7))", control=False, fault="memory"),
    Attack("a large string", "return 'x' * 10 ** 9", control=False, fault="memory"),
    Attack("a large output", "return 'x' * 10 ** 7", control=False, fault="too_large"),
    Attack("many outputs", "return 'x' * 4900", control=False),
    Attack("a large number", "return 10 ** 10 ** 8", control=False, status="timeout", fault="timeout"),
    Attack("a long number", "return 7 ** 100_000", control=False, fault="too_large"),
    Attack(
        "a long number that is allowed", "import sys\nsys.set_int_max_str_digits(0)\nreturn 10 ** 4500", control=False
    ),
    Attack("recursion", "return f(x)", control=False, fault="error"),
    Attack("recursion that insists", "try: return f(x)\nexcept BaseException: return f(x)", control=False),
    Attack(
        "recursion in C",
        "import sys\nsys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nreturn repr(x)",
        control=False,
    ),
    Attack("a deep output", "for _ in range(10 ** 5): x = [x]\nreturn x", control=False, fault="not_json"),
    Attack(
        "a deep output that insists",
        "import sys\nsys.setrecursionlimit(10 ** 9)\nfor _ in range(2000): x = [x]\nreturn x",
        control=False,
    ),
    Attack("an output in itself", "x = [x]\nx.append(x)\nreturn x", control=False, fault="not_json"),
    Attack("a deep program", "return 1", top="y = " + "(" * 5000 + ")" * 5000, control=False, status="syntax_error"),
    Attack("a long expression", "return 1", top="y = " + "-" * 50_000 + "1", control=False),
    Attack("printing", "print('x' * 10 ** 6)\nreturn x", control=False, status="ok"),
    Attack(
        "printing on all",
        "import sys\nfor _ in range(50): print('x' * 10 ** 6, file=sys.stderr)\nreturn x",
        control=False,
    ),
    c(
        "mapping memory",
        "sum(libc.mmap(0, 1 << 30, 3, 0x8021, -1, 0) != -1 for _ in range(100)) or None",
        control=False,
    ),
]

ENDS = [
    Attack("_exit", "import os\nos._exit(0)", control=False, status="killed", fault="killed"),
    Attack("exit", "import sys\nsys.exit(0)", control=False, status="ok", fault="error"),
    Attack("an interrupt", "raise KeyboardInterrupt", control=False, status="ok", fault="error"),
    Attack("abort", "import os\nos.abort()", control=False, status="killed", fault="killed"),
    Attack("a crash", "import faulthandler\nfaulthandler._read_null()", control=False, status="killed", fault="killed"),
    Attack("a crash in C", LIBC + "ctypes.string_at(1)", control=False, status="killed", fault="killed"),
    Attack(
        "atexit",
        "import atexit, os\natexit.register(lambda: os.write(3, b'=9\\n'))\nraise SystemExit",
        control=False,
        fault="error",
    ),
    Attack("closing everything", "import os\nos.closerange(0, 100)\nreturn x", control=False),
    Attack(
        "a crash at the top",
        "return 1",
        top="import faulthandler\nfaulthandler._read_null()",
        control=False,
        status="killed",
    ),
]

FORGERS = [
    Attack(
        "an output without end", "import os\nwhile True: os.write(3, b'x' * 60_000)", control=False, status="killed"
    ),
    Attack(
        "a large line",
        "import os\nos.write(3, b'=\"' + b'x' * 5000 + b'\"\\n')\nreturn x",
        control=False,
        status="killed",
    ),
    Attack("noise", "import os\nos.write(3, bytes(range(256)) * 9)\nreturn x", control=False, status="killed"),
    Attack("no JSON", "import os\nos.write(3, b'={\"a\"}\\n')\nreturn x", control=False, status="killed"),
    Attack("another status", "import os\nos.write(3, b'~ok \\n')\nreturn x", control=False, status="killed"),
    Attack(
        "half a line", "import os\nos.write(3, b'=[1')\nos._exit(0)", control=False, status="killed", fault="killed"
    ),
    Attack(
        "answers without end", "import os\nwhile True: os.write(3, b'!e\\n')", control=False, status="ok", fault="error"
    ),
    Attack("one answer too many", "import os\nos.write(3, b'=0\\n')\nreturn x", control=False, status="ok"),
    Attack("a drip", "import os\nwhile True: os.write(3, b'=')", control=False),
    Attack(
        "a status at the top",
        "return 1",
        top="import os\nos.write(3, b'~ok \\n=1\\n=2\\n=3\\n')",
        control=False,
        status="ok",
    ),
    Attack("no status", "return 1", top="import os\nos.write(3, b'=1\\n')", control=False, status="killed"),
    Attack(
        "a terminal in a message",
        "return 1",
        top="raise ValueError(chr(27) + '[2J' + chr(10) + '~ok ')",
        control=False,
        status="failed",
    ),
]

NEIGHBOURS = [
    Attack(
        "spoiling modules",
        """
        import builtins, json, math, sys, random
        json.JSONEncoder.encode = json.dumps = json.loads = lambda *a, **k: '"escaped"'
        builtins.sorted = builtins.len = lambda *a: 0
        math.pi = 3
        random.seed(5)
        sys.setrecursionlimit(50)
        sys.modules.clear()
        return x
        """,
        control=False,
    ),
    Attack(
        "what others left in objects",
        """
        import gc, sys
        seen = [sys._getframe().f_back]
        while seen[-1].f_back is not None: seen.append(seen[-1].f_back)
        things = [each for frame in seen for each in (frame.f_locals, frame.f_globals)] + gc.get_objects()
        # in two parts, so that this program does not find itself
        return 'escaped' if any('_'.join(['NEIGHBOUR', 'SECRET']) in repr(each) for each in things) else 'no'
        """,
        control=False,
        output="no",
    ),
    Attack(
        "what others left in memory",
        LIBC
        + """
import gc
note = "FINDABLE_SECRET of this program"
ids = {id(each) for each in gc.get_objects()} | {id(each) for each in gc.get_referents(*gc.get_objects())} | {id(note)}
pages = {at >> 12 for at in ids}
data = b"".join(ctypes.string_at(page << 12, 4096) for page in pages)
own, others = ("_".join([name, "SECRET of"]).encode() in data for name in ("FINDABLE", "NEIGHBOUR"))
return "escaped" if others else "no" if own else "blind"
""",
        control=False,
        output="no",
    ),
    Attack(
        "the descriptors",
        """
        import os
        held = []
        for fd in range(1000):
            try: held.append(os.write(fd, b'') == 0 and fd)
            except OSError: pass
        return 'escaped' if held != [0, 1, 2, 3] else 'no'
        """,
        control=False,
        output="no",
    ),
]

ATTACKS = [*FILES, *OTHERS, *TIME, *SPACE, *ENDS, *FORGERS, *NEIGHBOURS]
BY_NAME = {attack.name: attack for attack in ATTACKS}

#: A program whose outcome shows whether another one has left something behind.
NEIGHBOUR = """
import json, math, random, sys
note = "NEIGHBOUR_SECRET of a program"
seen = []
def f(x):
    seen.append(x)
    state = [len(sys.modules) > 50, sys.getrecursionlimit(), math.pi, random.random()]
    return [seen, sorted("cab"), state, json.dumps(x)]
"""


class Arena:
    """What an attack would reach: a file, a folder, a port, this process; and a sandbox in which it runs."""

    def __init__(self, kind):
        self.sandbox = open_sandbox(kind, LIMITS, notify=lambda _: None)
        self.room = Path(tempfile.mkdtemp(prefix="arena-"))
        self.room.chmod(0o777)
        self.canary = self.room / "canary"
        self.canary.write_text(SECRET)
        self.canary.chmod(0o666)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.neighbour = self.sandbox.run(NEIGHBOUR, INPUTS)
        self.zygote = self.sandbox._zygote.pid
        self.processes = session(self.zygote)

    def check(self):
        """Nothing has happened."""
        assert sorted(path.name for path in self.room.iterdir()) == ["canary"]
        assert self.canary.read_text() == SECRET
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        assert session(self.zygote) == self.processes
        assert self.sandbox.run(NEIGHBOUR, INPUTS) == self.neighbour
        assert self.sandbox._zygote.pid == self.zygote

    def clear(self):
        """Undo what an attack without a sandbox did."""
        for path in self.room.iterdir():
            if path != self.canary:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()

    def close(self):
        self.sandbox.close()
        self.listener.close()
        shutil.rmtree(self.room)


def session(leader):
    """The processes of a sandbox: how many there are should not change."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(stat.parent.name))
    return sorted(found)


@pytest.fixture(scope="module")
def arenas():
    """One of each kind, for all attacks."""
    os.environ["ATTACK_SECRET"] = SECRET
    made = {}
    yield made
    for arena in made.values():
        arena.close()
    del os.environ["ATTACK_SECRET"]


@pytest.fixture
def arena(arenas, request):
    if request.param not in arenas:
        try:
            arenas[request.param] = Arena(request.param)
        except ToolrollError as error:
            pytest.skip(error.why)
    assert arenas[request.param].neighbour.status == "ok"
    return arenas[request.param]


def test_there_are_enough():
    assert len(ATTACKS) == len(BY_NAME) >= 100


@pytest.mark.parametrize(
    ("arena", "name"),
    [("seccomp", attack.name) for attack in ATTACKS]
    + [("bwrap", attack.name) for attack in [*FILES, *OTHERS, *ENDS, *NEIGHBOURS]],
    indirect=["arena"],
)
def test_attack(arena, name):
    attack = BY_NAME[name]
    started = time.monotonic()
    outcome = arena.sandbox.run(attack.code(arena), INPUTS)
    assert time.monotonic() - started < BOUND_S
    assert len(outcome.outputs) == len(INPUTS)
    assert b'"escaped"' not in outcome.outputs
    assert all((output is None) == (i in outcome.faults) for i, output in enumerate(outcome.outputs))
    for output in outcome.outputs:
        json.loads(output or b"null")
    assert outcome.why.isprintable()
    assert attack.status in (None, outcome.status), outcome
    assert attack.fault in (None, outcome.faults.get(0)), outcome
    assert attack.output in (None, json.loads(outcome.outputs[0] or b"null")), outcome
    arena.check()


#: Runs programs in a Python without any sandbox, each in a process of its own, and says which returned "escaped".
WITHOUT = """
import json, os, sys
sys.stderr = open(os.devnull, "w")
for name, code in json.load(sys.stdin).items():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        names = {}
        try:
            exec(code, names)
            os.write(writer, str(names["f"](1)).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    print(json.dumps([name, os.read(reader, 1000).decode()]), flush=True)
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("arena", ["seccomp"], indirect=True)
def test_without_a_sandbox_the_attacks_succeed(arena):
    codes = {attack.name: attack.code(arena) for attack in ATTACKS if attack.control}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=json.dumps(codes), capture_output=True, text=True, check=True, timeout=60
    )
    said = dict(map(json.loads, done.stdout.splitlines()))
    assert {name: said.get(name) for name in codes} == dict.fromkeys(codes, "escaped")
    until = time.monotonic() + 10
    while not (arena.room / "from-behind").exists() and time.monotonic() < until:
        time.sleep(0.05)
    left = {path.name for path in arena.room.iterdir()}
    assert left == {"canary", "written", "link", "made", "by-subclass", "from-behind"}
    arena.clear()
    arena.check()
