"""A network that draws a scene it was not trained on, from photos of it: IBRNet (Wang et al. 2021, arXiv:2102.13090).

A sample along a ray is seen by source views. What each shows there, a colour and features, says whether there is
something (views agree) and which colour it has: a blend of the colours of the sources.

Sizes are those of the released network. Three things differ: attention does not look at samples that fewer than two
views see, where the released code lets such samples look at all evenly; directions are told in the frame of the camera
that is drawn, so that it does not matter how the world is turned; and features are where their pixels are to the last
digit, where the released code stretches them by up to a place.

Symbols: V source views, R rays, S samples along each, C features of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn.functional import elu, interpolate, linear, pad, relu

STRIDE = 4  #: pixels of a photo from one place of its features to the next
SMALLEST = 17  #: pixels of the shorter side of a photo at least
DEEP = 16  #: width of what goes along the ray
HEADS = 4
TINY = 1e-8
FAINT = 0.1
Channels = Annotated[int, Meta(ge=1, le=1024)]
Blocks = Annotated[int, Meta(ge=1, le=64)]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is made of.

    width: channels of the trunk's first stage, twice and four times as many in the others; ResNet-34 has 64. blocks: of
    the stages. features: for each ray network. fine: whether there is a second one, for samples where something is.
    """

    width: Channels = 64
    blocks: tuple[Blocks, Blocks, Blocks] = (3, 4, 6)
    features: Channels = 32
    fine: bool = True


class Block(nn.Module):  # type: ignore[misc]
    """The block of ResNet-34, with instance norm."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm_first = _conv(inside, outside, 3, stride), _norm(outside)
        self.second, self.norm_second = _conv(outside, outside, 3), _norm(outside)
        same = stride == 1 and inside == outside
        self.skip = None if same else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), _norm(outside))

    def forward(self, maps: Tensor) -> Tensor:
        """[V, inside, h, w] to [V, outside, h / stride, w / stride]."""
        made = self.norm_second(self.second(relu(self.norm_first(self.first(maps)))))
        return relu(made + (maps if self.skip is None else self.skip(maps)))


class Trunk(nn.Module):  # type: ignore[misc]
    """Photos to features: three stages of a ResNet at 1/4, 1/8 and 1/16 of the size, and a way up to 1/4."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        a, b, c = shape.width, 2 * shape.width, 4 * shape.width
        outside = shape.features * (2 if shape.fine else 1)
        self.stem, self.norm = _conv(3, a, 7, 2), _norm(a)
        inside = (a, a, b)
        self.stages = nn.ModuleList(
            nn.Sequential(Block(first, size, 2), *(Block(size, size, 1) for _ in range(count - 1)))
            for first, size, count in zip(inside, (a, b, c), shape.blocks, strict=True)
        )
        self.up = nn.ModuleList([_Smooth(c, b), _Smooth(b, a)])
        self.join = nn.ModuleList([_Smooth(2 * b, b), _Smooth(2 * a, outside)])
        self.out = nn.Conv2d(outside, outside, 1)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos [V, 3, H, W] in [0, 1] to features [V, C or 2 C, H / 4, W / 4], rounded up."""
        maps = relu(self.norm(self.stem(photos)))
        levels = []
        for stage in self.stages:
            maps = stage(maps)
            levels.append(maps)
        for up, join, level in zip(self.up, self.join, (levels[1], levels[0]), strict=True):
            maps = join(torch.cat([level, up(_doubled(maps, level.shape[-2:]))], 1))
        made: Tensor = self.out(maps)
        return made


class _Smooth(nn.Module):  # type: ignore[misc]
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv, self.norm = _conv(inside, outside, 3, bias=True), _norm(outside)

    def forward(self, maps: Tensor) -> Tensor:
        return elu(self.norm(self.conv(maps)))


def _doubled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps of `size`, whose place 2 i is place i of the given ones, as strides have it; what is beyond is the last."""
    height, width = maps.shape[-2:]
    made = interpolate(maps, (2 * height - 1, 2 * width - 1), mode="bilinear", align_corners=True)
    return pad(made, (0, size[1] - made.shape[-1], 0, size[0] - made.shape[-2]), mode="replicate")


