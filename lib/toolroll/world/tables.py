"""Tables for charts: read from CSV or JSON, made up, checked, and two values swapped."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolroll.errors import RowError
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit

KINDS = ("bar", "barh", "grouped", "line", "pie")
MOST_CATEGORIES = 20  #: that a chart has room for
MOST_SERIES = 6
LEAST_SHARE = 0.15  #: of the range of a chart's values by which swapped values differ
LEAST_PART = 0.03  #: of the largest value


@dataclass(frozen=True, slots=True)
class Table:
    """What a chart shows: `series` is (name, a value for each category) one or more times."""

    kind: str
    title: str
    categories: tuple[str, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]
    label: str = ""

    def as_json(self) -> dict[str, Any]:
        """The table as JSON; `table_of` reads it."""
        return {
            "kind": self.kind,
            "title": self.title,
            "label": self.label,
            "categories": list(self.categories),
            "series": {name: list(values) for name, values in self.series},
        }

    @property
    def values(self) -> list[float]:
        """All values."""
        return [value for _, values in self.series for value in values]


def table_of(data: Any, kind: str | None = None) -> Table:
    """A table out of JSON: {kind, title, label, categories, series: {name: values}}; `kind` where it has none.

    Raises RowError where it cannot be drawn.
    """
    if not isinstance(data, dict):
        raise RowError("no table: not a JSON object")
    categories, series = data.get("categories"), data.get("series")
    if isinstance(series, list):
        series = {str(data.get("label") or "value"): series}
    if not isinstance(categories, list) or not isinstance(series, dict):
        raise RowError("no table: it wants `categories` (a list) and `series` (an object of lists)")
    rows = []
    for name, values in series.items():
        if not isinstance(values, list) or len(values) != len(categories):
            raise RowError(f"series {name!r} does not have a value for each of {len(categories)} categories")
        rows.append((str(name), tuple(_number(value, f"series {name!r}") for value in values)))
    found = data.get("kind") or kind or ("grouped" if len(rows) > 1 else "bar")
    return checked(
        Table(
            str(found),
            str(data.get("title") or ""),
            tuple(map(str, categories)),
            tuple(rows),
            str(data.get("label") or ""),
        )
    )


def table_of_csv(text: str, title: str, kind: str | None = None) -> Table:
    """A table out of CSV: a header, then lines of a category and a number for each series."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise RowError(f"bad CSV: {error}") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise RowError("bad CSV: want a header and rows of a category and one or more numbers")
    names = [cell.strip() for cell in rows[0][1:]]
    if len(set(names)) < len(names):
        raise RowError("bad CSV: two columns have the same name")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise RowError(f"bad CSV: row {number} has {len(row)} cells, the header {len(rows[0])}")
    series = {
        name: [_cell(row[column], f"row {number}") for number, row in enumerate(rows[1:], 2)]
        for column, name in enumerate(names, 1)
    }
    return table_of({"title": title, "categories": [row[0].strip() for row in rows[1:]], "series": series}, kind)


def _cell(text: str, place: str) -> float:
    try:
        return float(text.strip().replace("\u2212", "-"))
    except ValueError:
        raise RowError(f"bad CSV: {place}: {text.strip()!r} is no number") from None


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{place}: {value!r} is no number")
    if not math.isfinite(value):
        raise RowError(f"{place}: a value is not finite (NaN or Infinity)")
    if abs(value) > 1e15:
        raise RowError(f"{place}: {value!r} is too large to draw")
    return float(value)


def checked(table: Table) -> Table:
    """The table, if it can be drawn and two of its values can be told apart. Raises RowError."""
    if table.kind not in KINDS:
        raise RowError(f"no kind of chart: {table.kind!r}; there are {', '.join(KINDS)}")
    if len(table.categories) < 2:
        raise RowError("a table with one value, or none, has no two to swap")
    if len(table.categories) > MOST_CATEGORIES:
        raise RowError(f"{len(table.categories)} categories; a chart has room for {MOST_CATEGORIES}")
    if len(set(table.categories)) < len(table.categories):
        raise RowError("two categories have the same name")
    if not 1 <= len(table.series) <= MOST_SERIES:
        raise RowError(f"{len(table.series)} series; a chart has room for 1 to {MOST_SERIES}")
    if table.kind in ("bar", "barh", "pie") and len(table.series) > 1:
        raise RowError(
            f"{len(table.series)} series do not go into one {table.kind} chart; grouped and line take several"
        )
    if table.kind == "pie" and min(table.values) <= 0:
        raise RowError("a pie chart wants values above 0")
    if not swappable(table):
        raise RowError("no two values of a series differ enough to be told apart")
    return table


