"""Vision-Zero's claim in miniature: does playing "who is the spy" in turns with learning to decide beat either alone?

A model of some millions of weights that sees small rendered scenes (`sprite`, or --model) plays with itself about pairs
of pictures. Four ways to train it, from the same weights: `iterative`, clues and decisions in turns as spy-switch says;
`clue` and `decision`, one of them only; `no-rae`, iterative, with clues' rewards as they are in place of their
advantage over the running mean of the role. Steps about decisions learn from votes and from questions about the
pictures. All see the same pairs in the same order for a seed. Before, halfway and after, the policy plays against the
model it began as, on either side, about pictures that nobody trains on, and answers questions about them.

Rows go to a file, one for each run. A run whose row is there is not made again, so that what was killed goes on, and
several processes may each run some arms or seeds:

    for arm in iterative clue decision no-rae; do python experiments/visionzero.py --arms $arm & done
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from recorded import append, as_read, changed, whole_rows
from selfplay import Fields, Pupil, Table, Values, pictures, summed

from toolroll.run.seeds import record_seed
from toolroll.spygame.switch import Rule, Switch

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "visionzero.jsonl"
NEVER = 10**6
FIRST_SEED = 21  #: the plan was chosen on others
MEASURED = ("spy_win_rate", "civilian_win_rate", "vote_accuracy", "na_share", "question_accuracy")


@dataclass(frozen=True)
class Arm:
    """A way to train: which stage when, and whether clues are compared with their role's mean."""

    rule: Rule
    rae: bool = True


#: the thresholds are the paper's; averages, dwell and patience are shorter, as there are 40 steps in place of 100
TURNS = Rule(rho=0.5, ema_debias=True, min_dwell=2, patience=4)
ARMS = {
    "iterative": Arm(TURNS),
    "clue": Arm(Rule(start="clue", min_dwell=NEVER, patience=0)),
    "decision": Arm(Rule(start="decision", min_dwell=NEVER, patience=0)),
    "no-rae": Arm(TURNS, rae=False),
}


@dataclass(frozen=True)
class Plan:
    """What a run is set to; the same for all arms and seeds."""

    steps: int = 40
    pairs: int = 16  #: pairs of pictures, and games, a step
    civilians: int = 2
    rounds: int = 1
    judge_votes: int = 8  #: of a judge with the civilians' picture; 0 lets the civilians vote
    spy_image: str = "blank"
    tokens: int = 48  #: longest clue or vote
    temperature: float = 0.8
    questions: int = 1  #: about each pair of a step about decisions
    samples: int = 4  #: answers to each
    rate: float = 1e-4
    kl: float = 0.04
    size: str = "128x96"
    pool: int = 640  #: pairs to train on, of which each seed has its own order
    held_out: int = 60  #: pairs to examine with
    exam_questions: int = 5  #: about each of them
    examine_every: int = 20  #: steps

    @property
    def table(self) -> Table:
        """How games are played and questions asked."""
        return Table(
            self.civilians, self.rounds, self.judge_votes, self.spy_image, self.tokens, self.temperature,
            self.questions, self.samples,
        )  # fmt: skip


QUICK = Plan(
    steps=2, pairs=2, civilians=2, tokens=6, samples=2, size="64x48", pool=4, held_out=2, exam_questions=2,
    examine_every=2,
)  # fmt: skip


def examined(pupil: Pupil, plan: Plan, held_out: Sequence[bytes]) -> dict[str, Any]:
    """The policy against the model it began as, on either side, and alone with questions.

    Games and questions are the same in all examinations.
    """
    spy = summed(pupil.games(held_out, 0, spy="pupil", civilians="start"))
    civilians = summed(pupil.games(held_out, 0, spy="start", civilians="pupil"))
    answers = pupil.answers(held_out, 0, count=plan.exam_questions, samples=1, greedy=True)
    kinds: dict[str, list[int]] = {}
    for answer in answers:
        kinds.setdefault(answer["distribution"], []).append(answer["correct"])
    return {
        "n_games": spy["n_games"],
        "spy_win_rate": spy["spy_win_rate"],
        "civilian_win_rate": civilians["civilian_win_rate"],
        "n_votes": civilians["n_votes"],
        "vote_accuracy": civilians["vote_accuracy"],
        "na_share": civilians["na_share"],
        "n_answers": len(answers),
        "question_accuracy": sum(answer["correct"] for answer in answers) / len(answers),
        "by_kind": {kind: [sum(right), len(right)] for kind, right in sorted(kinds.items())},
    }


