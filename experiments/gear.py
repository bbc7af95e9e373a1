"""GEAR's claim in miniature: does mixing pairs by momentum make more diverse sets of hypotheses than equal shares do?

A transformer of some 110,000 parameters, trained from scratch, writes programs on lists of digits that are to agree
with two observations, three to a set, each in view of those before. A supervised warm-up shows programs of which only
some agree, or are programs at all. What it then says about training problems is made into preference pairs by the
library's rules, each with its reason: parsing, inconsistent, fair. From there DPO goes on for some epochs, with the
start as its reference. The arms of a seed share start, pairs, their order and the held-out problems; they differ in
how many pairs of each reason an epoch has.

Rows go to a file, one for each run. A run whose row is there is not made again, so that what was killed goes on.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from listprograms import (
    SET,
    SLOT,
    WRITTEN,
    Problem,
    Tokens,
    Writer,
    drawn_program,
    output,
    parsed,
    sample_space,
    sequence,
)
from listprograms import problems as problems_of
from recorded import append, as_read, changed, missing, parser_of
from torch import Tensor, nn

from toolroll.abduction import pairs as rules
from toolroll.abduction.matrix import Matrix
from toolroll.abduction.momentum import Curriculum, Rule, quota
from toolroll.abduction.summary import FIGURES, Tally
from toolroll.abduction.trial import Outputs, Trial
from toolroll.abduction.verdict import Rules, judge, row_fields
from toolroll.run.seeds import record_seed
from toolroll.train.losses import dpo_loss

RESULTS = Path(__file__).parent / "results" / "gear.jsonl"
REASONS = ("parsing", "inconsistent", "fair")
FIRST_SEED = 51  #: the plan was chosen on seed 1

#: the weight of each reason in an epoch; None: by momentum
ARMS: dict[str, dict[str, float] | None] = {
    "equal": dict.fromkeys(REASONS, 1.0),
    "momentum": None,
    "consistency": {"inconsistent": 1.0},
    "fair": {"fair": 1.0},
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all arms and seeds."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    warmup_steps: int = 700
    warmup_batch: int = 64
    warmup_rate: float = 1e-3
    hidden: float = 0.6  #: share of the warm-up's programs that are the hidden one
    broken: float = 0.25  #: share of the others that are no program
    problems: int = 800  #: that pairs are made of
    chains: int = 4  #: sets for each of them
    probed: float = 0.15  #: share of the problems whose pairs only probe the losses
    most_valid: int = 6
    per_context: int = 15
    pool: int = 4000  #: pairs of a reason, at most
    probes: int = 200  #: pairs of a reason that probe the loss, at most
    epochs: int = 8
    pairs: int = 480  #: of an epoch
    batch: int = 32
    beta: float = 0.5
    rate: float = 1e-4
    max_norm: float = 1.0
    held_out: int = 300  #: problems
    asked: int = 4  #: sets for each
    space: int = 100  #: unseen inputs


QUICK = Plan(
    width=32, layers=1, heads=2, warmup_steps=100, warmup_batch=16, warmup_rate=3e-3, hidden=0.95, problems=800,
    chains=2, probed=0.5, pool=60, probes=20, epochs=2, pairs=30, batch=10, held_out=60, asked=1, space=30,
)  # fmt: skip


@cache
def _predictions(tokens: Tokens, space: int) -> Matrix:
    """The numbers of a program's outputs on the sample space."""
    program = parsed(tokens)
    assert program is not None
    made = [output(program, given) for given in sample_space(space)]
    return _outputs().ids([None if digits is None else bytes(digits) for digits in made])


@cache
def _outputs() -> Outputs:
    """One numbering of outputs for all problems."""
    return Outputs()


def trial(problem: Problem, tokens: Tokens, space: int) -> Trial:
    """What came of a program that was written for a problem."""
    program = parsed(tokens)
    if program is None:
        return Trial("parse_error")
    failed = [i for i, (given, made) in enumerate(problem.observations) if output(program, given) != made]
    return Trial("inconsistent" if failed else "consistent", failed=failed, ids=_predictions(tokens, space))


def warmup_program(problem: Problem, plan: Plan, rng: random.Random) -> Tokens:
    """The hidden program, or any other, or tokens that are no program."""
    if rng.random() < plan.hidden:
        return problem.hidden
    if rng.random() >= plan.broken:
        return drawn_program(rng)
    tokens: Tokens = ()
    while not tokens or parsed(tokens) is not None:
        tokens = (*rng.choices(range(WRITTEN - 1), k=rng.randint(1, SLOT - 1)), WRITTEN - 1)
    return tokens


