"""The job scripts themselves: what can be said of them without Slurm."""

from __future__ import annotations

import re
import shutil
import subprocess

import frame
import pytest
from slurm.rollouts import SCRIPTS

pytestmark = pytest.mark.slurm
every_script = pytest.mark.parametrize("path", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
ARRAYS = ("rows-array.sbatch", "nvs-array.sbatch")
ANSWER = re.compile(r"^# Slurm sends SIGUSR1.*?^run\(\) \{.*?^\}$", re.MULTILINE | re.DOTALL)


@every_script
def test_a_script_is_sound(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = frame.run(["shellcheck", "--shell=bash", str(path)])
        assert (done.rc, done.out) == (0, b"")


@every_script
def test_what_sbatch_reads_stands_before_the_first_command(path):
    """It stops reading there, without a word."""
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert [i for i, line in enumerate(lines) if line.startswith("#SBATCH") and i > first] == []
    settings = {line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")}
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120"} < settings
    assert lines[first] == "set -euo pipefail"


def test_all_scripts_answer_signals_alike():
    """sbatch copies a script to a folder of its own, from where it finds no other: each has these lines itself."""
    answers = {path.name: answer(path.read_text()) for path in SCRIPTS.iterdir()}
    assert set(answers.values()) == {answers["loop-step.sbatch"]}


def answer(script):
    """The lines of a script that answer Slurm's signals, but for how it names its job.

    And but for what policy-train.sbatch has more: several processes want another signal, and end with another code.
    """
    lines = re.sub(r"^job=\S+", "job=", ANSWER.search(script)[0], flags=re.MULTILINE).replace('"-$signal"', "-USR1")
    own = ("# To name a task by", '  if [ "$code" -eq 1 ] && [ -n "$warned" ] && [ "$processes" -gt 1 ]')
    return "\n".join(line for line in lines.splitlines() if not line.startswith(own))


@pytest.mark.parametrize("name", ARRAYS)
def test_without_an_array_the_array_script_says_what_it_is_for(tmp_path, name):
    done = frame.run(["bash", str(SCRIPTS / name)], cwd=tmp_path)
    assert done.rc != 0
    assert done.err.rstrip().endswith("SLURM_ARRAY_TASK_ID: this is for sbatch --array")
    assert list(tmp_path.iterdir()) == []
