"""The table and the picture of hiprag.py, from its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]
Point = Mapping[str, Any]  #: of a row's curve

#: how an arm of `hiprag.py` is called, and its colour (Okabe and Ito's) and line
SHOWN = {
    "0": ("λp = 0", "#000000", "-"),
    "0.2": ("λp = 0.2", "#56B4E9", "-"),
    "0.4": ("λp = 0.4", "#0072B2", "-"),
    "0.6": ("λp = 0.6", "#CC79A7", "-"),
    "over-only": ("0.4, over-only", "#E69F00", "--"),
    "under-only": ("0.4, under-only", "#009E73", "--"),
}
BASELINE = "0"
SHARES = {"cem": "right answers", "osr": "over-search rate", "usr": "under-search rate"}  #: pictured, and in per cent


def by_arm(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """The rows of each arm by their seed. All must be of one plan, and of the same seeds for every arm."""
    found: dict[str, dict[int, Row]] = {arm: {} for arm in SHOWN}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if row["seed"] in found[row["arm"]]:
            raise SystemExit(f"{row['arm']} has more than one row of seed {row['seed']}")
        found[row["arm"]][row["seed"]] = row
    if any(row["plan"] != rows[0]["plan"] for row in rows) or len({tuple(runs) for runs in found.values()}) != 1:
        raise SystemExit("the rows are not of one plan, or arms differ in their seeds: the experiment is not done")
    return found


def percent(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation (n - 1) in per cent, and of how many, where some are rates of nothing."""
    there = [100 * value for value in values if value is not None]
    if not there:
        return "no such step"
    said = f"{mean(there):.1f} ± {stdev(there) if len(there) > 1 else 0.0:.1f}"
    return said if len(there) == len(values) else f"{said} (of {len(there)})"


def number(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n - 1)."""
    return f"{mean(values):.2f} ± {stdev(values) if len(values) > 1 else 0.0:.2f}"


def needless(point: Point, plan: Mapping[str, Any]) -> float:  # noqa: ARG001 - both kinds of bad step are called alike
    """Searches a question that were not needed."""
    return float((point["osr"] or 0.0) * point["searches_per_question"])


def wrong(point: Point, plan: Mapping[str, Any]) -> float:
    """Steps a question that did not search and do not hold. Test questions have 2 to `longest` lookups, evenly."""
    return float((point["usr"] or 0.0) * ((2 + plan["longest"]) / 2 - point["searches_per_question"]))


def table(rows: Sequence[Row]) -> str:
    """A line for the start and for each arm at the end."""
    runs_of, plan = by_arm(rows), rows[0]["plan"]
    columns = (
        "reward", "right answers, %", "over-search rate, %", "under-search rate, %", "searches a question",
        "needless ones", "wrong steps without one", "known facts still known, %",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines.append(line("before", [row["curve"][0] for row in runs_of[BASELINE].values()], plan))
    lines += [line(SHOWN[arm][0], [row["curve"][-1] for row in runs.values()], plan) for arm, runs in runs_of.items()]
    return "\n".join(lines) + "\n"


def line(name: str, points: Sequence[Point], plan: Mapping[str, Any]) -> str:
    """A line of the table, over the seeds."""
    cells = [
        *(percent([point[measure] for point in points]) for measure in SHARES),
        number([point["searches_per_question"] for point in points]),
        *(number([count(point, plan) for point in points]) for count in (needless, wrong)),
        percent([point["known"] for point in points]),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def differences(rows: Sequence[Row]) -> str:
    """A line for each arm but the baseline: what it has at the end more than the baseline, seed by seed."""
    runs_of, plan = by_arm(rows), rows[0]["plan"]
    measures: dict[str, tuple[Callable[[Point], float], str]] = {
        "right answers, points": (lambda point: 100 * point["cem"], "+.1f"),
        "needless searches a question": (lambda point: needless(point, plan), "+.2f"),
        "wrong steps without one": (lambda point: wrong(point, plan), "+.2f"),
    }
    lines = [f"| minus λp = 0, by seed | {' | '.join(measures)} |", "|---" * (1 + len(measures)) + "|"]
    for arm, runs in runs_of.items():
        if arm != BASELINE:
            pairs = [(row["curve"][-1], runs_of[BASELINE][seed]["curve"][-1]) for seed, row in runs.items()]
            cells = [
                ", ".join(format(of(end) - of(other), form) for end, other in pairs) for of, form in measures.values()
            ]
            lines.append(f"| {SHOWN[arm][0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the tables, what their columns mean, the picture."""
    first, plan, seeds = rows[0], rows[0]["plan"], len({row["seed"] for row in rows})
    asked = plan["held_out"] * (plan["longest"] - 1)
    return f"""\
{seeds} seeds of each reward; {plan["entities"] * plan["relations"]} facts, half of them known; {100 * plan["astray"]:.0f} % of the searches go astray; a policy of
{first["parameters"]:,} parameters; {plan["updates"]} updates of {plan["prompts"]} questions, {plan["samples"]} samples each. On {asked} held-out questions of
2 to {plan["longest"]} lookups, answered greedily:

{table(rows)}
{differences(rows)}
Mean ± standard deviation over the seeds. Rates are those of `step-stats`; a run that always searches has no under-search
rate: "of" says how many seeds have one. Steps are counted a question.

![Right answers, over-search and under-search rate over the updates]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """The mean of each rate over updates by arm, with one standard error to both sides as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, len(SHARES), sharey=True)
    for axes, (measure, title) in zip(panels, SHARES.items(), strict=True):
        for arm, runs in by_arm(rows).items():
            draw_arm(axes, arm, list(runs.values()), measure)
        axes.set(title=title, xlabel="updates", ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(SHOWN))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_arm(axes: Any, arm: str, runs: Sequence[Row], measure: str) -> None:
    """A line of an arm over the seeds that have such a rate."""
    name, colour, style = SHOWN[arm]
    points = [[row["curve"][i][measure] for row in runs] for i in range(len(runs[0]["curve"]))]
    columns = [[value for value in point if value is not None] for point in points]
    middle = [mean(column) if column else float("nan") for column in columns]
    error = [stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0.0 for column in columns]
    updates = [point["update"] for point in runs[0]["curve"]]
    low, high = ([m + side * e for m, e in zip(middle, error, strict=True)] for side in (-1, 1))
    axes.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(updates, middle, style, color=colour, label=name, linewidth=1.6)
