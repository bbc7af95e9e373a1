"""policy-train and the loop around it in jobs that are killed and stopped: the weights are those of calm runs."""

from __future__ import annotations

import json
import os
import signal

import frame
import pytest
import training
from slurm.rollouts import SCRIPTS

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("warned")]

ONE_CPU = ("--cpus-per-task=1",)
SETTINGS = ("--device", "cpu", "--lr", "1e-2", "--batch-rows", "8")
ROWS = training.rollouts(36)


class Training:
    """A folder with a policy that policy-train.sbatch trains on all rows, or on those that come through a pipe."""

    def __init__(self, folder, cluster, *, piped=True):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.cluster = cluster
        if piped:
            os.mkfifo(folder / "rows here")
        else:
            (folder / "rows here").write_bytes(training.lines(ROWS))
        self._pipe = -1

    def submit(self, *options, **env):
        given = {"ROWS": "rows here", "POLICY": "my policy", "MODEL": training.TINY}
        script = SCRIPTS / "policy-train.sbatch"
        options = (*ONE_CPU, *options)
        return self.cluster.submit(script, *SETTINGS, cwd=self.folder, options=options, **given, **env)

    def give(self, count):
        """Hand the first `count` rows to the job when it opens the pipe; it then waits for more, or for `end`."""

        def opened():
            try:
                self._pipe = os.open(self.folder / "rows here", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
            return True

        frame.wait_until(opened, "the job reads its rows")
        data = training.lines(ROWS[:count])
        assert os.write(self._pipe, data) == len(data)

    def end(self):
        """No more rows come."""
        os.close(self._pipe)

    def steps(self):
        """The rows of the updates that were made."""
        path = self.folder / "my policy.steps.jsonl"
        return [json.loads(row) for row in path.read_bytes().splitlines()] if path.exists() else []

    def reach(self, count):
        frame.wait_until(lambda: len(self.steps()) == count, f"update {count}")

    def log(self, job):
        return (self.folder / f"slurm-{job}.out").read_text()

    def weights(self):
        return training.weights(self.folder / "my policy" / "current")


def test_killed_stopped_and_requeued_the_weights_are_the_same(cluster, tmp_path):
    """kill -9 and a requeue by hand, then a warning: each update stands in the steps once."""
    calm = Training(tmp_path / "calm", cluster, piped=False)
    calm_job = calm.submit()
    broken = Training(tmp_path / "broken", cluster)
    job = broken.submit("--gres=gpu:1")
    broken.give(20)
    broken.reach(2)
    (process,) = cluster.processes(job, "policy-train")
    os.kill(process, signal.SIGKILL)
    (end,) = cluster.wait(job)
    broken.end()
    assert (end.state, end.code) == ("FAILED", 128 + signal.SIGKILL)
    assert cluster.ask("scontrol", "requeue", job).rc == 0

    broken.give(28)
    broken.reach(3)
    assert cluster.ask("scancel", "--batch", "--signal=USR1", job).rc == 0
    cluster.wait(job, lambda jobs: jobs[0].restarts == 2)
    broken.end()

    broken.give(36)
    broken.end()
    (end,) = cluster.wait(job)
    assert (end.state, end.code, end.restarts) == ("COMPLETED", 0, 2)
    (end,) = cluster.wait(calm_job)
    assert (end.state, end.code, end.restarts) == ("COMPLETED", 0, 0)
    assert [step["step"] for step in calm.steps()] == [1, 2, 3, 4, 5]
    assert broken.steps() == calm.steps()
    assert training.furthest(broken.weights(), calm.weights()) == 0.0
    assert training.furthest(calm.weights(), training.weights(training.TINY)) > 1e-3
    said = broken.log(job)
    assert "policy-train: warning: stopped by SIGUSR1" in said
    assert "on cpu, float32, 1 threads" in said  # Slurm gave it a GPU's number; that no GPU is there decides


def test_several_processes_are_warned_and_put_back(cluster, tmp_path):
    """Under `accelerate launch`, which hands on neither SIGUSR1 nor exit codes."""
    several = Training(tmp_path, cluster)
    job = several.submit(PROCESSES=2)
    several.give(12)
    several.reach(1)
    assert cluster.ask("scancel", "--batch", "--signal=USR1", job).rc == 0
    cluster.wait(job, lambda jobs: jobs[0].restarts == 1)
    cluster.ask("scancel", job)
    several.end()
    said = several.log(job)
    assert "2 processes" in said
    assert "policy-train: warning: stopped by SIGTERM" in said
    assert (tmp_path / "my policy" / "current").readlink().name == "v000001"


def test_a_loop_of_jobs_with_files_between_is_the_same_stopped_or_not(cluster, tmp_path):
    """Two steps, the second waiting for the first, which is warned while it answers questions."""
    rows = [{"id": f"q{i}", "question": f"WHAT IS {i}?", "golden_answers": ["A"]} for i in range(9)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = SCRIPTS / "loop-step.sbatch"
    settings = {
        "INPUT": "questions.jsonl",
        "QUESTIONS": 6,
        "SAMPLES": 1,
        "RETRIEVER": "none",
        "MODEL": training.TINY,
        "TOOLROLL_DEVICE": "cpu",
        "TOOLROLL_RAW_PROMPT": 1,
        "TOOLROLL_TURN_TOKENS": 100,
        "TOOLROLL_MAX_SEARCHES": 0,
        "TOOLROLL_BATCH_SIZE": 1,
    }
    # nothing that this model says is worth anything, so it is the entropy that it learns from
    args = ("--lr", "1e-2", "--entropy-coef", "0.1")
    loop = {"cwd": tmp_path, "OUT": "with slurm", **settings}
    first = cluster.submit(script, *args, options=ONE_CPU, STEP=1, **loop)
    second = cluster.submit(script, *args, options=(*ONE_CPU, f"--dependency=afterok:{first}"), STEP=2, **loop)
    plain = {**settings, "OUT": "plain", "STEP": 1, "SLURM_CPUS_PER_TASK": 1}
    calm = {name: str(value) for name, value in plain.items()}
    with frame.started(["bash", str(script), *args], cwd=tmp_path, env=calm) as outside:
        made = tmp_path / "with slurm"
        part = made / "step000001" / "rollouts.jsonl.part"
        frame.wait_until(lambda: part.exists() and part.stat().st_size, "the first answer")
        assert cluster.ask("scancel", "--batch", "--signal=USR1", first).rc == 0
        assert frame.ended(outside).rc == 0
    assert [(job.state, job.restarts) for job in cluster.wait(first)] == [("COMPLETED", 1)]
    assert "rag-rollout: warning: stopped by SIGUSR1" in (tmp_path / f"slurm-{first}.out").read_text()
    assert [(job.state, job.restarts) for job in cluster.wait(second)] == [("COMPLETED", 0)]
    for name in ("questions.jsonl", "rollouts.jsonl", "train.jsonl"):
        one, other = (tmp_path / out / "step000001" / name for out in ("with slurm", "plain"))
        assert one.read_bytes() == other.read_bytes()
    steps = (made / "steps.jsonl").read_bytes().splitlines()
    assert [json.loads(step)["step"] for step in steps] == [1, 2]
    assert steps[:1] == (tmp_path / "plain" / "steps.jsonl").read_bytes().splitlines()
    after_one = (training.weights(policy / "v000001") for policy in (made / "policy", tmp_path / "plain" / "policy"))
    assert training.furthest(*after_one) == 0.0
    answers = [json.loads(row) for row in (made / "step000002" / "rollouts.jsonl").read_bytes().splitlines()]
    assert {answer["policy_version"] for answer in answers} == {"v000001"}
    assert [answer["id"] for answer in answers] == ["q0", "q1", "q2", "q6", "q7", "q8"]
