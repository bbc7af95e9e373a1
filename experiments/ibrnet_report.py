"""The table and the picture of ibrnet.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: what was measured, and when: the stage and what is in the pictures
SHOWN = {
    ("before", "drawn"): "drawn, before the mix",
    ("mix", "drawn"): "drawn, after it",
    ("before", "real"): "real, before the mix",
    ("mix", "real"): "real, after it",
    ("own", "real"): "real, tuned on its own photos",
}
PICTURED = (("mix", "drawn"), ("mix", "real"), ("own", "real"))
COLOUR = "#0072B2"  #: Okabe and Ito's blue


def by_count(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """The rows by number of scenes, then by seed. All must be of one plan, and of the same seeds for every number."""
    found: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["scenes"], row["seed"])):
        found.setdefault(row["scenes"], []).append(row)
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    alike = all(row[name] == rows[0][name] for row in rows for name in ("plan", "real"))
    if not alike or len(seeds) != 1 or len(set(*seeds)) != len(*seeds) or 0 not in found:
        raise SystemExit("the rows are not of one plan, or numbers differ in their seeds: the experiment is not done")
    return found


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def value(row: Row, stage: str, what: str, measure: str = "psnr_db") -> float:
    """A score of a row."""
    return float(row["scores"][stage][what][measure])


def shown(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """What of SHOWN the rows have."""
    return [one for one in SHOWN if rows[0]["real"] is not None or one[1] == "drawn"]


def table(rows: Sequence[Row]) -> str:
    """A line for each number of scenes and measure: mean and deviation, and what scratch lacks, seed by seed."""
    found, columns = by_count(rows), shown(rows)
    names = [SHOWN[one] for one in columns]
    lines = [
        f"| scenes | measure | {' | '.join(names)} | drawn, after it: more than from scratch, by seed |",
        "|---" * (len(names) + 3) + "|",
    ]
    for count, runs in found.items():
        title = f"{count}" if count else "0 (scratch)"
        for measure, name, digits in (("psnr_db", "PSNR", 2), ("ssim", "SSIM", 3)):
            cells = [spread([value(row, *one, measure) for row in runs], digits) for one in columns]
            gains = [
                value(row, "mix", "drawn", measure) - value(base, "mix", "drawn", measure)
                for row, base in zip(runs, found[0], strict=True)
            ]
            told = ", ".join(f"{gain:+.{digits}f}" for gain in gains) if count else ""
            lines.append(f"| {title} | {name} | {' | '.join(cells)} | {told} |")
            title = ""
    return "\n".join(lines) + "\n"


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the table, the picture."""
    first, plan = rows[0], rows[0]["plan"]
    seeds = len({row["seed"] for row in rows})
    wide, high = plan["size"]
    real = "" if first["real"] is None else f" and of `{first['real']}`, made no larger than {plan['side']},"
    return f"""\
{seeds} seeds; {plan["steps"]} steps on the scenes that are counted, then {plan["tuned"]} on a mix of {plan["mix"]} others; {plan["views"]} views, {plan["rays"]} rays of {plan["samples"]}
samples in a step, coarse alone; {first["parameters"]:,} weights, a trunk of width {plan["width"]}. Measured on photos of {plan["tested"]} other drawn
scenes of {wide} x {high} pixels{real} as means over scenes:

{table(rows)}
Mean ± standard deviation over the seeds. PSNR in dB; SSIM of windows inside the pictures. Before the mix, scratch is a
network that has learned nothing: views blended at random.

![PSNR by the number of scenes that were trained on]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each of three measurements: the mean by number of scenes as a line, a dot a seed."""
    from matplotlib.figure import Figure

    found = by_count(rows)
    panels = [one for one in PICTURED if one in shown(rows)]
    figure = Figure(figsize=(3.7 * len(panels), 3.4), layout="constrained")
    places = range(len(found))
    for axes, one in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = [[value(row, *one) for row in runs] for runs in found.values()]
        axes.plot(places, [mean(each) for each in values], color=COLOUR)
        for place, each in zip(places, values, strict=True):
            axes.plot([place] * len(each), each, ".", color="black", markersize=5)
        axes.set_xticks(list(places), [str(count) for count in found])
        axes.set(title=SHOWN[one], xlabel="scenes that were trained on", ylabel="PSNR, dB")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
