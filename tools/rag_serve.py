"""rag-serve: answer searches over HTTP, in the protocols that RAG trainers speak.

Protocols: toolroll.rag.serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from toolroll.cli import command

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Serve an index where Search-R1 and verl look for it, and ask it:
    rag-index "$(toolroll --data-path)/hotpotqa/corpus.jsonl.gz" index/
    rag-serve bm25:index/ --port 8765 &
    curl -s --retry 30 --retry-connrefused --retry-delay 1 localhost:8765/retrieve \\
      -d '{"queries": ["capital of France"], "topk": 2, "return_scores": true}'
"""


@command("rag-serve", system="HiPRAG", epilog="See rag-index(1), rag-rollout(1).")
@click.argument(
    "retriever", metavar="RETRIEVER", help="What to serve: bm25:DIR, dense:DIR, faiss:DIR, replay:FILE, http:URL."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no access control."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port; 0 takes any free one and says which.",
)
@click.option(
    "--passages",
    "topk",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Passages when a request does not say.",
)
@click.option(
    "--max-passages",
    "max_topk",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Requests for more are refused.",
)
@click.option(
    "--search-cache",
    type=click.Path(),
    metavar="FILE",
    help="Keep searches on disk here, for other samples, runs and commands.",
)
def main(
    *,
    retriever: str,
    host: str,
    port: int,
    topk: int,
    max_topk: int,
    search_cache: str | None,
    log: Log,
    stop: StopFlag,
) -> None:
    """Answer searches over HTTP, in the protocols that RAG trainers speak.

    POST /retrieve as Search-R1's server (verl's client speaks it too); POST /search and /batch_search as FlashRAG's;
    GET /health. SIGTERM, SIGUSR1 and Ctrl-C finish the requests under way and end the server with exit code 0.
    """
    from toolroll.io.cache import Cache
    from toolroll.rag.retrieve import CachedRetriever, open_retriever
    from toolroll.rag.serve import serve

    source = open_retriever(retriever)
    if search_cache is not None:
        source = CachedRetriever(source, Cache(search_cache))
    try:
        with serve(source, host, port, topk=topk, max_topk=max_topk, on_error=log.warn) as server:
            log.note(f"listening on {server.url}")
            while not stop:
                server.wait(0.2)
            log.note(f"{server.answered} queries answered")
    except KeyboardInterrupt:
        log.note("interrupted")
    finally:
        source.close()
        stop.clear()
