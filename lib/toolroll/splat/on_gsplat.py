"""Gaussians drawn by gsplat's CUDA kernels. Not run on a GPU here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolroll.errors import UsageError
from toolroll.splat.gaussians import Eye, Gaussians, Manner
from toolroll.splat.rasterizer import Flat

TILE = 16


class GsplatRasterizer:
    """gsplat 1.5 or later, one camera at a time."""

    name = "gsplat"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        try:
            from gsplat import cuda
        except ImportError as error:
            raise UsageError("is not installed: pip install 'toolroll[gpu]'", place="gsplat") from error
        self._kernels: Any = cuda._wrapper

    def project(self, gaussians: Gaussians, eye: Eye, manner: Manner) -> Flat:
        """See `Rasterizer`."""
        g = gaussians
        sound = g.finite()
        whole = bool(sound.all())
        if not whole:  # a number that is none must not reach the kernels, nor its gradient the others
            g = Gaussians(*(torch.where(_wide(sound, part), part, 0.5) for part in _parts(gaussians)))
        pose = eye.pose.to(g.means)
        matrix = g.means.new_tensor([[eye.fx, 0, eye.cx], [0, eye.fy, eye.cy], [0, 0, 1]])
        radii, means, depths, conics, factors = self._kernels.fully_fused_projection(
            g.means, None, g.quats, g.scales.exp(), pose[None], matrix[None], eye.width, eye.height,
            eps2d=manner.blur, near_plane=manner.near, far_plane=manner.far, radius_clip=0.0, packed=False,
            sparse_grad=False, calc_compensations=manner.antialiased,
        )  # fmt: skip
        seen = (radii[0] > 0).reshape(len(g), -1).all(1) & sound
        opacities = g.logits.sigmoid()
        if factors is not None:
            opacities = opacities * factors[0]
        away = g.means - eye.place.to(g.means)
        degree = min(manner.degree, g.degree)
        colours = (self._kernels.spherical_harmonics(degree, away, g.sh) + 0.5).clamp(min=0)
        spans = radii[0] if radii[0].ndim == 2 else radii[0][:, None].expand(-1, 2)
        here = seen[:, None]
        return Flat(
            means[0], conics[0], torch.where(seen, opacities, 0.0), colours, depths[0].detach(),
            torch.where(here, spans, 0).int(),
        )  # fmt: skip

    def blend(self, flat: Flat, width: int, height: int, background: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rasterizer`."""
        across, down = -(-width // TILE), -(-height // TILE)
        _, pairs, ids = self._kernels.isect_tiles(
            flat.means[None], flat.radii[None], flat.depths[None], TILE, across, down, packed=False
        )
        starts = self._kernels.isect_offset_encode(pairs, 1, across, down)
        image, alpha = self._kernels.rasterize_to_pixels(
            flat.means[None], flat.conics[None], flat.colours[None], flat.opacities[None], width, height, TILE,
            starts, ids, backgrounds=background[None], packed=False,
        )  # fmt: skip
        return image[0], alpha[0, ..., 0]


def _parts(gaussians: Gaussians) -> tuple[Tensor, ...]:
    return gaussians.means, gaussians.quats, gaussians.scales, gaussians.logits, gaussians.sh


def _wide(sound: Tensor, part: Tensor) -> Tensor:
    return sound.view(-1, *([1] * (part.ndim - 1)))
