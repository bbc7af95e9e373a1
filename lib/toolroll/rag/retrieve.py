"""Where passages come from: one interface, and the retriever behind a `--retriever` specification.

    bm25:DIR      an index that `rag-index` made (no model, no server)
    dense:DIR     an index of vectors; the encoder's folder is named in it
    faiss:DIR     the same, searched with FAISS (extra `faiss`)
    http:URL      a server that speaks Search-R1's protocol; http://host:8000 alone will do
    flashrag:URL  a server that speaks FlashRAG's: URL/batch_search or URL/search
    replay:FILE   hits recorded as JSONL of {"query", "hits"}: the same answers without the engine
    none          no hits

Nothing heavy is imported before a specification asks for it.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import orjson

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.cache import Cache, cache_key
from toolroll.rag.corpus import Hit, to_hit


class Retriever(Protocol):
    """Finds passages.

    `name` is the specification it was opened with; `identity` names everything its answers depend on, corpus and
    settings included, as far as it can be known.
    """

    name: str
    identity: str

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """For each query up to `topk` (>= 1) hits, best first; a query that finds nothing has none."""

    def close(self) -> None:
        """Free what it holds."""


def open_retriever(
    spec: str, *, timeout_s: float = 30.0, tries: int = 5, seed: int | None = None, device: str = "cpu"
) -> Retriever:
    """The retriever that `spec` names (see above).

    `timeout_s`, `tries` and `seed` are for servers (see `HttpRetriever`), `device` is torch's name of where a dense
    index's encoder runs. UsageError when `spec` says nothing known, ToolrollError when its file or folder is no good.
    """
    kind, _, rest = spec.partition(":")

    def server(url: str) -> Retriever:
        from toolroll.rag.remote import Dialect, HttpRetriever

        dialect: Dialect = "flashrag" if kind == "flashrag" else "search-r1"
        return HttpRetriever(url, dialect=dialect, timeout_s=timeout_s, tries=tries, seed=seed)

    def bm25(directory: str) -> Retriever:
        from toolroll.rag.bm25 import Bm25Retriever

        return Bm25Retriever(Path(directory))

    def dense(directory: str) -> Retriever:
        from toolroll.rag.dense import DenseRetriever

        return DenseRetriever(Path(directory), faiss=kind == "faiss", device=device)

    if spec == "none":
        return NoRetriever()
    if kind in ("http", "https") and rest.startswith("//"):
        return server(spec)
    kinds: dict[str, Callable[[str], Retriever]] = {
        "bm25": bm25,
        "dense": dense,
        "faiss": dense,
        "http": server,
        "flashrag": server,
        "replay": lambda file: ReplayRetriever(Path(file)),
    }
    if kind not in kinds or not rest:
        known = ", ".join([*(f"{kind}:..." for kind in kinds), "none"])
        raise UsageError(f"not a retriever; one of {known}", place=spec)
    return kinds[kind](rest)


class NoRetriever:
    """Finds nothing: a closed-book run with the same pipeline."""

    name = identity = "none"

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:  # noqa: ARG002
        """No hits for each query."""
        return [[] for _ in queries]

    def close(self) -> None:
        """Nothing to free."""


class ReplayRetriever:
    """Hits recorded in a JSONL file of `{"query", "hits": [...]}`; of two lines for one query the last one counts."""

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=str(path)) from error
        self.name = f"replay:{path}"
        self.identity = f"replay:{blake2b(data, digest_size=16).hexdigest()}"
        lines = enumerate(data.splitlines(), start=1)
        self._place = str(path)
        self._hits = dict(_recorded(line, f"{path}:{number}") for number, line in lines if line.strip())

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """The first `topk` recorded hits of each query; RowError for a query that was not recorded."""
        for query in queries:
            if query not in self._hits:
                raise RowError(f"no hits recorded for the query {query!r}", place=self._place)
        return [self._hits[query][:topk] for query in queries]

    def close(self) -> None:
        """Nothing to free."""


def _recorded(line: bytes, place: str) -> tuple[str, list[Hit]]:
    try:
        row = orjson.loads(line)
        query, hits = row["query"], row["hits"]
        if not isinstance(query, str) or not isinstance(hits, list):
            raise TypeError
        return query, [to_hit(hit) for hit in hits]
    except orjson.JSONDecodeError as error:
        raise ToolrollError(f"not JSON ({error})", place=place) from error
    except (KeyError, TypeError) as error:
        raise ToolrollError('a recorded search has a "query" and a list of "hits"', place=place) from error
    except RowError as error:
        raise ToolrollError(error.why, place=place) from error


class CachedRetriever:
    """A retriever that asks another one only what was not asked before, by any process that shares the cache.

    Every hit says in `cached` whether it came from the cache. A query that stands twice in a call is asked once.
    """

    def __init__(self, inner: Retriever, cache: Cache) -> None:
        self.name, self.identity = inner.name, inner.identity
        self._inner = inner
        self._cache = cache

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """As the inner retriever's; the key is its identity, `topk` and the query."""
        keys = {query: cache_key("search", self.identity, {"topk": topk}, query) for query in queries}
        stored = self._cache.get_many(keys.values())
        missing = [query for query, key in keys.items() if key not in stored]
        fresh = dict(zip(missing, self._inner.search(missing, topk) if missing else [], strict=True))
        self._cache.put_many({keys[query]: hits for query, hits in fresh.items()})
        return [
            _marked(fresh[query], cached=False) if query in fresh else _marked(stored[keys[query]], cached=True)
            for query in queries
        ]

    def close(self) -> None:
        """Close the inner retriever; the cache belongs to whoever opened it."""
        self._inner.close()


def _marked(hits: list[Hit], *, cached: bool) -> list[Hit]:
    return [{**hit, "cached": cached} for hit in hits]
