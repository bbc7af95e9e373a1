"""pair-quiz: write questions about the images of pairs, with their answers.

Questions: toolroll.world.questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, uses_seed
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.spygame import SpyPair
from toolroll.records.world import QuizItem

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  How many answers of a model are right:
    pair-make scenes -n 2 --size 96x72 --out . -o pairs.jsonl
    pair-quiz pairs.jsonl -n 2 | image-rollout --temperature 0 | answer-check --kind exact |
      jq -s 'map(.correct) | add / length'
  Rows to train on, eight answers to each question:
    pair-quiz PAIRS.jsonl | image-rollout --policy POLICY --samples 8 | answer-check --kind exact |
      group-advantage --reward-field correct --group-size 8 > train.jsonl
"""

NOTES = """
The rows of pair-make say what their images show, `original_scene` or `original_table`, and the answers follow from
that. A question names a thing by words that fit no other, and never by what it asks for. Answers are short texts, for
answer-check --kind exact.

Of scenes: color, shape, size, material (of a thing), position (of one thing to another), place (the leftmost or
rightmost thing), count, existence, lists (which of two lists of things fits). Of charts: chart-kind, chart-count,
chart-largest, chart-compare. There is one question of each kind of --kinds, in random order, then another of each,
until there are -n of them; a picture that allows fewer has fewer. `distribution` is the kind, for ucb-sample and for
sums.

The questions depend on --seed and the pair's id. Paths in `images` are those of the pairs, so keep the rows in the same
folder, or use --images of the commands that read them.
"""


@command(
    "pair-quiz",
    system="Vision-Zero",
    reads=view(
        SpyPair, *("id", "original", "modified", "original_scene", "modified_scene", "original_table", "modified_table")
    ),
    adds=field_types(QuizItem, *QuizItem.__struct_fields__),
    key=("id",),
    consumes=True,
    epilog="See pair-make(1), image-rollout(1), answer-check(1), toolroll-records(5).",
)
@click.option(
    "-n",
    "--number",
    "count",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="Questions a pair.",
)
@click.option("--kinds", "ask", default="", metavar="KIND,...", help="Kinds of questions; see NOTES.  [default: all]")
@click.option(
    "--which",
    type=click.Choice(["original", "modified"]),
    default="original",
    show_default=True,
    help="The image of the pair that is asked about.",
)
@uses_seed
def main(rows: Rows[Any], *, count: int, ask: str, which: Any, seed: int, log: Log) -> Iterator[dict[str, Any]]:
    """Write questions about the images of pairs, with their answers.

    Reads rows of pair-make; writes a row for each question, with `prompt`, `images` and `answer`.
    """
    from toolroll.world.quiz import KINDS, Quiz

    known = [kind for kinds in KINDS.values() for kind in kinds]
    kinds = [kind.strip() for kind in ask.split(",")] if ask else known
    if strange := [kind for kind in kinds if kind not in known]:
        raise UsageError(f"no such kind of question: {strange[0]!r}; there are {', '.join(known)}", place="--kinds")
    quiz = Quiz(count, kinds, which, seed)
    for row in rows:
        try:
            items = list(quiz.about(row.view))
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        for item in items:
            if rows.done(item["id"]):
                log.counts.skipped += 1
            else:
                yield item
