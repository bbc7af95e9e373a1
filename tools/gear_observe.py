"""gear-observe: draw the observations of problems from the pairs of tasks.

Makes rows of its own: problems. Draws: toolroll.abduction.tasks. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.errors import UsageError
from toolroll.records import field_types
from toolroll.records.abduction import HypothesisSet

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Two observations of a task of your own:
    echo '{"id": "double", "train": [[1, 2], [2, 4], [3, 6]]}' > tasks.jsonl
    gear-observe pairs tasks.jsonl -n 2 --tasks 1 -o problems.jsonl
  The paper's problems, 100 with each number of observations from 1 to 4:
    gear-observe list-function LIST-FUNCTION.jsonl -o problems_list_function.jsonl
    gear-observe acre ACRE.jsonl -n 2,3,4 -o problems_acre.jsonl
"""

NOTES = """
KIND says which pairs of a task are drawn from. list-function, mini-arc, arc, pairs: all that have an output, `train`
and `test`. acre: those with the output "on" or "off"; the first observation is one that is on, the second one that is
off. list-function reads strings as Python literals, which is how raw list functions are stored.

As in the released code, for each number N of observations two streams of random numbers begin with --seed. One draws N
pairs of each task, in the order of the files; the other then draws --tasks of the tasks. Tasks with fewer than N pairs
are left out. So what is drawn depends on all tasks in the files and on their order. With the raw files of the paper's
data sets and the default seed, this gives the paper's problems.

Files are JSON lines of tasks with `id` or `idx`, `train` and `test`, whose pairs are {"input", "output"} or arrays of
two; or ARC's JSON, of one task or of many. A task with `idx` gets the id NAME/idx.
"""

KINDS = {"list-function": "list_function", "acre": "acre", "mini-arc": "mini_arc", "arc": "arc", "pairs": None}


@command(
    "gear-observe",
    system="GEAR",
    source=True,
    adds=field_types(HypothesisSet, "id", "dataset", "n_obs", "observations", "test"),
    key=("id", "n_obs"),
    epilog="See gear-score(1), gear-space(1), toolroll-records(5).",
)
@click.argument("kind", type=click.Choice(list(KINDS)), help="Which pairs are drawn from.")
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="FILE...", help="Tasks, in order.")
@click.option(
    "-n",
    "--number",
    "numbers",
    metavar="N,...",
    help="Observations of a problem, each of these numbers.  [default: 1,2,3,4; acre: 2,3,4]",
)
@click.option(
    "--tasks",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="COUNT",
    help="Tasks that are drawn for each N; all of them where there are fewer.",
)
@click.option("--name", metavar="NAME", help="The data set's name.  [default: that of KIND; pairs: none]")
@click.option("--with-test", is_flag=True, help="Add the `test` pairs of the task, for gear-score --transfer.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=2025,
    show_default=True,
    help="Seed of what is drawn. The default is that of the paper's problems.",
)
def main(
    *,
    kind: str,
    sources: tuple[str, ...],
    numbers: str | None,
    tasks: int,
    name: str | None,
    with_test: bool,
    seed: int,
    log: Log,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Draw the observations of problems from the pairs of tasks.

    Writes problems with `observations`, for each number of them as many problems as there are tasks drawn.
    """
    import json

    from toolroll.abduction.tasks import draw_observations, read_tasks

    name = KINDS[kind] if name is None else name
    prefix = f"{name}/" if name else ""
    known = list(read_tasks(sources, literals=kind == "list-function", prefix=prefix, stop=stop))
    if stop:
        return
    one_of = (b'"on"', b'"off"') if kind == "acre" else ()
    for n in _numbers(numbers or ("2,3,4" if kind == "acre" else "1,2,3,4"), least=max(1, len(one_of))):
        drawn = draw_observations(known, n, count=tasks, seed=seed, one_of=one_of)
        if len(drawn) < tasks:
            log.warn(f"only {len(drawn)} tasks have {n} pairs, not {tasks}")
        for task, pairs in drawn:
            row: dict[str, Any] = {"id": task.id}
            if name:
                row["dataset"] = name
            row |= {"n_obs": n, "observations": [[json.loads(side) for side in pair] for pair in pairs]}
            if with_test:
                row["test"] = [[json.loads(side) for side in pair] for pair in task.test]
            yield row


def _numbers(text: str, *, least: int) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) >= least for part in parts):
        raise UsageError(f"want numbers from {least}, with commas, not {text!r}", place="-n")
    return [int(part) for part in parts]
