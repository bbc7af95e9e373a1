"""From one stage of a pass to the next: hidden states, positions and masks of the tokens that go on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from toolroll.pruning.plan import Plan
from toolroll.pruning.tokens import Stage


def turns_of(plan: Plan, layers: int) -> list[int]:
    """The layers at which a stage begins."""
    if plan.softmax == "authors":
        return []
    turns = {drop.layer for drop in plan.drops}
    if plan.cut is not None and plan.cut < layers:
        turns = {turn for turn in turns if turn < plan.cut} | {plan.cut}
    return sorted(turns)


def between(hidden: Tensor, before: Stage, after: Stage) -> Tensor:
    """Of hidden states [B, T, d] of a stage those of the next."""
    if after.index is None or after is before:
        return hidden
    assert after.within is not None
    return hidden.gather(1, after.within[:, :, None].expand(-1, -1, hidden.shape[2]))


def their_own(stage: Stage, given: dict[str, Any]) -> dict[str, Any]:
    """Positions of a stage's tokens, of those that the model gives its layers for all tokens."""
    if stage.index is None:
        return {}
    made: dict[str, Any] = {"attention_mask": None}
    turned = given.get("position_embeddings")
    if turned is not None:
        made["position_embeddings"] = tuple(_along(part, stage.index) for part in turned)
    places = given.get("position_ids")
    if places is not None:
        made["position_ids"] = _along(places.unsqueeze(-1), stage.index).squeeze(-1)
    return made


def _along(values: Tensor, index: Tensor) -> Tensor:
    """Of [..., B or 1, T, D] the tokens `index` [B, K]."""
    batch = index.shape[0]
    wide = values.expand(*values.shape[:-3], batch, *values.shape[-2:])
    at = index[..., None].expand(*wide.shape[:-2], index.shape[1], wide.shape[-1])
    return wide.gather(-2, at)
