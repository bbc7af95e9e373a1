"""Which visual tokens go on into later layers: none behind a cut; of a drop, those that the text looks at.

FastV ranks tokens once, by the attention that the prompt's last token pays them in the layer before; PyramidDrop does
the same at several layers. Both keep a share of each image's tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolroll.pruning.attention import View
from toolroll.pruning.plan import Drop, Plan
from toolroll.pruning.tokens import Stage, later_stage


def fastv(layer: int, dropped: float) -> Plan:
    """FastV's plan: behind `layer` layers go on 1 - `dropped` of the visual tokens (its K and R)."""
    return Plan(drops=(Drop(layer, 1 - dropped),))


def pyramid(layers: int, shares: tuple[float, ...] = (0.5, 0.25, 0.125)) -> Plan:
    """PyramidDrop's plan: at a quarter, a half and three quarters of the layers these shares of all tokens are left."""
    parts = len(shares) + 1
    return Plan(drops=tuple(Drop(layers * (i + 1) // parts, share) for i, share in enumerate(shares)))


def chosen(stage: Stage, plan: Plan, layer: int, scores: Tensor | None) -> Stage:
    """The stage that begins at `layer`; `scores` [B, T] say how much each token of the one before is looked at."""
    marks = stage.marks
    assert marks is not None
    if plan.cut is not None and layer >= plan.cut:
        return later_stage(stage, ~marks.visual)
    drop = next(one for one in plan.drops if one.layer == layer)
    assert scores is not None
    keep = ~marks.visual
    for b, grids in enumerate(marks.grids):
        for tile, (rows, columns) in enumerate(grids):
            here = (marks.visual[b] & (marks.tile[b] == tile)).nonzero().flatten()
            count = min(len(here), round(drop.keep * rows * columns))
            if count:
                best = scores[b, here].topk(count).indices
                keep[b, here[best]] = True
    return later_stage(stage, keep)


def looked_at(view: View, query: Tensor, key: Tensor, scaling: float | None, group: int) -> Tensor:
    """[B, T]: the attention of each prompt's last token to each token of the pass, mean over heads; on the CPU."""
    cells = view.stage.cells
    last = cells.count - 1 - cells.valid.flip(1).int().argmax(1)
    queries = query[torch.arange(len(last), device=query.device), :, last]
    keys = key.repeat_interleave(group, dim=1)
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = (keys @ queries.unsqueeze(-1)).squeeze(-1).float() * factor
    place = cells.place.gather(1, last[:, None])
    hidden = ~(view.memory.all.valid & (view.memory.all.place <= place))
    weights = logits.masked_fill(hidden[:, None], -torch.inf).softmax(-1).mean(1)
    return weights[:, -cells.count :].detach().cpu()
