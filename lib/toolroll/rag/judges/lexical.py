"""Over-search judged by words: does the closed-book answer say what the step concludes?

A stand-in for a language model as judge (arXiv:2510.07794, section 3.2), fast, deterministic and without a model.
Conclusion o and closed-book answer o' are compared in what they say beyond the query: query terms and stop words are
left out on both sides. They say the same, and the search was not needed, if

    neither abstains ("I don't know", "not enough information", nothing at all),
    every number and month of o is in o', and
    at least `recall` (0.8) of the terms of o are in o'.

Short ones, both of at most `short` (6) terms, also agree if one contains the other or the F1 of their terms is at
least `f1` (0.66), numbers agreeing all the same.

What it cannot see: a negation ("Paris is not the capital") is one word among others, who did what to whom is lost with
the order of words, and an answer that names two dates agrees with both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from toolroll.rag.judges.base import Case, Finding, Role
from toolroll.rag.judges.words import Terms, abstains, terms

__all__ = ["LexicalJudge", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When two texts say the same; all in [0, 1] but `short`, a number of terms."""

    recall: float = 0.8
    f1: float = 0.66
    short: int = 6


class LexicalJudge:
    """Compares words, see above."""

    name = "lexical"
    roles: frozenset[Role] = frozenset(["over"])
    recorded = False

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self.identity = f"lexical/1 {self.rule}"

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case.

        >>> case = Case("over", "Paris is the capital of France", query="capital of France", closed_book="It is Paris.")
        >>> LexicalJudge().judge([case])[0].verdict
        'over'
        """
        return [self._judge(case) for case in cases]

    def close(self) -> None:
        """Nothing to free."""

    def _judge(self, case: Case) -> Finding:
        said = case.closed_book or ""
        if abstains(said):
            return Finding("ok", "the closed-book answer abstains")
        if abstains(case.conclusion):
            return Finding("ok", "the conclusion abstains")
        query = terms(case.query)
        concluded, answered = terms(case.conclusion).without(query), terms(said).without(query)
        if not concluded.sequence:
            return Finding("unknown", "the conclusion says nothing beyond the query that could be compared")
        missing = sorted(concluded.numbers - answered.numbers)
        if missing:
            return Finding("ok", f"not in the closed-book answer: {_told(missing)}")
        return self._compare(concluded, answered)

    def _compare(self, concluded: Terms, answered: Terms) -> Finding:
        wanted = concluded.words | concluded.numbers
        found = wanted & (answered.words | answered.numbers)
        recall = len(found) / len(wanted)
        told = f"{len(found)} of {len(wanted)} key terms are in the closed-book answer"
        if recall >= self.rule.recall:
            return Finding("over", told)
        if max(len(concluded.sequence), len(answered.sequence)) <= self.rule.short:
            if _covers(concluded.sequence, answered.sequence) or _covers(answered.sequence, concluded.sequence):
                return Finding("over", "one of the short answers contains the other")
            overlap = _f1(concluded.sequence, answered.sequence)
            if overlap >= self.rule.f1:
                return Finding("over", f"F1 {overlap:.2f} with the closed-book answer")
        return Finding("ok", f"{told}; not there: {_told(sorted(wanted - found))}")


def _covers(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    return bool(shorter) and f" {' '.join(shorter)} " in f" {' '.join(longer)} "


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second)) if common else 0.0


def _told(words: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(word.removeprefix("#") for word in words[:most])
    return shown + (", ..." if len(words) > most else "")
