"""What visual tokens cost: floating-point operations by part, and bytes of the cache.

A multiplication with its addition is 2 FLOPs. d hidden size, m neurons, L layers, D numbers a head, Hq and Hkv query
and key heads, a_l heads of layer l that are active and k_l key heads that one of them uses, n visual tokens, t text
tokens, c the layer cut, r the ratio of neurons. Softmax, norms, activations and rotations are not counted.

    dense   F0 = L [4 n d D (Hq + Hkv) + 4 D Hq (pairs + n t) + 6 n d m]
    pruned  F1 = sum over l < c of [4 n d D (a_l + k_l) + 4 D a_l (window pairs + n t) + 6 n d floor(m / r)]

The paper counts n^2 pairs of visual tokens ("full"); a causal model needs n (n + 1) / 2 ("causal"). A visual token and
a text token are one pair: whichever comes later attends to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from toolroll.errors import ToolrollError
from toolroll.pruning.plan import Plan, kv_active
from toolroll.pruning.shape import Shape

Pairs = Literal["full", "causal"]
Grid = tuple[int, int]  #: rows and columns
TERMS = ("proj_qo", "proj_kv", "attention_visual", "attention_text", "ffn")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a prompt: `grids` of its images or tiles, in order, and `text` tokens around them.

    The last `as_text` tokens of the last grid, 0 or 1, count as text: where a prompt ends with an image, what comes
    next hangs on its last token. They are in `text`.
    """

    grids: tuple[Grid, ...]
    text: int
    as_text: int = 0

    @property
    def visual(self) -> int:
        """Visual tokens."""
        return sum(rows * columns for rows, columns in self.grids) - self.as_text

    @property
    def sizes(self) -> list[int]:
        """Visual tokens of each grid."""
        made = [rows * columns for rows, columns in self.grids]
        return [*made[:-1], made[-1] - self.as_text] if made else made


