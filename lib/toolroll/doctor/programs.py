"""Programs beside Python: the sandbox's, Slurm's, and those that some commands and pipelines call."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from toolroll.errors import ToolrollError
from toolroll.records.machine import MachinePart

_WAIT_S = 10.0
_SANDBOX_FOR = "running programs of models: gear-ask, gear-pairs, gear-score"


def seccomp() -> Iterator[MachinePart]:
    """Whether a program really runs behind the system call filter."""
    why = _tried("seccomp")
    yield MachinePart(
        part="sandbox: seccomp",
        ok=not why,
        core=True,
        found=why or "a program ran behind the system call filter",
        used_for=_SANDBOX_FOR,
    )


def bubblewrap() -> Iterator[MachinePart]:
    """Whether one really runs in namespaces besides."""
    why = _tried("bwrap")
    missing = shutil.which("bwrap") is None
    yield MachinePart(
        part="sandbox: bwrap",
        ok=not why,
        core=False,
        found=why or "a program ran in bubblewrap",
        used_for=f"a second wall for {_SANDBOX_FOR}",
        install="apt install bubblewrap" if missing else None,
    )


def slurm() -> Iterator[MachinePart]:
    """Whether a cluster answers here, and whether this is a job of one."""
    missing = [name for name in ("sbatch", "squeue", "sinfo") if shutil.which(name) is None]
    partitions, why = ("", f"{', '.join(missing)} not found") if missing else _answer("sinfo", "--noheader", "-o", "%R")
    job, task = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    inside = f"inside job {job}" + (f", task {task} of an array" if task else "") if job else "not inside a job"
    yield MachinePart(
        part="slurm",
        ok=not why,
        core=False,
        found=f"{why or 'partitions ' + ', '.join(partitions.split())}; {inside}",
        used_for="pipelines/slurm, --shard slurm",
        install="apt install slurm-client" if missing else None,
    )


def ffmpeg() -> Iterator[MachinePart]:
    """For films."""
    yield _program("ffmpeg", "nvs-render --video", option="-version")


def jq() -> Iterator[MachinePart]:
    """For the examples and the pipelines."""
    yield _program("jq", "examples and pipelines")


def _program(name: str, used_for: str, option: str = "--version") -> MachinePart:
    there = shutil.which(name) is not None
    said, why = _answer(name, option) if there else ("", "not installed")
    return MachinePart(
        part=name,
        ok=not why,
        core=False,
        found=why or next((line for line in said.splitlines() if line), "installed"),
        used_for=used_for,
        install=None if there else f"apt install {name}",
    )


def _answer(*argv: str) -> tuple[str, str]:
    """What a program says, and why it fails; "" where it does not."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{argv[0]} does not answer: {error}"
    if done.returncode == 0:
        return done.stdout, ""
    return "", next((line for line in done.stderr.splitlines() if line), f"{argv[0]} ended with {done.returncode}")


def _tried(kind: str) -> str:
    """Why a program does not run in this kind of sandbox; "" where it does."""
    from toolroll.abduction.execution import Limits
    from toolroll.abduction.sandbox import WITHOUT, open_sandbox

    try:
        executor = open_sandbox(kind, Limits(timeout_s=5.0, total_s=_WAIT_S), notify=lambda _: None)
        try:
            outcome = executor.run("def f(x):\n    return x + 1", [b"1"])
        finally:
            executor.close()
    except ToolrollError as error:
        return error.why.removesuffix(WITHOUT)
    return "" if outcome.outputs == [b"2"] else outcome.why or f"a program that adds 1 ended as {outcome.status}"
