"""Job arrays of rag-rollout: together they are the whole, or they are refused."""

from __future__ import annotations

import frame
import pytest
import training
from slurm.rollouts import Rollouts

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("warned")]

TINY = ("--device", "cpu", "--raw-prompt", "--turn-tokens", "8", "--max-searches", "1", "--on-invalid", "stop")
COMPLETED = ("COMPLETED", 0)


def ends(jobs):
    return [(job.state, job.code) for job in jobs]


def test_an_array_makes_what_one_run_makes(cluster, retriever, tmp_path):
    """Ids from 1, names with spaces, options, and a job that puts the shares together when all have ended well."""
    rollouts = Rollouts(tmp_path / "two words", cluster, 30, retriever.spec)
    array = rollouts.submit("--array=1-4", args=("--backend", "scripted", "--samples", "2"))
    merge = "cat 'made here'/*-of-4.jsonl > rollouts.jsonl"
    after = ("sbatch", "--parsable", f"--dependency=afterok:{array}", "--wrap", merge)
    last = cluster.ask(*after, cwd=rollouts.folder).out.decode().strip()
    assert ends(cluster.wait(last)) == [COMPLETED]
    assert ends(cluster.wait(array)) == [COMPLETED] * 4
    whole = rollouts.whole("--backend", "scripted", "--samples", "2")
    assert len(whole) == 60
    merged = (rollouts.folder / "rollouts.jsonl").read_bytes().splitlines()
    assert sorted(merged) == sorted(whole)
    for i in range(4):
        assert rollouts.share(f"{i}-of-4") == [row for j, row in enumerate(whole) if j // 2 % 4 == i]
        assert f"slurm: this is shard {i}/4" in rollouts.log(f"{array}_{i + 1}")


def test_a_real_model_divided_is_the_same_to_the_byte(cluster, tmp_path):
    rollouts = Rollouts(tmp_path, cluster, 5, "none")
    one_cpu = {"SLURM_CPUS_PER_TASK": "1"}  # as in the jobs: the order of sums depends on the number of threads
    alone = (*TINY, "--batch-size", "1")  # neighbours in a batch can change the last digit of a log-probability
    array = rollouts.submit("--array=0-1", "--cpus-per-task=1", args=alone, model=str(training.TINY))
    assert ends(cluster.wait(array)) == [COMPLETED] * 2
    assert sorted(rollouts.share("0-of-2") + rollouts.share("1-of-2")) == sorted(
        rollouts.whole(*alone, model=str(training.TINY), env=one_cpu)
    )


def test_arrays_with_gaps_a_step_or_a_late_start_are_refused(cluster, retriever, tmp_path):
    """In one line, with exit code 2, before anything is made, and not put back into the queue."""
    rollouts = Rollouts(tmp_path, cluster, 6, retriever.spec)
    told = {
        "0,2,5": "the array 0-5 has 3 task(s) and step 1; gaps would drop records: use a range without gaps, or",
        "0-6:2": "the array 0-6 has 4 task(s) and step 2; gaps would drop records: use a range without gaps, or",
        "3-4": "the array 3-4 begins at 3; number it from 0 or 1, or",
    }
    arrays = {ids: rollouts.submit(f"--array={ids}") for ids in told}
    for ids, array in arrays.items():
        tasks = cluster.wait(array)
        assert ends(tasks) == [("FAILED", 2)] * len(tasks)
        assert not any(task.restarts for task in tasks)
        for task in tasks:
            line = f"rag-rollout: --shard: slurm: {told[ids]} to run a share again give it by number, --shard I/N\n"
            assert rollouts.log(f"{array}_{task.task}") == line
    assert rollouts.made() == set()


def test_some_shares_again_by_number_and_what_is_complete_left_alone(cluster, retriever, tmp_path):
    rollouts = Rollouts(tmp_path, cluster, 12, retriever.spec)
    assert ends(cluster.wait(rollouts.submit("--array=0-3"))) == [COMPLETED] * 4
    shares = [rollouts.share(f"{i}-of-4") for i in range(4)]
    for i in (1, 3):
        (rollouts.folder / "made here" / f"{i}-of-4.jsonl").unlink()
    assert ends(cluster.wait(rollouts.submit("--array=1,3", SHARES=4))) == [COMPLETED] * 2
    assert [rollouts.share(f"{i}-of-4") for i in range(4)] == shares
    before = retriever.asked
    again = rollouts.submit("--array=0-3")
    assert ends(cluster.wait(again)) == [COMPLETED] * 4
    assert retriever.asked == before
    assert rollouts.log(f"{again}_2") == "made here/2-of-4.jsonl is there already\n"


def test_outside_an_array_nothing_is_guessed(cluster, retriever, tmp_path):
    """Without srun one process runs, whatever SLURM_NTASKS says: a fourth of the rows would be lost work."""
    rollouts = Rollouts(tmp_path, cluster, 8, retriever.spec)
    line = "rag-rollout questions.jsonl --backend scripted --model script.jsonl --retriever none"
    script = tmp_path / "job.sbatch"
    script.write_text(
        "#!/bin/bash\n#SBATCH --ntasks=4\necho $SLURM_NTASKS > ntasks\n"
        f"{line} -o all.jsonl 2> /dev/null\n{line} --shard slurm -o 'out.{{shard}}.jsonl'\n"
    )
    job = cluster.submit(script, cwd=tmp_path)
    assert ends(cluster.wait(job)) == [("FAILED", 2)]
    assert (tmp_path / "ntasks").read_text() == "4\n"
    assert len((tmp_path / "all.jsonl").read_bytes().splitlines()) == 8
    assert rollouts.log(job) == (
        "rag-rollout: --shard: slurm: no SLURM_ARRAY_TASK_ID here; start this in an array (sbatch --array=0-7), "
        "or give I/N\n"
    )
    assert not list(tmp_path.glob("out.*"))


def test_srun_runs_a_command_once_a_task_and_only_one_writes(cluster, retriever, tmp_path):
    """Two tasks of one srun are the same share: the second is refused instead of writing into the first's file."""
    rollouts = Rollouts(tmp_path, cluster, 6, retriever.spec)
    retriever.pause_s = 0.5
    line = f"rag-rollout questions.jsonl --backend scripted --model script.jsonl --retriever {retriever.spec}"
    script = tmp_path / "job.sbatch"
    script.write_text(f"#!/bin/bash\n#SBATCH --ntasks=2\nsrun --wait=0 {line} -o out.jsonl\n")
    job = cluster.submit(script, cwd=tmp_path)
    frame.wait_until(lambda: "another process is writing it" in rollouts.log(job), "one is refused")
    retriever.pause_s = 0.0
    assert ends(cluster.wait(job)) == [("FAILED", 1)]
    assert sorted((tmp_path / "out.jsonl").read_bytes().splitlines()) == sorted(rollouts.whole())
