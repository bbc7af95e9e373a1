"""What the tests of rollouts share: questions, a scripted model that searches once, and rag-rollout in an array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frame
from slurm.cluster import Cluster

SCRIPTS = frame.ROOT / "pipelines" / "slurm"
ROWS = SCRIPTS / "rows-array.sbatch"
SEARCH = "I look it up.</reasoning>\n    <search>q</search>"
ANSWER = "So it is.</conclusion>\n</step>\n</think>\n<answer>Paris</answer>"
SCRIPT = [{"match": r"<context>(?s:.*)</context>\s*<conclusion>$", "reply": ANSWER}, {"match": ".", "reply": SEARCH}]
SCRIPTED = ("--backend", "scripted")


class Rollouts:
    """A folder with questions and a scripted model, and the rollouts that are made in it."""

    def __init__(self, folder: Path, cluster: Cluster, questions: int, retriever: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.cluster = cluster
        self.retriever = retriever
        rows = [{"id": f"q{i}", "question": f"WHAT IS {i}?", "golden_answers": ["Paris"]} for i in range(questions)]
        (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SCRIPT))

    def submit(self, *options: str, args: tuple[str, ...] = SCRIPTED, model: str = "script.jsonl", **env: Any) -> str:
        """Hand in rows-array.sbatch with sbatch's `options` and rag-rollout's `args`; the job's number."""
        line = ("rag-rollout", "--retriever", self.retriever, "--model", model, *args)
        given = {"INPUT": "questions.jsonl", "OUT": "made here", **env}
        return self.cluster.submit(ROWS, *line, cwd=self.folder, options=options, **given)

    def whole(self, *args: str, model: str = "script.jsonl", env: dict[str, str] | None = None) -> list[bytes]:
        """The rows of one run outside Slurm that is neither divided nor stopped."""
        line = ["rag-rollout", "questions.jsonl", "--retriever", self.retriever, "--model", model, *(args or SCRIPTED)]
        done = frame.run(line, cwd=self.folder, env=env)
        assert done.rc == 0, done.err
        return done.lines

    def share(self, name: str, *, part: bool = False) -> list[bytes]:
        """The rows of a share, `0-of-4`, or what there is of it as yet."""
        path = self.folder / "made here" / f"{name}.jsonl{'.part' if part else ''}"
        return path.read_bytes().splitlines() if path.exists() else []

    def made(self) -> set[str]:
        """The names of all files that were made."""
        return {path.name for path in (self.folder / "made here").glob("*")}

    def log(self, job: str) -> str:
        """What a job, or a task `job_task`, has written."""
        path = self.folder / f"slurm-{job}.out"
        return path.read_text() if path.exists() else ""
