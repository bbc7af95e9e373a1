"""A benchmark as a table in Markdown, and as a figure like the paper's: bars of methods by groups of scenes."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.figures import write_figure
from toolroll.io.filesystem import put
from toolroll.io.paths import check_writable
from toolroll.splat.benching import BREAKDOWNS, GROUPS, Row

NAMES = {"psnr_db": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
PLACES = {"psnr_db": 2, "ssim": 3, "lpips": 3}
LEGEND = 24  #: methods that a legend has room for
PICTURES = (".png", ".svg", ".pdf")
Known = Mapping[tuple[str, str], Row]  #: rows by method and group
FROM_PAPER = (
    "(paper): numbers of arXiv:2312.16256, Table 3 and Figure 4, for the 140 scenes of DL3DV-140 at 960 x 540: other "
    "scenes than these. Which LPIPS, which border of SSIM and whether pictures were rounded is not stated there."
)


def rules_of(rows: Sequence[Row]) -> str:
    """By which rules rows were scored, in a sentence."""
    scored = next((row for row in rows if row["source"] == "scores"), None)
    if scored is None:
        return ""
    inside = (
        "windows inside the picture" if scored["ssim_border"] == "valid" else "a window at each pixel, zeros around"
    )
    kind = scored["lpips_kind"] or "none"
    rounded = "pictures rounded to 8 bits" if scored["eight_bit"] else "pictures not rounded to 8 bits"
    return f"SSIM border: {scored['ssim_border']} ({inside}). LPIPS: {kind}. PSNR: {rounded}, dB averaged."


def table_of(rows: Sequence[Row]) -> str:
    """Rows of a benchmark in Markdown: over all scenes, then each metric by group."""
    whole = [row for row in rows if row["group"] == "all"]
    columns: dict[str, Callable[[Row], str]] = {
        "method": lambda row: str(row["method"]),
        "scenes": lambda row: _number(row["n_scenes"]),
        "images": lambda row: _number(row["n_images"]),
        **{name: lambda row, key=key: _cell(row, key) for key, name in NAMES.items()},  # type: ignore[misc]
    }
    parts = [_markdown(list(columns), [[cell(row) for cell in columns.values()] for row in whole])]
    by_group = {(row["method"], row["group"]): row for row in rows}
    groups = [group for _, group in GROUPS[1:] if any(row["group"] == group for row in rows)]
    for metric, name in NAMES.items():
        cells = [
            [str(row["method"]), *(_cell(by_group.get((row["method"], group)), metric) for group in groups)]
            for row in whole
        ]
        cells = [row for row in cells if any(cell != "-" for cell in row[1:])]
        if cells:
            counts = [f"{group}{_scenes(rows, group)}" for group in groups]
            parts.append(f"{name} by group:\n\n" + _markdown(["method", *counts], cells))
    notes = [f"Means over images, then over scenes; ± is the standard deviation over scenes. {rules_of(rows)}".strip()]
    if any(row["source"] == "paper" for row in rows):
        notes.append(FROM_PAPER)
    return "\n\n".join([*parts, *notes]) + "\n"


def _scenes(rows: Sequence[Row], group: str) -> str:
    """How many scenes of a group were scored, where all methods have as many."""
    counts = {row["n_scenes"] for row in rows if row["group"] == group and row["source"] == "scores"}
    return f" ({counts.pop()})" if len(counts) == 1 else ""


def _cell(row: Row | None, metric: str) -> str:
    if row is None or row[metric] is None:
        return "-"
    of_figure = row["source"] == "paper" and row["group"] != "all"  # which has one place
    places, spread = 1 if of_figure else PLACES[metric], row[f"{metric}_std"]
    return f"{row[metric]:.{places}f}" + ("" if spread is None else f" ± {spread:.{places}f}")


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *cells]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def write_report(rows: Sequence[Row], table: Path | None, plot: Path | None, metric: str) -> None:
    """Write the table and the figure of rows, where there is a file for them. ToolrollError where that fails."""
    if table is not None:
        put(table, table_of(rows).encode())
    if plot is not None:
        draw(rows, plot, metric)


def check_files(table: Path | None, plot: Path | None) -> None:
    """UsageError for a figure whose suffix is that of no picture that `draw` makes; ToolrollError for no place."""
    if plot is not None:
        _check_plot(plot)
    for path in (table, plot):
        if path is not None:
            check_writable(path)


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"has to end in one of {', '.join(PICTURES)}", place=str(path))


def draw(rows: Sequence[Row], path: Path, metric: str = "psnr_db") -> None:
    """Draw a panel of all scenes and one of each breakdown, with a bar for each method and group.

    Thin lines are standard deviations over scenes. Bars of the paper are hatched. The same rows give the same bytes.
    ToolrollError where there is nothing to draw.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ToolrollError("needs matplotlib: pip install 'toolroll[plot]'", place="--plot") from error
    _check_plot(path)
    known = {(row["method"], row["group"]): row for row in rows if row[metric] is not None}
    if not known:
        raise ToolrollError(f"there is no {NAMES[metric]} to draw", place="--plot")
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    with mpl.rc_context({"svg.hashsalt": "toolroll", "hatch.linewidth": 0.6}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have
        methods = list(dict.fromkeys(method for method, _ in known))
        colours = mpl.colormaps["tab10" if len(methods) <= 10 else "tab20"]
        figure = _figure(known, {method: colours(number) for number, method in enumerate(methods)}, metric)
        width, _ = figure.get_size_inches()
        figure.supxlabel(textwrap.fill(_caption(rows), int(width * 19)), fontsize=7, color="dimgray")
        write_figure(figure, path, metadata)


def _figure(known: Known, colours: Mapping[str, Any], metric: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    there = {group for _, group in known}
    panels: dict[str, Sequence[str]] = {"all": ("all",), **BREAKDOWNS}
    panels = {name: groups for name, groups in panels.items() if there.intersection(groups)}
    inside = {name: [m for m in colours if any((m, g) in known for g in groups)] for name, groups in panels.items()}
    shares = [0.4 + len(groups) * (0.25 + 0.12 * len(inside[name])) for name, groups in panels.items()]
    figure = Figure(figsize=(max(7.0, 1 + sum(shares)), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, width_ratios=shares, squeeze=False)[0]
    for axes, (name, groups) in zip(all_axes, panels.items(), strict=True):
        axes.set_title("all scenes" if name == "all" else name, fontsize="medium")
        _bars(axes, groups, {method: colours[method] for method in inside[name]}, known, metric)
    top = max(row[metric] + (row[f"{metric}_std"] or 0) for row in known.values())
    bottom = 1.1 * min(row[metric] for row in known.values())
    all_axes[0].set_ylim(min(0.0, bottom), 1.18 * top if top > 0 else 1.0)
    all_axes[0].set_ylabel(NAMES[metric])
    if len(colours) <= LEGEND:
        handles = [Patch(label=_label(method), **_style(method, colour)) for method, colour in colours.items()]
        columns = min(len(handles), 5)
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize="small")
    return figure


def _bars(axes: Any, groups: Sequence[str], methods: Mapping[str, Any], known: Known, metric: str) -> None:
    """The bars of a panel; a group's bars stand side by side, in the order of the methods, in their colours."""
    width = min(0.25, 0.86 / len(methods))
    for number, (method, colour) in enumerate(methods.items()):
        found = [(place, known[method, group]) for place, group in enumerate(groups) if (method, group) in known]
        places = [place + width * (number + 0.5 - len(methods) / 2) for place, _ in found]
        heights = [row[metric] for _, row in found]
        spreads = [row[f"{metric}_std"] or 0.0 for _, row in found]
        axes.bar(places, heights, width * 0.92, **_style(method, colour))
        lines = [one for one in zip(places, heights, spreads, strict=True) if one[2]]
        if lines:
            x, y, sizes = zip(*lines, strict=True)
            axes.errorbar(x, y, yerr=sizes, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
        for place, height, spread in zip(places, heights, spreads, strict=True):
            text = f"{height:.{1 if metric == 'psnr_db' else 3}f}"
            written = {"ha": "center", "va": "bottom", "fontsize": 6, "rotation": 90}
            axes.annotate(text, (place, height + spread), (0, 3), textcoords="offset points", **written)
    axes.set_xticks(range(len(groups)), [group.replace("_", "\n") for group in groups])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)


def _style(method: str, colour: Any) -> dict[str, Any]:
    inside = {"facecolor": "white", "hatch": "////"} if method.endswith(" (paper)") else {"facecolor": colour}
    return {"edgecolor": colour, "linewidth": 0.8, **inside}


def _label(method: str) -> str:
    """A name that matplotlib takes as it is: no formula, and not left out for an underscore."""
    return (" " if method.startswith("_") else "") + method.replace("$", r"\$")


def _caption(rows: Sequence[Row]) -> str:
    lines = "" if all(row["psnr_db_std"] is None for row in rows) else "Lines: standard deviation over scenes. "
    return f"{lines}{rules_of(rows)}" + (f" {FROM_PAPER}" if any(row["source"] == "paper" for row in rows) else "")
