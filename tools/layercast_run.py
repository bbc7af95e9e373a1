"""layercast-run: answer prompts under numerical configurations, to see what the arithmetic changes.

Layers: toolroll.numerics.modules. Batches: toolroll.models.padded. Paper: arXiv:2506.09501.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from toolroll.checking import KINDS
from toolroll.cli import GreedyOption, GroupedOption, command, declares, option_group, uses_prompt, uses_seed
from toolroll.errors import UsageError
from toolroll.models.options import (
    ANY_MODEL,
    LocalOptions,
    PromptOptions,
    SamplingOptions,
    local_options,
    sampling_options,
)
from toolroll.models.single_options import length_option
from toolroll.numerics.grid import ATTENTION, KEPT, KV, LINEAR, PRECISIONS, read_axis, read_grid, settings
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.numerics import RunPrompt, RunRecord

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.numerics.runner import Prepare
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  A grid of configurations, and how far their answers differ:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o prompts.jsonl
    layercast-run prompts.jsonl --model sprite --grid batch=1,2 precision=fp16,fp32 --response-tokens 8 -o runs.jsonl
    repro-report runs.jsonl --table
  Greedy answers with 16-bit weights and fp32 arithmetic:
    layercast-run PROMPTS.jsonl --model NAME --response-tokens 256 -o answers.jsonl
  The same bits whatever the batch:
    layercast-run PROMPTS.jsonl --model NAME --attention alone --batch-size 16 -o answers.jsonl
  Go on with a grid that was interrupted:
    layercast-run PROMPTS.jsonl --model NAME --grid batch=1,8,16 tp=1,2 precision=bf16,layercast -o RUNS.jsonl --resume
"""

NOTES = """
Precisions
    bf16, fp16, fp32    weights, arithmetic and cache in this type, as transformers runs it
    layercast           weights and biases of linear layers held in 16 bit, raised to fp32 for each product; all other
                        weights, the arithmetic and the cache are fp32

Raising is exact, so layercast computes what fp32 computes on the same 16-bit weights: with --linear naive to the bit,
with the others in another order of summation. Every linear layer is converted, lm_head too; where it shares its tensor
with the token embedding, they go on sharing it. Weights keep the checkpoint's own 16-bit type. A float32 checkpoint is
rounded to bfloat16, with a warning; --keep fp32 rounds nothing, and saves nothing. Where a checkpoint's type
and the precision differ, a warning says how many bits are lost. Quantized checkpoints are refused. TF32 is turned off.

--linear: naive makes an fp32 copy of the whole matrix for each product; it is the oracle of the tests, and slow.
blocked raises some rows at a time into one piece of memory. fused (numba on a CPU, Triton on a GPU) never has an fp32
copy, and adds each dot product up in one fixed order, whatever the batch and the number of threads. auto is fused on a
CPU, and blocked on a GPU and on a CPU that has no fused multiply-add.

Batches. A batch is so many prompts in the order of the input, the last one may be smaller; with --samples each prompt
has that many sequences in it. Prompts of different lengths are padded on the left, with positions that do not count
the padding. The batch shrinks as answers end. Nothing is shared between sequences or kept from batch to batch.

--attention alone computes each sequence by itself, without its padding, and activations in pieces of one size. With
--linear fused the answer to a prompt is then the same to the bit in every batch and for every number of threads, on one
machine; not so for mixtures of experts, and for prompts with images. sdpa and eager are those of transformers.

--sim-tp N computes every row-parallel layer (o_proj, down_proj and what other models call them) as N devices would: N
products over parts of the input, summed in the working type. It is simulated on one device, and records say so
(tp_simulated): real devices sum in an order of their own, and cut the other layers too, which changes no dot product.

A grid varies batch, tp, precision, threads, linear, keep, kv and attention; each may also be given a list by the
option of its own (--batch-size 1,8,16). linear and keep are of layercast alone. With a grid the prompts are held in
memory. --resume continues a grid: what an earlier run wrote is not computed again, and a batch that was cut is
computed as a whole, so that the result is the same. A prompt that cannot be run is an error row in each configuration.

Records hold `config`, all that an answer may depend on: precision and types, batch, threads, device and processor,
versions of the libraries and the library of matrix products. `top1_prob`, `top2_prob`, `gap`, `logprobs` have a number
for each token; probabilities are those at the sampling temperature, before top-p and top-k. weight_bytes are those of
the weights as held, kv_bytes those of the answer's keys and values when it ended, with its padding. --timings adds
times and peak memory, which differ from run to run.

--backend vllm runs the plain precisions in vLLM: a batch is then one call of its generate, tp is real,
and --batch-invariant turns on its batch-invariant kernels, which exist for some GPUs only. Images need hf.
Not run on a GPU here: CUDA, the Triton kernel (checked in Triton's interpreter), vLLM on CUDA.
"""


@dataclass(frozen=True, slots=True)
class AxisOptions:
    """The values of the options that are axes of a grid; None where not given."""

    precision: str | None = None
    keep: str | None = None
    linear: str | None = None
    kv_dtype: str | None = None
    attention: str | None = None
    sim_tp: str | None = None
    threads: str | None = None
    batch_size: str | None = None
    grid: tuple[str, ...] = ()

    def axes(self) -> dict[str, tuple[str | int, ...]]:
        """The axes and their values. UsageError for what is none, or is given twice."""
        found = read_grid(self.grid)
        for option, axis in _AXIS_OF.items():
            text = getattr(self, option)
            if text is not None:
                place = f"--{option.replace('_', '-')}"
                if axis in found:
                    raise UsageError(f"{axis} is in --grid too", place=place)
                found[axis] = read_axis(axis, text, place=place)
        return found


