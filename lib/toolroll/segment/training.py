"""How a segmenter is trained, in a folder: DIR has the model, DIR/state what training goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from toolroll.run.seeds import record_seed
from toolroll.segment.losses import Targets, Weights, Whole, loss_of
from toolroll.segment.model import ABOUT, About, normalised, save
from toolroll.segment.sampling import Drawer, batch_of
from toolroll.segment.text import Reader
from toolroll.train.loop import Learner
from toolroll.train.options import learning_rate
from toolroll.train.resumable import Resumable, Row
from toolroll.train.team import Team


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a training. `steps` is the length of the schedule."""

    steps: int = 1000
    batch: int = 8
    lr: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    freeze_base: bool = False
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True, slots=True)
class Told:
    """What an update did: `parts` has its losses, the sum as `loss`, and the length of its gradient."""

    step: int
    parts: dict[str, float]

    @property
    def loss(self) -> float:
        """What it minimised."""
        return self.parts["loss"]


class Fit:
    """A model under training."""

    def __init__(self, model: nn.Module, about: About, plan: Plan, drawer: Drawer, reader: Reader, team: Team) -> None:
        self.model = model.to(team.device).train()
        self.about, self.plan, self.drawer, self.reader, self.team = about, plan, drawer, reader, team
        self.step = 0
        self.queries = model.base.config.num_queries if hasattr(model, "base") else about.shape.queries
        if plan.freeze_base and hasattr(model, "base"):
            model.base.requires_grad_(requires_grad=False).eval()
        self.learner = Learner(
            model,
            team,
            rate=lambda step: learning_rate(
                step, lr=plan.lr, schedule="cosine", warmup=plan.warmup, total_steps=plan.steps
            ),
            weight_decay=plan.weight_decay,
            max_grad_norm=plan.max_grad_norm,
        )

    def steps(self) -> Iterator[Told]:
        """Train to the end of the plan; what each update did."""
        while self.step < self.plan.steps:
            parts = self._update(self.step + 1)
            self.step += 1
            yield Told(self.step, parts)

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights and the optimizer's moments."""
        return self.learner.tensors()

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on behind an update. ToolrollError for tensors of another model."""
        self.learner.restore(tensors)
        self.step = step

    def _update(self, step: int) -> dict[str, float]:
        plan, team = self.plan, self.team
        torch.manual_seed(record_seed(self.drawer.seed, "update", step) % 2**63)
        examples = self.drawer.draw(step, range(team.rank, plan.batch, team.world))
        segments = torch.tensor([sum(min(len(one.labels), self.queries) for one in examples)], device=team.device)
        team.add_up([segments])
        whole = Whole(plan.batch, int(segments))
        parts: dict[str, float] = {"class_loss": 0.0, "mask_loss": 0.0, "dice_loss": 0.0}
        total = torch.zeros((), dtype=torch.float64, device=team.device)

        def losses() -> Iterator[Tensor]:
            nonlocal total
            if not examples:
                return
            images, prompts, targets = batch_of(examples)
            images = normalised(images.to(team.device), self.about)
            text = self.reader.read(prompts).to(team.device)
            on_device = Targets(
                targets.labels.to(team.device),
                targets.masks.to(team.device),
                targets.numbers,
                targets.counted.to(team.device),
            )
            with team.autocast():
                outputs = self.model(images, text)
            points = torch.Generator().manual_seed(record_seed(self.drawer.seed, "points", step, team.rank))
            loss, found = loss_of(outputs, on_device, plan.weights, points, whole)
            parts.update(found)
            total += loss.detach().double()
            yield loss

        self.learner.set_rate(step)
        norm = self.learner.minimise(losses())
        sums = torch.tensor([float(total), *parts.values()], dtype=torch.float64, device=team.device)
        team.add_up([sums])
        said = dict(zip(("loss", *parts), sums.tolist(), strict=True))
        return {**said, "grad_norm": norm}


class Training(Resumable[Fit]):
    """A model under training in a folder."""

    def __init__(
        self, model: nn.Module, about: About, plan: Plan, drawer: Drawer, reader: Reader, team: Team, folder: Path
    ) -> None:
        super().__init__(Fit(model, about, plan, drawer, reader, team), plan.steps, folder, ABOUT, team)

    def write_model(self) -> None:
        """Write the model as it is."""
        save(self.folder, self.fit.model, self.fit.about)

    def row(self, steps: Sequence[Told]) -> Row:
        """The means of some updates, and the learning rate of the last."""
        means = {name: sum(one.parts[name] for one in steps) / len(steps) for name in steps[0].parts}
        return {"step": steps[-1].step, "lr": self.fit.learner.rate(steps[-1].step), **means}
