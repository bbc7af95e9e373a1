"""Queries that become masks, layer by layer, and what class each of them is.

Symbols: B pictures, Q queries, D width, C width of text vectors, K classes, h x w the size of masks (stride 4). A layer
is Mask2Former's, post-norm: attention to the image within the mask so far, self-attention, a feed-forward net. PMP adds
attention to the text, by default in front of the others, so that the first layer looks at the image as one that knows
the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, relu

from toolroll.segment.attention import Attention, TextAttention
from toolroll.segment.text import Text

TextPosition = Literal["first", "after-cross", "last"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says, for each of L layers, the raw queries first; of a model that is not training the last alone.

    `classes` [L, B, Q, K+1] are logits, "none of them" last, -inf for classes that a picture does not have; `masks`
    [L, B, Q, h, w] are logits.
    """

    classes: Tensor
    masks: Tensor


class Layer(nn.Module):  # type: ignore[misc]
    """One layer of the decoder."""

    def __init__(self, width: int, heads: int, inner: int, *, text: bool, text_pos: TextPosition) -> None:
        super().__init__()
        self.text_pos = text_pos
        self.text = TextAttention(width, heads) if text else None
        self.cross, self.own = Attention(width, heads), Attention(width, heads)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self,
        state: Tensor,  # [B, Q, D]
        position: Tensor,  # [1, Q, D]
        maps: tuple[Tensor, Tensor],  # keys and values [B, S, D]
        allowed: Tensor,  # [B, 1, Q, S]
        tokens: Tensor,  # [B, T, D]
        real: Tensor,  # [B, T]
    ) -> Tensor:  # [B, Q, D]
        """The state after the layer."""

        def listen(state: Tensor, at: TextPosition) -> Tensor:
            if self.text is None or self.text_pos != at:
                return state
            heard: Tensor = self.text(state, position, tokens, real)
            return heard

        state = listen(state, "first")
        state = self.norms[0](state + self.cross(state + position, maps[0], maps[1], allowed))
        state = listen(state, "after-cross")
        seen = state + position
        state = self.norms[1](state + self.own(seen, seen, state))
        state = self.norms[2](state + self.down(relu(self.up(state))))
        return listen(state, "last")


class ClassHead(nn.Module):  # type: ignore[misc]
    """What class a query is: its cosine with each phrase, and with a learned vector for "none of them".

    A query's own vector is MLP(W LN(mean of mask features within its mask) + d), d its state; logits are that cosine
    times exp(s), at most 100. Of a class's phrases the best counts. (FC-CLIP's head for classes seen in training.)
    """

    def __init__(self, width: int, text_width: int, features: int | None = None) -> None:
        super().__init__()
        features = width if features is None else features
        self.norm = nn.LayerNorm(features)
        self.pooled = nn.Linear(features, width)
        self.mlp = mlp(width, width, text_width)
        self.void = nn.Parameter(torch.randn(text_width) / math.sqrt(text_width))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, state: Tensor, masks: Tensor, features: Tensor, text: Text) -> Tensor:
        """Logits [B, Q, K+1] of states [B, Q, D] with mask logits [B, Q, h, w] on features [B, D, h, w]."""
        inside = (masks.detach() > 0).to(features.dtype).flatten(2)
        pooled = inside @ features.flatten(2).transpose(1, 2) / (inside.sum(-1, keepdim=True) + 1e-8)
        own = normalize(self.mlp(self.pooled(self.norm(pooled)) + state), dim=-1)
        scale = self.scale.exp().clamp(max=100)
        phrases = scale * own @ text.phrases.transpose(1, 2)
        owners = text.owners.unsqueeze(1).expand(-1, phrases.shape[1], -1)
        classes = phrases.new_full((*phrases.shape[:2], text.classes + 1), -math.inf)
        index = owners.masked_fill(owners < 0, text.classes)
        best = classes.scatter_reduce(2, index, phrases.masked_fill(owners < 0, -math.inf), "amax")
        void = scale * own @ normalize(self.void, dim=0)
        return torch.cat([best[..., :-1], void.unsqueeze(-1)], dim=-1)


class Decoder(nn.Module):  # type: ignore[misc]
    """From maps and text to masks and classes."""

    def __init__(
        self,
        *,
        width: int,
        queries: int,
        layers: int,
        heads: int,
        inner: int,
        text_width: int,
        text: bool,
        text_pos: TextPosition,
    ) -> None:
        super().__init__()
        self.width = width
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.positions = nn.Parameter(torch.randn(queries, width))
        self.levels = nn.Parameter(torch.randn(3, width))
        self.text_project = nn.Linear(text_width, width) if text else None
        self.layers = nn.ModuleList(Layer(width, heads, inner, text=text, text_pos=text_pos) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.mask_mlp = mlp(width, width, width)
        self.class_head = ClassHead(width, text_width)

    def forward(self, features: Tensor, maps: Sequence[Tensor], text: Text) -> Outputs:
        """Features [B, D, h, w], three maps [B, D, ., .] at strides 32, 16 and 8."""
        batch = len(features)
        tokens = text.tokens if self.text_project is None else self.text_project(text.tokens)
        levels = []
        for number, one in enumerate(maps):
            values = one.flatten(2).transpose(1, 2) + self.levels[number]
            height, across = one.shape[-2:]
            keys = values + sine_positions(height, across, self.width, one.device)
            small = interpolate(features.detach(), size=one.shape[-2:], mode="bilinear", align_corners=False)
            levels.append(((keys, values), small.flatten(2)))
        state = self.queries.unsqueeze(0).expand(batch, -1, -1)
        position = self.positions.unsqueeze(0)
        classes, masks = [], []
        for number in range(len(self.layers) + 1):
            seen = self.norm(state)
            embedding = self.mask_mlp(seen)
            last = number == len(self.layers)
            if self.training or last:
                made = torch.einsum("bqd,bdhw->bqhw", embedding, features)
                masks.append(made)
                classes.append(self.class_head(seen, made, features, text))
            if last:
                break
            pair, small = levels[number % len(levels)]
            allowed = embedding.detach() @ small >= 0  # as masks resized: both are linear
            allowed = (allowed | ~allowed.any(-1, keepdim=True)).unsqueeze(1)
            state = self.layers[number](state, position, pair, allowed, tokens, text.real)
        return Outputs(torch.stack(classes), torch.stack(masks))


def mlp(inner: int, hidden: int, outer: int) -> nn.Sequential:
    """Three linear layers."""
    return nn.Sequential(
        nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outer)
    )


def sine_positions(height: int, width: int, channels: int, device: torch.device | str = "cpu") -> Tensor:
    """Where the cells of a map are, [H W, channels]: sines and cosines of y, then of x, both in 0..2 pi."""
    half = channels // 2
    exponents = torch.arange(half, device=device) // 2 * 2 / half
    parts: list[Tensor] = []
    for places, other in ((height, width), (width, height)):
        at = (torch.arange(places, device=device) + 1) / places * 2 * math.pi
        waves = at.unsqueeze(1) / 10000**exponents
        mixed = torch.stack([waves[:, 0::2].sin(), waves[:, 1::2].cos()], dim=2).flatten(1)
        shaped = mixed.unsqueeze(1).expand(-1, other, -1) if not parts else mixed.unsqueeze(0).expand(other, -1, -1)
        parts.append(shaped)
    return torch.cat(parts, dim=-1).flatten(0, 1)