def swappable(table: Table) -> list[tuple[int, int, int]]:
    """(series, category, other category) of all values that differ enough to be swapped.

    Their difference is at least 15 % of the range of the chart's values, and 3 % of the largest.

    >>> swappable(Table("bar", "", ("a", "b", "c"), (("n", (10.0, 11.0, 20.0)),)))
    [(0, 0, 2), (0, 1, 2)]
    """
    values = table.values
    least = max(LEAST_SHARE * (max(values) - min(values)), LEAST_PART * max(map(abs, values)))
    return [
        (number, one, other)
        for number, (_, row) in enumerate(table.series)
        for one in range(len(row))
        for other in range(one + 1, len(row))
        if row[one] != row[other] and abs(row[one] - row[other]) >= least
    ]


def swapped(table: Table, draws: Draws) -> tuple[Table, dict[str, Any]]:
    """The table with two values of one series swapped, and the change as a row of the log."""
    choices = swappable(table)
    if not choices:
        raise CannotEdit("no two values of a series differ enough to be told apart")
    number, one, other = draws.pick(choices)
    name, row = table.series[number]
    values = list(row)
    values[one], values[other] = values[other], values[one]
    series = tuple((name, tuple(values)) if i == number else old for i, old in enumerate(table.series))
    first, second = table.categories[one], table.categories[other]
    of = f" of {name}" if len(table.series) > 1 else ""
    change = {
        "op": "swap",
        "series": name,
        "categories": [first, second],
        "was": [row[one], row[other]],
        "now": [row[other], row[one]],
        "said": f"the values{of} of {first} and {second} are swapped",
    }
    return replace(table, series=series), change


TOPICS: Sequence[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = (
    (
        "Rainfall by city",
        "mm a month",
        ("Lima", "Oslo", "Quito", "Cairo", "Delhi", "Paris", "Seoul", "Tunis"),
        ("spring", "summer", "autumn"),
    ),
    (
        "Books lent by subject",
        "books",
        ("Art", "Biology", "History", "Law", "Maths", "Music", "Physics", "Travel"),
        ("2023", "2024", "2025"),
    ),
    (
        "Visitors by weekday",
        "visitors",
        ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
        ("museum", "zoo", "pool"),
    ),
    (
        "Fruit sold",
        "tonnes",
        ("Apples", "Cherries", "Figs", "Grapes", "Kiwis", "Melons", "Pears", "Plums"),
        ("north", "south", "west"),
    ),
    (
        "Trains on time",
        "percent",
        ("Line 1", "Line 2", "Line 3", "Line 4", "Line 5", "Line 6"),
        ("January", "May", "September"),
    ),
    (
        "Energy by source",
        "GWh",
        ("Biomass", "Coal", "Gas", "Hydro", "Nuclear", "Solar", "Wind"),
        ("plan", "actual"),
    ),
)


def drawn_table(draws: Draws, kinds: Sequence[str] = KINDS) -> Table:
    """A made-up table: whole values of 5 to 95, 4 to 7 categories, 2 or 3 series where there are several."""
    while True:
        title, label, categories, names = draws.pick(TOPICS)
        kind = draws.pick(kinds)
        several = kind == "grouped" or (kind == "line" and draws.below(2))
        most = 5 if kind in ("grouped", "pie") else 7
        count = min(draws.whole(4, most), len(categories))
        # lines run in the order of the list; what else is drawn is in any order
        start = draws.below(len(categories) - count + 1)
        chosen = categories[start : start + count] if kind == "line" else tuple(draws.shuffled(categories)[:count])
        rows = names[: draws.whole(2, len(names))] if several else (label,)
        series = tuple((name, tuple(float(draws.whole(5, 95)) for _ in chosen)) for name in rows)
        table = Table(kind, title, chosen, series, label)
        if swappable(table):
            return table
