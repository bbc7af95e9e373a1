"""Retrieval servers over HTTP: Search-R1's protocol and FlashRAG's (ReSearch's).

Search-R1: `POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}` -> `{"result": [[{"document": {"id",
"contents"}, "score"}, ...], ...]}`. return_scores is always true: without it the reference server fails.
FlashRAG: `POST /batch_search {"query": [...], "top_n", "return_score"}` or, one query a request, `POST /search`
-> the documents, or [documents, scores].
"""

import random
import time
from collections.abc import Sequence
from typing import Any, Literal

import httpx2
import orjson

from toolroll.errors import RowError, UsageError
from toolroll.io.retry import http_retriable, retry
from toolroll.rag.corpus import Hit, to_hit

Dialect = Literal["search-r1", "flashrag"]

_PATH: dict[Dialect, str] = {"search-r1": "/retrieve", "flashrag": "/batch_search"}
_MAX_BYTES = 64 << 20
_EXCERPT = 60  # characters of a bad answer that a message shows


class HttpRetriever:
    """A retrieval server. Safe for several threads.

    `url` may lack the path: /retrieve or, for FlashRAG, /batch_search is added. Each try may take `timeout_s`, all of
    them together `deadline_s`; `seed` makes the waits between them repeatable. Answers beyond `max_bytes` are refused.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: Dialect = "search-r1",
        timeout_s: float = 30.0,
        tries: int = 5,
        deadline_s: float = 120.0,
        max_bytes: int = _MAX_BYTES,
        seed: int | None = None,
    ) -> None:
        self.url = _endpoint(url, dialect)
        self.name = f"{'http' if dialect == 'search-r1' else dialect}:{self.url}"
        self.identity = self.name
        self._dialect = dialect
        self._timeout_s, self._tries, self._deadline_s, self._max_bytes = timeout_s, tries, deadline_s, max_bytes
        self._rng = random.Random(seed)
        self._client = httpx2.Client(timeout=timeout_s)

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Up to `topk` hits for each query in the server's order; a blank query is not sent and has none.

        One request for all queries (one each for FlashRAG's /search). RowError with the URL when the server cannot be
        reached, fails for good, or says something else than the protocol; it concerns all `queries` alike.
        """
        asked = [query for query in queries if query.strip()]
        found = iter(self._ask(asked, topk) if asked else [])
        return [next(found)[:topk] if query.strip() else [] for query in queries]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, queries: list[str], topk: int) -> list[list[Hit]]:
        if self._dialect == "search-r1":
            reply = self._post({"queries": queries, "topk": topk, "return_scores": True})
            lists = reply.get("result") if isinstance(reply, dict) else reply
        elif self.url.endswith("/search"):
            replies = [self._post({"query": query, "top_n": topk, "return_score": True}) for query in queries]
            lists = [self._merged(reply) for reply in replies]
        else:
            lists = self._merged(self._post({"query": queries, "top_n": topk, "return_score": True}))
        if not isinstance(lists, list) or not all(isinstance(hits, list) for hits in lists):
            raise RowError("the answer is not a list of hits for each query", place=self.url)
        if len(lists) != len(queries):
            raise RowError(f"the answer has {len(lists)} lists of hits for {len(queries)} queries", place=self.url)
        try:
            return [[to_hit(hit) for hit in hits] for hits in lists]
        except RowError as error:
            raise RowError(f"the answer holds no passage: {error.why}", place=self.url) from error

    def _merged(self, reply: Any) -> Any:
        """FlashRAG's `documents` or `[documents, scores]`, whatever their depth, as documents with their scores."""
        if not _is_pair(reply, batch=not self.url.endswith("/search")):
            return reply
        try:
            return _zipped(*reply)
        except (TypeError, ValueError) as error:
            raise RowError("the answer's documents and scores do not match", place=self.url) from error

    def _post(self, body: dict[str, object]) -> Any:
        content = orjson.dumps(body)
        try:
            raw = retry(
                lambda: self._once(content),
                tries=self._tries,
                base_s=0.5,
                cap_s=8.0,
                deadline_s=self._deadline_s,
                retriable=http_retriable,
                rng=self._rng,
            )
        except httpx2.HTTPStatusError as error:
            status = f"{error.response.status_code} {error.response.reason_phrase}".strip()
            raise RowError(f"the server answered {status}", place=self.url) from error
        except httpx2.TimeoutException as error:
            raise RowError(f"no answer within {self._timeout_s:g} s", place=self.url) from error
        except httpx2.HTTPError as error:
            raise RowError(f"no answer ({_one_line(str(error)) or type(error).__name__})", place=self.url) from error
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            excerpt = _one_line(bytes(raw[: 4 * _EXCERPT]).decode("utf-8", "replace"))[:_EXCERPT]
            raise RowError(f"the answer is not JSON: {excerpt!r}", place=self.url) from error

    def _once(self, content: bytes) -> bytearray:
        """One request; httpx2's own timeout is between two chunks, so the whole is watched here."""
        started = time.monotonic()
        raw = bytearray()
        headers = {"Content-Type": "application/json"}
        with self._client.stream("POST", self.url, content=content, headers=headers) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                raw += chunk
                if len(raw) > self._max_bytes:
                    raise RowError(f"the answer is longer than {self._max_bytes} bytes", place=self.url)
                if time.monotonic() - started > self._timeout_s:
                    raise httpx2.ReadTimeout("the answer takes too long", request=response.request)
        return raw


def _endpoint(url: str, dialect: Dialect) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UsageError(f"not a URL ({error})", place=url) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("a retrieval server's URL looks like http://host:8000", place=url)
    return str(parsed if parsed.path not in ("", "/") else parsed.copy_with(path=_PATH[dialect]))


def _is_pair(reply: Any, *, batch: bool) -> bool:
    """Whether this is [documents, scores]: one level deeper than documents alone."""
    if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], list)):
        return False
    return not batch or (bool(reply[0]) and isinstance(reply[0][0], list))


def _zipped(documents: list[Any], scores: list[Any]) -> list[Any]:
    pairs = zip(documents, scores, strict=True)
    return [_zipped(*pair) if isinstance(pair[0], list) else {"document": pair[0], "score": pair[1]} for pair in pairs]


def _one_line(text: str) -> str:
    return " ".join(text.split())
