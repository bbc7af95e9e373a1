"""Tokens a second of policy-train's update beside a bare loop of transformers and torch.

    python bench/training.py [--rows 6] [--rounds 1] [--micro-tokens 4096] [--threads 1] [--model embedded]
                             [--json FILE]

Both train all weights of the embedded model in float32 on the same rows with the same loss, clip and optimizer step.
The bare loop is what one writes in a page: rows in the order they come, four at a time, padded on the right with an
attention mask, log-softmax over the logits of all positions. Tokens are those of the rows, prompts and all, without
padding. CPU time of one thread counts; with more --threads, or 0 for all cores, the wall clock.
"""

from __future__ import annotations

import argparse
import random
from itertools import count

import common
import torch
from common import Line

from toolroll.models.device import choose_device
from toolroll.models.load import load_causal_lm
from toolroll.train.objective import Objective
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Sample
from toolroll.train.setup import open_trainer
from toolroll.train.update import PolicyUpdate

LR = 1e-6
AT_A_TIME = 4


def measure(arguments: argparse.Namespace) -> list[Line]:
    """The one line."""
    trainer = open_trainer(TrainOptions(lr=LR, device="cpu"), arguments.model)
    update, bare, steps = (
        PolicyUpdate(trainer, Objective(micro_tokens=arguments.micro_tokens)),
        Bare(arguments.model),
        count(1),
    )
    samples = rows(arguments.rows, bare.model.config.vocab_size)
    tokens = sum(sample.length for sample in samples)
    threads = arguments.threads or choose_device("cpu").threads
    torch.set_num_threads(threads)
    ways = {"ours": lambda: update.run(samples, next(steps)), "bare loop": lambda: bare(samples)}
    clock = common.clock_of(threads)
    best = common.least({name: common.timed(way, clock) for name, way in ways.items()}, arguments.rounds)
    return [Line("policy-train", "tokens/s", tokens / best["ours"], "bare loop", tokens / best["bare loop"])]


def rows(count: int, vocabulary: int) -> list[Sample]:
    """Trajectories as long as short rollouts with searches are; two fifths of a response are injected."""
    chance = random.Random(0)
    made = []
    for _ in range(count):
        prompt = [chance.randrange(vocabulary) for _ in range(chance.randrange(120, 200))]
        response = [chance.randrange(vocabulary) for _ in range(chance.randrange(60, 400))]
        mask = [int((place // 20) % 5 < 3) for place in range(len(response))]
        made.append(Sample(prompt, response, mask, [-10.0 * own for own in mask], chance.gauss(0, 1)))
    return made


class Bare:
    """The loop one writes in a page."""

    def __init__(self, model: str) -> None:
        self.model = load_causal_lm(model, choose_device("cpu")).model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)

    def __call__(self, samples: list[Sample]) -> None:
        """One update."""
        count = sum(sum(sample.mask) for sample in samples)
        for start in range(0, len(samples), AT_A_TIME):
            part = samples[start : start + AT_A_TIME]
            longest = max(sample.length for sample in part)
            ids, keep, mask, old = (torch.zeros(len(part), longest) for _ in range(4))
            for row, sample in enumerate(part):
                begin, end = len(sample.prompt), sample.length
                ids[row, :end] = torch.tensor([*sample.prompt, *sample.response]).float()
                keep[row, :end] = 1
                mask[row, begin:end] = torch.tensor(sample.mask).float()
                old[row, begin:end] = torch.tensor(sample.logprobs)
            logits = self.model(input_ids=ids.long(), attention_mask=keep.long(), use_cache=False).logits[:, :-1]
            logp = logits.log_softmax(-1).gather(-1, ids.long()[:, 1:, None]).squeeze(-1)
            ratio = (logp - old[:, 1:]).exp()
            worth = torch.tensor([sample.advantage for sample in part])[:, None]
            objective = torch.minimum(ratio * worth, ratio.clamp(0.8, 1.2) * worth)
            loss = -(objective * mask[:, 1:]).sum() / count
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


if __name__ == "__main__":
    common.run(__doc__, measure, rows=6, rounds=1, micro_tokens=4096, threads=1, model="embedded")
