"""A picture of a curriculum: how probable each arm was, step by step."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError
from toolroll.io.figures import write_figure

NAMED = 24  #: arms that a legend has room for


def draw_schedule(history: list[dict[str, Any]], path: str) -> None:
    """Draw the probabilities of `records.ArmHistory` rows as layers that fill the unit, into a file."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ToolrollError("needs matplotlib: pip install 'toolroll[plot]'", place="--plot") from error
    if not history:
        raise ToolrollError("nothing was learned yet, so there is nothing to draw", place="--plot")
    steps, layers = _layers(history)
    colours = mpl.colormaps["viridis"].resampled(len(layers))
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.stackplot(
        [*steps, steps[-1] + 1],  # what was learned at a step holds until the next
        [[*layer, layer[-1]] for layer in layers.values()],
        labels=list(layers),
        colors=[colours(i) for i in range(len(layers))],
        step="post",
        edgecolor="white",
        linewidth=0.3,
    )
    axes.set(xlim=(steps[0], steps[-1] + 1), ylim=(0, 1), ylabel="probability to be drawn")
    axes.set_xlabel("step" if _has_steps(history) else "batch of feedback")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if len(layers) <= NAMED:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False, fontsize="small")
    else:
        figure.suptitle(f"{len(layers)} arms in the order of their names, from below", fontsize="medium")
    write_figure(figure, Path(path))


def _layers(history: list[dict[str, Any]]) -> tuple[list[int], dict[str, list[float]]]:
    """Where the batches stand, and the probability of each arm after each; 0 before an arm was there."""
    batches: dict[int, dict[str, float]] = {}
    places: dict[int, int] = {}
    has_steps = _has_steps(history)
    for row in history:
        batches.setdefault(row["state_seq"], {})[row["distribution"]] = row["p"]
        places[row["state_seq"]] = row["step"] if has_steps else row["state_seq"]
    names = sorted({row["distribution"] for row in history}, key=_by_number)
    return list(places.values()), {name: [batch.get(name, 0.0) for batch in batches.values()] for name in names}


def _has_steps(history: list[dict[str, Any]]) -> bool:
    """Whether the batches have steps that only grow."""
    steps = [row["step"] for row in history]
    return None not in steps and all(a <= b for a, b in pairwise(steps))


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts kk_9 before kk_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
