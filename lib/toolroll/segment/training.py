"""How a segmenter is trained: updates, and what they go on from after a stop or a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.errors import ToolrollError
from toolroll.run.seeds import record_seed
from toolroll.segment.losses import Targets, Weights, Whole, loss_of
from toolroll.segment.model import About, normalised, save
from toolroll.segment.sampling import Drawer, batch_of
from toolroll.segment.text import Reader
from toolroll.train import checkpoint
from toolroll.train.checkpoint import Checkpoint
from toolroll.train.loop import Learner
from toolroll.train.options import learning_rate
from toolroll.train.policy import PolicyDirectory
from toolroll.train.team import Team

STATE = "state"


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a training. `steps` is the length of the schedule; `save_every` how much a kill may cost."""

    steps: int = 1000
    batch: int = 8
    lr: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    freeze_base: bool = False
    save_every: int = 200
    weights: Weights = field(default_factory=Weights)


class Training:
    """A model under training in a folder: DIR has the model, DIR/state the optimizer.

    From `resume` to the end of `updates` nobody else may train in the folder.
    """

    def __init__(
        self, model: nn.Module, about: About, plan: Plan, drawer: Drawer, reader: Reader, team: Team, folder: Path
    ) -> None:
        self.model = model.to(team.device).train()
        self.about, self.plan, self.drawer, self.reader = about, plan, drawer, reader
        self.team, self.folder = team, folder
        self._held = PolicyDirectory(folder)
        self.step = self._saved = 0
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

    def resume(self, settings: dict[str, Any], firm: frozenset[str], warn: Callable[[str], None]) -> dict[str, Any]:
        """Go on from the folder's checkpoint, if there is one. What was last said of it.

        ToolrollError where another process trains in the folder.
        """
        self.settings = settings
        if self.team.is_main:
            self._held.open()
        try:
            return self._resumed(firm, warn)
        except BaseException:
            self._held.close()
            raise

    def _resumed(self, firm: frozenset[str], warn: Callable[[str], None]) -> dict[str, Any]:
        saved = checkpoint.load(self.folder / STATE)
        if saved is None:
            if (self.folder / "segmenter.json").exists():
                raise ToolrollError("has a model, and no state to go on from", place=str(self.folder))
            return {}
        for difference in checkpoint.compare(saved.settings, self.settings, firm):
            warn(difference)
        self.learner.restore(saved.tensors)
        self.step = self._saved = saved.step
        return saved.last

    def save(self, last: dict[str, Any]) -> None:
        """Write a checkpoint, and the model as it is."""
        self._saved = self.step
        if not self.team.is_main:
            return
        (self.folder / STATE).mkdir(parents=True, exist_ok=True)
        checkpoint.save(self.folder / STATE, Checkpoint(self.step, self.learner.tensors(), self.settings, b"", last))
        save(self.folder, self.model, self.about)

    def updates(self, stopped: Callable[[], bool], every: int) -> Iterator[dict[str, Any]]:
        """Train to the end of the plan; a row for each `every` updates, with the means over them."""
        try:
            yield from self._updates(stopped, every)
        finally:
            self._held.close()

    def _updates(self, stopped: Callable[[], bool], every: int) -> Iterator[dict[str, Any]]:
        held: list[dict[str, float]] = []
        while self.step < self.plan.steps and not self.team.share(stopped()):
            held.append(self._update(self.step + 1))
            self.step += 1
            done = self.step == self.plan.steps
            if self.step % every == 0 or done:
                row = {name: sum(one[name] for one in held) / len(held) for name in held[0]}
                held = []
                last = {"step": self.step, "lr": self.learner.rate(self.step), **row}
                if self.step % self.plan.save_every == 0 or done:
                    self.save(last)
                yield last
            elif self.step % self.plan.save_every == 0:
                self.save({})
        if self.step != self._saved:
            self.save({})

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
