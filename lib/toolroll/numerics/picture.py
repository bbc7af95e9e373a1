"""A picture of how far answers differ: where they diverge, how small gaps are, how lengths spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolroll.errors import ToolrollError
from toolroll.io.figures import write_figure
from toolroll.numerics.divergence import std
from toolroll.numerics.report import gaps_at_divergence, lengths_of
from toolroll.numerics.runs import Group, Runs

BINS = 50  #: of the histogram of gaps
Coloured = tuple[Group, Any]  #: a group and its colour


def draw(runs: Runs, path: str) -> None:
    """Draw three panels, each group in a colour of its own, into a file."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ToolrollError("needs matplotlib: pip install 'toolroll[plot]'", place="--plot") from error
    if not runs.groups:
        raise ToolrollError("there are no answers, so there is nothing to draw", place="--plot")
    colours = mpl.colormaps["tab10"] if len(runs.groups) <= 10 else mpl.colormaps["viridis"].resampled(len(runs.groups))
    groups = [(group, colours(i)) for i, group in enumerate(runs.groups)]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    _divergence(panels[0], groups)
    _gaps(panels[1], groups)
    _lengths(panels[2], groups)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=name_of(group)) for group, colour in groups]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    write_figure(figure, Path(path))


def name_of(group: Group) -> str:
    """A group in words: its values, and how many configurations it has."""
    named = " ".join(value for value in group.shared.values() if value is not None)
    return f"{named or 'all'} ({len(group.configs)} configurations)"


def _divergence(axes: Any, groups: Sequence[Coloured]) -> None:
    """The share of problems whose answers have diverged, over the number of tokens written."""
    axes.set(title="problems whose answers have diverged", xlabel="tokens", ylabel="% of problems", ylim=(-2, 102))
    compared = [
        (problems, colour)
        for group, colour in groups
        if len(group.configs) > 1 and (problems := [one for _, one in group.complete() if one.comparable])
    ]
    end = max((len(one.tokens) for problems, _ in compared for one in problems if one.tokens is not None), default=0)
    if end == 0:
        _nothing(axes, "no tokens to compare")
        return
    for i, (problems, colour) in enumerate(compared):
        at = sorted(problem.div_index + 1 for problem in problems if problem.diverges)
        shares = [100 * count / len(problems) for count in range(len(at) + 1)]
        width = 1.2 + 0.7 * min(len(compared) - 1 - i, 3)  # so that lines at 0 do not hide each other
        axes.step([1, *at, end], [*shares, shares[-1]], where="post", color=colour, linewidth=width)
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set_xlim(1, max(end, 10))


def _gaps(axes: Any, groups: Sequence[Coloured]) -> None:
    """The share of positions in each stretch of gaps; dashed, the median gap where answers diverge."""
    axes.set(title="gap between the two most probable tokens", ylabel="% of positions", xlim=(0, 1))
    axes.set_xlabel("p(top 1) - p(top 2)")
    known = [(group, colour) for group, colour in groups if len(group.gaps)]
    if not known:
        _nothing(axes, "no probabilities of second tokens")
        return
    edges = np.linspace(0, 1, BINS + 1)
    heights: list[float] = []
    for group, colour in known:
        values, counts = group.gaps.table()
        shares, _ = np.histogram(values, bins=edges, weights=100 * counts / counts.sum())
        axes.stairs(shares, edges, color=colour, baseline=None)
        heights += shares[shares > 0].tolist()
        parting = gaps_at_divergence(problem for _, problem in group.complete())
        if len(parting):
            axes.axvline(parting.quantiles([0.5])[0], color=colour, linestyle="--", linewidth=1)
            axes.set_xlabel("p(top 1) - p(top 2)      dashed: median where answers diverge")
    axes.set_ylim(min(heights) / 1.5, max(heights) * 1.5)  # all may be of one height
    axes.set_yscale("log")
    _plain(axes.yaxis)


def _lengths(axes: Any, groups: Sequence[Coloured]) -> None:
    """The standard deviation of each problem's lengths: a box and whiskers a group, every problem a point."""
    axes.set(title="spread of a problem's lengths", ylabel="standard deviation in tokens")
    axes.set_xticks([])
    spreads = [(_spreads(group), colour) for group, colour in groups]
    known = [(values, colour) for values, colour in spreads if values]
    if not known:
        _nothing(axes, "no lengths to compare")
        return
    draws = np.random.default_rng(0)
    for i, (values, colour) in enumerate(known):
        axes.scatter(i + draws.uniform(-0.28, 0.28, len(values)), values, s=6, color=colour, alpha=0.35, linewidths=0)
        line = {"color": colour}
        axes.boxplot(
            [values],
            positions=[i],
            widths=0.6,
            showfliers=False,
            medianprops=line | {"linewidth": 2},
            boxprops=line,
            whiskerprops=line,
            capprops=line,
        )
    axes.set_xticks([])
    axes.set_yscale("symlog", linthresh=1)
    _plain(axes.yaxis)
    axes.set_ylim(-0.08, max(1.0, 1.3 * max(max(values) for values, _ in known)))
    axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0])
    axes.set_xlim(-0.6, len(known) - 0.4)


def _spreads(group: Group) -> list[float]:
    spreads = (std(lengths) for lengths in lengths_of(problem for _, problem in group.complete()))
    return [value for value in spreads if value is not None]


def _plain(axis: Any) -> None:
    """Numbers as they are on an axis of powers of ten, and none between them."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _nothing(axes: Any, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="gray")
