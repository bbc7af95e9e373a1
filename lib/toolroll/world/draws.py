"""Random choices that are the same on every machine and Python: all made of `Random.random`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of random choices from a seed.

    >>> Draws(1).pick("abc") == Draws(1).pick("abc")
    True
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random()

    def around(self, size: float) -> float:
        """A number in [-size, size)."""
        return self.uniform(-size, size)

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return int(self._random() * count)

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return low + self.below(high - low + 1)

    def pick(self, of: Sequence[T]) -> T:
        """One of them."""
        return of[self.below(len(of))]

    def shuffled(self, of: Sequence[T]) -> list[T]:
        """All of them, in another order."""
        rest = list(of)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]