_AXIS_OF = {
    "precision": "precision",
    "keep": "keep",
    "linear": "linear",
    "kv_dtype": "kv",
    "attention": "attention",
    "sim_tp": "tp",
    "threads": "threads",
    "batch_size": "batch",
}


def _axis_options() -> list[click.Option]:
    def axis(name: str, metavar: str, text: str) -> click.Option:
        return GroupedOption([name], section="Configuration", metavar=metavar, help=text)

    return [
        axis("--precision", "|".join(PRECISIONS), "Types of weights and arithmetic. [default: layercast]"),
        axis(
            "--keep",
            "|".join(KEPT),
            "layercast: the type in which linear weights are held. [default: auto, their own]",
        ),
        axis("--linear", "|".join(LINEAR), "layercast: how weights are raised. [default: auto]"),
        axis("--kv-dtype", "|".join(KV), "Type of the cache; auto is that of the arithmetic. [default: auto]"),
        axis(
            "--attention",
            "|".join(ATTENTION),
            "sdpa, eager: of transformers; alone: nothing depends on the batch. [default: sdpa]",
        ),
        axis("--sim-tp", "N,...", "Simulate tensor parallelism over N devices. [default: 1]"),
        axis("--threads", "N,...", "Threads of the CPU. [default: the cores of this process]"),
        axis("--batch-size", "N,...", "Prompts at a time. [default: 8]"),
        GreedyOption(
            ["--grid"],
            section="Configuration",
            multiple=True,
            metavar="NAME=VALUE,...",
            help="Run every combination of these: batch=1,8 tp=1,2 precision=bf16,fp32 ...",
        ),
    ]


def _running() -> list[click.Option]:
    """The options of a model in this process, but for --dtype, which --precision is in place of."""
    return [option for option in local_options(GroupedOption, ANY_MODEL) if option.name != "dtype"]


@command(
    "layercast-run",
    system="LayerCast",
    reads=view(RunPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "answer", "draw"),
    adds=field_types(
        RunRecord,
        *("sample", "config", "seed", "tokens", "text", "logprobs", "top1_prob", "top2_prob", "gap", "top_ids"),
        *("top_logprobs", "n_tokens", "finish", "correct", "weight_bytes", "kv_bytes", "ms", "peak_rss_bytes"),
    ),
    key=("config", "id", "sample"),
    slow=True,
    expands=True,
    epilog="See repro-report(1), answer-check(1), text-rollout(1), toolroll-records(5).",
)
@click.option(
    "--backend",
    type=click.Choice(["hf", "vllm"]),
    default="hf",
    show_default=True,
    help="transformers in this process, or vLLM (plain precisions).",
)
@click.option("--batch-invariant", is_flag=True, help="With vllm: use its batch-invariant kernels.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a prompt.")
@declares(length_option(GroupedOption, 512))
@click.option(
    "--top-logprobs",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Most probable tokens to record at each position; 0 leaves top_ids and top_logprobs out.",
)
@click.option(
    "--check",
    type=click.Choice(KINDS),
    help="Compare answers with the row's `answer`, as answer-check(1) does, and write `correct`.",
)
@click.option("--timings", is_flag=True, help="Write `ms` and `peak_rss_bytes`, which differ from run to run.")
@option_group("running", LocalOptions, _running())
@uses_prompt
@uses_seed
@option_group("sampling", SamplingOptions, sampling_options(GroupedOption, temperature=0.0))
@option_group("configuration", AxisOptions, _axis_options())
def main(
    rows: Rows[Any],
    *,
    asking: PromptOptions,
    sampling: SamplingOptions,
    configuration: AxisOptions,
    running: LocalOptions,
    backend: str,
    batch_invariant: bool,
    samples: int,
    response_tokens: int,
    top_logprobs: int,
    check: str | None,
    timings: bool,
    seed: int,
    log: Log,
    stop: StopFlag,
) -> Iterator[Row[Any]]:
    """Answer prompts under numerical configurations, to see what the arithmetic changes.

    Reads rows with `prompt` or `messages`, and `images` for a model that takes them. Writes, for each configuration,
    prompt and sample, the answer's token ids with their probabilities.
    """
    from toolroll.models.device import choose_device
    from toolroll.models.load import introduced
    from toolroll.numerics.backends import Transformers
    from toolroll.numerics.runner import Job, Runner

    if batch_invariant and backend != "vllm":
        raise UsageError("goes with --backend vllm", place="--batch-invariant")
    grid = settings(configuration.axes())
    place = choose_device(running.device)
    log.note(introduced(running.model, f"{'vLLM' if backend == 'vllm' else 'transformers'} on {place.name}"))
    prepare: Prepare
    if backend == "vllm":
        from toolroll.numerics.vllm_backend import VLLM

        prepare = VLLM(running.model, place, top_logprobs, log, running.trust_remote_code, batch_invariant)
    else:
        prepare = Transformers(
            running.model,
            place,
            top=top_logprobs,
            log=log,
            stopped=lambda: bool(stop),
            trust_remote_code=running.trust_remote_code,
        )
    with ExitStack() as held:
        job = Job(
            device=place,
            prompter=asking.prompter,
            sampling=sampling.sampling(seed=seed, max_tokens=response_tokens),
            samples=samples,
            seed=seed,
            top=top_logprobs,
            images=running.images,
            check=None if check is None else held.enter_context(_grader(check)),
            timings=timings,
        )
        yield from Runner(job, prepare, log, lambda: bool(stop), rows.done).run(rows, grid)


@contextmanager
def _grader(kind: str) -> Iterator[Callable[[str, Any], int | None]]:
    from toolroll.checking import checker

    with checker(kind) as grading:
        yield lambda text, answer: grading.check(text, answer).correct
