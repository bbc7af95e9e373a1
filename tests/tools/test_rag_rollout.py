"""rag-rollout as users run it: real processes, a real retrieval server that fails, kills and resumes.

The model is scripted, so that what it says is known; tests/lib/models has the real ones.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import frame
import pytest

SEARCH = "I look it up.</reasoning>\n    <search>q</search>"
ANSWER = "So it is.</conclusion>\n</step>\n</think>\n<answer>Paris</answer>"
SCRIPT = [{"match": r"<context>(?s:.*)</context>\s*<conclusion>$", "reply": ANSWER}, {"match": ".", "reply": SEARCH}]
HITS = [{"document": {"id": "7", "contents": '"Paris"\nParis is the capital.'}, "score": 1.5}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SCRIPT))
    (tmp_path / "hits.jsonl").write_text(json.dumps({"query": "q", "hits": [HITS[0]]}) + "\n")
    (tmp_path / "q.jsonl").write_bytes(questions(6))
    return tmp_path


def questions(count: int, **more: Any) -> bytes:
    rows = [{"id": f"q{i}", "question": f"What is {i}", "golden_answers": ["Paris"], **more} for i in range(count)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def rollout(folder: Path, *args: str, retriever: str = "replay:hits.jsonl", stdin: bytes = b"") -> frame.Result:
    base = [
        str(frame.BIN / "rag-rollout"),
        "--backend",
        "scripted",
        "--model",
        "script.jsonl",
        "--retriever",
        retriever,
    ]
    return frame.run([*base, *args], cwd=folder, stdin=stdin)


@contextmanager
def server(answer: Callable[[int], tuple[int, bytes]]) -> Iterator[tuple[str, list[Any]]]:
    """A retrieval server that answers the n-th request (from 0) with `answer(n)`; yields its URL and what was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = answer(len(asked) - 1)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/retrieve", asked
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def result(queries: int) -> bytes:
    return json.dumps({"result": [HITS] * queries}).encode()


def test_rows_pass_on_what_they_came_with_and_gain_a_trajectory(folder):
    rows = rollout(folder, "--samples", "2", stdin=questions(2, weight=10**20, note="ü")).rows
    assert [(row["id"], row["sample"], row["prompt_id"]) for row in rows] == [
        (f"q{i}", sample, f"q{i}") for i in (0, 1) for sample in (0, 1)
    ]
    assert all((row["weight"], row["note"]) == (10**20, "ü") for row in rows)
    assert all((row["finish"], row["n_search"]) == ("answer", 1) for row in rows)
    assert len({row["seed"] for row in rows}) == 4
    parsed = frame.run([str(frame.BIN / "step-parse")], stdin=b"\n".join(json.dumps(row).encode() for row in rows))
    assert all(row["format_valid"] and row["answer"] == "Paris" for row in parsed.rows)


@pytest.mark.parametrize(
    "gold",
    [{"answer": "Paris"}, {"answers": ["Paris"]}, {"reward_model": {"ground_truth": {"target": ["Paris"]}}}],
    ids=["answer", "answers", "reward_model"],
)
def test_accepted_answers_are_found_under_their_other_names(folder, gold):
    row = json.dumps({"id": "a", "question": "Where?", **gold}).encode()
    assert rollout(folder, stdin=row).rows[0]["golden_answers"] == ["Paris"]


def test_a_server_that_recovers_is_asked_again(folder):
    with server(lambda n: (500, b"") if n < 2 else (200, result(1))) as (url, asked):
        done = rollout(folder, retriever=url, stdin=questions(1))
    assert done.rc == 0, done.err
    assert len(asked) == 3
    assert asked[0]["return_scores"] is True
    assert done.rows[0]["turns"][0]["hits"][0]["title"] == '"Paris"'


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"down"), (200, b"<html>sorry</html>"), (200, b'{"result": []}'), (200, b'{"result": [[{"docu')],
    ids=["500", "html", "too few lists", "cut short"],
)
def test_a_server_that_does_not_recover_fails_the_rows_and_keeps_what_was_made(folder, status, body):
    with server(lambda _n: (status, body)) as (url, _):
        done = rollout(folder, "--search-tries", "1", "--on-error", "keep", retriever=url, stdin=questions(2))
    assert done.rc == 0
    assert len(done.rows) == 2
    for row in done.rows:
        assert url.removesuffix("/retrieve") in row["error"]["why"]
        assert row["response"].endswith("</search>")
        assert row["finish"] == "error"
        assert "reward" not in row
    assert len([line for line in done.err.splitlines() if "stdin:" in line]) == 2


