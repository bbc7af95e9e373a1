"""Rays of a camera among photos of others: what the photos show along them, and what a network makes of it.

Places are in the frame of the camera that is drawn: x right, y down, z ahead, in units of the scene; depths are along
z. Symbols as in `ibrnet`: V source views, R rays, S samples along each, C features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from toolroll.splat.gaussians import Eye
from toolroll.splat.ibrnet import STRIDE, IBRNet, RayNet, composite

SHARE = 0.01  #: of the points are nearer than `near` / CLOSER, and as many beyond `far` / WIDER
CLOSER, WIDER = 0.9, 1.5
FEW = 8  #: points that tell nothing
OUTSET = 4.0  #: without points: how much nearer and farther than what cameras look at samples are
BLIND = 50.0  #: where they look past each other: how far `far` is, in distances between cameras
AT_ONCE = 1 << 17  #: samples of views that are looked at together
SEEN = 8  #: more samples than this of a ray must be seen by two views for its loss to count


@dataclass(frozen=True, slots=True)
class Sources:
    """Photos that pictures are drawn from: images float32 [3, H, W] in [0, 1]; masks bool [H, W], or None for all."""

    eyes: Sequence[Eye]
    images: Sequence[Tensor]
    masks: Sequence[Tensor | None]

    def __len__(self) -> int:
        return len(self.eyes)

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        masks = [None if mask is None else mask.to(device) for mask in self.masks]
        return replace(self, images=[image.to(device) for image in self.images], masks=masks)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How far rays are looked along, depths near to far, and at how many samples; `fine` more where something is."""

    near: float
    far: float
    coarse: int = 64
    fine: int = 64


# --- depths


def even_depths(sampling: Sampling, rays: int, random: torch.Generator | None = None) -> Tensor:
    """Depths [R, S] from near to far, even in 1 / depth; with `random` each anywhere up to half way to its neighbours.

    >>> [round(value, 4) for value in even_depths(Sampling(1.0, 4.0, 3), 1)[0].tolist()]
    [1.0, 1.6, 4.0]
    """
    steps = torch.linspace(1 / sampling.near, 1 / sampling.far, sampling.coarse).expand(rays, -1)
    if random is not None:
        half = (steps[:, 1:] + steps[:, :-1]) / 2
        first, last = torch.cat([steps[:, :1], half], 1), torch.cat([half, steps[:, -1:]], 1)
        steps = first + (last - first) * torch.rand(steps.shape, generator=random)
    return 1 / steps


def finer_depths(depths: Tensor, weights: Tensor, count: int, random: torch.Generator | None = None) -> Tensor:
    """Depths [R, S], and `count` more where the weights [R, S] of composition are, sorted: [R, S + count].

    Between the middles of neighbours, in 1 / depth, there is as much chance as the weight of the sample there says.
    """
    inverse = 1 / depths
    edges = (inverse[:, 1:] + inverse[:, :-1]) / 2
    chance = weights[:, 1:-1] + 1e-5
    total = torch.cat([torch.zeros_like(chance[:, :1]), chance.cumsum(1)], 1)
    total = total / total[:, -1:]
    if random is None:
        places = torch.linspace(0, 1, count).expand(len(depths), -1).to(depths)
    else:
        places = torch.rand(len(depths), count, generator=random).to(depths)
    above = torch.searchsorted(total, places.contiguous(), right=True).clamp(1, total.shape[1] - 1)
    low, high = total.gather(1, above - 1), total.gather(1, above)
    first, last = edges.gather(1, above - 1), edges.gather(1, above)
    found = first + (last - first) * (places - low) / (high - low).clamp(min=1e-12)
    return torch.cat([depths, 1 / found], 1).sort(1).values


def depth_range(eyes: Sequence[Eye], points: NDArray[np.float64]) -> tuple[float, float]:
    """How near and how far from cameras a scene is, by points [P, 3] of the world that are in their pictures.

    All but a hundredth at each end are within, and some room is left. Without points: a quarter of the distance to what
    the cameras look at, and four times it; where they look past each other, from the distance between cameras on.
    """
    seen = [_depths_seen(eye, points) for eye in eyes]
    depths = np.concatenate(seen) if seen else np.zeros(0)
    if len(depths) >= FEW:
        near, far = np.quantile(depths, [SHARE, 1 - SHARE])
        return float(CLOSER * near), float(WIDER * far)
    places = torch.stack([eye.place for eye in eyes])
    axes = torch.stack([eye.pose[2, :3] for eye in eyes])
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None]
    total = across.sum(0)
    extent = float(torch.linalg.vector_norm(places - places.mean(0), dim=1).max()) or 1.0
    if float(torch.linalg.eigvalsh(total)[0]) > 1e-3 * len(eyes):
        middle = torch.linalg.solve(total, (across @ places[..., None]).sum(0)[:, 0])
        away = ((middle - places) * axes).sum(1)
        if float(away.min()) > 0:
            return float(away.min()) / OUTSET, float(away.max()) * OUTSET
    return extent, BLIND * extent


