"""What trainers read and write."""

from typing import Annotated, Any

from toolroll.records.base import Arm, Count, Id, Image, ImagePath, Images, Positive, Record, said
from toolroll.records.rollouts import Trajectory


class Advantaged(Trajectory, kw_only=True, frozen=True):
    """A trajectory with its advantage: what group-advantage writes and policy-train reads."""

    response: Annotated[str, said("All that follows the prompt: the model's text and what was injected into it.")] = ""
    reward: Annotated[
        dict[str, Any] | float | None, said("The reward: a number, or an object whose `total` is the reward.")
    ] = None
    images: Images = None
    image: Image = None
    image_path: ImagePath = None
    advantage: Annotated[float, said("The row's advantage: how much better than its like it was.")]
    group_size: Annotated[Count | None, said("Rows the advantage was made from.")] = None
    distribution: Annotated[Arm | None, said("The distribution (the arm) a task belongs to.")] = None
    ref_logprobs: Annotated[
        list[float] | None, said("For each response token: log-probability in nats under the reference policy.")
    ] = None


class TrainStep(Record, kw_only=True, frozen=True):
    """One update of a policy: what policy-train writes. Means are over the tokens the model wrote."""

    step: Annotated[Count, said("Number of the update of the policy, from 1.")]
    version: Annotated[str, said("The version in the policy directory that has this update.")]
    rows: Annotated[Count, said("Trajectories it was made from.")]
    tokens: Annotated[Count, said("Tokens of them that the model wrote.")]
    loss: Annotated[float, said("What was minimised, mean over the steps of the optimizer.")]
    policy_loss: Annotated[float, said("Its part that is the clipped policy gradient.")]
    kl: Annotated[float | None, said("Divergence from the reference in nats; null without one.")] = None
    entropy: Annotated[float, said("Entropy of the policy in nats.")]
    clip_frac: Annotated[float, said("Share of tokens whose ratio was clipped.", ge=0, le=1)]
    ratio_mean: Annotated[float, said("Ratio of new to old probability.")]
    approx_kl: Annotated[float, said("Divergence from the old policy in nats, by k3.")]
    grad_norm: Annotated[Positive, said("Norm of the gradient before clipping, mean over the steps.")]
    lr: Annotated[Positive, said("The learning rate.")]
    mean_reward: Annotated[float | None, said("Mean reward of trajectories.")] = None
    mean_abs_advantage: Annotated[float | None, said("Mean of the absolute advantages; null with ppo.")] = None
    value_loss: Annotated[float | None, said("Loss of the critic (ppo).")] = None
    value_mean: Annotated[float | None, said("Mean value the critic gave before the update (ppo).")] = None
    stale: Annotated[Count, said("Rows left out because their policy was too old.")] = 0
    long: Annotated[Count, said("Rows left out because they were too long.")] = 0
    failed: Annotated[Count, said("Rows that failed earlier or could not be used.")] = 0
    train_s: Annotated[float | None, said("Seconds the update took (policy-train --timings).")] = None


class Pair(Record, kw_only=True, frozen=True):
    """Two answers to one prompt, of which one is better: what dpo-train reads, in TRL's form."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    prompt: Annotated[Any, said("What the model is asked: text, or messages with role and content.")]
    chosen: Annotated[Any, said("The better answer: text, or messages.")]
    rejected: Annotated[Any, said("The worse answer: text, or messages.")]
    images: Images = None
    image: Image = None
    image_path: ImagePath = None
    weight: Annotated[Positive | None, said("What the pair counts in the loss.")] = None
    ref_chosen_logps: Annotated[
        float | None, said("Sum of the log-probabilities of `chosen` in nats under the reference policy.")
    ] = None
    ref_rejected_logps: Annotated[
        float | None, said("Sum of the log-probabilities of `rejected` in nats under the reference policy.")
    ] = None
    prompt_tokens: Annotated[Count | None, said("Tokens of `prompt`, those of its images included.")] = None
    chosen_tokens: Annotated[Count | None, said("Tokens of `chosen`, its end included.")] = None
    rejected_tokens: Annotated[Count | None, said("Tokens of `rejected`, its end included.")] = None


class DpoStep(Record, kw_only=True, frozen=True):
    """One update of a policy on pairs: what dpo-train writes. Means are over the pairs of the update."""

    step: Annotated[Count, said("Number of the update of the policy, from 1.")]
    version: Annotated[str, said("The version in the policy directory that has this update.")]
    epoch: Annotated[Count, said("Number of the pass over the pairs, from 1.")]
    pairs: Annotated[Count, said("Pairs it was made from.")]
    loss: Annotated[float, said("What was minimised, mean over the steps of the optimizer.")]
    margin: Annotated[float, said("Reward of the better answer minus that of the worse, before the update.")]
    accuracy: Annotated[float, said("Share of pairs whose margin is above 0.", ge=0, le=1)]
    rewards_chosen: Annotated[float, said("beta times the log-ratio of policy to reference of the better answers.")]
    rewards_rejected: Annotated[float, said("beta times the log-ratio of policy to reference of the worse answers.")]
    grad_norm: Annotated[Positive, said("Norm of the gradient before clipping, mean over the steps.")]
    lr: Annotated[Positive, said("The learning rate.")]
