"""Gaussians drawn on a CPU: the kernels of `project` and `tiles` under torch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolroll.run.shares import in_shares
from toolroll.splat import project, tiles
from toolroll.splat.gaussians import Eye, Gaussians, Manner
from toolroll.splat.rasterizer import Flat

SHARE = 2048  #: Gaussians a thread takes at a time
TILES = 16  #: and tiles
ROW = 10  #: numbers of a Gaussian in the plane, see `tiles`
GRADIENT = 9  #: numbers of its gradient


class NumbaRasterizer:
    """The CPU's rasterizer. The same bits for any number of threads, which is torch's."""

    name = "numba"
    device = torch.device("cpu")

    def project(self, gaussians: Gaussians, eye: Eye, manner: Manner) -> Flat:
        """See `Rasterizer`."""
        g = gaussians
        made = _Project.apply(g.means, g.quats, g.scales, g.logits, g.sh, _view(eye, manner), manner)
        return Flat(*made)

    def blend(self, flat: Flat, width: int, height: int, background: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rasterizer`."""
        order = flat.depths
        made: tuple[Tensor, Tensor] = _Blend.apply(
            flat.means, flat.conics, flat.opacities, flat.colours, background, order, width, height
        )
        return made


def _view(eye: Eye, manner: Manner) -> Any:
    """The camera as `project` wants it."""
    wide, high = 0.15 * eye.width / eye.fx, 0.15 * eye.height / eye.fy  # .3 of the tangent of half the field of view
    limits = (
        *(-(eye.cx / eye.fx + wide), (eye.width - eye.cx) / eye.fx + wide),
        *(-(eye.cy / eye.fy + high), (eye.height - eye.cy) / eye.fy + high),
    )
    numbers = (
        *eye.pose[:3, :3].flatten().tolist(),
        *eye.pose[:3, 3].tolist(),
        *eye.place.tolist(),
        *(eye.fx, eye.fy, eye.cx, eye.cy, eye.width, eye.height, manner.near, manner.far, manner.blur),
        *limits,
    )
    return np.array(numbers, np.float32)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().contiguous().numpy()


def _fill(flat: Any, means: Tensor, conics: Tensor, opacities: Tensor, colours: Tensor) -> None:
    """Put what belongs to Gaussians in the plane, or its gradients, where `tiles` has it."""
    flat[:, :2], flat[:, 2:5], flat[:, 5], flat[:, 6:9] = map(_array, (means, conics, opacities, colours))


def _threads() -> int:
    return int(torch.get_num_threads())


class _Project(torch.autograd.Function):  # type: ignore[misc]
    """`project.project` and `project.unproject`."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, ...]:
        *tensors, view, manner = given
        parts = [_array(tensor) for tensor in tensors]
        count = len(parts[0])
        flat, depths = np.empty((count, ROW), np.float32), np.empty(count, np.float32)
        radii = np.empty((count, 2), np.int32)
        degree = min(manner.degree, int(np.sqrt(parts[4].shape[1])) - 1)

        rest = (view, *parts, degree, manner.antialiased, flat, depths, radii)
        in_shares(project.project, count, SHARE, _threads(), *rest)
        ctx.save_for_backward(*tensors)
        ctx.about = view, degree, manner.antialiased, flat
        made = torch.from_numpy(flat)
        outer = (torch.from_numpy(depths), torch.from_numpy(radii))
        ctx.mark_non_differentiable(*outer)
        return made[:, :2].clone(), made[:, 2:5].clone(), made[:, 5].clone(), made[:, 6:9].clone(), *outer

    @staticmethod
    def backward(ctx: Any, *by: Any) -> tuple[Tensor | None, ...]:
        view, degree, antialiased, flat = ctx.about
        parts = [_array(tensor) for tensor in ctx.saved_tensors]
        count = len(flat)
        gradients = np.empty((count, GRADIENT), np.float32)
        _fill(gradients, *by[:4])
        made = [np.empty_like(part) for part in parts[:4]]
        made.append(np.zeros_like(parts[4]))
        rest = (view, *parts, degree, antialiased, flat, gradients, *made)
        in_shares(project.unproject, count, SHARE, _threads(), *rest)
        return *map(torch.from_numpy, made), None, None


class _Blend(torch.autograd.Function):  # type: ignore[misc]
    """`tiles.draw` and `tiles.trace`."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        means, conics, opacities, colours, background, depths, width, height = given
        flat = np.zeros((len(means), ROW), np.float32)
        _fill(flat, means, conics, opacities, colours)
        seen = flat[:, 5] > 0
        flat[seen, 9] = 2 * np.log(255 * flat[seen, 5])
        across, down = -(-width // tiles.SIDE), -(-height // tiles.SIDE)
        spans = np.empty((len(flat), 4), np.int32)
        pairs = tiles.reaches(flat, width, height, spans)
        lists = (np.empty(across * down + 1, np.int64), np.empty(pairs, np.int32))
        places = (np.empty(len(flat) + 1, np.int64), np.empty(pairs, np.int64))
        order = tiles.nearest_first(_array(depths))
        tiles.listed(order, spans, across, *lists, *places)
        ground = _array(background)
        image, left = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
        in_shares(tiles.draw, across * down, TILES, _threads(), across, *lists, flat, ground, image, left)
        ctx.about = across, across * down, lists, places, flat, image, left
        return torch.from_numpy(image), torch.from_numpy(1 - left)

    @staticmethod
    def backward(ctx: Any, *by: Any) -> tuple[Tensor | None, ...]:
        across, count, lists, places, flat, image, left = ctx.about
        by_image, by_alpha = map(_array, by)
        pairs = np.empty((len(lists[1]), GRADIENT), np.float32)
        made = np.empty((len(flat), GRADIENT), np.float32)
        rest = (across, *lists, flat, image, left, by_image, by_alpha, pairs)
        in_shares(tiles.trace, count, TILES, _threads(), *rest)
        in_shares(tiles.gathered, len(flat), SHARE, _threads(), *places, pairs, made)
        grads = torch.from_numpy(made)
        ground = torch.from_numpy(by_image * left[..., None]).sum((0, 1)) if ctx.needs_input_grad[4] else None
        return grads[:, :2], grads[:, 2:5], grads[:, 5], grads[:, 6:9], ground, None, None, None
