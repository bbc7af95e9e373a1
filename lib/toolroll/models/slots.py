"""Keys and values of many sequences in one store, a row each, and the attention that reads them.

One forward pass takes any mixture of work packed into a single line of tokens: first the sequences
that continue by one token, in the order of their rows, then stretches of new tokens (a prompt, a
retrieved passage), each of one row. Only attention must know whose token is whose; that is
`slot_attention`, which transformers calls for every layer through its attention interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from toolroll.errors import ToolrollError

ATTENTION = "toolroll_slots"  #: the name `slot_attention` has in transformers
_LEAST_LENGTH = 64  # tokens
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class Stretch:
    """New tokens of one row: packed positions [begin, end), written to the row from `past` on."""

    begin: int
    end: int
    row: int
    past: int


@dataclass(slots=True)
class Packing:
    """Whose the tokens of one forward pass are.

    `step_rows`, `step_past`: rows that continue by one token, ascending, and how many tokens each holds already;
    token i of the pass belongs to step_rows[i]. `stretches` follow. `seen` collects the layers that attended.
    """

    slots: Slots
    step_rows: Sequence[int]
    step_past: Sequence[int]
    stretches: Sequence[Stretch]
    rows: Tensor = field(init=False)  # [n] int64
    past: Tensor = field(init=False)  # [n] int64
    seen: set[int] = field(default_factory=set)
    _masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = self.slots.device
        self.rows = torch.tensor(self.step_rows, dtype=torch.int64, device=device)
        self.past = torch.tensor(self.step_past, dtype=torch.int64, device=device)

    @property
    def height(self) -> int:
        """Rows 0..height-1 hold all sequences that continue by one token."""
        return self.step_rows[-1] + 1 if self.step_rows else 0

    @property
    def width(self) -> int:
        """The length of the longest of them, its new token included."""
        return max(self.step_past, default=0) + 1

    def step_mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [height, 1, 1, width] of the one-token part; a row without work sees its first token only."""
        key = (-1, window if window is not None and window < self.width else None)
        if key not in self._masks:
            last = torch.zeros(self.height, dtype=torch.int64, device=self.past.device)
            last[self.rows] = self.past
            self._masks[key] = _visible(last[:, None], self.width, key[1], dtype)[:, None]
        return self._masks[key]

    def stretch_mask(self, index: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Additive mask [1, 1, T, past + T] of a stretch; None when plain causal attention says the same."""
        part = self.stretches[index]
        length = part.past + part.end - part.begin
        if window is not None and window >= length:
            window = None
        if part.past == 0 and window is None:
            return None
        if (index, window) not in self._masks:
            last = torch.arange(part.past, length, device=self.past.device)
            self._masks[index, window] = _visible(last, length, window, dtype)[None, None]
        return self._masks[index, window]


class Slots:
    """Key and value tensors of every layer, [rows, heads, length, dim] each, grown geometrically.

    No row is longer than `most_length` tokens. What the rows hold is known elsewhere (`rows.RowTable`). Memory never
    written to holds zeros, so that a masked position is finite.
    """

    def __init__(self, device: torch.device, most_length: int | None = None) -> None:
        self.device = device
        self.most_length = most_length
        self.rows = 0
        self.length = 0
        self._store: list[list[Tensor]] = []

    def clear(self) -> None:
        """Give all memory back; every row is lost."""
        self._store, self.rows, self.length = [], 0, 0

    def reserve(self, rows: int, length: int, *, most_rows: int) -> None:
        """Have room for `rows` rows of `length` tokens, by doubling, but at most `most_rows` rows."""
        if rows > self.rows:
            self.rows = min(most_rows, max(rows, 2 * self.rows))
        if length > self.length:
            grown = max(length, 2 * self.length, _LEAST_LENGTH)
            self.length = grown if self.most_length is None else min(grown, self.most_length)

    def tensors(self, layer: int, key: Tensor, value: Tensor) -> list[Tensor]:
        """The key and the value store of `layer`, as large as reserved; shaped like `key` and `value` [1, H, N, D]."""
        while len(self._store) <= layer:
            self._store.append([like.new_zeros(0, like.shape[1], 0, like.shape[3]) for like in (key, value)])
        stored = self._store[layer]
        if stored[0].shape[0] < self.rows or stored[0].shape[2] < self.length:
            for i, old in enumerate(stored):
                new = old.new_zeros(self.rows, old.shape[1], self.length, old.shape[3])
                new[: old.shape[0], :, : old.shape[2]] = old
                stored[i] = new
                del old
        return stored

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of row `source` into row `target`."""
        for stored in self._grown():
            for tensor in stored:
                tensor[target, :, :length] = tensor[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for stored in self._grown():
            for tensor in stored:
                kept = tensor[one, :, :length].clone()
                tensor[one, :, :length] = tensor[other, :, :length]
                tensor[other, :, :length] = kept

    def _grown(self) -> list[list[Tensor]]:
        return [self.tensors(layer, *stored) for layer, stored in enumerate(self._store)]


def slot_attention(
    module: Any,
    query: Tensor,  # [1, H, N, D]
    key: Tensor,  # [1, Hkv, N, D]
    value: Tensor,  # [1, Hkv, N, Dv]
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Store the new keys and values, attend row by row; returns [1, N, H, Dv].

    Without `packing` (somebody else runs the model) it is transformers' own scaled dot product attention.
    """
    if packing is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **extra
        )
        return plain
    if any(extra.get(name) is not None for name in _UNSUPPORTED):
        raise ToolrollError("its attention uses soft caps, sinks or a position bias, which this back end has not")
    packing.seen.add(module.layer_idx)
    keys, values = packing.slots.tensors(module.layer_idx, key, value)
    steps = len(packing.step_rows)
    answers: list[Tensor] = []  # [1, T, H, Dv] each
    if steps:
        keys[packing.rows, :, packing.past] = key[0, :, :steps].transpose(0, 1)
        values[packing.rows, :, packing.past] = value[0, :, :steps].transpose(0, 1)
        answers.append(_attend_steps(module, query, keys, values, packing, scaling, sliding_window)[None])
    for i, part in enumerate(packing.stretches):
        length = part.past + part.end - part.begin
        keys[part.row, :, part.past : length] = key[0, :, part.begin : part.end]
        values[part.row, :, part.past : length] = value[0, :, part.begin : part.end]
        answer, _ = sdpa_attention_forward(
            module,
            query[:, :, part.begin : part.end],
            keys[part.row : part.row + 1, :, :length],
            values[part.row : part.row + 1, :, :length],
            packing.stretch_mask(i, sliding_window, query.dtype),
            scaling=scaling,
        )
        answers.append(answer)
    return answers[0] if len(answers) == 1 else torch.cat(answers, 1), None


def _attend_steps(
    module: Any,
    query: Tensor,  # [1, H, N, D]
    keys: Tensor,  # [rows, Hkv, length, D]
    values: Tensor,  # [rows, Hkv, length, Dv]
    packing: Packing,
    scaling: float | None,
    window: int | None,
) -> Tensor:  # [n, H, Dv]
    steps, height, width = len(packing.step_rows), packing.height, packing.width
    asked = query[0, :, :steps].transpose(0, 1)
    if height > steps:  # rows without work in between: give them a query too and drop its answer
        spread = asked.new_zeros(height, *asked.shape[1:])
        spread[packing.rows] = asked
        asked = spread
    mask = packing.step_mask(window, query.dtype)
    answer = sdpa_attention_forward(
        module, asked[:, :, None], keys[:height, :, :width], values[:height, :, :width], mask, scaling=scaling
    )[0][:, 0]
    return answer if height == steps else answer[packing.rows]


def _visible(
    last: Tensor,  # [..., T] position of each query
    length: int,
    window: int | None,
    dtype: torch.dtype,
) -> Tensor:  # [..., T, length], 0 where a query sees a position, -inf where not
    position = torch.arange(length, device=last.device)
    hidden = position > last[..., None]
    if window is not None:
        hidden |= position <= last[..., None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=last.device).masked_fill_(hidden, float("-inf"))


AttentionInterface.register(ATTENTION, slot_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
