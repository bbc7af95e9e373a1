"""gear-pairs: make preference pairs of hypotheses, for dpo-train.

Holds one problem at a time; with --balance or --max-pairs all of them. Comparison: toolroll.abduction.pairs.
Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.abduction.options import SandboxOptions, problems_option, sandbox_options, space_option
from toolroll.abduction.sandbox import SAFETY as SAFETY
from toolroll.abduction.wording import WordingOptions, wording_options
from toolroll.cli import GroupedOption, command, declares, option_group, uses_seed
from toolroll.errors import UsageError
from toolroll.records import field_types, view
from toolroll.records.abduction import AskedSet, HypothesisPair

if TYPE_CHECKING:
    from toolroll.abduction.pairing import Pairing
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Pairs of hypotheses about a problem:
    gear-space list-function --per-length 20 -o space.jsonl
    printf '{"id": "double", "observations": [[[1, 2], [2, 4]]], "hypotheses": [%s, %s]}\\n' \\
      '{"code": "def f(x):\\n    return [2 * v for v in x]"}' '{"code": "def f(x):\\n    return x"}' > hypotheses.jsonl
    gear-pairs --space space.jsonl hypotheses.jsonl > pairs.jsonl
  Pairs of what a model said about problems, and training on them:
    gear-ask PROBLEMS.jsonl --space SPACE.jsonl | gear-pairs --space SPACE.jsonl > said.jsonl
    dpo-train --policy POLICY --model embedded --beta 0.5 said.jsonl
  Hypotheses of several models about the same problems, pooled; as many pairs of each reason:
    cat MODELS/*.jsonl | jq -sc 'sort_by(.id)[]' |
      gear-pairs --pooled --balance even --max-pairs 3000 --space SPACE.jsonl
  Reasons in the proportions of the momentum curriculum:
    gear-momentum LOSSES.jsonl | tail -n 1 | jq -c .ratios > RATIOS.json
    gear-pairs --space SPACE.jsonl --max-pairs 1280 --balance "$(cat RATIOS.json)" HYPOTHESES.jsonl > epoch.jsonl
"""

NOTES = """
Hypotheses are run here, in the sandbox, on the observations of their problem and on the sample space; scores that rows
have already are not looked at, because a pair needs the outputs at every input, which no row holds.

A context is a set of --contexts valid hypotheses, which the prompt has as earlier replies. All sets are taken, of at
most --most-valid valid hypotheses. All other hypotheses are candidates; without a context all pairs of them are
compared, after one --context-pairs drawn pairs. The first that decides is the reason:

    parsing       one runs to its end, the other does not
    cheating      with --exclude-lookup: one does not look observations up, the other does
    inconsistent  one agrees with all observations, the other does not
    fair          the larger of w_g g + w_n novelty + w_b beta; g the share of the space at which a hypothesis has an
                  output, novelty the share at which it predicts what the context does not, beta the mean Jaccard
                  distance of all pairs of context and candidate, 0 without a context

Two that are both bad at a level make no pair, and two with the same sum (to a billionth) make none. How many there were
of each is told with -v, and is in the manifest.

An answer is the `reply` of a hypothesis, where gear-ask kept it, the string where a hypothesis is one, and else its
text and code as the tuple that is asked for. The prompt is in the words gear-ask uses with the same --followup,
--prompt-file and --system.

--balance keeps numbers of each reason that stand to each other as its weights: the reason that is scarcest for its
weight decides, and one without any pair is left out. --max-pairs is in all. Which pairs are kept depends on --seed and
their ids alone.

dpo-train reads the rows as they are, and so does TRL. The paper trains with --beta 0.5.
"""


