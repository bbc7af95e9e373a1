"""Where a scene gets more Gaussians and where fewer: density control, as in gsplat, without two faults of its 1.5.3.

    default  Kerbl et al. 2023: a Gaussian whose mean is pulled about in the picture is cloned, if it is small, or
             split; faint ones go; now and then opacities fall to .01, after which large Gaussians go, too
    mcmc     Kheradmand et al. 2024: faint ones move to where opaque ones are, there are 5 % more each time, up to a
             cap, and means are shaken, the fainter the more
    none     as many as there were

In gsplat 1.5.3 opacities never fall, since the condition is always false; here they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from toolroll.splat.on_torch import covariances, rotations
from toolroll.splat.rasterizer import Flat

Kind = Literal["default", "mcmc", "none"]
KINDS: tuple[Kind, ...] = ("default", "mcmc", "none")
SPLIT = 1.6  #: the parts of a Gaussian are so many times smaller than it
MOST_RATIO = 51  #: of copies of a Gaussian


@dataclass(frozen=True, slots=True)
class Growth:
    """When and how. Steps count from 1. Lengths are parts of the scene's extent.

    gradient: of the mean in the picture, in halves of its width and height, on average over the steps that saw it.
    cap: Gaussians at most, 0 is no limit.
    """

    kind: Kind = "default"
    first: int = 500
    until: int = 15_000
    every: int = 100
    reset_every: int = 3000
    gradient: float = 2e-4
    small: float = 0.01
    large: float = 0.1
    faint: float = 0.005
    cap: int = 0
    noise: float = 5e5


def growth_for(steps: int, growth: Growth) -> Growth:
    """The steps of gsplat's run of 30,000, shorter where the run is: first 1/15, then every 1/60, up to its half.

    mcmc goes on to five sixths of it.

    >>> growth_for(600, Growth()).first, growth_for(600, Growth()).every, growth_for(600, Growth()).until
    (40, 10, 300)
    """
    until = 5 * steps // 6 if growth.kind == "mcmc" else steps // 2
    return replace(growth, first=min(500, steps // 15), every=max(1, min(100, steps // 60)), until=until)


class Store(Protocol):
    """The Gaussians in training: tensors by name, and what the optimizer keeps of them."""

    def values(self) -> dict[str, Tensor]:
        """means, quats, scales, logits, sh0, shn."""
        ...

    def rebuild(self, kept: Tensor, added: dict[str, Tensor]) -> None:
        """Keep some rows, by index, with what the optimizer knows of them, and add others, of which it knows none."""
        ...

    def overwrite(self, rows: Tensor, values: dict[str, Tensor]) -> None:
        """New values for some rows; the optimizer forgets them."""
        ...


class Grower(Protocol):
    """Density control."""

    def tensors(self) -> dict[str, Tensor]:
        """What it goes on from after a stop."""
        ...

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from it."""
        ...

    def watch(self, flat: Flat, width: int, height: int) -> None:
        """After the gradients of a step are there."""
        ...

    def act(self, step: int, store: Store, rate: float, random: torch.Generator) -> None:
        """After the optimizer's step; `rate` is the learning rate of means."""
        ...


def open_grower(growth: Growth, extent: float, count: int) -> Grower:
    """The one of a kind, for a scene of `count` Gaussians."""
    if growth.kind == "default":
        return Default(growth, extent, count)
    return MCMC(growth) if growth.kind == "mcmc" else Still()


class Still:
    """As many as there were."""

    def tensors(self) -> dict[str, Tensor]:
        """See `Grower`."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Grower`."""

    def watch(self, flat: Flat, width: int, height: int) -> None:
        """See `Grower`."""

    def act(self, step: int, store: Store, rate: float, random: torch.Generator) -> None:
        """See `Grower`."""