def window_pairs(grid: Grid, window: int, *, causal: bool = False) -> int:
    """Pairs (token, neighbour) in a grid of H x W, the token itself among them; `causal` leaves out later neighbours.

    >>> window_pairs((24, 24), 5), window_pairs((24, 24), 5, causal=True)
    (12996, 6786)
    """
    rows, columns = grid
    both = _along(rows, (window - 1) // 2) * _along(columns, (window - 1) // 2)
    return (both + rows * columns) // 2 if causal else both


def neighbours(grid: Grid, window: int) -> list[list[int]]:
    """For each token of a grid, row by row, the tokens in its window.

    >>> neighbours((3, 3), 3)[0]
    [0, 1, 3, 4]
    """
    rows, columns = grid
    q = (window - 1) // 2
    return [
        [
            r * columns + c
            for r in range(max(0, row - q), min(rows, row + q + 1))
            for c in range(max(0, column - q), min(columns, column + q + 1))
        ]
        for row in range(rows)
        for column in range(columns)
    ]


def _along(side: int, q: int) -> int:
    return sum(min(side - 1, i + q) - max(0, i - q) + 1 for i in range(side))


def dense_pairs(tokens: Tokens, pairs: Pairs) -> int:
    """Pairs of visual tokens without a window: n^2, or n (n + 1) / 2."""
    n = tokens.visual
    return n * n if pairs == "full" else n * (n + 1) // 2


def pruned_pairs(tokens: Tokens, plan: Plan, pairs: Pairs) -> int:
    """Pairs of visual tokens under the plan's window. Pairs across tiles count once."""
    if plan.window is None:
        return dense_pairs(tokens, pairs)
    causal = plan.window_causal and pairs == "causal"
    inside = sum(window_pairs(grid, plan.window, causal=causal) for grid in tokens.grids)
    if tokens.as_text:  # the lower right corner of the last grid is no visual token, and no neighbour of one
        near = math.prod(min(side, (plan.window + 1) // 2) for side in tokens.grids[-1])
        inside -= near if causal else 2 * near - 1
    if not plan.cross_tile:
        return inside
    sizes = tokens.sizes
    return inside + sum(size * sum(sizes[:i]) for i, size in enumerate(sizes))


def dense_terms(shape: Shape, tokens: Tokens, pairs: Pairs) -> dict[str, int]:
    """F0 by part."""
    return _times(
        _layer(shape, tokens, shape.heads, shape.kv_heads, dense_pairs(tokens, pairs), shape.ffn), shape.layers
    )


def pruned_terms(shape: Shape, tokens: Tokens, plan: Plan, pairs: Pairs) -> dict[str, int]:
    """F1 by part. What the authors' softmax only masks is not saved; tokens that were dropped cost nothing more."""
    if plan.softmax == "authors":
        whole = dense_terms(shape, tokens, pairs)
        return {**whole, "ffn": _ffn(shape, tokens.visual, plan.neurons(shape)) * shape.layers}
    made = dict.fromkeys(TERMS, 0)
    for layer in range(plan.end(shape)):
        active = plan.active(layer, shape)
        here = Tokens(((1, visual_in(tokens, plan, layer)),), tokens.text) if plan.drops else tokens
        visual = pruned_pairs(here, plan, pairs)
        part = _layer(shape, here, sum(active), len(kv_active(active, shape)), visual, plan.neurons(shape))
        made = {name: made[name] + part[name] for name in TERMS}
    return made


def visual_in(tokens: Tokens, plan: Plan, layer: int) -> int:
    """How many visual tokens a layer before the cut has, where some were dropped."""
    keep = min((drop.keep for drop in plan.drops if drop.layer <= layer), default=1.0)
    return sum(
        min(size, round(keep * rows * columns))
        for size, (rows, columns) in zip(tokens.sizes, tokens.grids, strict=True)
    )


def text_flops(shape: Shape, text: int, pairs: Pairs) -> int:
    """The text's own cost in all layers, which no plan changes; without the embedding and the head."""
    own = text * text if pairs == "full" else text * (text + 1) // 2
    return sum(_layer(shape, Tokens((), text), shape.heads, shape.kv_heads, 0, 0, own=own).values()) * shape.layers


def head_flops(shape: Shape) -> int:
    """The logits of one position."""
    return 2 * shape.hidden * shape.vocabulary


def kv_bytes(shape: Shape, tokens: Tokens, plan: Plan | None, element_bytes: int) -> int:
    """Bytes of keys and values of the prompt: 2 L Hkv D e (n + t), or 2 D e (L Hkv t + n sum over l < c of k_l)."""
    if plan is None or plan.softmax == "authors":
        return 2 * shape.layers * shape.kv_heads * shape.head_dim * element_bytes * (tokens.visual + tokens.text)
    kept = sum(
        len(kv_active(plan.active(layer, shape), shape)) * visual_in(tokens, plan, layer)
        for layer in range(plan.end(shape))
    )
    cells = shape.layers * shape.kv_heads * tokens.text + kept
    return 2 * shape.head_dim * element_bytes * cells


def decode_flops(shape: Shape, tokens: Tokens, plan: Plan | None) -> int:
    """One new token behind the prompt, with its logits; inactive heads and layers from the cut on skip n keys."""
    own = sum(_layer(shape, Tokens((), 1), shape.heads, shape.kv_heads, 0, 0, own=1).values()) * shape.layers
    seen = shape.layers * shape.heads * (tokens.text + tokens.visual)
    if plan is not None and plan.softmax == "renorm":
        kept = (sum(plan.active(i, shape)) * visual_in(tokens, plan, i) for i in range(plan.end(shape)))
        seen = shape.layers * shape.heads * tokens.text + sum(kept)
    return own + 4 * shape.head_dim * seen + head_flops(shape)


def fastv_flops(shape: Shape, tokens: Tokens) -> int:
    """What FastV and DivPrune print of the dense model: L (4 n d^2 + 2 n^2 d + 2 n d m), multiply-adds, 2 matrices."""
    n, d = tokens.visual, shape.hidden
    return shape.layers * (4 * n * d * d + 2 * n * n * d + 2 * n * d * shape.ffn)


def _layer(
    shape: Shape, tokens: Tokens, heads: int, kv_heads: int, visual: int, neurons: int, *, own: int | None = None
) -> dict[str, int]:
    """One layer's cost of the visual tokens; with `own` that of the text, which has so many pairs of its own."""
    rows, ffn = (tokens.visual, neurons) if own is None else (tokens.text, shape.ffn)
    side = 4 * rows * shape.hidden * shape.head_dim
    beside = tokens.visual * tokens.text if own is None else own
    return {
        "proj_qo": side * heads,
        "proj_kv": side * kv_heads,
        "attention_visual": 4 * shape.head_dim * heads * visual,
        "attention_text": 4 * shape.head_dim * heads * beside,
        "ffn": _ffn(shape, rows, ffn),
    }


def _ffn(shape: Shape, rows: int, neurons: int) -> int:
    return (6 if shape.gated else 4) * rows * shape.hidden * neurons


def _times(terms: dict[str, int], factor: int) -> dict[str, int]:
    return {name: value * factor for name, value in terms.items()}


def read_grids(text: str) -> tuple[Grid, ...]:
    """Grids from `HxW,...`; `NxHxW` is N of them. ToolrollError for anything else.

    >>> read_grids("24x24,2x8x8")
    ((24, 24), (8, 8), (8, 8))
    """
    grids: list[Grid] = []
    count = 0
    for part in text.split(","):
        sizes = part.strip().lower().split("x")
        if len(sizes) not in (2, 3) or not all(map(_is_side, sizes)):
            raise ToolrollError(f"{part.strip()!r} is not ROWSxCOLUMNS")
        *times, rows, columns = map(int, sizes)
        tiles = times[0] if times else 1
        count += tiles * rows * columns
        if count > _MOST:
            raise ToolrollError(f"more than {_MOST} tokens")
        grids += [(rows, columns)] * tiles
    return tuple(grids)


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0


def read_text(text: str) -> int:
    """Text tokens from `BEFORE+AFTER`, or any sum.

    >>> read_text("35+30")
    65
    """
    parts = text.split("+")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ToolrollError(f"{text!r} is not a sum of numbers of tokens, like 35+30")
    found = sum(map(int, parts)) if max(map(len, parts)) < 20 else _MOST + 1
    if found > _MOST:
        raise ToolrollError(f"more than {_MOST} tokens")
    return found


def sum_over(terms: dict[str, int]) -> int:
    """All parts together."""
    return sum(terms.values())


_MOST = 10**8


def shares(terms: dict[str, int]) -> dict[str, float]:
    """The shares of projections, attention and feed-forward nets in a cost."""
    total = sum_over(terms)
    names: dict[str, Sequence[str]] = {
        "proj": ("proj_qo", "proj_kv"),
        "attention": ("attention_visual", "attention_text"),
        "ffn": ("ffn",),
    }
    return {name: sum(terms[one] for one in parts) / total if total else 0.0 for name, parts in names.items()}
