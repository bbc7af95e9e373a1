"""The tables and the picture of pruning.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

#: how a method is called, its colour (Okabe and Ito's) and its mark
SHOWN = {
    "dense": ("dense", "#000000", "*"),
    "yopo": ("YOPO", "#0072B2", "o"),
    "fastv": ("FastV", "#E69F00", "s"),
    "pyramid": ("PyramidDrop", "#009E73", "^"),
}
MEASURES = {"accuracy": "right answers", "caption_f1": "caption F1"}
Key = tuple[str, float, bool]


def by_arm(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """The rows by method, share and training, by seed. All must be of one model and its settings, and none missing."""
    found: dict[Key, list[Row]] = {
        (method, share, trained): []
        for method in SHOWN
        for share in ((1.0,) if method == "dense" else rows[0]["settings"]["shares"])
        for trained in (False, True)
    }
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["method"], row["share"], row["trained"]].append(row)
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    alike = all(row[name] == rows[0][name] for row in rows for name in ("settings", "model", "weights"))
    if not alike or len(seeds) != 1 or len(set(*seeds)) != len(*seeds):
        raise SystemExit("the rows are not of one model and its settings, or some are missing: it is not done")
    return found


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def measured(runs: Sequence[Row], measure: str) -> list[float]:
    """A measure of all seeds; nothing where the method cannot leave so little, for some seed."""
    return [row[measure] for row in runs] if all(row["pruning"] is not None for row in runs) else []


def scores(runs_of: Mapping[Key, Sequence[Row]]) -> list[str]:
    """A line of the table for each method and share."""
    names = [f"{label}, {when}" for label in MEASURES.values() for when in ("untrained", "trained")]
    lines = [f"| share | | FLOPs left | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for method, share, trained in sorted(runs_of, key=lambda key: (-key[1], list(SHOWN).index(key[0]))):
        if trained:
            continue
        both = [runs_of[method, share, later] for later in (False, True)]
        left = measured(both[0], "visual_ratio")
        cells = [f"{100 * mean(left):.1f} %" if left else "not possible"]
        for measure in MEASURES:
            cells += [spread(values) if (values := measured(runs, measure)) else "" for runs in both]
        lines.append(f"| {100 * share:.0f} % | {SHOWN[method][0]} | {' | '.join(cells)} |")
    return lines


def pruned(row: Row) -> str:
    """What a plan leaves, in words.

    >>> pruned({"pruning": {"window": 5, "ffn": 2.0, "cut": 3, "heads": ["1100", "0000"]}})
    'window 5, 2 of 8 heads, neurons / 2, 3 layers'
    """
    plan = row["pruning"]
    if plan is None:
        return "none"
    heads = "".join(plan["heads"] or ())
    parts = (
        (f"window {plan['window']}", plan["window"]),
        (f"{heads.count('1')} of {len(heads)} heads", heads),
        (f"neurons / {plan['ffn']:g}", plan["ffn"] != 1),
        (f"{plan['cut']} layer{'s' if plan['cut'] != 1 else ''}", plan["cut"] is not None),
    )
    return ", ".join(text for text, wanted in parts if wanted)


def plans(runs_of: Mapping[Key, Sequence[Row]]) -> list[str]:
    """A line for each share: what the search chose, seed by seed."""
    shares = sorted({share for method, share, _ in runs_of if method == "yopo"}, reverse=True)
    seeds = [row["seed"] for row in runs_of["yopo", shares[0], False]]
    lines = [f"| share | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|---" * (len(seeds) + 1) + "|"]
    chosen = {share: " | ".join(map(pruned, runs_of["yopo", share, False])) for share in shares}
    return [*lines, *(f"| {100 * share:.0f} % | {words} |" for share, words in chosen.items())]


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the tables, what their columns mean, the picture."""
    runs_of, first = by_arm(rows), rows[0]
    dense, settings = runs_of["dense", 1.0, False], first["settings"]
    minutes = sum(row["duration_s"] for row in rows) / 60
    return f"""\
{len(dense)} seeds; `{first["model"]}`, {first["parameters"]:,} weights; {sum(row["n_questions"] for row in dense)} questions and {sum(row["n_captions"] for row in dense)} captions of {settings["scenes"]} scenes a seed, answered greedily;
trained: {settings["updates"]} updates of {settings["batch"]} questions about other scenes, AdamW, rate {settings["rate"]:g}; {minutes:.0f} minutes of one core in all.

{chr(10).join(scores(runs_of))}

Mean ± standard deviation over the seeds. The share is what a plan may leave of the visual tokens' FLOPs, by the formulas
of `vprune-flops --pairs full`; dropped tokens count until they are dropped. An answer is right if it is the very word.
F1 is that of `caption-eval`, mean over captions. What the search of `vprune-plan` chose:

{chr(10).join(plans(runs_of))}

![Right answers and caption F1 against the share of visual FLOPs, by method]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each measure: the mean over seeds against FLOPs left, dashed untrained; bars are standard errors."""
    from matplotlib.figure import Figure

    runs_of = by_arm(rows)
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for method, (name, colour, mark) in SHOWN.items():
            for trained in (False, True):
                keys = [key for key in runs_of if key[0] in ("dense", method) and key[2] == trained]
                points = sorted(
                    (100 * mean(measured(runs_of[key], "visual_ratio")), values)
                    for key in keys
                    if (values := measured(runs_of[key], measure))
                )
                error = [stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0 for _, values in points]
                axes.errorbar(
                    [left for left, _ in points],
                    [mean(values) for _, values in points],
                    error,
                    color=colour,
                    marker=mark,
                    linestyle="-" if trained else "--",
                    linewidth=1.3,
                    markersize=5,
                    label=f"{name}, {'trained' if trained else 'untrained'}",
                )
        axes.set_xscale("log")
        ticks = [100 * share for share in (1.0, *rows[0]["settings"]["shares"])]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(title=label, xlabel="% of visual FLOPs left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
