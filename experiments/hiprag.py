"""HiPRAG's claim in miniature: does paying for good steps make a policy search less in vain, and guess less?

A transformer from scratch answers chains of one to three lookups and decides before each whether to search; see
lookups.py. A supervised warm-up puts half of the facts into its weights, teaches the form, and gives it a habit for
each fact, to search or not, that has nothing to do with what it knows. GRPO follows. Each trajectory is rendered as
HiPRAG's text, parsed and paid by `toolroll.rag`: a search is bad if the current policy, asked that lookup alone without
a search, concludes the same (over), a step without one if what it concludes is not true (under). The arms of a seed
differ in the reward alone.

The plan was chosen on seed 3, which is none of those that are counted. There searches never failed at first, and the
warm-up tossed a coin for each decision: with λp = 0 the policy soon searched always and was always right. So searches
go astray in one case of ten, or there would be no right answers to gain, and the policy has habits, or it would not err
both ways at first. Sizes, rates and the number of updates were set there too. λp = 0.4 was tried only with all that.

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
from lookups import Learner, Questions, World, own_tokens, questions, respond, world
from recorded import append, as_read, changed, missing, parser_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from toolroll.checking.match import cem
from toolroll.rag.metrics import Tally
from toolroll.rag.parse import Parse, parse
from toolroll.rag.reward import REWARDS, Evidence, Kind, Settings, Verdict
from toolroll.train.advantage import grpo
from toolroll.train.losses import policy_loss, token_logprobs

RESULTS = Path(__file__).parent / "results" / "hiprag.jsonl"

#: the paper's ablations; 0 is outcome and format alone
ARMS = {
    "0": Settings(process_weight=0.0),
    "0.2": Settings(process_weight=0.2),
    "0.4": Settings(process_weight=0.4),
    "0.6": Settings(process_weight=0.6),
    "over-only": Settings(process_weight=0.4, ablation="over-only"),
    "under-only": Settings(process_weight=0.4, ablation="under-only"),
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all arms and seeds."""

    entities: int = 16
    relations: int = 6
    longest: int = 3  #: lookups
    astray: float = 0.1  #: share of searches that find any entity
    width: int = 48
    layers: int = 2
    heads: int = 4
    warmup_steps: int = 400
    warmup_batch: int = 64
    warmup_rate: float = 3e-3
    updates: int = 200
    prompts: int = 16
    samples: int = 8
    rate: float = 3e-4
    clip: float = 0.2
    max_norm: float = 1.0
    evaluate_every: int = 20  #: updates
    held_out: int = 150  #: questions of each number of lookups but one


FIRST_SEED = 11  #: the plan was chosen on another

QUICK = Plan(
    entities=6, relations=2, longest=2, width=16, layers=1, heads=2, warmup_steps=60, warmup_batch=16, updates=4,
    prompts=4, samples=4, rate=1e-2, evaluate_every=2, held_out=20,
)  # fmt: skip


