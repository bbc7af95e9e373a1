"""A cache for transformers that keeps chosen tokens packed, and the attention that reads it.

    with packed_attention(model):
        cache = PackedCache(model.config, masks, choose)
        model.generate(**inputs, cache=cache)  # past_key_values in older versions: see `cache_name`

The prompt is read with exact attention. When a layer has all tokens of the masks [B, T], those chosen go into codes,
once, and the others stay as they are, as do all tokens that come later. Beams share the codes of their prompt. Without
chosen tokens nothing changes, to the bit. A layer that has a window, or no keys and values at all, is what
transformers makes it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from toolroll.errors import ToolrollError
from toolroll.kvcache.block import quantize
from toolroll.kvcache.postscale import Codes, codes_of, outputs, scores
from toolroll.kvcache.scheme import Part, Scheme
from toolroll.kvcache.score_map import calibrated
from toolroll.kvcache.spans import Mask

NAME = "kvquant"  #: of the attention function among those of transformers
Choose = Callable[[int, Part], Scheme]
Attention = Callable[..., tuple[Tensor, None]]
Taus = Callable[[int], Tensor | None]  #: of a layer: (t1, t2) of each key head [H, 2], or none


@dataclass(slots=True)
class Item:
    """A sequence in a layer: packed blocks of tokens and where these are, then the others, [H, Tx, D], in order."""

    blocks: list[tuple[Codes, Codes]]
    places: Tensor  # of all tokens, packed ones first, [T]
    keys: Tensor
    values: Tensor

    @property
    def packed(self) -> int:
        """Tokens that are packed."""
        return sum(one.tokens for one, _ in self.blocks)


@dataclass(slots=True)
class Held:
    """What the attention gets in place of keys and values."""

    items: list[Item]
    tau: Tensor | None


class PackedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that packs the tokens of `masks` [B, T] when it has them all.

    With `residual` it does as KIVI does instead: of the tokens of `masks` the last `residual` stay, more so that groups
    are whole, and so many of those that stay are packed whenever they are twice as many; with 0, a group once it is
    full.
    """

    def __init__(
        self, number: int, masks: Mask, choose: Choose, tau: Tensor | None = None, residual: int | None = None
    ) -> None:
        super().__init__()
        self.number, self.masks, self.tau, self.residual = number, masks, tau, residual
        self.schemes = choose(number, "k"), choose(number, "v")
        self.step = residual or max(scheme.group for scheme in self.schemes) or 1
        self.items: list[Item] | None = None
        self.count = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Add the keys and values [B, H, t, D] of a pass; what the attention of that pass reads."""
        self.count += key_states.shape[2]
        if self.items is None:
            keys, values = super().update(key_states, value_states)
            if self.count >= self.masks.shape[1] and (self.masks.any() or self.residual is not None):
                self._pack(keys, values)
            return keys, values
        for b, item in enumerate(self.items):
            new = torch.arange(self.count - key_states.shape[2], self.count, device=item.places.device)
            item.places = torch.cat([item.places, new])
            item.keys = torch.cat([item.keys, key_states[b]], 1)
            item.values = torch.cat([item.values, value_states[b]], 1)
            if self.residual is not None and item.keys.shape[1] >= self.residual + self.step:
                self._pack_more(item, self.step)
        held = Held(self.items, self.tau)
        return held, held

    def get_seq_length(self) -> int:
        """Tokens read so far."""
        return self.count

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of the masks that the model makes."""
        return self.count + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:  # noqa: ARG002
        """Not possible."""
        raise ToolrollError("a packed cache cannot be shortened")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these sequences; those that were one share their codes."""
        if self.items is None:
            super().reorder_cache(beam_idx)
        else:
            self._choose(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these sequences."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence several times."""
        if self.items is None:
            super().batch_repeat_interleave(repeats)
        else:
            self._choose([b for b in range(len(self.items)) for _ in range(repeats)])

    def forked(self) -> PackedLayer:
        """The same again, to go on from apart from this one; the codes are shared."""
        made = copy.copy(self)
        if self.items is not None:
            made._choose(range(len(self.items)))
        return made

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self.items, self.count = None, 0

    def held_bytes(self) -> int:
        """Bytes of what it holds; what beams share counts once."""
        if self.items is None:
            return sum(one.numel() * one.element_size() for one in (self.keys, self.values)) if self.count else 0
        seen: set[int] = set()
        total = 0
        for item in self.items:
            for one, other in item.blocks:
                if id(one) not in seen:
                    seen.add(id(one))
                    total += one.stored_bytes + other.stored_bytes
            total += sum(one.numel() * one.element_size() for one in (item.keys, item.values))
        return total

    def _choose(self, places: Sequence[int]) -> None:
        assert self.items is not None
        chosen = (self.items[b] for b in places)
        self.items = [Item(list(one.blocks), one.places, one.keys, one.values) for one in chosen]

    def _pack(self, keys: Tensor, values: Tensor) -> None:
        """Tokens [B, H, T, D] of the prompt, of which the masks are about the first."""
        items, known = len(keys), len(self.masks)
        if known == 0 or items % known:
            raise ToolrollError(f"the cache has masks for {known} sequences, and gets {items}")
        masks = np.repeat(self.masks, items // known, axis=0)
        self.items = []
        for b in range(items):
            mask = np.zeros(self.count, np.bool_)
            mask[: masks.shape[1]] = masks[b]
            if self.residual is not None:
                group = max(1, self.schemes[0].group, self.schemes[1].group)
                real = np.flatnonzero(mask)
                mask[real[max(0, len(real) - self.residual) // group * group :]] = False
            self.items.append(self._item(mask, keys[b], values[b]))
        self.keys = self.values = torch.tensor([], dtype=keys.dtype, device=keys.device)

    def _item(self, mask: Mask, keys: Tensor, values: Tensor) -> Item:
        chosen = torch.from_numpy(mask).to(keys.device)
        places = torch.cat([chosen.nonzero().flatten(), (~chosen).nonzero().flatten()])
        blocks = [self._block(keys[:, chosen], values[:, chosen])] if mask.any() else []
        return Item(blocks, places, keys[:, ~chosen], values[:, ~chosen])

    def _pack_more(self, item: Item, count: int) -> None:
        packed = item.packed
        item.blocks.append(self._block(item.keys[:, :count], item.values[:, :count]))
        item.keys, item.values = item.keys[:, count:].clone(), item.values[:, count:].clone()
        assert item.packed == packed + count

    def _block(self, keys: Tensor, values: Tensor) -> tuple[Codes, Codes]:
        made = []
        for part, states, scheme in zip("kv", (keys, values), self.schemes, strict=True):
            shape = (states.shape[0], states.shape[1], states.shape[2])
            place = f"layer {self.number} {part}"
            block = quantize(partial(_head, states), shape, scheme, place=place)
            made.append(codes_of(block, states.device))
        return made[0], made[1]


def _head(states: Tensor, h: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = states[h].float().cpu().numpy()
    return found


class PackedCache(DynamicCache):  # type: ignore[misc]
    """The cache of a model whose attention is `packed_attention`; see there.

    `masks` bool [B, T] say which tokens of each prompt to pack; with k beams a prompt may come k times. `choose` gives
    the scheme of each layer's keys and values, `taus` the map of visual scores of a layer.
    """

    def __init__(
        self, config: Any, masks: Mask, choose: Choose, *, taus: Taus = lambda _: None, residual: int | None = None
    ) -> None:
        super().__init__(config=config)
        plain: list[Any] = self.layers or [DynamicLayer() for _ in range(config.get_text_config().num_hidden_layers)]
        self.layers: list[Any] = [
            PackedLayer(number, masks, choose, taus(number), residual) if type(layer) is DynamicLayer else layer
            for number, layer in enumerate(plain)
        ]


def forked(cache: Any) -> Any:
    """A cache again, ours or a DynamicCache, to go on from apart from the first; both share what will not change."""
    made = copy.copy(cache)
    made.layers = [_forked(layer) for layer in cache.layers]
    return made


def _forked(layer: Any) -> Any:
    if isinstance(layer, PackedLayer):
        return layer.forked()
    return copy.copy(layer) if type(layer) is DynamicLayer else copy.deepcopy(layer)


def cache_name(model: Any) -> str:
    """What the model calls its cache among its arguments."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@contextmanager
def packed_attention(model: Any, function: Attention | None = None) -> Iterator[None]:
    """Let the attention of a model read a `PackedCache`; with any other cache it stays what it was.

    `function` stands in for `attend`. ToolrollError for a model whose attention cannot be replaced, or does more than a
    softmax.
    """
    name = type(model).__name__
    text = model.config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        raise ToolrollError("its attention has a soft cap, which a packed cache does not know", place=name)
    if not getattr(model, "_supports_attention_backend", False):
        raise ToolrollError("its attention cannot be replaced", place=name)
    AttentionInterface.register(NAME, function or attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = text._attn_implementation
    key = next((one for one in model.config.sub_configs if getattr(model.config, one, None) is text), None)
    model.set_attn_implementation(NAME if key is None else {key: NAME})
    try:
        yield
    finally:
        model.set_attn_implementation(before if key is None else {key: before})


def attend(
    module: Any, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Attention of queries [B, Hq, t, D]: by codes where `key` is `Held`, else as transformers has it."""
    if not isinstance(key, Held):
        made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return made
    if settings.get("s_aux") is not None or settings.get("softcap"):
        raise ToolrollError("its attention has sinks or a soft cap, which a packed cache does not know")
    scaling = settings.get("scaling") or query.shape[-1] ** -0.5
    plain = _as_it_was(module, query, key.items, attention_mask, settings)
    found = []
    for b, item in enumerate(key.items):
        if plain is None or item.blocks:
            one = attend_item(query[b], item, scaling, _mask_of(attention_mask, b, item), key.tau)
            found.append(one.to(query.dtype).transpose(0, 1))
        else:
            found.append(plain[b])
    return torch.stack(found).contiguous(), None


def _as_it_was(
    module: Any, query: Tensor, items: Sequence[Item], mask: Tensor | None, settings: dict[str, Any]
) -> Tensor | None:
    """What transformers makes [B, t, Hq, D] of sequences of which nothing is packed, if there are such.

    The other rows say nothing.

    To the bit: how sums are parted among threads depends on the number of sequences, so that it is that of the batch.
    """
    whole = next((item for item in items if not item.blocks), None)
    if whole is None:
        return None
    held = [whole if item.blocks else item for item in items]
    keys, values = torch.stack([one.keys for one in held]), torch.stack([one.values for one in held])
    found: Tensor = sdpa_attention_forward(module, query, keys, values, mask, **settings)[0]
    return found


def attend_item(query: Tensor, item: Item, scaling: float, mask: Tensor | None, tau: Tensor | None) -> Tensor:
    """Attention [Hq, t, D] of one sequence; `mask` bool [t or 1, T], in the order of `item.places`, of what is seen."""
    heads, each = len(item.keys), len(query) // len(item.keys)
    new = query.shape[1]
    queries = query.float().unflatten(0, (heads, each)).flatten(1, 2)  # [H, each t, D]
    seen = _seen(item, new, mask).repeat(each, 1)  # [each t, T]
    packed = item.packed
    parts = [scores(keys, queries) * scaling for keys, _ in item.blocks]
    if tau is not None and packed:
        visual = torch.cat(parts, -1)
        parts = [calibrated(visual, (tau[:, None, :1], tau[:, None, 1:]))]
    parts.append(queries @ item.keys.float().transpose(1, 2) * scaling)
    shares = torch.cat(parts, -1).masked_fill(~seen, -torch.inf).softmax(-1)
    made = shares[:, :, packed:] @ item.values.float()
    first = 0
    for keys, values in item.blocks:
        made += outputs(values, shares[:, :, first : first + keys.tokens].contiguous())
        first += keys.tokens
    return made.unflatten(1, (each, new)).flatten(0, 1)


def _mask_of(mask: Tensor | None, b: int, item: Item) -> Tensor | None:
    """The mask [t, T] of a sequence, in the order of its tokens."""
    if mask is None:
        return None
    one = mask[min(b, len(mask) - 1), 0][:, item.places]
    return one if one.dtype == torch.bool else one >= 0


def _seen(item: Item, new: int, mask: Tensor | None) -> Tensor:
    """Which tokens [t, T] the new ones see: as the mask says, else all up to themselves."""
    if mask is not None:
        return mask
    last = len(item.places) - new + torch.arange(new, device=item.places.device)
    return item.places[None] <= last[:, None]
