"""ucb-stats: what the bandit thinks of each distribution, why, and how that came about.

Paper: arXiv:2504.09710; formulas: toolroll.curriculum.bandit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, offers_table, option_group
from toolroll.curriculum.options import StateOptions, freeze_option, state_options
from toolroll.errors import UsageError
from toolroll.records import field_types
from toolroll.records.curriculum import ArmHistory, ArmStats

if TYPE_CHECKING:
    from toolroll.run.log import Log

EXAMPLES = """
  A table of the arms, with what their scores are made of:
    ucb-sample --state ucb --init --arm easy --arm hard
    echo '{"id": "b1", "distribution": "easy", "advantages": [1, -1, 0.5, -0.5]}' | ucb-update --state ucb
    ucb-stats --state ucb --explain --table
  A picture of how the probabilities went:
    ucb-stats --state ucb --plot schedule.png
"""

NOTES = """
Arms stand in the order of their names. `ucb` is what the softmax is taken of: under --policy sec the running value;
uniform, fixed and adarft do not use it. With --normalise the mean absolute advantage in it is over the largest one.

--history prints a row for each batch of feedback and arm, computed anew from the journal; before the point where
ucb-update --compact cut it down, from what was kept then. --plot draws the same. --verify reads the whole journal,
checks that it leads to the very state that the snapshot does, bit by bit, and fails where it does not.

This command only reads, takes no lock, and may run while others write.
"""


@command(
    "ucb-stats",
    system="DUMP",
    adds={
        **field_types(ArmHistory, "state_seq", "step"),
        **field_types(
            ArmStats, "distribution", "p", "ucb", "mean_abs_advantage", "n", "window", "bonus", "n_total", "why"
        ),
    },
    key=("distribution",),
    source=True,
    epilog="See ucb-sample(1), ucb-update(1), toolroll-records(5).",
)
@option_group("where", StateOptions, state_options(GroupedOption)[:1])
@click.option("--explain", is_flag=True, help="Add what the scores are made of: bonus, n_total, why.")
@click.option("--history", is_flag=True, help="Print the arms after each batch of feedback.")
@click.option(
    "--plot", type=click.Path(), metavar="FILE", help="Draw the probabilities over the steps (.png, .svg, .pdf)."
)
@click.option("--verify", is_flag=True, help="Check that the whole journal leads to this state.")
@declares(freeze_option(GroupedOption))
@offers_table
def main(
    *,
    where: StateOptions,
    explain: bool,
    history: bool,
    plot: str | None,
    verify: bool,
    freeze: tuple[str, ...],
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Tell what the bandit thinks of each distribution, why, and how that came about.

    Prints a row for each arm: its probability, its score, the mean of its absolute advantages, how often it was seen.
    """
    from toolroll.curriculum.history import check_replay, rows_of_history
    from toolroll.curriculum.stats import rows_of_stats

    state = where.open(log)
    frozen = frozenset(freeze)
    if unknown := sorted(frozen - set(state.bandit.arms)):
        raise UsageError(f"no arm is named {unknown[0]!r}", place="--freeze")
    if verify:
        check_replay(state)
        log.note("the journal leads to this state")
    if plot is not None:
        from toolroll.curriculum.plot import draw_schedule

        draw_schedule(list(rows_of_history(Path(where.state), frozen)), plot)
    yield from (
        rows_of_history(Path(where.state), frozen) if history else rows_of_stats(state.bandit, frozen, explain=explain)
    )
