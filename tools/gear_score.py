"""gear-score: score sets of hypotheses without labels: do they run, agree with the observations, say more, and differ?

One row in, one row out, in order; the space and the problems are held, rows are not.
Scores: toolroll.abduction.scores. Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.abduction.options import SandboxOptions, problems_option, sandbox_options, space_option, stop_rule_options
from toolroll.abduction.sandbox import SAFETY as SAFETY
from toolroll.cli import GroupedOption, command, declares, offers_table, option_group, uses_seed
from toolroll.errors import UsageError
from toolroll.records import field_types, view
from toolroll.records.abduction import HypothesisSet, ScoredSet

if TYPE_CHECKING:
    from toolroll.abduction.execution import Executor
    from toolroll.abduction.scorer import Scorer
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Score hypotheses about a problem on a sample space:
    gear-space list-function --per-length 20 -o space.jsonl
    printf '{"id": "double", "observations": [[[1, 2], [2, 4]]], "hypotheses": [%s, %s]}\\n' \\
      '{"code": "def f(x):\\n    return [2 * v for v in x]"}' '{"code": "def f(x):\\n    return x + x"}' > said.jsonl
    gear-score --space space.jsonl said.jsonl > scored.jsonl
  Several data sets at once; means in a table, each with the number of problems behind it:
    gear-score --problems PROBLEMS.jsonl --space acre=ACRE.jsonl --space lists=LISTS.jsonl --summary \\
      --table SAID.jsonl
  By the rules of the released code:
    gear-score --problems PROBLEMS.jsonl --space SPACE.jsonl --compat authors --timeout 2 SAID.jsonl
  Where do the valid hypotheses about a problem differ, and how firm are their scores?
    gear-score --space space.jsonl --explain --sensitivity said.jsonl | jq .differences
"""

NOTES = """
A problem has observations, pairs of input and output. A hypothesis is a sentence and a function in Python. The sample
space is a file of inputs, one JSON value a line, whose outputs nobody knows; an input that comes again counts once.

    IF (instruction_following)   1 - P / n         P of n hypotheses cannot be read, or not be run to their end
    C (consistency)              W / (n - P)       W valid ones agree with all observations
    g (generalizability)         mean over valid ones of the share of the space at which they have an output
    gamma                        different predictions (input, output) of valid ones together, over the space
    beta                         mean over pairs of valid ones of the Jaccard distance of their predictions

A reply is parsed if its program has one function object after it was run, and no other. An exception, a result that is
no JSON, and a call that takes longer than --timeout leave the function undefined at that input; null is an output.
A tuple is a list. An output agrees with an observation if both are the same JSON value, so true is not 1, and 1.0 is 1;
two predictions are the same if their JSON texts are, so 1.0 is not 1. A program with --max-timeouts calls that took too
long is given up: its status is `timeout`, and it counts as one that cannot be parsed.

--compat authors follows the released code: its reader of replies; agreement by Python's ==, in the sandbox, so that
True is 1 and a tuple is no list; a program that was given up is undefined where it was not called; hypotheses after the
end of the stop rule are left out; in --summary, gamma and beta are of problems with two valid hypotheses. It does not
rewrite programs before they run, which the released code does and which changes what some of them compute.

The stop rule ends the asking when --max-bad hypotheses were bad, after the third at the earliest. Bad is one that
cannot be parsed, contradicts an observation, looks one up (--exclude-lookup), or predicts something new at less than
--min-new of the space. `stop_after` tells when it would have ended; --truncate leaves out what came after.

--detect-lookup finds literals equal to the input of an observation, compared with ==, != or `in`, as keys of a dict, or
in a `case`. Programs that hide what they do are not found.

A problem's data set is the row's `dataset`, or the problem's; with --space NAME=FILE it chooses the space. Where
problems of one id differ in `n_obs`, the row's `n_obs` tells which is meant. Without --problems each row is its own
problem, with `observations` or `train`.

Programs run one at a time in each of --workers sandboxes, with hash and random seed 0: the scores do not depend on how
many there are. With --summary, rows that fail are written where --on-error keep says so, and means follow at the end.
"""

_ADDED = [name for name in ScoredSet.__struct_fields__ if name not in HypothesisSet.__struct_fields__]


