"""rag-rollout: let a language model answer questions by searching, and record every token.

Protocols and instructions: toolroll.rag.protocol. The loop of one trajectory: toolroll.rag.rollout.
Paper: arXiv:2510.07794, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, uses_model, uses_policy, uses_sampling, uses_seed
from toolroll.models.options import ModelOptions, PolicyOptions, SamplingOptions
from toolroll.records import field_types, view
from toolroll.records.rollouts import Question, Trajectory

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Answer a question with the embedded model and a BM25 index:
    rag-index "$(toolroll --data-path)/hotpotqa/corpus.jsonl.gz" index/
    head -n 1 "$(toolroll --data-path)/hotpotqa/questions.jsonl" |
      rag-rollout --retriever bm25:index/ --constrain --max-steps 1 --field-tokens 12 -o rollouts.jsonl
  Five samples a question from a model behind a server, with Search-R1's retriever:
    rag-rollout QUESTIONS.jsonl --samples 5 --base-url http://127.0.0.1:8000/v1 --model NAME \\
      --retriever http://127.0.0.1:8001/retrieve
"""

NOTES = """
The defaults of the caps and of sampling are the values the paper trains with. The instruction text is toolroll's own;
a model trained on another one wants that one: --prompt-file.

log-probabilities are the policy's own at the sampling temperature, before top-p, top-k and --constrain cut anything
away. A response token that was injected has mask 0 and log-probability 0.

An id and a sample determine a trajectory's seed, so order, batches, shards and resuming change no draw. With
--temperature 0 a trajectory depends on its neighbours in the batch only as far as floating point does: with the
embedded model in float32, log-probabilities of a sequence alone and among others agree within 0.001 nats, which a test
asks for, so greedy text can differ only where two tokens are closer than that.

A turn that ends without a search or an answer is followed by a notice, as in the released code, and makes the
trajectory malformed; --on-invalid stop ends it instead. --max-steps has no counterpart in the released code; that it is
the paper's budget of steps is inferred.

Back ends: transformers and, once, vLLM's CPU build were run here. Nothing was run on a GPU here.
"""


@command(
    "rag-rollout",
    system="HiPRAG",
    reads=view(Question, "id", "question", "golden_answers", "answer", "answers", "reward_model", "draw"),
    adds=field_types(
        Trajectory,
        *("golden_answers", "sample", "prompt_id", "prompt", "response", "turns", "n_search", "finish"),
        *("invalid_actions", "dialect", "constrained", "forced_tokens", "model", "policy_version", "seed"),
        *("prompt_ids", "response_ids", "loss_mask", "logprobs"),
    ),
    slow=True,
    expands=True,
    epilog="See rag-index(1), rag-serve(1), step-parse(1), toolroll-records(5).",
)
@click.option(
    "--retriever",
    required=True,
    metavar="SPEC",
    help="Where passages come from: bm25:DIR, dense:DIR, faiss:DIR, http:URL (Search-R1's protocol), flashrag:URL, "
    "replay:FILE, none.",
)
@click.option("--passages", "topk", type=click.IntRange(min=1), default=3, show_default=True, help="Passages a search.")
@click.option(
    "--search-cache",
    type=click.Path(),
    metavar="FILE",
    help="Keep searches on disk here, for other samples, runs and commands.",
)
@click.option(
    "--search-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for a retrieval server.",
)
@click.option(
    "--search-tries",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often to ask a failing retrieval server.",
)
@click.option(
    "--dialect",
    type=click.Choice(["hiprag", "search-r1", "r1-searcher"]),
    default="hiprag",
    show_default=True,
    help="The tags the model writes.",
)
@click.option(
    "--prompt-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instruction to give instead of toolroll's; {question} in it stands for the question.",
)
@click.option("--raw-prompt", is_flag=True, help="Do not use the model's chat template.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Trajectories a question.")
@click.option(
    "--max-searches",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Turns that may search; one more may only answer.",
)
@click.option(
    "--turn-tokens",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Longest turn, in tokens; under --constrain the form bounds it instead.",
)
@click.option(
    "--context-tokens",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Longest set of passages, in tokens.",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Longest prompt; the left part of a longer one is cut.",
)
@click.option(
    "--on-invalid",
    type=click.Choice(["notice", "stop"]),
    default="notice",
    show_default=True,
    help="A turn that neither searches nor answers: tell the model and go on, or stop.",
)
@click.option(
    "--constrain",
    is_flag=True,
    help="Only let the model write well-formed HiPRAG steps (hf back end). Recorded in the row.",
)
@click.option(
    "--field-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="With --constrain: longest reasoning, query, conclusion or answer, in tokens.",
)
@click.option(
    "--max-steps", type=click.IntRange(min=1), default=8, show_default=True, help="With --constrain: most steps."
)
@click.option(
    "--closed-book",
    is_flag=True,
    help="Also ask the model each query without passages: what the over-search judge compares with.",
)
@click.option(
    "--closed-book-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="With --closed-book: longest such answer, in tokens.",
)
@click.option(
    "--timings",
    is_flag=True,
    help="Record how long each search took and whether it was in the cache. Two runs then differ in these.",
)
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
    samples: int,
    seed: int,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
    **options: Any,
) -> Iterator[Row[Any]]:
    """Let a language model answer questions by searching, and record every token.

    Reads questions, writes `--samples` trajectories for each: the text, the searches with their passages, and, for
    training, token ids, who wrote each and its log-probability as sampled. Turns of all questions run in one batch;
    what the model has read of a trajectory it does not read again. A question whose search or model fails is an
    error row that keeps what was made so far.
    """
    from toolroll.rag.batch import Batch

    with Batch(model, policy, sampling, samples=samples, seed=seed, options=options, log=log, stop=stop) as batch:
        if manifest is not None:
            manifest.notes["model"] = batch.rollouts.model
        yield from batch.run(rows)
