"""Elementwise functions whose results do not depend on where a number stands in its tensor.

torch computes exp, tanh or cos for whole vectors by one routine and for what is left over by another, and splits a
large tensor among threads at places that fit no vector. So the activation of a token depends in its last bit on how
many tokens there are. Here such functions get pieces that are whole numbers of vectors, small enough for one thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2CLS

_VECTORS = 64  #: numbers that torch computes in a step at most: four vectors of 16
_SMALL = 32768  #: numbers up to which torch uses one thread


class Activation(nn.Module):  # type: ignore[misc]
    """A function of each number, in pieces."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:  # [..., K] -> [..., K]
        """The function."""
        size = x.shape[-1]
        rows = x.reshape(-1, size)
        if size % _VECTORS:
            rows = functional.pad(rows, (0, -size % _VECTORS))
        count = max(1, _SMALL // rows.shape[-1])
        made = torch.cat([self.function(part.contiguous()) for part in rows.split(count)])
        return made[:, :size].reshape(x.shape)


class Rotary(nn.Module):  # type: ignore[misc]
    """The cosines and sines of positions, 64 positions at a time."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor, position_ids: Tensor, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, D] of positions [B, T], or [3, B, T]."""
        rows, length = position_ids.shape[-2:]
        flat = position_ids.reshape(*position_ids.shape[:-2], 1, rows * length)
        parts = []
        for start in range(0, rows * length, _VECTORS):
            part = flat[..., start : start + _VECTORS]
            filled = functional.pad(part, (0, _VECTORS - part.shape[-1]))
            parts.append(self.table(x, filled, *rest, **more))
        cos, sin = (torch.cat(tables, dim=-2)[..., : rows * length, :] for tables in zip(*parts, strict=True))
        return _shaped(cos, rows, length), _shaped(sin, rows, length)


def _shaped(table: Tensor, rows: int, length: int) -> Tensor:
    """[..., 1, rows * length, D] as [..., rows, length, D]."""
    return table.reshape(*table.shape[:-3], rows, length, table.shape[-1])


def steady(model: Any) -> None:
    """Let a model's activations and rotary tables be computed in pieces, in place.

    Activations are those that are modules of their own, of torch or of transformers. Rotary tables that change with the
    length of a text are left alone.
    """
    kinds = tuple(
        {kind[0] if isinstance(kind, tuple) else kind for kind in ACT2CLS.values()}
        | {nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Softplus}
    )
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, kinds):
                setattr(parent, name, Activation(child))
            elif type(child).__name__.endswith("RotaryEmbedding") and _is_fixed(child):
                setattr(parent, name, Rotary(child))


def _is_fixed(table: Any) -> bool:
    named = getattr(table, "rope_type", "default")
    types = named.values() if isinstance(named, dict) else [named]
    return not {*types} & {"dynamic", "longrope"}
