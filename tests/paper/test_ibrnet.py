"""The experiment with more and fewer scenes, at a size that shows that it works, and its report."""

from __future__ import annotations

import json
import sys

import frame
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL", reason="photos are read by pillow")

MODULES = ("ibrnet",)


@pytest.fixture(scope="module")
def experiment(modules):
    return modules["ibrnet"]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What stands for a real scene."""
    from toolroll.splat.drawn import write_scene

    return write_scene(tmp_path_factory.mktemp("real") / "garden", shots=9, size=(36, 24), seed=77, lens="OPENCV").root


def ran(experiment, out, real, work, *more):
    arguments = ["--quick", "--counts", "0", "1", "2", "--seeds", "1", "--out", out, "--work", work]
    experiment.main([*map(str, [*arguments, *(() if real is None else ("--real", real))]), *more])
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope="module")
def quick(experiment, real, tmp_path_factory):
    """A folder with the rows of a tiny experiment, and what it made."""
    folder = tmp_path_factory.mktemp("ibrnet-experiment")
    ran(experiment, folder / "rows.jsonl", real, folder / "work")
    return folder


def told(rows):
    """The rows by number of scenes, without what a clock says."""
    return {row["scenes"]: {**row, "cpu_s": None} for row in rows}


def rows_in(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_all_are_measured_alike_on_what_none_was_trained_on(experiment, quick):
    rows = told(rows_in(quick))
    assert list(rows) == [0, 1, 2]
    for row in rows.values():
        assert {stage: {what for what, score in one.items() if score} for stage, one in row["scores"].items()} == {
            "before": {"drawn", "real"},
            "mix": {"drawn", "real"},
            "own": {"real"},
        }
        assert row["parameters"] == rows[0]["parameters"]
        assert row["real"] == "garden"
        assert all(one["psnr_db"] > 3 for stage in row["scores"].values() for one in stage.values())
    first = [row["scores"]["mix"]["drawn"]["psnr_db"] for row in rows.values()]
    assert len(set(first)) == 3
    models = next(quick.glob("work/models-*"))
    trained = {
        path.name: [one["scene"] for one in json.loads((path / "train.json").read_text()).get("scenes", [])]
        or [json.loads((path / "train.json").read_text())["scene"]]
        for path in models.iterdir()
    }
    assert set(trained) == {"0-1-mix", "0-1-own", "1-1-pre", "1-1-mix", "1-1-own", "2-1-pre", "2-1-mix", "2-1-own"}
    assert trained["0-1-mix"] == trained["1-1-mix"] == trained["2-1-mix"]
    assert set(trained["1-1-pre"]) < set(trained["2-1-pre"])
    seen = {scene for name, scenes in trained.items() for scene in scenes if not name.endswith("own")}
    assert not any(f"/{experiment.TESTED}" in scene for scene in seen)
    assert not set(trained["2-1-pre"]) & set(trained["0-1-mix"])
    parts = json.loads((models / "0-1-own" / "train.json").read_text())["cameras"]
    assert {camera["part"] for camera in parts} == {"train"}  # of the real one, those that are measured are not there
    assert len(parts) == 7


def test_a_killed_experiment_goes_on(experiment, real, quick, tmp_path):
    lines = (quick / "rows.jsonl").read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:-1]) + lines[-1][:40])
    assert told(ran(experiment, out, real, quick / "work")) == told(rows_in(quick))
    before = out.read_text()
    ran(experiment, out, real, quick / "work")
    assert out.read_text() == before  # what is there is not made again


def test_without_a_real_scene_drawn_ones_are_measured_alone(experiment, quick):
    runs = experiment.Runs(experiment.QUICK, quick / "work", None, None)
    assert list(experiment.missing(rows_in(quick), runs, (0, 1), range(1, 2))) == [(0, 1), (1, 1)]
    row = runs.run(1, 1)
    assert set(row["scores"]) == {"before", "mix"}
    assert row["scores"]["mix"] == {**told(rows_in(quick))[1]["scores"]["mix"], "real": None}


def test_the_report(quick):
    pytest.importorskip("matplotlib")
    page, picture = quick / "page.md", quick / "ibrnet.png"
    page.write_text("before\n<!-- generated: experiment ibrnet -->\n<!-- end -->\nbehind\n")
    where = ["--rows", quick / "rows.jsonl", "--page", page, "--picture", picture]
    argv = [*map(str, [sys.executable, frame.ROOT / "experiments" / "report.py", "ibrnet", *where])]
    result = frame.run(argv)
    assert result.rc == 0, result.err
    text, rows = page.read_text(), told(rows_in(quick))
    gain = rows[2]["scores"]["mix"]["drawn"]["psnr_db"] - rows[0]["scores"]["mix"]["drawn"]["psnr_db"]
    assert f"| {gain:+.2f} |" in text
    assert "| 0 (scratch) | PSNR |" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert frame.run([*argv, "--check"]).rc == 0
    (quick / "half.jsonl").write_text("".join((quick / "rows.jsonl").read_text().splitlines(keepends=True)[1:]))
    argv[argv.index(str(quick / "rows.jsonl"))] = str(quick / "half.jsonl")
    result = frame.run(argv)
    assert result.rc == 1
    assert "the experiment is not done" in result.err
