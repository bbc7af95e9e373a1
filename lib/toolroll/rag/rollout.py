"""One trajectory of agentic RAG: generate, search, inject, until the model answers.

Algorithm 1 of HiPRAG (arXiv:2510.07794) as its released code runs it: a turn ends at the first
`</search>` or `</answer>`; a search's passages and the opening `<conclusion>` are injected; a turn
with neither is answered by a notice; after `max_searches` turns one last turn may only answer.

What the released code gets wrong is not copied: passages are trimmed before they are wrapped, so the
closing tags are never cut; sampled ids are kept, never decoded and tokenized again; tags inside
passages are made harmless; only the new text of a turn is searched for a query; a failed search fails
the trajectory instead of standing in it as text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from toolroll.errors import RowError
from toolroll.models.base import Codec, Completion, Generate, Sampling
from toolroll.models.rollouts import Transcript
from toolroll.rag.corpus import NO_HITS, Hit, Rendered, render
from toolroll.rag.protocol import Protocol, find_action
from toolroll.rag.retrieve import Retriever
from toolroll.run.seeds import record_seed


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps of a rollout, in tokens where nothing else is said; the paper's training values are the defaults.

    `timings`: also record what differs from run to run, how long a search took and whether it was in the cache.
    """

    max_searches: int = 4
    topk: int = 3
    turn_tokens: int = 500
    context_tokens: int = 500
    prompt_tokens: int = 2048
    stop_on_invalid: bool = False
    timings: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """An effect of an episode: find passages for a query. Its result is `Found`."""

    query: str


@dataclass(frozen=True, slots=True)
class Found:
    """The passages of one search and how long it took, in milliseconds."""

    hits: list[Hit]
    ms: float


Episode = Generator[Generate | Search, Any, dict[str, Any]]


def search_all(retriever: Retriever, topk: int) -> Callable[[Sequence[Search]], list[Found | Exception]]:
    """A handler that resolves `Search` effects, several at once; a query that fails fails alone."""

    def search(queries: list[str]) -> list[list[Hit]]:
        return retriever.search(queries, topk)

    def handle(effects: Sequence[Search]) -> list[Found | Exception]:
        queries = [effect.query for effect in effects]
        started = time.monotonic()
        try:
            found = search(queries)
        except RowError as error:
            if len(queries) == 1:
                return [error]
            return [handle([effect])[0] for effect in effects]
        ms = 1000 * (time.monotonic() - started) / len(queries)
        return [Found(hits, ms) for hits in found]

    return handle


class Rollout:
    """What one trajectory needs to know; `episode()` runs it on any engine."""

    def __init__(
        self,
        protocol: Protocol,
        codec: Codec | None,
        limits: Limits,
        sampling: Sampling,
        *,
        prompt: str,
        constraint: Any = None,
    ) -> None:
        self.protocol = protocol
        self.codec = codec
        self.limits = limits
        self.sampling = sampling
        self.prompt = prompt
        self.constraint = constraint
        self.transcript = Transcript()
        self.turns: list[dict[str, Any]] = []
        self.invalid_actions = 0
        self.written = 0
        self.finish = "error"

    def episode(self) -> Episode:
        """Generate turn by turn; the result is the trajectory's own fields of a row."""
        prompt_ids = self._encode(self.prompt)
        if prompt_ids is not None and len(prompt_ids) > self.limits.prompt_tokens:
            prompt_ids = prompt_ids[-self.limits.prompt_tokens :]
        self.prompt_ids = prompt_ids
        text, ids = self.protocol.prefill, self._encode(self.protocol.prefill)
        self.transcript.inject(text, ids)
        pending = self.prompt + text, _joined(prompt_ids, ids)
        for turn in range(self.limits.max_searches + 1):
            completion: Completion = yield self._ask(pending, turn)
            self.transcript.write(completion)
            last = turn == self.limits.max_searches
            action = find_action(self.protocol, completion.text)
            if action is not None and action[0] == "answer":
                self.finish = "answer"
                break
            if self._out_of_tokens(completion):
                self.finish = "token_limit"
                break
            if last or (action is None and self.limits.stop_on_invalid):
                self.finish = "eos" if completion.finish == "eos" else "turn_limit"
                break
            if action is None:
                self.invalid_actions += 1
                pending = self._inject(self.protocol.notice)
            else:
                found: Found = yield Search(action[1])
                pending = self._observe(action[1], found, completion)
        return self.fields()

    def fields(self) -> dict[str, Any]:
        """The trajectory so far, as fields of a row."""
        return {
            "prompt": self.prompt,
            "response": self.transcript.text,
            "turns": self.turns,
            "n_search": len(self.turns),
            "finish": self.finish,
            "invalid_actions": self.invalid_actions,
            "dialect": self.protocol.name,
            "constrained": self.constraint is not None,
            "forced_tokens": self.constraint.forced if self.constraint is not None else 0,
            **self.transcript.fields(self.prompt_ids),
        }

    def _ask(self, pending: tuple[str, tuple[int, ...] | None], turn: int) -> Generate:
        sampling = Sampling(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            max_tokens=self.limits.turn_tokens,
            stop=self.protocol.stops,
            seed=record_seed(self.sampling.seed, turn),
        )
        return Generate(pending[0], pending[1], sampling, self.constraint)

    def _observe(self, query: str, found: Found, completion: Completion) -> tuple[str, tuple[int, ...] | None]:
        """Write the passages of a search into the response."""
        shown = self._render(found.hits)
        pending = self._inject(self.protocol.wrap(shown.text or NO_HITS))
        turn = {
            "query": query,
            "hits": [{name: hit.get(name) for name in ("id", "title", "text", "score")} for hit in found.hits],
            "n_gen_tokens": len(completion.ids or ()),
            "n_context_tokens": len(pending[1] or ()),
            "truncated": shown.truncated,
            "neutralised": shown.neutralised,
        }
        if self.limits.timings:
            turn["cached"] = bool(found.hits) and all(hit.get("cached", False) for hit in found.hits)
            turn["ms"] = round(found.ms, 3)
        self.turns.append(turn)
        return pending

    def _render(self, hits: list[Hit]) -> Rendered:
        codec = self.codec
        count = len if codec is None else (lambda text: len(codec.encode(text)))
        budget = self.limits.context_tokens * (1 if codec is not None else 4)
        return render(hits, budget=budget, count=count)

    def _inject(self, text: str) -> tuple[str, tuple[int, ...] | None]:
        ids = self._encode(text)
        self.transcript.inject(text, ids)
        if self.constraint is not None:
            self.constraint.inject(text)
        return text, ids

    def _encode(self, text: str) -> tuple[int, ...] | None:
        return self.codec.encode(text) if self.codec is not None else None

    def _out_of_tokens(self, completion: Completion) -> bool:
        """Whether the engine stopped before this turn's cap: the whole context is full."""
        ids = completion.ids
        return completion.finish == "length" and ids is not None and len(ids) < self.limits.turn_tokens


def _joined(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if first is None or second is None else first + second
