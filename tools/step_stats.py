"""step-stats: answers, over- and under-searching, searches, format and reward of many trajectories, in one table.

Formulas: toolroll.rag.metrics. Paper: arXiv:2510.07794, section 3.2, equation 2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command, offers_table
from toolroll.errors import RowError
from toolroll.records import Id, view
from toolroll.records.rag import Reward, Scored, Step

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

EXAMPLES = """
  A table of scored rollouts, a row a data set and one over all:
    echo '{"id": "q1", "response": "<think></think><answer>Paris</answer>", "golden_answers": ["Paris"]}' |
      step-reward --reward search-r1 > scored.jsonl
    step-stats --table scored.jsonl
  Over- and under-search rates need verdicts about all trajectories:
    step-reward PARSED.jsonl --retriever bm25:INDEX --judge-all | step-stats | jq -c '[.data_source, .osr, .usr]'
"""

NOTES = """
cem: share of right answers under --match, averaged over the samples of a question, then over questions. osr, usr:
judged search steps that were not needed, judged steps without a search that do not hold, pooled over all steps of
trajectories of valid format; steps that are `unknown` or were not judged are in n_unknown only. searches_per_question:
mean over questions. valid_frac: trajectories of valid format; the paper decides it by `step-parse --strictness regex`.
mean_reward: over trajectories. A mean of nothing is null, and each mean stands with the counts it was made from.

Without `step-reward --judge-all` the rates are those of trajectories with a right answer. The samples of a question
must follow one another, as rag-rollout writes them, to be counted as one question.
"""

_STEP = view(Step, "kind", "verdict")
_REWARD = view(Reward, "total", "A", "F")
_READS = msgspec.defstruct(
    "Scored",
    [
        ("id", Id | None, None),
        ("steps", list[_STEP]),  # type: ignore[valid-type]
        ("n_search", int | None, None),
        ("reward", _REWARD | None, None),
    ],
    bases=(view(Scored, "prompt_id", "data_source", "golden_answers", "answer", "format_valid"),),
    kw_only=True,
    frozen=True,
    gc=False,
)


@command("step-stats", system="HiPRAG", reads=_READS, reducer=True, epilog="See step-reward(1), toolroll-records(5).")
@click.option(
    "--match",
    type=click.Choice(["reward", "cem", "cem-word", "em", "f1"]),
    default="cem",
    show_default=True,
    help="What `cem` is the mean of: one of step-reward's rules, or reward: what step-reward found (its A).",
)
@offers_table
def main(rows: Rows[Any], *, match: str, table: bool) -> Iterator[dict[str, Any]]:
    """Sum up trajectories: right answers, over- and under-searching, searches, format, reward.

    Reads what step-parse and step-reward write; prints a row for each `data_source` and one for `all`.
    """
    from toolroll.checking.match import RULES
    from toolroll.rag.metrics import Tally

    tally = Tally()
    totals: dict[str | None, float] = defaultdict(float)
    counts: Counter[str | None] = Counter()

    def score(row: Any) -> float | None:
        if isinstance(row.answer, list):
            raise RowError("`answer` is a list in a parsed row: it should be what the model answered")
        if match == "reward":
            return None if row.reward is None else row.reward.A
        return float(RULES[match](row.answer, row.golden_answers)) if row.golden_answers else None

    for row in rows:
        seen = row.view
        try:
            tally.add(
                question_id=seen.prompt_id if seen.prompt_id is not None else seen.id,
                data_source=seen.data_source,
                score=score(seen),
                format_valid=_is_valid(seen),
                verdicts=[(step.kind, step.verdict or "unknown") for step in seen.steps],
                n_search=seen.n_search,
            )
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        if seen.reward is not None:
            totals[seen.data_source] += seen.reward.total
            counts[seen.data_source] += 1
    for record in tally.report():
        source = record["data_source"]
        total, count = (totals[source], counts[source]) if source is not None else _overall(totals, counts)
        record = {
            **record,
            "data_source": "all" if source is None else source,
            "mean_reward": total / count if count else None,
            "n_rewarded": count,
        }
        yield _for_people(record) if table else record


def _for_people(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row of the table: each figure with what it was made from in brackets."""

    def told(name: str, made_from: str) -> str:
        return "-" if record[name] is None else f"{record[name]:.3f} ({made_from})"

    return {
        "data_source": record["data_source"],
        "questions": record["n_questions"],
        "cem": told("cem", f"n={record['n_scored']}"),
        "osr": told("osr", f"{record['n_over']}/{record['n_search_steps']}"),
        "usr": told("usr", f"{record['n_under']}/{record['n_nonsearch_steps']}"),
        "unknown": record["n_unknown"],
        "searches": told("searches_per_question", f"n={record['n_questions']}"),
        "valid": told("valid_frac", f"{record['n_valid']}/{record['n_rows']}"),
        "reward": told("mean_reward", f"n={record['n_rewarded']}"),
    }


def _is_valid(row: Any) -> bool:
    if row.format_valid is not None:
        return bool(row.format_valid)
    if row.reward is None:
        raise RowError("no format_valid (step-parse) and no reward (step-reward)")
    return bool(row.reward.F)


def _overall(totals: dict[str | None, float], counts: Counter[str | None]) -> tuple[float, int]:
    return sum(totals.values()), counts.total()
