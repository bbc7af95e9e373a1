"""Under-search judged by passages: is what the step concludes found in the corpus?

A stand-in for a language model that knows facts (arXiv:2510.07794, section 3.2): the conclusion, then the reasoning,
is searched for, and

    support = the share of the conclusion's words and numbers that stand in ONE passage,

the best of those found. The step is under-searched if its support is below `tau`, or if that passage speaks of the
same things with other numbers. A step that only plans ("I need to look up X") claims nothing and has no verdict, and
neither has one for which nothing is found at all.

What it cannot see: negations, who did what to whom, and whether the conclusion follows from the reasoning. A true
conclusion about something the corpus does not hold, or one that compares two facts ("A is older than B"), looks
unsupported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolroll.rag.judges.base import Case, Finding, Role
from toolroll.rag.judges.words import Terms, abstains, plans, terms

if TYPE_CHECKING:
    from toolroll.rag.corpus import Hit
    from toolroll.rag.retrieve import Retriever

__all__ = ["EvidenceJudge", "claims", "find_passages"]

TAU = 0.6
TOPK = 5


class EvidenceJudge:
    """Looks conclusions up with `retriever`. tau: the least support, in [0, 1]; topk: passages a search (>= 1)."""

    name = "evidence"
    roles: frozenset[Role] = frozenset(["under"])
    recorded = False

    def __init__(self, retriever: Retriever, *, tau: float = TAU, topk: int = TOPK) -> None:
        self._retriever = retriever
        self._tau = tau
        self._topk = topk
        self.identity = f"evidence/1 {retriever.identity} tau={tau} topk={topk}"

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case."""
        silent = [claims(case) for case in cases]
        asked = [case for case, why in zip(cases, silent, strict=True) if why is None]
        found = iter(find_passages(self._retriever, asked, self._topk))
        return [
            self._judge(case, next(found)) if why is None else Finding("unknown", why)
            for case, why in zip(cases, silent, strict=True)
        ]

    def close(self) -> None:
        """The retriever belongs to whoever opened it."""

    def _judge(self, case: Case, hits: list[Hit]) -> Finding:
        if not hits:
            return Finding("unknown", "no passages found", lasting=False)
        claim = terms(case.conclusion)
        support, hit, passage = max(
            ((_support(claim, passage), hit, passage) for hit, passage in ((hit, _terms_of(hit)) for hit in hits)),
            key=lambda found: found[0],
        )
        told = f"support {support:.2f} in passage {hit['id']}"
        other = contradicted(claim, passage)
        about = len(claim.words & passage.words) >= self._tau * len(claim.words)
        if other and claim.words and about:
            return Finding("under", f"{told}, which has other numbers than {other}")
        return Finding("ok" if support >= self._tau else "under", told)


def claims(case: Case) -> str | None:
    """None if the step's conclusion claims something, else why not."""
    if plans(case.conclusion) or abstains(case.conclusion) or not terms(case.conclusion).sequence:
        return "no_claim: the conclusion states nothing that could be looked up"
    return None


def find_passages(retriever: Retriever, cases: Sequence[Case], topk: int) -> list[list[Hit]]:
    """For each case the passages found for its conclusion, then those for its reasoning, each passage once."""
    queries = dict.fromkeys(text for case in cases for text in _texts(case) if text.strip())
    if not queries:
        return [[] for _ in cases]
    hits = dict(zip(queries, retriever.search(list(queries), topk), strict=True))
    return [
        list({(hit["id"], hit["text"]): hit for text in _texts(case) for hit in hits.get(text, [])}.values())
        for case in cases
    ]


def _texts(case: Case) -> tuple[str, str]:
    return case.conclusion, case.reasoning


def contradicted(claim: Terms, passage: Terms) -> str:
    """The numbers of a claim that a passage replaces by others of their kind, as text; "" if there are none.

    Years, months and other numbers are each a kind of their own. A number the passage has nothing to set against is
    missing, which lowers the support, but not contradicted.
    """
    kinds = {_kind(number) for number in passage.numbers}
    wrong = [number[1:] for number in sorted(claim.numbers - passage.numbers) if _kind(number) in kinds]
    return ", ".join(wrong)


def _kind(number: str) -> str:
    digits = number[1:]
    if digits.isdecimal():
        return "year" if len(digits) == 4 and digits[0] in "12" else "number"
    return "month" if digits.isalpha() else "number"


def _support(claim: Terms, passage: Terms) -> float:
    wanted = claim.words | claim.numbers
    return len(wanted & (passage.words | passage.numbers)) / len(wanted)


def _terms_of(hit: Hit) -> Terms:
    return terms(f"{hit['title']} {hit['text']}")
