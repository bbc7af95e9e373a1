"""When to stop asking for hypotheses about a problem.

A hypothesis is bad if it has at least one fault: it cannot be parsed or run, it contradicts an observation, it looks
observations up, or it predicts little that none before it did. Asking stops when so many were bad, all told, not in a
row; never before the first few were heard. Paper: arXiv:2509.24096; numbers of its released code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Fault", "Judgement", "StopRule"]

Fault = str  #: parse_error, inconsistent, lookup or few_new


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rule needs to know of a hypothesis.

    new_frac: its predictions that none before it made, over the size of the sample space, in [0, 1].
    """

    parsed: bool
    consistent: bool = True
    new_frac: float = 0.0
    lookup: bool = False


@dataclass(frozen=True, slots=True)
class StopRule:
    """Stop when `max_bad` hypotheses were bad, after `least` at the earliest and `most` (if any) at the latest.

    min_new: least share of the sample space at which a good hypothesis predicts something new.
    """

    max_bad: int = 3
    min_new: float = 0.2
    least: int = 3
    most: int | None = None

    def faults(self, judged: Judgement) -> list[Fault]:
        """What is wrong with a hypothesis; none for a good one.

        >>> StopRule().faults(Judgement(parsed=True, consistent=False, new_frac=0.19))
        ['inconsistent', 'few_new']
        """
        if not judged.parsed:
            return ["parse_error"]
        found = {
            "inconsistent": not judged.consistent,
            "lookup": judged.lookup,
            "few_new": judged.new_frac < self.min_new,
        }
        return [fault for fault, is_so in found.items() if is_so]

    def stops_after(self, judgements: Iterable[Judgement]) -> int | None:
        """After how many of these hypotheses asking stops; None if it goes on.

        >>> news = [1.0, 0.3, 0.1, 0.05, 0.5, 0.19, 1.0]
        >>> StopRule().stops_after(Judgement(parsed=True, new_frac=new) for new in news)
        6
        """
        bad = 0
        for heard, judged in enumerate(judgements, start=1):
            bad += bool(self.faults(judged))
            if heard >= self.least and bad >= self.max_bad:
                return heard
            if self.most is not None and heard >= self.most:
                return heard
        return None
