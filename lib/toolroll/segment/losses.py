"""What is minimised: the class of every query, and the mask of every query that takes a segment.

Symbols: p the sigmoid of a mask's logit, t the target, both over the pixels or points of a mask. Sources: Mask2Former
(2 CE + 5 BCE + 5 dice, weight 0.1 for "none of them"), MaskFormer and OVSeg (sigmoid focal loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, grid_sample

from toolroll.segment.decoder import Outputs
from toolroll.segment.matching import CLASS, DICE, MASK, assign, pairwise_costs

VOID_WEIGHT = 0.1
OVERSAMPLE, IMPORTANCE = 3, 0.75


def dice_loss(logits: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) over the last dimension.

    >>> round(float(dice_loss(torch.tensor([1.098612, -1.098612]), torch.tensor([1.0, 0.0]))), 6)
    0.166667
    """
    on = logits.sigmoid()
    if counted is not None:
        on, targets = on * counted, targets * counted
    return 1 - (2 * (on * targets).sum(-1) + 1) / (on.sum(-1) + targets.sum(-1) + 1)


def bce_loss(logits: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """The mean of -t ln p - (1 - t) ln(1 - p) over the last dimension.

    >>> round(float(bce_loss(torch.tensor([1.098612, -1.098612]), torch.tensor([1.0, 0.0]))), 6)
    0.287682
    """
    each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean(each, counted)


def focal_loss(logits: Tensor, targets: Tensor, counted: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """The mean of BCE (1 - q)^gamma over the last dimension, q the probability of what is true; alpha 0.25."""
    each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    on = logits.sigmoid()
    right = on * targets + (1 - on) * (1 - targets)
    alpha = 0.25 * targets + 0.75 * (1 - targets)
    return _mean(alpha * each * (1 - right) ** gamma, counted)


def _mean(each: Tensor, counted: Tensor | None) -> Tensor:
    if counted is None:
        return each.mean(-1)
    return (each * counted).sum(-1) / counted.sum(-1).clamp(min=1)


@dataclass(frozen=True, slots=True)
class Targets:
    """The segments of a batch, M a picture with padding: `labels` [B, M], `masks` [B, M, H, W] in 0..1, `numbers`.

    `counted` [B, H, W] is 0 where a pixel has no known label.
    """

    labels: Tensor
    masks: Tensor
    numbers: list[int]
    counted: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """The parts of the loss. `points`: masks with more pixels are compared at this many points."""

    classes: float = CLASS
    mask: float = MASK
    dice: float = DICE
    void: float = VOID_WEIGHT
    points: int = 12544
    focal: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """The batch that losses are a mean of, of which a process may have a part: its `pictures` and its `segments` that
    have a query.
    """

    pictures: int
    segments: int


def loss_of(
    outputs: Outputs, targets: Targets, weights: Weights, generator: torch.Generator, whole: Whole | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The loss over all layers, and its parts of the last layer.

    Every layer is matched by itself. Queries without a segment are to say "none of them". A picture without segments
    has only that. Losses of the parts of a `whole` add up to that of the whole.
    """
    layers, batch, queries = outputs.classes.shape[:3]
    void = outputs.classes.shape[-1] - 1
    classes = outputs.classes.flatten(0, 1)
    masks = outputs.masks.flatten(0, 1)
    labels = targets.labels.repeat(layers, 1)
    numbers = targets.numbers * layers
    points, counted, wanted = _compared(masks, targets, layers, weights, generator)
    with torch.no_grad():
        costs = pairwise_costs(classes, points, labels, wanted, counted, (weights.classes, weights.mask, weights.dice))
    pairs = assign(costs, numbers)
    truth = torch.full((len(pairs), queries), void, device=classes.device)
    rows, taken, segments = [], [], []
    for number, (query, segment) in enumerate(pairs):
        truth[number, query.to(truth.device)] = labels[number, segment.to(labels.device)]
        rows += [number] * len(query)
        taken += query.tolist()
        segments += segment.tolist()
    by_class = torch.ones(void + 1, device=classes.device)
    by_class[void] = weights.void
    said = cross_entropy(classes.flatten(0, 1).float(), truth.flatten(), by_class, reduction="none")
    whole = whole or Whole(batch, sum(min(number, queries) for number in targets.numbers))
    said = said.view(layers, -1).sum(1)
    said = said / (whole.segments + weights.void * (whole.pictures * queries - whole.segments))
    number = max(1, whole.segments)
    if not rows:
        total = weights.classes * said.sum() + 0.0 * masks.sum()
        return total, {"class_loss": float(said[-1].detach()), "mask_loss": 0.0, "dice_loss": 0.0}
    chosen, goal = masks[rows, taken], targets.masks.repeat(layers, 1, 1, 1)[rows, segments]
    valid = targets.counted.repeat(layers, 1, 1)[rows]
    chosen, goal, valid = _sampled(chosen, goal, valid, weights, generator)
    layer = torch.as_tensor(rows, device=masks.device) // batch
    compare = focal_loss if weights.focal else bce_loss
    cross = compare(chosen, goal, valid)
    dice = dice_loss(chosen, goal, valid)
    total = weights.classes * said.sum() + (weights.mask * cross.sum() + weights.dice * dice.sum()) / number
    last = layer == layers - 1
    parts = {
        "class_loss": float(said[-1].detach()),
        "mask_loss": float(cross[last].detach().sum() / number),
        "dice_loss": float(dice[last].detach().sum() / number),
    }
    return total, parts


def _compared(
    masks: Tensor, targets: Targets, layers: int, weights: Weights, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, Q, P], weights [N, P], targets [N, M, P] at all pixels, or at points shared by a picture's masks."""
    height, width = masks.shape[-2:]
    if height * width <= weights.points:
        return (
            masks.flatten(2),
            targets.counted.flatten(1).repeat(layers, 1),
            targets.masks.flatten(2).repeat(layers, 1, 1),
        )
    with torch.no_grad():
        places = torch.rand(len(targets.masks), weights.points, 2, generator=generator).to(masks.device)
        counted = at_points(targets.counted.unsqueeze(1), places).squeeze(1)
        wanted = at_points(targets.masks, places)
        logits = at_points(masks.detach(), places.repeat(layers, 1, 1))
    return logits, counted.repeat(layers, 1), wanted.repeat(layers, 1, 1)


def _sampled(
    logits: Tensor, targets: Tensor, counted: Tensor, weights: Weights, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same masks [N, H, W] as vectors [N, P]: all pixels, or points, most of them where logits are near 0."""
    if logits.shape[-2] * logits.shape[-1] <= weights.points:
        return logits.flatten(1), targets.flatten(1), counted.flatten(1)
    with torch.no_grad():
        many = torch.rand(len(logits), OVERSAMPLE * weights.points, 2, generator=generator).to(logits.device)
        unsure = -at_points(logits.detach().unsqueeze(1), many).squeeze(1).abs()
        number = int(IMPORTANCE * weights.points)
        best = unsure.topk(number, dim=1).indices
        chosen = many.gather(1, best.unsqueeze(-1).expand(-1, -1, 2))
        rest = torch.rand(len(logits), weights.points - number, 2, generator=generator).to(logits.device)
        places = torch.cat([chosen, rest], dim=1)
        goal = at_points(targets.unsqueeze(1), places).squeeze(1)
        valid = at_points(counted.unsqueeze(1), places).squeeze(1)
    return at_points(logits.unsqueeze(1), places).squeeze(1), goal, valid


def at_points(maps: Tensor, places: Tensor) -> Tensor:
    """Maps [N, C, H, W] at points [N, P, 2], x and y in 0..1, bilinear: [N, C, P]."""
    return grid_sample(maps, (2 * places - 1).unsqueeze(2), align_corners=False, padding_mode="border").squeeze(3)
