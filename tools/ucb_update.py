"""ucb-update: tell the bandit how much each distribution still moved the policy.

Feedback is journaled as it is read, so memory stays flat. Formulas: toolroll.curriculum.bandit.
Paper: arXiv:2504.09710, algorithm 1.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group
from toolroll.curriculum.options import StateOptions, new_arms_option, state_options
from toolroll.errors import RowError, UsageError
from toolroll.records import view
from toolroll.records.curriculum import Feedback

if TYPE_CHECKING:
    from toolroll.curriculum.feedback import Collector
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Tell what came of a step:
    ucb-sample --state ucb --init --arm easy --arm hard
    echo '{"id": "b1", "distribution": "easy", "advantages": [1, -1, 0.5, -0.5]}' > feedback.jsonl
    ucb-update --state ucb feedback.jsonl
  From rollouts with rewards, the samples of a prompt next to each other:
    step-reward PARSED.jsonl | ucb-update --state UCB --from-rewards
"""

NOTES = """
A row has a `distribution` and `advantages`, or one `advantage`, signed or not; all of them count. With
--from-rewards, or where a row has nothing but `rewards`, advantages are (r - mean) / (sd + 1e-6) over the samples of
a prompt, the standard deviation with G - 1, as in GRPO. Rows with one `reward` each are a prompt's samples as long as
--group stays the same.

A row with an `id` counts once: what names it is the id with `step`, `sample` and `draw`, as far as they are there,
and at least the last --remember names are known. So a job that was stopped may send all of its feedback again. Rows
without an id count every time.

A batch is what came with one `step`, or 4,096 rows; ucb counts alike however rows are cut into batches, sec and
adarft learn once a batch. Rows before a bad row, or before a signal, have been counted. The result is printed when
all is on the disk. With --follow, rows are also journaled whenever there is nothing to read for the moment, for a
trainer that keeps the pipe open.

--compact writes what ucb-stats --history would tell of the journal to history.jsonl and cuts the journal down to a
line that says where it led to. Rows that come from --ignore-zero-groups with all advantages 0 are known, but do not
count.

The fields of the result: n_counted rows with n_advantages in them, n_known rows that came before, n_left_out of
unknown arms, and the number of batches the state has seen, state_seq.
"""


@command(
    "ucb-update",
    system="DUMP",
    reads=view(
        Feedback,
        "id",
        "sample",
        "draw",
        "step",
        "distribution",
        "advantages",
        "advantage",
        "rewards",
        "reward",
        "prompt_id",
    ),
    reducer=True,
    epilog="See ucb-sample(1), ucb-stats(1), group-advantage(1), toolroll-records(5).",
)
@option_group("where", StateOptions, state_options(GroupedOption))
@click.option(
    "--from-rewards", is_flag=True, help="Make advantages of `rewards`, or of the `reward` of a group of rows."
)
@click.option(
    "--group",
    default="prompt_id",
    show_default=True,
    metavar="FIELD",
    help="With --from-rewards: the field samples of a prompt share.",
)
@declares(new_arms_option(GroupedOption))
@click.option("--follow", is_flag=True, help="Count rows as soon as there is nothing more to read for the moment.")
@click.option("--compact", is_flag=True, help="Then cut the journal down; the history of probabilities is kept.")
def main(
    rows: Rows[Any],
    *,
    where: StateOptions,
    from_rewards: bool,
    group: str,
    new_arms: str,
    follow: bool,
    compact: bool,
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Tell the bandit how much each distribution still moved the policy.

    Reads `distribution` and `advantages`, counts each row once, and prints what it did when all is on the disk.
    """
    from toolroll.curriculum.feedback import Collector, grouped
    from toolroll.run.rows import Block

    if follow and from_rewards:
        raise UsageError("does not go with --from-rewards: a group ends where the next begins", place="--follow")
    gc.disable()  # rows hold no cycles, and looking for some takes a fifth of the time
    state = where.open(log)
    collector = Collector(state, new_arms=new_arms, from_rewards=from_rewards)
    try:
        for part in grouped(rows, group) if from_rewards else rows.blocks(*collector.fields):
            if not isinstance(part, Block):
                _take(rows, collector, part)
            elif not collector.take_all(part.views):
                for row in part.rows():
                    _take(rows, collector, row)
            if follow and not rows.ready():
                collector.commit()
    finally:
        collector.commit()
        state.close()
    if compact:
        from toolroll.curriculum.history import compact as cut_down

        cut_down(state)
    for warning in state.bandit.warnings():
        log.warn(warning)
    yield {
        "n_counted": collector.n_counted,
        "n_advantages": collector.n_advantages,
        "n_known": collector.n_known,
        "n_left_out": collector.n_left_out,
        "state_seq": state.seq,
    }


def _take(rows: Rows[Any], collector: Collector, row: Row[Any]) -> None:
    try:
        collector.take(row.view)
    except RowError as error:
        rows.refuse(row, error.why)
