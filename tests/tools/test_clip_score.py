"""clip-score: signals, and a cache that a later run uses."""

from __future__ import annotations

import json

import frame
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

TINY = ("--clip", str(frame.ROOT / "tests/data/tiny-clip"), "--clip-device", "cpu")
PICTURES = frame.ROOT / "tests/cases/clip-score/texts-and-images"
COMMAND = next(command for command in frame.COMMANDS if command.name == "clip-score")


def run(folder, *args, rows):
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return frame.run([COMMAND.argv[0], *TINY, *map(str, args)], stdin=stdin, cwd=folder)


def test_one_sentence_of_many_words_and_strange_letters(tmp_path):
    texts = ["word " * 300, "word " * 10_000, "😀 " * 50, "一只红色的猫" * 60, "\u0000\u200b", "", "a"]
    rows = [{"id": i, "image": "red.png", "text": text} for i, text in enumerate(texts)]
    result = run(tmp_path, "--images", PICTURES, rows=rows)
    assert result.rc == 0, result.err
    scores = [row["clip_score"] for row in result.rows]
    assert [score is None for score in scores] == [False, False, True, False, True, True, False]
    assert all(row["sentences"][0]["windows"] > 40 for row in result.rows[:2])


def test_a_cache_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes, " * 1000)
    row = {"id": 1, "image": "red.png", "text": "a cube"}
    result = run(tmp_path, "--images", PICTURES, "--clip-cache", "notes.txt", rows=[row])
    assert (result.rc, result.out) == (1, b"")
    assert "notes.txt: the cache cannot be used" in result.err
    assert (tmp_path / "notes.txt").read_text().startswith("my notes")
