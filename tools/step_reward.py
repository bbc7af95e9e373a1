"""step-reward: score trajectories by their answer, their format and their steps.

Rewards: toolroll.rag.reward. Judges of steps: toolroll.rag.judges. Paper: arXiv:2510.07794, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command, uses_model, uses_sampling, uses_seed
from toolroll.models.options import ModelOptions, SamplingOptions
from toolroll.records import Id, view
from toolroll.records.rag import FormatProblem, Parsed, Reward, Step
from toolroll.records.rollouts import Turn

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Outcome and format alone, as Search-R1 pays:
    echo '{"id": "q1", "response": "<think></think><answer>Paris</answer>", "golden_answers": ["Paris"]}' |
      step-reward --reward search-r1
  Rewards without any model; steps without a search are looked up in an index:
    step-parse ROLLOUTS.jsonl | step-reward --retriever bm25:INDEX > scored.jsonl
  The judges of the paper, behind a server; refuse to go on when a tenth of the verdicts is missing:
    step-reward PARSED.jsonl --judge openai --base-url http://127.0.0.1:8000/v1 --judge-cache verdicts.db \\
      --max-unknown 0.1
  Record verdicts, correct them by hand, score again:
    step-reward PARSED.jsonl --retriever bm25:INDEX --judge-all --save-verdicts verdicts.jsonl > first.jsonl
    step-reward PARSED.jsonl --judge replay --judge-all --replay VERDICTS.jsonl > second.jsonl
"""

NOTES = """
The reward of HiPRAG is A (1 - f) + f F + p A F Ncorr / N: A is 1 for a right answer, F for a valid format, Ncorr of N
steps are optimal, f is --format-weight and p is --process-weight. So steps are paid only on top of a right, well-formed
answer, and only such trajectories are judged; --judge-all judges the others too, which step-stats needs for OSR and
USR. A row that is not judged has no verdicts and `none` as its judge.

Judges. lexical (over) and evidence (under), the default, need no model and are proxies for the language models of the
paper: they compare words, do not understand negation, and have no measured accuracy on your data. lm and openai ask a
language model (the embedded one is too small to judge anything); nli a cross-encoder; replay a file; given takes the
verdicts in the rows. Whatever a judge cannot decide, and any failure of it, is `unknown` and never optimal. Each
`verdict_why` begins with the judge's name.

Over-search compares a step's conclusion with what the policy answers to the query alone. That answer stands in the row
after `rag-rollout --closed-book`, or is asked for here with --reanswer, and is valid for the weights that gave it only.
"""

_STEP = view(Step, "kind", "reasoning", "query", "conclusion", "verdict")
_TURN = view(Turn, "query", "closed_book")
_READS = msgspec.defstruct(
    "Parsed",
    [
        ("id", Id | None, None),
        ("steps", list[_STEP] | None, None),  # type: ignore[valid-type]
        ("turns", list[_TURN] | None, None),  # type: ignore[valid-type]
        ("answer", str | list[str] | msgspec.UnsetType | None, msgspec.UNSET),
        ("response", str | None, None),
    ],
    bases=(view(Parsed, "sample", "golden_answers", "answers", "reward_model", "format_valid", "finish", "dialect"),),
    kw_only=True,
    frozen=True,
    gc=False,
)