def _depths_seen(eye: Eye, points: NDArray[np.float64]) -> NDArray[np.float64]:
    at = points @ eye.pose[:3, :3].numpy().T + eye.pose[:3, 3].numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = eye.fx * at[:, 0] / at[:, 2] + eye.cx, eye.fy * at[:, 1] / at[:, 2] + eye.cy
    found: NDArray[np.float64] = at[(at[:, 2] > 0) & (x > 0) & (x < eye.width) & (y > 0) & (y < eye.height), 2]
    return found


# --- sources


def by_nearness(eye: Eye, others: Sequence[Eye]) -> list[int]:
    """The numbers of cameras, those first whose photos show most nearly what `eye` sees.

    By distance, in those of the farthest camera from the middle of all, plus the angle between their axes in radians.
    """
    places = torch.stack([one.place for one in others])
    extent = float(torch.linalg.vector_norm(places - places.mean(0), dim=1).max()) or 1.0
    axes = torch.stack([one.pose[2, :3] for one in others])
    angles = (axes @ eye.pose[2, :3]).clamp(-1, 1).acos()
    apart = torch.linalg.vector_norm(places - eye.place, dim=1) / extent + angles
    order: list[int] = apart.argsort(stable=True).tolist()
    return order


def directions(eye: Eye, pixels: Tensor) -> Tensor:
    """Where rays through places [R, 2] in the picture are at depth 1, [R, 3]."""
    centre, focal = torch.tensor([eye.cx, eye.cy]).to(pixels), torch.tensor([eye.fx, eye.fy]).to(pixels)
    return torch.cat([(pixels - centre) / focal, torch.ones_like(pixels[:, :1])], 1)


def pixels_of(eye: Eye) -> Tensor:
    """The middles of all pixels, row by row, [H W, 2]."""
    y, x = torch.meshgrid(torch.arange(eye.height), torch.arange(eye.width), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2) + 0.5


def project(places: Tensor, eye: Eye, others: Sequence[Eye]) -> tuple[Tensor, Tensor]:
    """Where places [R, S, 3] are in photos of others, [V, R, S, 2], and whether they are, in front and inside.

    The latter is bool [V, R, S]. Inside is between the middles of the outermost pixels.
    """
    back = torch.linalg.inv(eye.pose)
    steps = torch.stack([other.pose @ back for other in others]).to(places)  # [V, 4, 4]
    at = places.flatten(0, 1) @ steps[:, :3, :3].transpose(1, 2) + steps[:, None, :3, 3]  # [V, R S, 3]
    lens = torch.tensor([[one.fx, one.fy, one.cx, one.cy] for one in others]).to(places)[:, None]
    last = torch.tensor([[one.width, one.height] for one in others]).to(places)[:, None] - 0.5
    depth = at[..., 2:]
    pixels = (at[..., :2] / depth.clamp(min=1e-8)).clamp(-1e6, 1e6) * lens[..., :2] + lens[..., 2:]
    inside = (depth[..., 0] > 0) & (pixels >= 0.5).all(-1) & (pixels <= last).all(-1)
    sizes = (len(others), *places.shape[:2])
    return pixels.unflatten(1, sizes[1:]), inside.unflatten(1, sizes[1:])


def turns_of(places: Tensor, eye: Eye, others: Sequence[Eye]) -> Tensor:
    """How differently views look at places [R, S, 3]: [V, R, S, 4].

    With d and e the unit vectors from a place to the camera and to that of the view: (d - e) / |d - e|, and d . e.
    """
    centres = torch.stack([eye.pose[:3, :3] @ other.place + eye.pose[:3, 3] for other in others]).to(places)
    own = -torch.nn.functional.normalize(places, dim=-1)
    theirs = torch.nn.functional.normalize(centres[:, None, None] - places, dim=-1)
    apart = torch.nn.functional.normalize(own - theirs, dim=-1, eps=1e-6)
    return torch.cat([apart, (own * theirs).sum(-1, keepdim=True)], -1)


