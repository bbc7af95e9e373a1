"""Rows as answers that can be compared: our run records, users' own with fewer fields, lines of an OpenAI batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from toolroll.errors import RowError
from toolroll.numerics.configs import fields_of, from_file_name
from toolroll.numerics.divergence import Floats

__all__ = ["Answer", "answers_of"]

ABOVE_ONE = 1e-6  #: by how much rounding may lift a probability of an fp32 softmax above 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to problem `id` under the configuration `fields`, as far as its row says what it was.

    tokens: ids, or the tokens' texts. top1: probability of the most probable token at each position [T]; gaps: that
    minus the second's [T]. n_tokens: its length.
    """

    id: str | int
    sample: int = 0
    fields: dict[str, str]
    tokens: Sequence[int | str] | None = None
    top1: Floats | None = None
    gaps: Floats | None = None
    n_tokens: int | None = None
    correct: int | None = None
    text: str | None = None
    weight_bytes: int | None = None
    kv_bytes: int | None = None
    ms: float | None = None
    peak_rss_bytes: int | None = None


def answers_of(view: Any, file: str, *, by_file: bool = False) -> Iterator[Answer]:
    """The answers in a row of `file`: one, or for a batch's line one for each choice.

    `by_file` makes the file's name a field of the configuration. Raises RowError for a row that contradicts itself.
    """
    own = {"file": file} if by_file else {}
    if view.response is not None:
        yield from _of_batch(view, file, own)
        return
    if view.id is None:
        raise RowError("missing required field `id`")
    length = _length(tokens=view.tokens, top1_prob=view.top1_prob, top2_prob=view.top2_prob, logprobs=view.logprobs)
    top1, gaps = _probabilities(view)
    yield Answer(
        id=view.id,
        sample=view.sample,
        fields={**fields_of({} if view.config is None else view.config), **own},
        tokens=view.tokens,
        top1=top1,
        gaps=gaps,
        n_tokens=length if view.n_tokens is None else view.n_tokens,
        correct=None if view.correct is None else int(view.correct),
        text=view.text,
        weight_bytes=view.weight_bytes,
        kv_bytes=view.kv_bytes,
        ms=view.ms,
        peak_rss_bytes=view.peak_rss_bytes,
    )


def _length(**lists: Any) -> int | None:
    """The length that all of these have which are there."""
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    for name, length in lengths.items():
        first = next(iter(lengths))
        if length != lengths[first]:
            raise RowError(f"{name} has {length} values, {first} has {lengths[first]}")
    return next(iter(lengths.values()), None)


def _probabilities(view: Any) -> tuple[Floats | None, Floats | None]:
    """The probabilities of the most probable tokens, and their distances from the second ones.

    Where only `logprobs` are there, those of the tokens that were written: the same where decoding was greedy.
    """
    if view.top1_prob is None:
        return (None if view.logprobs is None else _exp(view.logprobs, "logprobs")), None
    top1 = _checked(np.array(view.top1_prob, dtype=np.float64), "top1_prob")
    if view.top2_prob is None:
        return top1, None
    gaps = top1 - _checked(np.array(view.top2_prob, dtype=np.float64), "top2_prob")
    if (below := np.flatnonzero(gaps < -ABOVE_ONE)).size:
        raise RowError(f"top2_prob[{below[0]}] is above top1_prob[{below[0]}]")
    return top1, gaps.clip(0, 1)


def _exp(logs: Sequence[float], name: str) -> Floats:
    values = np.array(logs, dtype=np.float64)
    if (wrong := np.flatnonzero(values > ABOVE_ONE)).size:
        raise RowError(f"{name}[{wrong[0]}] is {values[wrong[0]]:g}, above 0: no logarithm of a probability")
    return _checked(np.exp(values), name)


def _checked(values: Floats, name: str) -> Floats:
    if (wrong := np.flatnonzero(~((values >= 0) & (values <= 1 + ABOVE_ONE)))).size:
        raise RowError(f"{name}[{wrong[0]}] is {values[wrong[0]]:g}, not a probability")
    return values


# --- the output of an OpenAI batch


class _Alternative(msgspec.Struct, frozen=True):
    logprob: float


class _Token(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_Token] | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    message: _Message | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int | None = None


class _Body(msgspec.Struct, frozen=True):
    model: str | None = None
    choices: list[_Choice] = []  # msgspec copies it
    usage: _Usage | None = None


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 200
    body: _Body | None = None


def _of_batch(view: Any, file: str, own: dict[str, str]) -> Iterator[Answer]:
    """The answers of a line as OpenAI's batches and `vllm run-batch` write them."""
    if view.custom_id is None:
        raise RowError("has a `response` but no `custom_id`")
    try:
        response = msgspec.convert(view.response, _Response)
    except msgspec.ValidationError as error:
        raise RowError(f"response: {error}") from error
    body = response.body
    if response.status_code != 200 or body is None:
        raise RowError(f"the request failed with status {response.status_code}")
    fields = {**({} if body.model is None else {"model": body.model}), **from_file_name(file), **own}
    for choice in body.choices:
        tokens = None if choice.logprobs is None else choice.logprobs.content
        used = body.usage.completion_tokens if body.usage is not None and len(body.choices) == 1 else None
        top1, gaps = _top_two(tokens or [])
        yield Answer(
            id=view.custom_id,
            sample=choice.index,
            fields=fields,
            tokens=None if tokens is None else [token.token for token in tokens],
            top1=top1,
            gaps=gaps,
            n_tokens=used if tokens is None else len(tokens),
            text=None if choice.message is None else choice.message.content,
        )


def _top_two(tokens: list[_Token]) -> tuple[Floats | None, Floats | None]:
    """Probabilities of the most probable tokens, from the alternatives or else the tokens' own, and the gaps."""
    if not tokens:
        return None, None
    ranked = [sorted((top.logprob for top in token.top_logprobs or ()), reverse=True) for token in tokens]
    top1 = _exp([tops[0] if tops else token.logprob for tops, token in zip(ranked, tokens, strict=True)], "logprob")
    if any(len(tops) < 2 for tops in ranked):
        return top1, None
    return top1, (top1 - _exp([tops[1] for tops in ranked], "logprob")).clip(0, 1)
