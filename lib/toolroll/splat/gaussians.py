"""What a scene of 3D Gaussians is, and a camera that looks at it, as tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

SH0 = 0.28209479177387814  #: the harmonic of degree 0; rgb = .5 + SH0 f_dc


@dataclass(frozen=True, slots=True)
class Gaussians:
    """N Gaussians, as they are trained: logarithms of scales, logits of opacities, coefficients of harmonics.

    means: [N, 3] in the units of the scene. quats: [N, 4], w x y z, of any length but 0. scales: [N, 3], natural
    logarithms. logits: [N]. sh: [N, K, 3], K = 1, 4, 9 or 16 for degree 0 to 3.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    logits: Tensor
    sh: Tensor

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """The highest degree of the harmonics."""
        return math.isqrt(self.sh.shape[1]) - 1

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def finite(self) -> Tensor:
        """Whether all numbers of a Gaussian are finite, bool [N]."""
        parts = (self.means, self.quats, self.scales, self.logits[:, None], self.sh.flatten(1))
        return torch.stack([part.isfinite().all(1) for part in parts]).all(0)

    def chosen(self, rows: Tensor) -> Self:
        """Those of some rows: indices or bool [N]."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Eye:
    """A pinhole camera. It looks along +z, x right, y down; pixel (i, j) has its middle at (i + .5, j + .5).

    pose: [4, 4] float64, world to camera. fx, fy, cx, cy in pixels of a picture of width x height.
    """

    pose: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def place(self) -> Tensor:
        """Where it is in the world, float64 [3]."""
        return -self.pose[:3, :3].T @ self.pose[:3, 3]


@dataclass(frozen=True, slots=True)
class View:
    """A photo as training sees it: image [H, W, 3] in [0, 1], mask bool [H, W] of what counts, or None."""

    name: str
    eye: Eye
    image: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How Gaussians are drawn. Depths in units of the scene; `blur` is added to variances, in pixels squared."""

    degree: int = 3
    near: float = 0.01
    far: float = 1e10
    blur: float = 0.3
    antialiased: bool = False
