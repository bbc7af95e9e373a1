"""Draws that depend on a seed and a counter and on nothing else: not on hash order, processes or restarts.

Draw c uses u_c = (first 8 bytes of SHA-256("seed:arm:c") >> 11) / 2^53 and the inverse of the distribution over sorted
arms. So two batches of 64 are one of 128, if nothing is learned between them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from toolroll.errors import ToolrollError


def uniform(*parts: object) -> float:
    """A number in [0, 1), the same for the same parts on every machine.

    >>> round(uniform(1, "arm", 0), 9), round(uniform(1, "arm", 1), 9)
    (0.806882626, 0.970429219)
    """
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def independent(seed: int, start: int, size: int, probabilities: Sequence[float]) -> list[int]:
    """`size` independent draws of an arm's index, by the counters from `start` on."""
    edges = list(accumulate(probabilities))
    last = max(i for i, p in enumerate(probabilities) if p > 0)
    return [min(bisect_right(edges, uniform(seed, "arm", c)), last) for c in range(start, start + size)]


def stratified(seed: int, start: int, size: int, probabilities: Sequence[float]) -> list[int]:
    """Arms in the numbers size * P, rounded by the largest remainder (the first arm of equals), in a shuffled order.

    >>> sorted(stratified(1, 0, 4, [0.5, 0.3, 0.2]))
    [0, 0, 1, 2]
    """
    shares = [size * p for p in probabilities]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: size - sum(counts)]:
        counts[i] += 1
    arms = [arm for arm, count in enumerate(counts) for _ in range(count)]
    places = sorted(range(size), key=lambda i: uniform(seed, "place", start + i))
    return [arms[place] for place in places]


class Pool:
    """The tasks of each arm, in the order of the file; which of them a draw takes."""

    def __init__(self, tasks: Mapping[str, Sequence[bytes]], seed: int) -> None:
        self.tasks = tasks
        self.seed = seed
        self._passes: dict[str, tuple[int, list[int]]] = {}

    def independent(self, arm: str, counter: int) -> bytes:
        """The task of draw `counter`, whatever was drawn before."""
        tasks = self._of(arm)
        return tasks[int(uniform(self.seed, "item", arm, counter) * len(tasks))]

    def next_of_pass(self, arm: str, drawn: int) -> bytes:
        """The task when `drawn` of the arm were taken before: each once, in an order that is shuffled for each pass."""
        tasks = self._of(arm)
        number, place = divmod(drawn, len(tasks))
        if self._passes.get(arm, (-1, []))[0] != number:
            order = sorted(range(len(tasks)), key=lambda i: uniform(self.seed, "pass", arm, number, i))
            self._passes[arm] = (number, order)
        return tasks[self._passes[arm][1][place]]

    def _of(self, arm: str) -> Sequence[bytes]:
        tasks = self.tasks.get(arm)
        if not tasks:
            raise ToolrollError("has no task in the pool", place=arm)
        return tasks
