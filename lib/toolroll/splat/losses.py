"""What training minimises: (1 - w) mean |x - y| + w (1 - mean SSIM(x, y)), with SSIM of windows inside the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolroll.run.shares import in_shares
from toolroll.splat import ssim_kernels

LINES = 16  #: rows of a channel a thread takes at a time


def picture_loss(image: Tensor, truth: Tensor, weight: float) -> Tensor:
    """The loss, a scalar, of image and truth [H, W, 3]; `weight` of SSIM in [0, 1].

    On a CPU by `ssim_kernels`, elsewhere by torch. A picture of less than 11 x 11 has no SSIM: only |x - y|.
    """
    far = (image - truth).abs().mean()
    if weight == 0 or min(image.shape[:2]) < ssim_kernels.SIZE:
        return far
    alike = _Likeness.apply(image, truth) if image.device.type == "cpu" else ssim(image, truth)
    return (1 - weight) * far + weight * (1 - alike)


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Mean SSIM of [H, W, 3] by plain torch, on any device and in any dtype."""
    x, y = (picture.permute(2, 0, 1)[None] for picture in (image, truth))
    taps = torch.from_numpy(ssim_kernels.TAPS).to(x)

    def blurred(planes: Tensor) -> Tensor:
        down = torch.nn.functional.conv2d(planes, taps.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
        return torch.nn.functional.conv2d(down, taps.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)

    m, n = blurred(x), blurred(y)
    s, t, u = blurred(x * x) - m * m, blurred(y * y) - n * n, blurred(x * y) - m * n
    c1, c2 = float(ssim_kernels.C1), float(ssim_kernels.C2)
    made = (2 * m * n + c1) * (2 * u + c2) / ((m * m + n * n + c1) * (s + t + c2))
    return made.mean()


class _Likeness(torch.autograd.Function):  # type: ignore[misc]
    """Mean SSIM [] of an image, which has a gradient, and a truth, which has none."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor) -> Tensor:
        x, y = (picture.detach().float().permute(2, 0, 1).contiguous().numpy() for picture in (image, truth))
        channels, height, width = x.shape
        inside = (channels, height - ssim_kernels.EDGE, width - ssim_kernels.EDGE)
        sums = np.empty(channels * inside[1], np.float64)
        parts = [np.empty(inside, np.float32) for _ in range(3)]
        in_shares(ssim_kernels.compare, len(sums), LINES, torch.get_num_threads(), x, y, sums, *parts)
        ctx.about = x, y, parts
        return image.new_tensor(sums.sum() / (inside[0] * inside[1] * inside[2]))

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor | None, ...]:
        x, y, parts = ctx.about
        scale = np.float32(float(by[0]) / parts[0].size)
        made = np.empty_like(x)
        rows = x.shape[0] * x.shape[1]
        in_shares(ssim_kernels.spread, rows, LINES, torch.get_num_threads(), x, y, *parts, scale, made)
        return torch.from_numpy(made).permute(1, 2, 0), None