def warmed_up(plan: Plan, seed: int) -> Writer:
    """A writer that has seen sets of which a part agrees."""
    torch.manual_seed(seed)
    rng = random.Random(record_seed(seed, "warm-up"))
    writer = Writer(plan.width, plan.layers, plan.heads)
    optimizer = torch.optim.AdamW(writer.parameters(), lr=plan.warmup_rate, weight_decay=0.01)
    tasks = problems_of(rng, held_out=False)
    for step in range(plan.warmup_steps):
        optimizer.param_groups[0]["lr"] = plan.warmup_rate * min(1.0, (step + 1) / 50)
        batch = [
            sequence(task, [warmup_program(task, plan, rng) for _ in range(SET)])
            for task in islice(tasks, plan.warmup_batch)
        ]
        update(writer, optimizer, -writer.logprobs(torch.tensor(batch)).sum() / len(batch) / SET, plan)
    return writer


def update(writer: Writer, optimizer: torch.optim.Optimizer, loss: Tensor, plan: Plan) -> None:
    """One step down a loss."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(writer.parameters(), plan.max_norm)
    optimizer.step()


class Pool(NamedTuple):
    """Pairs of one reason: chosen and rejected sequences, whose last program is the answer, in which slot it is."""

    ids: Tensor  # [N, 2, T]
    slots: Tensor  # [N]
    reference: Tensor  # [N, 2], log-probabilities under the start

    def answers(self, writer: Writer) -> Tensor:
        """Log-probabilities of the answers: [N, 2]."""
        found = writer.logprobs(self.ids.flatten(0, 1)).sum(-1)
        return found.gather(1, self.slots.repeat_interleave(2)[:, None]).view(-1, 2)

    def chosen(self, places: Tensor) -> Pool:
        """Some of the pairs."""
        return Pool(*(part[places] for part in self))

    def loss(self, writer: Writer, beta: float) -> Tensor:
        """DPO's, the mean over the pairs."""
        now, before = self.answers(writer), self.reference
        return dpo_loss(now[:, 0], now[:, 1], before[:, 0], before[:, 1], beta=beta)[0]


class Start(NamedTuple):
    """What the arms of a seed share: the writer, pairs by reason to train on and to probe with, problems to test."""

    writer: Writer
    pools: dict[str, Pool]
    probes: dict[str, Pool]
    tests: list[Problem]


def pairs_of(
    problem: Problem, said: Sequence[Tokens], plan: Plan, seed: int
) -> Iterator[tuple[str, int, list[list[int]]]]:
    """The pairs of what was said about a problem, as gear-pairs makes them: reason, slot of the answer, sequences."""
    trials = [trial(problem, tokens, plan.space) for tokens in said]
    valid = [place for place, one in enumerate(trials) if one.status == "consistent"]
    made = rules.Plan(tuple(range(SET)), plan.most_valid, plan.per_context, seed)
    for context in rules.contexts(valid, made):
        known = [ids for place in context if (ids := trials[place].ids) is not None]
        referee = rules.Judge(known, plan.space, rules.Weights())
        for pair in rules.answer_pairs(len(said), context, made):
            found = rules.compare(referee, trials, *pair)
            if found.better is not None:
                before = [said[place] for place in context]
                answers = (said[pair[found.better]], said[pair[1 - found.better]])
                yield found.reason, len(context), [sequence(problem, [*before, answer]) for answer in answers]


def pooled(
    writer: Writer,
    tasks: Sequence[Problem],
    said: Sequence[Sequence[Sequence[Tokens]]],
    plan: Plan,
    seed: int,
    most: int,
) -> dict[str, Pool]:
    """At most so many pairs of each reason, of what was said about some problems."""
    found: dict[str, list[tuple[int, list[list[int]]]]] = {reason: [] for reason in REASONS}
    for number, (task, sets) in enumerate(zip(tasks, said, strict=True)):
        flat = [tokens for one in sets for tokens in one]
        for reason, slot, ids in pairs_of(task, flat, plan, record_seed(seed, "pairs", number)):
            found[reason].append((slot, ids))
    pools = {}
    for reason, those in found.items():
        if not those:
            raise SystemExit(f"seed {seed}: what the warmed-up writer says makes no pair about {reason}")
        kept = random.Random(record_seed(seed, "pool", reason)).sample(those, min(most, len(those)))
        pool = Pool(torch.tensor([ids for _, ids in kept]), torch.tensor([slot for slot, _ in kept]), torch.empty(0))
        with torch.no_grad():
            pools[reason] = pool._replace(reference=pool.answers(writer))
    return pools