def test_a_server_that_hangs_is_given_up(folder):
    with server(lambda _n: (time.sleep(3), (200, result(1)))[1]) as (url, _):
        args = ("--search-tries", "1", "--search-timeout", "0.2")
        done = rollout(folder, *args, retriever=url, stdin=questions(1))
    assert (done.rc, done.rows) == (1, [])
    assert len(done.complaints) == 1


def test_a_failing_model_fails_its_row_only(folder):
    script = [{"match": "What is 1", "error": "the model broke"}, *SCRIPT]
    (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    done = rollout(folder, "--on-error", "keep", stdin=questions(3))
    assert [("error" in row) for row in done.rows] == [False, True, False]
    assert "the model broke" in done.rows[1]["error"]["why"]


def test_closed_book_asks_each_query_without_its_passages(folder):
    script = [{"match": "\nq\n?assistant: $", "reply": "I think Paris."}, *SCRIPT]
    (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    row = rollout(folder, "--closed-book", stdin=questions(1)).rows[0]
    assert row["turns"][0]["closed_book"] == {"text": "I think Paris.", "model": "scripted"}


def test_killed_and_resumed_the_output_has_the_same_bytes(folder):
    args = ("--samples", "3", "--no-meta")
    whole = rollout(folder, *args, "-o", "whole.jsonl", "q.jsonl")
    assert whole.rc == 0, whole.err
    expected = (folder / "whole.jsonl").read_bytes()
    part = folder / "cut.jsonl.part"
    lines = expected.splitlines(keepends=True)
    for kept in (0, 1, 7, 17):
        part.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        assert rollout(folder, *args, "--resume", "-o", "cut.jsonl", "q.jsonl").rc == 0
        assert (folder / "cut.jsonl").read_bytes() == expected
        (folder / "cut.jsonl").unlink()


def test_the_manifest_names_the_model(folder):
    assert rollout(folder, "-o", "out.jsonl", "q.jsonl").rc == 0
    manifest = json.loads((folder / "out.jsonl.meta.json").read_text())
    assert manifest["model"]["engine"] == "scripted"
    assert manifest["counts"]["written"] == 6


def test_shards_together_are_the_whole(folder):
    whole = rollout(folder, "--samples", "2", "q.jsonl").rows
    shards = [rollout(folder, "--samples", "2", "--shard", f"{i}/3", "q.jsonl").rows for i in range(3)]
    together = sorted((row for shard in shards for row in shard), key=lambda row: (row["id"], row["sample"]))
    assert [row["seed"] for row in together] == [row["seed"] for row in whole]
    assert [row["response"] for row in together] == [row["response"] for row in whole]


def test_searches_are_kept_for_the_next_run(folder):
    args = ("--search-cache", "cache.db", "--timings")
    with server(lambda _n: (200, result(1))) as (url, asked):
        first = rollout(folder, *args, retriever=url, stdin=questions(1))
        second = rollout(folder, *args, retriever=url, stdin=questions(1))
    assert len(asked) == 1
    assert [one.rows[0]["turns"][0]["cached"] for one in (first, second)] == [False, True]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--constrain",), "--constrain: needs the hf back end"),
        (("--constrain", "--dialect", "search-r1"), "--constrain: knows the form of the hiprag dialect only"),
        (("--follow",), "--follow: goes with --policy"),
        (("--prompt-file", "nowhere.txt"), "nowhere.txt: No such file or directory"),
        (("--policy", "nowhere"), "nowhere: no such folder"),
        (("--retriever", "bm25:nowhere"), "nowhere: no index here"),
        (("--retriever", "magic"), "magic: not a retriever"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder, args, why):
    done = rollout(folder, *args, "q.jsonl")
    assert done.rc in (1, 2)
    assert done.out == b""
    assert [line for line in done.complaints if why in line] == done.complaints


def test_a_resident_rollout_answers_before_its_input_ends(folder):
    argv = [str(frame.BIN / "rag-rollout"), "--backend", "scripted", "--model", "script.jsonl"]
    with frame.started([*argv, "--retriever", "replay:hits.jsonl"], cwd=folder) as process:
        process.stdin.write(questions(1))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "q0"
        assert process.poll() is None
