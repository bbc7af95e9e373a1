"""The lines of README.md about clusters: handed in as they stand, they make what one run makes."""

from __future__ import annotations

import json
import re

import frame
import pytest
import readme
import training
from slurm.rollouts import Rollouts

pytestmark = pytest.mark.slurm

PASSAGES = [{"id": f"p{i}", "contents": f'"Title {i}"\nThing {i} is in Paris.'} for i in range(9)]


def test_the_lines_of_the_readme_run(cluster, tmp_path):
    found = readme.sections(readme.README.read_text())
    start = found[readme.START][0].script
    array, again, train = found["On a cluster"]
    root = readme.checkout(tmp_path / "checkout")
    rollouts = Rollouts(root / "try", cluster, 19, "bm25:index")
    (rollouts.folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PASSAGES))
    assert frame.run(["rag-index", "passages.jsonl", "index"], cwd=rollouts.folder).rc == 0
    scripted = {"TOOLROLL_MODEL": "script.jsonl", "TOOLROLL_BACKEND": "scripted"}

    def ends(block, **env):
        """Hand in what a block does, and see how the jobs end that it tells of."""
        done = cluster.ask("bash", "-euo", "pipefail", "-c", f"{start}\n{block.script}", cwd=root, env=env)
        assert done.rc == 0, done.err
        numbers = re.findall(r"Submitted batch job (\d+)", done.out.decode())
        return [(job.state, job.code) for number in numbers for job in cluster.wait(number)]

    assert ends(array, **scripted) == [("COMPLETED", 0)]
    whole = rollouts.whole("--backend", "scripted")
    assert len(whole) == 19
    assert sorted((rollouts.folder / "rollouts.jsonl").read_bytes().splitlines()) == sorted(whole)

    shares = sorted((rollouts.folder / "rollouts").glob("*-of-8.jsonl"))
    before = [share.read_bytes() for share in shares]
    for i in (3, 5):
        shares[i].unlink()
    assert ends(again, **scripted) == [("COMPLETED", 0)] * 2
    assert [share.read_bytes() for share in shares] == before

    (rollouts.folder / "train.jsonl").write_bytes(training.lines(training.rollouts(8)))
    assert ends(train, MODEL=str(training.TINY)) == [("COMPLETED", 0)]
    assert (rollouts.folder / "policy/current").resolve().name == "v000001"
