"""GEAR: hypotheses, their scores, pairs and momentum."""

from typing import Annotated, Any, Literal

from toolroll.records.base import (
    Count,
    Id,
    Logprobs,
    LossMask,
    Positive,
    PromptIds,
    Record,
    ResponseIds,
    Safe,
    said,
)
from toolroll.records.training import Pair


class Hypothesis(Record, kw_only=True, frozen=True):
    """A hypothesis about a problem: what it says, and a function that does it."""

    text: Annotated[str | None, said("The hypothesis in a sentence.")] = None
    code: Annotated[
        str | None, said("Python source of one function from an input to an output; null where there is none.")
    ] = None
    reply: Annotated[str | None, said("What the model said, if the hypothesis was read from that.")] = None


class HypothesisSet(Record, kw_only=True, frozen=True):
    """A problem and hypotheses about it, the input of gear-score. The problem may be in another file, under its id.

    A pair is an array [input, output], or an object with `input` and `output`, as raw task files have it.
    """

    id: Id
    dataset: Annotated[str | None, said("The data set a problem is from; it chooses the sample space.")] = None
    n_obs: Annotated[Count | None, said("Number of observations, where problems of one id differ in it.")] = None
    observations: Annotated[list[Any] | None, said("What hypotheses are to explain: pairs of input and output.")] = None
    train: Annotated[list[Any] | None, said("Another name for `observations`.")] = None
    test: Annotated[list[Any] | None, said("Pairs that were held back; no score depends on them.")] = None
    hypotheses: Annotated[
        list[str | Hypothesis] | None, said("Hypotheses in the order in which they were made; a string is a raw reply.")
    ] = None


class Lookup(Record, kw_only=True, frozen=True):
    """A place at which a program compares with the input of an observation."""

    line: Annotated[Count, said("Line of the code, from 1.")]
    by: Annotated[str, said("What compares: ==, !=, in, key, case.")]
    observation: Annotated[Count, said("Number of the observation, from 0.")]


HypothesisStatus = Literal["consistent", "inconsistent", "lookup", "parse_error", "timeout", "killed"]


class HypothesisDetail(Record, kw_only=True, frozen=True):
    """What gear-score found about one hypothesis."""

    status: Annotated[HypothesisStatus, said("How it did, as in the row's `status`.")]
    why: Annotated[str, said("Why it is not consistent; empty if it is.")]
    failed: Annotated[list[Count], said("Numbers of the observations it contradicts, from 0.")]
    undefined: Annotated[Count | None, said("Inputs of the sample space at which it has no output; null if not run.")]
    timeouts: Annotated[Count, said("Calls that were cut short.")]
    new: Annotated[Count, said("Inputs of the sample space at which it predicts what no hypothesis before it did.")]
    bad: Annotated[list[str], said("Its faults under the stop rule: parse_error, inconsistent, lookup, few_new.")]
    lookups: Annotated[list[Lookup] | None, said("Where it looks observations up (--detect-lookup).")] = None
    same_as: Annotated[
        Count | None, said("Number of the first valid hypothesis that does the same on the whole sample space.")
    ] = None


class DifferingInput(Record, kw_only=True, frozen=True):
    """An input at which two hypotheses differ."""

    input: Annotated[Any, said("The input.")]
    outputs: Annotated[list[str | None], said("The outputs of the two as JSON texts; null where undefined.")]


class Difference(Record, kw_only=True, frozen=True):
    """How two valid hypotheses differ."""

    pair: Annotated[list[Count], said("Numbers of the two, from 0.")]
    n_differ: Annotated[Count, said("Inputs of the sample space at which they differ.")]
    examples: Annotated[list[DifferingInput], said("The first of these.")]


class Varied(Record, kw_only=True, frozen=True):
    """Scores under another choice."""

    vary: Annotated[str, said("What is varied: max_bad, min_new, space_frac.")]
    value: Annotated[float, said("Its value.")]
    draw: Annotated[Count | None, said("Number of the subsample of the sample space, from 0.")] = None
    n: Annotated[Count, said("Hypotheses that count.")]
    valid: Annotated[Count, said("Those that run and agree with all observations.")]
    consistency: Annotated[float | None, said("Share of valid ones among those that run.")]
    generalizability: Annotated[float | None, said("Mean share of the sample space that valid ones are defined on.")]
    gamma_norm: Annotated[float | None, said("Different predictions of valid ones over the size of the sample space.")]
    beta_struct: Annotated[float | None, said("Mean Jaccard distance of the predictions of two valid ones.")]