@command(
    "step-reward",
    system="HiPRAG",
    reads=_READS,
    adds={
        "golden_answers": list[str],
        "steps": list[Step],
        "answer": str | None,
        "format_valid": bool,
        "format_strictness": str,
        "format_problems": list[FormatProblem],
        "reward": Reward,
    },
    epilog="See toolroll-records(5), step-parse(1), step-stats(1).",
)
@click.option(
    "--judge",
    default="lexical,evidence",
    show_default=True,
    metavar="NAME|OVER,UNDER",
    help="Who judges search steps (over) and steps without a search (under): lexical (over), evidence (under), lm, "
    "openai, nli, replay, given.",
)
@click.option("--judge-all", is_flag=True, help="Judge trajectories whose steps are not paid too, for step-stats.")
@click.option(
    "--reward",
    type=click.Choice(["hiprag", "search-r1", "beta-grpo", "r1-searcher-f1"]),
    default="hiprag",
    show_default=True,
    help="hiprag: answer, format and steps; search-r1: answer and format; beta-grpo: answer, if every query was "
    "written with confidence; r1-searcher-f1: F1 of the answer, less 2 for a format fault.",
)
@click.option(
    "--process-weight",
    type=click.FloatRange(min=0),
    default=0.4,
    show_default=True,
    help="Weight of the share of optimal steps.",
)
@click.option(
    "--format-weight",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Weight of a well-formed trajectory; the rest is for a right answer.",
)
@click.option(
    "--compat",
    type=click.Choice(["paper", "release"]),
    default="paper",
    show_default=True,
    help="release: divide optimal steps by searches alone, as the released code does. For comparison only.",
)
@click.option(
    "--ablation",
    type=click.Choice(["none", "over-only", "under-only"]),
    default="none",
    show_default=True,
    help="Count every step of the other kind as optimal.",
)
@click.option(
    "--match",
    type=click.Choice(["cem", "cem-word", "em", "f1"]),
    default="cem",
    show_default=True,
    help="What makes an answer right. cem: it contains an accepted one; cem-word: as whole words; em: it is one; "
    "f1: their words overlap by --f1-threshold.",
)
@click.option(
    "--f1-threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.66,
    show_default=True,
    help="With --match f1: least F1 of a right answer.",
)
@click.option("--min-prob", type=click.FloatRange(0, 1), help="beta-grpo: least probability of a token of a query.")
@click.option(
    "--on-unknown",
    type=click.Choice(["optimal", "suboptimal", "skip", "fail"]),
    default="skip",
    show_default=True,
    help="A step without a verdict: count it so, leave it out, or fail the row. The released code: optimal.",
)
@click.option(
    "--max-unknown",
    type=click.FloatRange(0, 1),
    metavar="FRACTION",
    help="Fail at the end if a larger share of the judged steps has no verdict.",
)
@click.option(
    "--retriever",
    metavar="SPEC",
    help="evidence, nli: where passages come from, as for rag-rollout: bm25:DIR, dense:DIR, http:URL, replay:FILE ...",
)
@click.option(
    "--tau",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="evidence: least share of a conclusion's words and numbers that must stand in one passage.",
)
@click.option(
    "--passages",
    "topk",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="evidence, nli: passages a search.",
)
@click.option(
    "--min-mass",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="lm: least probability of True and False together; below it there is no verdict.",
)
@click.option(
    "--judge-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="openai: longest reply, in tokens.",
)
@click.option(
    "--nli-model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="nli: folder of a sequence classifier with labels for entailment and contradiction.",
)
@click.option("--replay", type=click.Path(path_type=Path), metavar="FILE", help="replay: verdicts, as --save-verdicts.")
@click.option(
    "--save-verdicts", type=click.Path(path_type=Path), metavar="FILE", help="Append every verdict with its texts here."
)
@click.option(
    "--judge-cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep verdicts, searches and re-answers here.",
)
@click.option("--reanswer", is_flag=True, help="Ask --policy each query without passages now, instead of the row.")
@click.option(
    "--policy", metavar="MODEL", help="--reanswer: the model that wrote the rollouts, or its policy directory."
)
@click.option(
    "--closed-book-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="With --reanswer: longest such answer, in tokens.",
)
@uses_seed
@uses_sampling
@uses_model
def main(
    rows: Rows[Any], *, model: ModelOptions, sampling: SamplingOptions, log: Log, **options: Any
) -> Iterator[Row[Any]]:
    """Score trajectories by their answer, their format and their steps.

    Adds `reward` with its parts, and to each judged step a `verdict` and what it rests on. Reads what step-parse
    writes; a row with a `response` alone is parsed here, under step-parse's strictness `paper`. A row without accepted
    answers is an error, never a zero.

    The default judges run on any CPU and are proxies for the language models of the paper. Each verdict names its
    judge; what a judge cannot decide, and any failure of it, is `unknown`, never optimal.
    """
    from toolroll.rag.scoring import Scorer
    from toolroll.rag.scoring_setup import open_panel, open_scheme

    scheme = open_scheme(options, model)
    panel = open_panel(options, scheme, model, sampling, log)
    scorer = Scorer(scheme, panel, judge_all=options["judge_all"])
    try:
        yield from scorer.rows(rows)
    finally:
        if panel is not None:
            panel.close()
    scorer.check_unknown(options["max_unknown"])
