"""How a scene of Gaussians is trained: one picture a step, Adam, density control; stops and goes on to the bit.

Defaults are those of gsplat's trainer, whose schedules are for 30,000 steps and shrink with the number of steps here.
The loss is .8 |x - y| + .2 (1 - SSIM). Randomness is seeded anew in every step, so that a checkpoint needs none of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from toolroll.errors import ToolrollError, UsageError
from toolroll.run.seeds import record_seed
from toolroll.splat.gaussians import Gaussians, Manner, View
from toolroll.splat.growth import Growth, open_grower
from toolroll.splat.losses import picture_loss
from toolroll.splat.rasterizer import Rasterizer, draw
from toolroll.train.resumable import check_alike

PARTS = ("means", "quats", "scales", "logits", "sh0", "shn")
EPSILON = 1e-15  #: of Adam


class Views(Protocol):
    """Photos to train on, which need not all be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> View: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training. Rates of means are for an extent of 1, the last `decay` times the first."""

    steps: int = 30_000
    degree: int = 3
    degree_every: int = 1000
    means: float = 1.6e-4
    decay: float = 0.01
    scales: float = 5e-3
    logits: float = 5e-2
    quats: float = 1e-3
    sh0: float = 2.5e-3
    shn: float = 1.25e-4
    ssim: float = 0.2
    opacity_reg: float = 0.0
    scale_reg: float = 0.0
    exposure: float = 0.0  #: rate of a gain and an offset of each colour of each photo; 0 trains none
    antialiased: bool = False
    background: tuple[float, float, float] | None = (0.0, 0.0, 0.0)  #: None draws one for each step
    growth: Growth = field(default_factory=Growth)


@dataclass(frozen=True, slots=True)
class Told:
    """What a step did."""

    step: int
    loss: float
    gaussians: int
    degree: int


class Fit:
    """Gaussians under training on photos."""

    def __init__(
        self, start: Gaussians, extent: float, views: Views, recipe: Recipe, rasterizer: Rasterizer, seed: int
    ) -> None:
        self.recipe, self.views, self.rasterizer, self.seed, self.step = recipe, views, rasterizer, seed, 0
        self.extent = extent
        bases = (recipe.degree + 1) ** 2
        sh = torch.zeros(len(start), bases, 3)
        sh[:, : min(bases, start.sh.shape[1])] = start.sh[:, :bases]
        made = {"means": start.means, "quats": start.quats, "scales": start.scales, "logits": start.logits}
        made |= {"sh0": sh[:, :1], "shn": sh[:, 1:]}
        made["light"] = torch.tensor([[1.0] * 3, [0.0] * 3]).repeat(len(views), 1, 1)
        self.parts = {name: self._leaf(tensor) for name, tensor in made.items()}
        groups = [{"params": [part], "name": name} for name, part in self.parts.items()]
        self.adam = torch.optim.Adam(groups, lr=0.0, eps=EPSILON, fused=True)
        for part in self.parts.values():
            self._remember(part, torch.zeros_like(part), torch.zeros_like(part))
        self.grower = open_grower(recipe.growth, extent, len(start))

    def _leaf(self, tensor: Tensor) -> Tensor:
        return tensor.detach().float().clone().to(self.rasterizer.device).contiguous().requires_grad_()

    def _remember(self, part: Tensor, first: Tensor, second: Tensor) -> None:
        """What Adam knows of a part."""
        step = torch.tensor(float(self.step), device=part.device)
        self.adam.state[part] = {"step": step, "exp_avg": first, "exp_avg_sq": second}

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        state = self.adam.state[self.parts[name]]
        return state["exp_avg"], state["exp_avg_sq"]

    def _replace(self, name: str, value: Tensor, first: Tensor, second: Tensor) -> None:
        """Another tensor, of another length maybe, in the place of a part."""
        del self.adam.state[self.parts[name]]
        self.parts[name] = self._leaf(value)
        next(group for group in self.adam.param_groups if group["name"] == name)["params"] = [self.parts[name]]
        self._remember(self.parts[name], first.to(self.rasterizer.device), second.to(self.rasterizer.device))

    # --- what density control sees

    def values(self) -> dict[str, Tensor]:
        """See `growth.Store`."""
        return {name: self.parts[name].detach() for name in PARTS}

    def rebuild(self, kept: Tensor, added: dict[str, Tensor]) -> None:
        """See `growth.Store`."""
        for name, part in self.values().items():
            new = added[name].to(part)
            none = torch.zeros_like(new)
            first, second = (torch.cat([moment[kept], none]) for moment in self._moments(name))
            self._replace(name, torch.cat([part[kept], new]), first, second)

    def overwrite(self, rows: Tensor, values: dict[str, Tensor]) -> None:
        """See `growth.Store`."""
        for name, value in values.items():
            self.parts[name].detach()[rows] = value
            for moment in self._moments(name):
                moment[rows] = 0

    # --- steps

    @property
    def gaussians(self) -> Gaussians:
        """The Gaussians as they are."""
        now = self.values()
        sh = torch.cat([now["sh0"], now["shn"]], 1)
        return Gaussians(now["means"], now["quats"], now["scales"], now["logits"], sh)

    def manner(self, step: int) -> Manner:
        """How the picture of a step is drawn: colours depend on the direction only later."""
        return Manner(
            degree=min(self.recipe.degree, step // self.recipe.degree_every), antialiased=self.recipe.antialiased
        )

    def rate(self, step: int) -> float:
        """The learning rate of means: exponential from the first to `decay` times it."""
        recipe = self.recipe
        return float(recipe.means * self.extent * recipe.decay ** ((step - 1) / recipe.steps))

    def order(self, step: int) -> int:
        """The photo of a step: all of them once before any comes again, in another order each time."""
        count = len(self.views)
        epoch, place = divmod(step - 1, count)
        random = torch.Generator().manual_seed(record_seed(self.seed, "order", epoch) % 2**63)
        return int(torch.randperm(count, generator=random)[place])

    def steps(self) -> Iterator[Told]:
        """Train to the end; what each step did."""
        while self.step < self.recipe.steps:
            yield self._step(self.step + 1)

    def _step(self, step: int) -> Told:
        recipe = self.recipe
        random = torch.Generator().manual_seed(record_seed(self.seed, "update", step) % 2**63)
        number = self.order(step)
        view, manner = self.views[number], self.manner(step)
        background = torch.tensor(recipe.background) if recipe.background else torch.rand(3, generator=random)
        p = self.parts
        gaussians = Gaussians(p["means"], p["quats"], p["scales"], p["logits"], torch.cat([p["sh0"], p["shn"]], 1))
        picture = draw(self.rasterizer, gaussians, view.eye, manner, background.to(self.rasterizer.device))
        picture.flat.means.retain_grad()
        image, truth = picture.image, view.image.to(self.rasterizer.device)
        if recipe.exposure:
            image = image * p["light"][number, 0] + p["light"][number, 1]
        if view.mask is not None:
            shown = view.mask.to(image)[..., None]
            image, truth = image * shown, truth * shown
        loss = picture_loss(image, truth, recipe.ssim)
        if recipe.opacity_reg:
            loss = loss + recipe.opacity_reg * p["logits"].sigmoid().mean()
        if recipe.scale_reg:
            loss = loss + recipe.scale_reg * p["scales"].exp().mean()
        told = float(loss.detach())
        if not math.isfinite(told):
            raise ToolrollError(f"the loss of step {step} is {told}: try lower rates")
        loss.backward()
        self.grower.watch(picture.flat, view.eye.width, view.eye.height)
        self._descend(step)
        self.step = step
        self.grower.act(step, self, self.rate(step), random)
        if not len(self.parts["means"]):
            raise ToolrollError(f"no Gaussian is left after step {step}")
        return Told(step, told, len(self.parts["means"]), manner.degree)

    def _descend(self, step: int) -> None:
        rates = {"means": self.rate(step), "light": self.recipe.exposure}
        for group in self.adam.param_groups:
            name = group["name"]
            group["lr"] = rates[name] if name in rates else getattr(self.recipe, name)
        self.adam.step()
        self.adam.zero_grad()

    # --- stops

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        found = {f"grower.{name}": value for name, value in self.grower.tensors().items()}
        for name, part in self.parts.items():
            first, second = self._moments(name)
            found |= {name: part.detach(), f"{name}.first": first, f"{name}.second": second}
        return found

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on behind a step. ToolrollError for tensors of another training."""
        now = self.tensors()
        check_alike(tensors, now, frozenset(name for name in now if name.partition(".")[0] != "light"))
        self.step = step
        for name in self.parts:
            self._replace(name, tensors[name], tensors[f"{name}.first"], tensors[f"{name}.second"])
        mark = "grower."
        self.grower.restore({name[len(mark) :]: value for name, value in tensors.items() if name.startswith(mark)})


