"""The tables and the picture of gear.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: how an arm is called, and its colour (Okabe and Ito's) and line
SHOWN = {
    "equal": ("equal shares", "#000000", "-"),
    "momentum": ("by momentum", "#0072B2", "--"),
    "consistency": ("consistency alone", "#E69F00", "-."),
    "fair": ("fair comparison alone", "#009E73", ":"),
}
#: what is measured, as it is called in tables
MEASURES = {
    "instruction_following": "IF",
    "consistency": "C",
    "generalizability": "g",
    "beta_struct": "beta",
    "beta_dist": "beta, outputs",
    "gamma_norm": "gamma",
    "distinct": "different valid ones",
    "n_paired": "sets with two valid",
}
PICTURED = ("consistency", "beta_struct", "distinct")
BASELINE, CLAIMED = "equal", "momentum"


def by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm, by seed. All must be of one plan, and of the same seeds for every arm."""
    found: dict[str, list[Row]] = {arm: [] for arm in SHOWN}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["arm"]].append(row)
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    if any(row["plan"] != rows[0]["plan"] for row in rows) or len(seeds) != 1 or len(set(*seeds)) != len(*seeds):
        raise SystemExit("the rows are not of one plan, or arms differ in their seeds: the experiment is not done")
    return found


def measured(exam: Mapping[str, Any], measure: str) -> float:
    """A measure of an examination; 0 where no set has it."""
    return float(exam[measure] or 0.0)


def digits_of(measure: str) -> int:
    """How many digits behind the point a measure is shown with."""
    return 0 if measure == "n_paired" else 3


def spread(values: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):{sign}.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def outcomes(rows: Sequence[Row]) -> list[str]:
    """A line of the table for what all began with, and for each arm."""
    runs_of = by_arm(rows)
    lines = [f"| | {' | '.join(MEASURES.values())} |", "|---" * (len(MEASURES) + 1) + "|"]
    ends = [("untrained", [row["exams"][0] for row in runs_of[BASELINE]])]
    ends += [(SHOWN[arm][0], [row["exams"][-1] for row in runs]) for arm, runs in runs_of.items()]
    for name, exams in ends:
        cells = [spread([measured(exam, of) for exam in exams], digits_of(of)) for of in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def differences(rows: Sequence[Row], measure: str, arm: str = CLAIMED) -> list[float]:
    """What an arm's measure is above the baseline's after training, seed by seed."""
    runs_of = by_arm(rows)
    pairs = zip(runs_of[arm], runs_of[BASELINE], strict=True)
    return [measured(one["exams"][-1], measure) - measured(other["exams"][-1], measure) for one, other in pairs]


def paired(rows: Sequence[Row]) -> list[str]:
    """A line for each measure: momentum's minus equal shares', mean and each seed."""
    lines = ["| by momentum minus equal shares | mean | by seed |", "|---|---|---|"]
    for measure, name in MEASURES.items():
        found, digits = differences(rows, measure), digits_of(measure)
        each = ", ".join(f"{value:+.{digits}f}" for value in found)
        lines.append(f"| {name} | {spread(found, digits, '+')} | {each} |")
    return lines


def mixtures(rows: Sequence[Row]) -> str:
    """What momentum made of the equal shares: for each reason the least and the most pairs of an epoch."""
    quotas = [quota for row in by_arm(rows)[CLAIMED] for quota in row["quotas"]]
    spans = ((reason, [quota[reason] for quota in quotas]) for reason in quotas[0])
    return ", ".join(f"{reason} {min(span)} to {max(span)}" for reason, span in spans)


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the tables, what their columns mean, the picture."""
    first = rows[0]
    plan, seeds = first["plan"], len({row["seed"] for row in rows})
    equal = next(row for row in rows if row["arm"] == BASELINE)["quotas"][0]
    return f"""\
{seeds} seeds of each arm; a writer of {first["parameters"]:,} parameters; {plan["epochs"]} epochs of {plan["pairs"]} pairs, beta {plan["beta"]}, learning rate {plan["rate"]:g};
{plan["held_out"] * plan["asked"]:,} sets of 3 programs for {plan["held_out"]} held-out problems, a sample space of {plan["space"]} unseen lists:

{chr(10).join(outcomes(rows))}

Mean ± standard deviation over the seeds. C is of the programs that parse. As in the released tables, beta and gamma are
means over the sets with two valid programs or more, whose number is in the last column. "Different valid ones" are
programs of a set that agree with both observations and predict different things, on the mean over all sets. Runs of the
same seed, side by side:

{chr(10).join(paired(rows))}

Of the {plan["pairs"]} pairs of an epoch, equal shares have {", ".join(f"{count} {reason}" for reason, count in equal.items())};
momentum had {mixtures(rows)}.

![C, beta and how many different valid programs a set has, over the epochs, by arm]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each of three measures: the mean over the seeds by epoch as a line, a standard error as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(PICTURED)), PICTURED, strict=True):
        for arm, runs in by_arm(rows).items():
            draw_arm(axes, arm, [[measured(exam, measure) for exam in row["exams"]] for row in runs])
        axes.set(xlabel="epochs", title=MEASURES[measure], xlim=(0, len(rows[0]["exams"]) - 1))
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_arm(axes: Any, arm: str, curves: Sequence[Sequence[float]]) -> None:
    """The line of an arm and its band, from a curve a seed."""
    name, colour, line = SHOWN[arm]
    columns = list(zip(*curves, strict=True))
    middle = [mean(column) for column in columns]
    error = [stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0.0 for column in columns]
    low, high = ([m + side * e for m, e in zip(middle, error, strict=True)] for side in (-1, 1))
    axes.fill_between(range(len(middle)), low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(range(len(middle)), middle, line, color=colour, label=name, linewidth=1.6)
