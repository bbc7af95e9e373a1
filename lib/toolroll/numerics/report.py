"""What `toolroll.numerics.runs` gathered, as rows of `records.ReproStats` and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from toolroll.numerics import divergence
from toolroll.numerics.divergence import Gaps, mean
from toolroll.numerics.runs import Costs, Group, Key, Problem, Runs

__all__ = ["LEVELS", "filled", "for_people", "gaps_at_divergence", "lengths_of", "rows_of_report"]

LEVELS = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1)  #: the quantiles that are told


def rows_of_report(runs: Runs, *, ddof: int = 1) -> Iterator[dict[str, Any]]:
    """A row for each group, in the order in which they came; one of an empty group where there is none.

    ddof is that of Avg_Std@top1_prob.
    """
    for group in runs.groups or [Group(dict.fromkeys(runs.by))]:
        problems = dict(group.complete())
        compared = len(group.configs) > 1
        yield {
            "group": group.shared,
            "n_configs": len(group.configs),
            "n_problems": len({name for name, _ in problems}),
            "n_left_out": len(group.left_out()),
            **_right(group, problems),
            "mean_output_length": _mean_length(problems.values()),
            "avg_std_output_length": divergence.avg_std_output_length(list(lengths_of(problems.values()))),
            **_divergence(problems.values() if compared else (), ddof),
            "gap_quantiles": _quantiles(group.gaps),
            "div_gap_quantiles": _quantiles(gaps_at_divergence(problems.values())),
            **reduce(Costs.together, group.costs, Costs()).report(),
            "runs": list(_configs(runs, group, problems)),
        }


def _right(group: Group, problems: Mapping[Key, Problem]) -> dict[str, Any]:
    """How many answers are right: over the problems for which that is known of every answer."""
    scores = [_scores(problems, number) for number in range(len(group.configs))]
    accuracies = [rate for rate in map(divergence.pass_at_1, scores) if rate is not None]
    return {
        "mean_accuracy": mean(accuracies),
        "std_acc": divergence.std_acc(accuracies),
        "n_scored": len(scores[0]) if scores else 0,
        "pass_at_k": _pass_at(scores),
    }


def _scores(problems: Mapping[Key, Problem], number: int) -> list[list[int]]:
    """For each problem the scores of the samples that are scored under every configuration, here under one."""
    found: dict[str | int, list[int]] = {}
    for (name, _), problem in problems.items():
        if all(answer.correct is not None for answer in problem.answers.values()):
            found.setdefault(name, []).append(problem.answers[number].correct or 0)
    return list(found.values())


def _pass_at(scores: list[list[list[int]]]) -> dict[str, float | None] | None:
    """Pass@k for powers of two up to the number of samples, and for that, where there are several."""
    n = min((len(samples) for config in scores for samples in config), default=0)
    if n < 2:
        return None
    samples = [(len(one), sum(one)) for config in scores for one in config]
    ks = sorted({n, *(2**i for i in range(n.bit_length()))})
    return {str(k): mean([divergence.pass_at_k(drawn, right, k) for drawn, right in samples]) for k in ks}


def lengths_of(problems: Iterable[Problem]) -> Iterator[list[int]]:
    """The lengths of the answers to each problem, where all are known."""
    for problem in problems:
        lengths = [answer.n_tokens for answer in problem.answers.values() if answer.n_tokens is not None]
        if len(lengths) == len(problem.answers):
            yield lengths


def _mean_length(problems: Iterable[Problem]) -> float | None:
    return mean([length for lengths in lengths_of(problems) for length in lengths])


def _divergence(problems: Iterable[Problem], ddof: int) -> dict[str, Any]:
    """The metrics of tokens and of probabilities, over the problems of which they are known."""
    compared = [problem for problem in problems if problem.comparable]
    indices = [problem.div_index for problem in compared]
    stds = [
        divergence.position_stds([row[: problem.shared] for row in rows], ddof=ddof)
        for problem in compared
        if (rows := [answer.top1 for answer in problem.answers.values() if answer.top1 is not None])
        and len(rows) == len(problem.answers)
    ]
    return {
        "avg_div_index": divergence.avg_div_index(indices),
        "div_percent": divergence.div_percent(indices),
        "n_diverged": sum(problem.diverges for problem in compared) if compared else None,
        "avg_std_top1_prob": divergence.avg_std_top1_prob(stds),
        "avg_std_top1_prob_micro": divergence.avg_std_top1_prob(stds, micro=True),
        "n_no_prefix": sum(not len(row) for row in stds) if stds else None,
    }


def gaps_at_divergence(problems: Iterable[Problem]) -> Gaps:
    """For each problem that diverges the gap at Div_Index, mean over the answers that have a token there."""
    found = Gaps()
    for problem in problems:
        at = problem.div_index
        if problem.comparable and problem.diverges:
            rows = [answer.gaps for answer in problem.answers.values() if answer.gaps is not None]
            gap = mean([float(row[at]) for row in rows if len(row) > at])
            found.add(np.array([] if gap is None else [gap], dtype=np.float64))
    return found


def _quantiles(gaps: Gaps) -> dict[str, float] | None:
    return dict(zip(map(str, LEVELS), gaps.quantiles(LEVELS), strict=True)) if len(gaps) else None


def _configs(runs: Runs, group: Group, problems: Mapping[Key, Problem]) -> Iterator[dict[str, Any]]:
    """A row of `records.ConfigStats` for each configuration."""
    names = runs.names(group)
    for config, number in group.configs.items():
        lengths = [problem.answers[number].n_tokens for problem in problems.values()]
        yield {
            "config": names[config],
            "n_rows": group.costs[number].n_rows,
            "accuracy": divergence.pass_at_1(_scores(problems, number)),
            "mean_output_length": mean([length for length in lengths if length is not None]),
            **group.costs[number].report(),
        }


def for_people(report: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The report as the rows of a table, in the units of the paper's tables; columns with no number are left out."""
    return filled([_for_people(row) for row in report])


def filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table without the columns that are empty in all of them.

    >>> filled([{"a": 1, "b": None, "c": None}, {"a": 2, "b": 3, "c": None}])
    [{'a': 1, 'b': None}, {'a': 2, 'b': 3}]
    """
    return [{name: value for name, value in row.items() if any(one[name] is not None for one in rows)} for row in rows]


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    quantiles = row["gap_quantiles"] or {}
    told: dict[str, Any] = {name: "-" if value is None else value for name, value in row["group"].items()}
    return told | {
        "configs": row["n_configs"],
        "problems": row["n_problems"],
        "acc %": _text(row["mean_accuracy"], ".2f", 100),
        "Std@Acc %": _text(row["std_acc"], ".2f", 100),
        "length": _text(row["mean_output_length"], ".1f"),
        "Avg_Std@Length": _text(row["avg_std_output_length"], ".2f"),
        "Div_Index": _text(row["avg_div_index"], ".2f"),
        "Div %": _text(row["div_percent"], ".1f"),
        "Avg_Std@top1 e-4": _text(row["avg_std_top1_prob"], ".4g", 1e4),
        "gap 5 %": _text(quantiles.get("0.05"), ".4f"),
        "gap at Div": _text((row["div_gap_quantiles"] or {}).get("0.5"), ".4f"),
        "tok/s": _text(row["tokens_per_s"], ".0f"),
        "weights MB": _text(row["weight_bytes"], ".1f", 1e-6),
        "KV MB": _text(row["mean_kv_bytes"], ".2f", 1e-6),
        "peak MB": _text(row["peak_rss_bytes"], ".0f", 1e-6),
    }


def _text(value: float | None, form: str, factor: float = 1) -> Any:
    """A number for the table; None, which it shows as `-`, stays."""
    return None if value is None else format(value * factor, form)
