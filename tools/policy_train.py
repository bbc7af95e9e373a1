"""policy-train: update a policy on rollouts with advantages, and publish it.

Losses: toolroll.train.losses; updates: toolroll.train.update and critic; what survives a kill: toolroll.train.session.
Papers: arXiv:2510.07794 (HiPRAG), arXiv:2504.09710 (DUMP), arXiv:2402.03300 (GRPO), arXiv:1707.06347 (PPO).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import GroupedOption, command, option_group, uses_images, uses_seed
from toolroll.errors import UsageError
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.training import Advantaged, TrainStep
from toolroll.train.objective import CriticOptions, Objective, critic_options, objective_options
from toolroll.train.options import PublishOptions, TrainOptions, publish_options, train_options

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.train.feed import Batch, Feed
    from toolroll.train.session import Session
    from toolroll.train.update import PolicyUpdate

EXAMPLES = """
  One update on answers about pictures; the result is policy/current:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 | image-rollout --samples 4 | answer-check --kind exact |
      group-advantage --reward-field correct --group-size 4 > train.jsonl
    policy-train --policy policy --model sprite --lr 1e-5 train.jsonl > steps.jsonl
  A loop of resident processes, each fed by the one before:
    mkfifo FEEDBACK
    ucb-sample --state UCB --pool POOL.jsonl --follow < FEEDBACK |
      rag-rollout --policy POLICY --follow --samples 8 | step-parse | step-reward | group-advantage |
      policy-train --policy POLICY --emit-feedback > FEEDBACK
  HiPRAG's settings for PPO:
    policy-train --policy POLICY --algo ppo --batch-rows 512 --mini-batch 256 --kl-coef .001 --reference base \\
      --entropy-coef .001 --warmup .285 --critic-warmup .015 --total-steps 1005 SCORED.jsonl
"""

NOTES = """
Every --batch-rows rows make one update, whether or not some of them failed, so that a loop never waits for a row that
was lost. Its version is published before anything is written about it. Versions are named after the updates they have
seen. Rows carry the log-probabilities they were sampled with, so rows of an older version are corrected for by the
ratio of probabilities and the clip; --max-stale leaves out those that are too old.

Tokens with loss_mask 0 were injected: they are context, and no part of the loss, the entropy, the divergence, the
advantages or the critic's loss. (HiPRAG's released code leaves them in the whitening and the critic's loss.) With ppo
the reward is paid at the last token the model wrote.

The same command goes on after a kill: rows that a checkpoint has seen (the last 1,000,000) are skipped, once for each
time they came, and the weights come out as if nothing had happened. With -o FILE add --resume, or use --steps-file, for
a curve without gaps; a resumed output has all feedback once too. SIGUSR1 and SIGTERM end the run after the update in
hand, with exit code 75. At most --publish updates are lost to a kill -9. Checkpoints have the weights in float32, so a
published version of less precision changes nothing about training.

An image-text model is trained on rows with `images`: `prompt` is the text that its processor was given, and has to give
`prompt_ids` again. Not with --algo ppo.

