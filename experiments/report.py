"""Tables and pictures of the experiments, made from their rows.

    python experiments/report.py [EXPERIMENT]... [--check]

Rewrites the block of PAPERS.md that is marked for an experiment (without a name, for each that has rows), and its
picture in docs/pictures. With --check nothing is written; the exit code is 1 if a block does not follow from the rows
or a picture is not there. The rows of `layercast` are report.jsonl of pipelines/layercast.sh.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curriculum_report
import gear_report
import hiprag_report
import ibrnet_report
import judgefree_report
import kvquant_report
import pmp_report
import precision
import pruning_report
import selfplay_report

ROOT = Path(__file__).resolve().parents[1]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What makes the text and the picture of an experiment from its rows."""

    text: Callable[[Sequence[Row], str], str]  #: rows and the picture's path beside the page -> Markdown
    draw: Callable[[Sequence[Row], Path], None]


REPORTS = {
    "curriculum": Report(curriculum_report.text, curriculum_report.draw),
    "gear": Report(gear_report.text, gear_report.draw),
    "layercast": Report(precision.text, precision.draw),
    "visionzero": Report(selfplay_report.text, selfplay_report.draw),
    "judgefree": Report(judgefree_report.text, judgefree_report.draw),
    "pruning": Report(pruning_report.text, pruning_report.draw),
    "kvquant": Report(kvquant_report.text, kvquant_report.draw),
    "pmp": Report(pmp_report.text, pmp_report.draw),
    "ibrnet": Report(ibrnet_report.text, ibrnet_report.draw),
    "hiprag": Report(hiprag_report.text, hiprag_report.draw),
}


def rows_of(name: str) -> Path:
    """Where the rows of an experiment are."""
    return ROOT / "experiments" / "results" / f"{name}.jsonl"


def filled(page: str, name: str, text: str) -> str:
    """A page with the block of an experiment written anew."""
    block = re.compile(rf"(<!-- generated: experiment {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit(f"no block is marked <!-- generated: experiment {name} -->")
    return block.sub(lambda match: match[1] + text + match[2], page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the block and the picture of an experiment, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(REPORTS))
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is out of date")
    parser.add_argument("--rows", type=Path, help="in place of the experiment's own")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    if unknown := set(options.experiments) - set(REPORTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    made = [name for name in REPORTS if rows_of(name).exists()]
    problems = [problem for name in options.experiments or made for problem in write(name, options)]
    sys.stderr.writelines(problem + "\n" for problem in problems)
    if options.check:
        sys.exit(1 if problems else 0)


def write(name: str, options: argparse.Namespace) -> list[str]:
    """Write the block and the picture of an experiment; with --check only tell what is out of date."""
    report = REPORTS[name]
    page = options.page or ROOT / "PAPERS.md"
    picture = options.picture or ROOT / "docs" / "pictures" / f"{name}.png"
    rows = [json.loads(line) for line in (options.rows or rows_of(name)).read_text().splitlines()]
    before = page.read_text()
    after = filled(before, name, report.text(rows, picture.relative_to(page.parent).as_posix()))
    if options.check:
        return [f"{page}: out of date"] * (after != before) + [f"{picture}: missing"] * (not picture.exists())
    page.write_text(after)
    report.draw(rows, picture)
    return []


if __name__ == "__main__":
    main()
