"""Queries a second over the shipped corpus: toolroll's BM25 beside SQLite FTS5 and tantivy.

    python bench/retrieval.py [--json FILE]

All engines index the same 4,016 passages and answer the same 400 questions, top 3, one query a call, words of the
question joined by OR. FTS5 with its stop words left in takes all of them, so it gets the questions without English stop
words too, as toolroll does itself.
"""

from __future__ import annotations

import argparse
import gzip
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import orjson

from toolroll.rag.bm25 import Bm25Retriever, Bm25Settings, build_bm25, tokenizer

DATA = Path(__file__).parents[1] / "lib/toolroll/data/hotpotqa"
TOPK = 3
ROUNDS = 3


def measure(_arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record an engine."""
    with gzip.open(DATA / "corpus.jsonl.gz", "rb") as file:
        passages = [orjson.loads(line) for line in file]
    questions = [orjson.loads(line)["question"] for line in (DATA / "questions.jsonl").read_bytes().splitlines()]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in (("toolroll bm25", toolroll), ("SQLite FTS5", fts5), ("tantivy", tantivy)):
            started = time.perf_counter()
            search = build(passages, Path(folder))
            if search is None:
                rows.append({"engine": name, "index s": None, "queries/s": None})
                continue
            index_s = time.perf_counter() - started
            rows.append({"engine": name, "index s": round(index_s, 2), "queries/s": round(rate(search, questions))})
    ours = rows[0]["queries/s"]
    for row in rows:
        row["toolroll is times"] = round(ours / row["queries/s"], 2) if row["queries/s"] else None
    return rows


def rate(search: Callable[[str], Any], questions: list[str]) -> float:
    """Queries a second, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for question in questions:
            search(question)
        best = min(best, time.perf_counter() - started)
    return len(questions) / best


def toolroll(passages: list[dict[str, Any]], folder: Path) -> Callable[[str], Any]:
    build_bm25(passages, folder / "bm25")
    retriever = Bm25Retriever(folder / "bm25")
    return lambda question: retriever.search([question], TOPK)


def fts5(passages: list[dict[str, Any]], folder: Path) -> Callable[[str], Any]:
    database = sqlite3.connect(folder / "fts5.db")
    database.execute("create virtual table passage using fts5(id unindexed, title, text)")
    database.executemany("insert into passage values (:id, :title, :text)", passages)
    database.commit()
    words = tokenizer(Bm25Settings())
    query = "select id, title, text, bm25(passage) from passage where passage match ? order by bm25(passage) limit ?"

    def search(question: str) -> Any:
        terms = " OR ".join(f'"{word}"' for word in words(question))
        return database.execute(query, (terms, TOPK)).fetchall()

    return search


def tantivy(passages: list[dict[str, Any]], folder: Path) -> Callable[[str], Any] | None:
    try:
        import tantivy as engine
    except ImportError:
        return None
    schema = engine.SchemaBuilder()
    for name in ("id", "title", "text"):
        schema.add_text_field(name, stored=True)
    (folder / "tantivy").mkdir()
    index = engine.Index(schema.build(), path=str(folder / "tantivy"))
    writer = index.writer(heap_size=64 << 20, num_threads=1)
    for passage in passages:
        writer.add_document(engine.Document(**{name: [passage[name]] for name in ("id", "title", "text")}))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    words = tokenizer(Bm25Settings())

    def search(question: str) -> Any:
        query = index.parse_query(" ".join(words(question)), ["title", "text"])
        return [searcher.doc(address).to_dict() for _, address in searcher.search(query, TOPK).hits]

    return search


if __name__ == "__main__":
    common.run("Queries a second.", measure)
