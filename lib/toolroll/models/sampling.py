"""Drawing the next token, and noticing that a text has come to a stop string.

A draw depends on nothing but the logits, the settings and (seed, number of the token): not on which
other sequences share the batch, on their order or on the device. It is also stable: noise e in the
logits changes a draw with a probability of the order of e, because the token is the winner of a race
(Gumbel-max), not the place where one number falls in a long sum. The race has two rounds, first
between blocks of 256 tokens, then inside the winning block, so that it needs hundreds of random
numbers a token rather than one for each token of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toolroll.models.base import Codec, Sampling

BLOCK = 256
_NUCLEI = (64, 1024)  # how many tokens are ranked for top-p; more when they do not hold enough of the mass


def sample(
    logits: Tensor,  # [n, V]
    settings: Sequence[Sampling],
    counts: Sequence[int],
    allowed: Sequence[Tensor | None],  # bool
) -> tuple[list[int], list[float]]:
    """Draw one token a row: its id, and log softmax(logits / temperature) of it before anything is cut away.

    `counts[i]` is the number of tokens row i has drawn since its seed began. `allowed[i]` [<= V] forbids tokens where
    false and past its end; top-k, then top-p work on what it leaves. A greedy row (temperature 0) takes the most
    probable allowed token.
    """
    if not settings:
        return [], []
    scaled = logits.float()
    if any(s.temperature not in (0.0, 1.0) for s in settings):
        scaled = scaled / torch.tensor([[s.temperature or 1.0] for s in settings], device=logits.device)
    kept = _cut(scaled, settings, allowed)
    random = [i for i, s in enumerate(settings) if s.temperature > 0]
    if len(random) == len(settings):
        chosen = _race(kept, settings, counts)
    else:
        chosen = kept.argmax(-1)
        if random:
            chosen[random] = _race(kept[random], [settings[i] for i in random], [counts[i] for i in random])
    logprobs = scaled.gather(1, chosen[:, None])[:, 0] - scaled.logsumexp(-1)
    return chosen.tolist(), logprobs.tolist()


def gumbel(seed: int, count: int, size: int) -> np.ndarray:  # [size] float64
    """Standard Gumbel noise number `count` of `seed`: the same on every machine and numpy version."""
    bits = np.random.Philox(key=seed & (2**128 - 1), counter=[0, 0, 0, count]).random_raw(size)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise


def _race(kept: Tensor, settings: Sequence[Sampling], counts: Sequence[int]) -> Tensor:  # [n, V] -> [n]
    rows, vocabulary = kept.shape
    blocks = -(-vocabulary // BLOCK)
    noise = np.stack([gumbel(s.seed, count, blocks + BLOCK) for s, count in zip(settings, counts, strict=True)])
    noise = torch.from_numpy(noise).to(kept.device, torch.float32)
    parts = functional.pad(kept, (0, blocks * BLOCK - vocabulary), value=float("-inf")).view(rows, blocks, BLOCK)
    block = (parts.logsumexp(-1) + noise[:, :blocks]).argmax(-1)
    inside = (parts[torch.arange(rows, device=kept.device), block] + noise[:, blocks:]).argmax(-1)
    return block * BLOCK + inside


def _cut(scaled: Tensor, settings: Sequence[Sampling], allowed: Sequence[Tensor | None]) -> Tensor:
    """`scaled` [n, V] with -inf where a row's mask, top-k or top-p forbids a token; the same tensor when none does."""
    kept = scaled
    if any(mask is not None for mask in allowed):
        kept = scaled.clone()
        for row, mask in zip(kept, allowed, strict=True):
            if mask is not None:
                row[: len(mask)].masked_fill_(~mask.to(row.device), float("-inf"))
                row[len(mask) :] = float("-inf")
    ranked = [i for i, s in enumerate(settings) if s.temperature > 0 and s.top_k > 0]
    if ranked:
        best = kept[ranked].topk(min(kept.shape[1], max(settings[i].top_k for i in ranked))).values
        last = [min(settings[i].top_k, best.shape[1]) - 1 for i in ranked]
        kept = _drop_below(kept, ranked, best[range(len(ranked)), last])
    nucleus = [i for i, s in enumerate(settings) if s.temperature > 0 and s.top_p < 1]
    if nucleus:
        shares = torch.tensor([settings[i].top_p for i in nucleus], device=kept.device)
        kept = _drop_below(kept, nucleus, _nucleus_floor(kept[nucleus], shares))
    return kept


def _drop_below(kept: Tensor, rows: list[int], floor: Tensor) -> Tensor:
    kept = kept.clone()
    part = kept[rows]
    kept[rows] = part.masked_fill_(part < floor[:, None], float("-inf"))
    return kept


def _nucleus_floor(kept: Tensor, shares: Tensor) -> Tensor:  # [n, V], [n] -> [n]
    """The smallest logit of the fewest tokens that hold at least `shares` of the probability."""
    total = kept.logsumexp(-1, keepdim=True)
    floor = torch.empty_like(shares)
    rows = torch.arange(len(shares), device=kept.device)
    for ranked in (*(size for size in _NUCLEI if size < kept.shape[1]), kept.shape[1]):
        best = kept[rows].topk(ranked).values
        mass = (best - total[rows]).exp().cumsum(-1)
        needed = 1 + (mass[:, :-1] < shares[rows, None]).sum(-1)
        floor[rows] = best.gather(1, needed[:, None] - 1)[:, 0]
        rows = rows[mass[:, -1] < shares[rows]]
        if not len(rows):
            break
    return floor


class StopWatch:
    """Tells which of several strings a growing text has just completed; reads each token once."""

    def __init__(self, codec: Codec, strings: Sequence[str]) -> None:
        self._codec = codec
        self._strings = strings
        self._reach = max(map(len, strings), default=1) - 1
        self._tail = ""
        self._ids: list[int] = []  # the tokens whose text is not final, after those that give it its context
        self._context = 0

    def push(self, token: int) -> str | None:
        """The stop string that `token` completes (the first in the text, the longest of several), or None."""
        if not self._strings:
            return None
        self._ids.append(token)
        known, text = self._codec.decode(self._ids[: self._context]), self._codec.decode(self._ids)
        new = text[len(known) :]
        window = self._tail + new
        found = [(at, -len(s), s) for s in self._strings if (at := window.find(s)) >= 0]
        if not text.endswith("\ufffd"):  # else a character is cut in two: wait for its other bytes
            self._ids, self._context = self._ids[self._context :], len(self._ids) - self._context
            self._tail = window[max(0, len(window) - self._reach) :]
        return min(found)[2] if found else None
