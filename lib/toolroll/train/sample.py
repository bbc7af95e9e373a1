"""A rollout as the trainer sees it, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolroll.errors import RowError
from toolroll.models.images import image_names
from toolroll.models.vision import processed, side_by_side
from toolroll.train.batch import Padded, pad
from toolroll.train.objective import Objective


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory: token ids, `mask` 1 where the model wrote, log-probabilities in nats as sampled, its worth.

    `features` are the images of the prompt as the model takes them.
    """

    prompt: Sequence[int]
    response: Sequence[int]
    mask: Sequence[int]
    logprobs: Sequence[float] | None = None
    advantage: float = 0.0
    reward: float | None = None
    ref_logprobs: Sequence[float] | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.response)


@dataclass
class Known:
    """What is known of a sample before the update, [T] each; `advantage` of grpo is one number for all tokens."""

    advantage: Tensor | None = None
    old: Tensor | None = None
    ref: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Demands:
    """What rows must have for an update: `vocabulary` bounds their token ids.

    `processor` is that of an image-text model, None where the model takes no images.
    """

    objective: Objective
    vocabulary: int
    ref_logprobs: bool = False
    processor: Any = None

    def sample(self, row: Any, folder: Path = Path()) -> Sample:
        """The sample of a row (`records.Advantaged`), its images in `folder`. RowError when it is none to train on."""
        prompt, response, mask = row.prompt_ids, row.response_ids, row.loss_mask
        _there(prompt_ids=prompt, response_ids=response, loss_mask=mask)
        if not prompt or not response:
            raise RowError("the response is empty" if prompt else "the prompt is empty")
        logprobs = row.logprobs if self.objective.needs_logprobs else None
        if self.objective.needs_logprobs and logprobs is None:
            raise RowError("no `logprobs`; --old recompute does without")
        ref_logprobs = row.ref_logprobs if self.ref_logprobs else None
        if self.ref_logprobs and ref_logprobs is None:
            raise RowError("no `ref_logprobs` for --kl-coef; or name a --reference")
        for name, values in (("loss_mask", mask), ("logprobs", logprobs), ("ref_logprobs", ref_logprobs)):
            if values is not None and len(values) != len(response):
                raise RowError(f"{len(values)} {name} for {len(response)} response_ids")
        if not {*mask} <= {0, 1}:
            raise RowError("loss_mask has something else than 0 and 1")
        for name, ids in (("prompt_ids", prompt), ("response_ids", response)):
            if min(ids) < 0 or max(ids) >= self.vocabulary:
                raise RowError(f"{name} has a token outside the model's vocabulary of {self.vocabulary}")
        for name, values in (("logprobs", logprobs), ("ref_logprobs", ref_logprobs)):
            if values is not None and not math.isfinite(math.fsum(values)):
                raise RowError(f"{name} has a value that is not finite")
        images = [folder / name for name in image_names(row)]
        image = getattr(self.processor, "image_token_id", None)
        if images and image in response:
            raise RowError("the response has the token that stands for an image")
        advantage, reward = self._worth(row)
        features = self._features(row.prompt, prompt, images)
        return Sample(prompt, response, mask, logprobs, advantage, reward, ref_logprobs, features)

    def _features(self, text: str, ids: Sequence[int], images: list[Path]) -> Mapping[str, Tensor]:
        """The images of a prompt as the model takes them: the text has to give the ids that the rollout had."""
        if not images:
            return {}
        if self.processor is None:
            raise RowError("the row has images, and the model takes none")
        found, features = processed(self.processor, text, images)
        if found != list(ids):
            raise RowError("`prompt` with its images does not give `prompt_ids`: another processor made them")
        return features

    def _worth(self, row: Any) -> tuple[float, float | None]:
        reward = reward_of(row.reward)
        if self.objective.algo == "ppo":
            if reward is None:
                raise RowError("no `reward` for --algo ppo")
            if not math.isfinite(reward):
                raise RowError("the reward is not finite")
        elif row.advantage is None:
            raise RowError("no `advantage` (group-advantage makes it)")
        elif not math.isfinite(row.advantage):
            raise RowError("the advantage is not finite")
        return row.advantage or 0.0, reward


def padded(samples: Sequence[Sample], device: torch.device) -> Padded:
    """Samples side by side; all of them have images, or none has."""
    batch = pad([s.prompt for s in samples], [s.response for s in samples], [s.mask for s in samples], device)
    if not samples[0].features:
        return batch
    longest = batch.ids.shape[1]
    joined = side_by_side([sample.features for sample in samples], longest)
    lengths = torch.tensor([sample.length for sample in samples])
    seen = (torch.arange(longest) < lengths[:, None]).long()
    return replace(batch, features={name: part.to(device) for name, part in joined.items()}, seen=seen.to(device))


def reward_of(reward: dict[str, Any] | float | None) -> float | None:
    """A reward as a number: itself, or its `total`.

    >>> reward_of({"total": 1.2}), reward_of(0.5), reward_of({})
    (1.2, 0.5, None)
    """
    value = reward.get("total") if isinstance(reward, dict) else reward
    return float(value) if isinstance(value, int | float) else None


def _there(**fields: Any) -> None:
    for name, value in fields.items():
        if value is None:
            raise RowError(f"no `{name}`; rag-rollout gives it where it runs the model itself or by token ids")
