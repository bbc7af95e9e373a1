"""Charts: the values read back from what is drawn, equal axes, and tables that cannot be drawn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.errors import RowError, UsageError
from toolroll.world.charts import Style, chart_pair, check_font, draw, drawn_style, figure_of, shortened
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit
from toolroll.world.tables import KINDS, Table, drawn_table, swappable, swapped, table_of, table_of_csv

seeds = st.integers(0, 2**40)
every_kind = pytest.mark.parametrize("kind", KINDS)
SIZE = (160, 120)


def drawn_values(axes, table):
    """The values of each series, read off the bars, points and wedges."""
    if table.kind == "bar":
        return [[bar.get_height() for bar in axes.patches]]
    if table.kind == "barh":
        return [[bar.get_width() for bar in axes.patches]]
    if table.kind == "grouped":
        return [[bar.get_height() for bar in group] for group in axes.containers]
    if table.kind == "line":
        return [list(line.get_ydata()) for line in axes.lines]
    whole = sum(table.values)
    return [[(wedge.theta2 - wedge.theta1) / 360 * whole for wedge in axes.patches]]


@every_kind
@given(seeds)
@settings(max_examples=5, deadline=None)
def test_the_drawn_values_are_those_of_the_table(kind, seed):
    draws = Draws(seed)
    table = drawn_table(draws, [kind])
    other, change = swapped(table, draws)
    for one in (table, other):
        _, axes = figure_of(one, Style(), *SIZE)
        for drawn, (_, values) in zip(drawn_values(axes, one), one.series, strict=True):
            assert drawn == pytest.approx(values, rel=1e-5)
    number = [name for name, _ in table.series].index(change["series"])
    first, second = (table.categories.index(name) for name in change["categories"])
    before, after = (dict(one.series)[change["series"]] for one in (table, other))
    assert change["was"] == [before[first], before[second]] == change["now"][::-1]
    assert [after[first], after[second]] == change["now"]
    assert sorted(before) == sorted(after)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 2
    assert [row for i, row in enumerate(table.series) if i != number] == [
        row for i, row in enumerate(other.series) if i != number
    ]


@every_kind
def test_axes_colours_and_layout_are_equal(kind):
    for seed in range(3):
        draws = Draws(seed)
        table, style = drawn_table(draws, [kind]), drawn_style(draws)
        other, _ = swapped(table, draws)
        one, two = (figure_of(each, style, *SIZE)[1] for each in (table, other))
        assert one.get_xlim() == two.get_xlim()
        assert one.get_ylim() == two.get_ylim()
        assert one.get_position().bounds == two.get_position().bounds
        assert [p.get_facecolor() for p in one.patches] == [p.get_facecolor() for p in two.patches]
        assert [t.get_text() for t in one.get_xticklabels()] == [t.get_text() for t in two.get_xticklabels()]
        (low, high) = one.get_xlim() if kind == "barh" else one.get_ylim()
        assert kind == "pie" or (low <= 0 and max(table.values) < high)


@every_kind
@pytest.mark.parametrize("size", [(320, 240), (96, 72)])
def test_a_pair_differs_where_its_boxes_are(kind, size):
    draws = Draws(7)
    pair = chart_pair(drawn_table(draws, [kind]), drawn_style(draws), draws, *size)
    assert pair.original.shape == pair.modified.shape == (size[1], size[0], 3)
    differs = np.abs(pair.original.astype(int) - pair.modified.astype(int)).max(axis=2) > 8
    assert pair.share == differs.mean() > 0
    for left, top, right, bottom in pair.boxes["original"]:
        assert differs[top:bottom, left:right].any()
        differs[top:bottom, left:right] = False
    assert not differs.any()
    assert table_of(pair.about["original_table"]).as_json() == pair.about["original_table"]


def test_the_users_settings_of_matplotlib_do_not_count(tmp_path):
    import matplotlib as mpl

    table = Table("bar", "t", ("a", "b"), (("n", (1.0, 5.0)),))
    plain = draw(table, Style(), *SIZE)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 7, "lines.linewidth": 9}):
        assert np.array_equal(draw(table, Style(), *SIZE), plain)
    assert np.array_equal(draw(table, Style(), *SIZE), plain)


def test_the_words_are_left_out_of_small_charts():
    figure, axes = figure_of(Table("bar", "a title", ("a", "b"), (("n", (1.0, 5.0)),), "label"), Style(), 96, 72)
    assert not figure.texts
    assert axes.get_ylabel() == ""


# --- tables


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_made_up_tables_can_be_drawn_and_read(seed):
    table = drawn_table(Draws(seed))
    assert table_of(json.loads(json.dumps(table.as_json()))) == table
    assert all(5 <= value <= 95 and value == int(value) for value in table.values)
    assert 4 <= len(table.categories) <= 7
    other, _ = swapped(table, Draws(seed))
    assert other != table
    assert swappable(other)


def test_which_values_may_be_swapped():
    # the range is 90, so 13.5 is needed
    table = Table("bar", "", ("a", "b", "c", "d"), (("n", (5.0, 18.0, 18.5, 95.0)),))
    assert swappable(table) == [(0, 0, 2), (0, 0, 3), (0, 1, 3), (0, 2, 3)]
    # of values near each other 3 % of the largest are needed
    assert swappable(Table("bar", "", ("a", "b"), (("n", (1000.0, 1020.0)),))) == []
    assert swappable(Table("bar", "", ("a", "b"), (("n", (1000.0, 1031.0)),))) == [(0, 0, 1)]
    assert swappable(Table("bar", "", ("a", "b"), (("n", (0.1, 0.9)),))) == [(0, 0, 1)]
    with pytest.raises(CannotEdit):
        swapped(Table("bar", "", ("a", "b"), (("n", (2.0, 2.0)),)), Draws(0))


def test_csv():
    table = table_of_csv("city,2023,2024\n Lima ,1,2.5\nOslo,-3,4e1\n\n", "rain")
    assert table == Table("grouped", "rain", ("Lima", "Oslo"), (("2023", (1.0, -3.0)), ("2024", (2.5, 40.0))))
    assert table_of_csv("a,b\nx,1\ny,\u22125\n", "t").values == [1.0, -5.0]
    assert table_of_csv("a,b\nx,1\ny,5\n", "t", "line").kind == "line"
    assert table_of_csv('a,b\n"x, y",1\nz,5\n', "t").categories == ("x, y", "z")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "want a header and rows"),
        ("a,b\n", "want a header and rows"),
        ("a\nx\n", "want a header and rows"),
        ("a,b\nx,1\n", "one value"),
        ("a,b\nx,1\ny\n", "row 3 has 1 cells, the header 2"),
        ("a,b\nx,1\ny,two\n", "row 3: 'two' is no number"),
        ("a,b\nx,1\ny,\n", "row 3: '' is no number"),
        ("a,b\nx,1\ny,nan\n", "not finite"),
        ("a,b\nx,1\ny,inf\n", "not finite"),
        ("a,b\nx,3\ny,3\n", "differ enough"),
        ("a,b,b\nx,1,2\ny,3,4\n", "two columns have the same name"),
        ("a,b\nx,1\nx,5\n", "two categories have the same name"),
        ('a,b\n"x,1\n', "bad CSV"),
        ("a,b\n" + "".join(f"c{i},{i}\n" for i in range(21)), "21 categories"),
        ("a," + ",".join("bcdefgh") + "\nx,1,2,3,4,5,6,7\ny,7,6,5,4,3,2,1\n", "7 series"),
    ],
)
def test_bad_csv(text, why):
    with pytest.raises(RowError) as error:
        table_of_csv(text, "t")
    assert why in error.value.why


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "not a JSON object"),
        ({}, "wants `categories`"),
        ({"categories": ["a", "b"], "series": 3}, "wants `categories`"),
        ({"categories": ["a", "b"], "series": {"n": [1]}}, "for each of 2 categories"),
        ({"categories": ["a", "b"], "series": {"n": [1, None]}}, "None is no number"),
        ({"categories": ["a", "b"], "series": {"n": [1, True]}}, "True is no number"),
        ({"categories": ["a", "b"], "series": {"n": [1, math.nan]}}, "not finite"),
        ({"categories": ["a", "b"], "series": {"n": [1, 1e20]}}, "too large"),
        ({"categories": ["a", "b"], "series": [1, 5], "kind": "radar"}, "no kind of chart"),
        ({"categories": ["a", "b"], "series": [0, 5], "kind": "pie"}, "above 0"),
        (
            {"categories": ["a", "b"], "series": {"n": [1, 5], "m": [2, 3]}, "kind": "bar"},
            "2 series do not go into one",
        ),
        ({"categories": ["a", "b"], "series": {}}, "0 series"),
    ],
)
def test_bad_tables(data, why):
    with pytest.raises(RowError) as error:
        table_of(data)
    assert why in error.value.why


def test_names_that_are_too_long_are_cut():
    table = shortened(Table("bar", "t", ("a name that goes on and on", "b"), (("n", (1.0, 5.0)),)))
    assert table.categories == ("a name that goes\u2026", "b")
    with pytest.raises(RowError, match="same first 17 letters"):
        shortened(
            Table("bar", "t", ("a name that goes on and on", "a name that goes on and off"), (("n", (1.0, 5.0)),))
        )


def test_fonts():
    check_font("DejaVu Sans")
    with pytest.raises(UsageError, match="no font 'Nonesuch'"):
        check_font("Nonesuch")
    with pytest.raises(RowError, match="does not have '中'"):
        draw(Table("bar", "", ("中", "b"), (("n", (1.0, 5.0)),)), Style(), *SIZE)
