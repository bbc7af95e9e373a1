"""What a model says of an image, read as segments.

Symbols: Q queries, K classes, h x w the masks' own size, H x W the image's. A class's score of a pixel is the sum over
queries of the query's probability of the class times that of its mask; the largest wins (`semantic`). Queries can also
be taken one by one (`instance`), or laid over each other without overlap (`panoptic`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from toolroll.segment.masks import Mask, box_of, encode

Mode = Literal["semantic", "instance", "panoptic"]
KEPT = 0.8  #: a segment of `panoptic` has to keep this share of its mask
TOGETHER = 2**24  #: pixels of masks that are enlarged at a time


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of one image: `classes` [Q, K+1] probabilities, "none of them" last; `masks` [Q, h, w] logits; the
    image's `height` and `width`. `seen` are the classes before stage 2, where that took part.
    """

    classes: Tensor
    masks: Tensor
    height: int
    width: int
    seen: Tensor | None = None
    guessed: Tensor | None = None

    def enlarged(self, queries: Sequence[int]) -> Tensor:
        """Probabilities [n, H, W] of the masks of some queries."""
        masks = self.masks[list(queries)].unsqueeze(0)
        return interpolate(masks, size=(self.height, self.width), mode="bilinear", align_corners=False)[0].sigmoid()

    def mask(self, query: int) -> Mask:
        """Where the mask of a query is above one half, [H, W]."""
        found: Mask = (self.enlarged([query])[0] > 0.5).cpu().numpy()
        return found


def ensemble(own: Tensor, other: Tensor, weight: float | Tensor) -> Tensor:
    """The geometric ensemble own^(1-w) other^w of probabilities [..., K].

    >>> [round(float(p), 4) for p in ensemble(torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8]), 0.4)]
    [0.3866, 0.5278]
    """
    return own ** (1 - weight) * other**weight


def semantic_scores(classes: Tensor, masks: Tensor) -> Tensor:
    """Each class's score at each pixel, [K, h, w], of probabilities [Q, K+1] and mask probabilities [Q, h, w]."""
    return torch.einsum("qk,qhw->khw", classes[:, :-1], masks)


def label_map(said: Said, background: float = 0.0) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The class of each pixel [H, W], -1 where no class scores above `background`, and the best score.

    A few classes at a time.
    """
    scores = semantic_scores(said.classes, said.masks.sigmoid())
    size = (said.height, said.width)
    best = torch.full(size, float(background), device=scores.device)
    labels = torch.full(size, -1, dtype=torch.long, device=scores.device)
    step = max(1, TOGETHER // (said.height * said.width))
    for start in range(0, len(scores), step):
        part = interpolate(scores[start : start + step].unsqueeze(0), size=size, mode="bilinear", align_corners=False)
        value, place = part[0].max(0)
        better = value > best
        best = torch.where(better, value, best)
        labels = torch.where(better, place + start, labels)
    return labels.cpu().numpy(), best.cpu().numpy()


@dataclass(frozen=True, slots=True)
class Found:
    """A segment: its class's number, how sure the model is, its mask [H, W], and the query it is of, if of one."""

    number: int
    score: float
    mask: Mask
    query: int | None = None


def segments_of(said: Said, mode: Mode, threshold: float, topk: int, background: float = 0.0) -> list[Found]:
    """The segments of an image, the best first, at most `topk` of them (0: all), none with a score below `threshold`.

    `background`: see `label_map`.
    """
    if mode == "semantic":
        made = _semantic(said, background)
    else:
        made = (_instances if mode == "instance" else _panoptic)(said, threshold)
    made = sorted((one for one in made if one.score >= threshold), key=lambda one: (-one.score, one.number))
    return made[:topk] if topk else made


def _semantic(said: Said, background: float) -> list[Found]:
    """One segment for each class that wins somewhere; its score is the mean of the winning scores."""
    labels, best = label_map(said, background)
    made = []
    for number in np.unique(labels[labels >= 0]).tolist():
        mask: Mask = labels == number
        made.append(Found(number, min(1.0, float(best[mask].mean())), mask))
    return made


def _instances(said: Said, threshold: float) -> list[Found]:
    """One segment for each query: its best class, scored by that and by how sure its mask is of itself."""
    chances, numbers = said.classes[:, :-1].max(-1)
    made = []
    for query in torch.nonzero(chances >= threshold).flatten().tolist():
        probabilities = said.enlarged([query])[0]
        inside = probabilities > 0.5
        if not bool(inside.any()):
            continue
        sure = float(probabilities[inside].mean())
        mask: Mask = inside.cpu().numpy()
        made.append(Found(int(numbers[query]), float(chances[query]) * sure, mask, query))
    return made


def _panoptic(said: Said, threshold: float) -> list[Found]:
    """Queries laid over each other, each pixel to the most probable; one that loses too much of itself is left out."""
    chances, numbers = said.classes[:, :-1].max(-1)
    kept = torch.nonzero((chances >= threshold) & (chances > said.classes[:, -1])).flatten().tolist()
    best = torch.full((said.height, said.width), 0.0, device=said.masks.device)
    owners = torch.full((said.height, said.width), -1, dtype=torch.long, device=said.masks.device)
    for query in kept:
        value = said.enlarged([query])[0] * chances[query]
        better = value > best
        best, owners = torch.where(better, value, best), torch.where(better, query, owners)
    made = []
    for query in kept:
        probabilities = said.enlarged([query])[0] > 0.5
        own = (owners == query) & probabilities
        if int(own.sum()) and int(own.sum()) >= KEPT * int(probabilities.sum()):
            mask: Mask = own.cpu().numpy()
            made.append(Found(int(numbers[query]), float(chances[query]), mask, query))
    return made


def selected(said: Said) -> list[int]:
    """For each class the query that has the highest probability of it."""
    found: list[int] = said.classes[:, :-1].argmax(0).tolist()
    return found


def record_of(one: Found, names: Sequence[str], said: Said) -> dict[str, Any]:
    """A segment as it stands in a row."""
    made: dict[str, Any] = {
        "prompt": names[one.number],
        "score": one.score,
        "rle": encode(one.mask),
        "area": int(one.mask.sum()),
        "box": box_of(one.mask),
    }
    if said.seen is not None and said.guessed is not None and one.query is not None:
        made["score_decoder"] = float(said.seen[one.query, one.number])
        made["score_clip"] = float(said.guessed[one.query, one.number])
    return made