@command(
    "gear-score",
    system="GEAR",
    reads=view(HypothesisSet, "id", "dataset", "n_obs", "hypotheses", required=("hypotheses",)),
    adds=field_types(ScoredSet, *_ADDED),
    key=("id", "n_obs", "sample"),
    slow=True,
    epilog="See gear-stats(1), gear-space(1), gear-observe(1), toolroll-records(5).",
)
@declares(problems_option(GroupedOption), space_option(GroupedOption))
@click.option(
    "--compat",
    type=click.Choice(["paper", "authors"]),
    default="paper",
    show_default=True,
    help="authors: parse, compare and leave out as the released code does. For comparison only.",
)
@click.option("--truncate", is_flag=True, help="Leave out hypotheses after the end of the stop rule.")
@declares(*stop_rule_options(GroupedOption))
@click.option(
    "--dedup",
    type=click.Choice(["none", "behaviour"]),
    default="none",
    show_default=True,
    help="behaviour: of valid hypotheses that do the same on the whole space, score the first alone.",
)
@click.option("--detect-lookup", is_flag=True, help="Tell where a program compares with an observation's input.")
@click.option("--exclude-lookup", is_flag=True, help="Count hypotheses that look observations up as not valid.")
@click.option("--explain", is_flag=True, help="Add `differences`: inputs at which two valid hypotheses differ.")
@click.option(
    "--sensitivity", is_flag=True, help="Add `sensitivity`: scores under other thresholds, and on parts of the space."
)
@click.option(
    "--transfer",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Add `transfer`: do the first 1 to K hypotheses get the problem's `test` pairs right?",
)
@click.option("--summary", is_flag=True, help="Write means over problems instead of the rows.")
@click.option(
    "--missing",
    type=click.Choice(["skip", "zero"]),
    default="skip",
    show_default=True,
    help="--summary: a score that a problem does not have is left out of the mean, or 0.",
)
@offers_table
@uses_seed
@option_group("sandbox", SandboxOptions, sandbox_options(GroupedOption))
def main(
    rows: Rows[Any],
    *,
    sandbox: SandboxOptions,
    log: Log,
    stop: StopFlag,
    summary: bool,
    missing: Any,
    table: bool,
    compat: str,
    **options: Any,
) -> Iterator[Row[Any] | dict[str, Any]]:
    """Score sets of hypotheses without labels: do they run, agree with what was observed, say more, and differ?

    Runs each hypothesis on the observations of its problem and on a sample space, in a sandbox. Adds what came of each
    to the row, and scores of consistency, generalizability and diversity of the set.
    """
    if table and not summary:
        raise UsageError("goes with --summary", place="--table")
    if summary and click.get_current_context().params["resume"]:
        raise UsageError("means cannot be resumed; score rows and use gear-stats", place="--summary")
    scorer = _scorer(sandbox, log, stop, compat, options)
    try:
        if not summary:
            yield from scorer.rows(rows)
            return
        from toolroll.abduction.summary import Tally, for_people

        tally = Tally(missing=missing, paired=compat == "authors")
        for row, dataset, fields in scorer.scored(rows):
            if fields is None:
                yield row
            else:
                tally.add(dataset, fields)
        if not rows.cut:
            yield from (for_people(record) if table else record for record in tally.report())
    finally:
        scorer.close()


def _scorer(sandbox: SandboxOptions, log: Log, stop: StopFlag, compat: str, options: dict[str, Any]) -> Scorer:
    from toolroll.abduction.problems import Problems, Spaces
    from toolroll.abduction.scorer import Scorer
    from toolroll.abduction.stop import StopRule
    from toolroll.abduction.trial import check_python_equality
    from toolroll.abduction.verdict import Rules

    authors = compat == "authors"
    rules = Rules(
        stop=StopRule(max_bad=options["max_bad"], min_new=options["min_new"]),
        truncate=authors or options["truncate"],
        distinct=options["dedup"] == "behaviour",
        lookups=options["detect_lookup"] or options["exclude_lookup"],
        exclude_lookups=options["exclude_lookup"],
        authors=authors,
        top_k=options["transfer"],
    )

    heard: set[str] = set()

    def tell(what: str) -> None:
        if what not in heard:
            heard.add(what)
            log.note(what)

    def open_one() -> Executor:
        executor = sandbox.open(tell)
        if authors:
            check_python_equality(executor)
        return executor

    return Scorer(
        Problems.read(options["problems"], stop),
        Spaces.read(options["space"], log.warn, stop),
        rules,
        open_one,
        workers=sandbox.workers,
        sensitivity=options["sensitivity"],
        explain=options["explain"],
        seed=options["seed"],
    )
