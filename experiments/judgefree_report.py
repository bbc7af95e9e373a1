"""The tables and the picture of judgefree.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: how an arm is called, and its colour (Okabe and Ito's)
SHOWN = {
    "unchecked": ("no check", "#000000"),
    "filter": ("filter only", "#E69F00"),
    "reverse": ("filter and reverse", "#0072B2"),
    "random": ("random negatives", "#CC79A7"),
    "dropout": ("caption dropout", "#56B4E9"),
    "swapped": ("a fifth swapped, no check", "#999999"),
    "swapped-reverse": ("a fifth swapped, reverse", "#009E73"),
}
#: what is shown: of the likeliest captions, or of sampled ones
MEASURES = {
    "precision": "greedy: precision",
    "recall": "greedy: recall",
    "f1": "greedy: F1",
    "sampled precision": "sampled: precision",
    "sampled recall": "sampled: recall",
    "sampled f1": "sampled: F1",
    "sampled chair_i": "sampled: CHAIR_i",
}
PICTURED = ("f1", "sampled f1", "sampled chair_i")
PLANTED = "swapped-reverse"


def by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm, by seed. All must be of one plan and its models, and of the same seeds for every arm."""
    found: dict[str, list[Row]] = {arm: [] for arm in SHOWN}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["arm"]].append(row)
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    alike = all(row[name] == rows[0][name] for row in rows for name in ("plan", "model", "weights", "clip"))
    if not alike or len(seeds) != 1 or len(set(*seeds)) != len(*seeds):
        raise SystemExit("the rows are not of one plan and its models, or arms differ in their seeds: it is not done")
    return found


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def measured(exam: Mapping[str, Any], measure: str) -> float:
    """A measure of an examination, of MEASURES; 0 where nothing was named."""
    kind, _, name = measure.rpartition(" ")
    return float((exam[kind] if kind else exam)[name] or 0.0)


def last(row: Row, measure: str) -> float:
    """A measure of the last examination."""
    return measured(row["exams"][-1], measure)


def outcomes(rows: Sequence[Row]) -> list[str]:
    """A line of the table for each arm."""
    lines = [
        f"| | pairs | right, wrong way round | {' | '.join(MEASURES.values())} | sampled F1 gained, by seed |",
        "|---" * (len(MEASURES) + 4) + "|",
    ]
    start = rows[0]["exams"][0]
    cells = [f"{measured(start, name):.3f}" for name in MEASURES]
    lines.append(f"| before | | | {' | '.join(cells)} | |")
    for arm, runs in by_arm(rows).items():
        shares = [
            [row["truth"][way] / max(1, sum(row["truth"].values())) for row in runs] for way in ("right", "wrong")
        ]
        cells = [
            spread([row["n_pairs"] for row in runs], 0),
            ", ".join(f"{100 * mean(share):.0f} %" for share in shares),
            *(spread([last(row, name) for row in runs]) for name in MEASURES),
            ", ".join(f"{last(row, 'sampled f1') - measured(row['exams'][0], 'sampled f1'):+.3f}" for row in runs),
        ]
        lines.append(f"| {SHOWN[arm][0]} | {' | '.join(cells)} |")
    return lines


def pooled(rows: Sequence[Row], margin: int, whose: str) -> tuple[dict[str, int], int]:
    """The actions on some pairs at a margin, over all seeds, and how many pairs they are."""
    counts = [row["planted"][margin][whose] for row in rows]
    found = {action: sum(count.get(action, 0) for count in counts) for action in ("keep", "reverse", "drop")}
    return found, sum(found.values())


def planted(rows: Sequence[Row]) -> list[str]:
    """A line for each margin: what became of the pairs that were swapped on purpose, and of the others."""
    runs = by_arm(rows)[PLANTED]
    names = [
        *("margin", "swapped: reversed, kept, dropped", "and truly wrong: reversed"),
        *("others: reversed, kept, dropped", "and truly right: reversed"),
    ]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for place, entry in enumerate(runs[0]["planted"]):
        cells = [f"{entry['margin']:g}"]
        for whose in ("planted", "others"):
            actions, count = pooled(runs, place, whose)
            shares = [f"{100 * actions[name] / max(1, count):.0f} %" for name in ("reverse", "keep", "drop")]
            cells.append(f"{', '.join(shares)} of {count}")
            actions, count = pooled(runs, place, f"{whose}, right")
            cells.append(f"{100 * actions['reverse'] / max(1, count):.0f} % of {count}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the tables, what their columns mean, the picture."""
    first = rows[0]
    plan, seeds = first["plan"], len({row["seed"] for row in rows})
    return f"""\
{seeds} seeds of each arm; {plan["scenes"]} pairs about as many pictures of {plan["size"]} pixels before the check, h {plan["h"]}; {plan["updates"]} updates of {plan["batch"]}
pairs, beta {plan["beta"]}, learning rate {plan["rate"]:g}, margin {plan["margin"]:g}; a model of {first["parameters"]:,} parameters. Captions of {plan["held_out"]} other pictures, the likeliest and sampled
ones (temperature {plan["temperature"]:g}, the same seeds for all):

{chr(10).join(outcomes(rows))}

Mean ± standard deviation over the seeds. "Right" are pairs, as trained on, whose better caption has the higher F1 by the
scene, "wrong" those where it has the lower one. Precision, recall and F1 are of all things named together.

Of the pairs of `{PLANTED}` a fifth was turned round on purpose before the check. What it did with them at each margin
(100 times the cosine, both margins alike), over all seeds:

{chr(10).join(planted(rows))}

"Truly" is by the scene, as above.

![What training changed of the F1 of captions, and of F1 and CHAIR_i of sampled ones, by arm]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each of three measures, what training changed of it: a bar an arm, a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(PICTURED), sharey=True)
    runs_of = by_arm(rows)
    for axes, measure in zip(panels, PICTURED, strict=True):
        for place, (arm, runs) in enumerate(runs_of.items()):
            values = [last(row, measure) - measured(row["exams"][0], measure) for row in runs]
            axes.barh(place, mean(values), color=SHOWN[arm][1], alpha=0.5)
            axes.plot(values, [place] * len(values), "o", color=SHOWN[arm][1], markersize=4)
        axes.axvline(0, color="0.3", linewidth=0.9)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(f"change of {MEASURES[measure]}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(runs_of)), [SHOWN[arm][0] for arm in runs_of])
    panels[0].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
