"""The policy's own answer to a search query, without passages: the material of the over-search test.

Released HiPRAG code asks the policy each query of a batch anew (arXiv:2510.07794, section 3.2). `rag-rollout
--closed-book` does so while it has the model loaded; `step-reward --reanswer` does it here, later. An answer is
valid for the weights that gave it only, so they are part of the key it is kept under.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolroll.io.cache import Cache, cache_key
from toolroll.models.base import Completion, Message, Sampling, engine_identity
from toolroll.run.seeds import record_seed

if TYPE_CHECKING:
    from toolroll.models.base import TextEngine

__all__ = ["Reanswerer", "closed_book_messages", "engine_identity"]


def closed_book_messages(query: str) -> list[Message]:
    """The conversation that asks a model what it knows about a search query.

    >>> closed_book_messages("capital of France")[0]["content"].splitlines()[-1]
    'capital of France'
    """
    text = (
        "Below is a question or a search query. From what you know, and without looking anything up, answer the "
        "question, or give the information the query is after. Be brief. If you do not know, say so.\n\n"
    )
    return [{"role": "user", "content": text + query.strip()}]


class Reanswerer:
    """Asks `engine` search queries, closed-book; each one once, here and, with a `cache`, ever.

    The seed of each answer comes from that of `sampling` and the query, so order and batches change nothing.
    """

    def __init__(self, engine: TextEngine, sampling: Sampling, cache: Cache | None = None) -> None:
        self._engine = engine
        self._sampling = sampling
        self._cache = cache

    def answers(self, queries: Iterable[str]) -> dict[str, str | Exception]:
        """For each query what the policy says, or what went wrong when it was asked."""
        wanted = list(dict.fromkeys(query.strip() for query in queries))
        keys = {query: self._key(query) for query in wanted}
        stored = self._cache.get_many(keys.values()) if self._cache is not None else {}
        known: dict[str, str | Exception] = {query: stored[keys[query]] for query in wanted if keys[query] in stored}
        asked = [query for query in wanted if query not in known]
        fresh = dict(zip(asked, self._ask(asked), strict=True)) if asked else {}
        if self._cache is not None:
            self._cache.put_many({keys[query]: said for query, said in fresh.items() if isinstance(said, str)})
        return {**known, **fresh}

    def _ask(self, queries: list[str]) -> list[str | Exception]:
        replies = self._engine.chat((closed_book_messages(query), self._settings(query)) for query in queries)
        return [reply.text.strip() if isinstance(reply, Completion) else reply for reply in replies]

    def _settings(self, query: str) -> Sampling:
        return replace(self._sampling, seed=record_seed(self._sampling.seed, "closed-book", query))

    def _key(self, query: str) -> bytes:
        sampling = self._sampling
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        return cache_key("re-answer", engine_identity(self._engine), settings, closed_book_messages(query))
