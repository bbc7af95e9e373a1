"""text-rollout: let a language model answer prompts, and record every token.

Prompts and the one turn of an answer: toolroll.models.answers. Many samples on one engine: toolroll.models.rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import (
    GroupedOption,
    command,
    declares,
    uses_model,
    uses_policy,
    uses_prompt,
    uses_sampling,
    uses_seed,
)
from toolroll.errors import UsageError
from toolroll.models.options import ModelOptions, PolicyOptions, PromptOptions, SamplingOptions
from toolroll.models.single_options import length_option, prefill_option, stop_option
from toolroll.records import field_types, view
from toolroll.records.rollouts import Prompt, Trajectory

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.models.rollouts import Sample
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Two short answers of the embedded model:
    echo '{"id": "sky", "prompt": "Why is the sky blue?"}' | text-rollout --samples 2 --response-tokens 8
  Prompts made from the fields of rows, answers that begin as they should:
    text-rollout PUZZLES.jsonl --prompt-file PROMPT.txt --prefill 'Answer:' --stop '</answer>'
  In a training loop, with the newest version of the policy:
    text-rollout --policy POLICY --follow --samples 8 < PROMPTS
"""

NOTES = """
In a prompt file, {name} stands for the row's field of that name: a string as it is, anything else as JSON. {{ and }}
stand for braces. Without a prompt file a row's `messages` are the prompt, or else its `prompt`, and the `prompt` that
is written is the whole text the model was given, with the chat template.

The text of --prefill is the beginning of `response`, with mask 0 and log-probability 0, as it is not the model's. It is
turned into tokens apart from the prompt.

finish is eos when the model ended its answer (that token is the last of `response_ids`, and not in `response`), stop at
a string of --stop, which is part of the response, and token_limit at --response-tokens or --max-tokens. A prompt that
leaves no room for an answer is an error, not an empty answer.

log-probabilities are the policy's own at the sampling temperature, before top-p and top-k cut anything away.

An id and a sample determine an answer's seed, so order, batches, shards and resuming change no draw; where a row has
`draw`, as ucb-sample gives it, that counts too, and a prompt drawn again is answered anew.
"""


@command(
    "text-rollout",
    system="Training",
    reads=view(Prompt, "id", "prompt", "messages", "draw"),
    adds=field_types(
        Trajectory,
        *("sample", "prompt_id", "model", "policy_version", "seed", "prompt", "response", "finish"),
        *("prompt_ids", "response_ids", "loss_mask", "logprobs"),
    ),
    slow=True,
    expands=True,
    epilog="See rag-rollout(1), group-advantage(1), policy-train(1), toolroll-records(5).",
)
@uses_prompt
@declares(prefill_option(GroupedOption))
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a prompt.")
@declares(length_option(GroupedOption, 512, ", without the text of --prefill"))
@declares(stop_option(GroupedOption))
@uses_seed
@uses_sampling
@uses_policy
@uses_model
def main(
    rows: Rows[Any],
    *,
    model: ModelOptions,
    policy: PolicyOptions,
    sampling: SamplingOptions,
    asking: PromptOptions,
    prefill: str,
    samples: int,
    response_tokens: int,
    stops: tuple[str, ...],
    seed: int,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
) -> Iterator[Row[Any]]:
    """Let a language model answer prompts, and record every token.

    Reads rows with `prompt` (text) or `messages`, or any rows with `--prompt-file`. Writes `--samples` rows for each:
    the answer, and, for training, token ids, who wrote each and its log-probability as sampled. A prompt the model
    fails at is an error row that keeps what was made so far.
    """
    from toolroll.models.answers import Answer
    from toolroll.models.rollouts import Rollouts, Sample

    if not all(stops):
        raise UsageError("an empty text would end every answer", place="--stop")
    with Rollouts(model, policy, samples=samples, seed=seed, log=log, stop=stop) as rollouts:
        engine = rollouts.engine
        prompter = asking.prompter(rollouts.chat)

        def begin(row: Row[Any], _sample: int, own_seed: int) -> Sample:
            draw = replace(sampling.sampling(seed=own_seed, max_tokens=response_tokens), stop=stops)
            answer = Answer(engine.codec, draw, prefill=prefill, context=engine.max_context)
            return Sample(answer.episode(prompter(row)), answer.fields)

        if manifest is not None:
            manifest.notes["model"] = rollouts.model
        yield from rollouts.run(rows, begin)
