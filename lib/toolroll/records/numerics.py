"""LayerCast: answers of a model under a numerical configuration, and what a report says about them."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Count, Id, Positive, Record, said
from toolroll.records.rollouts import Prompt


class RunPrompt(Prompt, kw_only=True, frozen=True):
    """Something to ask a model, perhaps about images, the input of layercast-run."""

    images: Annotated[list[str] | None, said("Files of the images that the prompt is about, in order.")] = None
    answer: Annotated[str | list[str] | None, said("The right answer, or several that are accepted.")] = None


class RunRecord(Record, kw_only=True, frozen=True):
    """An answer under one configuration: what layercast-run writes and repro-report reads.

    `config` and `id` (and `sample`) name it. Lists have one number for each of `tokens`.
    """

    id: Id
    sample: Annotated[Count, said("Index of the sample, from 0.")] = 0
    config: Annotated[
        dict[str, Any],
        said("How it was computed: precision, batch_size, tp, threads, ..., versions. See layercast-run(1)."),
    ]
    seed: Annotated[int, said("This sample's own seed.")] = 0
    tokens: Annotated[list[int], said("Token ids as written, the end-of-sequence token included.")]
    text: Annotated[str | None, said("The answer without special tokens.")] = None
    logprobs: Annotated[
        list[float] | None, said("Log-probability in nats of each token, as the model gives it (temperature 1).")
    ] = None
    top1_prob: Annotated[list[float] | None, said("Probability of the most probable token at each position.")] = None
    top2_prob: Annotated[list[float] | None, said("Probability of the second at each position.")] = None
    top_ids: Annotated[
        list[list[int]] | None, said("At each position: the most probable tokens, first the most probable.")
    ] = None
    top_logprobs: Annotated[list[list[float]] | None, said("Their log-probabilities in nats.")] = None
    n_tokens: Annotated[Count | None, said("Number of tokens.")] = None
    finish: Annotated[
        Literal["eos", "stop", "token_limit"] | None,
        said("How the answer ended: by the model, at a string it was to stop at, or cut off."),
    ] = None
    correct: Annotated[
        Literal[0, 1] | None, said("1 if the answer is right, else 0; null where there is nothing to compare with.")
    ] = None
    weight_bytes: Annotated[Count | None, said("Bytes of the model's weights as held.")] = None
    kv_bytes: Annotated[Count | None, said("Bytes of the keys and values of this answer when it ended.")] = None
    ms: Annotated[
        Positive | None, said("This answer's share of its batch's time, in milliseconds (layercast-run --timings).")
    ] = None
    peak_rss_bytes: Annotated[
        Count | None, said("The process's peak resident memory in this configuration so far (layercast-run --timings).")
    ] = None