def warmed_up(plan: Plan, seed: int) -> Learner:
    """A learner of a world of its own that knows half of its facts, and the form."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    truth = world(plan.entities, plan.relations, plan.longest, plan.astray, generator)
    learner = Learner(truth, plan.width, plan.layers, plan.heads)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=plan.warmup_rate, weight_decay=0.01)
    for step in range(plan.warmup_steps):
        left = (plan.warmup_steps - step) / plan.warmup_steps
        optimizer.param_groups[0]["lr"] = plan.warmup_rate * min(1.0, (step + 1) / 50, 2 * left)
        asked = train_questions(plan.warmup_batch, learner.world, generator)
        shown, taught = demonstrations(asked, learner.world, generator)
        logits = learner.response_logits(asked.prompts(learner.world), shown)
        loss = cross_entropy(logits[taught], shown[taught])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), plan.max_norm)
        optimizer.step()
    return learner


def train_questions(count: int, where: World, generator: torch.Generator) -> Questions:
    """Questions of any number of lookups, none held out."""
    lengths = torch.randint(1, where.longest + 1, (count,), generator=generator)
    return questions(lengths, where, generator, held_out=False)


def demonstrations(asked: Questions, where: World, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Responses that search or not by habit, and which of their tokens are to be learned.

    What is concluded is what a search found or, without one, what is known. In place of what is not known it is any
    entity, and not to be learned.
    """
    at, taught = asked.starts, own_tokens(asked.lengths, where.longest).bool()
    searched = torch.zeros_like(at, dtype=torch.bool)

    def say(place: int, last: Tensor) -> Tensor:
        nonlocal at, searched
        lookup, part = divmod(place, 3)
        going_on = lookup < asked.lengths
        if part == 0:
            habit = where.habits[at, asked.relations[:, min(lookup, where.longest - 1)]]
            searched = torch.rand(at.shape, generator=generator) < habit
            return torch.where(searched, where.search, where.nosearch).where(going_on, at)  # in the end the answer
        if part == 2:
            relations = asked.relations[:, lookup]
            guessed = ~searched & ~where.known[at, relations]
            guess = torch.randint(where.entities, at.shape, generator=generator)
            recalled = torch.where(guessed, guess, where.follow(at, relations))
            at = torch.where(searched, last, recalled).where(going_on, at)
            taught[:, place] &= ~guessed
        return at

    return respond(asked, where, say, generator), taught


def names_of(where: World) -> list[str]:
    """Tokens as text, entities, S, N and BLANK. The name of no entity is part of another's."""
    return [*(f"e{entity:03d}" for entity in range(where.entities)), "<search>", "", ""]


def rendered(start: int, relations: Sequence[int], tokens: Sequence[int], names: Sequence[str]) -> str:
    """A response as HiPRAG's text. A token in the wrong place is written there, and makes the text malformed."""
    text, at = "<think>", names[start]
    for i, relation in enumerate(relations):
        decision, found, concluded = (names[token] for token in tokens[3 * i : 3 * i + 3])
        lookup = f"r{relation} of {at}"
        searched = f"{decision}{lookup}</search><context>{found}</context>" if decision == "<search>" else decision
        text += f"<step><reasoning>{lookup}</reasoning>{searched}<conclusion>{concluded}</conclusion></step>"
        at = concluded
    return f"{text}</think><answer>{names[tokens[3 * len(relations)]]}</answer>"


def verdicts(parsed: Parse, true: Mapping[str, str], closed_book: Mapping[str, str]) -> list[tuple[Kind, Verdict]]:
    """The paper's verdict of each step, from what is true and what the policy says to each lookup without a search."""
    found: list[tuple[Kind, Verdict]] = []
    for step in parsed.steps:
        lookup, conclusion = step["reasoning"], step["conclusion"]
        if lookup not in true:
            found.append((step["kind"], "unknown"))
        elif step["kind"] == "search":
            found.append(("search", "over" if closed_book[lookup] == conclusion else "ok"))
        else:
            found.append(("nonsearch", "ok" if true[lookup] == conclusion else "under"))
    return found


def by_lookup(values: Tensor, names: Sequence[str]) -> dict[str, str]:
    """What [E, relations] tokens say to each lookup, as text."""
    return {
        f"r{relation} of {names[entity]}": names[value]
        for entity, row in enumerate(values.tolist())
        for relation, value in enumerate(row)
    }


def evidence(asked: Questions, responses: Tensor, learner: Learner) -> list[Evidence]:
    """What the reward looks at, for each response."""
    where, names, at = learner.world, names_of(learner.world), asked.starts
    for i in range(where.longest):
        at = where.follow(at, asked.relations[:, i]).where(i < asked.lengths, at)
    true, closed_book = by_lookup(where.facts, names), by_lookup(learner.closed_book(), names)
    columns, found = (asked.starts, asked.lengths, asked.relations, responses, at), []
    for start, length, relations, tokens, gold in zip(*(column.tolist() for column in columns), strict=True):
        parsed = parse(rendered(start, relations[:length], tokens, names))
        judged = verdicts(parsed, true, closed_book)
        found.append(Evidence(parsed.answer, [names[gold]], parsed.valid, judged))
    return found


