"""Batches for speed: what prompts have in common is read once, and caches grow in place.

The samples of a question, and the voters of a game who see one picture, are asked the same; the players of a game, turn
after turn, are asked about the same pictures. To read is the larger part of the work on short answers. So a prompt that
several have is read once, and so is the part of prompts up to the end of their images: its keys and values are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from toolroll.models.padded import Asked, Batches, Strand, Written
from toolroll.models.vision import TOKEN_FEATURES

_SPARE = 64  # tokens that a cache has room for when it moves to a larger place
_MOST = 2**28  # bytes of keys and values of images that are kept

Layers = list[tuple[Tensor, Tensor]]  # keys and values [1, H, P, D] of each layer


@dataclass(slots=True)
class _Shared(Strand):
    """A strand that has a row for each of the unlike prompts until these are read; `rows` are those of the batch."""

    rows: list[int]


class RoomyBatches(Batches):
    """Writes batches of answers with caches that grow and shrink in place."""

    def _cache(self) -> DynamicCache:
        cache = super()._cache()
        cache.layers = [_Roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache

    def _arranged(self, going: list[int]) -> list[int]:
        """The last rows take the places of those that ended, so that nothing else moves."""
        stay = [place for place in going if place < len(going)]
        movers = iter(going[len(stay) :])
        taken = set(stay)
        return [place if place in taken else next(movers) for place in range(len(going))]


class SharedBatches(RoomyBatches):
    """Writes batches of answers; prompts with the same ids and pictures are read once, and so are their pictures."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._image_id: int | None = getattr(self.model.config, "image_token_id", None)
        self._heads: OrderedDict[Hashable, Layers] = OrderedDict()
        self._version = -1

    def forget(self) -> None:
        """Forget the pictures of earlier batches."""
        self._heads.clear()

    def _begin(self, batch: Sequence[Asked]) -> Strand:
        places: dict[Hashable, int] = {}
        unlike: list[Asked] = []
        rows = []
        for number, one in enumerate(batch):
            key: Hashable = number if one.pictures is None else (tuple(one.ids), one.pictures)
            if key not in places:
                places[key] = len(unlike)
                unlike.append(one)
            rows.append(places[key])
        strand = self._headed(unlike) or super()._begin(unlike)
        return _Shared(
            strand.ids, strand.mask, strand.positions, strand.offset, strand.cache, strand.features,
            rows if len(unlike) < len(batch) else [],
        )  # fmt: skip

    def _next(self, strand: Strand, batch: Sequence[Asked], written: Sequence[Written]) -> Tensor:
        logits = super()._next(strand, batch, written)
        if isinstance(strand, _Shared) and strand.rows:
            strand.keep(strand.rows)
            logits, strand.rows = logits[strand.rows], []
        return logits

    # --- what is read up to the end of the images

    def _headed(self, batch: Sequence[Asked]) -> Strand | None:
        """The batch with its images read, where all prompts have some, known by name, and text behind them."""
        ends = [self._end(one) for one in batch]
        cache = self._cache()
        if not all(ends) or not all(type(layer) is _Roomy for layer in cache.layers):
            return None
        heads = self._read_heads(batch, ends)
        ids, mask, features = self._read(batch)
        positions, offset = self._positions(ids, mask, features)
        longest, rest = max(ends), max(len(one.ids) - end for one, end in zip(batch, ends, strict=True))
        for number, layer in enumerate(cache.layers):
            keys, values = (
                torch.cat(
                    [pad(head[number][part], (0, 0, longest - end, 0)) for head, end in zip(heads, ends, strict=True)]
                )
                for part in (0, 1)
            )
            layer.update(keys, values)
        real = mask.new_tensor([[0] * (longest - end) + [1] * end for end in ends])
        last = mask.new_tensor(
            [
                [int(place >= rest - (len(one.ids) - end)) for place in range(rest)]
                for one, end in zip(batch, ends, strict=True)
            ]
        )
        ids = ids[:, -rest:].where(last.bool(), self._filler)
        return Strand(ids, torch.cat([real, last], dim=1), positions[..., -rest:], offset, cache, {})

    def _end(self, one: Asked) -> int:
        """Where the last image of a prompt ends; 0 where it has none that is known, or nothing behind it."""
        if not one.pictures or not one.features or self._image_id is None:
            return 0
        end = len(one.ids) - list(reversed(one.ids)).index(self._image_id)
        return end if end < len(one.ids) else 0

    def _read_heads(self, batch: Sequence[Asked], ends: Sequence[int]) -> list[Layers]:
        """Keys and values of each prompt up to its end; those that are not known are read now, as a batch."""
        version = sum(parameter._version for parameter in self.model.parameters())
        if version != self._version:  # the weights are not what they were
            self._heads.clear()
            self._version = version
        keys = [(tuple(one.ids[:end]), one.pictures) for one, end in zip(batch, ends, strict=True)]
        new = {key: place for place, key in enumerate(keys) if key not in self._heads}
        if new:
            cut = [_cut(batch[place], ends[place]) for place in new.values()]
            strand = super()._begin(cut)
            self._step(strand.ids, strand.mask, strand.positions, strand.cache, strand.features, 1)
            for row, (key, place) in enumerate(new.items()):
                self._heads[key] = [
                    (
                        layer.keys[row : row + 1, :, -ends[place] :].clone(),
                        layer.values[row : row + 1, :, -ends[place] :].clone(),
                    )
                    for layer in strand.cache.layers
                ]
        found = []
        for key in keys:
            self._heads.move_to_end(key)
            found.append(self._heads[key])
        while len(self._heads) > 1 and sum(map(_bytes, self._heads.values())) > _MOST:
            self._heads.popitem(last=False)
        return found


def _cut(one: Asked, end: int) -> Asked:
    """The first `end` tokens of a prompt."""
    features = {name: part[:, :end] if name in TOKEN_FEATURES else part for name, part in one.features.items()}
    return replace(one, ids=one.ids[:end], features=features)


def _bytes(layers: Layers) -> int:
    return sum(part.numel() * part.element_size() for layer in layers for part in layer)


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values [B, H, T, D] of a layer in tensors with room for more.

    A token more copies nothing, and where rows go only those move that take their places.
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values; all of the layer's."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self._added("keys", key_states), self._added("values", value_states)
        self.keys, self.values = keys, values
        return keys, values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the rows at these indices [B]."""
        chosen = beam_idx.tolist()
        moves = {to: since for to, since in enumerate(chosen) if to != since}
        held = self._own("keys") is not None and self._own("values") is not None
        if not held or any(since < len(chosen) for since in moves.values()):
            super().reorder_cache(beam_idx)
            return
        for name in ("keys", "values"):
            tensor: Tensor = getattr(self, name)
            for to, since in moves.items():
                tensor[to] = tensor[since]
            setattr(self, name, tensor[: len(chosen)])

    def _own(self, name: str) -> Tensor | None:
        """The place in which keys or values lie, where they lie in one of this layer."""
        held: Tensor = getattr(self, name)
        place = self._places.get(name)
        return place if place is not None and held.data_ptr() == place.data_ptr() else None

    def _added(self, name: str, new: Tensor) -> Tensor:
        held: Tensor = getattr(self, name)
        before = held.shape[-2] if held.numel() else 0
        after = before + new.shape[-2]
        place = self._own(name)
        if place is None or place.shape[-2] < after:
            place = new.new_empty(*new.shape[:-2], after + _SPARE, new.shape[-1])
            if before:
                place[..., :before, :] = held
            self._places[name] = place
        place = place[: len(new)]
        place[..., before:after, :] = new
        return place[..., :after, :]
