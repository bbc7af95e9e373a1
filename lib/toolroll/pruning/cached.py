"""Keys and values of a pruned model: each layer holds what it may look at, and nothing else.

A layer that visual tokens do not enter holds text. Where heads are inactive, keys and values of visual tokens are held
of the others only. transformers asks the first layer how long the sequence is: the answer is all tokens read so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from toolroll.errors import ToolrollError
from toolroll.pruning.tokens import Stage, no_cells, take


class Memory:
    """The cells that the layers of a stage hold: `all` in the order they came; `text` and `visual` apart."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.all = self.text = self.visual = no_cells(batch, device)
        self._flags: Tensor | None = None

    def read(self, stage: Stage) -> None:
        """Add the tokens of a pass."""
        if stage.any_visual or self._flags is not None:
            old = torch.zeros_like(self.all.valid) if self._flags is None else self._flags
            new = torch.zeros_like(stage.cells.valid)
            if stage.any_visual and stage.marks is not None:
                new = stage.marks.visual.to(new.device)
            self._flags = torch.cat([old, new], 1)
        self.all = self.all.then(stage.cells)
        self.text = self.text.then(stage.text_cells)
        if stage.any_visual:
            self.visual = self.visual.then(stage.visual_cells)

    def visual_flags(self) -> Tensor | None:
        """Bool [B, K]: which of all cells are visual; None if none is."""
        return self._flags

    def choose(self, rows: Tensor) -> None:
        """Go on with some prompts only, or with some several times."""
        if self._flags is not None:
            self._flags = self._flags[rows]
        self.all, self.text, self.visual = (part.rows(rows) for part in (self.all, self.text, self.visual))


@dataclass(slots=True)
class Held:
    """Keys and values of a layer's tokens.

    seen: of key heads that an active head uses, visual tokens first, then text, [B, k, N + K, D]. unseen: of the other
    key heads, text alone. plain: all heads and tokens as they came, where this is a prompt's first pass.
    """

    seen: tuple[Tensor, Tensor]
    unseen: tuple[Tensor, Tensor]
    visual: int
    plain: tuple[Tensor, Tensor] | None = None


@dataclass(slots=True)
class Record:
    """What the layers of one cache share: a memory for each stage, and how many tokens were read before this pass."""

    memories: list[Memory]
    seen: int = 0
    layers: list[Any] = field(default_factory=list)


class KeptLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that holds all heads of the tokens it gets. The one that `leads` a stage keeps its memory in order."""

    def __init__(self, record: Record, stage: int, leads: bool) -> None:
        super().__init__()
        self.keys: Any
        self.values: Any
        self.record, self.stage, self.leads = record, stage, leads

    def get_seq_length(self) -> int:
        """Tokens read before this pass, in this layer or not."""
        return self.record.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of the masks that the model makes for its first layers."""
        return self.record.seen + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:  # noqa: ARG002
        """Not possible: which tokens go is not the same in all layers."""
        raise ToolrollError("the cache of a pruned model cannot be shortened")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these prompts."""
        self._choose(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these prompts."""
        self._choose(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each prompt several times."""
        if self.is_initialized:
            self._choose(torch.arange(self.keys.shape[0], device=self.keys.device).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        if self.leads:
            memory = self.record.memories[self.stage]
            self.record.memories[self.stage] = Memory(memory.all.place.shape[0], memory.all.place.device)
            self.record.seen = 0

    def held(self) -> list[Tensor]:
        """All tensors that it holds."""
        held: list[Tensor] = [self.keys, self.values] if self.is_initialized else []
        return held

    def _choose(self, rows: Tensor) -> None:
        if self.is_initialized:
            self.keys, self.values = self.keys[rows], self.values[rows]
        if self.leads:
            self.record.memories[self.stage].choose(rows.to(self.record.memories[self.stage].all.place.device))


class SplitLayer(KeptLayer):
    """A layer some of whose heads do not see visual tokens. `keys`, `values` are those that are seen; see `Held`.

    `now` gives the stage of the pass under way, `used` are the key heads that an active head uses.
    """

    def __init__(
        self, record: Record, stage: int, leads: bool, used: Tensor, others: Tensor, now: Callable[[], Stage]
    ) -> None:
        super().__init__(record, stage, leads)
        self.used, self.others, self.now = used, others, now
        self.visual = 0
        self.unseen: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        """Add the keys and values [B, Hkv, T, D] of a pass; `Held` twice, which the attention knows what to do with."""
        first = self.record.seen == 0
        new = split(key_states, value_states, self.now(), self.used, self.others)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            (self.keys, self.values), self.unseen = new.seen, new.unseen
        else:
            assert self.unseen is not None
            v, w = self.visual, new.visual
            old = (self.keys, self.values)
            self.keys, self.values = (
                torch.cat([one[:, :, :v], other[:, :, :w], one[:, :, v:], other[:, :, w:]], 2)
                if w
                else torch.cat([one, other], 2)
                for one, other in zip(old, new.seen, strict=True)
            )
            pairs = zip(self.unseen, new.unseen, strict=True)
            keys, values = (torch.cat(pair, 2) for pair in pairs)
            self.unseen = (keys, values)
        self.visual += new.visual
        assert self.unseen is not None
        made = Held((self.keys, self.values), self.unseen, self.visual, (key_states, value_states) if first else None)
        return made, made

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self.visual, self.unseen = 0, None

    def held(self) -> list[Tensor]:
        """All tensors that it holds."""
        return [*super().held(), *(self.unseen or ())]

    def _choose(self, rows: Tensor) -> None:
        super()._choose(rows)
        if self.unseen is not None:
            self.unseen = (self.unseen[0][rows], self.unseen[1][rows])


def split(keys: Tensor, values: Tensor, stage: Stage, used: Tensor, others: Tensor) -> Held:
    """Keys and values [B, Hkv, T, D] of a pass by who sees them."""

    def part(states: Tensor, heads: Tensor, at: Tensor) -> Tensor:
        chosen = states if len(heads) == states.shape[1] else states.index_select(1, heads)
        return take(chosen, at)

    count = stage.visual_cells.count
    at = torch.cat([stage.visual_at, stage.text_at], 1)
    if stage.any_visual:
        seen = (part(keys, used, at), part(values, used, at))
        unseen = (part(keys, others, stage.text_at), part(values, others, stage.text_at))
    else:
        whole = len(used) == keys.shape[1]
        seen = (keys, values) if whole else (keys.index_select(1, used), values.index_select(1, used))
        unseen = (keys.index_select(1, others), values.index_select(1, others))
    return Held(seen, unseen, count)


def held_bytes(cache: DynamicCache) -> int:
    """Bytes of keys and values in a cache of a pruned model, or of any other."""
    total = 0
    for layer in cache.layers:
        tensors = layer.held() if isinstance(layer, KeptLayer) else [layer.keys, layer.values]
        total += sum(one.numel() * one.element_size() for one in tensors if isinstance(one, Tensor))
    return total
