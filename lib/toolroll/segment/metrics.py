"""How good masks are: IoU of classes and its three means, and how many segments the proposals hold.

The same masks have three mean IoUs. `gt`: over classes that the ground truth has. `union`: the same sum divided by the
number of classes that the ground truth or the predictions have, so that a class predicted falsely costs (OVSeg's
evaluator). `all`: divided by the number of all classes asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolroll.segment.masks import Mask

Rule = Literal["gt", "union", "all"]
Labels = NDArray[np.integer]
IGNORE = -1  #: the label of pixels that do not count


def confusion(truth: Labels, predicted: Labels, classes: int, ignore: int = IGNORE) -> NDArray[np.int64]:
    """Pixels by true class and predicted class, [K + 1, K + 1]; the last of both is "none of them".

    Labels are 0 to K-1; any other is none of the classes, but in the ground truth `ignore`, which does not count.
    """
    counted = truth != ignore
    true, said = (
        np.where((labels >= 0) & (labels < classes), labels, classes)[counted].astype(np.int64)
        for labels in (truth, predicted)
    )
    return np.bincount(true * (classes + 1) + said, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def class_ious(table: NDArray[np.int64]) -> tuple[list[float | None], list[bool], list[bool]]:
    """The IoU of each class, null where neither has it; whether the ground truth has it, whether predictions have.

    >>> truth, predicted = np.array([0, 0, 0, 1, 1, 255]), np.array([0, 0, 1, 1, 0, 1])
    >>> [round(iou, 4) for iou in class_ious(confusion(truth, predicted, 2, ignore=255))[0]]
    [0.5, 0.3333]
    """
    both = np.diag(table)[:-1]
    true, said = table[:-1].sum(1), table[:, :-1].sum(0)
    union = true + said - both
    ious = [float(b / u) if u else None for b, u in zip(both, union, strict=True)]
    return ious, (true > 0).tolist(), (said > 0).tolist()


def mean_iou(table: NDArray[np.int64], rule: Rule) -> float | None:
    """The mean IoU by a rule; null where it is of nothing."""
    ious, true, said = class_ious(table)
    total = sum(iou or 0.0 for iou, there in zip(ious, true, strict=True) if there)
    number = {
        "gt": sum(true),
        "union": sum(t or s for t, s in zip(true, said, strict=True)),
        "all": len(ious),
    }[rule]
    return total / number if number else None


def iou(one: Mask, other: Mask, counted: Mask | None = None) -> float:
    """Intersection over union of two masks [H, W], of the pixels that are `counted`; 0 where both are empty."""
    both, either = one & other, one | other
    if counted is not None:
        both, either = both & counted, either & counted
    union = int(either.sum())
    return int(both.sum()) / union if union else 0.0


def iou_table(truth: Sequence[Mask], proposals: Sequence[Mask], counted: Mask | None = None) -> NDArray[np.float64]:
    """IoU of each true segment with each proposal, [N, M]."""
    if not truth or not proposals:
        return np.zeros((len(truth), len(proposals)))
    flat_truth = np.stack([mask.ravel() for mask in truth]).astype(np.float32)
    flat = np.stack([mask.ravel() for mask in proposals]).astype(np.float32)
    if counted is not None:
        flat_truth, flat = flat_truth * counted.ravel(), flat * counted.ravel()
    both = (flat_truth @ flat.T).astype(np.float64)
    union = flat_truth.sum(1, dtype=np.float64)[:, None] + flat.sum(1, dtype=np.float64)[None] - both
    table: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return table


def best_ious(truth: Sequence[Mask], proposals: Sequence[Mask], counted: Mask | None = None) -> list[float]:
    """For each true segment the IoU of the proposal that fits it best, whatever its class; 0 without proposals."""
    table = iou_table(truth, proposals, counted)
    return [float(row.max(initial=0.0)) for row in table]
