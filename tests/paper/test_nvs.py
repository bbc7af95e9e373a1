"""From photos to a page, at a tiny size: the pipeline runs, goes on where it was, and its parts agree."""

from __future__ import annotations

import json
import subprocess

import frame
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL", reason="photos are read by pillow")

from toolroll.splat.drawn import write_scene

PIPELINE = frame.ROOT / "pipelines" / "nvs.sh"


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(out, scene, **settings):
    values = {"SCENE": scene, "IMAGES": "images", "STEPS": 12, "FRAMES": 3, "OUT": out, **settings}
    env = frame.environment({name: str(value) for name, value in values.items()} | {"OMP_NUM_THREADS": "1"})
    done = subprocess.run([PIPELINE], env=env, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_photos_become_a_scene_scores_pictures_and_a_page(tmp_path):
    write_scene(tmp_path / "a scene", shots=9, size=(48, 32), lens="OPENCV", points=150)
    out = tmp_path / "out"
    (summary,) = map(json.loads, run(out, tmp_path / "a scene").splitlines())
    (about,) = rows_of(out / "scene.jsonl")
    assert (about["n_images"], about["n_train"], about["n_test"]) == (9, 7, 2)
    last = rows_of(out / "training.jsonl")[-1]
    scores = rows_of(out / "scores.jsonl")
    assert [row["image"] for row in scores] == ["frame_00001.png", "frame_00009.png"]
    mean = sum(row["psnr_db"] for row in scores) / 2
    assert summary["psnr_db"] == pytest.approx(mean) == pytest.approx(last["psnr_db"])
    assert summary["ssim"] == pytest.approx(last["ssim"])
    assert len(rows_of(out / "walk.jsonl")) == len(list((out / "walk").glob("*.png"))) == 3
    assert b"<canvas" in (out / "scene.html").read_bytes()
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    run(out, tmp_path / "a scene")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_the_doll_of_the_repository_is_a_scene(tmp_path):
    argv = [str(frame.BIN / "nvs-prep"), str(frame.ROOT / "tests/data/plush"), "--images", "images_16"]
    (row,) = frame.run(argv, cwd=tmp_path).rows
    assert (row["n_images"], row["n_points"], row["n_train"], row["n_test"]) == (97, 25784, 84, 13)
    assert (row["width"], row["height"]) == (252, 189)
    assert row["lens"]["camera_model"] == "OPENCV"
    assert row["warnings"] == []