def improve(
    learner: Learner, optimizer: torch.optim.Optimizer, rule: Settings, plan: Plan, generator: torch.Generator
) -> None:
    """One update by GRPO."""
    asked = train_questions(plan.prompts, learner.world, generator).repeated(plan.samples)
    responses = learner.sampled(asked, generator)
    rewards = [REWARDS["hiprag"](seen, rule).total for seen in evidence(asked, responses, learner)]
    groups = [rewards[i : i + plan.samples] for i in range(0, len(rewards), plan.samples)]
    advantage = torch.tensor([grpo(group) for group in groups]).flatten()
    mask = own_tokens(asked.lengths, plan.longest)
    logits = learner.response_logits(asked.prompts(learner.world), responses)
    logp = token_logprobs(logits, responses.where(mask.bool(), 0))
    loss, _ = policy_loss(
        logp, logp.detach(), advantage, mask, clip_low=plan.clip, clip_high=plan.clip, norm="sequence"
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), plan.max_norm)
    optimizer.step()


def tests_of(plan: Plan, where: World) -> Questions:
    """Held-out questions, the same chains for all seeds."""
    lengths = torch.arange(2, plan.longest + 1).repeat_interleave(plan.held_out)
    return questions(lengths, where, torch.Generator().manual_seed(0), held_out=True)


def measured(learner: Learner, tests: Questions) -> dict[str, float | None]:
    """What step-stats says of greedy responses to the tests, and how many facts are right without a search."""
    tally, where = Tally(), learner.world
    for i, seen in enumerate(evidence(tests, learner.greedy(tests), learner)):
        right = float(cem(seen.answer, seen.golds))
        tally.add(question_id=i, score=right, format_valid=seen.format_valid, verdicts=seen.verdicts)
    stats, right = tally.report()[-1], learner.closed_book() == where.facts
    found = {name: stats[name] for name in ("cem", "osr", "usr", "searches_per_question", "valid_frac")}
    for name, facts in (("known", where.known), ("unknown", ~where.known)):
        found[name] = float(right[facts].float().mean())
    return {name: None if value is None else round(value, 4) for name, value in found.items()}


def run(plan: Plan, arm: str, seed: int, learner: Learner) -> dict[str, Any]:
    """Train one learner by one reward: the row that is written."""
    started, tests = time.monotonic(), tests_of(plan, learner.world)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=plan.rate, weight_decay=0.0, betas=(0.9, 0.99))
    curve = [{"update": 0, **measured(learner, tests)}]
    for update in range(1, plan.updates + 1):
        improve(learner, optimizer, ARMS[arm], plan, generator)
        if update % plan.evaluate_every == 0:
            curve.append({"update": update, **measured(learner, tests)})
    return {
        "arm": arm, "seed": seed, "duration_s": round(time.monotonic() - started, 1),
        "parameters": sum(p.numel() for p in learner.parameters()), "torch": torch.__version__,
        "plan": asdict(plan), "reward": asdict(ARMS[arm]), "curve": curve,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and append a row for each run."""
    parser = parser_of(__doc__ or "", list(ARMS), option="--arms", first_seed=FIRST_SEED, out=RESULTS)
    options = parser.parse_args(arguments)
    plan = changed(QUICK if options.quick else Plan(), options.set)
    torch.set_num_threads(1)
    wanted = as_read(plan)

    def is_of(row: Mapping[str, Any]) -> bool:
        return bool(row["plan"] == wanted and row["reward"] == as_read(ARMS[row["arm"]]))

    for seed, arms in missing(options, is_of):
        start = warmed_up(plan, seed)
        for arm in arms:
            row = run(plan, arm, seed, copy.deepcopy(start))
            append(row, options.out)
            sys.stderr.write(f"{arm} seed {seed}: {row['curve'][-1]}, {row['duration_s']} s\n")


if __name__ == "__main__":
    main()
