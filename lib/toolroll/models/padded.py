"""One batch of answers, the way most inference code makes them: left padding, a growing cache, a step for all.

A batch is what one `generate` call gets: so many prompts, in the order of the data set. It shrinks as its answers end.
Which sequences share a batch, and how much padding that costs, is what the experiment varies; so unlike
`toolroll.models.text`, nothing here joins a batch later, and nothing is shared between sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from toolroll.models.base import Codec, Sampling
from toolroll.models.sampling import StopWatch, sample
from toolroll.models.vision import TOKEN_FEATURES, side_by_side

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_LOGITS = 2**26  # numbers: how many logits of a given answer are in memory at a time


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt in token ids, how to draw its answer, and the tensors of its images.

    `pictures` names its images: prompts with the same ids and names are the same. None says nothing.
    """

    ids: Sequence[int]
    sampling: Sampling
    features: Mapping[str, Tensor] = field(default_factory=dict)
    pictures: Hashable = field(default=None, kw_only=True)


@dataclass(slots=True)
class Written:
    """An answer of T tokens.

    `ids` [T]; `logprobs` [T] of these tokens and `top_ids`, `top_logprobs` [T, K] of the K most probable ones, most
    probable first (where several are equal, the one written first), in nats at the sampling temperature (1 when
    greedy), before top-p and top-k. `stop` is the stop string that ended it, `failed` says why it could not go on.
    `kv_bytes` of its row of the cache when it ended, padding included.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_ids: list[list[int]] = field(default_factory=list)
    top_logprobs: list[list[float]] = field(default_factory=list)
    ended: bool = False
    stop: str | None = None
    failed: str | None = None
    kv_bytes: int = 0


@dataclass(slots=True)
class Strand:
    """A batch of B sequences under way: what the model has read, and what it is to read next.

    `ids` [B, T] are new, at `positions` [B, T] or [3, B, T]; `mask` [B, past + T] is 0 on padding; `offset` [B, 1] is
    how far the positions of the answer are off; `features` are the tensors of images among the new tokens.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    offset: Tensor
    cache: DynamicCache
    features: Mapping[str, Tensor]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        chosen = torch.tensor(places, device=self.mask.device)
        self.cache.reorder_cache(chosen)
        self.mask, self.offset = self.mask[chosen], self.offset[chosen]

    def row_bytes(self, rows: int) -> int:
        """Bytes of keys and values that the cache holds for each of its `rows`."""
        return _row_bytes(self.cache, rows)


class RoundedCache(DynamicCache):  # type: ignore[misc]
    """A cache that holds keys and values in a type of its own, and gives them in the type they came in."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__(config=config)
        self._dtype = dtype

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, H, T, D]; all of the layer's."""
        held = super().update(keys.to(self._dtype), values.to(self._dtype), *args, **kwargs)
        return held[0].to(keys.dtype), held[1].to(values.dtype)


