"""Attention under a plan: text queries, visual queries in their window, heads that do not see visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from toolroll.pruning.cached import Held, Memory
from toolroll.pruning.plan import Plan
from toolroll.pruning.strips import Strip, strips
from toolroll.pruning.tokens import Cells, Stage, may_see, take


@dataclass(frozen=True, slots=True)
class Pick:
    """Heads, by their `index`; `straight` where these are the first so many, in order."""

    index: Tensor
    straight: bool

    def __len__(self) -> int:
        return len(self.index)

    def of(self, states: Tensor) -> Tensor:
        """Those of [B, H, T, D]."""
        if self.straight and len(self) == states.shape[1]:
            return states
        return states.index_select(1, self.index)


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a layer.

    active: query heads that see visual tokens, and the key head of each among `used`. partly: inactive ones whose key
    head is used all the same, and its index there. idle: all others, and their key head among `others`. used, others:
    key heads with and without an active head. whole_keys: the key head of each active head among all.
    """

    active: Pick
    active_keys: Pick
    whole_keys: Pick
    partly: Pick
    partly_keys: Pick
    idle: Pick
    idle_keys: Pick
    used: Pick
    others: Pick
    all_active: bool


def heads_of(active: tuple[bool, ...], group: int, device: torch.device) -> Heads:
    """The heads of a layer with these active ones, `group` to a key head."""
    on = [head for head, one in enumerate(active) if one]
    used = sorted({head // group for head in on})
    others = [key for key in range(len(active) // group) if key not in used]
    partly = [head for head, one in enumerate(active) if not one and head // group in used]
    idle = [head for head, one in enumerate(active) if head // group not in used]

    def index(heads: list[int]) -> Pick:
        straight = heads == list(range(len(heads)))
        return Pick(torch.tensor(heads, dtype=torch.long, device=device), straight)

    return Heads(
        index(on),
        index([used.index(head // group) for head in on]),
        index([head // group for head in on]),
        index(partly),
        index([used.index(head // group) for head in partly]),
        index(idle),
        index([others.index(head // group) for head in idle]),
        index(used),
        index(others),
        len(on) == len(active),
    )


@dataclass(slots=True)
class View:
    """A pass's tokens in one stage, all cells so far, and what may see what; made when first asked for."""

    stage: Stage
    memory: Memory
    plan: Plan
    first: bool
    made: dict[Any, Any] = field(default_factory=dict)

    def mask(self, queries: Cells, keys: Cells, name: str, like: Tensor) -> Tensor | None:
        """[B, 1, Q, K] to add; None where one query of each prompt sees everything."""
        if queries.count == 1 and queries.whole and keys.whole:
            return None
        key = (name, like.dtype)
        if key not in self.made:
            self.made[key] = _additive(may_see(queries, keys), like).unsqueeze(1)
        found: Tensor = self.made[key]
        return found

    @property
    def seen(self) -> Cells:
        """Visual cells, then text."""
        if "seen" not in self.made:
            self.made["seen"] = self.memory.visual.then(self.memory.text)
        found: Cells = self.made["seen"]
        return found

    def strips(self, like: Tensor) -> list[tuple[Strip, Tensor]]:
        """The strips of the window, and their masks to add."""
        key = ("strips", like.dtype)
        if key not in self.made:
            found = strips(self.stage, self.plan, self.memory.text, self.memory.visual)
            self.made[key] = [(strip, _additive(strip.mask, like).unsqueeze(1)) for strip in found]
        made: list[tuple[Strip, Tensor]] = self.made[key]
        return made


def _additive(seen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, -torch.inf)


def kept(module: Any, view: View, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> tuple[Tensor, None]:
    """Plain causal attention among the tokens that a later stage has."""
    causal = view.first and view.stage.cells.whole
    mask = None if causal else view.mask(view.stage.cells, view.memory.all, "all", query)
    made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **settings)
    return made


def split_heads(
    view: View, heads: Heads, query: Tensor, held: Held, mask: Tensor | None, dropout: float, scaling: float | None
) -> Tensor:
    """[B, T, Hq, D] of queries [B, Hq, T, D]. `mask` is the model's own, of all tokens so far in order."""
    stage = view.stage
    batch, count, tokens = query.shape[:3]
    made = query.new_zeros(batch * tokens, count, held.seen[1].shape[-1])

    def attend(queries: Tensor, keys: tuple[Tensor, Tensor], chosen: Pick, seen: Tensor | None, causal: bool) -> Tensor:
        k, v = (chosen.of(part) for part in keys)
        out: Tensor = scaled_dot_product_attention(
            queries, k, v, attn_mask=seen, dropout_p=dropout, scale=scaling, is_causal=causal
        )
        return out

    def keep(out: Tensor, rows: Tensor, real: Tensor | None, chosen: Pick) -> None:
        flat = out.transpose(1, 2)
        flat = flat.flatten(0, 1) if real is None else flat[real]
        if len(rows) == len(made) and real is None and len(chosen) == count:
            made.copy_(flat)
        elif len(chosen) == count:
            made[rows] = flat
        else:
            made[rows[:, None], chosen.index] = flat

    windowed = stage.any_visual and view.plan.window is not None
    text = query if not stage.any_visual else take(query, stage.text_at)
    everything = torch.arange(batch * tokens, device=query.device)
    text_keys = tuple(part[:, :, held.visual :] for part in held.seen)
    text_causal = view.first and view.memory.text.whole and text.shape[2] > 1
    text_mask = None if text_causal else view.mask(stage.text_cells, view.memory.text, "text", query)
    if len(heads.active):
        if windowed or not stage.any_visual:
            seen = view.mask(stage.text_cells, view.seen, "text to all", query)
            out = attend(heads.active.of(text), held.seen, heads.active_keys, seen, False)
            keep(out, stage.text_rows, stage.text_real, heads.active)
        elif held.plain is not None:
            queries = heads.active.of(query)
            out = attend(queries, held.plain, heads.whole_keys, mask, mask is None and tokens > 1)
            keep(out, everything, None, heads.active)
        else:
            seen = view.mask(stage.cells, view.seen, "all to all", query)
            out = attend(heads.active.of(query), held.seen, heads.active_keys, seen, False)
            keep(out, everything, None, heads.active)
        if windowed:
            visual = heads.active.of(take(query, stage.visual_at))
            out = _windows(view, heads, visual, held, dropout, scaling)
            keep(out, stage.visual_rows, stage.visual_real, heads.active)
    for chosen, keys, pair in (
        (heads.partly, heads.partly_keys, text_keys),
        (heads.idle, heads.idle_keys, held.unseen),
    ):
        if len(chosen):
            out = attend(chosen.of(text), (pair[0], pair[1]), keys, text_mask, text_causal)
            keep(out, stage.text_rows, stage.text_real, chosen)
    return made.view(batch, tokens, count, -1)


def _windows(view: View, heads: Heads, visual: Tensor, held: Held, dropout: float, scaling: float | None) -> Tensor:
    """[B, a, N, D] of the visual queries [B, a, N, D] of active heads."""
    out = visual.new_zeros(*visual.shape[:3], held.seen[1].shape[-1])
    keys, values = (heads.active_keys.of(part) for part in held.seen)
    alone = visual.shape[0] == 1
    for strip, mask in view.strips(visual):

        def part(states: Tensor, strip: Strip = strip) -> Tensor:
            states = states if alone or len(strip.batch) == states.shape[0] else states[strip.batch]
            text = states[:, :, held.visual : held.visual + strip.text]
            near = states[:, :, strip.first : strip.last]
            return torch.cat([text, near], 2) if strip.text else near

        everyone = alone or len(strip.batch) == visual.shape[0]
        queries = visual if everyone else visual[strip.batch]
        made = scaled_dot_product_attention(
            queries[:, :, strip.start : strip.end],
            part(keys),
            part(values),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
        )
        if everyone:
            out[:, :, strip.start : strip.end] = made
        else:
            out[strip.batch, :, strip.start : strip.end] = made
    return out
