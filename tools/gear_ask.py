"""gear-ask: have a language model state hypotheses about problems, one after the other, each unlike those before it.

One conversation: toolroll.abduction.asking; its words: toolroll.abduction.prompts; its end: toolroll.abduction.stop.
Paper: arXiv:2509.24096.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import click
from msgspec import Meta

from toolroll.abduction.options import SandboxOptions, sandbox_options, space_option, stop_rule_options
from toolroll.abduction.sandbox import SAFETY as SAFETY
from toolroll.abduction.wording import WordingOptions, wording_options
from toolroll.cli import (
    GroupedOption,
    command,
    declares,
    option_group,
    uses_model,
    uses_policy,
    uses_sampling,
    uses_seed,
)
from toolroll.errors import UsageError
from toolroll.models.options import ModelOptions, PolicyOptions, SamplingOptions
from toolroll.models.single_options import prefill_option, stop_option
from toolroll.records import field_types, view
from toolroll.records.abduction import AskedHypothesis, AskedSet

if TYPE_CHECKING:
    from toolroll.abduction.asking import Manner
    from toolroll.abduction.cases import Cases
    from toolroll.abduction.prompts import Prompts
    from toolroll.io.rows import Row
    from toolroll.models.rollouts import Rollouts, Sample
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  A hypothesis of the embedded model about a problem, whose reply begins as it should:
    gear-space list-function --per-length 20 -o space.jsonl
    echo '{"id": "double", "observations": [[[1, 2], [2, 4]]]}' > problems.jsonl
    gear-ask problems.jsonl --space space.jsonl --prefill '("' --reply-tokens 24 --max-bad 1 -o asked.jsonl
  Hypotheses of a better one, and their scores:
    gear-ask PROBLEMS.jsonl --space SPACE.jsonl --model NAME -o hypotheses.jsonl
    gear-score --space SPACE.jsonl hypotheses.jsonl > scored.jsonl
  From a server, five runs of three hypotheses a problem:
    gear-ask PROBLEMS.jsonl --space SPACE.jsonl --base-url http://127.0.0.1:8000/v1 --model NAME --tokenizer NAME \\
      --max-hypotheses 3 --samples 5 > hypotheses.jsonl
"""

NOTES = """
A row is a problem: `id`, and `observations` or `train`, pairs of input and output. The first message states the form of
a reply (a sentence and a Python function, as a tuple of two strings) and the observations. Each reply is read and run,
in the sandbox, on the observations and on the sample space; then the model is asked for another one, on another
principle. The whole conversation stays before it.

    --followup full         how many there are so far, the observations again, the demand for another principle
    --followup short        the demand alone
    --followup super-short  one word; the first message says that more will be asked for

Asking ends (`stop`) when --max-bad hypotheses were bad, all told, after the third at the earliest; at --max-hypotheses;
or when there is no room for another message (token_limit). Bad is one that cannot be run, contradicts an observation,
looks one up (--exclude-lookup), or predicts something new at less than --min-new of the space. gear-score finds the
same `stop_after`. The released code means to ask for 25 at most, and asks for 26.

--parser authors reads replies as the released code does; what it takes for code is then what gear-score runs. The words
are toolroll's own, and stand in one message where the released code has two, because many chat templates refuse two
messages of one role in a row; its sampling is --top-p 0.9 with the model's temperature, and 4,096 tokens a reply.

In --prompt-file, {observations} and {name} for any field of the row are filled in. The text of --prefill begins every
reply and is part of it, but not the model's. With --raw-prompt, and for a server without --tokenizer, the conversation
is its messages as text, with empty lines between them.

`response` is the conversation behind `prompt`, replies and messages; `loss_mask` is 1 where the model wrote, and
`span` of a hypothesis says where its own tokens are. What the model wrote is never tokenized again; a chat template
must have replies in it as they are. A row that fails on the way keeps the hypotheses so far.

An id and a sample determine a conversation's seed (and `n_obs` its draws, where there is one), so order, batches,
shards and resuming change no draw.
"""

Hypotheses = Annotated[list[AskedHypothesis], Meta(description="The hypotheses, in the order in which they were made.")]


