"""The table and the picture of curriculum.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

Row = Mapping[str, Any]

#: how a policy of `curriculum.py` is called, and its colour (Okabe and Ito's, safe for the colour-blind) and line
SHOWN = {
    "uniform": ("uniform", "#000000", "-"),
    "sec": ("SEC, τ = 1", "#E69F00", "--"),
    "sec-sharp": ("SEC, τ = 0.2", "#009E73", "-."),
    "ucb-prompts": ("UCB, counting prompts", "#0072B2", "-"),
    "ucb-rollouts": ("UCB, counting rollouts", "#CC79A7", "--"),
}
BASELINE, PICTURED = "uniform", "ucb-prompts"


def by_policy(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """The rows of each policy by their seed. All must be of one plan, and of the same seeds for every policy."""
    found: dict[str, dict[int, Row]] = {policy: {} for policy in SHOWN}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if row["seed"] in found[row["policy"]]:
            raise SystemExit(f"{row['policy']} has more than one row of seed {row['seed']}")
        found[row["policy"]][row["seed"]] = row
    if any(row["plan"] != rows[0]["plan"] for row in rows) or len({tuple(runs) for runs in found.values()}) != 1:
        raise SystemExit("the rows are not of one plan, or policies differ in their seeds: the experiment is not done")
    return found


def updates_needed(row: Row) -> int:
    """Updates until the target; the number of all updates, which is too small, for a run that never got there."""
    reached: int | None = row["updates_to_target"]
    return row["plan"]["updates"] if reached is None else reached


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def against(runs: Mapping[int, Row], baseline: Mapping[int, Row]) -> tuple[str, str]:
    """What the runs need less than the baseline's of the same seed, and how many need less and how many more."""
    less = [updates_needed(row) - updates_needed(baseline[seed]) for seed, row in runs.items()]
    return spread(less), f"{sum(d < 0 for d in less)}, {sum(d > 0 for d in less)}"


def table(rows: Sequence[Row]) -> str:
    """A line for each policy: updates to the target, against uniform seed by seed, accuracy at the end, signal."""
    runs_of = by_policy(rows)
    columns = (
        "policy", "reached it", "updates", "median", "range", "minus uniform's", "sooner, later",
        "accuracy at the end", "groups with a signal",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for policy, runs in runs_of.items():
        needed = [updates_needed(row) for row in runs.values()]
        reached = sum(row["updates_to_target"] is not None for row in runs.values())
        compared = ("", "") if policy == BASELINE else against(runs, runs_of[BASELINE])
        cells = (
            SHOWN[policy][0], f"{reached} of {len(runs)}", spread(needed), f"{median(needed):.0f}",
            f"{min(needed)} to {max(needed)}", *compared, spread([row["final_accuracy"] for row in runs.values()], 3),
            spread([100 * row["useful_frac"] for row in runs.values()]) + " %",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the table, what its columns mean, the picture."""
    first, plan, seeds = rows[0], rows[0]["plan"], len({row["seed"] for row in rows})
    levels, updates, target = plan["levels"], plan["updates"], plan["target"]
    never = sum(row["updates_to_target"] is None for row in rows)
    censored = (
        f"the {never} that never reached it count with {updates}, which is too few" if never else "all reached it"
    )
    return f"""\
{seeds} seeds of each policy; {len(levels)} arms, {levels[0]} to {levels[-1]} digits; a learner of {first["parameters"]:,} parameters;
{updates} updates of {plan["prompts"]} prompts, {plan["samples"]} samples each. How many updates until the accuracy is {target}:

{table(rows)}
Mean ± standard deviation over the seeds. The accuracy is the mean over all arms, on {plan["held_out"]} held-out problems each, answered
greedily. It is measured every {plan["evaluate_every"]} updates, and the mean of {plan["looks"]} measurements in a row has to be at least
{target}. Of the {len(rows)} runs, {censored}. "Minus uniform's" and "sooner, later" compare runs of the same seed.
A group has a signal if its samples do not all get the same reward.

![Held-out accuracy over the updates, and the probability of each arm]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy over updates for each policy (mean, standard error), and the mean probability of each arm under UCB."""
    from matplotlib.figure import Figure

    runs_of = by_policy(rows)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_accuracies(left, runs_of, rows[0]["plan"]["target"])
    draw_probabilities(right, list(runs_of[PICTURED].values()))
    for axes in (left, right):
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_accuracies(axes: Any, runs_of: Mapping[str, Mapping[int, Row]], target: float) -> None:
    """The mean over the seeds as a line, one standard error to both sides as a band."""
    for policy, runs in runs_of.items():
        name, colour, line = SHOWN[policy]
        updates = next(iter(runs.values()))["curve"]["updates"]
        columns = list(zip(*(row["curve"]["accuracy"] for row in runs.values()), strict=True))
        middle = [mean(column) for column in columns]
        error = [stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0.0 for column in columns]
        low, high = ([m + side * e for m, e in zip(middle, error, strict=True)] for side in (-1, 1))
        axes.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(updates, middle, line, color=colour, label=name, linewidth=1.6)
    axes.axhline(target, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"target {target}", (0.01, target), xycoords=("axes fraction", "data"), ha="left", va="bottom", color="0.4"
    )
    axes.set(xlim=(updates[0], updates[-1]), ylabel="held-out accuracy, mean of all arms")
    axes.set_title("mean and standard error over seeds")
    axes.legend(frameon=False, loc="lower right")


def draw_probabilities(axes: Any, runs: Sequence[Row]) -> None:
    """The probabilities of the arms as layers that fill the unit, the easiest below."""
    import matplotlib as mpl

    updates = runs[0]["curve"]["updates"]
    arms = list(runs[0]["curve"]["p"])
    layers = [[mean(column) for column in zip(*(row["curve"]["p"][arm] for row in runs), strict=True)] for arm in arms]
    colours = mpl.colormaps["viridis"].resampled(len(arms))
    shades = [colours(i) for i in range(len(arms))]
    names = [f"{int(arm)}" for arm in arms]
    axes.stackplot(updates, layers, colors=shades, labels=names, edgecolor="white", linewidth=0.3)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], title="digits", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False,
        fontsize="small",
    )  # fmt: skip
    axes.set(xlim=(updates[0], updates[-1]), ylim=(0, 1), ylabel="probability to be drawn, mean over seeds")
    axes.set_title(SHOWN[PICTURED][0])
