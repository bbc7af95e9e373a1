"""The back end for OpenAI-compatible servers: vLLM, llama.cpp, a cloud service.

Turns of a sequence go to `/completions`, with token ids as the prompt when a codec of the same tokenizer is given and
as text otherwise; conversations go to `/chat/completions`. How the dialects differ, and how stop strings are found,
is in `toolroll.models.remote_reply`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.cache import Cache, cache_key
from toolroll.models.base import Codec, Completion, Generate, Message, Sampling, Usage
from toolroll.models.remote_http import Wire, api_key
from toolroll.models.remote_reply import Dialect, Listing, LogprobsMode, Reply, exact_logprobs, recognise, request_body

POLL_S = 0.05  #: the longest `poll` waits for something to finish

_Answer = tuple[Completion, Usage]


@dataclass(slots=True)
class _Sequence:
    """What a sequence has seen. `ids` is None without a codec, and from the first part on whose ids are unknown."""

    ids: tuple[int, ...] | None
    text: str = ""

    def append(self, text: str, ids: tuple[int, ...] | None) -> None:
        self.text += text
        self.ids = None if self.ids is None or ids is None else self.ids + ids


class RemoteEngine:
    """A `TextEngine` that asks an OpenAI-compatible server.

    base_url: "http://host:port" or the address up to and including "/v1". model: as the server calls it; None takes
    its first. codec: only when it is the served model's tokenizer and the server takes ids as prompts (vLLM, llama.cpp,
    SGLang do); a sequence falls back to text from the first part without ids on, so give `Generate.text` too.
    max_context: tokens, at most (and when None) what the server says.
    concurrency: requests under way at once (>= 1). timeout_s, tries, deadline_s: one try, number of tries, all tries of
    a request. cache: file for answers; its keys hold address, model and request, never the API key. logprobs_mode:
    "processed" for a vLLM server started with `--logprobs-mode processed_logprobs`; log-probs that are not those at the
    sampling temperature are left out (None) rather than passed on.

    Asks GET /models at once: a server that cannot be reached is a ToolrollError here and a RowError later.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        codec: Codec | None = None,
        max_context: int | None = None,
        concurrency: int = 16,
        timeout_s: float = 300.0,
        tries: int = 5,
        deadline_s: float = 900.0,
        api_key_file: Path | None = None,
        cache: Path | None = None,
        dialect: Dialect | None = None,
        logprobs_mode: LogprobsMode = "raw",
    ) -> None:
        self.codec = codec
        self.capacity = concurrency
        self.usage = Usage()
        self._logprobs_mode = logprobs_mode
        self._wire = Wire(
            base_url,
            key=api_key(api_key_file),
            connections=concurrency,
            timeout_s=timeout_s,
            tries=tries,
            deadline_s=deadline_s,
        )
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="toolroll-request")
        self._closed = False
        self._cache: Cache | None = None
        self._sequences: dict[Hashable, _Sequence] = {}
        self._under_way: dict[Hashable, Future[_Answer]] = {}
        self._done: queue.SimpleQueue[tuple[Hashable, Future[_Answer]]] = queue.SimpleQueue()
        try:
            self._cache = Cache(cache) if cache is not None else None
            server = recognise(self._listing(model), model)
            self.server = replace(server, dialect=dialect) if dialect else server
        except BaseException:
            self.close()
            raise
        self.name = f"openai:{self.server.model}"
        self.place = self._wire.place  #: the address, without user name and password
        self.max_context = min(filter(None, (max_context, self.server.max_context)), default=None)
        self.weights_id = f"{self.place}#{self.server.model}"

    def submit(self, key: Hashable, request: Generate) -> None:
        """Append to sequence `key` (new or known) and start a completion of it.

        Raises UsageError on a constraint, ToolrollError when `key` is still writing. In ids, `max_context` is kept as
        any engine does: "length" when it is reached. A text that is too long is the server's to refuse (RowError).
        """
        if request.constraint is not None:
            raise UsageError("the openai back end cannot constrain what is written: use --backend hf", place=self.name)
        if key in self._under_way:
            raise ToolrollError("this sequence is still being written", place=str(key))
        sequence = self._sequences.setdefault(key, _Sequence(ids=None if self.codec is None else ()))
        sequence.append(request.text, request.ids)
        prompt = sequence.text if sequence.ids is None else sequence.ids
        future = self._pool.submit(self._continue, prompt, request.sampling)
        self._under_way[key] = future
        future.add_done_callback(lambda done: self._done.put((key, done)))

    def poll(self) -> list[tuple[Hashable, Completion | Exception]]:
        """What has finished since the last call; waits up to `POLL_S` seconds for a first one.

        A RowError belongs to its sequence; any other failure (the cache file, a defect) is raised.
        """
        finished: list[tuple[Hashable, Completion | Exception]] = []
        while self._under_way:
            try:
                key, future = self._done.get(block=not finished, timeout=POLL_S)
            except queue.Empty:
                break
            if self._under_way.get(key) is not future:
                continue
            del self._under_way[key]
            outcome = self._outcome(future)
            if isinstance(outcome, Completion):
                self._sequences[key].append(outcome.text, outcome.ids)
            finished.append((key, outcome))
        return finished

    def release(self, key: Hashable) -> None:
        """Forget sequence `key`; the answer to a request under way is dropped when it comes."""
        self._sequences.pop(key, None)
        future = self._under_way.pop(key, None)
        if future is not None:
            future.cancel()

    def chat(self, requests: Iterable[tuple[Sequence[Message], Sampling]]) -> list[Completion | Exception]:
        """Answer independent conversations, in order, `concurrency` at a time; a failed one is its RowError."""
        return self.chat_later((partial(list, messages), sampling) for messages, sampling in requests)

    def chat_later(
        self, requests: Iterable[tuple[Callable[[], Sequence[Mapping[str, Any]]], Sampling]]
    ) -> list[Completion | Exception]:
        """As `chat`, of messages that are made when they are sent: large ones are in memory `concurrency` at a time.

        They are made in other threads. A RowError there belongs to its conversation.
        """
        futures = [self._pool.submit(self._converse, make, sampling) for make, sampling in requests]
        return [self._outcome(future) for future in futures]

    def close(self) -> None:
        """End what is under way, then close connections and cache; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._wire.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._wire.close()
        if self._cache is not None:
            self._cache.close()

    def _listing(self, model: str | None) -> list[dict[str, Any]]:
        try:
            return self._wire.call("GET", "/models", None, Listing).entries
        except RowError as error:
            if model is not None and "/models: 404" in str(error):
                return []
            raise ToolrollError(error.why, place=error.place) from error

    def _continue(self, prompt: str | tuple[int, ...], sampling: Sampling) -> _Answer:
        if self.max_context is not None and not isinstance(prompt, str):
            room = self.max_context - len(prompt)
            if room <= 0:
                return Completion("", (), (), "length"), Usage()
            sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        return self._ask("/completions", request_body(self.server, sampling, prompt, chat=False), sampling)

    def _converse(self, make: Callable[[], Sequence[Mapping[str, Any]]], sampling: Sampling) -> _Answer:
        return self._ask("/chat/completions", request_body(self.server, sampling, make(), chat=True), sampling)

    def _ask(self, path: str, body: dict[str, Any], sampling: Sampling) -> _Answer:
        key = cache_key("openai" + path, self.weights_id, self._logprobs_mode, body)
        stored = self._cache.get(key) if self._cache is not None else None
        if stored is not None:
            return _revived(stored), Usage()
        reply = self._wire.call("POST", path, body, lambda: Reply(self.server, sampling))
        completion = reply.completion(with_logprobs=exact_logprobs(sampling, self._logprobs_mode))
        if self._cache is not None:
            self._cache.put(key, asdict(completion))
        return completion, reply.usage()

    def _outcome(self, future: Future[_Answer]) -> Completion | Exception:
        try:
            completion, usage = future.result()
        except RowError as error:
            return error
        except CancelledError:
            return RowError("cancelled", place=self.name)
        self.usage.prefilled += usage.prefilled
        self.usage.reused += usage.reused
        self.usage.generated += usage.generated
        if self.codec is not None and completion.ids is not None:
            ids = completion.ids[:-1] if completion.finish == "eos" else completion.ids
            return replace(completion, text=self.codec.decode(ids))
        return completion


def _revived(stored: dict[str, Any]) -> Completion:
    ids, logprobs = stored["ids"], stored["logprobs"]
    return Completion(
        stored["text"],
        None if ids is None else tuple(ids),
        None if logprobs is None else tuple(logprobs),
        stored["finish"],
        stored["stop"],
    )