class Run:
    """One run of one arm."""

    def __init__(self, source: str, plan: Plan, arm: str, seed: int, folder: Path) -> None:
        self.plan, self.arm, self.seed = plan, arm, seed
        train, self.held_out = pictures(folder, plan.pool, plan.held_out, plan.size)
        self.pairs = [line for _ in range(-(-plan.steps * plan.pairs // plan.pool)) for line in self._shuffled(train)]
        self.pupil = Pupil(source, plan.table, folder, rate=plan.rate, kl=plan.kl, seed=seed)
        self.switch = Switch.begun(ARMS[arm].rule)
        self.values = Values(rae=ARMS[arm].rae)
        self.stages, self.exams = "", []  # type: tuple[str, list[dict[str, Any]]]
        self.curve: dict[str, list[float | None]] = {"accuracy": [], "na_share": [], "kl": [], "entropy": []}

    def _shuffled(self, lines: Sequence[bytes]) -> list[bytes]:
        return random.Random(self.seed).sample(list(lines), len(lines))

    def step(self, number: int) -> None:
        """Play, learn what the stage says, and see which comes next. Steps count from 0."""
        plan, pupil, stage = self.plan, self.pupil, self.switch.stage
        lines = self.pairs[number * plan.pairs :][: plan.pairs]
        seed = record_seed(self.seed, "step", number)
        games = pupil.games(lines, seed)
        rows: list[Fields] = self.values.of_games(games, stage)
        if stage == "decision" and plan.questions:
            answers = pupil.answers(lines, seed, count=plan.questions, samples=plan.samples, greedy=False)
            rows += self.values.of_answers(answers, plan.samples)
        figures = pupil.learn(rows)
        sums = summed(games)
        self.stages += stage[0]
        self.switch.take(sums["accuracy"], sums["na_share"])
        for name, values in self.curve.items():
            value = figures[name] if name in figures else sums[name]
            values.append(None if value is None else round(value, 4))

    def row(self) -> dict[str, Any]:
        """Make the run: the row that is written."""
        started = time.monotonic()
        for number in range(self.plan.steps):
            if number % self.plan.examine_every == 0:
                self.exams.append({"step": number, **examined(self.pupil, self.plan, self.held_out)})
            self.step(number)
        self.exams.append({"step": self.plan.steps, **examined(self.pupil, self.plan, self.held_out)})
        trainer = self.pupil.trainer
        self.pupil.close()
        return {
            "arm": self.arm, "seed": self.seed,
            "model": self.pupil.engine.name, "weights": self.pupil.engine.weights_id,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "rows_left_out": self.pupil.left_out, "stages": self.stages, "exams": self.exams, "curve": self.curve,
            "duration_s": round(time.monotonic() - started, 1), "torch": torch.__version__, "plan": asdict(self.plan),
            "rule": asdict(ARMS[self.arm].rule), "rae": ARMS[self.arm].rae,
        }  # fmt: skip


def missing(rows: Sequence[Mapping[str, Any]], arms: Sequence[str], seeds: Sequence[int], plan: Plan) -> Iterator[Any]:
    """Arms and seeds that have no row of this plan yet, seed by seed."""
    wanted = as_read(plan)
    rules = {arm: json.loads(json.dumps(asdict(ARMS[arm].rule))) for arm in arms}
    there = {
        (row["arm"], row["seed"]) for row in rows if row["plan"] == wanted and row["rule"] == rules.get(row["arm"])
    }
    yield from ((arm, seed) for seed in seeds for arm in arms if (arm, seed) not in there)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and append a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy that shows only that it runs")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--model", default="sprite", help="sprite, or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=HERE / "out", help="where pictures are made")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan")
    options = parser.parse_args(arguments)
    plan: Plan = changed(QUICK if options.quick else Plan(), options.set)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for arm, seed in list(missing(whole_rows(options.out), options.arms, seeds, plan)):
        run = Run(options.model, plan, arm, seed, options.pictures)
        torch.set_num_threads(options.threads)  # whoever opens a trainer sets them, too
        row = run.row()
        append(row, options.out)
        last = " ".join(f"{name} {row['exams'][-1][name]:.3f}" for name in MEASURED)
        sys.stderr.write(f"{arm} seed {seed}: {row['stages']}; {last}; {row['duration_s']} s\n")


if __name__ == "__main__":
    main()
