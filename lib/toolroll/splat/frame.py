"""The frame that a scene is trained in: moved and scaled, so that its cameras are around the origin, one unit away.

It is not turned: harmonics stay what they are, and Gaussians go back into the input's world by a shift and a factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolroll.splat.gaussians import Eye, Gaussians
from toolroll.splat.scene import Lens

ROOM = 1.1  #: the extent of a scene is so many times the greatest distance of a camera from their mean, as in gsplat


@dataclass(frozen=True, slots=True)
class Frame:
    """x' = scale (x - centre), lengths in the world of the input times `scale`. extent: of the scene, in x'."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    extent: float = ROOM

    def inward(self, places: NDArray[np.float64]) -> Tensor:
        """Places of the input's world [P, 3] in the frame, float32."""
        return torch.from_numpy(self.scale * (places - np.array(self.centre))).float()

    def eye(self, pose: NDArray[np.float64], lens: Lens) -> Eye:
        """A pinhole camera of the input's world in the frame."""
        moved = torch.from_numpy(pose).clone()
        moved[:3, 3] = self.scale * (moved[:3, :3] @ torch.tensor(self.centre, dtype=torch.float64) + moved[:3, 3])
        return Eye(moved, lens.fx, lens.fy, lens.cx, lens.cy, lens.width, lens.height)

    def inward_gaussians(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of the input's world in the frame."""
        means = self.inward(gaussians.means.double().cpu().numpy()).to(gaussians.means)
        return replace(gaussians, means=means, scales=gaussians.scales + math.log(self.scale))

    def outward(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of the frame in the input's world."""
        centre = torch.tensor(self.centre, dtype=torch.float64)
        means = (gaussians.means.double().cpu() / self.scale + centre).float()
        return replace(gaussians, means=means.to(gaussians.means), scales=gaussians.scales - math.log(self.scale))


def frame_of(poses: Sequence[NDArray[np.float64]]) -> Frame:
    """The frame of cameras: their mean becomes the origin, the farthest is one unit away."""
    places: Any = np.stack([-pose[:3, :3].T @ pose[:3, 3] for pose in poses])
    centre = places.mean(0)
    farthest = float(np.linalg.norm(places - centre, axis=1).max())
    return Frame(tuple(centre.tolist()), 1 / farthest if farthest > 0 else 1.0)
