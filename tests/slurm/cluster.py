"""A Slurm cluster of one node on the loopback address, for as long as the tests run.

Its daemons are children of the test process, keep everything in a folder of their own and listen on ports that were
free: nothing of a cluster that the machine may be part of is read, written or asked.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frame

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo", "setpriv")
SYSTEM_PATH = "/usr/sbin:/sbin"  #: where daemons are, which need not be on a user's PATH
CPUS = 8  #: what the node says it has, so that jobs which mostly wait can run side by side
START_S = 20.0
JOB_S = 300.0  #: how long a job may take, requeues and all
POLL_S = 0.2

MUNGE = ("--num-threads=2", "--socket={here}/munge.socket", "--key-file={here}/munge.key")
MUNGE += ("--pid-file={here}/munged.pid", "--seed-file={here}/munged.seed", "--log-file={here}/munged.log")

CONF = """\
ClusterName=toolroll
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job waits a second longer than a credential lives
AuthInfo=socket={here}/munge.socket,cred_expire=5
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
# no cgroups, which containers seldom have
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
JobRequeue=1
# how long a job is remembered after its end
MinJobAge=3600
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 Gres=gpu:2 State=UNKNOWN
# a job of the second takes what it needs from those of the first, and Slurm tells them with their own signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=test Nodes={host} Default=YES PriorityTier=1 GraceTime=30 State=UP
PartitionName=urgent Nodes={host} PriorityTier=2 PreemptMode=OFF State=UP
"""


def lacking() -> str | None:
    """Why there cannot be a cluster here; None if there can."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    gone = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if gone:
        return f"Slurm is not installed ({', '.join(gone)} not found); tests/slurm/install.sh installs it on Debian"
    if os.geteuid() != 0:
        return "Slurm's daemons run jobs as other users and so want root"
    return None


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job, or of a task of an array."""

    state: str
    code: int
    signal: int
    restarts: int
    task: int | None
    reason: str

    @property
    def ended(self) -> bool:
        """Whether it will not run again."""
        return self.state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


class Cluster:
    """The daemons, and the commands that speak to them."""

    def __init__(self) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="toolroll-slurm-"))
        self.here.chmod(0o755)  # the socket in it must be within everyone's reach
        self.environment = {
            "SLURM_CONF": str(self.here / "slurm.conf"),
            "PATH": f"{frame.BIN}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Write the settings, start the daemons, wait until the node takes jobs."""
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (self.here / name).mkdir()
        for name in ("gpu0", "gpu1"):
            (self.here / name).touch()
        (self.here / "gres.conf").write_text(f"Name=gpu File={self.here}/gpu[0-1]\n")
        conf = CONF.format(here=self.here, host=host, cpus=CPUS, ctld_port=_free_port(), slurmd_port=_free_port())
        (self.here / "slurm.conf").write_text(conf)
        key = self.here / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._start_daemon("munged", "--foreground", *(option.format(here=self.here) for option in MUNGE))
        self._wait_for(lambda: (self.here / "munge.socket").exists())
        self._start_daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        self._start_daemon("slurmd", "-D", "-N", host, "-f", self.environment["SLURM_CONF"])
        self._wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T").out.strip() == b"idle")

    def stop(self) -> None:
        """Cancel what still runs, end the daemons, remove the folder."""
        if len(self._daemons) == 3:
            self.ask("scancel", "--full", "--signal=KILL", "--user=root")
            self.ask("scancel", "--user=root")
            end = time.monotonic() + START_S
            while self.ask("squeue", "--noheader").out.strip() and time.monotonic() < end:
                time.sleep(POLL_S)
            for pid, *_ in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(START_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.here, ignore_errors=True)

    def ask(self, *argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> frame.Result:
        """Run a program in the cluster's environment, `env` added to it."""
        return frame.run(list(argv), cwd=cwd or self.here, env={**self.environment, **(env or {})})

    def submit(self, script: Path, *args: Any, cwd: Path, options: tuple[str, ...] = (), **env: Any) -> str:
        """Hand in a job script with `args`; the job's number. `env` are variables, `options` are sbatch's."""
        variables = {name: str(value) for name, value in env.items()}
        line = ["sbatch", "--parsable", *options, str(script), *(str(arg) for arg in args)]
        done = self.ask(*line, cwd=cwd, env=variables)
        assert done.rc == 0, done.err
        return done.out.decode().strip()

    def jobs(self, number: str) -> list[Job]:
        """What is known of a job: one, or one for each task of an array (those that wait together are one)."""
        told = self.ask("scontrol", "--oneliner", "show", "job", number)
        assert told.rc == 0, told.err
        return [_job(line) for line in told.out.decode().splitlines() if line.startswith("JobId=")]

    def processes(self, number: str, name: str) -> list[int]:
        """The processes of a job that run the command `name`."""
        mine = [pid for pid, job, *_ in self._pids() if job == number]
        return [int(pid) for pid in mine if name in _words(Path("/proc", pid, "cmdline"))]

    def wait(self, number: str, until: Callable[[list[Job]], bool] | None = None) -> list[Job]:
        """Wait until a job has ended, or is `until` something else, and see how it is then."""
        reached = until or (lambda jobs: all(job.ended for job in jobs))
        end = time.monotonic() + JOB_S
        while not reached(jobs := self.jobs(number)):
            in_vain = time.monotonic() > end or (until is not None and all(job.ended for job in jobs))
            assert not in_vain, f"waited in vain for job {number}: {jobs}"
            time.sleep(POLL_S)
        return sorted(jobs, key=lambda job: job.task or 0)

    def _pids(self) -> list[list[str]]:
        """A row for each process of a job: its number, the job's, and more."""
        rows = (line.split() for line in self.ask("scontrol", "listpids").out.decode().splitlines()[1:])
        return [row for row in rows if row[0].isdigit() and int(row[0]) > 1]

    def _start_daemon(self, *argv: str) -> None:
        # One that outlives a killed test process would hold its port for ever.
        line = ["setpriv", "--pdeathsig", "TERM", *argv]
        with open(self.here / f"{argv[0]}.out", "wb") as log:
            daemon = subprocess.Popen(
                line,
                env=frame.environment(self.environment),
                cwd=self.here,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._daemons.append(daemon)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_S
        while not condition():
            dead = [daemon for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = [f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.here.glob("*.out"))]
                raise RuntimeError("the cluster does not come up\n" + "\n".join(logs))
            time.sleep(POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _words(path: Path) -> list[str]:
    """The names of the first two words of a command line: of a script, its interpreter and itself."""
    try:
        return [Path(os.fsdecode(word)).name for word in path.read_bytes().split(b"\0")[:2]]
    except OSError:  # it has ended
        return []


def _job(line: str) -> Job:
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    code, _, number = fields["ExitCode"].partition(":")
    task = fields.get("ArrayTaskId", "")
    return Job(
        state=fields["JobState"],
        code=int(code),
        signal=int(number),
        restarts=int(fields["Restarts"]),
        task=int(task) if task.isdigit() else None,
        reason=fields["Reason"],
    )