@command(
    "gear-pairs",
    system="GEAR",
    reads=view(AskedSet, "id", "sample", "dataset", "n_obs", "hypotheses", required=("hypotheses",)),
    adds=field_types(
        HypothesisPair,
        *("id", "prompt_id", "dataset", "n_obs", "prompt", "chosen", "rejected"),
        *("reason", "context", "pair", "scores"),
    ),
    key=("id",),
    slow=True,
    consumes=True,
    epilog="See gear-ask(1), gear-score(1), gear-momentum(1), dpo-train(1), toolroll-records(5).",
)
@declares(problems_option(GroupedOption), space_option(GroupedOption))
@click.option(
    "--contexts", default="0,1,2", show_default=True, metavar="K,...", help="Sizes of contexts, each 0, 1 or 2."
)
@click.option(
    "--most-valid",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Valid hypotheses of a problem that contexts are made of.",
)
@click.option(
    "--context-pairs",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Pairs that are compared after a context.",
)
@click.option(
    "--weights",
    default="1,1,1",
    show_default=True,
    metavar="G,N,B",
    help="Weights of generalizability, novelty and diversity in the sum.",
)
@click.option(
    "--balance", metavar="REASON=W,...", help="Keep reasons in these proportions; `even` is one share of each."
)
@click.option("--max-pairs", type=click.IntRange(min=1), metavar="N", help="Keep so many pairs.")
@click.option("--pooled", is_flag=True, help="Rows about one problem that stand together are one set of hypotheses.")
@click.option(
    "--exclude-lookup", is_flag=True, help="A hypothesis that looks observations up is worse than one that does not."
)
@click.option(
    "--parser",
    type=click.Choice(["robust", "authors"]),
    default="robust",
    show_default=True,
    help="How hypotheses that are raw replies are read; authors: as the released code does.",
)
@uses_seed
@option_group("wording", WordingOptions, wording_options(GroupedOption))
@option_group("sandbox", SandboxOptions, sandbox_options(GroupedOption))
def main(
    rows: Rows[Any],
    *,
    wording: WordingOptions,
    sandbox: SandboxOptions,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Make preference pairs of hypotheses, for dpo-train.

    Reads problems with hypotheses, as gear-ask and gear-score write them. Writes pairs in TRL's form, each with the
    reason why one is better: it can be run, it explains, it agrees, or it says more and other things.
    """
    pairing = _pairing(wording, sandbox, log, stop, options)
    try:
        yield from pairing.records(rows)
    finally:
        pairing.cases.close()
    counts = {"pairs": dict(pairing.made), "discarded": dict(pairing.discarded)}
    if manifest is not None:
        manifest.notes.update(counts)
    for what, by_reason in counts.items():
        log.info(f"{what}: " + (", ".join(f"{count} {reason}" for reason, count in by_reason.items()) or "none"))


def _pairing(
    wording: WordingOptions, sandbox: SandboxOptions, log: Log, stop: StopFlag, options: dict[str, Any]
) -> Pairing:
    from functools import partial

    from toolroll.abduction.cases import Cases, once
    from toolroll.abduction.pairing import Pairing, read_weights
    from toolroll.abduction.pairs import Plan, Weights
    from toolroll.abduction.problems import Problems, Spaces

    sizes = _numbers("--contexts", options["contexts"], int, 2)
    weights = _numbers("--weights", options["weights"], float, 1e6)
    if len(weights) != 3:
        raise UsageError("expected three numbers with commas between them", place="--weights")
    if len(set(sizes)) < len(sizes):
        raise UsageError("a size comes twice", place="--contexts")
    balance = None if options["balance"] is None else read_weights(options["balance"])
    cases = Cases(
        Problems.read(options["problems"], stop),
        Spaces.read(options["space"], log.warn, stop),
        partial(sandbox.open, once(log.note)),
        workers=sandbox.workers,
        exclude_lookups=options["exclude_lookup"],
    )
    return Pairing(
        cases,
        wording.prompts(),
        Plan(sizes, options["most_valid"], options["context_pairs"], options["seed"]),
        Weights(*weights),
        parser=options["parser"],
        pool=options["pooled"],
        balance=balance,
        most=options["max_pairs"],
    )


def _numbers(place: str, text: str, kind: type, most: float) -> tuple[Any, ...]:
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError("expected numbers with commas between them", place=place) from error
    if not all(0 <= number <= most for number in numbers):
        raise UsageError(f"expected numbers from 0 to {most:g}", place=place)
    return numbers
