"""pmp-eval: say how good segments are: mean IoU, recall of proposals, IoU of the selected masks.

Measures: toolroll.segment.metrics; sums over images: toolroll.segment.evaluating.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import click

from toolroll.cli import command, offers_table
from toolroll.errors import RowError
from toolroll.records import view
from toolroll.records.segment import SegmentedImage

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

EXAMPLES = """
  What pmp-seg finds in drawn streets:
    pmp-data streets:7 -n 2 --size 160x128 --out streets -o rows.jsonl
    pmp-seg rows.jsonl --proposals -o found.jsonl
    pmp-eval found.jsonl --table
  The same masks by the rule of OVSeg's evaluator, class by class:
    pmp-eval found.jsonl --miou union --by-class --table
"""

NOTES = """
The same masks have three mean IoUs, so the rule is in the result. The sum of the IoUs of classes that the truth has
is divided by their number (gt), by the number of classes that the truth or the predictions have, so that a class
predicted falsely costs (union), or by the number of all classes that were asked for (all). Pixels of `ignore` do not
count, nor do true segments that have no others. A class is asked for in an image if it is in the row's `prompts`;
segments of other classes there are none of them.

proposal_recall takes each true segment of a class that was asked for, and the proposal that fits it best, whatever its
class: the mean of their IoUs. It is what listening to prompts is meant to raise. Without `proposals` (pmp-seg
--proposals) the segments are the proposals.

selected_iou takes each prompt that the image has a segment for, and the mask that is most likely of it: the mean of
their IoUs, of several segments with the best. other_iou compares the same masks with segments of other classes.
"""


@command(
    "pmp-eval",
    system="PMP",
    reads=view(SegmentedImage, "prompts", "truth", "ignore", "width", "height", "segments", "proposals", "selected"),
    reducer=True,
    epilog="See pmp-data(1), pmp-seg(1), toolroll-records(5).",
)
@click.option(
    "--miou",
    "rule",
    type=click.Choice(["gt", "union", "all"]),
    default="gt",
    show_default=True,
    help="What the sum of the classes' IoUs is divided by.",
)
@click.option("--by-class", is_flag=True, help="Write a row for each class instead.")
@offers_table
def main(
    rows: Rows[Any], *, rule: Literal["gt", "union", "all"], by_class: bool, table: bool
) -> Iterator[dict[str, Any]]:
    """Say how good segments are: mean IoU, recall of proposals, IoU of the selected masks.

    Reads rows of pmp-seg that have the `truth`; writes one record of all of them.
    """
    from toolroll.segment.evaluating import Scores

    scores = Scores()
    for row in rows:
        try:
            scores.add(row.view)
        except RowError as error:
            rows.refuse(row, error.why)
    if rows.cut:
        return
    report = scores.report(rule)
    if by_class:
        for name, value in report["class_iou"].items():
            yield {"class": name, "iou": value}
        return
    if table:
        report.pop("class_iou")
    yield report
