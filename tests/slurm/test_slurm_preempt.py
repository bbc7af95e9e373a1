"""Rollouts that Slurm stops: they go on where they were, to the same bytes, or stay stopped when that was wanted."""

from __future__ import annotations

import json
import time

import frame
import pytest
from slurm.rollouts import Rollouts

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("warned")]


def test_a_more_urgent_job_takes_the_node_and_gives_it_back(cluster, retriever, tmp_path):
    """Slurm warns the script with SIGUSR1, the script puts itself back into the queue and is started again."""
    rollouts = Rollouts(tmp_path, cluster, 160, retriever.spec)
    retriever.pause_s = 0.1
    job = rollouts.submit("--array=1", "--gres=gpu:2", SHARES=2)
    frame.wait_until(lambda: len(rollouts.share("1-of-2", part=True)) >= 3, "some rows are there")
    urgent = ("sbatch", "--parsable", "--partition=urgent", "--gres=gpu:2", "--wrap", "true")
    other = cluster.ask(*urgent, cwd=tmp_path).out.decode().strip()
    cluster.wait(job, lambda tasks: tasks[0].state == "PENDING")
    kept = rollouts.share("1-of-2", part=True)
    assert 3 <= len(kept) < 80
    retriever.pause_s = 0.0
    (task,) = cluster.wait(job)
    assert (task.state, task.code, task.restarts) == ("COMPLETED", 0, 1)
    assert [end.state for end in cluster.wait(other)] == ["COMPLETED"]
    assert rollouts.share("1-of-2") == rollouts.whole()[1::2]
    said = rollouts.log(f"{job}_1")
    assert "rag-rollout: warning: stopped by SIGUSR1; --resume continues it" in said
    assert f"80 in, {80 - len(kept)} out, {len(kept)} skipped" in said


def test_a_cancelled_job_stays_cancelled_and_can_be_gone_on_with(cluster, retriever, tmp_path):
    """scancel sends SIGTERM, which the command answers as a warning; the script must not put the job back for that."""
    rollouts = Rollouts(tmp_path, cluster, 160, retriever.spec)
    retriever.pause_s = 0.1
    job = rollouts.submit("--array=0-1")
    parts = ("0-of-2", "1-of-2")
    frame.wait_until(lambda: all(len(rollouts.share(part, part=True)) >= 3 for part in parts), "rows of both are there")
    assert cluster.ask("scancel", job).rc == 0
    cluster.wait(job)
    asked = retriever.asked
    time.sleep(1)
    assert [(task.state, task.restarts) for task in cluster.jobs(job)] == [("CANCELLED", 0)] * 2
    assert retriever.asked == asked
    for part in parts:
        assert all(json.loads(row) for row in rollouts.share(part, part=True)[:-1])  # the last may be cut
        assert not rollouts.share(part)
    retriever.pause_s = 0.0
    again = rollouts.submit("--array=0-1")
    assert [task.state for task in cluster.wait(again)] == ["COMPLETED"] * 2
    whole = rollouts.whole()
    assert [rollouts.share(part) for part in parts] == [whole[0::2], whole[1::2]]
    assert " skipped" in rollouts.log(f"{again}_0")


def test_a_task_goes_back_into_the_queue_alone(cluster, retriever, tmp_path):
    """The last task of an array has the array's own number; the others go on when it is warned, here twice."""
    rollouts = Rollouts(tmp_path, cluster, 80, retriever.spec)
    retriever.pause_s = 0.1
    job = rollouts.submit("--array=0-1")
    frame.wait_until(lambda: rollouts.share("1-of-2", part=True), "a row is there")
    for _ in range(2):
        assert cluster.ask("scancel", "--batch", "--signal=USR1", f"{job}_1").rc == 0
    cluster.wait(job, lambda tasks: any(task.restarts for task in tasks))
    retriever.pause_s = 0.0
    tasks = cluster.wait(job)
    assert [(task.state, task.code, task.restarts) for task in tasks] == [("COMPLETED", 0, 0), ("COMPLETED", 0, 1)]
    assert [rollouts.share(f"{i}-of-2") for i in (0, 1)] == [rollouts.whole()[i::2] for i in (0, 1)]


def test_a_warning_before_the_command_can_answer_it(cluster, retriever, tmp_path):
    rollouts = Rollouts(tmp_path, cluster, 8, retriever.spec)
    retriever.pause_s = 0.3
    job = rollouts.submit("--array=0")
    frame.wait_until(lambda: cluster.processes(job, "rag-rollout"), "the command is started")
    assert cluster.ask("scancel", "--batch", "--signal=USR1", job).rc == 0
    cluster.wait(job, lambda tasks: tasks[0].restarts == 1)
    retriever.pause_s = 0.0
    (task,) = cluster.wait(job)
    assert (task.state, task.code, task.restarts) == ("COMPLETED", 0, 1)
    assert rollouts.share("0-of-1") == rollouts.whole()