Under torchrun or `accelerate launch` each process holds the whole model and takes its share of every batch; gradients
are those of one process. The policy directory must be on a file system that all see. The launcher's exit code is its
own, 1 where a process ended with 75; stop it with SIGTERM, which it hands on, not with SIGUSR1, of which it dies.
`accelerate launch` wants --multi_gpu for several processes, on a CPU too. Two processes on a CPU are tested, under
torchrun and under `accelerate launch`; several GPUs, and bfloat16 on a GPU, are not run on a GPU here.
"""

_READS = msgspec.defstruct(
    "Advantaged",
    [("advantage", float | None, None)],
    bases=(
        view(
            Advantaged,
            *("id", "prompt_id", "draw", "distribution", "policy_version", "reward"),
            "prompt",
            *IMAGE_FIELDS,
            *("prompt_ids", "response_ids", "loss_mask", "logprobs", "ref_logprobs"),
        ),
    ),
    kw_only=True,
    frozen=True,
    gc=False,
)
#: Settings with which a checkpoint of others cannot go on.
_FIRM = frozenset(["algo", "lora", "lora_alpha", "lora_targets"])
#: Settings that change memory and speed only.
_FREE = frozenset(["images", "device", "micro_tokens", "gradient_checkpointing", "policy", "model", "keep", "publish"])


@command(
    "policy-train",
    system="Training",
    reads=_READS,
    adds=field_types(TrainStep, *TrainStep.__struct_fields__),
    key=("step",),
    slow=True,
    consumes=True,
    sees_errors=True,
    distributed=True,
    epilog="See group-advantage(1), rag-rollout(1), ucb-sample(1), toolroll-records(5).",
)
@option_group("publishing", PublishOptions, publish_options(GroupedOption))
@click.option(
    "--batch-rows",
    type=click.IntRange(min=1),
    metavar="N",
    default=128,
    show_default=True,
    help="Rows that make an update, failed ones and those left out included.",
)
@click.option(
    "--on-partial",
    type=click.Choice(["train", "drop"]),
    default="train",
    show_default=True,
    help="What to do with less than --batch-rows at the end.",
)
@click.option("--max-stale", type=click.IntRange(min=0), metavar="N", help="Leave out rows more than N updates old.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=2),
    default=8192,
    show_default=True,
    help="Longest row, prompt and all, in tokens.",
)
@click.option(
    "--on-long",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="A longer row: leave it out and count it, or treat it as one that cannot be processed.",
)
@uses_images
@click.option(
    "--reference",
    metavar="NAME",
    help="The model --kl-coef holds the policy to. Without it: with --lora the base, else the rows' `ref_logprobs`.",
)
@click.option("--emit-feedback", is_flag=True, help="Write what ucb-sample and ucb-update read, not a row an update.")
@click.option(
    "--steps-file", type=click.Path(path_type=Path), metavar="FILE", help="Also keep a row an update in FILE."
)
@click.option("--timings", is_flag=True, help="Say how long each update took (train_s).")
@click.option("--again", is_flag=True, help="Train again on rows that were trained on before.")
@option_group("objective", Objective, objective_options(GroupedOption))
@option_group("critic", CriticOptions, critic_options(GroupedOption))
@option_group("training", TrainOptions, train_options(GroupedOption, lr=1e-6))
@uses_seed
def main(
    rows: Rows[Any], *, emit_feedback: bool, steps_file: Path | None, timings: bool, log: Log, **options: Any
) -> Iterator[dict[str, Any]]:
    """Update a policy on rollouts with advantages, and publish it.

    Reads what group-advantage writes, updates the weights every --batch-rows rows, and publishes each version in the
    policy directory, where rollouts with --follow take it up.
    """
    from toolroll.train.feed import Feed
    from toolroll.train.sample import Demands
    from toolroll.train.session import Session
    from toolroll.train.steps import StepsFile

    publishing, training, objective = options["publishing"], options["training"], options["objective"]
    with Session(publishing, training, seed=options["seed"], notify=log.note) as session:
        update = _prepare(session, log, **options)
        ref_logprobs = objective.kl_coef > 0 and update.reference is None
        processor = session.trainer.processor
        if processor is not None and objective.algo == "ppo":
            raise UsageError("a critic of prompts with images is not there: take grpo", place="--algo")
        demands = Demands(objective, session.trainer.vocabulary, ref_logprobs, processor)
        limits = {name: options[name] for name in ("max_stale", "max_tokens", "on_long", "on_partial", "images")}
        feed = Feed(rows, options["batch_rows"], session.consumed, demands, session.step, **limits)
        curve = StepsFile(steps_file if session.team.is_main else None, session.step, session.last.get("row"))
        if session.last and session.team.is_main:
            yield from _unsaid(rows, session.last, emit_feedback=emit_feedback)
        for batch in session.team.stream(feed):
            began = time.monotonic()
            row = _train(session, update, batch)
            session.consumed.add(batch.digests)
            feed.step = session.step
            feedback = []
            if row:
                if timings:
                    row["train_s"] = time.monotonic() - began
                feedback = batch.feedback(session.step, rewards=objective.algo == "ppo")
                session.last = {"row": row, "feedback": feedback, "draws": batch.draws}
                if session.step % publishing.publish == 0:
                    session.save()
                curve.write(row)
            told = [*feedback, {"draws": batch.draws, "step": session.step}] if emit_feedback else filter(None, [row])
            yield from (one for one in told if not rows.done(one["step"]))
    curve.close()
    _tell(log, feed)


def _prepare(session: Session, log: Log, **options: Any) -> PolicyUpdate:
    """Give the session all that was saved of it; what updates its policy."""
    from toolroll.train.critic import open_critic
    from toolroll.train.setup import open_reference
    from toolroll.train.update import PolicyUpdate

    objective, training, seed = options["objective"], options["training"], options["seed"]
    critic = None
    settings = {**asdict(objective), **asdict(training), "seed": seed}
    settings |= {name: options[name] for name in ("batch_rows", "on_partial", "max_stale", "max_tokens", "reference")}
    if objective.algo == "ppo":
        own: CriticOptions = options["critic"]
        critic = open_critic(own.critic or session.source, own, training, session.team)
        session.learners["critic"] = critic.learner
        settings |= asdict(own)
    settings = {name: value for name, value in settings.items() if name not in _FREE}
    session.resume(settings, _FIRM, again=options["again"], warn=log.warn)
    reference = None
    if objective.kl_coef or options["reference"]:
        reference = open_reference(session.trainer, options["reference"], objective.temperature, log.note)
    return PolicyUpdate(session.trainer, objective, seed=seed, reference=reference, critic=critic)


def _train(session: Session, update: PolicyUpdate, batch: Batch) -> dict[str, Any] | None:
    """Update the policy on a batch; the row that tells of it, None where there was nothing to learn from."""
    from toolroll.train.policy import version_name

    tokens = batch.n_tokens
    if not tokens:
        return None
    figures = update.run(batch.samples, session.step + 1)
    session.step += 1
    rewards = [sample.reward for sample in batch.samples if sample.reward is not None]
    ppo = update.critic is not None
    advantage = sum(abs(sample.advantage) for sample in batch.samples) / len(batch.samples)
    return {
        "step": session.step,
        "version": version_name(session.step),
        "rows": len(batch.samples),
        "tokens": tokens,
        **figures,
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
        "mean_abs_advantage": None if ppo else advantage,
        "stale": batch.n_stale,
        "long": batch.n_long,
        "failed": batch.n_failed,
    }


def _unsaid(rows: Rows[Any], last: dict[str, Any], *, emit_feedback: bool) -> Iterator[dict[str, Any]]:
    """What a run that was killed right after saving may not have written. Who reads feedback knows it by its id.

    A resumed output tells what it has: rows of one step come in the same order each time.
    """
    resumed = click.get_current_context().params["resume"]
    if emit_feedback:
        told = last["feedback"]
        if resumed and "draws" in last:
            told = [*told, {"draws": last["draws"], "step": last["row"]["step"]}]
    else:
        told = [last["row"]] if resumed else []
    yield from (one for one in told if not rows.done(one["step"]))


def _tell(log: Log, feed: Feed) -> None:
    known = feed.consumed.n_known
    log.counts.skipped += known
    if known and not feed.n_new:
        log.note(f"all {known} rows were trained on before; --again trains on them once more")
    if feed.n_stale:
        log.warn(f"{feed.n_stale} rows were left out: their policy was more than {feed.max_stale} updates old")
    if feed.n_long:
        log.warn(f"{feed.n_long} rows were left out: longer than --max-tokens {feed.max_tokens}")
    if feed.n_left:
        log.info(f"{feed.n_left} rows at the end are less than --batch-rows and were not trained on")
