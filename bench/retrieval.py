"""Queries a second over the shipped corpus: toolroll's BM25 beside bm25s, SQLite FTS5 and tantivy.

    python bench/retrieval.py [--questions 400] [--json FILE]

All engines index the same 4,016 passages and answer the same questions, top 3, one query a call, words of the question
joined by OR. FTS5 with its stop words left in takes all of them, so all get the questions without English stop words,
as toolroll does itself. bm25s is the library with its own tokenizer and numpy, from the words to the passages.
"""

from __future__ import annotations

import argparse
import gzip
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import common
import orjson
from common import Line

from toolroll.rag.bm25 import Bm25Retriever, Bm25Settings, build_bm25, tokenizer

TOPK = 3
ROUNDS = 3

Passages = list[dict[str, Any]]
Search = Callable[[str], Any]


def measure(arguments: argparse.Namespace) -> list[Line]:
    """Two lines a peer: queries, and the building of the index."""
    with gzip.open(common.HOTPOTQA / "corpus.jsonl.gz", "rb") as file:
        passages = [orjson.loads(line) for line in file]
    lines = (common.HOTPOTQA / "questions.jsonl").read_bytes().splitlines()[: arguments.questions]
    questions = [orjson.loads(line)["question"] for line in lines]
    searches: dict[str, Search] = {}
    index_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in ENGINES.items():
            with suppress(ImportError):
                started = time.process_time()
                searches[name] = build(passages, Path(folder))
                index_s[name] = time.process_time() - started
        best = common.least({name: asked(search, questions) for name, search in searches.items()}, ROUNDS)
    rate = {name: len(questions) / seconds for name, seconds in best.items()}
    ours, *peers = ENGINES
    return [
        *(Line("queries", "queries/CPU s", rate[ours], peer, rate.get(peer)) for peer in peers),
        *(Line("indexing", "CPU s", index_s[ours], peer, index_s.get(peer)) for peer in peers),
    ]


def asked(search: Search, questions: list[str]) -> Callable[[], float]:
    """Asks an engine all questions."""
    return common.timed(lambda: [search(question) for question in questions])


def toolroll(passages: Passages, folder: Path) -> Search:
    build_bm25(passages, folder / "bm25")
    retriever = Bm25Retriever(folder / "bm25")
    return lambda question: retriever.search([question], TOPK)


def bm25s(passages: Passages, _folder: Path) -> Search:
    import bm25s as engine

    index = engine.BM25(corpus=passages)
    texts = [f"{passage['title']} {passage['text']}" for passage in passages]
    index.index(engine.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def search(question: str) -> Any:
        words = engine.tokenize(question, stopwords="en", show_progress=False)
        return index.retrieve(words, k=TOPK, show_progress=False)

    return search


def fts5(passages: Passages, folder: Path) -> Search:
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


def tantivy(passages: Passages, folder: Path) -> Search:
    import tantivy as engine

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


ENGINES = {"toolroll": toolroll, "bm25s": bm25s, "SQLite FTS5": fts5, "tantivy": tantivy}

if __name__ == "__main__":
    common.run(__doc__, measure, questions=400)
