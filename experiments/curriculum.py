"""DUMP's claim in miniature: does drawing tasks by UCB reach an accuracy in fewer updates?

A transformer of some 240,000 parameters, trained from scratch, sorts digits. A level is how many digits there are; each
of twelve levels is an arm. A short supervised warm-up on mostly easy levels is followed by GRPO with a binary reward
(all digits right), whose prompts are drawn by a policy of `toolroll.curriculum`. All policies of a seed start from the
same warmed-up weights and see the same held-out problems, decoded greedily. Nothing else differs between them.

Rows go to a file, one for each run. A run whose row is there is not made again, so that what was killed goes on.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from recorded import append, as_read, changed, missing, parser_of
from sorting import Learner, Problems, problems, right
from torch import nn
from torch.nn.functional import cross_entropy

from toolroll.curriculum.bandit import Bandit, Seen, Settings
from toolroll.curriculum.draw import independent
from toolroll.train.advantage import grpo
from toolroll.train.losses import policy_loss, token_logprobs

RESULTS = Path(__file__).parent / "results" / "curriculum.jsonl"

#: DUMP's k = 300 and tau = 0.1, counting prompts or rollouts; SEC's alpha = 0.5, tau = 1 and a sharper one
POLICIES = {
    "uniform": Settings(policy="uniform"),
    "sec": Settings(policy="sec", alpha=0.5, tau=1.0),
    "sec-sharp": Settings(policy="sec", alpha=0.5, tau=0.2),
    "ucb-prompts": Settings(policy="ucb", k=300, tau=0.1, count="prompts"),
    "ucb-rollouts": Settings(policy="ucb", k=300, tau=0.1, count="rollouts"),
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all policies and seeds."""

    levels: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)  #: digits
    width: int = 80
    layers: int = 3
    heads: int = 4
    warmup_steps: int = 150
    warmup_batch: int = 64
    warmup_decay: float = 0.5  #: a level is this much rarer in the warm-up than the one below it
    warmup_rate: float = 1e-3
    updates: int = 300
    prompts: int = 32
    samples: int = 8
    rate: float = 2e-4
    clip: float = 0.2
    max_norm: float = 1.0
    evaluate_every: int = 10  #: updates
    held_out: int = 100  #: problems of each level
    target: float = 0.65  #: mean held-out accuracy over the levels
    looks: int = 3  #: evaluations in a row whose mean has to be at the target


FIRST_SEED = 11  #: the plan was chosen on others

QUICK = Plan(
    levels=(2, 4), width=32, layers=1, heads=2, warmup_steps=40, updates=6, prompts=4, samples=4, evaluate_every=2,
    held_out=20, target=0.05,
)  # fmt: skip


def arms_of(plan: Plan) -> dict[str, int]:
    """The name of each arm, which sorts as the levels do, and its level."""
    return {f"{level:02d}": level for level in plan.levels}


