"""One update of a policy: GRPO with given advantages, or PPO with a critic (`toolroll.train.critic`).

Injected tokens (mask 0) are in the context and nowhere else: not in the policy's loss, the entropy, the divergence,
the reward's penalty, the advantages or the critic's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from toolroll.run.seeds import record_seed
from toolroll.train.batch import Padded, deal, fill, rectangle
from toolroll.train.losses import kl as divergence
from toolroll.train.losses import normaliser, policy_loss, reduced, truncated_importance
from toolroll.train.objective import Objective
from toolroll.train.sample import Known, Sample, padded
from toolroll.train.setup import Trainer

Score = Callable[[Padded], Tensor]
KL_CLAMP = 10.0  #: the log-ratio to the reference is held within this, as in the released code of HiPRAG and verl
_SUMS = ("loss", "policy_loss", "tokens", "clipped", "ratio", "approx_kl", "kl", "entropy")


class PolicyUpdate:
    """Updates of one policy. `reference` scores under the reference policy, None where rows or nothing does it."""

    def __init__(
        self,
        trainer: Trainer,
        objective: Objective,
        *,
        seed: int = 0,
        reference: Score | None = None,
        critic: Any = None,
    ) -> None:
        self.trainer = trainer
        self.objective = objective
        self.seed = seed
        self.reference = reference
        self.critic = critic

    def run(self, samples: Sequence[Sample], step: int) -> dict[str, float | None]:
        """Make update `step` (from 1) of samples of which at least one has a token of the model's; its figures."""
        trainer = self.trainer
        torch.manual_seed(record_seed(self.seed, "update", step, trainer.team.rank))
        rate = trainer.learner.set_rate(step)
        known = self._before(samples)
        figures = {}
        if self.critic is not None:
            figures = self.critic.judge(samples, known, self.objective.kl_coef)
            self.critic.learner.set_rate(step)
        sums = dict.fromkeys(_SUMS, 0.0)
        norms, value_losses = [], []
        for _ in range(self.objective.epochs):
            for chosen in portions(len(samples), self.objective.mini_batch or len(samples)):
                mini = [(samples[i], known[i]) for i in chosen]
                if not any(any(sample.mask) for sample, _ in mini):
                    continue
                norms.append(trainer.learner.minimise(self._losses(mini, sums)))
                if self.critic is not None:
                    value_losses.append(self.critic.minimise(mini, self.micro(mini)))
        return {**self._figures(sums, norms), **figures, "lr": rate, "value_loss": _mean(value_losses)}

    def micro(self, mini: Sequence[tuple[Sample, Known]]) -> Iterator[list[tuple[Sample, Known]]]:
        """This process's share of some samples, in groups of at most `micro_tokens`; none without a token.

        Samples with images and without are in groups of their own.
        """
        useful = [pair for pair in mini if any(pair[0].mask)]
        team = self.trainer.team
        own = [useful[i] for i in deal([sample.length for sample, _ in useful], team.world)[team.rank]]
        for images in (False, True):
            some = [pair for pair in own if bool(pair[0].features) == images]
            for group in fill([sample.length for sample, _ in some], self.objective.micro_tokens):
                yield [some[i] for i in group]

    def _losses(self, mini: Sequence[tuple[Sample, Known]], sums: dict[str, float]) -> Iterator[Tensor]:
        objective, device = self.objective, self.trainer.team.device
        masks = rectangle([sample.mask for sample, _ in mini], torch.float32)
        count = float(normaliser(masks, objective.loss_norm, objective.loss_constant))
        reduction: dict[str, Any] = {"norm": objective.loss_norm, "constant": objective.loss_constant, "count": count}
        for group in self.micro(mini):
            batch = padded([sample for sample, _ in group], device)
            with self.trainer.team.autocast():
                logp, entropy = self.trainer.scorer(batch, objective.temperature)
            old = _column(group, batch, "old")
            loss, stats = policy_loss(
                logp,
                old,
                self._advantage(group, batch),
                batch.mask,
                clip_low=objective.clip_ratio,
                clip_high=objective.clip_ratio if objective.clip_ratio_high is None else objective.clip_ratio_high,
                dual_clip=objective.dual_clip,
                weight=self._weight(group, batch, old),
                **reduction,
            )
            stats["policy_loss"] = loss.detach()
            stats["entropy"] = entropy.detach().sum()
            if objective.entropy_coef:
                loss = loss - objective.entropy_coef * reduced(entropy, batch.mask, **reduction)
            if group[0][1].ref is not None:
                apart = divergence(logp, _column(group, batch, "ref"), objective.kl, KL_CLAMP)
                stats["kl"] = torch.where(batch.mask.bool(), apart, 0.0).detach().sum()
                if self.critic is None:
                    loss = loss + objective.kl_coef * reduced(apart, batch.mask, **reduction)
            stats["loss"] = loss.detach()
            for name, value in stats.items():
                sums[name] += float(value)
            yield loss

    def _advantage(self, group: Sequence[tuple[Sample, Known]], batch: Padded) -> Tensor:
        if self.critic is not None:
            return _column(group, batch, "advantage")
        return torch.tensor([sample.advantage for sample, _ in group], device=batch.mask.device)

    def _weight(self, group: Sequence[tuple[Sample, Known]], batch: Padded, old: Tensor) -> Tensor | None:
        level = self.objective.importance
        if level == "none":
            return None
        behaviour = rectangle([sample.logprobs or () for sample, _ in group], torch.float32).to(old.device)
        return truncated_importance(old, behaviour, batch.mask, level=level, cap=self.objective.importance_cap)

    def _before(self, samples: Sequence[Sample]) -> list[Known]:
        """What the models say of the samples before the first step: each process asks for its share, then all know."""
        recompute = self.objective.old == "recompute"
        asked: dict[str, Score] = {}
        if recompute:
            asked["old"] = self._old
        if self.reference is not None:
            asked["ref"] = self.reference
        if self.critic is not None:
            asked["values"] = self.critic.values
        known = [
            Known(
                old=None if recompute else torch.tensor(sample.logprobs),
                ref=None if sample.ref_logprobs is None else torch.tensor(sample.ref_logprobs),
            )
            for sample in samples
        ]
        team = self.trainer.team
        place = {id(fact): i for i, fact in enumerate(known)}
        for name, score in asked.items():
            found: dict[int, Tensor] = {}
            for group in self.micro(list(zip(samples, known, strict=True))):
                batch = padded([sample for sample, _ in group], team.device)
                with torch.no_grad(), team.autocast(), scoring(self.trainer.model):
                    scores = score(batch).float().cpu()
                for (sample, fact), row in zip(group, scores, strict=True):
                    found[place[id(fact)]] = row[: len(sample.response)].clone()
            found = team.merged(found)
            for i, fact in enumerate(known):
                setattr(fact, name, found.get(i, torch.zeros(len(samples[i].response))))
        return known

    def _old(self, batch: Padded) -> Tensor:
        return self.trainer.scorer(batch, self.objective.temperature, want_entropy=False)[0]

    def _figures(self, sums: dict[str, float], norms: list[float]) -> dict[str, float | None]:
        team = self.trainer.team
        total = torch.tensor([sums[name] for name in _SUMS], dtype=torch.float32 if team.world > 1 else torch.float64)
        total = total.to(team.device)
        team.add_up([total])
        by_name = dict(zip(_SUMS, total.tolist(), strict=True))
        tokens = by_name["tokens"]
        compared = self.reference is not None or by_name["kl"] != 0.0
        return {
            "loss": by_name["loss"] / len(norms),
            "policy_loss": by_name["policy_loss"] / len(norms),
            "kl": by_name["kl"] / tokens if compared else None,
            "entropy": by_name["entropy"] / tokens,
            "clip_frac": by_name["clipped"] / tokens,
            "ratio_mean": by_name["ratio"] / tokens,
            "approx_kl": by_name["approx_kl"] / tokens,
            "grad_norm": _mean(norms),
        }


def portions(count: int, most: int) -> Iterator[range]:
    """0..count-1 in as few runs as can be of at most `most`, of about the same length.

    >>> list(portions(5, 4))
    [range(0, 2), range(2, 5)]
    """
    number = -(-count // most)
    for i in range(number):
        yield range(i * count // number, (i + 1) * count // number)


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """The model out of training mode, so that no dropout is at work."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def _column(group: Sequence[tuple[Sample, Known]], batch: Padded, name: str) -> Tensor:
    rows = [getattr(fact, name).tolist() for _, fact in group]
    return rectangle(rows, torch.float32).to(batch.mask.device)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
