"""What is minimised: the clipped policy gradient, PPO's critic, DPO. Pure functions of tensors.

B sequences, T response tokens each (padded), V the vocabulary. Log-probabilities are in nats. `mask` [B, T] is 1 for
tokens the model wrote and 0 for injected ones and padding; what it hides has no part in any loss and gets no gradient.

A batch is often larger than what fits in memory. Losses take `count`, what the sum is divided by over the whole of it
(`normaliser` says how much a part contributes), so that the gradients of its parts add up to the gradient of the whole.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

Norm = Literal["token", "sequence", "constant"]
Estimator = Literal["k1", "k2", "k3"]
Stats = dict[str, Tensor]


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Log softmax(logits / temperature) at `ids`: [..., V], [...] -> [...], in float32 or better.

    temperature > 0; the log-probabilities a rollout records are those at its own.
    """
    logits = _scaled(logits, temperature)
    chosen = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature) in nats: [..., V] -> [...]."""
    logp = log_softmax(_scaled(logits, temperature), -1)
    return -(logp.exp() * logp).sum(-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if temperature == 1.0 else logits / temperature


def normaliser(mask: Tensor, norm: Norm, constant: float | None = None) -> Tensor:
    """What the sum over these sequences is divided by: their tokens, their number, or their number times `constant`.

    token: every token weighs the same (DAPO). sequence: every sequence (GRPO). constant: the same for all batches, so
    that long answers are not favoured (Dr. GRPO, with the longest length allowed as the constant). Sequences without
    any token of the model's count as sequences.
    """
    if norm == "token":
        return mask.sum()
    sequences = mask.new_tensor(float(mask.shape[0]))
    return sequences if norm == "sequence" else sequences * _needed(constant)


def reduced(
    values: Tensor, mask: Tensor, norm: Norm, constant: float | None = None, count: Tensor | float | None = None
) -> Tensor:
    """The sum of `values` [B, T] over the mask, each sequence by its own length if `norm` is "sequence", over `count`.

    `count` is the normaliser of the whole batch; of these sequences when it is None.
    """
    kept = torch.where(mask.bool(), values, 0.0)
    if norm == "sequence":
        total = (kept.sum(-1) / mask.sum(-1).clamp(min=1)).sum()
    else:
        total = kept.sum()
    whole = normaliser(mask, norm, constant) if count is None else torch.as_tensor(count, device=total.device)
    return total / whole.clamp(min=1e-8)


def _needed(constant: float | None) -> float:
    if constant is None:
        raise ValueError("norm='constant' needs the constant")
    return constant


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    norm: Norm = "token",
    constant: float | None = None,
    count: Tensor | float | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """The clipped surrogate: -E[min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)], rho = exp(logp - old_logp).

    `advantage` [B] or [B, T]. `weight` [B] or [B, T] multiplies a token's loss (an importance weight). `dual_clip` > 1:
    for A < 0 the loss of a token is at most -dual_clip * A. Gives the loss and, as sums over the tokens of the mask,
    `tokens`, `clipped`, `ratio` and `approx_kl` (k3 of the ratio). Source: arXiv:1707.06347, equation 7; the asymmetric
    clip is DAPO's (arXiv:2503.14476), the dual clip arXiv:1912.09729.
    """
    hidden = ~mask.bool()
    step = torch.where(hidden, 0.0, logp - old_logp)  # a padded position may hold anything, and 0 * inf is no number
    ratio = step.exp()
    advantage = advantage.unsqueeze(-1) if advantage.dim() == 1 else advantage
    plain, clipped = ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    objective = torch.minimum(plain, clipped)
    if dual_clip is not None:
        objective = torch.where(advantage < 0, torch.maximum(objective, dual_clip * advantage), objective)
    if weight is not None:
        objective = objective * (weight.unsqueeze(-1) if weight.dim() == 1 else weight)
    with torch.no_grad():
        stats = {
            "tokens": mask.sum(),
            "clipped": torch.where(hidden, 0.0, (clipped < plain).to(ratio.dtype)).sum(),
            "ratio": torch.where(hidden, 0.0, ratio).sum(),
            "approx_kl": torch.where(hidden, 0.0, ratio - 1 - step).sum(),
        }
    return -reduced(objective, mask, norm, constant, count), stats


def kl(logp: Tensor, ref_logp: Tensor, estimator: Estimator = "k3", clamp: float | None = None) -> Tensor:
    """An estimate of KL(pi || pi_ref) for each token, from the token drawn: [B, T] -> [B, T].

    With d = logp_ref - logp: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 (never negative). `clamp` bounds d.
    Source: http://joschu.net/blog/kl-approx.html.

    >>> round(float(kl(torch.tensor([[-1.0]]), torch.tensor([[-0.9]]))), 5)
    0.00517
    """
    d = ref_logp - logp
    if clamp is not None:
        d = d.clamp(-clamp, clamp)
    if estimator == "k1":
        return -d
    return d * d / 2 if estimator == "k2" else d.exp() - d - 1


def truncated_importance(
    old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, level: Literal["token", "sequence"], cap: float
) -> Tensor:
    """min(pi_old / pi_behaviour, cap) for each token [B, T], or for each sequence as a whole [B, 1]. No gradient.

    What corrects for rows sampled by another policy, or by an engine that rounds otherwise, where `old_logp` was
    computed anew. Source: truncated importance sampling, arXiv:1712.02036 section 4; for engines, verl's and TRL's TIS.
    """
    with torch.no_grad():
        step = torch.where(mask.bool(), old_logp - behaviour_logp, 0.0)
        if level == "sequence":
            step = step.sum(-1, keepdim=True)
        return step.clamp(max=20.0).exp().clamp(max=cap)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and returns: [B, T] each, 0 where masked.

    delta_t = r_t + gamma V_{t'} - V_t and A_t = delta_t + gamma lam A_{t'}, where t' is the next token the model wrote:
    injected tokens are part of the state, not actions, and are skipped. (HiPRAG's code does not skip them; with its
    gamma = lam = 1 that changes nothing but the estimates at the injected tokens, which no loss uses.) Returns are
    A + V. Source: arXiv:1506.02438, equation 16.
    """
    advantages = torch.zeros_like(values)
    ahead = next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        own = mask[:, t].bool()
        here = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * ahead
        ahead, next_value = torch.where(own, here, ahead), torch.where(own, values[:, t], next_value)
        advantages[:, t] = torch.where(own, here, 0.0)
    return advantages, torch.where(mask.bool(), advantages + values, 0.0)


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """(v - mean) / (sd + eps) over the tokens of the mask, sd with one degree of freedom less; 0 where masked."""
    chosen = values[mask.bool()]
    if chosen.numel() < 2:
        return torch.zeros_like(values)
    return torch.where(mask.bool(), (values - chosen.mean()) / (chosen.std() + eps), 0.0)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float | None = None,
    count: Tensor | float | None = None,
) -> Tensor:
    """Half the squared error of the critic over the tokens of the mask, the worse of plain and clipped values.

    Clipped values stay within `clip` of `old_values`. Source: arXiv:1707.06347 and its released code.
    """
    error = (values - returns) ** 2
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns) ** 2)
    return 0.5 * reduced(error, mask, "token", count=count)


def dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    loss: Literal["sigmoid", "ipo"] = "sigmoid",
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    count: Tensor | float | None = None,
) -> tuple[Tensor, Stats]:
    """Direct preference optimisation over B pairs; log-probabilities [B] are sums over an answer's tokens.

    With h = (chosen - ref_chosen) - (rejected - ref_rejected): "sigmoid" is -(1 - s) log sigmoid(beta h) - s log
    sigmoid(-beta h), s = `label_smoothing` in [0, 0.5) (arXiv:2305.18290 equation 7; conservative DPO). "ipo" is
    (h - 1 / (2 beta))^2 and wants means over tokens in place of sums (arXiv:2310.12036). `weight` [B] multiplies a
    pair's loss; `count` is what the sum is divided by, B when None. Stats are sums over the pairs: `margin` (beta h),
    `accuracy` (h > 0), `rewards_chosen`, `rewards_rejected`.

    >>> pair = [torch.tensor([x]) for x in (-20.0, -25.0, -21.0, -24.0)]
    >>> round(float(dpo_loss(*pair)[0]), 6)
    0.598139
    """
    chosen, rejected = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    h = chosen - rejected
    if loss == "ipo":
        losses = (h - 1 / (2 * beta)) ** 2
    else:
        losses = -(1 - label_smoothing) * logsigmoid(beta * h) - label_smoothing * logsigmoid(-beta * h)
    if weight is not None:
        losses = losses * weight
    with torch.no_grad():
        stats = {
            "margin": (beta * h).sum(),
            "accuracy": (h > 0).to(h.dtype).sum(),
            "rewards_chosen": (beta * chosen).sum(),
            "rewards_rejected": (beta * rejected).sum(),
        }
    return losses.sum() / (losses.shape[0] if count is None else count), stats
