"""Log-probabilities of the tokens a model wrote, without the logits of any other token.

A vocabulary is large: the logits of all positions are most of a step's memory and much of its time. Only positions
that predict a token of the mask go through the output layer, some at a time; the backward pass makes their logits
anew when they would fill too much memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from toolroll.train.batch import Padded
from toolroll.train.losses import entropy as entropy_of
from toolroll.train.losses import token_logprobs

PART_BYTES = 128 << 20  #: logits made at a time
KEPT_BYTES = 512 << 20  #: logits kept for the backward pass; more are made anew
_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class Scorer:
    """A causal language model as a function from padded sequences to the log-probabilities of their responses."""

    def __init__(self, model: Any) -> None:
        self.model = model
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._decoder, self._head = inner.get_decoder(), inner.get_output_embeddings()
        self.direct = type(self._head) is nn.Linear and self._decoder is not inner and self._agrees(inner)

    def __call__(self, batch: Padded, temperature: float = 1.0, *, want_entropy: bool = True) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies in nats, [B, T] each, 0 where masked.

        Both have gradients. Without `want_entropy` the entropies are zeros.
        """
        chosen = batch.targets[batch.mask.bool()]
        if self.direct and not batch.features:
            states = self._decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
            states = states.reshape(-1, states.shape[-1]).index_select(0, batch.before)
            logp, spread = _HeadLogprobs.apply(
                states, self._head.weight, self._head.bias, chosen, temperature, want_entropy
            )
        else:
            logits = self.model(
                input_ids=batch.ids, attention_mask=batch.seen, use_cache=False, **batch.features
            ).logits
            logits = logits.reshape(-1, logits.shape[-1]).index_select(0, batch.before)
            logp = token_logprobs(logits, chosen, temperature)
            spread = entropy_of(logits, temperature) if want_entropy else torch.zeros_like(logp)
        return batch.spread(logp), batch.spread(spread)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _agrees(self, inner: Any) -> bool:
        """Whether the model's logits are those of its output layer alone: some scale or cap them, too."""
        if any(getattr(inner.config, name, None) not in (None, 1, 1.0) for name in _SCALES):
            return False
        device = self._head.weight.device
        ids = torch.arange(1, 9, device=device).unsqueeze(0) % self._head.weight.shape[0]
        states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        logits = inner(input_ids=ids, use_cache=False).logits
        return bool(torch.allclose(self._head(states), logits, rtol=1e-4, atol=1e-4))


class _HeadLogprobs(torch.autograd.Function):  # type: ignore[misc]
    """[N, H] states -> ([N] log-probabilities of `ids`, [N] entropies) of softmax(states W' + b) at a temperature."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        temperature: float,
        want_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        size = max(1, PART_BYTES // (4 * weight.shape[0]))
        logp, spread, sums = (states.new_empty(states.shape[0], dtype=torch.float32) for _ in range(3))
        spread.zero_()
        keep = any(ctx.needs_input_grad[:3]) and states.shape[0] * weight.shape[0] * 4 <= KEPT_BYTES
        kept = []
        for start in range(0, states.shape[0], size):
            part = slice(start, start + size)
            logits = _logits(states[part], weight, bias, temperature)
            total = torch.logsumexp(logits, -1)
            logp[part] = logits.gather(-1, ids[part, None]).squeeze(-1) - total
            if want_entropy:
                spread[part] = total - torch.linalg.vecdot((logits - total[:, None]).exp_(), logits)
            sums[part] = total
            if keep:
                kept.append(logits)
        ctx.save_for_backward(states, weight, bias, ids, sums, spread)
        ctx.temperature, ctx.size, ctx.kept = temperature, size, kept
        ctx.set_materialize_grads(False)
        return logp, spread

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g_logp: Tensor | None, g_entropy: Tensor | None) -> tuple[Any, ...]:
        """With z the logits over the temperature: d logp / d z_j = [j = id] - p_j, d H / d z_j = -p_j (log p_j + H)."""
        states, weight, bias, ids, sums, spread = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        g_states = torch.empty_like(states) if wanted[0] else None
        g_weight = torch.zeros_like(weight) if wanted[1] else None
        g_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        g_logp = torch.zeros_like(sums) if g_logp is None else g_logp
        for number, start in enumerate(range(0, states.shape[0], ctx.size)):
            part = slice(start, start + ctx.size)
            logits = ctx.kept[number] if ctx.kept else _logits(states[part], weight, bias, ctx.temperature)
            log_p = logits - sums[part, None]
            if g_entropy is None:
                grad = log_p.exp_().mul_(-g_logp[part, None])
            else:
                pull = (log_p + spread[part, None]).mul_(g_entropy[part, None]).add_(g_logp[part, None])
                grad = log_p.exp_().mul_(pull).neg_()
            grad.scatter_add_(-1, ids[part, None], g_logp[part, None])
            grad = grad.div_(ctx.temperature).to(states.dtype) if ctx.temperature != 1.0 else grad.to(states.dtype)
            if g_states is not None:
                torch.mm(grad, weight.to(states.dtype), out=g_states[part])
            if g_weight is not None:
                _add_product(g_weight, grad, states[part])
            if g_bias is not None:
                g_bias += grad.sum(0).to(g_bias.dtype)
        ctx.kept = []
        return g_states, g_weight, g_bias, None, None, None


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = linear(states, weight.to(states.dtype), None if bias is None else bias.to(states.dtype)).float()
    return logits if temperature == 1.0 else logits / temperature


def _add_product(total: Tensor, grad: Tensor, states: Tensor) -> None:
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), states)
    else:
        total += (grad.t() @ states).to(total.dtype)
