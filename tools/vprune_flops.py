"""vprune-flops: count what visual tokens cost a language model, dense and pruned.

Formulas and symbols: toolroll.pruning.flops. Paper: arXiv:2410.06169.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, offers_table, option_group
from toolroll.errors import ToolrollError, UsageError
from toolroll.pruning.options import PlanOptions, pairs_option, plan_options
from toolroll.records import field_types
from toolroll.records.pruning import FlopsRow

if TYPE_CHECKING:
    from toolroll.pruning.shape import Shape
    from toolroll.run.log import Log

EXAMPLES = """
  The embedded model: how the cost grows with the image:
    vprune-flops --model sprite --grid 6x8 --grid 12x16 --text 20 --window 5 --table
  LLaVA-1.5 with a window of 5, half of the neurons and half of the layers:
    vprune-flops --config CONFIG.json --grid 24x24 --text 35+30 --window 5 --ffn 2 --cut 16
  A head mask, and only some of the numbers:
    vprune-flops --config CONFIG.json --grid 24x24 --heads HEADS.safetensors | jq '[.flops_dense, .flops_pruned]'
  Seventeen tiles of a model with tiles:
    vprune-flops --model NAME --grid 17x8x8 --text 120 --cut 15
"""

NOTES = """
A multiplication with its addition is 2 FLOPs. Counted are matrix products: projections, attention, feed-forward nets
(of three matrices; of two for models without a gate). The image encoder is not counted.

flops_dense and flops_pruned are what the visual tokens cost: their rows, and their pairs with each other and with the
text. The text's own cost is flops_text; no plan changes it. The paper's percentages are of visual tokens alone
(visual_ratio), with --pairs full and no text; total_ratio is of all.

--pairs full counts n^2 pairs of n visual tokens, as the paper does, and a window's neighbours on both sides; causal
counts a pair once, as a causal model needs it. The `_other` fields have the other count. A visual token and a text
token are one pair in both. macs_* are multiply-adds, half of the FLOPs; fastv_dense is the formula of FastV and
DivPrune. Published numbers of one model differ by more than a factor of two for this reason alone.

--text is a sum, tokens before the image and after: 35+30. Which are before and which after changes nothing in these
numbers. --grid takes several tiles, 24x24,8x8, and NxHxW for N of them; given more than once, there is a row for each.

With a window and several tiles, visual tokens of one tile do not see those of another, unless with --cross-tile. A
window larger than a grid is all of the grid. An even window W is W-1. --softmax authors saves nothing in the attention.

--config takes a model's config.json; a file that does not end in .json has settings, as for all commands. Values that
a config.json leaves out are the defaults of its model class.
"""

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float8": 1}


@command(
    "vprune-flops",
    system="YOPO",
    adds=field_types(FlopsRow, *FlopsRow.__struct_fields__),
    key=("id",),
    source=True,
    epilog="See vprune(1), vprune-plan(1), vprune-calibrate(1), toolroll-records(5).",
)
@click.option(
    "--model-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The model's config.json; --config FILE.json is the same.",
)
@click.option("--model", metavar="NAME", help="Take the configuration of this Hugging Face folder or hub id.")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    required=True,
    metavar="HxW,...",
    help="Rows and columns of visual tokens, one for each image or tile.",
)
@click.option("--text", default="0", show_default=True, metavar="BEFORE+AFTER", help="Text tokens of the prompt.")
@declares(pairs_option(GroupedOption))
@click.option(
    "--kv-dtype", type=click.Choice(list(_BYTES)), default="float16", show_default=True, help="Type of the cache."
)
@option_group("pruning", PlanOptions, plan_options(GroupedOption))
@offers_table
def main(
    *,
    pruning: PlanOptions,
    model_config: Path | None,
    model: str | None,
    grids: tuple[str, ...],
    text: str,
    pairs: Any,
    kv_dtype: str,
    table: bool,
    output: str | None,
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Count what visual tokens cost a language model, dense and pruned.

    Reads a model's configuration; writes, for each grid, FLOPs by part and bytes of keys and values.
    """
    from toolroll.io.paths import check_apart
    from toolroll.models.load import own_files
    from toolroll.pruning import account
    from toolroll.pruning.flops import Tokens, read_grids, read_text

    check_apart((output,), (model_config, *(own_files(model) if model else ()), *pruning.files))
    shape = _shape(model_config, model, log)
    plan = pruning.read(shape)
    try:
        n_text = read_text(text)
    except ToolrollError as error:
        raise UsageError(error.why, place="--text") from error
    try:
        asked = [(grid, Tokens(read_grids(grid), n_text)) for grid in grids]
    except ToolrollError as error:
        raise UsageError(error.why, place="--grid") from error
    for grid, tokens in asked:
        if plan.window and any(plan.window > max(sides) for sides in tokens.grids):
            log.warn(f"window {plan.window} is larger than the grid: every token sees all of its image", grid)
        row = account.flops_row(shape, tokens, plan, pairs=pairs, kv_dtype=kv_dtype, element_bytes=_BYTES[kv_dtype])
        named = {"id": grid, **row}
        yield account.for_people(named) if table else named


def _shape(config: Path | None, model: str | None, log: Log) -> Shape:
    from toolroll.pruning.shape import read_shape, shape_of_model

    given = (click.get_current_context().default_map or {}).get("model_config")  # by --config FILE.json
    if (config is None) == (model is None) or (given is not None and str(config) != given):
        raise UsageError("name one model: --config FILE.json or --model NAME", place="--config")
    if config is not None:
        return read_shape(config)
    assert model is not None
    return shape_of_model(model, log.note)
