"""Draws that depend on a seed and a counter and on nothing else: not on hash order, processes or restarts.

Draw c uses u_c = (first 8 bytes of SHA-256("seed:arm:c") >> 11) / 2^53 and the inverse of the distribution over sorted
arms. So two batches of 64 are one of 128, if nothing is learned between them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


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
    last = len(edges) - 1
    while not probabilities[last]:
        last -= 1
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


def item(seed: int, arm: str, counter: int, size: int) -> int:
    """Which of an arm's `size` tasks draw `counter` takes, whatever was drawn before."""
    return int(uniform(seed, "item", arm, counter) * size)


def shuffled(seed: int, arm: str, number: int, size: int) -> list[int]:
    """The order in which pass `number` goes through an arm's `size` tasks, each once."""
    return sorted(range(size), key=lambda i: uniform(seed, "pass", arm, number, i))


def nearest(difficulties: Sequence[float], target: float, size: int) -> list[int]:
    """AdaRFT's batch: the `size` tasks whose difficulty is nearest to the target, the first of equals.

    >>> nearest([10, 30, 50, 33], 32, 2)
    [3, 1]
    """
    return sorted(range(len(difficulties)), key=lambda i: abs(difficulties[i] - target))[:size]