class ScoredSet(HypothesisSet, kw_only=True, frozen=True):
    """A scored set of hypotheses: what gear-score writes. A score that is not defined is null."""

    status: Annotated[
        list[HypothesisStatus],
        said(
            "For each hypothesis: consistent (valid), inconsistent, lookup (left out for looking observations up), "
            "parse_error, timeout, killed."
        ),
    ]
    space: Annotated[Count, said("Inputs of the sample space.")]
    n: Annotated[Count, said("Hypotheses that count.")]
    parse_errors: Annotated[Count, said("Those that could not be read, or not be run to their end.")]
    valid: Annotated[Count, said("Those that run and agree with all observations.")]
    distinct: Annotated[Count, said("Valid ones of which no two do the same on the whole sample space.")]
    instruction_following: Annotated[float | None, said("1 - parse_errors / n.")]
    consistency: Annotated[float | None, said("valid / (n - parse_errors); 0 if none of them runs.")]
    generalizability: Annotated[float | None, said("Mean share of the sample space that valid ones are defined on.")]
    gamma_q0: Annotated[float | None, said("Different predictions, (input, output), of the valid ones together.")]
    gamma_q1: Annotated[float | None, said("Hill number of order 1 of these predictions.")]
    gamma_q2: Annotated[float | None, said("Hill number of order 2 of these predictions.")]
    gamma_norm: Annotated[float | None, said("gamma_q0 / space.")]
    gamma_out_q0: Annotated[float | None, said("Different outputs of the valid ones together.")]
    gamma_out_q1: Annotated[float | None, said("Hill number of order 1 of these outputs.")]
    gamma_out_q2: Annotated[float | None, said("Hill number of order 2 of these outputs.")]
    alpha_q0: Annotated[float | None, said("Mean over valid ones: different outputs of one.")]
    alpha_q1: Annotated[float | None, said("Mean over valid ones: Hill number of order 1 of the outputs of one.")]
    alpha_q2: Annotated[float | None, said("Mean over valid ones: Hill number of order 2 of the outputs of one.")]
    beta_struct: Annotated[float | None, said("Mean Jaccard distance of the predictions of two valid ones.")]
    beta_dist: Annotated[float | None, said("Mean Bray-Curtis dissimilarity of the outputs of two valid ones.")]
    new_predictions: Annotated[
        list[Count], said("For each hypothesis: inputs at which it predicts what none before it did, valid or not.")
    ]
    stop_after: Annotated[
        Count | None, said("After how many hypotheses the stop rule ends the asking; null if it goes on.")
    ]
    details: Annotated[list[HypothesisDetail], said("What was found about each hypothesis.")]
    transfer: Annotated[
        list[bool] | None,
        said(
            "For k = 1, 2, ...: whether one of the first k hypotheses gets all of `test` right, a check against known "
            "answers that is no part of the scores (--transfer)."
        ),
    ] = None
    differences: Annotated[list[Difference] | None, said("How valid hypotheses differ, in pairs (--explain).")] = None
    sensitivity: Annotated[list[Varied] | None, said("The scores under other choices (--sensitivity).")] = None


class SetStats(Record, kw_only=True, frozen=True):
    """Means of scores over problems: what gear-stats prints. A mean of nothing is null.

    With `transfer`, also `transfer_top_1` and `n_transfer_top_1`, and so on: the share of problems whose test pairs one
    of the first k hypotheses gets right.
    """

    dataset: Annotated[str, said("The data set, or `all`.")]
    n_problems: Annotated[Count, said("Problems.")]
    instruction_following: Annotated[float | None, said("Mean of `instruction_following`.")]
    n_instruction_following: Annotated[Count, said("Problems it is over.")]
    consistency: Annotated[float | None, said("Mean of `consistency`.")]
    n_consistency: Annotated[Count, said("Problems it is over.")]
    generalizability: Annotated[float | None, said("Mean of `generalizability`.")]
    n_generalizability: Annotated[Count, said("Problems it is over.")]
    beta_struct: Annotated[float | None, said("Mean of `beta_struct`.")]
    n_beta_struct: Annotated[Count, said("Problems it is over.")]
    beta_dist: Annotated[float | None, said("Mean of `beta_dist`.")]
    n_beta_dist: Annotated[Count, said("Problems it is over.")]
    gamma_norm: Annotated[float | None, said("Mean of `gamma_norm`.")]
    n_gamma_norm: Annotated[Count, said("Problems it is over.")]


