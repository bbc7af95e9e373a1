"""DUMP's claim in miniature: does drawing tasks by UCB reach an accuracy in fewer updates?

A transformer of some 300,000 parameters, trained from scratch, sorts digits. A level is how many digits there are; each
level is an arm. A short supervised warm-up on mostly easy levels is followed by GRPO with a binary reward (all digits
right), whose prompts are drawn by a policy of `toolroll.curriculum`: ucb (DUMP: k = 300, tau = 0.1, rollouts counted),
sec (alpha = 0.5, tau = 1), uniform. All policies of a seed start from the same warmed-up weights and see the same
held-out problems, decoded greedily. Nothing else differs between them.

Held out are the problems whose digits weighted by their place add up to 0 modulo 7; training never draws them.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from toolroll.curriculum.bandit import Bandit, Seen, Settings
from toolroll.curriculum.draw import independent
from toolroll.train.advantage import grpo
from toolroll.train.losses import policy_loss, token_logprobs

EQUALS, BLANK = 10, 11  #: tokens 0 to 9 are the digits
TOKENS = 12

POLICIES = {
    "ucb": Settings(policy="ucb", k=300, tau=0.1, count="rollouts"),
    "sec": Settings(policy="sec", alpha=0.5, tau=1.0),
    "uniform": Settings(policy="uniform"),
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all policies and seeds."""

    levels: tuple[int, ...] = (3, 5, 7, 9, 11, 13, 15, 17)
    width: int = 96
    layers: int = 3
    heads: int = 4
    warmup_steps: int = 400
    warmup_batch: int = 64
    warmup_decay: float = 0.6  #: a level is this much rarer in the warm-up than the one below it
    warmup_rate: float = 1e-3
    updates: int = 300
    prompts: int = 32
    samples: int = 8
    rate: float = 3e-4
    clip: float = 0.2
    max_norm: float = 1.0
    evaluate_every: int = 10
    held_out: int = 100  #: problems of each level
    target: float = 0.8


QUICK = Plan(
    levels=(2, 4), width=32, layers=1, heads=2, warmup_steps=40, updates=6, prompts=4, samples=4, evaluate_every=2,
    held_out=20, target=0.05,
)  # fmt: skip


class Problems(NamedTuple):
    """Problems padded on the left, so that all answers begin at the same place."""

    prompts: Tensor  # [B, longest + 1], ends with EQUALS
    answers: Tensor  # [B, longest], only the first `lengths` of a row count
    lengths: Tensor  # [B]

    @property
    def mask(self) -> Tensor:
        """1 where the answer has a digit: [B, longest]."""
        return (torch.arange(self.answers.shape[1]) < self.lengths[:, None]).float()


def problems(lengths: Sequence[int], longest: int, generator: torch.Generator, *, held_out: bool) -> Problems:
    """Random problems of these lengths, all held out or none."""
    length = torch.tensor(lengths)
    digits = torch.randint(10, (len(lengths), longest), generator=generator)
    present = torch.arange(longest) >= longest - length[:, None]
    place = torch.arange(longest, 0, -1)
    while (wrong := ((digits * place * present).sum(-1) % 7 == 0) != held_out).any():
        digits[wrong] = torch.randint(10, (int(wrong.sum()), longest), generator=generator)
    equals = torch.full((len(lengths), 1), EQUALS)
    answers = torch.where(present, digits, BLANK).sort(-1).values  # BLANK is above all digits
    return Problems(torch.cat([torch.where(present, digits, BLANK), equals], -1), answers, length)


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
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x)))), kept


