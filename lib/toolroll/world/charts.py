"""Charts of tables, drawn by matplotlib so that two charts of one pair differ by their values only."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit
from toolroll.world.pairs import ImagePair
from toolroll.world.regions import boxes_of, changed
from toolroll.world.tables import Table, swapped

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Place = tuple[float, float, float, float]

SHARE = (0.001, 0.5)  #: of the pixels of a chart that a swap changes
DPI = 100
PALETTES = (
    ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3"),
    ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d"),
    ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#744210", "#4a5568"),
)
SMALL = 120  #: pixels of height below which a chart has no words
LETTER = 0.62  #: width of a letter, about, of the size of the font
LONGEST = 18  #: letters of a name of a category or series that are shown
FONT = "DejaVu Sans"  #: comes with matplotlib


@dataclass(frozen=True, slots=True)
class Style:
    """How a chart looks beside its values: the same for both charts of a pair."""

    palette: tuple[str, ...] = PALETTES[0]
    grid: bool = True
    numbers: bool = False  #: whether values are written at the bars and points
    font: str = FONT


def drawn_style(draws: Draws, font: str = FONT) -> Style:
    """A style by chance."""
    return Style(draws.pick(PALETTES), bool(draws.below(2)), bool(draws.below(2)), font)


def chart_pair(table: Table, style: Style, draws: Draws, width: int, height: int) -> ImagePair:
    """The chart of a table, and of the table with two values swapped. Raises CannotEdit, RowError."""
    other, change = swapped(table, draws)
    original, modified = draw(table, style, width, height), draw(other, style, width, height)
    mask = changed(original, modified)
    share = float(mask.mean())
    if not SHARE[0] <= share <= SHARE[1]:
        raise CannotEdit(f"the swap would change {share:.2%} of the pixels")
    boxes = boxes_of(mask, near=max(1, height // 80))
    about = {"original_table": table.as_json(), "modified_table": other.as_json()}
    return ImagePair(original, modified, "swap", [change], {"original": boxes, "modified": boxes}, share, about)


def draw(table: Table, style: Style, width: int, height: int) -> Array:
    """The chart, uint8 (height, width, 3). Raises RowError where the font has not all the letters."""
    figure, _ = figure_of(table, style, width, height)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        try:
            figure.canvas.draw()
        except UserWarning as error:
            code = re.search(r"Glyph (\d+)", str(error))
            letter = repr(chr(int(code[1]))) if code else "some of its letters"
            raise RowError(f"the font {style.font} does not have {letter}; another --font may") from error
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def figure_of(table: Table, style: Style, width: int, height: int) -> tuple[Any, Any]:
    """The figure of a chart and its axes, ready to be drawn. Settings of the user's own matplotlib do not count."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolrollError("charts need matplotlib: pip install 'toolroll[plot]'") from error
    table = shortened(table)
    words = height >= SMALL
    size = max(5.0, 7.2 * min(width / 320, height / 240) ** 0.5)
    plain = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    own = {"font.family": [style.font], "font.size": size, "axes.linewidth": 0.6, "axes.axisbelow": True}
    with warnings.catch_warnings(), mpl.rc_context(plain | own):
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)  # of settings that are on their way out
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes(_place(table, size, width, height, words=words))
        {"bar": _bars, "barh": _bars_across, "grouped": _groups, "line": _lines, "pie": _pie}[table.kind](
            axes, table, style, words
        )
        if words and table.title:
            figure.text(0.5, 1 - 0.035, table.title, ha="center", va="top", fontsize=size * 1.25)
        if table.kind != "pie":
            _frame(axes, table, style, words)
    return figure, axes


def shortened(table: Table) -> Table:
    """The table with names that a chart has room for. Raises RowError where two become the same."""

    def short(name: str, most: int = LONGEST) -> str:
        return name if len(name) <= most else name[: most - 1].rstrip() + "\u2026"

    categories = tuple(map(short, table.categories))
    if len(set(categories)) < len(categories):
        raise RowError(f"two categories have the same first {LONGEST - 1} letters, and a chart has room for no more")
    series = tuple((short(name), values) for name, values in table.series)
    return replace(
        table, title=short(table.title, 44), label=short(table.label, 28), categories=categories, series=series
    )


def check_font(name: str) -> None:
    """Raises UsageError where matplotlib finds no font of this name."""
    try:
        from matplotlib.font_manager import FontProperties, findfont
    except ImportError as error:
        raise ToolrollError("charts need matplotlib: pip install 'toolroll[plot]'") from error
    try:
        findfont(FontProperties(family=[name]), fallback_to_default=False)
    except ValueError as error:
        raise UsageError(f"matplotlib finds no font {name!r}", place="--font") from error


