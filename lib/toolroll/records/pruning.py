"""YOPO: what pruning visual tokens costs and saves, and the answers of pruned models."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Count, Id, Record, said
from toolroll.records.rollouts import ImagePrompt

Convention = Annotated[
    str,
    said("How FLOPs are counted: 2 for a multiply-add, pairs of visual tokens full (n^2) or causal (n (n + 1) / 2)."),
]
FlopsDense = Annotated[Count, said("FLOPs that the visual tokens cost in the language model.")]
FlopsPruned = Annotated[Count, said("FLOPs that they cost under the plan.")]
KvDense = Annotated[Count, said("Bytes of keys and values of the prompt.")]
KvPruned = Annotated[Count, said("The same under the plan.")]
PlanHash = Annotated[str, said("Names the plan: 16 hex digits.")]
PlanDict = Annotated[
    dict[str, Any],
    said(
        "What is left out: window, window_causal, cross_tile, ffn, cut, heads (a line of 0 and 1 for each layer), "
        "softmax, drops. See vprune(1)."
    ),
]


class VisualTerms(Record, kw_only=True, frozen=True):
    """FLOPs of visual tokens by part, over all layers."""

    proj_qo: Annotated[Count, said("Projections of queries and outputs.")]
    proj_kv: Annotated[Count, said("Projections of keys and values.")]
    attention_visual: Annotated[Count, said("Attention between visual tokens.")]
    attention_text: Annotated[Count, said("Attention between visual tokens and text, whichever comes later.")]
    ffn: Annotated[Count, said("Feed-forward nets.")]


class FlopsRow(Record, kw_only=True, frozen=True):
    """What the visual tokens of a prompt cost, dense and pruned: what vprune-flops writes."""

    id: Id
    grids: Annotated[list[list[int]], said("Rows and columns of each image or tile.")]
    n_visual: Annotated[Count, said("Visual tokens of the prompt.")]
    n_text: Annotated[Count, said("Text tokens of the prompt.")]
    pairs: Annotated[Literal["full", "causal"], said("How pairs of visual tokens are counted.")]
    flops_convention: Convention
    flops_dense: FlopsDense
    flops_pruned: FlopsPruned
    visual_ratio: Annotated[float, said("flops_pruned / flops_dense; 1 without visual tokens.")]
    flops_dense_other: Annotated[Count, said("flops_dense with pairs counted the other way.")]
    flops_pruned_other: Annotated[Count, said("flops_pruned with pairs counted the other way.")]
    macs_dense: Annotated[Count, said("flops_dense in multiply-adds.")]
    macs_pruned: Annotated[Count, said("flops_pruned in multiply-adds.")]
    fastv_dense: Annotated[
        Count, said("What FastV and DivPrune print for the dense model: multiply-adds, a net of two matrices.")
    ]
    terms_dense: Annotated[VisualTerms, said("flops_dense by part.")]
    terms_pruned: Annotated[VisualTerms, said("flops_pruned by part.")]
    shares_dense: Annotated[dict[str, float], said("Shares of projections, attention and nets in flops_dense.")]
    flops_alone: Annotated[
        dict[str, int], said("flops_pruned if the plan had only its window, its heads, its neurons or its cut.")
    ]
    flops_text: Annotated[Count, said("FLOPs that the text costs by itself, in all layers; no plan changes them.")]
    flops_lm_head: Annotated[Count, said("FLOPs of one position's logits.")]
    flops_total_dense: Annotated[Count, said("All of it: visual tokens, text and logits.")]
    flops_total_pruned: Annotated[Count, said("The same under the plan.")]
    total_ratio: Annotated[float, said("flops_total_pruned / flops_total_dense.")]
    decode_flops_dense: Annotated[Count, said("FLOPs of the first new token behind the prompt.")]
    decode_flops_pruned: Annotated[Count, said("The same under the plan.")]
    kv_bytes_dense: KvDense
    kv_bytes_pruned: KvPruned
    kv_dtype: Annotated[str, said("The type of keys and values.")]
    plan: PlanDict
    plan_hash: PlanHash


class VisualPrompt(ImagePrompt, kw_only=True, frozen=True):
    """Something to ask about images, the input of vprune, vprune-calibrate and vprune-plan."""

    response: Annotated[str | None, said("vprune-plan: an answer that the model should find probable.")] = None


class PrunedAnswer(Record, kw_only=True, frozen=True):
    """What a pruned model answers, what that took, and what it cost: what vprune writes."""

    response: Annotated[str, said("The answer.")]
    finish: Annotated[str, said("Why the text ended: eos, stop, token_limit.")]
    n_tokens: Annotated[Count, said("Number of tokens.")]
    grids: Annotated[list[list[int]], said("Rows and columns of each image or tile.")]
    n_visual: Annotated[Count, said("Visual tokens of the prompt.")]
    n_text: Annotated[Count, said("Text tokens of the prompt.")]
    flops_convention: Convention
    flops_dense: FlopsDense
    flops_pruned: FlopsPruned
    visual_ratio: Annotated[float, said("flops_pruned / flops_dense; 1 without visual tokens.")]
    flops_executed: Annotated[
        Count | None,
        said(
            "FLOPs that the language model's matrix products took for the prompt, text and margins included; null in "
            "batches."
        ),
    ]
    kv_bytes_dense: KvDense
    kv_bytes_pruned: KvPruned
    kv_bytes_held: Annotated[
        Count | None, said("Bytes of keys and values that the cache held for the prompt; null in batches.")
    ]
    softmax: Annotated[Literal["renorm", "authors"], said("How what is pruned is left out: see vprune(1).")]
    cross_tile: Annotated[
        bool | None, said("With a window: whether visual tokens see those of earlier images and tiles; null without.")
    ]
    plan_hash: PlanHash
    ttft_ms: Annotated[float | None, said("Milliseconds to the first token, of the batch, image encoder included.")] = (
        None
    )
    decode_ms: Annotated[float | None, said("Milliseconds a further token of the batch.")] = None
    dense_response: Annotated[str | None, said("The answer of the dense model (--compare).")] = None
    dense_same_tokens: Annotated[
        Count | None, said("Tokens from the first on in which the answers of both are the same.")
    ] = None
    dense_ttft_ms: Annotated[float | None, said("ttft_ms of the dense model.")] = None
    dense_decode_ms: Annotated[float | None, said("decode_ms of the dense model.")] = None


class Calibration(Record, kw_only=True, frozen=True):
    """A head mask and how it was chosen: what vprune-calibrate writes to stdout."""

    model: Annotated[str, said("The model.")]
    n_samples: Annotated[Count, said("Prompts that had images.")]
    n_left_out: Annotated[Count, said("Prompts without an image, which say nothing.")]
    queries: Annotated[Literal["all", "first"], said("Whose attention was summed: all tokens' or the first new one's.")]
    threshold: Annotated[float | None, said("A vote is for a head whose ratio is above this; null if all are kept.")]
    vote: Annotated[float, said("A head is active with more than this share of votes.")]
    protect_layers: Annotated[Count, said("First layers that keep all heads.")]
    group_heads: Annotated[bool, said("Whether heads that share a key head were decided on together.")]
    kept_heads: Annotated[list[Count], said("Active heads of each layer.")]
    mean_kept: Annotated[float, said("Their mean.")]
    ratio_quantiles: Annotated[
        dict[str, float],
        said("Quantiles over heads of the ratio that decides: attention to visual tokens over that to all others."),
    ]


class PlanStep(Record, kw_only=True, frozen=True):
    """A step of the search for a plan: what it pruned more, what that saves, what it costs in quality."""

    step: Annotated[Count, said("Number of the step; 0 is the dense model.")]
    changed: Annotated[
        Literal["window", "heads", "ffn", "cut"] | None,
        said("What was pruned more, or at the end less; null in the dense model."),
    ]
    window: Annotated[Count | None, said("Side of the window; null is none.")]
    kept_heads: Annotated[float, said("Active heads a layer, mean over all.")]
    ffn: Annotated[float, said("The ratio of neurons.")]
    cut: Annotated[Count | None, said("The first layer that visual tokens do not enter; null is none.")]
    visual_ratio: Annotated[float, said("flops_pruned / flops_dense, both summed over the prompts.")]
    kv_ratio: Annotated[float, said("The same of bytes of keys and values, text included.")]
    nll: Annotated[float, said("Mean negative log-likelihood of the answers' tokens, in nats.")]
    cost: Annotated[float, said("How much more that is than the dense model's.")]
    step_cost: Annotated[float, said("How much more that is than the step before's.")]
    n_tried: Annotated[Count, said("Plans that were compared in this step.")]
    plan_hash: PlanHash


class PlanFound(Record, kw_only=True, frozen=True):
    """A plan and how it was found: what vprune-plan writes."""

    model: Annotated[str, said("The model.")]
    budget: Annotated[float, said("The share of visual FLOPs that may be left.")]
    visual_ratio: Annotated[float, said("flops_pruned / flops_dense, both summed over the prompts.")]
    kv_ratio: Annotated[float, said("The same of bytes of keys and values, text included.")]
    cost: Annotated[float, said("How much more the nll is than the dense model's, in nats a token.")]
    n_samples: Annotated[Count, said("Prompts with images.")]
    n_left_out: Annotated[Count, said("Prompts without an image, which say nothing.")]
    n_answer_tokens: Annotated[Count, said("Tokens of their answers.")]
    steps: Annotated[list[PlanStep], said("The steps of the search, from the dense model on.")]
    plan: PlanDict
    plan_hash: PlanHash