class Learner(nn.Module):
    """A small causal transformer with learned places."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.longest = max(plan.levels)
        self.tokens = nn.Embedding(TOKENS, plan.width)
        self.places = nn.Embedding(2 * self.longest + 1, plan.width)
        self.blocks = nn.ModuleList(Block(plan.width, plan.heads) for _ in range(plan.layers))
        self.norm, self.head = nn.LayerNorm(plan.width), nn.Linear(plan.width, 10)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor, pasts: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Logits over the ten digits [B, T, 10], and what the next token needs of these."""
        start = pasts[0].shape[-2] if pasts else 0
        x = self.tokens(ids) + self.places(torch.arange(start, start + ids.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            x, past = block(x, pasts[i] if pasts else None)
            kept.append(past)
        return self.head(self.norm(x)), kept

    def answer_logits(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """Logits of each digit of given answers: [B, longest, 10]."""
        ids = torch.cat([prompts, answers[:, :-1]], -1)
        return self(ids)[0][:, self.longest :]

    @torch.no_grad()
    def answer(self, prompts: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Answers of `steps` digits, BLANK after that: [B, longest]; sampled with `generator`, greedy without."""
        answers = torch.full((len(prompts), self.longest), BLANK)
        ids, pasts = prompts, []
        for i in range(steps):
            logits, pasts = self(ids, pasts)
            last = logits[:, -1]
            ids = last.argmax(-1, True) if generator is None else last.softmax(-1).multinomial(1, generator=generator)
            answers[:, i] = ids[:, 0]
        return answers


def right(tasks: Problems, answers: Tensor) -> Tensor:
    """1 where all digits of an answer are right: [B]."""
    return ((answers == tasks.answers) | ~tasks.mask.bool()).all(-1).float()


def warmed_up(plan: Plan, seed: int) -> Learner:
    """A learner that has seen answers, mostly to easy problems."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    learner = Learner(plan)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=plan.warmup_rate, weight_decay=0.01)
    levels = torch.tensor(plan.levels)
    weights = plan.warmup_decay ** torch.arange(len(levels), dtype=torch.float)
    for step in range(plan.warmup_steps):
        optimizer.param_groups[0]["lr"] = plan.warmup_rate * min(1.0, (step + 1) / 50)
        drawn = levels[weights.multinomial(plan.warmup_batch, replacement=True, generator=generator)]
        tasks = problems(drawn.tolist(), learner.longest, generator, held_out=False)
        shown = tasks.mask.bool()
        loss = cross_entropy(learner.answer_logits(tasks.prompts, tasks.answers)[shown], tasks.answers[shown])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), plan.max_norm)
        optimizer.step()
    return learner


def accuracies(learner: Learner, tests: Mapping[str, Problems]) -> dict[str, float]:
    """The share of held-out problems solved greedily, for each level."""
    return {
        arm: float(right(tasks, learner.answer(tasks.prompts, int(tasks.lengths.max()))).mean())
        for arm, tasks in tests.items()
    }


def improve(
    learner: Learner, optimizer: torch.optim.Optimizer, lengths: Sequence[int], plan: Plan, generator: torch.Generator
) -> list[list[float]]:
    """One update by GRPO on problems of these lengths; the advantages of the samples of each problem."""
    tasks = problems(lengths, learner.longest, generator, held_out=False)
    tasks = Problems(*(part.repeat_interleave(plan.samples, 0) for part in tasks))
    answers = learner.answer(tasks.prompts, max(lengths), generator)
    rewards = right(tasks, answers).view(len(lengths), plan.samples).tolist()
    advantages = [grpo(group) for group in rewards]
    flat = torch.tensor(advantages).flatten()
    useful = flat != 0  # the others have no gradient; the loss is still divided by the number of all
    if useful.any():
        prompts, answers, mask = tasks.prompts[useful], answers[useful], tasks.mask[useful]
        written = answers.where(mask.bool(), 0)
        logp = token_logprobs(learner.answer_logits(prompts, answers), written)
        loss, _ = policy_loss(
            logp, logp.detach(), flat[useful], mask,
            clip_low=plan.clip, clip_high=plan.clip, norm="sequence", count=float(len(flat)),
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), plan.max_norm)
        optimizer.step()
    return advantages


def feedback(arms: Sequence[str], advantages: Sequence[Sequence[float]]) -> dict[str, Seen]:
    """What a batch says of each arm it holds."""
    batch: dict[str, Seen] = {}
    for arm, group in zip(arms, advantages, strict=True):
        seen = batch.setdefault(arm, Seen(last=[]))
        seen.last += [abs(a) for a in group]
        seen.rollouts += len(group)
        seen.prompts += 1
        seen.total += sum(map(abs, group))
    return batch


def run(plan: Plan, policy: str, seed: int, learner: Learner) -> dict[str, Any]:
    """Train one learner with one policy: the row that is written."""
    started = time.monotonic()
    levels = {f"{level:02d}": level for level in plan.levels}
    tests = {
        arm: problems([level] * plan.held_out, learner.longest, torch.Generator().manual_seed(level), held_out=True)
        for arm, level in levels.items()
    }
    bandit = Bandit.new(POLICIES[policy], levels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=plan.rate, weight_decay=0.0, betas=(0.9, 0.99))
    curve, drawn, signal = [], dict.fromkeys(levels, 0), 0
    for update in range(plan.updates + 1):
        probabilities = bandit.probabilities()
        if update % plan.evaluate_every == 0:
            by_level = accuracies(learner, tests)
            mean = sum(by_level.values()) / len(by_level)
            learnability = dict(zip(bandit.names, (round(x, 4) for x in bandit.learnability()), strict=True))
            shares = dict(zip(bandit.names, (round(p, 6) for p in probabilities), strict=True))
            curve.append(
                {
                    "update": update, "accuracy": round(mean, 6), "by_level": by_level, "p": shares,
                    "learnability": learnability, "drawn": dict(drawn), "groups_with_signal": signal,
                }
            )  # fmt: skip
        if update == plan.updates:
            break
        arms = [bandit.names[i] for i in independent(seed, update * plan.prompts, plan.prompts, probabilities)]
        advantages = improve(learner, optimizer, [levels[arm] for arm in arms], plan, generator)
        signal += sum(any(group) for group in advantages)
        for arm in arms:
            drawn[arm] += 1
        bandit.see(feedback(arms, advantages))
    reached = next((point["update"] for point in curve if point["accuracy"] >= plan.target), None)
    per_update = plan.prompts * plan.samples
    return {
        "policy": policy, "seed": seed,
        "steps_to_target": reached, "rollouts_to_target": None if reached is None else reached * per_update,
        "final_accuracy": curve[-1]["accuracy"], "rollouts": plan.updates * per_update,
        "parameters": sum(p.numel() for p in learner.parameters()), "duration_s": round(time.monotonic() - started, 1),
        "plan": asdict(plan), "bandit": bandit_settings(policy), "curve": curve,
    }  # fmt: skip


def bandit_settings(policy: str) -> dict[str, Any]:
    """The settings of the bandit that matter for the policy."""
    rule = POLICIES[policy]
    names = {"ucb": ("k", "tau", "c", "bonus", "count", "floor"), "sec": ("alpha", "tau", "floor"), "uniform": ()}
    return {name: getattr(rule, name) for name in names[policy]}


def missing(out: Path, policies: Sequence[str], seeds: Sequence[int], plan: Plan) -> Iterator[tuple[int, list[str]]]:
    """For each seed the policies that have no row of this plan yet."""
    wanted = json.loads(json.dumps(asdict(plan)))
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    there = {(row["policy"], row["seed"]) for row in rows if row["plan"] == wanted}
    for seed in seeds:
        if left := [policy for policy in policies if (policy, seed) not in there]:
            yield seed, left


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and append a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy of a few seconds that shows only that it runs")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/curriculum.jsonl"))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan (pilots)")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    plan = replace(plan, **{name: json.loads(value) for name, value in (pair.split("=") for pair in options.set)})
    command = shlex.join(["python", "experiments/curriculum.py", *(sys.argv[1:] if arguments is None else arguments)])
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, policies in missing(options.out, options.policies, seeds, plan):
        start = warmed_up(plan, seed)
        for policy in policies:
            row = run(plan, policy, seed, copy.deepcopy(start))
            with options.out.open("a") as out:
                out.write(json.dumps({**row, "command": command, "torch": torch.__version__}) + "\n")
            said = f"{policy} seed {seed}: target after {row['steps_to_target']}, at last {row['final_accuracy']:.3f}"
            sys.stderr.write(f"{said}, {row['duration_s']} s\n")


if __name__ == "__main__":
    main()
