"""A training stage: warm-up and a cosine, checkpoints to go on from, and what it took."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from sizes import Stage
from torch import Tensor, nn

SAVE_EVERY = 60.0  # seconds
LOG_EVERY = 20  # steps
WARM_UP = 0.06  # of the steps

Batches = Callable[[int], Any]  # the batch of a step
Loss = Callable[[Any], "tuple[Tensor, dict[str, float]]"]


class Steps:
    """Muon for the matrices of the layers, AdamW for all else: embeddings, patches, heads, vectors.

    On these models AdamW alone needs clearly more pictures for the same loss.
    """

    def __init__(self, model: nn.Module, stage: Stage) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trained if p.ndim == 2 and "layers" in name]
        rest = [p for name, p in trained if not (p.ndim == 2 and "layers" in name)]
        self._both: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=stage.matrices, weight_decay=stage.decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self._peaks = (stage.matrices, stage.rate)

    def step(self, share: float) -> None:
        """A step with this share of the peak learning rates; gradients are gone afterwards."""
        for one, peak in zip(self._both, self._peaks, strict=True):
            for group in one.param_groups:
                group["lr"] = peak * share
            one.step()
            one.zero_grad(set_to_none=True)

    def state_dict(self) -> list[Any]:
        """The states of both."""
        return [one.state_dict() for one in self._both]

    def load_state_dict(self, states: list[Any]) -> None:
        """Go on from the states of both."""
        for one, state in zip(self._both, states, strict=True):
            one.load_state_dict(state)


def share(step: int, count: int) -> float:
    """The share of the peak learning rate in a step of `count`: linear warm-up, then a cosine down to a fiftieth."""
    warm = max(1, round(WARM_UP * count))
    if step < warm:
        return (step + 1) / warm
    part = (step - warm) / max(1, count - warm)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part))


def train(model: nn.Module, stage: Stage, batches: Batches, loss: Loss, cache: Path, name: str) -> dict[str, float]:
    """Train `model` for a stage, in place, from its checkpoint if there is one; returns what was logged last.

    `batches(step)` gives the batch of a step, `loss(batch)` its loss and numbers to log. Every number depends on the
    step alone, so a run that was stopped ends as one that was not. seconds, and the share of them that was spent
    waiting for batches, are summed over all runs.
    """
    checkpoint, done = cache / f"{name}.checkpoint", cache / f"{name}.pt"
    if done.exists():
        state = torch.load(done, weights_only=True)
        model.load_state_dict(state["model"])
        return dict(state["logged"])
    steps = Steps(model, stage)
    first, spent, waited, logged = 0, 0.0, 0.0, {}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        steps.load_state_dict(state["steps"])
        first, spent, waited = state["step"], state["spent"], state["waited"]
    model.train()
    began = saved = time.monotonic()
    sums: dict[str, float] = {}
    for step in range(first, stage.steps):
        asked = time.monotonic()
        batch = batches(step)
        waited += time.monotonic() - asked
        torch.manual_seed(step)
        value, numbers = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step(share(step, stage.steps))
        for key, number in {"loss": float(value.detach()), **numbers}.items():
            sums[key] = sums.get(key, 0.0) + number
        now = time.monotonic()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == stage.steps:
            count = (step % LOG_EVERY) + 1 if (step + 1) % LOG_EVERY else LOG_EVERY
            logged = {key: round(number / count, 4) for key, number in sums.items()}
            sums = {}
            seconds = spent + now - began
            logged |= {"step": step + 1, "seconds": round(seconds, 1), "data share": round(waited / seconds, 4)}
            print(name, json.dumps(logged), flush=True)
        if now - saved > SAVE_EVERY:
            state = {"step": step + 1, "spent": spent + now - began, "waited": waited}
            whole(checkpoint, {"model": model.state_dict(), "steps": steps.state_dict(), **state})
            saved = time.monotonic()
    model.eval()
    whole(done, {"model": model.state_dict(), "logged": logged})
    with suppress(FileNotFoundError):
        checkpoint.unlink()
    return logged


def whole(path: Path, state: dict[str, Any]) -> None:
    """Save a state so that the file is the old or the new one."""
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


def shuffles(count: int, batch: int, seed: int) -> Callable[[int], Tensor]:
    """The rows of a step: every row once an epoch, in an order of the epoch's own."""
    orders: dict[int, Tensor] = {}

    def rows(step: int) -> Tensor:
        found = []
        for place in range(step * batch, (step + 1) * batch):
            epoch = place // count
            if epoch not in orders:
                orders.clear()
                orders[epoch] = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
            found.append(int(orders[epoch][place % count]))
        return torch.tensor(found)

    return rows


def chunks(count: int, batch: int) -> Iterator[slice]:
    """Slices of at most `batch` that cover `count`."""
    for first in range(0, count, batch):
        yield slice(first, min(first + batch, count))
