"""The warning before a time limit, sent by Slurm's own clock. The job is handed in by the first of these tests."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slurm


def test_a_job_warned_of_its_time_limit_goes_on_and_completes(cluster, warned):
    """`--signal=B:USR1@30` and a minute's limit, two tasks: each ends with 75 and is put back by its script."""
    rollouts, job, retriever = warned
    told = "rag-rollout: warning: stopped by SIGUSR1; --resume continues it"
    cluster.wait(job, lambda tasks: len(tasks) == 2 and all(told in rollouts.log(f"{job}_{i}") for i in (0, 1)))
    retriever.pause_s = 0.0
    tasks = cluster.wait(job)
    assert [(task.state, task.code) for task in tasks] == [("COMPLETED", 0)] * 2
    assert all(task.restarts for task in tasks)
    whole = rollouts.whole()
    for i in (0, 1):
        assert rollouts.share(f"{i}-of-2") == whole[i::2]
        assert " skipped" in rollouts.log(f"{job}_{i}").splitlines()[-1]
    assert not [name for name in rollouts.made() if name.endswith(".part")]
