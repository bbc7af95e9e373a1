"""Many pairs in numbers, and what in them looks wrong.

The gap of a pair is the score of its chosen answer less that of its rejected one, as they were made: before any
reversal. With p the share of gaps below 0 among those that are not 0, p near 1/2 says that the encoder's scores have
nothing to do with how the answers were made, and p above it that the sides are swapped. "Near" is within two standard
errors, 2 sqrt(1 / 4n).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolroll.preference.answers import words

FEW = 20  #: pairs below which nothing is said about shares and correlations
UNEVEN = 0.1  #: relative difference of mean lengths that is told


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where a side is constant.

    >>> spearman([1, 2, 3, 4], [2, 4, 6, 9]), spearman([0, 0.5, 1], [30, 30, 20]), spearman([1, 1], [2, 3])
    (1.0, -0.8660254037844387, None)
    """
    left, right = _ranks(one), _ranks(other)
    middle = (len(left) + 1) / 2
    spread = math.sqrt(sum((rank - middle) ** 2 for rank in left) * sum((rank - middle) ** 2 for rank in right))
    if not spread:
        return None
    return sum((a - middle) * (b - middle) for a, b in zip(left, right, strict=True)) / spread


@dataclass(slots=True)
class Side:
    """What is known of one answer as it was made: its score, its h, whether it was cut."""

    score: float | None = None
    h: float | None = None
    cut: bool = False


@dataclass(slots=True)
class Sums:
    """What is counted of pairs. `bin_width` > 0 is that of the histogram of gaps."""

    bin_width: float = 1.0
    pairs: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bins: Counter[int] = field(default_factory=Counter)
    gaps: array[float] = field(default_factory=lambda: array("d"))
    gap_of: array[float] = field(default_factory=lambda: array("d"))  # gaps of pairs whose h differ
    steps: array[float] = field(default_factory=lambda: array("d"))  # how much their h differ
    levels: array[float] = field(default_factory=lambda: array("d"))  # h of all answers
    scores: array[float] = field(default_factory=lambda: array("d"))  # and their scores
    lengths: list[int] = field(default_factory=lambda: [0, 0])  # of the pairs that were not dropped, as written
    longer: int = 0
    cut: int = 0

    def add(self, fields: Mapping[str, Any], texts: tuple[str, str]) -> None:
        """Count a pair: its record, and the texts of its answers as written."""
        self.pairs += 1
        action = fields.get("action")
        if action is not None:
            self.actions[str(action)] += 1
        if action == "drop":
            self.reasons[str(fields.get("reason"))] += 1
        else:
            one, other = (len(words(text)) for text in texts)
            self.lengths[0] += one
            self.lengths[1] += other
            self.longer += one > other
        sides = [_side(fields, name) for name in ("chosen", "rejected")]
        self.cut += any(side.cut for side in sides)
        for side in sides:
            if side.h is not None and side.score is not None:
                self.levels.append(side.h)
                self.scores.append(side.score)
        if fields.get("reversed") is True:
            sides.reverse()
        better, worse = sides
        if better.score is None or worse.score is None:
            return
        gap = better.score - worse.score
        self.gaps.append(gap)
        self.bins[math.floor(gap / self.bin_width)] += 1
        if better.h is not None and worse.h is not None:
            self.steps.append(worse.h - better.h)
            self.gap_of.append(gap)

    def report(self) -> dict[str, Any]:
        """All of it, and what looks wrong."""
        below, above = (sum(sign * gap > 0 for gap in self.gaps) for sign in (-1, 1))
        kept = self.pairs - self.actions["drop"]
        chosen, rejected = (total / kept if kept else None for total in self.lengths)
        ordered = sorted(self.gaps)
        made = {
            "n_pairs": self.pairs,
            "n_kept": self.actions["keep"],
            "n_reversed": self.actions["reverse"],
            "n_dropped": self.actions["drop"],
            "dropped": dict(sorted(self.reasons.items())),
            "n_scored": len(ordered),
            "mean_gap": math.fsum(ordered) / len(ordered) if ordered else None,
            "median_gap": _median(ordered),
            "negative_share": below / (below + above) if below + above else None,
            "n_untied": below + above,
            "mean_chosen_words": chosen,
            "mean_rejected_words": rejected,
            "length_gap": (rejected - chosen) / rejected if rejected and chosen is not None else None,
            "longer_share": self.longer / kept if kept else None,
            "cut_share": self.cut / self.pairs if self.pairs else None,
            "h_gap_correlation": spearman(self.steps, self.gap_of),
            "n_h_gap": len(self.steps),
            "h_score_correlation": spearman(self.levels, self.scores),
            "n_h_score": len(self.levels),
        }
        return {**made, "warnings": list(_warnings(made))}

    def histogram(self) -> Iterator[dict[str, Any]]:
        """The bins of the gaps that hold any, from the lowest."""
        most = max(self.bins.values(), default=0)
        for place in sorted(self.bins):
            count = self.bins[place]
            bar = "#" * math.ceil(40 * count / most)
            yield {"low": place * self.bin_width, "high": (place + 1) * self.bin_width, "n": count, "bar": bar}


def _warnings(made: Mapping[str, Any]) -> Iterator[str]:
    share, count = made["negative_share"], made["n_untied"]
    if share is not None and count >= FEW:
        near = 2 * math.sqrt(0.25 / count)
        if share > 0.5 + near:
            yield f"{share:.0%} of {count} rejected answers score higher: are the sides swapped?"
        elif share > 0.5 - near:
            yield f"{share:.0%} of {count} rejected answers score higher, as by chance: are the scores noise?"
    correlation, levels = made["h_score_correlation"], made["n_h_score"]
    if correlation is not None and levels >= FEW and correlation >= 0:
        yield f"scores do not fall with h (rank correlation {correlation:.2f} of {levels} answers)"
    gap = made["length_gap"]
    if gap is not None and made["n_pairs"] >= FEW and abs(gap) > UNEVEN:
        what = "shorter" if gap > 0 else "longer"
        yield f"chosen answers are {abs(gap):.0%} {what}, which training may learn instead (--max-gap)"
    if made["cut_share"] and made["cut_share"] > UNEVEN:
        yield f"{made['cut_share']:.0%} of pairs have an answer that was cut at the limit (--response-tokens)"


def _side(fields: Mapping[str, Any], name: str) -> Side:
    scores, made = (_part(fields, record, name) for record in ("clip", "made"))
    return Side(_number(scores.get("score")), _number(made.get("h")), cut=made.get("finish") == "length")


def _part(fields: Mapping[str, Any], record: str, name: str) -> Mapping[str, Any]:
    whole = fields.get(record)
    part = whole.get(name) if isinstance(whole, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _number(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100
    return float(value) if sound else None


def _median(ordered: Sequence[float]) -> float | None:
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            ranks[at] = (start + 1 + end) / 2
        start = end
    return ranks


def for_people(record: Mapping[str, Any]) -> dict[str, Any]:
    """A report as a row of a table, each share with what it is of in brackets."""

    def told(name: str, whole: str) -> str:
        return "-" if record[name] is None else f"{record[name]:.3f} (n={record[whole]})"

    return {
        **{name: record[f"n_{name}"] for name in ("pairs", "kept", "reversed", "dropped")},
        "negative": told("negative_share", "n_untied"),
        "mean gap": told("mean_gap", "n_scored"),
        "length gap": record["length_gap"],
        "h ~ gap": told("h_gap_correlation", "n_h_gap"),
        "h ~ score": told("h_score_correlation", "n_h_score"),
    }
