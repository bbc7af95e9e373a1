"""What OpenAI-compatible servers understand and what they answer: requests out, completions in.

Three dialects, told apart by `owned_by` in the server's list of models:

- `vllm` stops at the stop strings itself and keeps them (`include_stop_str_in_output`), says which one it was, and
  returns the sampled ids and their log-probs.
- `llamacpp` cuts the stop string off, with its ids, and does not say which it was. So it is never told the stop
  strings: the answer is streamed token by token and we hang up after the token that completes one.
- `openai`, everything else, cuts them off as well and does not tell a stop from an end. The same is done, only that
  ids and log-probs are unknown.

The rule for stop strings is therefore one: the answer ends with the stop string that is complete first, and of two
that are complete at the same character the one named first in `Sampling.stop` counts. No guess is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolroll.errors import RowError, UsageError
from toolroll.models.base import Completion, Finish, Sampling, Usage

Dialect = Literal["vllm", "llamacpp", "openai"]
LogprobsMode = Literal["raw", "processed"]

_OPENAI = ("openai", "openai-internal", "system")  # owners of the models of OpenAI itself
_SEEDS = 2**31  # every server takes a seed below this; llama.cpp reads 2^32 - 1 as "any"


@dataclass(frozen=True, slots=True)
class Server:
    """A server as it presents itself.

    `max_context` in tokens, None when it does not say. `limit`: what it calls the most new tokens of a chat answer.
    """

    dialect: Dialect
    model: str
    max_context: int | None = None
    limit: str = "max_tokens"


class Listing:
    """Reads the answer to GET /models."""

    complete = False

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def feed(self, message: Any) -> bool:
        """Keep the entries of `message`; always True, a list comes in one piece."""
        data = message.get("data") if isinstance(message, dict) else None
        if isinstance(data, list):
            self.entries = [entry for entry in data if isinstance(entry, dict)]
            self.complete = True
        return True


def recognise(entries: Sequence[dict[str, Any]], model: str | None) -> Server:
    """The server behind `entries` of GET /models; without `model` its first one is meant.

    Raises UsageError when neither names a model.

    >>> recognise([{"id": "m", "owned_by": "vllm", "max_model_len": 4096}], None)
    Server(dialect='vllm', model='m', max_context=4096, limit='max_tokens')
    """
    entry = next((entry for entry in entries if entry.get("id") == model), entries[0] if entries else {})
    name = model or entry.get("id")
    if not isinstance(name, str):
        raise UsageError("the server names no model: name one", place="model")
    owner = entry.get("owned_by")
    dialect: Dialect = owner if owner in ("vllm", "llamacpp") else "openai"
    meta = entry.get("meta")
    context = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    limit = "max_completion_tokens" if owner in _OPENAI else "max_tokens"
    return Server(dialect, name, context if isinstance(context, int) else None, limit)


def exact_logprobs(sampling: Sampling, mode: LogprobsMode) -> bool:
    """Whether log-probs reported in `mode` are log softmax(logits / temperature), as `Completion` promises.

    "raw" values are taken before the temperature, "processed" ones after the temperature, top-p and top-k.

    >>> exact_logprobs(Sampling(temperature=0.7), "raw"), exact_logprobs(Sampling(temperature=0.7), "processed")
    (False, True)
    """
    if sampling.temperature == 0:
        return True
    return sampling.temperature == 1 if mode == "raw" else sampling.top_p == 1 and sampling.top_k == 0


def request_body(
    server: Server, sampling: Sampling, asked: str | Sequence[int] | Sequence[Mapping[str, Any]], *, chat: bool
) -> dict[str, Any]:
    """The JSON of a request: `asked` is a prompt (text or ids) or, for `chat`, the messages.

    Defaults a server would take from elsewhere (vLLM: the model's generation_config.json; llama.cpp: top-k 40,
    min-p 0.05) are all named, so that the draw is the one `sampling` describes.
    """
    body: dict[str, Any] = {
        "model": server.model,
        "messages" if chat else "prompt": asked,
        server.limit if chat else "max_tokens": sampling.max_tokens,
        "seed": sampling.seed % _SEEDS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if server.dialect == "vllm":
        body |= {"min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
    elif server.dialect == "llamacpp":
        body |= {"samplers": ["temperature", "top_k", "top_p"], "cache_prompt": True}
    if server.dialect != "openai" or sampling.top_k:
        body["top_k"] = sampling.top_k
    if server.dialect != "openai":
        shown = int(server.dialect == "llamacpp")  # at 0, vLLM gives the sampled token's and llama.cpp nothing
        body |= {"logprobs": True, "top_logprobs": shown} if chat else {"logprobs": shown}
    if sampling.stop and server.dialect != "vllm":
        body["stream"] = True
        if server.dialect == "llamacpp":
            body["stream_options"] = {"include_usage": True}
    return body


class Reply:
    """Puts one completion together from a whole answer or the events of a stream."""

    def __init__(self, server: Server, sampling: Sampling) -> None:
        self.complete = False
        self._stops = () if server.dialect == "vllm" else sampling.stop
        self._longest = max(map(len, self._stops), default=0)
        self._text = ""
        self._tokens: list[tuple[int, float]] | None = []
        self._finish: Finish = "length"
        self._stop: str | None = None
        self._usage: dict[str, Any] = {}

    def feed(self, message: Any) -> bool:
        """Take the whole answer or one event; True when a stop string is complete. Raises RowError."""
        if not isinstance(message, dict):
            raise RowError("the answer is not a JSON object")
        if message.get("error"):
            error = message["error"]
            raise RowError(" ".join(str(error.get("message") if isinstance(error, dict) else error).split()))
        if isinstance(message.get("usage"), dict):
            self._usage = message["usage"]
        choices = message.get("choices")
        if not isinstance(choices, list) or not choices:
            return False
        try:
            return self._take(choices[0])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RowError(f"the answer has a choice of an unknown shape ({error!r})") from error

    def _take(self, choice: dict[str, Any]) -> bool:
        text, tokens = _text(choice), _tokens(choice)
        if self._tokens is not None and tokens is not None:
            self._tokens += tokens
        elif text:
            self._tokens = None
        start = max(0, len(self._text) - self._longest + 1)
        self._text += text
        found = _first_stop(self._text, self._stops, start) if text else None
        if found is not None:
            self._finish, self._stop = "stop", found[1]
            if self._tokens is None or len(tokens or ()) != 1:
                self._text, self._tokens = self._text[: found[0]], None
            self.complete = True
            return True
        reason = choice.get("finish_reason")
        if reason is not None:
            self._end(reason, choice.get("stop_reason"))
        return False

    def _end(self, reason: object, stop: object) -> None:
        if reason not in ("stop", "length"):
            raise RowError(f"the server ended the answer with {reason!r}")
        if reason == "stop":
            self._finish, self._stop = ("stop", stop) if isinstance(stop, str) else ("eos", None)
        self.complete = True

    def completion(self, *, with_logprobs: bool) -> Completion:
        """The completion. Ids are left out when the server reported fewer tokens than it counted."""
        tokens = self._tokens or None
        counted = self._usage.get("completion_tokens")
        if tokens is not None and counted is not None and counted != len(tokens):
            tokens = None
        ids = None if tokens is None else tuple(token for token, _ in tokens)
        logprobs = tuple(logprob for _, logprob in tokens) if tokens is not None and with_logprobs else None
        return Completion(self._text, ids, logprobs, self._finish, self._stop)

    def usage(self) -> Usage:
        """Tokens of this answer, as far as the server or the ids tell."""
        details = self._usage.get("prompt_tokens_details") or {}
        reused = details.get("cached_tokens") or 0
        generated = self._usage.get("completion_tokens") or len(self._tokens or ())
        return Usage((self._usage.get("prompt_tokens") or 0) - reused, reused, generated)


def _first_stop(text: str, stops: tuple[str, ...], start: int) -> tuple[int, str] | None:
    """Where the stop string that is complete first ends, and which it is."""
    ends = [(at + len(stop), stop) for stop in stops if (at := text.find(stop, start)) >= 0]
    return min(ends, key=lambda found: found[0], default=None)


def _text(choice: dict[str, Any]) -> str:
    said = choice.get("message") or choice.get("delta") or {}
    text = choice.get("text") or said.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("text that is not a string")
    return text


def _tokens(choice: dict[str, Any]) -> list[tuple[int, float]] | None:
    """Ids and log-probs: vLLM's `token_ids` beside either shape of log-probs, or llama.cpp's ids inside them."""
    logprobs = choice.get("logprobs") or {}
    content = logprobs.get("content") or []
    ids = choice.get("token_ids") or [entry.get("id") for entry in content]
    values = logprobs.get("token_logprobs") or [entry["logprob"] for entry in content]
    if None in ids or len(ids) != len(values):
        return None
    return [(int(token), float(value)) for token, value in zip(ids, values, strict=True)]
