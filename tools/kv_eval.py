"""kv-eval: answer with packed caches, and say how far that is from answers with a dense one.

The cache and its attention: toolroll.kvcache.cache, toolroll.kvcache.postscale; what is compared:
toolroll.kvcache.evaluate. Paper: arXiv:2502.14882.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_prompt
from toolroll.models.options import ANY_MODEL, LocalOptions, PromptOptions, local_options
from toolroll.models.single_options import length_option
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.kvcache import KvAnswer, KvPrompt

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  One bit for what stands for images, beside KIVI and a dense cache:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o prompts.jsonl
    kv-eval prompts.jsonl --model sprite --cache dense --cache lloyd1:bits=1 --cache kivi:residual=0 -o answers.jsonl
    jq -c '[.id, .cache, .response, .kl, .kv_ratio]' answers.jsonl
  A language model with a passage packed, and the perplexity of texts that are there:
    kv-eval PASSAGES.jsonl --pack text --cache minmax:bits=2 --cache quantile:bits=2
  The authors' recipe, with their map of scores, and CIDEr or F1 of what comes out:
    kv-eval CAPTIONS.jsonl --model sprite --cache calibquant:bits=1,tau=0/3 | caption-eval --summary
"""

NOTES = """
For each row and each --cache, a row with the answer and what differs. --cache NAME[:FIELD=VALUE,...]:

    dense                          transformers' own
    minmax calibquant quantile     packed by this rule: bits (1), bits_k, bits_v, layer_bits (0-1=4/4+31=8), alpha,
    lloyd1 mse                     shrink, group (0), along_k, along_v, layout, ranges, tau (T1/T2, or a file of
                                   kv-calibrate); kv-quant(1) says what they are
    kivi                           keys by channel, values by token, in groups: bits (2), group (32), residual (128):
                                   all tokens but the last residual to 2 residual - 1
    hqq quanto                     QuantizedCache of transformers, with these packages: bits, group, residual,
                                   axis_key, axis_value; all tokens, and all of them unpacked for each new one
    fp8                            the same in 8-bit floats, with a scale for each tensor

What is packed by a rule: the tokens that --pack names, once, when the prompt was read, which is done exactly. All
other tokens stay as they are, those that the model writes too. Attention reads codes as they are: the dequantized keys
and values of the block never exist. Heads that share keys, and beams, share codes. Each prompt of a batch has its own
spans.

Compared are the tokens of the row's `reference`, or those that the model writes with a dense cache: every cache reads
them behind the prompt. kl, top1_frac and perplexity are over these. `response` is what the model writes with the cache,
without sampling; --beams searches. kv_bytes is measured behind the prompt; kv_ratio is what it is of a dense cache's.

Short prompts gain little: a channel's lo and scale are 32 bits for all packed tokens, and text is not packed. On a CPU
the kernels are numba's; on a GPU keys and values are quantized on the CPU once, and Triton's kernels do the rest, which
were checked in Triton's interpreter and not run on a GPU here.
"""


@command(
    "kv-eval",
    system="CalibQuant",
    reads=view(KvPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "packed_text", "packed_spans", "reference"),
    adds=field_types(KvAnswer, *KvAnswer.__struct_fields__),
    key=("id", "cache"),
    slow=True,
    expands=True,
    epilog="See kv-dump(1), kv-quant(1), kv-calibrate(1), caption-eval(1), toolroll-records(5).",
)
@click.option(
    "--cache",
    "names",
    multiple=True,
    default=("dense", "lloyd1:bits=1"),
    show_default=True,
    metavar="NAME[:FIELD=VALUE,...]",
    help="A cache to answer with; can be given more than once.",
)
@click.option(
    "--pack",
    type=click.Choice(["images", "text", "all"]),
    default="images",
    show_default=True,
    help="Which tokens are packed: those that stand for images, of `packed_text`, or all of the prompt but the last.",
)
@declares(length_option(GroupedOption, 64))
@click.option("--beams", type=click.IntRange(min=1), default=1, show_default=True, help="Beams of the search.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts at a time.")
@click.option("--timings", is_flag=True, help="Write `ms_per_token`, which differs from run to run.")
@option_group("running", LocalOptions, local_options(GroupedOption, ANY_MODEL))
@uses_prompt
def main(
    rows: Rows[Any],
    *,
    asking: PromptOptions,
    running: LocalOptions,
    names: tuple[str, ...],
    pack: str,
    response_tokens: int,
    beams: int,
    batch_size: int,
    timings: bool,
    log: Log,
    stop: StopFlag,
) -> Iterator[Row[Any]]:
    """Answer with packed caches, and say how far that is from answers with a dense one.

    Reads rows with `prompt` or `messages`, and `images` for a model that takes them. Writes a row for each cache.
    """
    from toolroll.kvcache.caches import compared
    from toolroll.kvcache.evaluate import Comparing
    from toolroll.kvcache.running import Prompts, open_model, visual_tokens
    from toolroll.models.asked import PromptReader
    from toolroll.models.base import Sampling
    from toolroll.models.device import choose_device
    from toolroll.models.load import introduced

    device = choose_device(running.device, running.dtype)
    loaded = open_model(running.model, device, trust_remote_code=running.trust_remote_code, notify=log.note)
    log.note(introduced(running.model, f"transformers on {device.text}"))
    caches = [compared(name, loaded.model.config) for name in names]
    prompts = Prompts(loaded, stopped=lambda: bool(stop))
    read = PromptReader(loaded.codec, loaded.processor, asking.prompter, most=prompts.most, folder=running.images)
    sampling = Sampling(max_tokens=response_tokens, temperature=0.0)
    find = visual_tokens(loaded, pack)
    comparing = Comparing(
        prompts, lambda row: (asked := read(row, sampling), find(asked, row.view)), caches, beams, timings
    )
    yield from comparing.run(rows, batch_size, lambda: bool(stop), log)
