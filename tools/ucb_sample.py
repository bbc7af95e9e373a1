"""ucb-sample: draw the tasks to train on next, more often from distributions that still move the policy.

Makes rows of its own: the tasks. With --follow it stays, reads feedback and requests, and answers them.
Paper: arXiv:2504.09710, sections 3.2 and 3.3; the scores are in toolroll.curriculum.bandit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group
from toolroll.curriculum.options import (
    MakeOptions,
    StateOptions,
    freeze_option,
    make_options,
    new_arms_option,
    state_options,
)
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.curriculum import Draw, Feedback

if TYPE_CHECKING:
    from toolroll.curriculum.sampler import Sampler
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Make a state whose arms are the distributions of a pool, once:
    kk-make --people 2,3 -n 20 -o pool.jsonl
    ucb-sample --state ucb --init --arms pool.jsonl
  Draw a batch of tasks, train on it, tell what came of it:
    ucb-sample --state ucb --pool pool.jsonl -n 8 > batch.jsonl
    jq -c '{id, draw, distribution, advantages: [1, -1]}' batch.jsonl | ucb-update --state ucb
  Stay, and answer each {"draws": 8} that comes with the feedback of a step:
    echo '{"draws": 8}' | ucb-sample --state ucb --pool pool.jsonl -n 0 --follow > next.jsonl
"""

NOTES = """
An arm is a distribution of tasks. It is drawn with probability P_j = exp(UCB_j / tau) / sum of these, where UCB_j is
the mean of its last k absolute advantages plus bonus * sqrt(c ln(n + 1) / (n_j + 1)), n_j is how often it was seen
and n is the sum of all n_j. Before any feedback all arms are drawn alike.

Draws depend on the seed, on their number and on what was learned, and on nothing else: two runs of -n 64 draw what
one of -n 128 does, if no feedback came between. Number c takes u = SHA-256("SEED:arm:c"), its first 53 bits over
2^53, and the arm where the sum of the probabilities, in the order of names, goes beyond u; SHA-256("SEED:item:ARM:c")
chooses the task. Numbers are journaled, and on the disk, before they are used, so that a crash may skip some but no
number comes twice. With --follow they are reserved 1,024 at a time, and those left over are given back at the end;
with --stratified or --no-replace every request is journaled instead.

--follow reads the rows ucb-update(1) reads. Feedback counts when the next request is answered, when another `step`
begins, after 4,096 rows, and at the end of the input. It is in the journal, which a kill does not undo, before the
request is answered, and is on its way to the disk then: a crash of the whole machine may lose the last of it, which
may be sent again, as rows have names. Feedback after the last request before a kill is to be sent again too.

--normalise makes the scores independent of the scale of the advantages, as for advantages that are not divided by the
standard deviation of their group. A warning is given when mean absolute advantages are above 5 without it.

--policy adarft takes from the pool the -n tasks nearest to the target, each once, and needs rows of feedback with
`rewards`; p is then an arm's share of the batch. Feedback moves the target once a batch.

The state is a folder with settings.json, journal.jsonl, snapshot.json and, after ucb-update --compact, history.jsonl.
The journal has a line for each batch of feedback with its absolute advantages, its names and a checksum. Several
processes may use one state at once: who writes holds a lock and first reads what others wrote. A last line that a
crash left unfinished is cut off with a warning; any other line without its checksum is an error. Exit code 1 stands
for a damaged state, as for every failure.
"""


@command(
    "ucb-sample",
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
        "prompt_id",
        "draws",
    ),
    adds=field_types(Draw, "draw", "distribution", "p", "state_seq"),
    key=("draw",),
    slow=True,
    source=True,
    epilog="See ucb-update(1), ucb-stats(1), toolroll-records(5).",
)
@option_group("where", StateOptions, state_options(GroupedOption))
@click.option(
    "-n",
    "--number",
    "count_",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tasks to draw. [default: 1; 0 after --init and --add-arm]",
)
@click.option(
    "--pool", type=click.Path(), metavar="FILE", help="Rows to draw from, JSON lines; without it, arms are drawn."
)
@click.option(
    "--by", default="distribution", show_default=True, metavar="FIELD", help="The pool's field that names the arm."
)
@click.option("--follow", is_flag=True, help="Then read feedback and requests, and answer each request at once.")
@click.option("--stratified", is_flag=True, help="Draw arms in the numbers N * P, rounded, rather than each by chance.")
@click.option(
    "--replace/--no-replace",
    default=True,
    show_default=True,
    help="Whether a task may come again before all others of its arm came.",
)
@declares(freeze_option(GroupedOption))
@declares(new_arms_option(GroupedOption))
@click.option("--add-arm", multiple=True, metavar="NAME", help="Take in a new arm; may be given again.")
@click.option("--init", is_flag=True, help="Make the state; nothing is done if it is there with the same settings.")
@option_group("make", MakeOptions, make_options(GroupedOption))
def main(
    rows: Rows[Any],
    *,
    where: StateOptions,
    make: MakeOptions,
    count_: int | None,
    pool: str | None,
    by: str,
    follow: bool,
    stratified: bool,
    replace: bool,
    freeze: tuple[str, ...],
    new_arms: str,
    add_arm: tuple[str, ...],
    init: bool,
    log: Log,
    stop: StopFlag,
) -> Iterator[Row[None] | dict[str, Any]]:
    """Draw the tasks to train on next, more often from distributions that still move the policy.

    Prints rows of the pool with `draw`, `distribution`, `p` and `state_seq`, or these alone. What is learned from
    feedback is in a state that ucb-update writes.
    """
    from toolroll.curriculum.pool import Pool
    from toolroll.curriculum.sampler import Sampler

    if init:
        make.make(where, by=by)
    else:
        MakeOptions.refuse_given(click.get_current_context())
    state = where.open(log)
    if add_arm:
        with state.writing():
            state.add_arms(add_arm)
        state.sync()
    if count_ is None:
        count_ = 0 if (init or add_arm) and not follow else 1
    if not (count_ or follow):
        return
    if unknown := sorted(set(freeze) - set(state.bandit.arms)):
        raise UsageError(f"no arm is named {unknown[0]!r}", place="--freeze")
    tasks = None
    if pool is not None:
        difficulty = make.difficulty or ("difficulty" if state.settings.policy == "adarft" else None)
        tasks = Pool.read(pool, by=by, difficulty=difficulty, stop=stop)
        tasks.check(state.bandit.arms, frozen=freeze)
    sampler = Sampler(state, tasks, stratify=stratified, replace=replace, frozen=freeze, resident=follow)
    try:
        for draw in sampler.draw(count_):
            yield draw.row()
        if follow:
            yield from _answers(rows, sampler, new_arms)
    finally:
        sampler.close()
        for warning in state.bandit.warnings():
            log.warn(warning)


def _answers(rows: Rows[Any], sampler: Sampler, new_arms: str) -> Iterator[Row[None] | dict[str, Any]]:
    """Take in feedback, and draw as many tasks as a row asks for."""
    from toolroll.curriculum.feedback import Collector

    collector = Collector(sampler.state, new_arms=new_arms)
    try:
        for row in rows:
            asked = row.view.draws
            if asked is None or row.view.distribution is not None:
                try:
                    collector.take(row.view)
                except RowError as error:
                    rows.refuse(row, error.why)
                    continue
            if asked:
                collector.commit()
                for draw in sampler.draw(asked):
                    yield draw.row()
                sampler.state.sync_soon()
    finally:
        collector.commit()
        sampler.state.sync()
