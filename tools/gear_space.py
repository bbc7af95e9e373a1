"""gear-space: make the inputs on which hypotheses are compared.

Makes rows of its own: inputs, JSON values of any kind. Spaces: toolroll.abduction.space. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  A small space of lists, some with repeated elements:
    gear-space list-function --per-length 100 --space-repeats -o space.jsonl
  The spaces of two of the paper's data sets, made from nothing:
    gear-space list-function -o space_list_function.jsonl
    gear-space acre -o space_acre.jsonl
  Those of grids are all inputs of the data set:
    gear-space mini-arc MINIARC.jsonl -o space_mini_arc.jsonl
    gear-space arc ARC-AGI_CHALLENGES.json -o space_arc.jsonl
  For problems of your own, described in a file:
    gear-space spec SPACE.toml -o space_own.jsonl
"""

NOTES = """
KIND is list-function (lists of 0 to 16 of the numbers 0 to 99), acre (lists of 0 to 8 objects, each "colour material
shape"), mini-arc or arc (every different input of the files), inputs (the same for files of any problems) or spec.

Of each length all lists are made if they are not more than --per-length. Otherwise so many different ones are drawn; no
element comes twice in one of them, as in the released code. So hypotheses that differ in what they do with repeated
elements do not differ on this space; --space-repeats draws with repeats. With the defaults, list-function makes the
15,101 inputs of the paper, and acre 7,049.

Files are JSON lines of tasks with `train` and `test`, or ARC's JSON; gear-observe(1) reads the same. Strings in the
inputs stay strings; --literals reads them as Python literals, which raw list functions are stored as.

A spec is TOML or JSON: a table with `kind`, which says what else is in it.

    kind = "lists"                               # or "strings", "grids", "records", "numbers", "words", "values"
    lengths = [0, 8]                             # from, to
    count = 1000                                 # of each length, if there are more
    counts = { 2 = 50 }                          # other numbers for some lengths
    repeats = true                               # may an element come again in a list?
    of = { kind = "numbers", first = 0, last = 9 }

    numbers   first, last
    words     words, lists of words of which one each is joined: words = [["red", "blue"], ["cube", "ball"]]
    values    values, any JSON values
    strings   alphabet, lengths, count, counts
    grids     of, rows, columns (from, to), count of each shape
    records   fields = { name = SPEC, ... }, count

`of` and fields take any spec. Values are different, and the same for the same --seed. Where there are fewer values than
asked for, all of them are made.
"""

KINDS = ("list-function", "acre", "mini-arc", "arc", "inputs", "spec")


@command(
    "gear-space",
    system="GEAR",
    source=True,
    epilog="See gear-score(1), gear-observe(1).",
)
@click.argument("kind", type=click.Choice(KINDS), help="What the inputs are like.")
@click.argument(
    "sources",
    nargs=-1,
    type=click.Path(),
    metavar="[FILE]...",
    help="mini-arc, arc, inputs: files of tasks, in order. spec: one file, TOML or JSON by its name.",
)
@click.option(
    "--per-length",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="list-function, acre: lists of each length, if there are more.",
)
@click.option(
    "--space-repeats", is_flag=True, help="Draw lists in which elements may come again, where a spec does not say."
)
@click.option("--literals", is_flag=True, help="Strings in the files are Python literals.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=2025,
    show_default=True,
    help="Seed of what is drawn. The default is that of the paper's spaces.",
)
def main(
    *,
    kind: str,
    sources: tuple[str, ...],
    per_length: int,
    space_repeats: bool,
    literals: bool,
    seed: int,
    stop: StopFlag,
) -> Iterator[Any]:
    """Make the inputs on which hypotheses are compared.

    Writes one input a line, each once, as a JSON value: the --space of gear-score.
    """
    import random

    from toolroll.abduction import space

    if kind in ("list-function", "acre"):
        if sources:
            raise UsageError(f"{kind} is made from nothing; no files, please", place=sources[0])
        spec = space.paper_space(kind, per_length)
    elif not sources or (kind == "spec" and len(sources) > 1):
        raise UsageError("name one file" if kind == "spec" else "name the files of the tasks", place=kind)
    elif kind == "spec":
        spec = space.spec_file(sources[0])
    else:
        import orjson

        from toolroll.abduction.tasks import inputs_of, read_tasks

        yield from map(orjson.Fragment, inputs_of(read_tasks(sources, literals=literals, stop=stop)))
        return
    for value in space.made(spec, random.Random(seed), repeats=space_repeats):
        if stop:
            return
        yield value