class AskedHypothesis(Hypothesis, kw_only=True, frozen=True):
    """A hypothesis that gear-ask heard, and what it found about it."""

    status: Annotated[
        Literal["consistent", "inconsistent", "lookup", "parse_error", "timeout", "killed"] | None,
        said("How it did: consistent with the observations (valid), or what else."),
    ] = None
    why: Annotated[str, said("Why it is not consistent; empty if it is.")] = ""
    new: Annotated[Count, said("Inputs of the sample space at which it predicts what no hypothesis before it did.")] = 0
    bad: Annotated[list[str], said("Its faults under the stop rule: parse_error, inconsistent, lookup, few_new.")] = []
    finish: Annotated[
        Literal["eos", "stop", "token_limit"] | None,
        said("How the reply ended: by the model, at a string it was to stop at, or cut off."),
    ] = None
    span: Annotated[
        list[Count] | None,
        said("Where the model's tokens of this reply begin and end in `response_ids`; null where those are."),
    ] = None


class AskedSet(HypothesisSet, kw_only=True, frozen=True):
    """A problem and the hypotheses one model gave in one conversation: what gear-ask writes.

    Hypotheses are AskedHypothesis records. All that policy-train needs is there, too.
    """

    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )
    sample: Annotated[
        Count | None, said("Index of the sample, from 0. `id` and `sample` together name a trajectory.")
    ] = None
    prompt_id: Annotated[Id | None, said("The group the samples of one prompt form.")] = None
    model: Annotated[str | None, said("Engine and model.")] = None
    policy_version: Annotated[str | None, said("The version in the policy directory that wrote this.")] = None
    seed: Annotated[int, said("This trajectory's own seed.")] = 0
    stop: Annotated[
        Literal["bad", "cap", "token_limit", "error"] | None,
        said(
            "Why the asking ended. bad: enough hypotheses were bad; cap: there were enough in all; token_limit: no "
            "room for another; error: it could not go on."
        ),
    ] = None
    followup: Annotated[
        Literal["full", "short", "super-short"] | None, said("How further hypotheses were asked for.")
    ] = None
    parser: Annotated[Literal["robust", "authors"] | None, said("How replies were read.")] = None
    prompt: Annotated[str, said("What the model was given, as text.")] = ""
    response: Annotated[str, said("All that follows the prompt: the model's text and what was injected into it.")] = ""
    prompt_ids: PromptIds = None
    response_ids: ResponseIds = None
    loss_mask: LossMask = None
    logprobs: Logprobs = None


class HypothesisPair(Pair, kw_only=True, frozen=True):
    """Two hypotheses about a problem, of which one is better: what gear-pairs writes, for dpo-train."""

    prompt_id: Annotated[Id | None, said("The group the samples of one prompt form.")] = None
    dataset: Annotated[str | None, said("The data set a problem is from; it chooses the sample space.")] = None
    n_obs: Annotated[Count | None, said("Number of observations, where problems of one id differ in it.")] = None
    reason: Annotated[
        Literal["parsing", "cheating", "inconsistent", "fair"],
        said(
            "Why one is better: the other cannot be run; looks observations up; contradicts one; or has the smaller "
            "sum of generalizability, novelty and diversity."
        ),
    ]
    context: Annotated[list[Count], said("Numbers of the hypotheses the prompt has as earlier replies, from 0.")]
    pair: Annotated[list[Count], said("Numbers of the two, from 0.")]
    scores: Annotated[list[float] | None, said("With reason fair: the sums of the better and of the worse one.")] = None


class ProbeLoss(Record, kw_only=True, frozen=True):
    """The loss of one kind of pair, measured on pairs that are not trained on: what gear-momentum reads."""

    objective: Annotated[str, said("The kind of pair, as in a pair's `reason`.", min_length=1)]
    loss: Annotated[Safe, said("Its loss, a mean over pairs.")]
    step: Annotated[Count, said("Number of the update of the policy, from 1; 0 before the first.")]


class MomentumStep(Record, kw_only=True, frozen=True):
    """How much of the next epoch each kind of pair gets: what gear-momentum writes."""

    step: Annotated[Count, said("Number of the update of the policy, from 1; 0 before the first.")]
    losses: Annotated[dict[str, float], said("For each objective: its loss at this step.")]
    ema: Annotated[dict[str, float], said("For each objective: the moving average of its loss.")]
    momentum: Annotated[dict[str, Positive], said("For each objective: how far the average fell, capped.")]
    ratios: Annotated[dict[str, Positive], said("For each objective: its weight; 1 is an even share.")]
    weighted_loss: Annotated[float, said("Sum of ratio times loss.")]
    quota: Annotated[dict[str, Count] | None, said("For each objective: its pairs in an epoch (--epoch-pairs).")] = None
