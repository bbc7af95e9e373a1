"""The table and the picture of pipelines/layercast.sh, from the rows it leaves in report.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

NAMES = {"batch": "batch", "devices": "devices (simulated)", "threads": "threads"}
MODELS = {"embedded": "The embedded model, SmolLM2-135M-Instruct,"}
COLOURS = {"bf16": "#D55E00", "fp16": "#E69F00", "fp32": "#0072B2", "layercast": "#009E73"}  # Okabe and Ito's


def axis_name(row: Row) -> str:
    """An axis with its values: "batch 1, 4, 16"."""
    return f"{NAMES[row['axis']]} {row['plan'][row['axis']].replace(',', ', ')}"


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: what was run, the table, what its columns mean, the picture."""
    where, plan = rows[0]["where"], rows[0]["plan"]
    lines = [
        "| axis | precision | diverge | Div_Index | Avg_Std@top1_prob, 1e-4 | Avg_Std@Output_Length | Std@Acc |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        at = "-" if row["avg_div_index"] == -1 else f"{row['avg_div_index']:.1f}"
        cells = (
            axis_name(row), row["group"]["precision"], f"{row['div_percent']:.1f} %", at,
            f"{1e4 * row['avg_std_top1_prob']:.3g}", f"{row['avg_std_output_length']:.2f}", f"{row['std_acc']:.4f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    memory = [
        "| precision | weights, MB | keys and values of an answer, MB | peak memory, MB |",
        "|---|---|---|---|",
        *(
            f"| {row['group']['precision']} | {row['weight_bytes'] / 1e6:.1f} | {row['mean_kv_bytes'] / 1e6:.2f} | "
            f"{row['peak_rss_bytes'] / 1e6:.0f} |"
            for row in rows
            if row["axis"] == "batch"
        ),
    ]
    small, middle = (
        next(r for r in rows if r["group"]["precision"] == "fp32")["gap_quantiles"][q] for q in ("0.05", "0.5")
    )
    return f"""\
{MODELS.get(plan["model"], plan["model"])} on {plan["questions"]} questions, greedy, {plan["tokens"]} tokens at most; {where["device"]}, {where["capability"]}, {where["blas"]}, torch {where["versions"]["torch"]}:

{chr(10).join(lines)}

"diverge" is Div_Percent: the share of questions whose answers are not all the same along the axis. Between the most
probable token and the next there is a gap of {middle:.2f} in the median and of {small:.3f} at the fifth percentile (fp32).

{chr(10).join(memory)}

Of the batch axis; peak is the process's resident memory with Python, torch and the largest batch.

![Share of diverging answers, and spread of the most probable token's probability, by axis and precision]({picture})
"""  # noqa: E501


def draw(rows: Sequence[Row], path: Path) -> None:
    """Two panels of bars, a group for each axis: Div_Percent, and Avg_Std@top1_prob on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    precisions = list(dict.fromkeys(row["group"]["precision"] for row in rows))
    width = 0.8 / len(precisions)
    names = {row["axis"]: axis_name(row) for row in rows}
    for number, precision in enumerate(precisions):
        own = [row for row in rows if row["group"]["precision"] == precision]
        places = [list(names).index(row["axis"]) + (number - (len(precisions) - 1) / 2) * width for row in own]
        for axes, heights in (
            (left, [row["div_percent"] for row in own]),
            (right, [1e4 * row["avg_std_top1_prob"] for row in own]),
        ):
            bars = axes.bar(places, heights, width * 0.92, color=COLOURS[precision], label=precision)
            axes.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=7, padding=1)
    for axes, title in ((left, "answers that diverge, %"), (right, "Avg_Std@top1_prob, 1e-4")):
        labels = [f"{NAMES[axis]}\n{name.removeprefix(NAMES[axis]).strip()}" for axis, name in names.items()]
        axes.set_xticks(range(len(names)), labels)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 109)
    right.set_yscale("symlog", linthresh=1e-3)
    right.set_ylim(0, 5 * right.get_ylim()[1])
    left.legend(frameon=False, title="precision")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