def _conv(inside: int, outside: int, size: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, stride, size // 2, bias=bias, padding_mode="reflect")


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


# --- along rays


def closeness(dots: Tensor, valid: Tensor, sharpness: Tensor) -> Tensor:
    """The weights [V, R, S] of views by how nearly they look along the ray: w / sum(w) over the views, with

        w = valid (exp(|s| (dot - 1)) - the least of it over all views)

    dots: of the directions of a view and of the ray, [V, R, S] in [-1, 1]. valid: 1 or 0. sharpness: s. 0 where nothing
    is left.

    >>> dots, valid = torch.tensor([[[1.0]], [[0.0]], [[-1.0]], [[0.9]]]), torch.tensor([[[1]], [[1]], [[1]], [[0]]])
    >>> [round(value, 4) for value in closeness(dots, valid, torch.tensor(0.6931472)).flatten().tolist()]
    [0.75, 0.25, 0.0, 0.0]
    """
    near = (sharpness.abs() * (dots - 1)).exp()
    left = (near - near.amin(0, keepdim=True)) * valid
    return left / (left.sum(0, keepdim=True) + TINY)


def pooled(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over views, [R, S, C] each: m = sum(w x), sum(w (x - m)^2). values [V, R, S, C]."""
    each = weights[..., None]
    mean = (values * each).sum(0)
    return mean, ((values - mean) ** 2 * each).sum(0)


def positions(count: int, width: int = DEEP) -> Tensor:
    """The code of samples 0 to count - 1, [count, width]: sin and cos in turn of n / 10000^(2 i / width).

    >>> [round(value, 4) for value in positions(2, 4)[1].tolist()]
    [0.8415, 0.5403, 0.01, 0.9999]
    """
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()


class Along(nn.Module):  # type: ignore[misc]
    """Attention of the samples of a ray to each other: LN(x + W attended(x)), without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(DEEP, DEEP, bias=False) for _ in range(4))
        self.norm = nn.LayerNorm(DEEP, eps=1e-6)

    def forward(self, samples: Tensor, known: Tensor) -> Tensor:
        """Samples [R, S, 16]; known: bool [R, S], which of them are looked at (all, where none are)."""
        q, k, v = (
            part(samples).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~known[:, None, None], -1e9).softmax(-1)
        made: Tensor = self.norm(samples + self.out((weights @ v).transpose(1, 2).flatten(2)))
        return made


class RayNet(nn.Module):  # type: ignore[misc]
    """What the views show at the samples of rays, to colours and densities."""

    def __init__(self, features: int) -> None:
        super().__init__()
        seen = features + 3
        self.sharpness = nn.Parameter(torch.tensor(0.2))
        self.direction = _mlp(4, 16, seen, last=nn.ELU())
        self.view = _mlp(3 * seen, 64, 32, last=nn.ELU())
        self.doubt = _mlp(32, 32, 33, last=nn.ELU())
        self.sight = _mlp(32, 32, 1, last=nn.Sigmoid())
        self.solid = _mlp(65, 64, DEEP, last=nn.ELU())
        self.along = Along()
        self.density = _mlp(DEEP, DEEP, 1, last=nn.ReLU())
        self.colour = _mlp(37, 16, 8, 1)
        for part in (self.view, self.doubt, self.sight, self.solid, self.colour):
            for layer in part[::2]:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        with torch.no_grad():  # thin fog to begin with: one draw in forty would have no density, and learn nothing
            self.density[2].weight.mul_(FAINT)
            self.density[2].bias.fill_(FAINT)

    def forward(
        self,
        seen: Tensor,  # [V, R, S, 3 + C], the colour, in [0, 1], and the features of each view
        turns: Tensor,  # [V, R, S, 4], see `ibrnet_rays.turns_of`
        valid: Tensor,  # bool [V, R, S], whether a view sees the sample
    ) -> tuple[Tensor, Tensor]:  # [R, S, 3] and [R, S]
        """Colours in [0, 1] and densities, 0 or more; 0 where no view sees the sample."""
        counted = valid.to(seen.dtype)
        told = seen + self.direction(turns)
        weights = closeness(turns[..., 3], counted, self.sharpness)
        state = self._mixed(told, torch.cat(pooled(told, weights), -1))
        more, sight = self.doubt(state * weights[..., None]).split([32, 1], -1)
        state = state + more
        sight = self.sight(state * (sight.sigmoid() * counted[..., None])) * counted[..., None]
        weights = (sight / (sight.sum(0, keepdim=True) + TINY))[..., 0]
        solid = self.solid(torch.cat([*pooled(state, weights), weights.mean(0)[..., None]], -1))
        views = valid.sum(0)
        solid = self.along(solid + positions(solid.shape[1]).to(solid), views > 1)
        density = self.density(solid)[..., 0].masked_fill(views < 1, 0.0)
        scores = self.colour(torch.cat([state, sight, turns], -1)).masked_fill(~valid[..., None], -1e9)
        return (seen[..., :3] * scores.softmax(0)).sum(0), density

    def _mixed(self, told: Tensor, shared: Tensor) -> Tensor:
        """The MLP of each view's features behind those that all share; the latter are multiplied only once."""
        first, _, *rest = self.view
        split = shared.shape[-1]
        made = linear(told, first.weight[:, split:]) + linear(shared, first.weight[:, :split], first.bias)
        made = elu(made)
        for layer in rest:
            made = layer(made)
        return made


def _mlp(*sizes: int, last: nn.Module | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inside, outside in pairwise(sizes):
        layers += [nn.Linear(inside, outside), nn.ELU()]
    return nn.Sequential(*layers[:-1], *([] if last is None else [last]))


def composite(colours: Tensor, densities: Tensor) -> tuple[Tensor, Tensor]:
    """The colours of rays [R, 3] over black, and the weights of their samples [R, S], from near to far.

    alpha = 1 - exp(-density), whatever the distance between samples, as scenes have different scales; w = alpha times
    what (1 - alpha) of the samples before leave.

    >>> colours = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> ray, weights = composite(colours, torch.full((1, 2), 0.6931472))
    >>> [round(value, 4) for value in (*ray[0].tolist(), *weights[0].tolist())]
    [0.5, 0.25, 0.0, 0.5, 0.25]
    """
    alpha = 1 - (-densities).exp()
    left = (1 - alpha + 1e-10).cumprod(-1)
    weights = alpha * torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], -1)
    return (weights[..., None] * colours).sum(1), weights


class IBRNet(nn.Module):  # type: ignore[misc]
    """The trunk, and a ray network for samples all along the rays, and maybe one for those where something is."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.trunk = Trunk(shape)
        self.coarse = RayNet(shape.features)
        self.fine = RayNet(shape.features) if shape.fine else None

    def features(self, photos: Sequence[Tensor]) -> list[list[Tensor]]:
        """Features [C, H / 4, W / 4] of photos [3, H, W], one list for each ray network."""
        alike = len({photo.shape for photo in photos}) == 1
        made = self.trunk(torch.stack(list(photos))) if alike else [self.trunk(photo[None])[0] for photo in photos]
        parts = [one.split(self.shape.features) for one in made]
        return [[part[number] for part in parts] for number in range(len(parts[0]))]
