"""Commands that only tests use: they do at will what real ones do rarely. `python own_tools.py NAME ARGS...`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta

from toolroll.cli import Tool, command, each, offers_table, uses_seed
from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed
from toolroll.run.signals import StopFlag

EXAMPLES = """
  Do it:
    tag items.jsonl
"""


class Item(msgspec.Struct, kw_only=True, frozen=True):
    """What the tests' commands read."""

    id: Annotated[str | int | None, Meta(description="Names the item.")] = None
    n: Annotated[int, Meta(description="A number.")]


@command("tag", reads=Item, adds={"tag": float, "seed": int})
@click.option("--factor", type=float, default=2.0, help="What to multiply by.")
@click.option("--label", default="", help="Any text.")
@click.option("--delay", type=float, default=0.0, help="Seconds a row takes.")
@uses_seed
def tag(rows: Rows[Item], *, factor: float, label: str, delay: float, seed: int) -> Iterator[Row[Item]]:
    """Multiply `n`.

    A cheap command: one row in, one row out.
    """

    def one(row: Row[Item]) -> Row[Item]:
        if delay:
            time.sleep(delay)
        return row.add(tag=row.view.n * factor, seed=record_seed(seed, row.view.id) % 1000, label=label)

    return each(rows, one)


@command("slow-cat", reads=Item, adds={"seen": bool}, slow=True)
@click.option("--delay", type=float, default=0.0, help="Seconds a row takes.")
@click.option("--mark", default="", help="A setting that shapes the output.")
def slow_cat(rows: Rows[Item], *, delay: float, mark: str) -> Iterator[Row[Item]]:
    """Take time over each row, like a model."""
    for row in rows:
        if delay:
            time.sleep(delay)
        yield row.add(seen=True, mark=mark)


@command("fail-some", reads=Item, adds={"half": float})
def fail_some(rows: Rows[Item]) -> Iterator[Row[Item]]:
    """Fail rows whose `n` is a multiple of three, keeping what was made of them."""
    for row in rows:
        if row.view.n % 3 == 0:
            yield row.fail("a multiple of three", half=row.view.n / 2)
        else:
            yield row.add(half=row.view.n / 2)


@command("spoil", reads=Item, adds={"made": Any})
@click.option("--how", type=click.Choice(["nan", "surrogate", "big", "raise", "exit"]), required=True)
def spoil(rows: Rows[Item], *, how: str) -> Iterator[Row[Item]]:
    """Try to make of rows with an odd `n` what a record cannot hold."""
    made = {"nan": [float("nan")], "surrogate": "\ud800", "big": 2**70}

    def one(row: Row[Item]) -> Row[Item]:
        if row.view.n % 2 == 0:
            return row.add(made=None)
        if how == "raise":
            raise ZeroDivisionError("by nought")
        if how == "exit":
            raise RowError("cannot\nbe done")
        return row.add(made=made[how])

    return each(rows, one)


@command("expand", reads=Item, adds={"sample": int}, slow=True, expands=True)
@click.option("--samples", type=int, default=3, help="Rows for each row.")
@click.option("--delay", type=float, default=0.0, help="Seconds a sample takes.")
def expand(rows: Rows[Item], *, samples: int, delay: float) -> Iterator[Row[Item]]:
    """Make several rows of one."""
    for row in rows:
        for sample in range(samples):
            if rows.done(row.view.id, sample):
                continue
            if delay:
                time.sleep(delay)
            yield row.add(sample=sample)


@command("batch", reads=Item, adds={"batch": int})
@click.option("--size", type=int, default=4, help="Most rows of a batch.")
def batch(rows: Rows[Item], *, size: int) -> Iterator[Row[Item]]:
    """Take rows as many at a time as are there, and tell how many."""
    for first in rows:
        taken = [first]
        while len(taken) < size and rows.ready():
            row = next(rows, None)
            if row is None:
                break
            taken.append(row)
        for row in taken:
            yield row.add(batch=len(taken))


@command("total", reads=Item, reducer=True)
@click.option("--delay", type=float, default=0.0, help="Seconds a row takes.")
@offers_table
def total(rows: Rows[Item], *, delay: float) -> Iterator[dict[str, Any]]:
    """Add up `n`; a negative one cannot be used."""
    count, result = 0, 0
    for row in rows:
        if delay:
            time.sleep(delay)
        if row.view.n < 0:
            rows.refuse(row, "a negative number")
            continue
        count += 1
        result += row.view.n
    yield {"name": "all", "count": count, "total": result}


@command("count-up", source=True, adds={"n": int})
@click.option("--to", type=int, default=3, help="How far.")
@click.option("--delay", type=float, default=0.0, help="Seconds a row takes.")
def count_up(*, to: int, delay: float, stop: StopFlag) -> Iterator[dict[str, Any]]:
    """Make rows of its own, reading nothing."""
    for n in range(to):
        if stop:
            return
        if delay:
            time.sleep(delay)
        yield {"n": n}


@command("echo-if", reads=Item, source=True, slow=True)
@click.option("--follow", is_flag=True, help="Read rows, too.")
def echo_if(rows: Rows[Item], *, follow: bool) -> Iterator[dict[str, Any]]:
    """Make a row of its own, and one for each that it reads, if it reads any."""
    yield {"n": -1}
    if follow:
        for row in rows:
            yield {"n": row.view.n}


@command("pairs", reads=Item, adds={"of": int}, sees_errors=True)
def pairs(rows: Rows[Item]) -> Iterator[Row[Item]]:
    """Hold rows back until there are two; failed ones count."""
    held: list[Row[Item]] = []
    for row in rows:
        held.append(row)
        if len(held) == 2:
            good = sum(not one.failed for one in held)
            yield from (one if one.failed else one.add(of=good) for one in held)
            held.clear()
    if not rows.cut:
        yield from (one if one.failed else one.add(of=1) for one in held)


@command("learn", reads=Item, consumes=True, sees_errors=True, distributed=True, slow=True, key=("step",))
@click.option("--delay", type=float, default=0.0, help="Seconds a row takes.")
def learn(rows: Rows[Item], *, delay: float) -> Iterator[dict[str, Any]]:
    """Write a row of another kind for every two rows; failed ones count."""
    step, taken, failed = 0, 0, 0
    for row in rows:
        if delay:
            time.sleep(delay)
        taken += 1
        failed += row.failed
        if taken == 2:
            step += 1
            if not rows.done(step):
                yield {"step": step, "failed": failed}
            taken = failed = 0


TOOLS: dict[str, Tool] = {
    str(tool.name): tool
    for tool in (tag, slow_cat, fail_some, spoil, expand, batch, total, count_up, echo_if, pairs, learn)
}

if __name__ == "__main__":
    TOOLS[sys.argv.pop(1)].main()
