"""The table and the picture of visionzero.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: how an arm is called, its colour (Okabe and Ito's) and line
SHOWN = {
    "iterative": ("iterative", "#0072B2", "-"),
    "clue": ("clues only", "#E69F00", "--"),
    "decision": ("decisions only", "#009E73", "-."),
    "no-rae": ("iterative, no RAE", "#CC79A7", ":"),
}
MEASURES = {
    "question_accuracy": "right answers",
    "civilian_win_rate": "wins as civilians",
    "spy_win_rate": "wins as the spy",
    "vote_accuracy": "right votes",
    "na_share": "N/A",
}


def by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm, by seed. All must be of one plan and one model, and of the same seeds for every arm."""
    found: dict[str, list[Row]] = {arm: [] for arm in SHOWN}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["arm"]].append(row)
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    alike = all(row[name] == rows[0][name] for row in rows for name in ("plan", "model", "weights"))
    if not alike or len(seeds) != 1 or len(set(*seeds)) != len(*seeds):
        raise SystemExit("the rows are not of one plan and model, or arms differ in their seeds: it is not done")
    return found


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"


def gains(runs: Sequence[Row], measure: str) -> list[float]:
    """What was gained from the first examination to the last, seed by seed."""
    return [row["exams"][-1][measure] - row["exams"][0][measure] for row in runs]


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the table, what its columns mean, the picture."""
    runs_of, first = by_arm(rows), rows[0]
    plan, start = first["plan"], first["exams"][0]
    lines = [f"| | {' | '.join(MEASURES.values())} | steps about clues |", "|---" * (len(MEASURES) + 2) + "|"]
    lines.append(f"| before | {' | '.join(f'{start[name]:.3f}' for name in MEASURES)} | |")
    for arm, runs in runs_of.items():
        cells = [spread([row["exams"][-1][name] for row in runs]) for name in MEASURES]
        clues = ", ".join(str(row["stages"].count("c")) for row in runs)
        lines.append(f"| {SHOWN[arm][0]} | {' | '.join(cells)} | {clues} |")
    gained = ["| gained | " + " | ".join(MEASURES.values()) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for arm, runs in runs_of.items():
        gained.append(f"| {SHOWN[arm][0]} | {' | '.join(spread(gains(runs, name)) for name in MEASURES)} |")
    minutes = sum(row["duration_s"] for row in rows) / 60
    return f"""\
{len(runs_of["iterative"])} seeds of each arm; `{first["model"]}`, {first["parameters"]:,} weights; {plan["steps"]} steps of {plan["pairs"]} games with
{plan["civilians"]} civilians and {plan["rounds"]} round{"s" if plan["rounds"] > 1 else ""} of clues, and in steps about decisions {plan["pairs"] * plan["questions"]} questions with {plan["samples"]} answers each; {minutes:.0f} minutes
of one core in all. After training, mean ± standard deviation over the seeds:

{chr(10).join(lines)}

And what changed from before, seed by seed:

{chr(10).join(gained)}

Wins are against the model before training, on the other side; votes are those of the trained model as civilians. Each
number is of {start["n_games"]} games, {start["n_votes"]} votes or {start["n_answers"]} answers a seed, about {plan["held_out"]} pairs of pictures that nobody trained on; a game
that ends in a tie is the spy's. Answers are greedy; games are drawn, the same draws in all examinations.

![Right answers, wins and right votes over the steps, by arm]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each measure: the mean over the seeds at each examination, one standard error to both sides."""
    from matplotlib.figure import Figure

    runs_of = by_arm(rows)
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharex=True)
    for axes, (name, label) in zip(panels, MEASURES.items(), strict=True):
        for arm, runs in runs_of.items():
            title, colour, line = SHOWN[arm]
            steps = [exam["step"] for exam in runs[0]["exams"]]
            columns = [[row["exams"][i][name] for row in runs] for i in range(len(steps))]
            middle = [mean(column) for column in columns]
            error = [stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0.0 for column in columns]
            low, high = ([m + side * e for m, e in zip(middle, error, strict=True)] for side in (-1, 1))
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(steps, middle, line, color=colour, label=title, marker="o", markersize=3)
        axes.set_title(label)
        axes.set_xlabel("steps")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
