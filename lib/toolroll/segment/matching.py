"""Which query takes which segment: the cheapest assignment, and what it costs to say a segment by a query."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from toolroll.errors import ToolrollError

CLASS, MASK, DICE = 2.0, 5.0, 5.0  #: weights of Mask2Former and FC-CLIP, in costs and in losses


def pairwise_costs(
    classes: Tensor,  # [N, Q, K+1] logits, void last
    masks: Tensor,  # [N, Q, P] logits at P points
    labels: Tensor,  # [N, M] class of each segment
    targets: Tensor,  # [N, M, P] in 0..1
    counted: Tensor | None = None,  # [N, P] in 0..1, weight of each point
    weights: tuple[float, float, float] = (CLASS, MASK, DICE),
) -> Tensor:
    """What each query would cost for each segment, [N, Q, M]: 2 (-p) + 5 BCE + 5 dice by default."""
    probabilities = classes.softmax(-1)
    index = labels.unsqueeze(1).expand(-1, classes.shape[1], -1)
    chance = probabilities.gather(2, index)
    weight = torch.ones_like(masks[:, 0]) if counted is None else counted
    number = weight.sum(-1).clamp(min=1)[:, None, None]
    weighted = targets * weight.unsqueeze(1)
    inverse = (1 - targets) * weight.unsqueeze(1)
    cross = -(logsigmoid(masks) @ weighted.transpose(1, 2) + logsigmoid(-masks) @ inverse.transpose(1, 2)) / number
    on = masks.sigmoid() * weight.unsqueeze(1)
    overlap = on @ weighted.transpose(1, 2)
    sums = on.sum(-1).unsqueeze(2) + weighted.sum(-1).unsqueeze(1)
    dice = 1 - (2 * overlap + 1) / (sums + 1)
    return -weights[0] * chance + weights[1] * cross + weights[2] * dice


def assign(costs: Tensor, segments: list[int]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest one-to-one assignment of each image: numbers of queries, and of the segments they take.

    `costs` [N, Q, M]; image n has the first `segments[n]` of the M segments. With fewer queries than segments some are
    left out, those that cost most. ToolrollError for costs that are not finite.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ToolrollError("matching needs scipy: pip install 'toolroll[segment]'") from error
    table = costs.detach().float().cpu().numpy()
    if not np.isfinite(table).all():
        raise ToolrollError("the model says numbers that are not finite: training has diverged (try a lower --lr)")
    made = []
    for one, number in zip(table, segments, strict=True):
        queries, taken = linear_sum_assignment(one[:, :number])
        made.append((torch.as_tensor(queries), torch.as_tensor(taken)))
    return made
