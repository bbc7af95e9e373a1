"""What a small model sees of an image: four stages of convolutions, and a feature pyramid over them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu


class Step(nn.Module):  # type: ignore[misc]
    """A 3x3 convolution, group norm, and ReLU."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(8, outer)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inner, H, W] to [B, outer, H / stride, W / stride]."""
        made: Tensor = relu(self.norm(self.conv(maps)))
        return made


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Step(width, width), Step(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        made: Tensor = maps + self.second(self.first(maps))
        return made


class Pyramid(nn.Module):  # type: ignore[misc]
    """An image [B, 3, H, W], sides multiples of 32, as maps of `width` channels at strides 4, 8, 16 and 32.

    Where a pixel lies is given beside its colours, as x and y in -1..1: of streets it says much.
    """

    def __init__(self, stages: Sequence[int], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(Step(5, stages[0], 2), Step(stages[0], stages[0], 2), Residual(stages[0]))
        self.stages = nn.ModuleList(
            nn.Sequential(Step(inner, outer, 2), Residual(outer)) for inner, outer in pairwise(stages)
        )
        self.sides = nn.ModuleList(nn.Conv2d(stage, width, 1) for stage in stages)
        self.merges = nn.ModuleList(Step(width, width) for _ in stages)
        self.mask_features = nn.Conv2d(width, width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features for masks [B, D, H/4, W/4], and the maps at strides 32, 16 and 8."""
        height, width = images.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=images.device).view(1, 1, -1, 1).expand(len(images), 1, -1, width)
        columns = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, -1)
        columns = columns.expand(len(images), 1, height, -1)
        maps = [self.stem(torch.cat([images, columns, rows], dim=1))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        merged: list[Tensor] = []
        for own, side, merge in zip(reversed(maps), reversed(self.sides), reversed(self.merges), strict=True):
            made = side(own)
            if merged:
                made = made + interpolate(merged[-1], size=own.shape[-2:], mode="nearest")
            merged.append(merge(made))
        return self.mask_features(merged[-1]), merged[:-1]
