"""The means of scores over problems, each with the number of problems behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FIGURES", "Tally", "for_people"]

Missing = Literal["skip", "zero"]

#: The scores that are averaged, in their order.
FIGURES = ("instruction_following", "consistency", "generalizability", "beta_struct", "beta_dist", "gamma_norm")
TOP = "transfer_top_"  #: the figure for the first k hypotheses has this name and k
PAIRED = ("beta_struct", "beta_dist", "gamma_norm")  #: exist together or not at all, in the released tables


class Tally:
    """Adds up scored problems, in memory that grows with the number of data sets only.

    missing: what a score that a problem does not have is: left out of the mean (skip), or 0 (zero). Problems without
    any hypothesis have no scores at all: they are left out, or 0. paired: leave gamma and beta out of problems that do
    not have both, those with one valid hypothesis, as the released tables do; it goes with skip.

    >>> tally = Tally()
    >>> tally.add("a", {"consistency": 1.0, "beta_struct": None, "gamma_norm": 1.0})
    >>> tally.add("a", {"consistency": 0.5, "beta_struct": 0.25, "gamma_norm": 1.5})
    >>> (row, _) = tally.report()
    >>> row["n_problems"], row["gamma_norm"], row["n_gamma_norm"], row["beta_struct"], row["n_beta_struct"]
    (2, 1.25, 2, 0.25, 1)
    """

    def __init__(self, *, missing: Missing = "skip", paired: bool = False) -> None:
        self.missing = missing
        self.paired = paired
        self._sums: dict[str | None, _Sums] = {}

    def add(self, dataset: str | None, scores: Mapping[str, Any]) -> None:
        """Count one problem, by the fields of its scored row; `transfer` too, where it has that."""
        sums = self._sums.setdefault(dataset, _Sums())
        sums.n_problems += 1
        figures = {name: scores.get(name) for name in FIGURES}
        if self.paired and any(figures[name] is None for name in PAIRED):
            figures |= dict.fromkeys(PAIRED)
        for name, value in figures.items():
            if value is not None or self.missing == "zero":
                sums.take(name, value or 0.0)
        for k, passed in enumerate(scores.get("transfer") or (), start=1):
            sums.take(f"{TOP}{k}", float(passed))

    def report(self) -> list[dict[str, Any]]:
        """One row a data set, in order of appearance, then one over all. A mean of nothing is None.

        Each mean `X` stands with `n_X`, the problems it is over.
        """
        together = _Sums()
        for sums in self._sums.values():
            together.add(sums)
        named = [(name, sums) for name, sums in self._sums.items() if name is not None]
        return [_row(name, sums) for name, sums in [*named, ("all", together)]]


@dataclass(slots=True)
class _Sums:
    """What is known of one data set: for each figure its sum and how many problems have it."""

    n_problems: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, name: str, value: float, count: int = 1) -> None:
        self.totals[name] = self.totals.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + count

    def add(self, other: _Sums) -> None:
        self.n_problems += other.n_problems
        for name, total in other.totals.items():
            self.take(name, total, other.counts[name])


def _row(name: str, sums: _Sums) -> dict[str, Any]:
    tops = sorted((key for key in sums.totals if key.startswith(TOP)), key=lambda key: int(key.removeprefix(TOP)))
    row: dict[str, Any] = {"dataset": name, "n_problems": sums.n_problems}
    for figure in (*FIGURES, *tops):
        count = sums.counts.get(figure, 0)
        row[figure] = sums.totals[figure] / count if count else None
        row[f"n_{figure}"] = count
    return row


def for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the report as a row of a table: each mean with the number of problems behind it in brackets."""
    short = {"instruction_following": "IF", "consistency": "C", "generalizability": "g", "gamma_norm": "gamma"}
    told: dict[str, Any] = {"dataset": row["dataset"], "problems": row["n_problems"]}
    for name, value in row.items():
        if f"n_{name}" in row:
            title = short.get(name, name.removeprefix("transfer_"))
            told[title] = "-" if value is None else f"{value:.4f} (n={row[f'n_{name}']})"
    return told
