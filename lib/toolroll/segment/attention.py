"""Attention over a few queries, and the block in which they attend to text.

Symbols: B pictures, Q queries, T text tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):  # type: ignore[misc]
    """Attention with several heads and biases: 4 (D^2 + D) weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,  # [B, Q, D]
        key: Tensor,  # [B, S, D]
        value: Tensor,  # [B, S, D]
        allowed: Tensor | None = None,  # [B, 1, Q or 1, S], True where a query may look
    ) -> Tensor:  # [B, Q, D]
        """What the queries read."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(query), self.key(key), self.value(value))
        )
        read = scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        made: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return made


class TextAttention(nn.Module):  # type: ignore[misc]
    """Queries attend to text tokens: the block that PMP adds to each layer of a decoder.

    X is the queries' state, P their positions, T the text tokens, key and value at once. From scratch
    X = LN(X + MHA(X + P, T, T)). With a gate X = X + tanh(g) MHA(LN(X) + P, T, T), g = 0 at the start, which then is
    the identity to the bit: for a decoder that is trained already.
    """

    def __init__(self, width: int, heads: int, *, gated: bool = False) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(
        self,
        state: Tensor,  # [B, Q, D]
        position: Tensor,  # [B or 1, Q, D]
        tokens: Tensor,  # [B, T, D]
        real: Tensor | None = None,  # [B, T], False for padding
    ) -> Tensor:  # [B, Q, D]
        """The state that has read the prompts."""
        allowed = None if real is None else real[:, None, None]
        if self.gate is not None:
            read = self.attention(self.norm(state) + position, tokens, tokens, allowed)
            return state + self.gate.tanh() * read
        made: Tensor = self.norm(state + self.attention(state + position, tokens, tokens, allowed))
        return made
