"""kk-make: make Knights and Knaves puzzles that have one solution.

Makes rows of its own. Puzzles: toolroll.curriculum.knights_make; their words: toolroll.curriculum.knights_words.
Paper: arXiv:2504.09710, section 4.1; the grammar is that of arXiv:2410.23123.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, uses_seed
from toolroll.errors import ToolrollError
from toolroll.records import field_types
from toolroll.records.curriculum import Puzzle

if TYPE_CHECKING:
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Easy ones for a small model, and a bandit over them:
    kk-make --people 2,3,4 -n 40 -o pool.jsonl
    ucb-sample --state ucb --init --arms pool.jsonl
  Statements within statements:
    kk-make --people 5 -n 3 --depth 3 --width 3 --name kk_deep | jq -r .quiz
  The twelve distributions of the paper, 900 puzzles each to train on and 100 to test with:
    kk-make -n 900 --split train -o TRAIN.jsonl
    kk-make -n 100 --split test -o TEST.jsonl
"""

NOTES = """
A statement S of person i, counted from 0, is one of

  ('telling-truth', i)   ('lying', i)   ('not', S)
  ('and', S, S, ...)   ('or', S, S, ...)   ('->', S, S)   ('<=>', S, S)

where `or` is inclusive and `->` is false only where its first part holds and its second does not. A bare claim has
depth 1, a claim with a connective around it depth 2. --width is the most parts of `and` and `or`, the fewest are two.
Bare claims, `not` and the four connectives are equally likely to be drawn. Drawn again is a statement that is true or
false whoever is a knight, and one that its speaker could make always or never; a puzzle is kept if exactly one of the
2^n assignments fits all that is said.

Puzzles of n people are one sequence, numbered from 0. A puzzle depends on --seed, the number of people, --depth,
--width and its number, which is in its id; so -n 100 begins with the puzzles of -n 50, and the other numbers in
--people change nothing. No two puzzles of a sequence are the same but for who is called what, who speaks first, and
the order of the parts of `and`, `or` and `<=>`. At the default depth and width there are 148 such puzzles with two
people and more than 20,000 with three; asking for more than there are is an error, after what there is was written.

`split` is `test` for one puzzle in ten, by a digest of what is said. It is the same for every seed, and for puzzles
that are the same in the sense above, so that nothing of one part can be in the other.

Puzzles of other seeds, depths or widths have the same ids: give them another --name to use them together.
"""


@command(
    "kk-make",
    system="DUMP",
    adds=field_types(
        Puzzle, "id", "distribution", "n_people", "quiz", "names", "solution", "answer", "statements", "split"
    ),
    key=("id",),
    source=True,
    epilog="See kk-reward(1), kk-check(1), ucb-sample(1), text-rollout(1), toolroll-records(5).",
)
@click.option(
    "--people",
    default="3-14",
    show_default=True,
    metavar="N,N-M,...",
    help="Numbers of people, 2 to 14; each is a distribution, the smallest comes first.",
)
@click.option(
    "-n",
    "--number",
    "count",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="Puzzles of each.",
)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "test"]),
    default="all",
    show_default=True,
    help="Only puzzles to train on, or only the one in ten to test with.",
)
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Leave out the puzzles of each sequence before this number.",
)
@click.option("--depth", type=click.IntRange(2, 5), default=2, show_default=True, help="How deep statements nest.")
@click.option(
    "--width", type=click.IntRange(2, 5), default=2, show_default=True, help="Most parts of an `and` and an `or`."
)
@click.option(
    "--name",
    default="kk_logic",
    show_default=True,
    metavar="NAME",
    help="What distributions and ids begin with.",
)
@uses_seed
def main(
    *,
    people: str,
    count: int,
    split: str,
    first: int,
    depth: int,
    width: int,
    name: str,
    seed: int,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Make Knights and Knaves puzzles that have one solution.

    Writes, for each number of people, `-n` puzzles in words and as statements, with their solution.
    """
    from toolroll.curriculum import knights_make
    from toolroll.curriculum.knights_words import worded

    for n in knights_make.people(people):
        sequence = knights_make.puzzles(n, seed=seed, depth=depth, width=width)
        made = 0
        while made < count:
            puzzle = next(sequence, None)
            if stop:
                return
            if puzzle is None:
                part = "" if split == "all" else f" of --split {split}"
                raise ToolrollError(
                    f"found {made} of {count} puzzles with {n} people{part}; more --depth or --width allows more"
                )
            if puzzle.index >= first and split in ("all", puzzle.split):
                made += 1
                yield worded(puzzle, name=name, seed=seed)
