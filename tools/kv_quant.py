"""kv-quant: quantize keys and values of visual tokens to 1, 2, 4 or 8 bits.

Rules and formulas: toolroll.kvcache.ranges, toolroll.kvcache.scheme; files: toolroll.kvcache.packed.
Paper: arXiv:2502.14882.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, offers_table, option_group, uses_seed
from toolroll.errors import ToolrollError, UsageError
from toolroll.kvcache.options import SchemeOptions, kernels_option, queries_option, scheme_options
from toolroll.records import field_types
from toolroll.records.kvcache import KvQuality

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Pack a cache to 1 bit, and see what that did to each head:
    echo '{"id": "p0", "prompt": "A text to be packed."}' | kv-dump --model sprite --pack all --out kv > dumped.jsonl
    kv-quant kv/p0.safetensors --rule lloyd1 --bits 1 -o packed.safetensors --report -
  Only look, at CalibQuant's own recipe:
    kv-quant kv/p0.safetensors --rule calibquant --bits 1 --table
  Back again:
    kv-quant --dequantize packed.safetensors -o again.safetensors
  KIVI's 2 bits: keys by channel and values by token, in groups of 32:
    kv-quant KV.safetensors --rule minmax --bits 2 --group-size 32 --along-v channels --layout kivi32 -o packed
  Which tokens are visual, said here rather than by the file:
    kv-quant KV.safetensors --spans 35:611 --bits-k 2 --bits-v 1 -o packed.safetensors
"""

NOTES = """
KV files are safetensors with `layers.{l}.k` and `layers.{l}.v` [B, H, T, D] in fp32, fp16 or bf16; kv-dump writes them.
Keys are as attention reads them, behind any rotation. `span` [n, 3] (item, start, end) or `mask` [B, T] says which
tokens are visual; without either, and without --spans, all are. The others stay as they are, bit by bit.

With L = 2^bits - 1, a code is round((x - lo) / scale) clamped to 0..L, ties to even, and comes back as lo + scale code,
scale being (hi - lo) / L. The rule gives lo and hi of each group:

    minmax      the smallest and the largest value
    calibquant  these times --shrink: towards zero, so that channels with an offset lose their range
    quantile    the quantiles alpha and 1 - alpha; by itself 0.2125 at 1 bit, 0.0683 at 2, 0.005 at 4, 0 at 8
    lloyd1      1 bit: the mean -+ the mean distance from it; needs no sorting
    mse         minimum and maximum drawn towards the mean, as far as gives the least squared error (39 steps)

The first version of the paper names groups and quantiles, and neither sizes nor alpha; these defaults are measured on
normal values, not the paper's. lo and scale are stored as fp16 and codes are made for the stored ones; with --ranges
fp32 a constant channel comes back exactly whatever its value.

--layout msb8 needs 8 / bits to divide the channels of a head, kivi32 32 / bits; kivi32 fills up tokens of keys with
zeros. Groups along which codes lie begin where a byte or word does. A last group may be smaller than the others.

Without -o, nothing is packed and the report goes to stdout. With -o, it is made if --report is given. Sizes of
what is packed are told on stderr: bits of an element's code, with lo and scale, and of the whole sequence, visual or
not, without headers. The last one is what memory notices.

nmse divides by the variance of each channel: dividing by the mean square would let an offset hide all error.
score_rmse, kl, top1_frac, top8_frac, mass_shift and output_error need queries: those that kv-dump puts into the file,
or --queries made up ones, normal and as long as gives scores a deviation of 1. They rank rules and predict no model's
answers.

--kernels numba is faster for much data, and starts slower; both give the same codes from the same lo and scale. One
head is in memory beside the layer that is packed.
"""


@command(
    "kv-quant",
    system="CalibQuant",
    adds=field_types(KvQuality, *KvQuality.__struct_fields__),
    key=("layer", "item", "head", "part"),
    source=True,
    makes_file=True,
    epilog="See kv-dump(1), kv-calibrate(1), kv-eval(1), toolroll-records(5).",
)
@click.argument("file", type=click.Path(path_type=Path), metavar="KV.safetensors", help="Keys and values.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the packed file here.")
@click.option("--dequantize", is_flag=True, help="Turn a packed file into a KV file again.")
@click.option(
    "--spans",
    multiple=True,
    metavar="START:END,...",
    help="Visual tokens, in place of what the file says; none: none. Once, or once for each sequence of the batch.",
)
@option_group("scheme", SchemeOptions, scheme_options(GroupedOption))
@declares(queries_option(GroupedOption))
@declares(kernels_option(GroupedOption))
@uses_seed
@offers_table
def main(
    *,
    file: Path,
    out: Path | None,
    output: str | None,
    dequantize: bool,
    spans: tuple[str, ...],
    scheme: SchemeOptions,
    queries: int,
    backend: Any,
    seed: int,
    log: Log,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Quantize keys and values of visual tokens to 1, 2, 4 or 8 bits.

    Reads a file of keys and values, writes a packed one, and reports what became of every head.
    """
    from toolroll.kvcache.kvfile import KVFile
    from toolroll.kvcache.packed import PackedFile, write_whole
    from toolroll.kvcache.packing import measure, packing
    from toolroll.kvcache.report import Report
    from toolroll.kvcache.tensors import check_apart

    if out is not None:
        check_apart(file, out)
        if output is not None and Path(output) == out:
            raise UsageError("the packed file and the report cannot go to the same place", place=output)
    if dequantize:
        if out is None or output is not None:
            raise UsageError("needs -o FILE and gives no report", place="--dequantize")
        write_whole(PackedFile(file), out, backend=backend)
        return
    source = KVFile(file)
    masks = _masks(spans, source) if spans else source.masks()
    choose = scheme.chooser(source.layers)
    wanted = out is None or output is not None
    report = Report(source, masks, choose, queries, seed) if wanted else None
    for layer in packing(source, out, masks, choose, backend=backend, look=report.look if report else None):
        if report is not None:
            yield from report.rows(layer)
        if stop:
            return
    if out is not None:
        _tell(measure(source, masks, choose), log)


def _masks(spans: tuple[str, ...], source: Any) -> Any:
    import numpy as np

    from toolroll.kvcache.spans import mask_of, read_spans

    if len(spans) not in (1, source.items):
        raise UsageError(f"given {len(spans)} times, and there are {source.items} sequences", place="--spans")
    try:
        masks = [mask_of(read_spans(one), source.tokens) for one in spans]
    except ToolrollError as error:
        raise UsageError(error.why, place="--spans") from error
    return np.stack(masks * (source.items // len(masks)))


def _tell(size: Any, log: Log) -> None:
    if not size.packed:
        log.note("no visual tokens: nothing is quantized")
        return
    log.note(
        f"{size.nominal:.4g} bits an element, {size.effective:.4f} with ranges, {size.whole:.4f} of the whole sequence"
        f"; {size.before_bytes / 1e6:.3f} MB become {size.bytes / 1e6:.3f} MB"
    )
