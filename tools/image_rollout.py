"""image-rollout: let an image-text model answer prompts about images, and record every token.

Many samples on one engine: toolroll.models.picture_rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import (
    GroupedOption,
    command,
    declares,
    uses_images,
    uses_model,
    uses_policy,
    uses_prompt,
    uses_sampling,
    uses_seed,
)
from toolroll.errors import UsageError
from toolroll.models.options import ModelOptions, PolicyOptions, PromptOptions, SamplingOptions
from toolroll.models.single_options import length_option, stop_option
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.rollouts import ImagePrompt, Trajectory

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.models.base import Sampling
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  How many answers of the embedded model are right, the likeliest ones:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl | image-rollout --temperature 0 | answer-check --kind exact |
      jq -s 'map(.correct) | add / length'
  Four answers to each question:
    image-rollout QUESTIONS.jsonl --samples 4 -o answers.jsonl
  Eight answers to each question, by the newest version of a policy, to train it on:
    pair-quiz PAIRS.jsonl | image-rollout --policy POLICY --samples 8 | answer-check --kind exact |
      group-advantage --reward-field correct --group-size 8 | policy-train --policy POLICY > steps.jsonl
  Captions of your own pictures:
    printf '{"id": "%s", "images": ["%s"], "prompt": "Describe the picture."}\\n' a ONE.jpg b TWO.jpg | image-rollout
"""

NOTES = """
A row has `prompt` or `messages`, as for text-rollout, and paths in `images`, relative to the folder of the row's file
or to --images. The images go before the user's first message. A row without images is a prompt in text. Prompts that
the model does not take, and images that are missing or damaged, are error rows.

finish is eos when the model ended its answer (that token is the last of `response_ids`, and not in `response`), stop at
a string of --stop, which is part of the response, and token_limit at --response-tokens or --max-tokens. `prompt` and
`prompt_ids` of a prompt with images are known where the model runs in this process, and policy-train needs them.

log-probabilities are the policy's own at the sampling temperature, before top-p and top-k cut anything away.

An id and a sample, and `draw` where a row has it, determine an answer's seed, so order, shards and resuming change no
draw.
"""


@command(
    "image-rollout",
    system="Training",
    reads=view(ImagePrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "draw"),
    adds={
        **field_types(Trajectory, "sample", "prompt_id", "model", "policy_version", "seed"),
        **field_types(ImagePrompt, "prompt"),
        **field_types(Trajectory, "response", "finish", "prompt_ids", "response_ids", "loss_mask", "logprobs"),
    },
    slow=True,
    expands=True,
    epilog="See pair-quiz(1), text-rollout(1), group-advantage(1), policy-train(1), toolroll-records(5).",
)
@uses_prompt
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a prompt.")
@declares(length_option(GroupedOption, 64))
@declares(stop_option(GroupedOption))
@uses_images
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
    samples: int,
    response_tokens: int,
    stops: tuple[str, ...],
    images: Path | None,
    seed: int,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
) -> Iterator[Row[Any]]:
    """Let an image-text model answer prompts about images, and record every token.

    Reads rows with `prompt` or `messages`, and `images`. Writes `--samples` rows for each: the answer, and, for
    training, token ids and the log-probability of each as sampled.
    """
    from toolroll.models.picture_rollouts import PictureRollouts

    if not all(stops):
        raise UsageError("an empty text would end every answer", place="--stop")
    if asking.raw_prompt:
        raise UsageError("images have their places in messages", place="--raw-prompt")

    def draw(own_seed: int) -> Sampling:
        return replace(sampling.sampling(seed=own_seed, max_tokens=response_tokens), stop=stops)

    prompter = asking.prompter(lambda messages: messages[0]["content"])
    rollouts = PictureRollouts(model, policy, prompter, draw, samples, seed, images, log, stop)
    try:
        engine = rollouts.engine
        if manifest is not None:
            manifest.notes["model"] = f"{engine.name}@{engine.weights_id}" if engine.weights_id else engine.name
        yield from rollouts.run(rows)
    finally:
        rollouts.close()