class Batches:
    """Writes batches of answers with one model.

    `ends` are the token ids that end an answer, `most` the longest sequence in tokens (None: no limit), `top` how many
    probable tokens are kept at each position (0, or at least 2). `kv` is the type of the cache: bf16, fp16, fp32.
    `codec` is needed for stop strings, which are disregarded without. `extra` makes more arguments of the model's
    forward from the mask [B, past + T] of a pass. `stopped` is asked between steps; when it says so, `write` and
    `score` give None.
    """

    def __init__(
        self,
        model: Any,
        ends: frozenset[int],
        *,
        most: int | None,
        top: int = 5,
        kv: str | None = None,
        codec: Codec | None = None,
        extra: Callable[[Tensor], dict[str, Any]] = lambda _: {},
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model = model
        self._ends = ends
        self._most = most
        self._top = max(2, top) if top else 0
        self._codec = codec
        self._kv = None if kv is None else TYPES[kv]
        self._extra = extra
        self._stopped = stopped
        known = inspect.signature(model.forward).parameters
        inner = getattr(model, "model", model)
        image_id = getattr(model.config, "image_token_id", None)
        self._filler = 1 if image_id == 0 else 0  # what fills up stands for no image
        self._in_three = getattr(inner, "get_rope_index", None)  # positions in time, height and width
        self._takes_positions = "position_ids" in known
        self._keeps_few = "logits_to_keep" in known
        self._cache_name = "cache" if "cache" in known else "past_key_values"  # an older name of it

    def forget(self) -> None:
        """Forget what was read of earlier batches, where anything is kept."""

    def write(self, batch: Sequence[Asked]) -> list[Written] | None:
        """Answers to all prompts of the batch, in order; None when it was stopped.

        Every prompt has at least one token and is shorter than the longest sequence.
        """
        with torch.inference_mode():
            return self._write(batch)

    def score(self, batch: Sequence[Asked], answers: Sequence[Sequence[int]]) -> list[list[float]] | None:
        """Log-probs of the tokens of the answers given to all prompts of the batch, as `Written` has them; or None.

        No answer is empty. They are read behind the prompts as they would have been written, so that image tokens in
        them stand for no image.
        """
        with torch.inference_mode():
            return self._score(batch, answers)

    def _score(self, batch: Sequence[Asked], answers: Sequence[Sequence[int]]) -> list[list[float]] | None:
        at = self.model.device
        ids, mask, features = self._read(batch)
        positions, offset = self._positions(ids, mask, features)
        cache = self._cache()
        logits = self._step(ids, mask, positions, cache, features, 1)
        longest = max(len(answer) for answer in answers)
        given = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers], device=at)
        real = torch.tensor([[1] * len(answer) + [0] * (longest - len(answer)) for answer in answers], device=at)
        heat = torch.tensor([[one.sampling.temperature or 1.0] for one in batch], device=at).unsqueeze(-1)
        room = max(1, _LOGITS // (len(batch) * logits.shape[-1]))
        found = [_chosen(logits / heat, given[:, :1])]
        for start in range(0, longest - 1, room):
            if self._stopped():
                return None
            some = slice(start, min(start + room, longest - 1))
            mask = torch.cat([mask, real[:, some]], dim=1)
            positions = (mask.cumsum(-1) - 1)[:, -(some.stop - start) :].clamp(min=0) + offset
            logits = self._step(given[:, some], mask, self._in_space(positions), cache, {}, some.stop - start)
            found.append(_chosen(logits / heat, given[:, start + 1 : some.stop + 1]))
        values = torch.cat(found, dim=1).tolist()
        return [row[: len(answer)] for row, answer in zip(values, answers, strict=True)]

    def _read(self, batch: Sequence[Asked]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Ids and mask [B, T] of the prompts, padded on the left, and the tensors of their images."""
        at = self.model.device
        longest = max(len(one.ids) for one in batch)
        ids = torch.tensor([[self._filler] * (longest - len(one.ids)) + list(one.ids) for one in batch], device=at)
        mask = torch.tensor([[0] * (longest - len(one.ids)) + [1] * len(one.ids) for one in batch], device=at)
        return ids, mask, {name: part.to(at) for name, part in _features(batch, longest).items()}

    def _write(self, batch: Sequence[Asked]) -> list[Written] | None:
        written = [Written() for _ in batch]
        watches = [StopWatch(self._codec, one.sampling.stop) if self._codec else None for one in batch]
        live = list(range(len(batch)))
        strand = self._begin(batch)
        while live:
            if self._stopped():
                return None
            logits = self._next(strand, [batch[i] for i in live], [written[i] for i in live])
            tokens = self._take(logits, [batch[i].sampling for i in live], [written[i] for i in live])
            going = [place for place, i in enumerate(live) if not self._finished(batch[i], written[i], watches[i])]
            if len(going) < len(live):
                size = strand.row_bytes(len(live))
                for place in set(range(len(live))) - set(going):
                    written[live[place]].kv_bytes = size
            if not going:
                break
            if len(going) < len(live):
                going = self._arranged(going)
                strand.keep(going)
                live = [live[place] for place in going]
            self._feed(strand, [tokens[place] for place in going])
        return written

    def _begin(self, batch: Sequence[Asked]) -> Strand:
        """The prompts of the batch, before the model has read them."""
        ids, mask, features = self._read(batch)
        return Strand(ids, mask, *self._positions(ids, mask, features), self._cache(), features)

    def _next(self, strand: Strand, batch: Sequence[Asked], written: Sequence[Written]) -> Tensor:  # noqa: ARG002
        """Logits [B, V] of the token that comes next, once the model has read what is new.

        `batch` and `written` are the rows of the strand: for who makes something else of the logits.
        """
        logits = self._step(strand.ids, strand.mask, strand.positions, strand.cache, strand.features, 1)[:, -1]
        strand.features = {}
        return logits

    def _arranged(self, going: list[int]) -> list[int]:
        """The rows that go on, in the order in which they do."""
        return going

    def _feed(self, strand: Strand, tokens: Sequence[int]) -> None:
        """Let the model read a token of each row next."""
        strand.ids = torch.tensor([[token] for token in tokens], device=strand.mask.device)
        strand.mask = torch.cat([strand.mask, strand.mask.new_ones(len(tokens), 1)], dim=1)
        strand.positions = self._in_space(strand.mask.sum(-1, keepdim=True) - 1 + strand.offset)

    def _in_space(self, positions: Tensor) -> Tensor:
        """Positions [B, T] of text in as many dimensions as the model has."""
        return positions if self._in_three is None else positions.expand(3, -1, -1)

    def _cache(self) -> DynamicCache:
        config = self.model.config
        plain = self._kv is None or self._kv == self.model.dtype
        return DynamicCache(config=config) if plain else RoundedCache(config, self._kv)

    def _positions(self, ids: Tensor, mask: Tensor, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Positions of the prompts' tokens, [B, T] or [3, B, T], and how far those of the answer are off, [B, 1].

        Padding does not count. An image of a model with positions in three dimensions takes fewer than it has tokens.
        """
        plain = (mask.cumsum(-1) - 1).clamp(min=0)
        none = plain.new_zeros(len(plain), 1)
        if self._in_three is None or not features:
            return self._in_space(plain), none
        given = {"input_ids": ids, "attention_mask": mask, **features}
        wanted = inspect.signature(self._in_three).parameters
        positions, offset = self._in_three(**{name: value for name, value in given.items() if name in wanted})
        return positions, offset

    def _step(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: DynamicCache,
        features: Mapping[str, Tensor],
        last: int,
    ) -> Tensor:
        """Logits [B, last, V] behind the `last` of the new tokens `ids` [B, T].

        `mask` [B, past + T] is 0 on padding.
        """
        extra: dict[str, Any] = {**features, self._cache_name: cache, **self._extra(mask)}
        if self._takes_positions:
            extra["position_ids"] = positions
        if self._keeps_few:
            extra["logits_to_keep"] = last
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=True, **extra).logits[:, -last:]
        return logits.float()

    def _take(self, logits: Tensor, settings: list[Sampling], written: list[Written]) -> list[int]:
        """Draw a token for each row, and note it and the most probable ones. A row without sound logits fails."""
        for place in ((logits.isnan() | (logits == torch.inf)).any(-1)).nonzero().flatten().tolist():
            written[place].failed = "the model's output is not a number"
            logits[place] = 0.0
        tokens, logprobs = sample(logits, settings, [len(one.ids) for one in written], [None] * len(settings))
        if not self._top:
            for one, token, logprob in zip(written, tokens, logprobs, strict=True):
                if not one.failed:
                    one.ids.append(token)
                    one.logprobs.append(logprob)
            return tokens
        if any(one.temperature not in (0.0, 1.0) for one in settings):
            logits = logits / torch.tensor([[one.temperature or 1.0] for one in settings], device=logits.device)
        best = logits.log_softmax(-1).topk(min(self._top, logits.shape[1]))
        for one, token, logprob, top_ids, top in zip(
            written, tokens, logprobs, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            if one.failed:
                continue
            one.ids.append(token)
            one.logprobs.append(logprob)
            one.top_ids.append(_first(token, top_ids, top) if settings[0].temperature == 0 else top_ids)
            one.top_logprobs.append(top)
        return tokens

    def _finished(self, asked: Asked, written: Written, watch: StopWatch | None) -> bool:
        if written.failed:
            return True
        written.ended = written.ids[-1] in self._ends
        stop = watch.push(written.ids[-1]) if watch is not None else None
        written.stop = None if written.ended else stop
        count = len(written.ids)
        return (
            written.ended
            or stop is not None
            or count >= asked.sampling.max_tokens
            or len(asked.ids) + count == self._most
        )


def _features(batch: Sequence[Asked], longest: int) -> dict[str, Tensor]:
    """The tensors of all images, and numbers a token of the text, padded on the left."""
    given = [one.features for one in batch if one.features]
    if not given:
        return {}
    joined = side_by_side([{k: v for k, v in one.items() if k not in TOKEN_FEATURES} for one in given], longest)
    for name in TOKEN_FEATURES:
        if any(name in one for one in given):
            rows = [one.features[name] if name in one.features else torch.zeros(1, len(one.ids)) for one in batch]
            joined[name] = torch.cat([torch.nn.functional.pad(row, (longest - row.shape[1], 0)) for row in rows]).long()
    return joined


def _first(token: int, ids: list[int], values: list[float]) -> list[int]:
    """`ids` with the greedy `token` in front: where several are equally probable, topk and argmax may differ."""
    if ids[0] == token:
        return ids
    equal = [i for i, value in enumerate(values) if value == values[0]]
    others = [one for one in ids[: len(equal)] if one != token]
    return [token, *others[: len(equal) - 1], *ids[len(equal) :]]


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probs [B, T] of the tokens `ids` [B, T] by their logits [B, T, V]."""
    return logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def _row_bytes(cache: DynamicCache, rows: int) -> int:
    """Bytes of keys and values that the cache holds for each of its `rows`."""
    held = [part for layer in cache.layers for part in (layer.keys, layer.values) if isinstance(part, Tensor)]
    return int(sum(part.numel() * part.element_size() for part in held) // rows)
