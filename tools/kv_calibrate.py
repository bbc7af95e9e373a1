"""kv-calibrate: choose the map of visual scores that makes attention by packed keys and values most like the exact one.

The map and its choice: toolroll.kvcache.score_map, toolroll.kvcache.calibrate. Paper: arXiv:2502.14882.
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
from toolroll.records.kvcache import KvTau

if TYPE_CHECKING:
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  A map for each layer, from the queries of some prompts; then answers with it:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o prompts.jsonl
    kv-dump prompts.jsonl --model sprite --out kv/ > dumped.jsonl
    kv-calibrate kv/*.safetensors --bits 1 --for layer -o tau.jsonl
    kv-eval prompts.jsonl --model sprite --cache dense --cache lloyd1:bits=1,tau=tau.jsonl > answers.jsonl
"""

NOTES = """
The visual scores x of a query, behind the factor 1 / sqrt(D) and before the softmax, become

    y = (x - g) (d - t2 - g + t1) / (d - g) + g - t1

with g the least and d the largest of them: [g, d] goes to [g - t1, d - t2]. t1 and t2 are tried in 0, 1, 2, 3 as in the
paper. Where d - g < t2 - t1 the map would turn the order of the scores about, as the authors' code does; here all
become equal instead. Scores of other tokens stay, so that t1 = t2 is no map that does nothing: it moves attention
between visual tokens and text.

--criterion output chooses by the error of what attention gives, keys and values both packed; kl by how attention is
spread. The sum is over all files, sequences and queries, and over heads or layers that share a map. (0, 0), no map,
stays where nothing is better. What is best depends on rule and bits: t2 = 3 of the authors' code helps scores that
minmax at 1 bit has inflated; at 2 bits and more, or with levels that are right, it does harm.

Queries are those in the files, from kv-dump, else --queries made up ones, which tell little of a model.
"""


@command(
    "kv-calibrate",
    system="CalibQuant",
    adds=field_types(KvTau, *KvTau.__struct_fields__),
    key=("layer", "head"),
    source=True,
    epilog="See kv-dump(1), kv-quant(1), kv-eval(1), toolroll-records(5).",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="KV.safetensors...",
    help="Keys, values and queries.",
)
@option_group("scheme", SchemeOptions, scheme_options(GroupedOption))
@click.option(
    "--for",
    "scope",
    type=click.Choice(["model", "layer", "head"]),
    default="layer",
    show_default=True,
    help="What has a map of its own.",
)
@click.option(
    "--criterion",
    "by",
    type=click.Choice(["output", "kl"]),
    default="output",
    show_default=True,
    help="Choose by the error of attention's output, or by KL of its probabilities.",
)
@declares(queries_option(GroupedOption))
@declares(kernels_option(GroupedOption))
@uses_seed
@offers_table
def main(
    *,
    files: tuple[Path, ...],
    scheme: SchemeOptions,
    scope: str,
    by: Any,
    queries: int,
    backend: Any,
    seed: int,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Choose the map of visual scores that makes attention by packed keys and values most like the exact one.

    Reads files of keys, values and queries, writes (t1, t2) for the model, each layer or each head.
    """
    from toolroll.kvcache.calibrate import joined, try_all
    from toolroll.kvcache.kvfile import KVFile

    sources = [KVFile(file) for file in files]
    for source in sources[1:]:
        if source.layers != sources[0].layers or any(
            source.shape(n, "k")[1::2] != sources[0].shape(n, "k")[1::2] for n in source.layers
        ):
            raise ToolrollError(f"has other layers or heads than {files[0]}", place=str(source.file.path))
    choose = scheme.chooser(sources[0].layers)
    given = [(source, source.masks()) for source in sources]
    if not queries and not any(source.queries(layer) for source in sources for layer in source.layers):
        raise UsageError("the files have no queries to choose by", place="--queries")
    layers = []
    for layer, heads in try_all(given, choose, by=by, made_up=queries, seed=seed, backend=backend):
        if scope == "head":
            for head, one in enumerate(heads):
                yield _row(layer, head, one, by)
        elif scope == "layer":
            yield _row(layer, None, joined(heads), by)
        layers += heads
        if stop:
            return
    if scope == "model":
        yield _row(None, None, joined(layers), by)


def _row(layer: int | None, head: int | None, found: Any, by: Any) -> dict[str, Any]:
    tau = found.best
    return {
        "layer": layer,
        "head": head,
        "t1": tau[0],
        "t2": tau[1],
        "error": found.of(tau, by),
        "error_without": found.of((0.0, 0.0), by),
    }
