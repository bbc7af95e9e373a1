"""A prompt's cost as a row: every term, both conventions, what each part of a plan saves by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toolroll.errors import ToolrollError
from toolroll.pruning.flops import (
    Pairs,
    Tokens,
    decode_flops,
    dense_terms,
    fastv_flops,
    head_flops,
    kv_bytes,
    pruned_terms,
    shares,
    sum_over,
    text_flops,
)
from toolroll.pruning.plan import Plan
from toolroll.pruning.shape import Shape

_OTHER: dict[Pairs, Pairs] = {"full": "causal", "causal": "full"}


def convention(pairs: Pairs) -> str:
    """The convention in words.

    >>> convention("full")
    '2 FLOPs a multiply-add, n^2 pairs of visual tokens'
    """
    count = "n^2" if pairs == "full" else "n(n+1)/2"
    return f"2 FLOPs a multiply-add, {count} pairs of visual tokens"


def flops_row(
    shape: Shape, tokens: Tokens, plan: Plan, *, pairs: Pairs, kv_dtype: str, element_bytes: int
) -> dict[str, Any]:
    """The fields of a `FlopsRow` but its id. ToolrollError for more FLOPs or bytes than JSON lines hold, 2^63."""
    made = _fields(shape, tokens, plan, pairs, kv_dtype, element_bytes)
    numbers = [one for one in made.values() if isinstance(one, int)]
    if max(numbers) >= 2**63:
        raise ToolrollError("the numbers would have more than 63 bits", place=f"{tokens.visual + tokens.text} tokens")
    return made


def _fields(
    shape: Shape, tokens: Tokens, plan: Plan, pairs: Pairs, kv_dtype: str, element_bytes: int
) -> dict[str, Any]:
    dense, pruned = dense_terms(shape, tokens, pairs), pruned_terms(shape, tokens, plan, pairs)
    f0, f1 = sum_over(dense), sum_over(pruned)
    beside = text_flops(shape, tokens.text, pairs) + head_flops(shape)
    return {
        "grids": [list(grid) for grid in tokens.grids],
        "n_visual": tokens.visual,
        "n_text": tokens.text,
        "pairs": pairs,
        "flops_convention": convention(pairs),
        "flops_dense": f0,
        "flops_pruned": f1,
        "visual_ratio": f1 / f0 if f0 else 1.0,
        "flops_dense_other": sum_over(dense_terms(shape, tokens, _OTHER[pairs])),
        "flops_pruned_other": sum_over(pruned_terms(shape, tokens, plan, _OTHER[pairs])),
        "macs_dense": f0 // 2,
        "macs_pruned": f1 // 2,
        "fastv_dense": fastv_flops(shape, tokens),
        "terms_dense": dense,
        "terms_pruned": pruned,
        "shares_dense": shares(dense),
        "flops_alone": {
            name: sum_over(pruned_terms(shape, tokens, part, pairs)) for name, part in _parts(plan).items()
        },
        "flops_text": text_flops(shape, tokens.text, pairs),
        "flops_lm_head": head_flops(shape),
        "flops_total_dense": f0 + beside,
        "flops_total_pruned": f1 + beside,
        "total_ratio": (f1 + beside) / (f0 + beside) if f0 + beside else 1.0,
        "decode_flops_dense": decode_flops(shape, tokens, None),
        "decode_flops_pruned": decode_flops(shape, tokens, plan),
        "kv_bytes_dense": kv_bytes(shape, tokens, None, element_bytes),
        "kv_bytes_pruned": kv_bytes(shape, tokens, plan, element_bytes),
        "kv_dtype": kv_dtype,
        "plan": plan.as_dict(),
        "plan_hash": plan.hash,
    }


def for_people(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a row that a table shows."""
    names = ("id", "n_visual", "n_text", "flops_dense", "flops_pruned", "visual_ratio", "total_ratio")
    return {name: row[name] for name in (*names, "kv_bytes_dense", "kv_bytes_pruned")}


def _parts(plan: Plan) -> dict[str, Plan]:
    """The plan with only one of its parts."""
    none = Plan(softmax=plan.softmax)
    return {
        "window": replace(none, window=plan.window, window_causal=plan.window_causal, cross_tile=plan.cross_tile),
        "heads": replace(none, heads=plan.heads),
        "ffn": replace(none, ffn=plan.ffn),
        "cut": replace(none, cut=plan.cut),
    }
