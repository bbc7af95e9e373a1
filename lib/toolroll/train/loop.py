"""One model and its optimizer, and how a step is made of parts that fit in memory.

The parts of a batch may lie on several processes. Each part's loss is divided by the normaliser of the whole batch, so
gradients add up, over parts and over processes, to the gradient of the batch as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.errors import ToolrollError
from toolroll.train.team import Team

BUCKET = 1 << 26  #: numbers that processes add up at a time


class Learner:
    """A model under training: AdamW over the parameters that want a gradient."""

    def __init__(
        self,
        model: nn.Module,
        team: Team,
        *,
        rate: Callable[[int], float],
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.model = model
        self.team = team
        self.rate = rate
        self.max_grad_norm = max_grad_norm
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ToolrollError("nothing to train: no parameter wants a gradient")
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=rate(1), betas=betas, weight_decay=weight_decay, fused=True
        )

    def set_rate(self, step: int) -> float:
        """Use the learning rate of update `step`, from 1, and give it."""
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def minimise(self, losses: Iterable[Tensor]) -> float:
        """One step of the optimizer down the sum of `losses`, over all processes; the length of the gradient.

        Each loss is made only when the one before has been differentiated. A process may have none. Raises
        ToolrollError, with the model as it was, when a loss or the gradient is not finite.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.team.device)
        for loss in losses:
            loss.backward()
            total += loss.detach().double()
        self.team.add_up([total])
        norm = self._gradient_norm()
        if not (math.isfinite(float(total)) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            what = (
                f"the loss is {float(total)}" if not math.isfinite(float(total)) else f"the gradient's norm is {norm}"
            )
            raise ToolrollError(
                f"{what}: training has diverged, or rows hold extreme log-probabilities; nothing was saved"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights and the optimizer's moments, by name."""
        found: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            found[f"weight.{name}"] = parameter.detach()
            found |= {f"{key}.{name}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        return found

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave. ToolrollError when they are of another model."""
        weights = {key.removeprefix("weight."): value for key, value in tensors.items() if key.startswith("weight.")}
        expected = {name: parameter.shape for name, parameter in zip(self.names, self.parameters, strict=True)}
        if {name: value.shape for name, value in weights.items()} != expected:
            raise ToolrollError("it is of another model, or was trained with another --lora")
        for name, parameter in zip(self.names, self.parameters, strict=True):
            parameter.copy_(weights[name])
            state: dict[str, Any] = {
                key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors
            }
            if state:
                self.optimizer.state[parameter] = {
                    key: value.to(parameter.device).clone() for key, value in state.items()
                }

    def _gradient_norm(self) -> float:
        """Add the gradients up over the processes, scale them to `max_grad_norm`; their norm before that."""
        if self.team.world > 1:
            bucket: list[Tensor] = []
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                bucket.append(parameter.grad)
                if sum(grad.numel() for grad in bucket) >= BUCKET:
                    self.team.add_up(bucket)
                    bucket = []
            self.team.add_up(bucket)
        limit = self.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