def _place(table: Table, size: float, width: int, height: int, *, words: bool) -> Place:
    """Left, bottom, width and height of the axes, from the length of the words around them: no value moves them."""
    if not words:
        return 0.06, 0.06, 0.88, 0.88
    letter, line = LETTER * size * DPI / 72, 1.5 * size * DPI / 72
    longest = max(map(len, table.categories)) * letter
    top = (1.7 if table.title else 0.6) * line
    if _has_legend(table):
        top += line
    if table.kind == "pie":
        side = 0.2 if longest < 0.17 * width else 0.28
        return side, 0.06, 1 - 2 * side, 1 - 0.06 - top / height
    left = longest + letter if table.kind == "barh" else 4.5 * letter + (line if table.label else 0)
    bottom = line * (2.2 if table.kind == "barh" and table.label else 1.2)
    turn = _turn(table, size, width)
    if table.kind != "barh" and turn:
        bottom = longest * (1.0 if turn == 90 else 0.75) + line
    left, bottom = min(left / width, 0.45), min(bottom / height, 0.55)
    return left, bottom, 0.97 - left, 1 - bottom - top / height


def _turn(table: Table, size: float, width: int) -> int:
    """By how many degrees the categories' names are turned, because they are too long to stand side by side."""
    letter, longest = LETTER * size * DPI / 72, max(map(len, table.categories))
    if (longest + 1) * letter * len(table.categories) <= 0.82 * width:
        return 0
    return 40 if longest <= 10 and len(table.categories) <= 10 else 90


def _has_legend(table: Table) -> bool:
    return len(table.series) > 1


def _limits(table: Table) -> tuple[float, float]:
    """The axis of the values: from 0, or what is below, to some way above the largest; swapping does not change it."""
    low, high = min(0.0, *table.values), max(0.0, *table.values)
    room = 0.12 * (high - low)
    return low - (room if low < 0 else 0.0), high + (room if high > 0 else 0.0)


def _frame(axes: Any, table: Table, style: Style, words: bool) -> None:
    across = table.kind == "barh"
    (axes.set_xlim if across else axes.set_ylim)(*_limits(table))
    if style.grid:
        axes.grid(axis="x" if across else "y", linewidth=0.5, color="#d0d0d0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, pad=2)
    if not words:
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
        return
    if table.label:
        (axes.set_xlabel if across else axes.set_ylabel)(table.label, labelpad=2)
    values_axis = axes.xaxis if across else axes.yaxis
    values_axis.get_major_locator().set_params(nbins=5)
    turn = _turn(table, axes.xaxis.label.get_size(), int(axes.figure.bbox.width))
    if not across and turn:
        for label in axes.get_xticklabels():
            label.set(rotation=turn, ha="right", rotation_mode="anchor", va="center" if turn == 90 else "top")
    if _has_legend(table):
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(table.series),
            frameon=False,
            handlelength=1.0,
            columnspacing=1.2,
            borderaxespad=0.1,
        )


def _bars(axes: Any, table: Table, style: Style, words: bool) -> None:
    ((_, values),) = table.series
    bars = axes.bar(table.categories, values, width=0.66, color=style.palette[0])
    if style.numbers and words:
        axes.bar_label(bars, fmt="{:g}", padding=1)


def _bars_across(axes: Any, table: Table, style: Style, words: bool) -> None:
    ((_, values),) = table.series
    bars = axes.barh(table.categories, values, height=0.66, color=style.palette[1])
    axes.invert_yaxis()
    if style.numbers and words:
        axes.bar_label(bars, fmt="{:g}", padding=2)


def _groups(axes: Any, table: Table, style: Style, _words: bool) -> None:
    width = 0.8 / len(table.series)
    places = np.arange(len(table.categories))
    for number, (name, values) in enumerate(table.series):
        shift = (number - (len(table.series) - 1) / 2) * width
        axes.bar(places + shift, values, width=width * 0.92, color=style.palette[number], label=name)
    axes.set_xticks(places, table.categories)


def _lines(axes: Any, table: Table, style: Style, _words: bool) -> None:
    for number, (name, values) in enumerate(table.series):
        axes.plot(
            table.categories, values, color=style.palette[number], label=name, marker="o", markersize=3, linewidth=1.4
        )
    axes.margins(x=0.06)


def _pie(axes: Any, table: Table, style: Style, words: bool) -> None:
    ((_, values),) = table.series
    colors = [style.palette[i % len(style.palette)] for i in range(len(values))]
    axes.pie(
        values,
        labels=table.categories if words else None,
        colors=colors,
        startangle=90,
        counterclock=False,
        labeldistance=1.08,
        autopct="%.0f%%" if style.numbers and words else None,
        pctdistance=0.7,
        wedgeprops={"linewidth": 0.6, "edgecolor": "white"},
    )
    axes.set_aspect("equal")
    if not words:
        axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03))
