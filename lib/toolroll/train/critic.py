"""PPO's critic: a value for each token the model wrote, and the advantages that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.train.batch import Padded, rectangle
from toolroll.train.loop import Learner
from toolroll.train.losses import gae, kl, value_loss, whiten
from toolroll.train.objective import CriticOptions
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Known, Sample, padded
from toolroll.train.setup import frozen_model, save_memory
from toolroll.train.team import Team


class ValueModel(nn.Module):  # type: ignore[misc]
    """A language model whose output layer is one number a position, 0 at first."""

    def __init__(self, decoder: nn.Module, width: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.value = nn.Linear(width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, batch: Padded) -> Tensor:
        """The value of the state before each token of the mask: [B, T], 0 where masked."""
        states = self.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        states = states.reshape(-1, states.shape[-1]).index_select(0, batch.before)
        return batch.spread(self.value(states).squeeze(-1).float())


class Critic:
    """The critic's model and optimizer, and how it judges samples."""

    def __init__(self, learner: Learner, options: CriticOptions) -> None:
        self.learner = learner
        self.options = options

    def values(self, batch: Padded) -> Tensor:
        """Its values [B, T]."""
        found: Tensor = self.learner.model(batch)
        return found

    def judge(self, samples: Sequence[Sample], known: Sequence[Known], kl_coef: float) -> dict[str, float | None]:
        """Put advantages, whitened over all samples' tokens, and returns into `known`, from rewards and values.

        The reward is paid at the last token the model wrote; `kl_coef` times k1, the log-ratio of the policy the
        samples came from to the reference, is taken off at each.
        """
        mask = rectangle([sample.mask for sample in samples], torch.float32)
        values = rectangle([_numbers(fact.values) for fact in known], torch.float32)
        rewards = torch.zeros_like(mask)
        if kl_coef:
            old = rectangle([_numbers(fact.old) for fact in known], torch.float32)
            ref = rectangle([_numbers(fact.ref) for fact in known], torch.float32)
            rewards = -kl_coef * torch.where(mask.bool(), kl(old, ref, "k1"), 0.0)
        for i, sample in enumerate(samples):
            last = max((place for place, own in enumerate(sample.mask) if own), default=0)
            rewards[i, last] += sample.reward or 0.0
        advantages, returns = gae(rewards, values, mask, self.options.gamma, self.options.gae_lambda)
        advantages = whiten(advantages, mask)
        for i, (sample, fact) in enumerate(zip(samples, known, strict=True)):
            fact.advantage, fact.returns = advantages[i, : len(sample.mask)], returns[i, : len(sample.mask)]
        return {"value_mean": float(values.sum() / mask.sum().clamp(min=1))}

    def minimise(self, mini: Sequence[tuple[Sample, Known]], groups: Iterable[list[tuple[Sample, Known]]]) -> float:
        """One step of its optimizer; the loss over all of `mini`, of which `groups` are this process's share."""
        team = self.learner.team
        count = float(sum(sum(sample.mask) for sample, _ in mini))
        total = torch.zeros((), device=team.device)

        def losses() -> Iterator[Tensor]:
            for group in groups:
                batch = padded([sample for sample, _ in group], team.device)
                with team.autocast():
                    values = self.values(batch)
                old, returns = (
                    rectangle([_numbers(getattr(fact, name)) for _, fact in group], torch.float32).to(team.device)
                    for name in ("values", "returns")
                )
                clip = self.options.value_clip or None
                loss = value_loss(values, old, returns, batch.mask, clip=clip, count=count)
                total.add_(loss.detach())
                yield loss

        self.learner.minimise(losses())
        team.add_up([total])
        return float(total)


def open_critic(source: str, options: CriticOptions, training: TrainOptions, team: Team) -> Critic:
    """A critic whose body is that of the causal LM `source`."""
    body: Any = frozen_model(source, team).model
    model = ValueModel(body.get_decoder(), body.get_output_embeddings().weight.shape[1]).to(team.device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if training.gradient_checkpointing:
        save_memory(body)
    model.train()
    rate = replace(training, lr=options.critic_lr, warmup=options.critic_warmup).rate
    learner = Learner(
        model,
        team,
        rate=rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
    )
    return Critic(learner, options)


def _numbers(values: Tensor | None) -> list[float]:
    return [] if values is None else values.tolist()
