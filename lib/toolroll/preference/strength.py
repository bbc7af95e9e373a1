"""How much an answer is to hallucinate: h, the weight of the branch that does not see the image.

h = 0 is plain decoding, h = 1 what the prompt alone suggests, h < 0 contrastive decoding. One number, drawn for each
pair, or a ladder of levels. That the paper draws from a Gaussian is known, which quantity is not: h is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal

from toolroll.errors import UsageError
from toolroll.run.seeds import record_seed

LEAST, MOST = -10.0, 1.0
_TRIES = 1000

Kind = Literal["constant", "normal", "uniform", "grid"]


@dataclass(frozen=True, slots=True)
class Strength:
    """Where h comes from. `values`: the number; mean and standard deviation; bounds; or numbers taken in turn.

    What a normal distribution has outside `within` is drawn again, or set to the bound with `clip`.
    """

    kind: Kind
    values: tuple[float, ...]
    within: tuple[float, float] = (0.1, 1.0)
    clip: bool = False

    def draw(self, seed: int, number: int = 0) -> float:
        """The h of the pair with this seed and number: the same whenever it is asked for.

        >>> Strength("grid", (0.2, 0.6)).draw(0, 3), Strength("constant", (0.5,)).draw(7)
        (0.6, 0.5)
        """
        if self.kind == "constant":
            return self.values[0]
        if self.kind == "grid":
            return self.values[number % len(self.values)]
        if self.kind == "uniform":
            low, high = self.values
            return low + (high - low) * uniform(seed, 0)
        normal = NormalDist(*self.values)
        for attempt in range(_TRIES):
            found = normal.inv_cdf(uniform(seed, attempt))
            if self.clip or self.within[0] <= found <= self.within[1]:
                break
        return min(max(found, self.within[0]), self.within[1])

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest h there can be."""
        return self.within if self.kind == "normal" else (min(self.values), max(self.values))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be written: how much it hallucinates, and its seed."""

    h: float
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The answers about one image, and the pairs of them: (number of the pair, better one, worse one)."""

    answers: tuple[Answer, ...]
    pairs: tuple[tuple[int, int, int], ...]


def planned(
    name: object, *, seed: int, pairs: int, positive: float, negative: Strength | None, ladder: Sequence[float] = ()
) -> Plan:
    """What is to be written about the image of the record `name`: `pairs` pairs, or ladders of all `ladder` levels.

    The better one of two levels of a ladder is the one that hallucinates less. Seeds depend on `seed`, the name and the
    number of the pair alone.

    >>> plan = planned("a", seed=0, pairs=1, positive=0, negative=None, ladder=[0, 0.3, 0.6])
    >>> [one.h for one in plan.answers], plan.pairs
    ([0, 0.3, 0.6], ((0, 0, 1), (1, 0, 2), (2, 1, 2)))
    """
    answers: list[Answer] = []
    made: list[tuple[int, int, int]] = []
    for k in range(pairs):
        first = len(answers)
        if negative is None:
            levels = sorted(ladder)
        else:
            levels = [positive, negative.draw(record_seed(seed, name, k, "h"), k)]
        answers += [Answer(h, record_seed(seed, name, k, "level", i)) for i, h in enumerate(levels)]
        for one, other in combinations(range(first, len(answers)), 2):
            made.append((len(made), one, other))
    return Plan(tuple(answers), tuple(made))


def read_strength(text: str, within: tuple[float, float], *, clip: bool) -> Strength:
    """The meaning of --h: a number, normal:MEAN,SD, uniform:LOW,HIGH or grid:H,... UsageError for anything else.

    >>> read_strength("normal:0.5,0.15", (0.1, 1.0), clip=False).values
    (0.5, 0.15)
    """
    kind, colon, rest = text.partition(":")
    kinds: dict[str, Kind] = {"normal": "normal", "uniform": "uniform", "grid": "grid"}
    found: Kind = kinds[kind] if colon and kind in kinds else "constant"
    values = numbers(rest if found != "constant" else text, "--h")
    wanted = {"constant": 1, "normal": 2, "uniform": 2}.get(found, len(values))
    if len(values) != wanted:
        raise UsageError(f"{text!r} has not {wanted} number{'s' * (wanted > 1)}", place="--h")
    if found == "normal" and values[1] <= 0:
        raise UsageError("the standard deviation is not above 0", place="--h")
    if found == "uniform" and values[0] > values[1]:
        raise UsageError("the first bound is above the second", place="--h")
    strength = Strength(found, values, within, clip)
    if found == "normal" and not clip and _mass(strength) < 0.01:
        raise UsageError(f"{text!r} has next to nothing within {within[0]:g},{within[1]:g}", place="--h")
    return strength


def numbers(text: str, place: str) -> tuple[float, ...]:
    """Finite numbers with commas between them. UsageError for anything else."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} are no numbers with commas between them", place=place) from error
    if not all(map(math.isfinite, found)):
        raise UsageError("not finite", place=place)
    return found


def uniform(seed: int, number: int) -> float:
    """Draw `number` of `seed`, in (0, 1)."""
    return ((record_seed(seed, "uniform", number) >> 11) + 0.5) / 2**52


def _mass(strength: Strength) -> float:
    normal = NormalDist(*strength.values)
    return normal.cdf(strength.within[1]) - normal.cdf(strength.within[0])
