"""Many rollouts on one engine: from question rows to trajectory rows."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.cache import Cache
from toolroll.io.rows import Row
from toolroll.models.base import Completion, Generate
from toolroll.models.episodes import Fork, drive
from toolroll.models.options import ModelOptions, SamplingOptions
from toolroll.models.policy import PolicyVersion, current_policy
from toolroll.rag.golden import golden_answers
from toolroll.rag.judges.reanswer import closed_book_messages, engine_identity
from toolroll.rag.protocol import PROTOCOLS
from toolroll.rag.retrieve import CachedRetriever, Retriever, open_retriever
from toolroll.rag.rollout import Limits, Rollout, search_all
from toolroll.run.log import Log
from toolroll.run.loop import Rows
from toolroll.run.seeds import record_seed
from toolroll.run.signals import StopFlag

_TAG_TOKENS = 32  # generous: what closing one field and opening the next may take, in tokens


@dataclass(slots=True)
class Task:
    """One trajectory under way."""

    row: Row[Any]
    sample: int
    seed: int
    rollout: Rollout


class Batch:
    """The model, the retriever and the settings of a run of rag-rollout; close it when done."""

    def __init__(
        self,
        model: ModelOptions,
        draw: SamplingOptions,
        *,
        policy: Path | None,
        follow: bool,
        options: dict[str, Any],
        log: Log,
        stop: StopFlag,
    ) -> None:
        if follow and policy is None:
            raise UsageError("goes with --policy", place="--follow")
        self.draw = draw
        self.options = options
        self.log = log
        self.stop = stop
        self.policy = policy
        self.follow = follow
        self.ended = 0
        self.protocol = PROTOCOLS[options["dialect"]]
        self.template = _read_template(options["prompt_file"])
        self._open = ExitStack()
        try:
            self.retriever = self._open_retriever()
            self.version: PolicyVersion | None = current_policy(policy) if policy else None
            self.engine = model.open(log.note, model=str(self.version.path) if self.version else None)
            self._open.callback(self.engine.close)
            self.grammar = self._make_grammar() if options["constrain"] else None
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def model(self) -> dict[str, Any]:
        """What runs here, for the manifest: results may differ in the last bits where any of this does."""
        device = getattr(self.engine, "device", None)
        return {
            "engine": engine_identity(self.engine),
            "device": None if device is None else device.text,
            "sequences": self.engine.capacity,
            "context_tokens": self.engine.max_context,
        }

    def run(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        """Trajectory rows for question rows, in order."""
        if not self.follow:
            yield from self._drive(rows, rows)
            return
        for first in rows:
            self._reload()
            yield from self._drive(self._available(first, rows), rows)

    def _available(self, first: Row[Any], rows: Rows[Any]) -> list[Row[Any]]:
        """A batch of rows: the first and what else is there already, as many as the engine takes at a time."""
        most = max(1, self.engine.capacity // self.options["samples"])
        return [first, *islice(_ready(rows), most - 1)]

    def _reload(self) -> None:
        assert self.policy is not None
        version = current_policy(self.policy)
        if version == self.version:
            return
        reload = getattr(self.engine, "reload", None)
        if reload is None:
            raise UsageError(f"{self.engine.name} cannot load new weights while it runs", place="--follow")
        reload(version.path)
        self.version = version
        self.log.info(f"policy version {version.name}")

    def _drive(self, batch: Rows[Any] | list[Row[Any]], rows: Rows[Any]) -> Iterator[Row[Any]]:
        tasks: dict[Hashable, Task] = {}

        left = 0  # samples of the row in hand that are still to be started

        def episodes() -> Iterator[tuple[tuple[int, int], Generator[Any, Any, dict[str, Any]]]]:
            nonlocal left
            for row in batch:
                for sample in range(self.options["samples"]):
                    left = self.options["samples"] - sample - 1
                    if rows.done(row.view.id, sample):
                        self.log.counts.skipped += 1
                        continue
                    task = self._task(row, sample)
                    tasks[row.index, sample] = task
                    yield (row.index, sample), self._episode(task)

        results = drive(
            self.engine,
            episodes(),
            calls=search_all(self.retriever, self.options["topk"]),
            ready=lambda: left > 0 or isinstance(batch, list) or rows.ready(),
            stop=lambda: bool(self.stop),
            ordered=True,
        )
        for key, result in results:
            yield self._finished(tasks.pop(key), result)

    def _task(self, row: Row[Any], sample: int) -> Task:
        options = self.options
        seed = record_seed(options["seed"], row.view.id, sample)
        sampling = self.draw.sampling(seed=seed)
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
            sampling,
            prompt=self._prompt(row.view.question),
            constraint=self._constraint(),
        )
        return Task(row, sample, seed, rollout)

    def _turn_tokens(self) -> int:
        """The cap of a turn; a constrained one is bounded by its form, and cutting it would break that."""
        options = self.options
        if self.grammar is None:
            return int(options["turn_tokens"])
        return int((3 * options["max_steps"] + 1) * (options["field_tokens"] + _TAG_TOKENS))

    def _episode(self, task: Task) -> Generator[Any, Any, dict[str, Any]]:
        fields = yield from task.rollout.episode()
        self.ended += 1
        self.log.status(f"{self.ended} trajectories ended")
        if self.options["closed_book"] and fields["turns"]:
            queries = list(dict.fromkeys(turn["query"] for turn in fields["turns"]))
            answers: Sequence[Completion | Exception] = yield Fork([self._ask(query, task.seed) for query in queries])
            said = dict(zip(queries, answers, strict=True))
            for turn in fields["turns"]:
                answer = said[turn["query"]]
                if isinstance(answer, Completion):
                    turn["closed_book"] = {"text": answer.text.strip(), "model": engine_identity(self.engine)}
        return fields

    def _ask(self, query: str, seed: int) -> Generator[Generate, Completion, Completion]:
        """The over-search test's question: the query alone, no passages."""
        prompt = self._chat(closed_book_messages(query))
        codec = self.engine.codec
        sampling = self.draw.sampling(
            seed=record_seed(seed, "closed-book", query), max_tokens=self.options["closed_book_tokens"]
        )
        answer = yield Generate(prompt, codec.encode(prompt) if codec else None, sampling)
        return answer

    def _finished(self, task: Task, result: dict[str, Any] | Exception) -> Row[Any]:
        row = task.row
        own = {
            "golden_answers": golden_answers(row.view),
            "sample": task.sample,
            "prompt_id": row.view.id,
            "model": self.engine.name,
            "policy_version": self.version.name if self.version else None,
            "seed": task.seed,
        }
        if isinstance(result, RowError):
            return row.fail(str(result), **own, **task.rollout.fields())
        if isinstance(result, Exception):
            raise result
        return row.add(**own, **result)

    def _prompt(self, question: str) -> str:
        text = self.protocol.prompt(question, self.template)
        return text if self.options["raw_prompt"] else self._chat([{"role": "user", "content": text}])

    def _chat(self, messages: list[dict[str, str]]) -> str:
        codec = self.engine.codec
        return codec.chat(messages) if codec is not None else "\n\n".join(part["content"] for part in messages) + "\n\n"

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
            seed=options["seed"],
        )
        if options["search_cache"]:
            cache = Cache(options["search_cache"])
            self._open.callback(cache.close)
            retriever = CachedRetriever(retriever, cache)
        self._open.callback(retriever.close)
        return retriever


def _ready(rows: Rows[Any]) -> Iterator[Row[Any]]:
    while rows.ready():
        row = next(rows, None)
        if row is None:
            return
        yield row


def _read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    except UnicodeDecodeError as error:
        raise ToolrollError("not UTF-8", place=str(path)) from error