def nearest_distances(places: Tensor, count: int = 3) -> Tensor:
    """The root mean square distance [N] of each of places [N, 3] to the `count` nearest others."""
    try:
        from scipy.spatial import KDTree
    except ImportError as error:
        raise UsageError("is not installed: pip install 'toolroll[nvs]'", place="scipy") from error
    if len(places) < 2:
        return torch.ones(len(places))
    found, _ = KDTree(places.double().numpy()).query(places.double().numpy(), k=min(count + 1, len(places)))
    return torch.from_numpy((found[:, 1:] ** 2).mean(1) ** 0.5).float()


def begun(
    places: Tensor, colours: Tensor, *, opacity: float, size: float, degree: int, random: torch.Generator
) -> Gaussians:
    """Gaussians at places [N, 3] with colours [N, 3] in [0, 1], as far around as their neighbours are away."""
    from toolroll.splat.gaussians import SH0

    apart = nearest_distances(places).clamp(min=1e-7) * size
    sh = torch.zeros(len(places), (degree + 1) ** 2, 3)
    sh[:, 0] = (colours - 0.5) / SH0
    return Gaussians(
        places.float(),
        torch.rand(len(places), 4, generator=random),
        apart.log()[:, None].repeat(1, 3),
        torch.full((len(places),), opacity).logit(),
        sh,
    )


def thinned(start: Gaussians, most: int, random: torch.Generator) -> Gaussians:
    """No more than `most` of them, drawn evenly."""
    if not most or len(start) <= most:
        return start
    return start.chosen(torch.randperm(len(start), generator=random)[:most].sort().values)
