"""Which tokens of each sequence are visual, or are to be packed for another reason: spans and masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError

Mask = NDArray[np.bool_]
Span = tuple[int, int]


def read_spans(text: str) -> list[Span]:
    """Spans as options have them, "35:611,640:1216": from a token on, up to another; "" or "none" is none.

    >>> read_spans("2:4,7:8")
    [(2, 4), (7, 8)]
    """
    if text.strip() in ("", "none"):
        return []
    found = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        if not (colon and first.strip().isdigit() and last.strip().isdigit()):
            raise ToolrollError(f"{part.strip()!r} is no span: START:END is")
        found.append((int(first), int(last)))
    return found


def mask_of(spans: Sequence[Span], tokens: int) -> Mask:
    """The tokens that spans cover, bool [T]. ToolrollError where they overlap, are empty or leave the sequence.

    >>> mask_of([(0, 1), (2, 4)], 5).tolist()
    [True, False, True, True, False]
    """
    mask = np.zeros(tokens, np.bool_)
    before: Span | None = None
    for span in sorted(spans):
        first, last = span
        if first >= last or first < 0:
            raise ToolrollError(f"the span {first}:{last} has no tokens")
        if last > tokens:
            raise ToolrollError(f"the span {first}:{last} leaves the sequence of {tokens} tokens")
        if before is not None and first < before[1]:
            raise ToolrollError(f"the spans {before[0]}:{before[1]} and {first}:{last} overlap")
        mask[first:last] = True
        before = span
    return mask


def spans_of(mask: Mask) -> list[Span]:
    """The spans that make up a mask [T].

    >>> spans_of(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def rows_of(masks: Mask) -> NDArray[np.int64]:
    """Masks [B, T] as rows (item, start, end), [n, 3]."""
    rows = [(item, *span) for item, mask in enumerate(masks) for span in spans_of(mask)]
    return np.array(rows, np.int64).reshape(-1, 3)


def masks_of(rows: NDArray[np.int64], items: int, tokens: int) -> Mask:
    """Rows (item, start, end), or (start, end) for all items, as masks [B, T]. ToolrollError for what cannot be."""
    if rows.ndim != 2 or rows.shape[1] not in (2, 3):
        raise ToolrollError("span has to be rows of item, start, end, or of start, end")
    each: list[list[Span]] = [[] for _ in range(items)]
    for row in rows.tolist():
        item, first, last = row if len(row) == 3 else (None, *row)
        if item is not None and not 0 <= item < items:
            raise ToolrollError(f"a span is of item {item}, and there are {items}")
        for place in range(items) if item is None else [item]:
            each[place].append((first, last))
    return np.stack([mask_of(spans, tokens) for spans in each]) if items else np.zeros((0, tokens), np.bool_)