def sampled(maps: Sequence[Tensor], pixels: Tensor, stride: int = 1) -> Tensor:
    """Maps [C, h, w], one for each view, between their places: [V, R, S, C] at pixels [V, R, S, 2] of the photos.

    The place (i, j) of a map is in the middle of the pixel (stride i, stride j); beyond the outermost it is as there.
    """
    grids = []
    for one, where in zip(maps, pixels, strict=True):
        last = torch.tensor([one.shape[2] - 1, one.shape[1] - 1]).to(where)
        grids.append((where - 0.5) / stride * 2 / last.clamp(min=1) - 1)
    if len({one.shape for one in maps}) == 1:
        found = _between(torch.stack(list(maps)), torch.stack(grids))
    else:
        found = torch.cat([_between(one[None], grid[None]) for one, grid in zip(maps, grids, strict=True)])
    return found.permute(0, 2, 3, 1)


def _between(maps: Tensor, grids: Tensor) -> Tensor:
    found: Tensor = grid_sample(maps, grids, mode="bilinear", padding_mode="border", align_corners=True)
    return found


def looked_up(places: Tensor, eye: Eye, sources: Sources, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What the views show at places [R, S, 3], as `RayNet` reads it: seen, turns, valid."""
    with torch.no_grad():
        pixels, valid = project(places, eye, sources.eyes)
        turns = turns_of(places, eye, sources.eyes)
        colours = sampled(sources.images, pixels)
        if any(mask is not None for mask in sources.masks):
            shown = [
                torch.ones_like(image[:1]) if mask is None else mask[None].to(image)
                for image, mask in zip(sources.images, sources.masks, strict=True)
            ]
            valid = valid & (sampled(shown, pixels)[..., 0] > 0.5)
    return torch.cat([colours, sampled(features, pixels, STRIDE)], -1), turns, valid


# --- pictures


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rays that one network drew: colours [R, 3], depths and weights of samples [R, S], and which rays count, [R]."""

    colours: Tensor
    depths: Tensor
    weights: Tensor
    counted: Tensor


def draw_rays(
    model: IBRNet,
    features: Sequence[Sequence[Tensor]],  # of the sources, see `IBRNet.features`
    sources: Sources,
    eye: Eye,
    pixels: Tensor,  # [R, 2]
    sampling: Sampling,
    random: torch.Generator | None = None,
) -> list[Drawn]:
    """Rays through pixels of a picture, by the coarse network, and by the fine one if there is one."""
    ahead = directions(eye, pixels.to(sources.images[0].device))
    depths = even_depths(sampling, len(pixels), random).to(ahead)
    found = [_drawn(model.coarse, features[0], sources, eye, ahead, depths)]
    if model.fine is not None and sampling.fine:
        depths = finer_depths(depths, found[0].weights.detach(), sampling.fine, random)
        found.append(_drawn(model.fine, features[1], sources, eye, ahead, depths))
    return found


def _drawn(net: RayNet, features: Sequence[Tensor], sources: Sources, eye: Eye, ahead: Tensor, depths: Tensor) -> Drawn:
    seen, turns, valid = looked_up(ahead[:, None] * depths[..., None], eye, sources, features)
    colours, weights = composite(*net(seen, turns, valid))
    enough = min(SEEN, depths.shape[1] // 4)
    return Drawn(colours, depths, weights, (valid.sum(0) > 1).sum(1) > enough)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The picture of a camera: image [H, W, 3] in [0, 1], black where nothing is; alpha [H, W], how much is covered.

    depth: [H, W], the expected depth along the axis, sum(w z) / sum(w), 0 where nothing is.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor


def rendered(model: IBRNet, sources: Sources, eye: Eye, sampling: Sampling, *, rays: int | None = None) -> Rendered:
    """The picture of a camera, drawn `rays` at a time, else as many as take some hundred megabytes."""
    rays = rays or max(1, AT_ONCE // (len(sources) * (sampling.coarse + sampling.fine)))
    parts = []
    with torch.no_grad():
        features = model.features(sources.images)
        for share in pixels_of(eye).split(rays):
            drawn = draw_rays(model, features, sources, eye, share, sampling)[-1]
            covered = drawn.weights.sum(1)
            depth = (drawn.weights * drawn.depths).sum(1) / covered.clamp(min=1e-10)
            parts.append((drawn.colours, covered, torch.where(covered > 0, depth, 0.0)))
    image, alpha, depth = (torch.cat(part).unflatten(0, (eye.height, eye.width)) for part in zip(*parts, strict=True))
    return Rendered(image.clamp(0, 1), alpha.clamp(0, 1), depth)


def render(model: IBRNet, sources: Sources, eye: Eye, sampling: Sampling, *, rays: int | None = None) -> Tensor:
    """The image of `rendered`."""
    return rendered(model, sources, eye, sampling, rays=rays).image
