"""Sorting digits, a family of tasks of graded difficulty, and a small transformer that learns it.

A level is how many digits there are. A prompt is the digits, padded on the left, and an equals sign; the answer is the
digits in rising order. Problems whose digits weighted by their place (1 for the last) add up to 0 modulo 7 are held
out: training never draws them. B is problems, L the longest level, T tokens, D the width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

EQUALS, BLANK = 10, 11  #: tokens 0 to 9 are the digits
TOKENS = 12


class Problems(NamedTuple):
    """Problems padded on the left, so that all answers begin at the same place."""

    prompts: Tensor  # [B, L + 1], tokens, ends with EQUALS
    answers: Tensor  # [B, L], tokens, only the first `lengths` of a row count
    lengths: Tensor  # [B], digits

    @property
    def mask(self) -> Tensor:
        """1 where the answer has a digit: [B, L]."""
        return (torch.arange(self.answers.shape[1]) < self.lengths[:, None]).float()

    def repeated(self, times: int) -> Problems:
        """Each problem `times` times in a row."""
        return Problems(*(part.repeat_interleave(times, 0) for part in self))


def problems(lengths: Sequence[int], longest: int, generator: torch.Generator, *, held_out: bool) -> Problems:
    """Random problems of these lengths, 1 to `longest` digits each, all held out or none."""
    length = torch.tensor(lengths)
    digits = torch.randint(10, (len(lengths), longest), generator=generator)
    present = torch.arange(longest) >= longest - length[:, None]
    place = torch.arange(longest, 0, -1)
    while (wrong := ((digits * place * present).sum(-1) % 7 == 0) != held_out).any():
        digits[wrong] = torch.randint(10, (int(wrong.sum()), longest), generator=generator)
    shown = torch.where(present, digits, BLANK)
    equals = torch.full((len(lengths), 1), EQUALS)
    return Problems(torch.cat([shown, equals], -1), shown.sort(-1).values, length)  # BLANK is above all digits


def right(tasks: Problems, answers: Tensor) -> Tensor:
    """1 where all digits of an answer are right, 0 elsewhere: answers [B, L] -> [B]."""
    return ((answers == tasks.answers) | ~tasks.mask.bool()).all(-1).float()


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm and beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, T, D] -> [B, T, D] and keys and values [2, B, H, T_all, D / H]. With a past, T must be 1."""
        batch, steps, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        kept = qkv[1:] if past is None else torch.cat([past, qkv[1:]], -2)
        seen = scaled_dot_product_attention(qkv[0], kept[0], kept[1], is_causal=past is None)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, steps, width))
        return x + self.down(gelu(self.up(self.norm2(x)))), kept


class Learner(nn.Module):
    """A small causal transformer with learned places."""

    def __init__(self, longest: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.longest = longest
        self.tokens = nn.Embedding(TOKENS, width)
        self.places = nn.Embedding(2 * longest + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor, pasts: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """[B, T] -> logits over the ten digits [B, T, 10], and of each block what the next token needs of these."""
        start = pasts[0].shape[-2] if pasts else 0
        x = self.tokens(ids) + self.places(torch.arange(start, start + ids.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            x, past = block(x, pasts[i] if pasts else None)
            kept.append(past)
        return self.head(self.norm(x)), kept

    def answer_logits(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """Logits of each digit of given answers: [B, L + 1], [B, T] -> [B, T, 10]."""
        ids = torch.cat([prompts, answers[:, :-1]], -1)
        return self(ids)[0][:, self.longest :]

    def greedy(self, tasks: Problems) -> Tensor:
        """The most probable digits of an answer to each problem, BLANK after its length: [B, L]."""
        return self._written(tasks, lambda logits: logits.argmax(-1))

    def sampled(self, tasks: Problems, samples: int, generator: torch.Generator) -> Tensor:
        """`samples` answers to each problem in a row, at temperature 1: [B * samples, L]."""
        return self._written(
            tasks, lambda logits: logits.softmax(-1).multinomial(1, generator=generator)[:, 0], samples
        )

    def _written(self, tasks: Problems, choose: Callable[[Tensor], Tensor], samples: int = 1) -> Tensor:
        """Answers whose digits `choose` takes from logits [rows, 10]; the longest come first while writing."""
        order = tasks.lengths.argsort(descending=True, stable=True)
        remaining = tasks.lengths[order].repeat_interleave(samples)
        answers = torch.full((len(remaining), self.longest), BLANK)
        with torch.no_grad():
            logits, pasts = self(tasks.prompts[order])  # once for all samples of a prompt
            logits = logits[:, -1].repeat_interleave(samples, 0)
            pasts = [past.repeat_interleave(samples, 1) for past in pasts]
            for i in range(int(remaining[0])):
                writing = int((remaining > i).sum())
                if i:
                    logits, pasts = self(answers[:writing, i - 1 : i], [past[:, :writing] for past in pasts])
                    logits = logits[:, -1]
                answers[:writing, i] = choose(logits[:writing])
        return answers.view(len(order), samples, -1)[order.argsort()].flatten(0, 1)
