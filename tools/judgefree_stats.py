"""judgefree-stats: sum up preference pairs with scores, and say what looks wrong.

Sums: toolroll.preference.stats. Paper: arXiv:2411.17760.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, offers_table
from toolroll.errors import RowError
from toolroll.records import view
from toolroll.records.preference import JudgefreePair

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  What became of pairs, here of one that was scored before:
    echo '{"id": "p", "prompt": "What is there?", "chosen": "A red cube.", "rejected": "A dog.", "images": ["p.png"],
      "clip": {"chosen": {"score": 26.2}, "rejected": {"score": 25.1}}}' | jq -c . |
      judgefree-pairs --stage decide > pairs.jsonl
    judgefree-stats --table pairs.jsonl
  How far apart the scores are, before margins are chosen:
    judgefree-stats --histogram --table SCORED.jsonl
"""

NOTES = """
Reads what judgefree-pairs writes: scored pairs, or decided ones; those that were dropped are counted where
--with-dropped wrote them.

A gap is the score of the chosen answer minus that of the rejected one as they were made: a pair that was reversed
counts with the gap it had before. Lengths are in words, of pairs as they are written, without the dropped ones. For
medians and correlations some 60 bytes a pair are held.

Warnings, on stderr and in the record, where there are 20 pairs or more: rejected answers score higher as often as by
chance (within two standard errors of one half), so that the scores are noise; or more often, so that the sides are
swapped; scores do not fall with h; chosen answers are more than a tenth shorter or longer than rejected ones. And where
more than a tenth of pairs have an answer that was cut.
"""


@command(
    "judgefree-stats",
    system="Judge-free",
    reads=view(JudgefreePair, "id", "chosen", "rejected", "action", "reversed"),
    reducer=True,
    epilog="See judgefree-pairs(1), toolroll-records(5).",
)
@click.option("--histogram", is_flag=True, help="Print the histogram of the gaps instead.")
@click.option(
    "--bin",
    "bin_width",
    type=click.FloatRange(min=1e-6),
    default=1.0,
    show_default=True,
    help="Width of a bin of the histogram.",
)
@offers_table
def main(rows: Rows[Any], *, histogram: bool, bin_width: float, table: bool, log: Log) -> Iterator[dict[str, Any]]:
    """Sum up preference pairs with scores, and say what looks wrong.

    Prints counts, gaps, lengths, and how gaps and scores go with h, the strength of hallucination.
    """
    from toolroll.preference.stats import Sums, for_people
    from toolroll.preference.texts import text_of
    from toolroll.preference.work import known_fields

    sums = Sums(bin_width)
    for row in rows:
        seen = row.view
        try:
            fields = known_fields(row)
            texts = (text_of(seen.chosen, "chosen"), text_of(seen.rejected, "rejected"))
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        sums.add(fields, texts)
    report = sums.report()
    for warning in report["warnings"]:
        log.warn(warning)
    if histogram:
        yield from sums.histogram()
    else:
        yield for_people(report) if table else report
