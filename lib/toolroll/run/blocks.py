"""What is worked on side by side, and what of it a resumed run has to work on again.

The last bits of what a model computes depend on what shares a batch with it. So a resumed run cuts its input where the
first one did, and gives everybody the company it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_blocks(items: Iterable[T], size: Callable[[], int], ready: Callable[[], bool]) -> Iterator[list[T]]:
    """Items to work on side by side: `size()` of them, fewer where the next would have to be waited for.

    >>> list(in_blocks("abcde", lambda: 2, lambda: True))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    block: list[T] = []
    for item in items:
        block.append(item)
        if len(block) >= size() or not ready():
            yield block
            block = []
    if block:
        yield block


def to_do(block: Sequence[T], written: Callable[[T], bool], *, more: bool) -> list[T]:
    """What of a block is to be worked on, where `written` tells what an earlier run has written of it.

    Rows are written in order. So if the run wrote `more` than this block, the block had come to its end: what is
    missing had failed, or was dropped, and is tried by itself. Else the block may have been in hand, and all of it is
    done again; the caller writes what is missing.

    >>> to_do("abc", "ac".__contains__, more=True), to_do("abc", "ab".__contains__, more=False)
    (['b'], ['a', 'b', 'c'])
    """
    missing = [one for one in block if not written(one)]
    return list(block) if missing and not more else missing
