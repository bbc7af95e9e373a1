"""Records as a table for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def render(records: list[dict[str, Any]]) -> Iterator[str]:
    r"""Lines of an aligned table: numbers to the right, the rest to the left, `-` for null.

    >>> print("\n".join(render([{"set": "nq", "cem": 0.5}, {"set": "all", "cem": None}])))
    set    cem
    nq   0.500
    all      -
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    cells = [names] + [[_cell(record.get(name)) for name in names] for record in records]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    right = [all(not isinstance(record.get(name), str) for record in records) for name in names]
    for row in cells:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        yield "  ".join(padded).replace("\n", " ").rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
