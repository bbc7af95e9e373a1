"""nvs-array.sbatch: scenes learned and scored side by side are those of one run."""

from __future__ import annotations

import frame
import pytest
from slurm.rollouts import SCRIPTS

from toolroll.splat.drawn import write_scene

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("warned")]

ARRAY = SCRIPTS / "nvs-array.sbatch"
NAMES = ("box", "two balls", "yard")
TRAIN = ("--steps", "6", "--sh-degree", "0", "--device", "cpu", "--seed", "3")
COMPLETED = ("COMPLETED", 0)


@pytest.fixture
def scenes(tmp_path):
    """A folder with three small scenes, and a list of them."""
    for seed, name in enumerate(NAMES):
        write_scene(tmp_path / "drawn" / name, shots=9, size=(36, 24), seed=seed, points=60)
    (tmp_path / "scenes.txt").write_text("".join(f"drawn/{name}\n" for name in NAMES))
    return tmp_path


def local(folder):
    """What the same commands print one after the other, into `plain`: the scores of all scenes, and their means."""
    env = {"SLURM_CPUS_PER_TASK": "1"}
    for name in NAMES:
        line = ["nvs-train", f"drawn/{name}", *TRAIN, "--out", f"plain/{name}"]
        trained = frame.run(line, cwd=folder, env=env)
        assert trained.rc == 0, trained.err
    scored = frame.run(["nvs-eval", *(f"plain/{name}" for name in NAMES)], cwd=folder, env=env)
    assert scored.rc == 0, scored.err
    return scored, frame.run(["nvs-bench"], cwd=folder, stdin=scored.out)


def test_a_benchmark_of_an_array_is_that_of_one_run(cluster, scenes):
    """Three scenes for two tasks, a warning while a scene is learned, and a job that puts the scores together."""
    given = {"SCENES": "scenes.txt", "OUT": "made here"}
    array = cluster.submit(ARRAY, *TRAIN, cwd=scenes, options=("--array=0-1", "--cpus-per-task=1"), **given)
    merge = "cat 'made here'/scores/*.jsonl > scores.jsonl; nvs-bench scores.jsonl --table bench.md > bench.jsonl"
    after = ("sbatch", "--parsable", f"--dependency=afterok:{array}", "--wrap", merge)
    last = cluster.ask(*after, cwd=scenes).out.decode().strip()
    frame.wait_until(lambda: cluster.processes(array, "nvs-train"), "a scene is being learned")
    assert cluster.ask("scancel", "--batch", "--signal=USR1", f"{array}_1").rc == 0
    alone, together = local(scenes)
    tasks = cluster.wait(array)
    assert [(task.state, task.code) for task in tasks] == [COMPLETED] * 2
    assert [task.restarts for task in tasks] == [0, 1]
    assert [(job.state, job.code) for job in cluster.wait(last)] == [COMPLETED]
    assert (scenes / "scores.jsonl").read_bytes().replace(b"made here/scenes/", b"plain/") == alone.out
    assert (scenes / "bench.jsonl").read_bytes() == together.out
    whole = together.rows[0]
    assert (whole["group"], whole["n_scenes"], whole["n_images"]) == ("all", 3, 6)
    assert "| 3dgs |" in (scenes / "bench.md").read_text()
    for name in NAMES:
        made, plain = (scenes / out / name / "point_cloud.ply" for out in ("made here/scenes", "plain"))
        assert made.read_bytes() == plain.read_bytes()


def task_of(array):
    """The environment of the first task of an array."""
    low, _, high = array.partition("-")
    count = len(range(int(low), int(high) + 1))
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    return dict(zip(names, (low, low, high, str(count)), strict=True)) | {"SLURM_ARRAY_JOB_ID": "1"}


@pytest.mark.parametrize(
    ("listed", "settings", "why"),
    [
        ("a/garden\nb/garden/\nc/yard\n", {}, "scenes.txt: several scenes are named garden"),
        (
            "a/garden\n",
            {"SLURM_ARRAY_TASK_COUNT": "2"},
            "--array: gaps would leave scenes out: use a range without gaps",
        ),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path, listed, settings, why):
    (tmp_path / "scenes.txt").write_text(listed)
    done = frame.run(["bash", str(ARRAY)], cwd=tmp_path, env={**task_of("0-3"), **settings})
    assert (done.rc, done.err) == (2, f"nvs-array.sbatch: {why}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["scenes.txt"]
