"""gear-momentum: turn the losses of several objectives into how much of the next epoch each gets.

Holds a few numbers an objective. Formulas: toolroll.abduction.momentum. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.records import field_types, view
from toolroll.records.abduction import MomentumStep, ProbeLoss

if TYPE_CHECKING:
    from toolroll.abduction.momentum import Curriculum, Rule, Update
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Ratios after a probe of the three objectives, and how many of 1,280 pairs each gets:
    printf '{"objective": "%s", "loss": %s, "step": 1}\\n' parsing 0.6 inconsistent 0.7 fair 0.69 > losses.jsonl
    gear-momentum --epoch-pairs 1280 losses.jsonl > ratios.jsonl
  One process for each probe, in a training loop:
    gear-momentum --state curriculum.json losses.jsonl | jq -c .ratios
  Only two kinds of pairs:
    gear-momentum --objectives inconsistent,fair LOSSES.jsonl
"""

NOTES = """
A row has an `objective`, its `loss` on validation pairs, and the `step` of the policy at which it was measured. The
first step is the one before training; from it the moving averages start, and its ratios are 1. A step is complete when
each of --objectives has a loss; then a row is written. Rows of a step stand together, in any order.

    E      alpha * loss + (1 - alpha) * E before
    m      how far E fell since --lag steps ago, at least 0, at most --cap
    ratio  n (eps + m) / sum of (eps + m), for n objectives, at least --floor, at most --ceil
    quota  --epoch-pairs * ratio / sum of ratios, rounded down

--lag 2 is what the released code does from its second update on; 1 compares with the step before. Ratios are not
scaled again after --floor and --ceil. With the default --cap and --eps, ratios of three objectives lie between 0.83 and
1.18, so that --floor and --ceil never matter. `weighted_loss`, the sum of ratio times loss, is what the released code
stops early by.

--state keeps the averages and the losses of a step that is not complete in a file, so that a process for each row gives
the same as one for all. A row of a step that was complete before changes nothing, so the rows of a process that was
killed may be sent again. The state is written behind the output, and refuses other settings than those it began with.
"""


@command(
    "gear-momentum",
    system="GEAR",
    reads=view(ProbeLoss, "objective", "loss", "step"),
    adds=field_types(MomentumStep, *MomentumStep.__struct_fields__),
    key=("step",),
    slow=True,
    consumes=True,
    epilog="See gear-pairs(1), dpo-train(1), toolroll-records(5).",
)
@click.option(
    "--objectives",
    default="parsing,inconsistent,fair",
    show_default=True,
    metavar="NAME,...",
    help="What has a loss at each step.",
)
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Weight of the newest loss.")
@click.option("--cap", type=click.FloatRange(min=0), default=0.03, show_default=True, help="Largest momentum.")
@click.option(
    "--eps",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Added to each momentum: what an objective counts that does not move.",
)
@click.option("--floor", type=click.FloatRange(min=0), default=0.8, show_default=True, help="Least ratio.")
@click.option("--ceil", type=click.FloatRange(min=0), default=1.2, show_default=True, help="Largest ratio.")
@click.option(
    "--lag", type=click.IntRange(min=1), default=2, show_default=True, help="Compare with so many steps before."
)
@click.option("--epoch-pairs", type=click.IntRange(min=1), metavar="N", help="Also say how many of N pairs each gets.")
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="Go on from here, and keep it here.")
def main(
    rows: Rows[Any], *, objectives: str, epoch_pairs: int | None, state: Path | None, log: Log, **options: Any
) -> Iterator[dict[str, Any]]:
    """Turn the losses of several objectives into how much of the next epoch each gets.

    Reads `objective`, `loss` and `step`; writes a row for each step at which all objectives have a loss. An objective
    whose loss falls fastest gets most.
    """
    curriculum = _begun(objectives, options, state)
    for row in rows:
        seen = row.view
        try:
            update = curriculum.take(seen.objective, seen.step, seen.loss)
        except RowError as error:
            _save(curriculum, state)
            rows.refuse(row, error.why)
            continue
        if update is None:
            continue
        if rows.done(update.step):
            log.counts.skipped += 1
        else:
            yield _told(update, epoch_pairs)
        _save(curriculum, state)
    _save(curriculum, state)


def _begun(objectives: str, options: dict[str, Any], state: Path | None) -> Curriculum:
    from toolroll.abduction.momentum import Curriculum, Rule

    names = [name.strip() for name in objectives.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError("expected names, each once, with commas between them", place="--objectives")
    rule: Rule = Rule(**options)
    if rule.floor > rule.ceil:
        raise UsageError("above --ceil", place="--floor")
    if state is None or not state.exists():
        return Curriculum(tuple(names), rule)
    try:
        return Curriculum.resumed(json.loads(state.read_bytes()), names, rule)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ToolrollError("no state of gear-momentum", place=str(state)) from error
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(state)) from error


def _save(curriculum: Curriculum, state: Path | None) -> None:
    if state is not None:
        from toolroll.io.filesystem import write_atomically

        write_atomically(state, json.dumps(curriculum.as_dict()).encode() + b"\n")


def _told(update: Update, epoch_pairs: int | None) -> dict[str, Any]:
    from toolroll.abduction.momentum import quota

    told = {**update._asdict(), "weighted_loss": update.weighted_loss}
    return told if epoch_pairs is None else {**told, "quota": quota(update.ratios, epoch_pairs)}
