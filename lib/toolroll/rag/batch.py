"""Many rollouts on one engine: from question rows to trajectory rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Self

from toolroll.checking.golden import golden_answers
from toolroll.errors import UsageError
from toolroll.io.cache import Cache
from toolroll.io.rows import Row
from toolroll.models.answers import read_template
from toolroll.models.base import Completion, Generate, engine_identity
from toolroll.models.episodes import Fork
from toolroll.models.options import ModelOptions, PolicyOptions, SamplingOptions
from toolroll.models.rollouts import Rollouts, Sample
from toolroll.rag.judges.reanswer import closed_book_messages
from toolroll.rag.protocol import PROTOCOLS
from toolroll.rag.retrieve import CachedRetriever, Retriever, open_retriever
from toolroll.rag.rollout import Limits, Rollout, search_all
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed
from toolroll.run.signals import StopFlag

_TAG_TOKENS = 32  # generous: what closing one field and opening the next may take, in tokens


class Batch:
    """The model, the retriever and the settings of a run of rag-rollout; close it when done."""

    def __init__(
        self,
        model: ModelOptions,
        policy: PolicyOptions,
        draw: SamplingOptions,
        *,
        samples: int,
        seed: int,
        options: dict[str, Any],
        log: Log,
        stop: StopFlag,
    ) -> None:
        self.draw = draw
        self.seed = seed
        self.options = options
        self.protocol = PROTOCOLS[options["dialect"]]
        self.template = read_template(options["prompt_file"]) if options["prompt_file"] else None
        self._open = ExitStack()
        try:
            self.retriever = self._open_retriever()
            self.rollouts = Rollouts(model, policy, samples=samples, seed=seed, log=log, stop=stop)
            self._open.callback(self.rollouts.close)
            self.engine = self.rollouts.engine
            self.grammar = self._make_grammar() if options["constrain"] else None
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        """Trajectory rows for question rows, in order."""
        return self.rollouts.run(rows, self._begin, calls=search_all(self.retriever, self.options["topk"]))

    def _begin(self, row: Row[Any], _sample: int, seed: int) -> Sample:
        options = self.options
        limits = Limits(
            max_searches=options["max_searches"],
            turn_tokens=self._turn_tokens(),
            context_tokens=options["context_tokens"],
            prompt_tokens=options["prompt_tokens"],
            stop_on_invalid=options["on_invalid"] == "stop",
            timings=options["timings"],
        )
        rollout = Rollout(
            self.protocol,
            self.engine.codec,
            limits,
            self.draw.sampling(seed=seed),
            prompt=self._prompt(row.view.question),
            constraint=self._constraint(),
        )
        known = {"golden_answers": golden_answers(row.view)}
        return Sample(self._episode(rollout, seed), rollout.fields, known)

    def _turn_tokens(self) -> int:
        """The cap of a turn; a constrained one is bounded by its form, and cutting it would break that."""
        options = self.options
        if self.grammar is None:
            return int(options["turn_tokens"])
        return int((3 * options["max_steps"] + 1) * (options["field_tokens"] + _TAG_TOKENS))

    def _episode(self, rollout: Rollout, seed: int) -> Generator[Any, Any, dict[str, Any]]:
        fields = yield from rollout.episode()
        if self.options["closed_book"] and fields["turns"]:
            queries = list(dict.fromkeys(turn["query"] for turn in fields["turns"]))
            answers: Sequence[Completion | Exception] = yield Fork([self._ask(query, seed) for query in queries])
            said = dict(zip(queries, answers, strict=True))
            for turn in fields["turns"]:
                answer = said[turn["query"]]
                if isinstance(answer, Completion):
                    turn["closed_book"] = {"text": answer.text.strip(), "model": engine_identity(self.engine)}
        return fields

    def _ask(self, query: str, seed: int) -> Generator[Generate, Completion, Completion]:
        """The over-search test's question: the query alone, no passages."""
        prompt = self.rollouts.chat(closed_book_messages(query))
        codec = self.engine.codec
        sampling = self.draw.sampling(
            seed=record_seed(seed, "closed-book", query), max_tokens=self.options["closed_book_tokens"]
        )
        answer = yield Generate(prompt, codec.encode(prompt) if codec else None, sampling)
        return answer

    def _prompt(self, question: str) -> str:
        text = self.protocol.prompt(question, self.template)
        return text if self.options["raw_prompt"] else self.rollouts.chat([{"role": "user", "content": text}])

    def _constraint(self) -> Any:
        if self.grammar is None:
            return None
        options = self.options
        return self.grammar.start(
            field_tokens=options["field_tokens"], max_steps=options["max_steps"], searches=options["max_searches"]
        )

    def _make_grammar(self) -> Any:
        from toolroll.models.constraint import Grammar

        if self.protocol.name != "hiprag":
            raise UsageError("knows the form of the hiprag dialect only", place="--constrain")
        if not self.engine.name.startswith("hf:"):
            raise UsageError("needs the hf back end", place="--constrain")
        codec: Any = self.engine.codec
        return Grammar(codec)

    def _open_retriever(self) -> Retriever:
        options = self.options
        retriever = open_retriever(
            options["retriever"],
            timeout_s=options["search_timeout"],
            tries=options["search_tries"],
            seed=self.seed,
        )
        if options["search_cache"]:
            cache = Cache(options["search_cache"])
            self._open.callback(cache.close)
            retriever = CachedRetriever(retriever, cache)
        self._open.callback(retriever.close)
        return retriever