def started(plan: Plan, seed: int) -> Start:
    """Warm up, sample, make pairs: what all arms of a seed begin with."""
    writer = warmed_up(plan, seed)
    rng = random.Random(record_seed(seed, "problems"))
    tasks = list(islice(problems_of(rng, held_out=False), plan.problems))
    said = writer.sampled(tasks, plan.chains, torch.Generator().manual_seed(seed))
    probing = round(plan.problems * plan.probed)
    probes = pooled(writer, tasks[:probing], said[:probing], plan, seed, plan.probes)
    pools = pooled(writer, tasks[probing:], said[probing:], plan, seed, plan.pool)
    tests = list(islice(problems_of(random.Random(2025), held_out=True), plan.held_out))
    return Start(writer, pools, probes, tests)


def examined(writer: Writer, tests: Sequence[Problem], plan: Plan, seed: int) -> dict[str, Any]:
    """What gear-stats says of held-out problems as the released tables count, and different valid programs of a set."""
    tally, distinct = Tally(paired=True), 0
    said = writer.sampled(tests, plan.asked, torch.Generator().manual_seed(seed))
    for problem, sets in zip(tests, said, strict=True):
        for programs in sets:
            trials = [trial(problem, tokens, plan.space) for tokens in programs]
            fields = row_fields(judge(trials, plan.space, Rules()), Rules())
            tally.add(None, fields)
            distinct += fields["distinct"]
    row = tally.report()[-1]
    figures = {name: None if row[name] is None else round(row[name], 5) for name in FIGURES}
    return {**figures, "distinct": round(distinct / row["n_problems"], 5), "n_paired": row["n_beta_struct"]}


def epoch_batches(pools: Mapping[str, Pool], shares: Mapping[str, int], plan: Plan, key: Sequence[int]) -> list[Pool]:
    """The pairs of an epoch in batches. More of a reason adds pairs to those that less would have."""
    parts = []
    for reason, count in shares.items():
        generator = torch.Generator().manual_seed(record_seed(*key, reason))
        pool = pools[reason]
        parts.append(pool.chosen(torch.randperm(len(pool.ids), generator=generator)[:count]))
    together = Pool(*map(torch.cat, zip(*parts, strict=True)))
    order = torch.randperm(len(together.ids), generator=torch.Generator().manual_seed(record_seed(*key)))
    return [together.chosen(places) for places in order.split(plan.batch)]


def run(plan: Plan, arm: str, seed: int, start: Start) -> dict[str, Any]:
    """Train a copy of the start with the mixture of an arm: the row that is written."""
    begun = time.monotonic()
    writer = copy.deepcopy(start.writer)
    optimizer = torch.optim.AdamW(writer.parameters(), lr=plan.rate, weight_decay=0.0)
    curriculum = Curriculum(REASONS, Rule())
    exams, losses, quotas = [examined(writer, start.tests, plan, seed)], [], []
    for epoch in range(plan.epochs + 1):
        losses.append(probed(writer, start.probes, plan))
        told = [curriculum.take(reason, epoch, loss) for reason, loss in losses[-1].items()][-1]
        if epoch == plan.epochs:
            break
        assert told is not None
        quotas.append(quota(ARMS[arm] or told.ratios, plan.pairs))
        for batch in epoch_batches(start.pools, quotas[-1], plan, (seed, epoch)):
            update(writer, optimizer, batch.loss(writer, plan.beta), plan)
        exams.append(examined(writer, start.tests, plan, seed))
    return {
        "arm": arm, "seed": seed, "exams": exams, "losses": losses, "quotas": quotas,
        "pools": {reason: len(pool.ids) for reason, pool in start.pools.items()},
        "parameters": sum(p.numel() for p in writer.parameters()), "torch": torch.__version__,
        "duration_s": round(time.monotonic() - begun, 1), "plan": asdict(plan),
    }  # fmt: skip


@torch.no_grad()
def probed(writer: Writer, probes: Mapping[str, Pool], plan: Plan) -> dict[str, float]:
    """The loss on pairs that nobody trains on, by reason."""
    return {reason: round(float(pool.loss(writer, plan.beta)), 6) for reason, pool in probes.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and append a row for each run."""
    parser = parser_of(__doc__ or "", list(ARMS), option="--arms", first_seed=FIRST_SEED, out=RESULTS)
    options = parser.parse_args(arguments)
    plan = changed(QUICK if options.quick else Plan(), options.set)
    torch.set_num_threads(1)
    wanted = as_read(plan)

    def is_of(row: Mapping[str, Any]) -> bool:
        return bool(row["plan"] == wanted)

    for seed, arms in missing(options, is_of):
        start = started(plan, seed)
        for arm in arms:
            row = run(plan, arm, seed, start)
            append(row, options.out)
            last = row["exams"][-1]
            said = f"C {last['consistency']:.3f}, beta {last['beta_struct'] or 0.0:.3f}, {row['duration_s']} s"
            sys.stderr.write(f"{arm} seed {seed}: {said}\n")


if __name__ == "__main__":
    main()
