"""How IBRNet is trained: each step draws some rays of one photo from others of its scene.

The photo and the scene are drawn evenly; the others come from the nearest, once, twice or three times as many as are
looked at, so that the network meets wide and narrow spacings. What is minimised is the mean squared error of colours,
of the coarse network and of the fine one together, over rays that two views see for long enough. Adam has two rates,
for the trunk and for the ray networks, halved now and then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolroll.errors import ToolrollError
from toolroll.run.seeds import record_seed
from toolroll.splat.gaussians import Eye, View
from toolroll.splat.ibrnet import IBRNet
from toolroll.splat.ibrnet_rays import Drawn, Sources, draw_rays, pixels_of
from toolroll.splat.ibrnet_scenes import IbrScene
from toolroll.train.resumable import check_alike

WIDEST = 3  #: times as many as `views` are what sources are drawn from, at most


@dataclass(frozen=True, slots=True)
class IbrRecipe:
    """The settings of a training. Rates are halved after each `halve_every` steps.

    width: of the trunk. fine: samples of the fine network, 0 has none. None is as in `start`, else 64, as published.
    side: of photos in pixels, the longer, at most; 0 leaves them. start: a folder whose network is begun with, or
    empty. eval_photos: test photos of a scene that are scored, 0: all.
    """

    steps: int = 250_000
    width: int | None = None
    views: int = 10
    samples: int = 64
    fine: int | None = None
    rays: int = 500
    side: int = 0
    lr_features: float = 1e-3
    lr_rays: float = 5e-4
    halve_every: int = 50_000
    start: str = ""
    eval_photos: int = 0


@dataclass(frozen=True, slots=True)
class IbrTold:
    """What a step did. scene: its number; rays: how many counted."""

    step: int
    loss: float
    scene: int
    rays: int


class IbrFit:
    """A network under training on scenes."""

    def __init__(
        self, model: IBRNet, scenes: Sequence[IbrScene], recipe: IbrRecipe, *, seed: int, device: str = "cpu"
    ) -> None:
        self.model, self.scenes, self.recipe, self.seed, self.step = model.to(device), scenes, recipe, seed, 0
        self.device = torch.device(device)
        self.parts = dict(self.model.named_parameters())
        groups: dict[str, list[Tensor]] = {"trunk": [], "rays": []}
        for name, part in self.parts.items():
            groups["trunk" if name.startswith("trunk.") else "rays"].append(part)
        self.adam = torch.optim.Adam([{"params": parts, "name": name} for name, parts in groups.items()], fused=True)

    def rates(self, step: int) -> dict[str, float]:
        """The rates of a step, from 1, of the trunk and of the ray networks."""
        recipe = self.recipe
        share = 0.5 ** ((step - 1) // recipe.halve_every)
        return {"trunk": recipe.lr_features * share, "rays": recipe.lr_rays * share}

    def steps(self) -> Iterator[IbrTold]:
        """Train to the end; what each step did."""
        while self.step < self.recipe.steps:
            yield self._step(self.step + 1)

    def _step(self, step: int) -> IbrTold:
        recipe = self.recipe
        random = torch.Generator().manual_seed(record_seed(self.seed, "update", step) % 2**63)
        number = _drawn(len(self.scenes), random)
        scene = self.scenes[number]
        target = _drawn(len(scene.train), random)
        look = scene.train[target]
        near = scene.nearest(look.eye, recipe.views * (1 + _drawn(WIDEST, random)), target)
        chosen = [near[place] for place in torch.randperm(len(near), generator=random)[: recipe.views].tolist()]
        sources = scene.sources(chosen).to(self.device)
        pixels, truth = _rays(look, recipe.rays, random)
        told, counted = self._learn(scene, look.eye, sources, pixels, truth, random)
        if not math.isfinite(told):
            raise ToolrollError(f"the loss of step {step} is {told}: try lower rates", place=str(scene.root))
        rates = self.rates(step)
        for group in self.adam.param_groups:
            group["lr"] = rates[group["name"]]
        self.adam.step()
        self.adam.zero_grad()
        self.step = step
        return IbrTold(step, told, number, counted)

    def _learn(
        self, scene: IbrScene, eye: Eye, sources: Sources, pixels: Tensor, truth: Tensor, random: torch.Generator
    ) -> tuple[float, int]:
        """Find the gradients of a step; its loss, and how many rays counted. All are 0 where a mask leaves nothing."""
        if not len(pixels):
            for part in self.parts.values():
                part.grad = torch.zeros_like(part)
            return 0.0, 0
        sampling = scene.sampling(self.recipe.samples, self.recipe.fine or 0)
        features = self.model.features(sources.images)
        drawn = draw_rays(self.model, features, sources, eye, pixels, sampling, random)
        loss = ray_loss(drawn, truth.to(self.device))
        loss.backward()
        return float(loss.detach()), int(drawn[-1].counted.sum())

    # --- stops

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            known = self.adam.state.get(part) or {
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }
            found |= {name: part.detach(), f"{name}.first": known["exp_avg"], f"{name}.second": known["exp_avg_sq"]}
        return found

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on behind a step. ToolrollError for tensors of another network."""
        check_alike(tensors, self.tensors())
        self.step = step
        for name, part in self.parts.items():
            part.detach().copy_(tensors[name])
            self.adam.state[part] = {
                "step": torch.tensor(float(step), device=self.device),
                "exp_avg": tensors[f"{name}.first"].to(self.device).clone(),
                "exp_avg_sq": tensors[f"{name}.second"].to(self.device).clone(),
            }


def ray_loss(drawn: Sequence[Drawn], truth: Tensor) -> Tensor:
    """The sum over networks of the mean squared error over rays that count, of colours [R, 3]; 0 where none does."""
    total = torch.zeros((), device=truth.device)
    for one in drawn:
        squares = ((one.colours - truth) ** 2).mean(1) * one.counted
        total = total + squares.sum() / one.counted.sum().clamp(min=1)
    return total


def _drawn(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=random))


def _rays(look: View, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Middles of pixels [R, 2] that count, drawn evenly, and their colours [R, 3]; no rays where none does."""
    colours = look.image.flatten(0, 1)
    if look.mask is None:
        which = torch.randint(len(colours), (count,), generator=random)
    else:
        counted = look.mask.flatten().nonzero()[:, 0]
        which = counted[torch.randint(len(counted), (count,), generator=random)] if len(counted) else counted
    return pixels_of(look.eye)[which], colours[which]
