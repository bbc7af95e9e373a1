"""gear-stats: means of the scores of many problems, each with the number of problems behind it.

Means: toolroll.abduction.summary. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, offers_table
from toolroll.records import view
from toolroll.records.abduction import ScoredSet

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

EXAMPLES = """
  A table of scored problems, a row a data set and one over all:
    gear-space list-function --per-length 20 -o space.jsonl
    echo '{"id": "double", "observations": [[[1], [2]]], "hypotheses": [{"code": "def f(x):\\n    return x + x"}]}' |
      gear-score --space space.jsonl > scored.jsonl
    gear-stats --table scored.jsonl
  What the released tables show, gamma and beta of problems with two valid hypotheses only:
    gear-stats --compat authors scored.jsonl | jq -c '[.dataset, .gamma_norm, .n_gamma_norm]'
"""

NOTES = """
Means are over problems and weigh each alike. A score that a problem does not have is left out of its mean: gamma and
generalizability where no hypothesis is valid, beta where fewer than two are, all where there are no hypotheses. So the
means of two models may be over different problems, and one that solves a single problem well can lead; the number of
problems stands beside each mean, and --missing zero counts what is missing as 0.

--compat authors leaves gamma and beta out unless both exist, as the released tables do. Their gamma is about 1 or more
by this choice alone.
"""


@command(
    "gear-stats",
    system="GEAR",
    reads=view(
        ScoredSet,
        "dataset",
        "instruction_following",
        "consistency",
        "generalizability",
        "beta_struct",
        "beta_dist",
        "gamma_norm",
        "transfer",
    ),
    reducer=True,
    epilog="See gear-score(1), toolroll-records(5).",
)
@click.option(
    "--missing",
    type=click.Choice(["skip", "zero"]),
    default="skip",
    show_default=True,
    help="A score that a problem does not have is left out of the mean, or 0.",
)
@click.option(
    "--compat",
    type=click.Choice(["paper", "authors"]),
    default="paper",
    show_default=True,
    help="authors: gamma and beta are of problems that have both. For comparison only.",
)
@offers_table
def main(rows: Rows[Any], *, missing: Any, compat: str, table: bool) -> Iterator[dict[str, Any]]:
    """Average the scores of many problems, each mean with the number of problems behind it.

    Reads what gear-score writes; prints a row for each `dataset` and one for `all`.
    """
    from toolroll.abduction.summary import FIGURES, Tally, for_people

    tally = Tally(missing=missing, paired=compat == "authors")
    for row in rows:
        seen = row.view
        tally.add(seen.dataset, {name: getattr(seen, name) for name in (*FIGURES, "transfer")})
    yield from (for_people(record) if table else record for record in tally.report())