@command(
    "gear-ask",
    system="GEAR",
    reads=view(AskedSet, "id", "dataset", "n_obs", "observations", "train", "draw"),
    adds={
        **field_types(AskedSet, "sample", "prompt_id", "model", "policy_version", "seed"),
        "hypotheses": Hypotheses,
        **field_types(AskedSet, "stop", "followup", "parser", "prompt", "response"),
        **field_types(AskedSet, "prompt_ids", "response_ids", "loss_mask", "logprobs"),
    },
    slow=True,
    expands=True,
    epilog="See gear-observe(1), gear-space(1), gear-score(1), gear-pairs(1), toolroll-records(5).",
)
@declares(space_option(GroupedOption))
@click.option(
    "--max-hypotheses", type=click.IntRange(min=1), default=26, show_default=True, help="Most hypotheses a problem."
)
@declares(*stop_rule_options(GroupedOption))
@click.option("--exclude-lookup", is_flag=True, help="A hypothesis that looks observations up is bad.")
@click.option(
    "--parser",
    type=click.Choice(["robust", "authors"]),
    default="robust",
    show_default=True,
    help="How replies are read; authors: as the released code does.",
)
@click.option("--raw-prompt", is_flag=True, help="Do not use the model's chat template.")
@declares(prefill_option(GroupedOption))
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Conversations a problem.")
@click.option(
    "--reply-tokens",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Longest reply, in tokens, without the text of --prefill.",
)
@declares(stop_option(GroupedOption))
@uses_seed
@option_group("wording", WordingOptions, wording_options(GroupedOption))
@option_group("sandbox", SandboxOptions, sandbox_options(GroupedOption, "--call-timeout"))
@uses_sampling
@uses_policy
@uses_model
def main(
    rows: Rows[Any],
    *,
    model: ModelOptions,
    policy: PolicyOptions,
    sampling: SamplingOptions,
    wording: WordingOptions,
    sandbox: SandboxOptions,
    samples: int,
    stops: tuple[str, ...],
    seed: int,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
    **options: Any,
) -> Iterator[Row[Any]]:
    """Have a language model state hypotheses about problems, one after the other, each unlike those before it.

    Reads problems; writes `--samples` rows for each: the hypotheses with what came of each, why the asking ended, and,
    for training, token ids, who wrote each and its log-probability as sampled. Many conversations run in one batch;
    what the model has read of one it does not read again.
    """
    from toolroll.abduction.asking import Asking, try_all
    from toolroll.models.rollouts import Rollouts, Sample
    from toolroll.run.seeds import record_seed

    if options["raw_prompt"] and wording.system is not None:
        raise UsageError("a system message needs the chat template: drop --raw-prompt", place="--system")
    if not all(stops):
        raise UsageError("an empty text would end every reply", place="--stop")
    prompts = wording.prompts()
    cases = _cases(sandbox, log, stop, options)
    try:
        with Rollouts(model, policy, samples=samples, seed=seed, log=log, stop=stop) as rollouts:
            manner = _manner(rollouts, prompts, options)

            def begin(row: Row[Any], _sample: int, own_seed: int) -> Sample:
                n_obs = row.view.n_obs
                drawn = own_seed if n_obs is None else record_seed(own_seed, "n_obs", n_obs)
                draw = replace(sampling.sampling(seed=drawn), stop=stops)
                fields = row.fields() if manner.prompts.template is not None else {}
                asking = Asking(manner, cases.case(row.raw, row.view), fields, draw)
                return Sample(asking.episode(), asking.fields, {"parser": options["parser"]})

            if manifest is not None:
                manifest.notes["model"] = rollouts.model
            yield from rollouts.run(rows, begin, calls=try_all)
    finally:
        cases.close()


def _cases(sandbox: SandboxOptions, log: Log, stop: StopFlag, options: dict[str, Any]) -> Cases:
    from functools import partial

    from toolroll.abduction.cases import Cases, once
    from toolroll.abduction.problems import Spaces

    return Cases(
        None,
        Spaces.read(options["space"], log.warn, stop),
        partial(sandbox.open, once(log.note)),
        workers=sandbox.workers,
        exclude_lookups=options["exclude_lookup"],
    )


def _manner(rollouts: Rollouts, prompts: Prompts, options: dict[str, Any]) -> Manner:
    from toolroll.abduction.asking import Manner
    from toolroll.abduction.cases import PARSERS
    from toolroll.abduction.prompts import as_text
    from toolroll.abduction.stop import StopRule

    return Manner(
        prompts,
        StopRule(options["max_bad"], options["min_new"], most=options["max_hypotheses"]),
        PARSERS[options["parser"]],
        as_text if options["raw_prompt"] else rollouts.chat,
        rollouts.engine.codec,
        prefill=options["prefill"],
        reply_tokens=options["reply_tokens"],
        context=rollouts.engine.max_context,
    )
