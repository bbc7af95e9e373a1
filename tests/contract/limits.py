"""Less of the machine for a while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def limited(limit: int, most: int) -> Iterator[None]:
    """A stretch in which this process, and those that it starts, have no more of a `resource.RLIMIT_`."""
    held = resource.getrlimit(limit)
    resource.setrlimit(limit, (most, held[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, held)


def full_after(size: int) -> AbstractContextManager[None]:
    """No file grows beyond `size` bytes, as on a disk that is full."""
    return limited(resource.RLIMIT_FSIZE, size)