class Default(Still):
    """Clone, split, prune, reset."""

    def __init__(self, growth: Growth, extent: float, count: int) -> None:
        self.growth, self.extent = growth, extent
        self.pulled, self.seen = torch.zeros(count), torch.zeros(count)

    def tensors(self) -> dict[str, Tensor]:
        """See `Grower`."""
        return {"pulled": self.pulled, "seen": self.seen}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Grower`."""
        self.pulled, self.seen = tensors["pulled"], tensors["seen"]

    def watch(self, flat: Flat, width: int, height: int) -> None:
        """See `Grower`."""
        assert flat.means.grad is not None
        pull = (flat.means.grad * flat.means.grad.new_tensor([width / 2, height / 2])).norm(dim=1)
        here = (flat.radii > 0).all(1)
        self.pulled = self.pulled.to(pull) + torch.where(here, pull, 0.0)
        self.seen = self.seen.to(pull) + here

    def act(self, step: int, store: Store, rate: float, random: torch.Generator) -> None:  # noqa: ARG002
        """See `Grower`."""
        growth = self.growth
        if growth.first < step < growth.until and step % growth.every == 0:
            self._refine(step, store, random)
            count = len(store.values()["means"])
            self.pulled, self.seen = torch.zeros(count), torch.zeros(count)
        if step % growth.reset_every == 0 and step < growth.until:
            logits = store.values()["logits"]
            rows = torch.arange(len(logits), device=logits.device)
            store.overwrite(rows, {"logits": logits.clamp(max=_logit(2 * growth.faint))})

    def _refine(self, step: int, store: Store, random: torch.Generator) -> None:
        growth, values = self.growth, store.values()
        pull = self.pulled / self.seen.clamp(min=1)
        size = values["scales"].exp().amax(1)
        wanted = self._room(pull, len(size))
        cloned = wanted & (size <= growth.small * self.extent)
        split = wanted & ~cloned
        stays = ~split & (values["logits"].sigmoid() >= growth.faint)
        if step > growth.reset_every:
            stays &= size <= growth.large * self.extent
        parts = [
            {name: value[cloned] for name, value in values.items()},
            *_halves({name: value[split] for name, value in values.items()}, random),
        ]
        store.rebuild(stays.nonzero().flatten(), {name: torch.cat([part[name] for part in parts]) for name in values})

    def _room(self, pull: Tensor, count: int) -> Tensor:
        """Which may grow: those pulled most, as far as the cap goes."""
        wanted = pull > self.growth.gradient
        if not self.growth.cap:
            return wanted
        room = max(0, self.growth.cap - count)
        if int(wanted.sum()) <= room:
            return wanted
        most = torch.where(wanted, pull, -1.0).argsort(descending=True, stable=True)[:room]
        return torch.zeros_like(wanted).index_fill_(0, most, value=True)


class MCMC(Still):
    """Relocate, add, shake."""

    def __init__(self, growth: Growth) -> None:
        self.growth = growth

    def act(self, step: int, store: Store, rate: float, random: torch.Generator) -> None:
        """See `Grower`."""
        growth = self.growth
        if growth.first < step < growth.until and step % growth.every == 0:
            self._relocate(store, random)
            self._add(store, random)
        self._shake(store, rate, random)

    def _relocate(self, store: Store, random: torch.Generator) -> None:
        values = store.values()
        opacity = values["logits"].sigmoid()
        dead = (opacity <= self.growth.faint).nonzero().flatten()
        alive = (opacity > self.growth.faint).nonzero().flatten()
        if len(dead) == 0 or len(alive) == 0:
            return
        chosen = alive[_drawn(opacity[alive], len(dead), random)]
        self._copy(store, chosen)
        now = store.values()
        store.overwrite(dead, {name: value[chosen].clone() for name, value in now.items()})

    def _add(self, store: Store, random: torch.Generator) -> None:
        values = store.values()
        count = len(values["means"])
        more = int(1.05 * count) - count
        more = max(0, min(more, self.growth.cap - count)) if self.growth.cap else more
        if not more:
            return
        chosen = _drawn(values["logits"].sigmoid(), more, random)
        self._copy(store, chosen)
        now = store.values()
        store.rebuild(
            torch.arange(count, device=chosen.device), {name: value[chosen].clone() for name, value in now.items()}
        )

    def _copy(self, store: Store, chosen: Tensor) -> None:
        """Make those that get copies fainter and smaller, so that all copies together look as one did."""
        values = store.values()
        rows, copies = chosen.unique(return_counts=True)
        opacity, factor = relocated(values["logits"][rows].sigmoid(), copies + 1)
        logits = opacity.clamp(self.growth.faint, 1 - torch.finfo(opacity.dtype).eps).logit()
        store.overwrite(rows, {"logits": logits, "scales": values["scales"][rows] + factor.log()[:, None]})

    def _shake(self, store: Store, rate: float, random: torch.Generator) -> None:
        values = store.values()
        opacity = values["logits"].sigmoid()
        force = 1 / (1 + torch.exp(-100 * ((1 - opacity) - 0.995)))
        noise = torch.randn(len(opacity), 3, generator=random).to(opacity)
        noise = noise * (force * self.growth.noise * rate)[:, None]
        values["means"] += (covariances(values["quats"], values["scales"]) @ noise[..., None])[..., 0]


def relocated(opacity: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """The opacity [N] of each of so many copies [N] of a Gaussian, and the factor of its scales (equation 9).

    >>> [round(float(one), 8) for one in relocated(torch.tensor([0.6], dtype=torch.float64), torch.tensor([3]))]
    [0.2631937, 0.91860917]
    """
    copies = copies.clamp(1, MOST_RATIO)
    new = 1 - (1 - opacity.double()) ** (1 / copies.double())
    signs, roots = _series()
    powers = new[:, None] ** torch.arange(1, MOST_RATIO + 1, device=new.device)
    terms = powers / roots.to(new.device)
    rows = (signs.to(new.device)[None] * terms[:, None]).sum(2)  # for i = 1..51 the sum over k
    counted = torch.arange(1, MOST_RATIO + 1, device=new.device)[None] <= copies[:, None]
    below = torch.where(counted, rows, 0.0).sum(1)
    return new.to(opacity), (opacity.double() / below).to(opacity)


@cache
def _series() -> tuple[Tensor, Tensor]:
    """(-1)^k C(i - 1, k) as [51, 51], and sqrt(k + 1)."""
    signs = [[(-1) ** k * math.comb(i - 1, k) for k in range(MOST_RATIO)] for i in range(1, MOST_RATIO + 1)]
    return torch.tensor(signs, dtype=torch.float64), torch.arange(1, MOST_RATIO + 1, dtype=torch.float64).sqrt()


def _halves(values: dict[str, Tensor], random: torch.Generator) -> list[dict[str, Tensor]]:
    """Two parts of each Gaussian, at places drawn from it."""
    made: list[dict[str, Tensor]] = []
    size = values["scales"].exp()
    for _ in range(2):
        away = torch.randn(size.shape, generator=random).to(size) * size
        means = values["means"] + (rotations(values["quats"]) @ away[..., None])[..., 0]
        made.append({**values, "means": means, "scales": values["scales"] - math.log(SPLIT)})
    return made


def _drawn(weights: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Indices drawn with these weights, with repetition."""
    sums = weights.double().cpu().cumsum(0)
    at = torch.rand(count, generator=random, dtype=torch.float64) * sums[-1]
    found = torch.searchsorted(sums, at).clamp(max=len(sums) - 1)
    return found.to(weights.device)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
