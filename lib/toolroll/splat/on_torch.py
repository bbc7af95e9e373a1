"""Gaussians drawn by plain torch: a line for a formula, any dtype, gradients by autograd; slow. Tests' oracle."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from toolroll.splat.gaussians import Eye, Gaussians, Manner
from toolroll.splat.rasterizer import Flat

MOST, LEAST, DONE, SPREAD = 0.999, 1 / 255, 1e-4, 3.33
TILE = 16


class TorchRasterizer:
    """The definition of what the fast ones compute."""

    name = "torch"

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")

    def project(self, gaussians: Gaussians, eye: Eye, manner: Manner) -> Flat:
        """See `Rasterizer`."""
        g, like = gaussians, gaussians.means
        pose = eye.pose.to(like)
        turn = pose[:3, :3]
        at = g.means @ turn.T + pose[:3, 3]
        depth = at[:, 2]
        seen = (depth > manner.near) & (depth < manner.far) & g.finite() & (g.quats.norm(dim=1) > 0)
        safe = torch.where(seen, depth, 1.0)
        x, y = at[:, 0] / safe, at[:, 1] / safe
        spread = turn @ covariances(g.quats, g.scales) @ turn.T
        slope = jacobians(x, y, safe, eye)
        sharp = slope @ spread @ slope.transpose(1, 2)
        wide = sharp + manner.blur * torch.eye(2).to(like)
        det = wide.det()
        opacity = g.logits.sigmoid()
        if manner.antialiased:
            opacity = opacity * (sharp.det() / det).clamp(min=0).sqrt()
        seen = seen & (det > 0) & (opacity >= LEAST)
        conic = torch.stack([wide[:, 1, 1], -wide[:, 0, 1], wide[:, 0, 0]], 1) / det[:, None]
        colour = (harmonics(g.means - eye.place.to(like), g.sh, manner.degree) + 0.5).clamp(min=0)
        radii = (SPREAD * torch.stack([wide[:, 0, 0], wide[:, 1, 1]], 1).clamp(min=0).sqrt()).ceil()
        places = torch.stack([eye.fx * x + eye.cx, eye.fy * y + eye.cy], 1)
        here = seen[:, None]
        return Flat(
            torch.where(here, places, 0.0),
            torch.where(here, conic, 0.0),
            torch.where(seen, opacity, 0.0),
            torch.where(here, colour, 0.0),
            torch.where(seen, depth, 0.0).detach(),
            torch.where(here, radii, 0.0).int(),
        )

    def blend(self, flat: Flat, width: int, height: int, background: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rasterizer`. By tiles, whose only use is to leave out what is too faint there to count."""
        order = flat.depths.argsort(stable=True)
        order = order[flat.opacities[order] > 0]
        means, conics, opacities, colours = (
            part[order] for part in (flat.means, flat.conics, flat.opacities, flat.colours)
        )
        with torch.no_grad():
            reach = _reach(conics, opacities)
        rows = []
        for top in range(0, height, TILE):
            row = []
            for left in range(0, width, TILE):
                size = min(TILE, height - top), min(TILE, width - left)
                low = means.new_tensor([left, top])
                high = low + means.new_tensor([size[1], size[0]])
                here = ((means + reach >= low) & (means - reach <= high)).all(1)
                row.append(_tile(means[here], conics[here], opacities[here], colours[here], low, size, background))
            rows.append(torch.cat(row, 1))
        made = torch.cat(rows)
        return made[..., :3], made[..., 3]


def _reach(conics: Tensor, opacities: Tensor) -> Tensor:
    """Half the width and height [N, 2] of the box around where alpha is 1/255, and a pixel more."""
    a, b, c = conics.unbind(1)
    twice = 2 * (255 * opacities).log().clamp(min=0)
    return (torch.stack([c, a], 1) * (twice / (a * c - b * b))[:, None]).clamp(min=0).sqrt() + 1


def _tile(
    means: Tensor, conics: Tensor, opacities: Tensor, colours: Tensor, low: Tensor, size: tuple[int, int],
    background: Tensor,
) -> Tensor:  # fmt: skip
    """Colour and alpha [h, w, 4] of the pixels from `low` on, of Gaussians from front to back."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(means) + low + 0.5
    dx, dy = (pixels[:, None] - means).unbind(-1)
    sigma = 0.5 * (conics[:, 0] * dx**2 + conics[:, 2] * dy**2) + conics[:, 1] * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp(max=MOST)
    alpha = torch.where((sigma >= 0) & (alpha >= LEAST), alpha, 0.0)
    after = (1 - alpha).cumprod(1)
    alpha = torch.where(after > DONE, alpha, 0.0)  # it falls all along: what is behind is left out, too
    before = torch.cat([alpha.new_ones(len(pixels), 1), (1 - alpha).cumprod(1)], 1)
    image = (before[:, :-1] * alpha) @ colours + before[:, -1:] * background
    return torch.cat([image, 1 - before[:, -1:]], 1).view(*size, 4)


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions w x y z [N, 4] of any length but 0."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, 1).view(-1, 3, 3)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """R S S R^T [N, 3, 3] of quaternions and logarithms of scales."""
    root = rotations(quats) * scales.exp()[:, None]
    return root @ root.transpose(1, 2)


def jacobians(x: Tensor, y: Tensor, depth: Tensor, eye: Eye) -> Tensor:
    """The derivative [N, 2, 3] of the perspective, at x/z and y/z no further out than .3 fields of view more."""
    wide, high = 0.15 * eye.width / eye.fx, 0.15 * eye.height / eye.fy
    x = x.clamp(-(eye.cx / eye.fx + wide), (eye.width - eye.cx) / eye.fx + wide)
    y = y.clamp(-(eye.cy / eye.fy + high), (eye.height - eye.cy) / eye.fy + high)
    none = torch.zeros_like(x)
    rows = [eye.fx / depth, none, -eye.fx * x / depth, none, eye.fy / depth, -eye.fy * y / depth]
    return torch.stack(rows, 1).view(-1, 2, 3)


def harmonics(directions: Tensor, sh: Tensor, degree: int) -> Tensor:
    """The colour [N, 3] of coefficients [N, K, 3] in directions [N, 3] of any length, up to a degree of 0 to 3."""
    degree = min(degree, math.isqrt(sh.shape[1]) - 1)
    x, y, z = torch.nn.functional.normalize(directions, dim=1).unbind(1)
    bases: list[Any] = [torch.full_like(x, 0.2820947917738781)]
    if degree > 0:
        bases += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree > 1:
        bases += [
            *(1.092548430592079 * x * y, -1.092548430592079 * y * z, 0.9461746957575601 * z * z - 0.3153915652525201),
            *(-1.092548430592079 * x * z, 0.5462742152960395 * (x * x - y * y)),
        ]
    if degree > 2:
        bases += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            0.4570457994644658 * y * (1 - 5 * z * z),
            z * (1.865881662950577 * z * z - 1.119528997770346),
            0.4570457994644658 * x * (1 - 5 * z * z),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return (torch.stack(bases, 1)[:, :, None] * sh[:, : len(bases)]).sum(1)
