"""The keys, values and some queries of a prompt, as the layers of a model hold them, in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from toolroll.errors import RowError
from toolroll.kvcache.cache import packed_attention
from toolroll.kvcache.running import Prompts
from toolroll.kvcache.spans import Mask, rows_of
from toolroll.kvcache.tensors import Array, TensorWriter
from toolroll.models.padded import Asked

_KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


Kept = dict[int, tuple[Tensor, float]]  #: of each layer: queries, and what their scores are multiplied by


@contextmanager
def recording(model: Any) -> Iterator[Kept]:
    """Keeps the queries [B, Hq, T, D] of each layer in the last pass, behind any rotation."""
    kept: Kept = {}

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        kept[int(module.layer_idx)] = (query, float(settings.get("scaling") or query.shape[-1] ** -0.5))
        made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **settings)
        return made

    with packed_attention(model, attend):
        yield kept


def dump(
    prompts: Prompts,
    kept: Kept,
    asked: Asked,
    mask: Mask,
    path: Path,
    *,
    queries: int,
    kind: str | None,
    about: dict[str, str],
) -> list[int]:
    """Let a model under `recording` read a prompt, and write what it holds; the layers that do not hold all, left out.

    `queries` are those of so many tokens behind the last one that is marked, spread evenly, the last token among them.
    `kind` is F32, F16 or BF16 for keys and values, None: as they are. RowError where nothing can be written.
    """
    kept.clear()
    cache = prompts.read([asked]).cache
    tokens = len(asked.ids)
    layers = {n: layer for n, layer in enumerate(cache.layers) if _holds(layer, tokens)}
    if not layers:
        raise RowError("no layer of the model holds keys and values of all tokens")
    places = query_places(mask, queries)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(kind or "")
    tensors: list[tuple[str, Callable[[], Tensor]]] = []
    for number, layer in layers.items():
        for name, states in (("k", layer.keys), ("v", layer.values)):
            tensors.append((f"layers.{number}.{name}", lambda one=states: one.to(dtype or one.dtype)))  # type: ignore[misc]
        if len(places) and number in kept:
            tensors.append((f"layers.{number}.q", lambda one=kept[number][0]: one[:, :, places]))  # type: ignore[misc]
    header = {
        **about,
        "query_heads": str(next(iter(kept.values()))[0].shape[1]) if kept else "",
        "scaling": json.dumps({str(number): kept[number][1] for number in layers if number in kept}),
    }
    spans = rows_of(mask[None])
    shapes = [("span", "I64", spans.shape)]
    made = [(name, make()) for name, make in tensors]
    shapes += [(name, _KINDS[one.dtype], tuple(one.shape)) for name, one in made]
    if len(places):
        shapes.append(("q_at", "I64", (1, len(places))))
    with TensorWriter(path, shapes, header, synced=False) as writer:
        writer.write(spans)
        for _, one in made:
            writer.write(array_of(one))
        if len(places):
            writer.write(places[None])
    return [n for n in range(len(cache.layers)) if n not in layers]


def query_places(mask: Mask, count: int) -> Array:
    """The tokens whose queries are kept: at most `count` behind the last that is marked, evenly, with the last.

    >>> query_places(np.array([False, True, True, False, False, False, False]), 2).tolist()
    [3, 6]
    """
    marked = np.flatnonzero(mask)
    first = min(int(marked[-1]) + 1 if len(marked) else 0, len(mask) - 1)
    return np.unique(np.linspace(first, len(mask) - 1, min(count, len(mask) - first)).round().astype(np.int64))


def array_of(tensor: Tensor) -> Array:
    """A tensor as an array, bfloat16 as uint16."""
    tensor = tensor.detach().cpu().contiguous()
    made: Array = tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return made.view(np.uint16) if tensor.dtype == torch.bfloat16 else made


def _holds(layer: Any, tokens: int) -> bool:
    keys = getattr(layer, "keys", None)
    return isinstance(keys, Tensor) and keys.dim() == 4 and keys.shape[2] == tokens
