"""group-advantage: turn rewards into advantages, over the samples of a prompt or the roles of a game.

Formulas: toolroll.train.advantage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command
from toolroll.records import Id, field_types
from toolroll.records.training import Advantaged

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Advantages over the two samples of a prompt:
    printf '{"id": "q", "sample": %s, "prompt_id": "q", "reward": %s}\\n' 0 1 1 0.2 | group-advantage
  Over the eight samples of each prompt, handed on as soon as they are complete:
    step-reward PARSED.jsonl | group-advantage --group-size 8 > train.jsonl
  Dr. GRPO, over whatever samples a file has of each prompt:
    group-advantage --estimator dr-grpo SCORED.jsonl > train.jsonl
  Clues of a game, each role against its own running mean, kept from one run to the next:
    group-advantage --estimator rae --group game_id --state roles.json TURNS.jsonl > train.jsonl
"""

NOTES = """
Estimators, for the rewards r of a group of G rows:

grpo: (r - mean) / (sd + eps); --std sample divides the squares by G - 1 (verl, DUMP, HiPRAG), population by G
(Vision-Zero). dr-grpo: r - mean. rloo: r minus the mean of the others. rae: r minus a running mean of the reward of the
row's role, which learns from each game before (--order post, Vision-Zero) or after (pre, SPIRAL) it is used. raw: r.

All-equal rewards give exactly 0, and so does a group of one, where verl gives a lone sample its reward.

Groups leave in the order in which they are complete, their rows in the order in which they came. With --group-size a
group is complete when it has so many rows, and rows that failed count; without it, when the input ends, so that
everything is held in memory until then; with --consecutive, when the next group begins. A group that is incomplete at
the end is treated as --incomplete says. After a signal or a bad row that stops the run, incomplete groups are not
written at all; --resume reads them again.

A curriculum draws the same prompt more than once: rows with `draw` are of one group only if that is the same, too.
"""

_READS = msgspec.defstruct(
    "Advantaged",
    [
        ("id", Id | None, None),
        ("sample", int | None, None),
        ("prompt_id", Id | None, None),
        ("draw", int | None, None),
        ("reward", dict[str, Any] | float | None, None),
    ],
    kw_only=True,
    frozen=True,
    gc=False,
)


@command(
    "group-advantage",
    system="Training",
    reads=_READS,
    adds=field_types(Advantaged, "advantage", "group_size"),
    expands=True,
    sees_errors=True,
    epilog="See policy-train(1), ucb-update(1), toolroll-records(5).",
)
@click.option(
    "--estimator",
    type=click.Choice(["grpo", "dr-grpo", "rloo", "rae", "raw"]),
    default="grpo",
    show_default=True,
    help="How a reward becomes an advantage; see NOTES.",
)
@click.option(
    "--std",
    type=click.Choice(["sample", "population"]),
    default="sample",
    show_default=True,
    help="With grpo: the standard deviation with G - 1 or with G.",
)
@click.option(
    "--eps", type=click.FloatRange(min=0), default=1e-6, show_default=True, help="With grpo: added to the deviation."
)
@click.option(
    "--reward-field",
    "reward_path",
    metavar="FIELD",
    default="reward",
    show_default=True,
    help="Where the reward is: a number, or an object with `total`. Dots go into objects: reward.parts.outcome.",
)
@click.option(
    "--group",
    metavar="FIELD,...",
    default="prompt_id,draw",
    show_default=True,
    help="Rows with the same values of these fields form a group; `id` stands for a missing `prompt_id`.",
)
@click.option("--group-size", type=click.IntRange(min=1), help="Release a group when it has so many rows.")
@click.option("--consecutive", is_flag=True, help="Release a group when a row of another one comes.")
@click.option(
    "--incomplete",
    type=click.Choice(["use", "drop"]),
    default="use",
    show_default=True,
    help="With --group-size: groups with fewer rows when the input ends.",
)
@click.option(
    "--zero-variance",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    show_default=True,
    help="Groups whose advantages are all 0: keep them, or leave them out, which starves a trainer that counts rows.",
)
@click.option("--role", metavar="FIELD", default="role", show_default=True, help="With rae: where a row's role is.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="With rae: share of the old baseline that a game leaves.",
)
@click.option(
    "--order",
    type=click.Choice(["post", "pre"]),
    default="post",
    show_default=True,
    help="With rae: subtract the baseline after or before it has learned from the game.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With rae: keep the baselines here. A game that was counted before is not counted again.",
)
@click.option(
    "--max-memory",
    type=click.IntRange(min=1),
    metavar="MB",
    help="Fail when the rows that are held take more than this.",
)
def main(rows: Rows[Any], *, log: Log, **options: Any) -> Iterator[Row[Any]]:
    """Turn rewards into advantages, over the samples of a prompt or the roles of a game.

    Adds `advantage`, and `group_size`: the rows it was made from. Rows that failed before are passed on with their
    group and have no part in it.
    """
    from toolroll.train.grouping import Grouping

    yield from Grouping(rows, log=log, **options).run()
