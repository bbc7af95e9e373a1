"""The authors' softmax: what is pruned stays in the sum, and is multiplied by 0 behind it. Nothing is skipped."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import dropout as dropped

from toolroll.pruning.attention import View
from toolroll.pruning.plan import Plan
from toolroll.pruning.tokens import may_see


def simulated(
    view: View,
    plan: Plan,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,  # noqa: ARG001 - the cells say the same
    dropout: float,
    scaling: float | None,
) -> Tensor | None:
    """[B, T, Hq, D]; None where no token so far is visual.

    Visual keys of inactive heads, and all of them from the cut on, get their weight times 0 behind the softmax; the
    output of visual queries is multiplied by the same. In every layer, visual tokens look at their window only.
    """
    visual = view.memory.visual_flags()
    if visual is None:
        return None
    batch, count, tokens, width = query.shape
    group = count // key.shape[1]
    k, v = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    weights = query @ k.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
    seen = _seen(view, plan)
    single = torch.promote_types(query.dtype, torch.float32)
    weights = weights.masked_fill(~seen[:, None], -torch.inf).softmax(-1, dtype=single).to(query.dtype)
    on = _active(plan, layer, count, query)
    weights = weights * torch.where(visual[:, None, None, :], on[None, :, None, None], 1)
    made = dropped(weights, dropout, training=dropout > 0) @ v
    made = made * torch.where(visual[:, None, -tokens:, None], on[None, :, None, None], 1)
    return made.transpose(1, 2).contiguous().view(batch, tokens, count, -1)


def _active(plan: Plan, layer: int, count: int, like: Tensor) -> Tensor:
    if plan.cut is not None and layer >= plan.cut:
        return like.new_zeros(count)
    return like.new_ones(count) if plan.heads is None else like.new_tensor(plan.heads[layer])


def _seen(view: View, plan: Plan) -> Tensor:
    """Bool [B, T, K]: causal, but for visual tokens' windows."""
    if "authors" in view.made:
        made: Tensor = view.made["authors"]
        return made
    seen = may_see(view.stage.cells, view.memory.all)
    marks = view.stage.marks
    if plan.reach is not None and marks is not None:
        own = seen[:, :, -view.stage.tokens :]
        device = own.device
        row, column, tile, visual = (part.to(device) for part in (marks.row, marks.column, marks.tile, marks.visual))
        near = _differ(tile) == 0
        near &= (_differ(row).abs() <= plan.reach) & (_differ(column).abs() <= plan.reach)
        if plan.window_causal:
            near &= own
        if plan.cross_tile:
            near |= own & (_differ(tile) > 0)
        both = visual[:, :, None] & visual[:, None, :]
        seen = torch.cat([seen[:, :, : -view.stage.tokens], torch.where(both, near, own)], 2)
    view.made["authors"] = seen
    return seen


def _differ(values: Tensor) -> Tensor:
    return values[:, :, None] - values[:, None, :]
