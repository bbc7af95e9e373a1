"""Work in shares on several threads: what lets the GIL go, as numba's machine code does, runs at once.

Threads take their next share from a counter. One that has not started when the work is done is called off, so that a
busy machine's late threads hold up nobody. Which thread does which share changes no result.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


def in_shares(work: Callable[..., object], count: int, share: int, threads: int, *rest: Any) -> None:
    """Call `work(first, last, *rest)` for parts of range(count) of up to `share`, on up to `threads` threads.

    >>> done = []
    >>> in_shares(lambda first, last: done.append((first, last)), 5, 2, threads=2)
    >>> sorted(done)
    [(0, 2), (2, 4), (4, 5)]
    """
    starts = itertools.count(0, share)

    def take() -> None:
        for first in starts:  # `next` of a counter is one step under the GIL
            if first >= count:
                return
            work(first, min(count, first + share), *rest)

    helpers = [pool().submit(take) for _ in range(min(threads, -(-count // share)) - 1)]
    take()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@cache
def pool() -> ThreadPoolExecutor:
    """The threads that help; they start when first needed, and wait in between."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="toolroll")


os.register_at_fork(after_in_child=pool.cache_clear)  # a forked child has none of the threads
