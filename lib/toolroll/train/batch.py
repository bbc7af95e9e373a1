"""Sequences to train on, and how they are laid side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Padded:
    """B sequences of at most L tokens side by side, with responses of at most T tokens.

    `ids` [B, L] are padded on the right, which a causal model needs no mask for. `targets` [B, T] are the responses,
    `mask` [B, T] is 1 for the tokens the model wrote. `before` [N] are the flat positions in B * L that predict the N
    tokens of the mask, in the order of the mask. Where the prompts have images, `features` are these as the model takes
    them, and `seen` [B, L] is 0 on padding.
    """

    ids: Tensor
    targets: Tensor
    mask: Tensor
    before: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    seen: Tensor | None = None

    def spread(self, values: Tensor) -> Tensor:
        """Values of the N tokens of the mask as [B, T], 0 elsewhere."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask.bool(), values)


def pad(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    masks: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> Padded:
    """Lay sequences side by side. Prompts have at least one token; masks are as long as their responses.

    >>> pad([[7], [7, 8]], [[1, 2, 3], [4, 5]], [[1, 0, 1], [1, 1]]).before.tolist()
    [0, 2, 5, 6]
    """
    sequences = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    longest = max(map(len, sequences))
    before = [
        row * longest + len(prompt) + place - 1
        for row, (prompt, mask) in enumerate(zip(prompts, masks, strict=True))
        for place, own in enumerate(mask)
        if own
    ]
    return Padded(
        rectangle(sequences, torch.long).to(device),
        rectangle(responses, torch.long).to(device),
        rectangle(masks, torch.float32).to(device),
        torch.tensor(before, dtype=torch.long, device=device),
    )


def rectangle(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    """Rows of different lengths as [B, T], with zeros on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=dtype)


def fill(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Indices in groups, longest first, so that a group's number times its longest is at most `most_tokens`.

    A sequence longer than that has a group of its own.

    >>> fill([3, 9, 4, 4], 12)
    [[1], [2, 3, 0]]
    """
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if room < lengths[index]:
            groups.append([])
            width = lengths[index]
            room = max(most_tokens, width)
        groups[-1].append(index)
        room -= width
        if room < width:
            room = 0
    return groups


def deal(lengths: Sequence[int], world: int) -> list[list[int]]:
    """Indices dealt out to `world` processes, longest first, so that each gets about as many tokens.

    >>> deal([3, 9, 4, 4], 2)
    [[1, 0], [2, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    hands: list[list[int]] = [[] for _ in range(world)]
    for place, index in enumerate(order):
        turn, seat = divmod(place, world)
        hands[seat if turn % 2 == 0 else world - 1 - seat].append(index)
    return hands
