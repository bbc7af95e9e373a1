"""Pairs without a judge at a tiny size, on models of random weights: it runs, goes on where it was, and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import frame
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

PIPELINE = frame.ROOT / "pipelines" / "judgefree.sh"
CLIP = frame.ROOT / "tests" / "data" / "tiny-clip"
MODULES = ("judgefree", "judgefree_report")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(out, model, rc=0, **settings):
    values = {"SCENES": 5, "HELD_OUT": 3, "SIZE": "64x48", "TOKENS": 12, "EPOCHS": 1, "BATCH": 3, "RATE": "1e-3"}
    values |= {"MODEL": model, "CLIP": CLIP, "OUT": out, **settings}
    env = frame.environment(
        {name: str(value) for name, value in values.items()} | {"HF_HUB_OFFLINE": "1", "PATH": frame.warm_path()}
    )
    done = subprocess.run([PIPELINE], env=env, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == rc, done.stderr
    return done


def test_pairs_are_made_checked_turned_round_and_learned_from(model, tmp_path):
    out = tmp_path / "out"
    table = run(out, model).stdout
    decided, pairs = rows_of(out / "decided.jsonl"), rows_of(out / "pairs.jsonl")
    assert len(decided) == 5
    assert pairs == [row for row in decided if row["action"] != "drop"]
    assert all(row["delta"] > 0 for row in pairs)
    assert all((row["made"]["chosen"]["h"] > 0) == row["reversed"] for row in pairs)
    trained = rows_of(out / "steps.jsonl")
    assert sum(row["pairs"] for row in trained) == len(pairs)
    assert trained[0]["margin"] == pytest.approx(0, abs=1e-4)
    report = rows_of(out / "report.jsonl")
    assert [(row["when"], row["n_texts"]) for row in report] == [("before", 3), ("after", 3)]
    assert table.count("before ") == table.count("after ") == 1
    before, after = (rows_of(out / f"{when}.jsonl") for when in ("before", "after"))
    assert [row["scene"] for row in before] == [row["scene"] for row in after]
    assert [row["response"] for row in before] != [row["response"] for row in after]
    weights = (out / "policy" / "current" / "model.safetensors").read_bytes()

    # as if it had been killed while it described the pictures anew
    for name in ("steps.jsonl", "after.jsonl", "after.said.jsonl", "report.jsonl"):
        (out / name).unlink()
    assert run(out, model).stdout == table
    assert rows_of(out / "report.jsonl") == report
    assert (out / "policy" / "current" / "model.safetensors").read_bytes() == weights

    # where no pair passes the check there is nothing to train on
    assert "no pair is left" in run(out, model, rc=1, MARGIN=1000).stderr


@pytest.fixture(scope="module")
def quick(modules, model, tmp_path_factory):
    """The rows of a tiny experiment: all arms, one seed."""
    folder = tmp_path_factory.mktemp("quick")
    return ran(modules, model, folder / "rows.jsonl", folder)


def ran(modules, model, out, folder, *more):
    arguments = ["--quick", "--seeds", "1", "--model", model, "--clip", CLIP, "--out", out]
    modules["judgefree"].main(list(map(str, [*arguments, "--pictures", folder / "pictures", *more])))
    return out


def told(path):
    """The rows by arm and seed, without what a clock says."""
    return {(row["arm"], row["seed"]): {**row, "duration_s": None} for row in rows_of(path)}


def test_arms_differ_in_their_pairs_only(modules, quick):
    rows = told(quick)
    assert set(rows) == {(arm, 31) for arm in modules["judgefree"].ARMS}
    first = [row["exams"][0] for row in rows.values()]
    assert all(exam == first[0] for exam in first)  # all begin as the same model, examined alike
    assert all([exam["step"] for exam in row["exams"]] == [0, 1, 2] for row in rows.values())
    assert all(len(row["curve"]["loss"]) == 2 for row in rows.values())
    acts = {arm: row["actions"] for (arm, _), row in rows.items()}
    assert all(sum(actions.values()) == 8 for actions in acts.values())
    assert all("reverse" not in acts[arm] for arm in ("unchecked", "filter", "random", "dropout", "swapped"))
    assert acts["filter"].get("drop (negative)", 0) == acts["reverse"].get("reverse", 0) > 0
    assert acts["filter"].get("keep", 0) == acts["reverse"].get("keep", 0)
    assert rows["filter", 31]["n_pairs"] < rows["reverse", 31]["n_pairs"]
    # what was swapped on purpose is turned back by the encoder: both learn from the same pairs
    assert rows["swapped-reverse", 31]["curve"] == rows["reverse", 31]["curve"]
    assert rows["swapped", 31]["curve"] != rows["unchecked", 31]["curve"]


def test_planted_pairs_are_counted_at_each_margin(modules):
    judgefree = modules["judgefree"]
    scene = {"objects": [{"shape": "cube", "size": "large", "color": "red", "material": "metal"}]}

    def pair(i, one, other, better="a red cube", worse="a blue ball"):
        fields = {"id": i, "chosen": better, "rejected": worse, "scene": scene}
        return {**fields, "clip": {"chosen": {"score": one}, "rejected": {"score": other}}}

    rows = [pair(0, 30, 20), pair(1, 30, 29), pair(2, 20, 30), pair(3, 25, 20), pair(4, 30, 10)]
    made = judgefree.pairs_of(judgefree.Arm("reverse", swapped=0.4), rows, judgefree.QUICK, 0)
    planted = [row["planted"] for row in made]
    assert sum(planted) == 2
    assert all((row["chosen"] == "a blue ball") == row["planted"] == row.get("reversed", False) for row in made)
    none, wide = judgefree.planted_test(made, [0.0, 2.0])
    expected = {"planted": {"reverse": 0, "keep": 0}, "others": {"reverse": 0, "keep": 0}}
    for row, swap, gap in zip(made, planted, (10, 1, -10, 5, 20), strict=True):
        assert judgefree.truth(row) == (-1 if swap else 1)
        right = gap > 0
        expected["planted" if swap else "others"]["reverse" if right == swap else "keep"] += 1
    for name, counts in expected.items():
        assert none[name] == {action: count for action, count in counts.items() if count}
        assert none[f"{name}, right"] == none[name]  # the scene says that all of them are
    assert sum(sum(wide[name].values()) for name in ("planted", "others")) == 5
    assert sum(wide[name].get("drop", 0) for name in ("planted", "others")) == 1


def test_captions_without_some_words_and_of_other_pictures(modules):
    import random

    judgefree = modules["judgefree"]
    words = "There is a small red rubber cube and a large blue ball."
    thinned = judgefree.thinned(words, 0.3, random.Random(0))
    assert len(thinned.split()) == len(words.split()) - 4
    rest = iter(words.split())
    assert all(word in rest for word in thinned.split())  # in their order
    assert judgefree.thinned("", 0.3, random.Random(0)) == ""
    rows = [{"id": i, "chosen": f"picture {i}", "rejected": "x"} for i in range(6)]
    other = judgefree.pairs_of(judgefree.Arm("keep", "random"), rows, judgefree.QUICK, 5)
    assert all(row["rejected"] != row["chosen"] and row["rejected"].startswith("picture") for row in other)


def test_a_row_is_determined_by_its_seed_and_a_killed_run_goes_on(modules, model, quick, tmp_path):
    lines = quick.read_text().splitlines(keepends=True)
    out = tmp_path / "killed.jsonl"
    out.write_text("".join(lines[:-1]) + lines[-1][:50])
    ran(modules, model, out, quick.parent)
    assert out.read_text().startswith("".join(lines[:-1]))
    assert told(out) == told(quick)


def test_the_report_is_made_from_the_rows(modules, quick, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: experiment judgefree -->\n<!-- end -->\n")
    where = ("--rows", quick, "--page", page, "--picture", tmp_path / "picture.png")
    for extra, code in ((("--check",), 1), ((), 0), (("--check",), 0)):
        argv = [sys.executable, frame.ROOT / "experiments" / "report.py", "judgefree", *where, *extra]
        done = subprocess.run(argv, capture_output=True, env=os.environ)
        assert done.returncode == code, done.stderr
    pairs = told(quick)["reverse", 31]["n_pairs"]
    assert f"| filter and reverse | {pairs} ± 0 |" in page.read_text()
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="not done"):
        modules["judgefree_report"].by_arm(rows_of(quick)[:-1])
