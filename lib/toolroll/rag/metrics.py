"""How a set of trajectories did: answers, over- and under-searching, searches, format.

    OSR = over-searched / judged search steps           USR = under-searched / judged nonsearch steps

are pooled over all steps of all trajectories of valid format (arXiv:2510.07794, section 3.2, equation 2). The mean
answer score (CEM) is over questions, as the paper's average is over its 51,713 test questions and not over data sets.
"""

from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from typing import Any

from toolroll.rag.reward import Verdicts, check_verdicts

__all__ = ["Tally"]


@dataclass(slots=True)
class _Sums:
    """What is known of one data source. A sum over questions adds each question's mean over its samples."""

    n_rows: int = 0
    n_valid: int = 0
    n_questions: int = 0
    n_scored: int = 0
    score: float = 0.0
    searches: float = 0.0
    n_search: int = 0
    n_over: int = 0
    n_nonsearch: int = 0
    n_under: int = 0
    n_unknown: int = 0

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(slots=True)
class _Question:
    """The question whose samples are being read."""

    source: str | None = None
    id: Hashable = None
    n_rows: int = 0
    n_scored: int = 0
    score: float = 0.0
    searches: int = 0

    def fold_into(self, sums: _Sums) -> None:
        """Add this question's means to the sums of its data source."""
        if self.n_rows:
            sums.n_questions += 1
            sums.searches += self.searches / self.n_rows
        if self.n_scored:
            sums.n_scored += 1
            sums.score += self.score / self.n_scored


class Tally:
    """Adds up trajectories, in memory that grows with the number of data sources only.

    A question is a run of rows with the same data source and question id, as rollouts are written: its samples are
    averaged first, then the questions, so that a question with more samples weighs no more. Samples of a question
    that do not follow one another count as so many questions; sort the rows by question to have them counted as
    one. Where every question has as many samples as the next, the means are the same either way.

    >>> tally = Tally()
    >>> tally.add(question_id="q1", score=1, format_valid=True, verdicts=[("search", "over"), ("search", "ok")])
    >>> tally.add(question_id="q1", score=0, format_valid=False, verdicts=[("search", "over")])
    >>> report = tally.report()[-1]
    >>> report["cem"], report["n_questions"], report["osr"], report["usr"], report["searches_per_question"]
    (0.5, 1, 0.5, None, 1.5)
    """

    def __init__(self) -> None:
        self._sums: dict[str | None, _Sums] = {}
        self._question = _Question()

    def add(
        self,
        *,
        question_id: Hashable,
        score: float | None,
        format_valid: bool,
        verdicts: Verdicts,
        data_source: str | None = None,
        n_search: int | None = None,
    ) -> None:
        """Count one trajectory.

        score: of its answer, in [0, 1] (see `toolroll.checking.match`); None if there is nothing to match it with.
        format_valid: F. The paper's OSR and USR are over what the released `regex` checker accepts.
        verdicts: one (kind, verdict) a step; a step that is `unknown` is in neither rate.
        data_source: None counts for the overall row alone.
        n_search: searches made, if that is known otherwise than from the steps.

        Raises RowError for a verdict the step's kind cannot have.
        """
        check_verdicts(verdicts)
        if self._question.n_rows and (self._question.source, self._question.id) != (data_source, question_id):
            self._question.fold_into(self._sums[self._question.source])
            self._question = _Question()
        question, sums = self._question, self._sums.setdefault(data_source, _Sums())
        question.source, question.id = data_source, question_id
        question.n_rows += 1
        question.searches += sum(kind == "search" for kind, _ in verdicts) if n_search is None else n_search
        if score is not None:
            question.n_scored += 1
            question.score += score
        sums.n_rows += 1
        if format_valid:
            sums.n_valid += 1
            self._count_steps(sums, verdicts)

    @staticmethod
    def _count_steps(sums: _Sums, verdicts: Verdicts) -> None:
        for kind, verdict in verdicts:
            if verdict == "unknown":
                sums.n_unknown += 1
            elif kind == "search":
                sums.n_search += 1
                sums.n_over += verdict == "over"
            else:
                sums.n_nonsearch += 1
                sums.n_under += verdict == "under"

    def report(self) -> list[dict[str, Any]]:
        """One row a data source, in order of appearance, then one over all with `data_source` None.

        Each mean stands with the counts it was made from, and is None where its denominator is 0:
        `cem` of `n_scored` questions, `osr` = `n_over` / `n_search`, `usr` = `n_under` / `n_nonsearch`,
        `searches_per_question` of `n_questions`, `valid_frac` = `n_valid` / `n_rows`. Rates are fractions.
        More rows may be added afterwards.
        """
        sums = {source: replace(of_source) for source, of_source in self._sums.items()}
        if self._question.n_rows:
            self._question.fold_into(sums[self._question.source])
        rows = [_row(source, of_source) for source, of_source in sums.items() if source is not None]
        return [*rows, _row(None, sum(sums.values(), _Sums()))]


def _row(source: str | None, sums: _Sums) -> dict[str, Any]:
    return {
        "data_source": source,
        "n_rows": sums.n_rows,
        "n_questions": sums.n_questions,
        "cem": _ratio(sums.score, sums.n_scored),
        "n_scored": sums.n_scored,
        "osr": _ratio(sums.n_over, sums.n_search),
        "n_over": sums.n_over,
        "n_search_steps": sums.n_search,
        "usr": _ratio(sums.n_under, sums.n_nonsearch),
        "n_under": sums.n_under,
        "n_nonsearch_steps": sums.n_nonsearch,
        "n_unknown": sums.n_unknown,
        "searches_per_question": _ratio(sums.searches, sums.n_questions),
        "valid_frac": _ratio(sums.n_valid, sums.n_rows),
        "n_valid": sums.n_valid,
    }


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
