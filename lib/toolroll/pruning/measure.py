"""How much each head looks at visual tokens: sums of attention, without keeping any map of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from toolroll.models.padded import Asked
from toolroll.pruning.heads import ratio
from toolroll.pruning.plan import Plan
from toolroll.pruning.spans import marked
from toolroll.pruning.support import parts_of

NAME = "vprune-measure"  #: of the attention function among those of transformers
_BLOCK = 256  # queries whose weights are in memory at a time
Queries = Literal["all", "first"]


class Meter:
    """Measures a model's heads. A context manager: the model is dense, and its attention unchanged, only summed up.

    `queries`: whose attention counts, that of all tokens of the prompt, or that of the first new token alone. With
    `grouped`, heads that share a key head are one.
    """

    def __init__(self, model: Any, *, queries: Queries = "all", grouped: bool = False) -> None:
        self.parts = parts_of(model, Plan())
        self.model = model
        self.queries, self.grouped = queries, grouped
        self._visual: Tensor | None = None  # bool [K], of keys, while attention is summed
        self._sums: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> Self:
        AttentionInterface.register(NAME, _measured)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        self._before = self.parts.text.config._attn_implementation
        self.model.set_attn_implementation({self.parts.text_key: NAME})
        for layer in self.parts.layers:
            layer.self_attn.vprune_meter = self
        return self

    def __exit__(self, *_: object) -> None:
        self.model.set_attn_implementation({self.parts.text_key: self._before})
        for layer in self.parts.layers:
            del layer.self_attn.vprune_meter

    def __call__(self, asked: Asked) -> list[list[float]] | None:
        """The ratios [L][H] of a prompt, attention to visual keys over that to all others; None without an image."""
        device = self.model.device
        ids = torch.tensor([list(asked.ids)], device=device)
        features = {name: part.to(device) for name, part in asked.features.items()}
        if not features:
            return None
        visual = marked(self.model.config, ids, None, features).visual[0].to(device)
        if not bool(visual.any()):
            return None
        self._sums = []
        with torch.inference_mode():
            if self.queries == "all":
                self._visual = visual
                self.model(input_ids=ids, **features, use_cache=False, logits_to_keep=1)
            else:
                cache = DynamicCache(config=self.model.config)
                name = "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"
                out = self.model(input_ids=ids, **features, **{name: cache}, logits_to_keep=1)
                self._visual = torch.cat([visual, visual.new_zeros(1)])
                self.model(input_ids=out.logits[:, -1:].argmax(-1), **{name: cache})
        self._visual = None
        return [self._ratios(*sums) for sums in self._sums]

    def add(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """Sum up a layer's attention: queries [1, Hq, T, D], keys [1, Hkv, K, D]."""
        if self._visual is None:
            return
        visual = self._visual
        heads, tokens = query.shape[1:3]
        keys = key[0].repeat_interleave(heads // key.shape[1], dim=0).transpose(1, 2)
        inside = query.new_zeros(heads, dtype=torch.float64)
        outside = torch.zeros_like(inside)
        place = torch.arange(keys.shape[2], device=query.device)
        for start in range(0, tokens, _BLOCK):
            some = query[0, :, start : start + _BLOCK]
            own = torch.arange(start, start + some.shape[1], device=query.device) + keys.shape[2] - tokens
            logits = (some @ keys).float() * scaling
            weights = logits.masked_fill(place > own[:, None], -torch.inf).softmax(-1).sum(1, dtype=torch.float64)
            inside += weights[:, visual].sum(1)
            outside += weights[:, ~visual].sum(1)
        self._sums.append((inside, outside))

    def _ratios(self, inside: Tensor, outside: Tensor) -> list[float]:
        group = self.parts.shape.group if self.grouped else 1
        parts = (part.view(-1, group).sum(1).repeat_interleave(group).tolist() for part in (inside, outside))
        return [ratio(one, other) for one, other in zip(*parts, strict=True)]


def _measured(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    meter: Meter = module.vprune_meter
    scaling = settings.get("scaling")
    meter.add(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return made


def quantiles(scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Of all numbers the quantiles that help to choose a threshold.

    >>> quantiles([[0.0, 1.0], [2.0, 4.0]])["0.5"]
    1.5
    """
    flat = sorted(score for row in scores for score in row)
    made = {}
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        at = share * (len(flat) - 1)
        low = int(at)
        high = min(low + 1, len(flat) - 1)
        made[str(share)] = flat[low] + (flat[high] - flat[low]) * (at - low) if flat[high] < float("inf") else flat[low]
    return made
