"""LayerCast: answers of a model under a numerical configuration, and what a report says about them."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Count, Id, Positive, Record, said
from toolroll.records.rollouts import ImagePrompt


class RunPrompt(ImagePrompt, kw_only=True, frozen=True):
    """Something to ask a model, perhaps about images, the input of layercast-run."""

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
        list[float] | None, said("Log-probability in nats of each token at the sampling temperature (1 when greedy).")
    ] = None
    top1_prob: Annotated[list[float] | None, said("Probability of the most probable token at each position.")] = None
    top2_prob: Annotated[list[float] | None, said("Probability of the second at each position.")] = None
    gap: Annotated[list[float] | None, said("top1_prob - top2_prob at each position.")] = None
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


class BatchLine(Record, kw_only=True, frozen=True):
    """A line of an OpenAI batch's output, as `vllm run-batch` writes it, which repro-report reads too."""

    custom_id: Annotated[str | None, said("Names the request.")] = None
    response: Annotated[dict[str, Any] | None, said("Its `status_code` and `body`: a chat completion.")] = None


class ConfigStats(Record, kw_only=True, frozen=True):
    """What repro-report says of one configuration, over the problems that all of its group have."""

    config: Annotated[str, said("Its name: what its group shares, and the fields in which its configurations differ.")]
    n_rows: Annotated[Count, said("Answers under it, those of problems that others lack included.")]
    accuracy: Annotated[float | None, said("Share of right answers, over samples, then over problems.")]
    mean_output_length: Annotated[float | None, said("Mean length of its answers in tokens.")]
    tokens_per_s: Annotated[float | None, said("Tokens a second, from `n_tokens` and `ms` of its rows.")] = None
    weight_bytes: Annotated[Count | None, said("Bytes of the model's weights as held.")] = None
    mean_kv_bytes: Annotated[float | None, said("Mean of `kv_bytes` over its rows.")] = None
    peak_rss_bytes: Annotated[Count | None, said("Most resident memory of the process.")] = None


class ReproStats(Record, kw_only=True, frozen=True):
    """How far the answers of one model differ between configurations: what repro-report prints, a row a group.

    A number that cannot be computed is null: all that compare configurations where there is only one.
    """

    group: Annotated[dict[str, str | None], said("The fields of `config` that its configurations share (--by).")]
    n_configs: Annotated[Count, said("Configurations in the group.")]
    n_problems: Annotated[Count, said("Problems that all of them have answers to; the numbers below are over these.")]
    n_left_out: Annotated[Count, said("Problems that only some of them have answers to.")]
    mean_accuracy: Annotated[float | None, said("Mean over configurations of the share of right answers, in [0, 1].")]
    std_acc: Annotated[
        float | None, said("Std@Acc: sample standard deviation of that share over configurations, a fraction of 1.")
    ]
    n_scored: Annotated[Count, said("Problems in these two: those with `correct` in all of their answers.")]
    pass_at_k: Annotated[
        dict[str, float] | None,
        said("By k: the chance that one of k samples of a problem is right. Null where there is one sample."),
    ]
    mean_output_length: Annotated[float | None, said("Mean length of an answer in tokens.")]
    avg_std_output_length: Annotated[
        float | None,
        said(
            "Avg_Std@Output_Length: standard deviation over configurations of the length in tokens, mean over problems."
        ),
    ]
    avg_div_index: Annotated[
        float | None,
        said(
            "Mean over the problems that diverge of Div_Index, the first position (from 0) at which the answers are "
            "not all equal; -1 where no problem diverges."
        ),
    ]
    div_percent: Annotated[float | None, said("Problems that diverge, in percent.")]
    n_diverged: Annotated[Count | None, said("Problems that diverge.")]
    avg_std_top1_prob: Annotated[
        float | None,
        said(
            "Avg_Std@top1_prob: standard deviation over configurations of the most probable token's probability, mean "
            "over the positions before Div_Index, then over problems. The paper prints it in units of 1e-4."
        ),
    ]
    avg_std_top1_prob_micro: Annotated[
        float | None, said("The same with one mean over the positions of all problems together.")
    ]
    n_no_prefix: Annotated[
        Count | None, said("Problems in neither of these two: they have no position before Div_Index.")
    ]
    gap_quantiles: Annotated[
        dict[str, float] | None,
        said("Quantiles over all positions of all answers of p(top 1) - p(top 2): where it is small, tokens flip."),
    ]
    div_gap_quantiles: Annotated[
        dict[str, float] | None,
        said("Quantiles over the problems that diverge of that gap at Div_Index, mean over configurations."),
    ]
    tokens_per_s: Annotated[float | None, said("Tokens a second, from `n_tokens` and `ms` of all rows.")]
    weight_bytes: Annotated[Count | None, said("Bytes of the model's weights as held, the most of any configuration.")]
    mean_kv_bytes: Annotated[float | None, said("Mean of `kv_bytes` over all rows.")]
    peak_rss_bytes: Annotated[Count | None, said("Most resident memory of any configuration's process.")]
    runs: Annotated[list[ConfigStats], said("The configurations one by one.")]
