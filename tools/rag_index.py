"""rag-index: build the index that searches run on.

Folder layout and formulas: toolroll.rag.index, toolroll.rag.bm25, toolroll.rag.dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.records import view
from toolroll.records.rag import Passage

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

EXAMPLES = """
  BM25 over the passages that come with the commands:
    rag-index "$(toolroll --data-path)/hotpotqa/corpus.jsonl.gz" index/
  Vectors of an encoder instead, as Search-R1 makes them:
    rag-index --kind dense --encoder NAME --query-prefix 'query: ' --passage-prefix 'passage: ' CORPUS.jsonl e5/
"""


@command(
    "rag-index",
    system="HiPRAG",
    reads=view(Passage, "id", "contents", "title", "text"),
    reducer=True,
    epilog="See rag-serve(1), rag-rollout(1), toolroll-records(5).",
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(), metavar="FILE...", help="The corpus, JSON lines; - is stdin."
)
@click.argument(
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the new index; it appears when complete.",
)
@click.option(
    "--kind", type=click.Choice(["bm25", "dense"]), default="bm25", show_default=True, help="Words or vectors."
)
@click.option("--overwrite", "replace", is_flag=True, help="Replace an index that is there already.")
@click.option(
    "--k1",
    type=click.FloatRange(min=0),
    default=1.5,
    show_default=True,
    help="bm25: how soon more of a word stops counting.",
)
@click.option(
    "--b",
    type=click.FloatRange(0, 1),
    default=0.75,
    show_default=True,
    help="bm25: how much a passage's length counts.",
)
@click.option("--stemmer", default="", metavar="NAME", help="bm25: a PyStemmer algorithm, for example english.")
@click.option("--keep-stop-words", is_flag=True, help="bm25: index a, the, of and their like too.")
@click.option(
    "--encoder", default="", metavar="NAME", help="dense: folder or hub id of a Hugging Face encoder; mean pooling."
)
@click.option("--query-prefix", default="", help="dense: put before each query, e.g. 'query: ' for E5.")
@click.option("--passage-prefix", default="", help="dense: put before each passage.")
@click.option(
    "--encoder-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="dense: longest text, in tokens.",
)
@click.option(
    "--faiss", default="", metavar="FACTORY", help="dense: also make a FAISS index, e.g. Flat or HNSW64 (extra faiss)."
)
@click.option("--device", default="auto", show_default=True, help="dense: where the encoder runs.")
def main(rows: Rows[Any], *, directory: Path, kind: str, replace: bool, **options: Any) -> Iterator[dict[str, Any]]:
    """Build the index that searches run on.

    Reads passages, {"id", "contents"} as in Search-R1 and FlashRAG corpora or {"id", "title", "text"}, and writes a
    folder; the same passages and settings give the same bytes. Prints the index's manifest. Memory grows with the
    corpus: about 4 bytes a word for bm25, 12 while it weighs them.
    """
    passages = _passages(rows)
    if kind == "bm25":
        manifest = _bm25(passages, directory, replace, options)
    else:
        manifest = _dense(passages, directory, replace, options)
    yield {"index": str(directory), **manifest}


def _passages(rows: Rows[Any]) -> Iterator[Any]:
    from toolroll.errors import RowError
    from toolroll.rag.corpus import to_passage

    for row in rows:
        found = row.view
        try:
            yield to_passage({"id": found.id, "contents": found.contents, "title": found.title, "text": found.text})
        except RowError as error:
            rows.refuse(row, error.why)


def _bm25(passages: Iterator[Any], directory: Path, replace: bool, options: dict[str, Any]) -> dict[str, Any]:
    from toolroll.rag.bm25 import ENGLISH, Bm25Settings, build_bm25

    stopwords = () if options["keep_stop_words"] else ENGLISH
    settings = Bm25Settings(k1=options["k1"], b=options["b"], stopwords=stopwords, stemmer=options["stemmer"])
    return build_bm25(passages, directory, settings=settings, replace=replace)


def _dense(passages: Iterator[Any], directory: Path, replace: bool, options: dict[str, Any]) -> dict[str, Any]:
    from toolroll.errors import UsageError
    from toolroll.models.device import choose_device
    from toolroll.rag.dense import build_dense

    if not options["encoder"]:
        raise UsageError("--kind dense needs an encoder", place="--encoder")
    return build_dense(
        passages,
        directory,
        model=options["encoder"],
        query_prefix=options["query_prefix"],
        passage_prefix=options["passage_prefix"],
        max_tokens=options["encoder_tokens"],
        faiss=options["faiss"],
        device=choose_device(options["device"]).name,
        replace=replace,
    )
