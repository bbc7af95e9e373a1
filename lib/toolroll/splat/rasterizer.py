"""What draws Gaussians: one interface, by numba on a CPU, by gsplat on CUDA, and by plain torch, slowly, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from toolroll.errors import UsageError
from toolroll.models.device import choose_device
from toolroll.splat.gaussians import Eye, Gaussians, Manner

BackEnd = Literal["auto", "gsplat", "numba", "torch"]
BACK_ENDS: tuple[BackEnd, ...] = ("auto", "gsplat", "numba", "torch")


@dataclass(frozen=True, slots=True)
class Flat:
    """Gaussians in the plane of a picture. Rows of Gaussians that are not seen have opacity 0 and radii 0.

    means: [N, 2] pixels. conics: [N, 3], a, b, c of sigma = .5 (a dx^2 + c dy^2) + b dx dy. opacities: [N]. colours:
    [N, 3], 0 or more. depths: [N], along the axis. radii: int [N, 2], 3.33 standard deviations in x and y, in pixels.
    """

    means: Tensor
    conics: Tensor
    opacities: Tensor
    colours: Tensor
    depths: Tensor
    radii: Tensor


@dataclass(frozen=True, slots=True)
class Picture:
    """What was drawn: image [H, W, 3], how much of the background is covered, alpha [H, W], and the Gaussians in it."""

    image: Tensor
    alpha: Tensor
    flat: Flat


class Rasterizer(Protocol):
    """Draws Gaussians; everything is differentiable in what it is given, but for depths and radii."""

    name: str
    device: torch.device

    def project(self, gaussians: Gaussians, eye: Eye, manner: Manner) -> Flat:
        """Gaussians in the picture of a camera."""
        ...

    def blend(self, flat: Flat, width: int, height: int, background: Tensor) -> tuple[Tensor, Tensor]:
        """Image [H, W, 3] and alpha [H, W] over a background [3]."""
        ...


def draw(rasterizer: Rasterizer, gaussians: Gaussians, eye: Eye, manner: Manner, background: Tensor) -> Picture:
    """The picture of a camera."""
    flat = rasterizer.project(gaussians, eye, manner)
    return Picture(*rasterizer.blend(flat, eye.width, eye.height, background), flat)


def depth_of(rasterizer: Rasterizer, flat: Flat, width: int, height: int) -> Tensor:
    """The expected depth [H, W]: sum(w z) / sum(w), 0 where nothing is."""
    from dataclasses import replace

    deep = replace(flat, colours=flat.depths[:, None].expand(-1, 3).contiguous())
    image, alpha = rasterizer.blend(deep, width, height, torch.zeros(3, device=flat.means.device))
    return torch.where(alpha > 0, image[..., 0] / alpha.clamp(min=1e-10), 0.0)


def open_rasterizer(back_end: BackEnd = "auto", device: str = "auto") -> Rasterizer:
    """The back end of a name. `auto` is gsplat where torch sees a CUDA device, else numba.

    Whether gsplat can be imported, or nvcc is there, does not matter: without a GPU it would try to compile, and fail.
    UsageError for gsplat without CUDA or without its package.
    """
    if back_end == "numba" and device.startswith("cuda"):
        raise UsageError("draws on a CPU", place="numba")
    anywhere = device == "auto" and back_end in ("numba", "torch")
    chosen = choose_device("cpu" if anywhere else device, "float32")
    if back_end == "auto":
        back_end = "gsplat" if chosen.is_cuda else "numba"
    if back_end == "gsplat":
        from toolroll.splat.on_gsplat import GsplatRasterizer

        if not chosen.is_cuda:
            none = "" if torch.cuda.is_available() else ", and torch sees none"
            raise UsageError(f"needs a CUDA device{none}", place="gsplat")
        return GsplatRasterizer(torch.device(chosen.name))
    if back_end == "numba":
        from toolroll.splat.on_numba import NumbaRasterizer

        return NumbaRasterizer()
    from toolroll.splat.on_torch import TorchRasterizer

    return TorchRasterizer(torch.device(chosen.name))