def warmed_up(plan: Plan, seed: int) -> Learner:
    """A learner that has seen answers, mostly to easy problems."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    learner = Learner(max(plan.levels), plan.width, plan.layers, plan.heads)
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


def tests_of(plan: Plan) -> dict[str, Problems]:
    """Held-out problems of each level, the same for all seeds."""
    return {
        arm: problems([level] * plan.held_out, max(plan.levels), torch.Generator().manual_seed(level), held_out=True)
        for arm, level in arms_of(plan).items()
    }


def accuracies(learner: Learner, tests: Mapping[str, Problems]) -> dict[str, float]:
    """The share of held-out problems solved greedily, for each level: in [0, 1]."""
    return {arm: float(right(tasks, learner.greedy(tasks)).mean()) for arm, tasks in tests.items()}


def improve(
    learner: Learner, optimizer: torch.optim.Optimizer, lengths: Sequence[int], plan: Plan, generator: torch.Generator
) -> list[list[float]]:
    """One update by GRPO on problems of these lengths; the advantages of the samples of each problem."""
    tasks = problems(lengths, learner.longest, generator, held_out=False)
    answers = learner.sampled(tasks, plan.samples, generator)
    tasks = tasks.repeated(plan.samples)
    rewards = right(tasks, answers).view(len(lengths), plan.samples).tolist()
    advantages = [grpo(group) for group in rewards]
    flat = torch.tensor(advantages).flatten()
    useful = flat != 0  # the others have no gradient; the loss is still divided by the number of all
    if useful.any():
        prompts, end = tasks.prompts[useful], int(tasks.lengths[useful].max())
        answers, mask = answers[useful, :end], tasks.mask[useful, :end]
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


class Curve:
    """What is measured on the way, every `evaluate_every` updates; lists of the same length."""

    def __init__(self, arms: Sequence[str]) -> None:
        self.updates: list[int] = []
        self.accuracy: list[float] = []
        self.by_level: dict[str, list[float]] = {arm: [] for arm in arms}
        self.p: dict[str, list[float]] = {arm: [] for arm in arms}

    def add(self, update: int, accuracy: Mapping[str, float], p: Sequence[float]) -> None:
        """Measure after so many updates; `p` is what the next batch is drawn by."""
        self.updates.append(update)
        self.accuracy.append(round(sum(accuracy.values()) / len(accuracy), 4))
        for (arm, value), probability in zip(accuracy.items(), p, strict=True):
            self.by_level[arm].append(round(value, 3))
            self.p[arm].append(round(probability, 4))

    def reached(self, target: float, looks: int) -> int | None:
        """Updates until the mean accuracy of the last `looks` evaluations is at the target; None if it never is."""
        last = (self.accuracy[max(0, i + 1 - looks) : i + 1] for i in range(len(self.accuracy)))
        return next((u for u, seen in zip(self.updates, last, strict=True) if sum(seen) >= target * len(seen)), None)


def run(plan: Plan, policy: str, seed: int, learner: Learner) -> dict[str, Any]:
    """Train one learner with one policy: the row that is written."""
    started = time.monotonic()
    levels, tests = arms_of(plan), tests_of(plan)
    bandit = Bandit.new(POLICIES[policy], levels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=plan.rate, weight_decay=0.0, betas=(0.9, 0.99))
    curve, drawn, useful = Curve(bandit.names), dict.fromkeys(levels, 0), 0
    for update in range(plan.updates + 1):
        probabilities = bandit.probabilities()
        if update % plan.evaluate_every == 0:
            curve.add(update, accuracies(learner, tests), probabilities)
        if update == plan.updates:
            break
        arms = [bandit.names[i] for i in independent(seed, update * plan.prompts, plan.prompts, probabilities)]
        advantages = improve(learner, optimizer, [levels[arm] for arm in arms], plan, generator)
        useful += sum(any(group) for group in advantages)
        for arm in arms:
            drawn[arm] += 1
        bandit.see(feedback(arms, advantages))
    return {
        "policy": policy, "seed": seed, "updates_to_target": curve.reached(plan.target, plan.looks),
        "final_accuracy": curve.accuracy[-1], "useful_frac": round(useful / (plan.updates * plan.prompts), 4),
        "duration_s": round(time.monotonic() - started, 1), "parameters": sum(p.numel() for p in learner.parameters()),
        "torch": torch.__version__, "plan": asdict(plan), "bandit": bandit_settings(policy), "drawn": drawn,
        "curve": vars(curve),
    }  # fmt: skip


def bandit_settings(policy: str) -> dict[str, Any]:
    """The settings of the bandit that matter for the policy."""
    rule = POLICIES[policy]
    names = {"ucb": ("k", "tau", "c", "bonus", "count", "floor"), "sec": ("alpha", "tau", "floor"), "uniform": ()}
    return {name: getattr(rule, name) for name in names[rule.policy]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and append a row for each run."""
    parser = parser_of(__doc__ or "", list(POLICIES), option="--policies", first_seed=FIRST_SEED, out=RESULTS)
    options = parser.parse_args(arguments)
    plan = changed(QUICK if options.quick else Plan(), options.set)
    torch.set_num_threads(1)
    wanted = as_read(plan)

    def is_of(row: Mapping[str, Any]) -> bool:
        return bool(row["plan"] == wanted and row["bandit"] == bandit_settings(row["policy"]))

    for seed, policies in missing(options, is_of, field="policy"):
        start = warmed_up(plan, seed)
        for policy in policies:
            row = run(plan, policy, seed, copy.deepcopy(start))
            append(row, options.out)
            said = f"{policy} seed {seed}: target after {row['updates_to_target']}, at last {row['final_accuracy']:.3f}"
            sys.stderr.write(f"{said}, {row['duration_s']} s\n")


if __name__ == "__main__":
    main()
