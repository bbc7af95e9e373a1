"""The table and the picture of pmp.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

SHOWN = {
    ("shapes", "one"): "shapes, one prompt at a time",
    ("shapes", "at once"): "shapes, all that is there at once",
    ("shapes", "held out"): "shapes, names held out in training",
    ("camvid", "all"): "CamVid, always the same eleven",
}
MEASURES = {
    "miou": "mIoU (gt)",
    "selected_iou": "IoU of the selected mask",
    "other_iou": "its IoU with other things",
    "proposal_recall": "recall of proposals",
    "recall_50": "segments found at 0.5",
}
PICTURED = ("miou", "selected_iou", "proposal_recall")
COLOURS = {True: "#0072B2", False: "#999999"}  #: with the block, without (Okabe and Ito's)


def pairs_of(rows: Sequence[Row]) -> dict[str, dict[int, dict[bool, Row]]]:
    """The rows by task, seed and model. Every seed must have both, of one plan."""
    found: dict[str, dict[int, dict[bool, Row]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(row["task"], {}).setdefault(row["seed"], {})[row["pmp"]] = row
    for task, seeds in found.items():
        plans = [row["plan"] for row in rows if row["task"] == task]
        if any(len(pair) != 2 for pair in seeds.values()) or any(plan != plans[0] for plan in plans):
            raise SystemExit(f"{task}: a seed has one of the two models, or plans differ: the experiment is not done")
    return found


def spread(values: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):{sign}.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def value(row: Row, test: str, measure: str) -> float:
    """A score of a row; 0 where it is of nothing."""
    return float(row["scores"][test][measure] or 0.0)


def table(rows: Sequence[Row]) -> str:
    """A line for each test and measure: with the block, without, the difference seed by seed."""
    lines = ["| asked for | measure | with the block | without | difference, by seed |", "|---|---|---|---|---|"]
    found = pairs_of(rows)
    for (task, test), name in SHOWN.items():
        seeds = found.get(task)
        if not seeds:
            continue
        shown = name
        for measure, title in MEASURES.items():
            if task == "camvid" and measure == "other_iou":
                continue
            both = {on: [value(pair[on], test, measure) for pair in seeds.values()] for on in (True, False)}
            gains = ", ".join(f"{a - b:+.3f}" for a, b in zip(both[True], both[False], strict=True))
            lines.append(f"| {shown} | {title} | {spread(both[True])} | {spread(both[False])} | {gains} |")
            shown = ""
    return "\n".join(lines) + "\n"


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the table, the picture."""
    said = []
    for task, seeds in pairs_of(rows).items():
        pair = next(iter(seeds.values()))
        plan = pair[True]["plan"]
        asked = "all prompts" if not plan["most"] else f"{plan['least']} to {plan['most']} prompts an image"
        said.append(
            f"`{task}`: {len(seeds)} seeds, {plan['steps']} updates of {plan['batch']} images of {plan['width']} x "
            f"{plan['height']}, {plan['queries']} queries, {asked} in training, {pair[True]['parameters']:,} weights "
            f"with the block, {pair[False]['parameters']:,} without"
        )
    about = ";\n".join(said)
    return f"""\
{about}:

{table(rows)}
Mean ± standard deviation over the seeds. Scores are those of `pmp-eval`; of `shapes`, pixels where no class scores 0.5
are of none.

![Three scores with the block and without, for each test]({picture})
"""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars of the means with the seeds as dots: with the block and without, for each test."""
    from matplotlib.figure import Figure

    found = pairs_of(rows)
    shown = [(pair, name) for pair, name in SHOWN.items() if pair[0] in found]
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, len(PICTURED), sharey=True)
    for axes, measure in zip(panels, PICTURED, strict=True):
        for on, shift in ((True, -0.2), (False, 0.2)):
            values = [[value(pair[on], test, measure) for pair in found[task].values()] for (task, test), _ in shown]
            places = [place + shift for place in range(len(shown))]
            title = "with the block" if on else "without"
            axes.barh(places, [mean(one) for one in values], 0.36, color=COLOURS[on], label=title)
            for place, one in zip(places, values, strict=True):
                axes.plot(one, [place] * len(one), ".", color="black", markersize=4)
        axes.set_yticks(range(len(shown)), [name.replace(", ", ",\n") for _, name in shown])
        axes.set(title=MEASURES[measure], xlim=(0, 0.6))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
