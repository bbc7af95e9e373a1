"""Attention of each sequence by itself, without its padding: what shares the batch cannot change a bit of it.

Other attention pads a batch to one length and sums over the padding, too. That adds zeros, but in another order of
sums, so that an answer depends on how long its neighbours are. Here every row of the batch is cut out and computed as
it would be alone. Together with linear layers whose sums have one order (`--linear fused`) and elementwise functions in
even pieces (`elementwise`), the answer to a prompt is the same to the bit in every batch. Not so for experts of a
mixture, which are no linear layers here, and for what encodes images.

Plain matrix products and a softmax, some queries at a time; slower than fused attention where prompts are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from toolroll.errors import ToolrollError

ATTENTION = "toolroll_alone"  #: the name of `attend_alone` in transformers
_QUERIES = 128  #: so many at a time, which bounds the memory of scores
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class Begins:
    """Where each row of a batch begins behind its padding, and how long all rows are, in tokens."""

    places: list[int]
    width: int

    @classmethod
    def of(cls, mask: Tensor) -> Begins:  # [B, T], 0 on padding, which is on the left
        """The beginnings that a mask tells.

        >>> Begins.of(torch.tensor([[0, 0, 1], [1, 1, 1]]))
        Begins(places=[2, 0], width=3)
        """
        return cls(mask.argmax(-1).tolist(), mask.shape[1])


def attend_alone(
    module: Any,
    query: Tensor,  # [B, H, T, D]
    key: Tensor,  # [B, Hkv, K, D], of the last K tokens
    value: Tensor,  # [B, Hkv, K, Dv]
    _mask: Tensor | None,
    *,
    scaling: float | None = None,
    begins: Begins | None = None,
    sliding_window: int | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Causal attention, row by row: [B, T, H, Dv], zeros on padding. Every layer of the model needs `begins`."""
    if begins is None or any(extra.get(name) is not None for name in _UNSUPPORTED):
        raise ToolrollError(
            "its attention is of a kind that cannot be computed row by row", place=type(module).__name__
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    (rows, heads, asked, _), held = query.shape, key.shape[2]
    answers = query.new_zeros(rows, asked, heads, value.shape[-1])
    for row, begin in enumerate(begins.places):
        first = max(0, begin - (begins.width - asked))  # of its queries in this pass
        seen = max(0, begin - (begins.width - held))  # of its keys that are held
        # Copies, so that products find the same strides and alignment whatever the batch: kernels differ by them.
        own = (_copy(query[row, :, first:]), _copy(key[row, :, seen:]), _copy(value[row, :, seen:]))
        answers[row, first:] = _attend(*own, scaling, sliding_window)
    return answers, None


def _copy(part: Tensor) -> Tensor:
    return part.clone(memory_format=torch.contiguous_format)


def _attend(
    query: Tensor,  # [H, T, D]
    key: Tensor,  # [Hkv, K, D]
    value: Tensor,  # [Hkv, K, Dv]
    scaling: float,
    window: int | None,
) -> Tensor:  # [T, H, Dv]
    heads, asked, size = query.shape
    groups, held = key.shape[:2]
    parts = []
    for start in range(0, asked, _QUERIES):
        part = query[:, start : start + _QUERIES]
        count = part.shape[1]
        scores = torch.bmm(part.reshape(groups, heads // groups * count, size), key.transpose(1, 2)) * scaling
        scores = scores.view(groups, -1, count, held)
        scores.masked_fill_(_hidden(held - asked + start, count, held, window, query.device), float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        parts.append(torch.bmm(weights.view(groups, -1, held), value).view(heads, count, -1))
    return torch.cat(parts, 1).transpose(0, 1)


def _hidden(past: int, count: int, held: int, window: int | None, device: torch.device) -> Tensor:
    """[count, held]: the keys that come after each of `count` queries behind `past` keys, or before its window."""
    last = torch.arange(past, past + count, device=device)[:, None]
    place = torch.arange(held, device=device)
    hidden = place > last
    return hidden if window is None else hidden | (place <= last - window)


AttentionInterface.register(ATTENTION, attend_alone)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
