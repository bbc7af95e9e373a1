"""vprune-calibrate: choose the heads of a model that are to see visual tokens.

Ratios, votes and files: toolroll.pruning.heads; attention is summed in toolroll.pruning.measure. Paper:
arXiv:2410.06169, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_prompt
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.options import IMAGE_TEXT_MODEL, LocalOptions, PromptOptions, local_options
from toolroll.pruning.options import choice_options
from toolroll.records import IMAGE_FIELDS, view
from toolroll.records.pruning import VisualPrompt

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Two heads of each layer on average, and how many each keeps:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o samples.jsonl
    vprune-calibrate samples.jsonl --protect-layers 0 --keep-heads 2 --out heads.safetensors | jq -c .kept_heads
  Half of the heads, by a hundred samples:
    vprune-calibrate SAMPLES.jsonl --model NAME --keep-heads 16 --out HEADS.safetensors
  As the authors did for LLaVA-1.5-13B; whole groups for a model with shared keys:
    vprune-calibrate SAMPLES.jsonl --model NAME --threshold 0.077 --out HEADS.safetensors
    vprune-calibrate SAMPLES.jsonl --model NAME --query-tokens first --threshold 0.07 --group-heads \\
      --out HEADS.safetensors
"""

NOTES = """
For each prompt with images and each head, the ratio is the attention to visual tokens over that to all other tokens,
summed over queries: all tokens of the prompt (--query-tokens all, the authors' way for LLaVA), or the first new token
alone (first, theirs for Qwen2-VL and InternVL, of one sample). A prompt votes for a head whose ratio is above
--threshold. A head is active when more than --vote of the prompts vote for it: with 0.4 and a hundred prompts, 41 votes
make it active and 40 do not. The first --protect-layers layers keep all heads.

--keep-heads K takes the threshold that leaves at most K heads a layer on average, protected layers counted in.

Keys and values of visual tokens can only be left out where no query head that shares them is active: with
--group-heads, query heads that share a key head are decided on together, by the sums of their attention.

The file has the mask as a tensor of true and false, `headmask`, layers x heads; the ratio that decides for each head,
`ratios`, so that another threshold needs no new run; and as metadata the model, threshold, vote, number of samples and
so on. vprune --heads reads it, and the authors' .npy files. A mask belongs to one model.

No map of attention is kept. Prompts are read one at a time. Prompts without an image say nothing, and are counted.
Not run on a GPU here: CUDA.
"""


@command(
    "vprune-calibrate",
    system="YOPO",
    reads=view(VisualPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "draw"),
    reducer=True,
    epilog="See vprune(1), vprune-plan(1), toolroll-records(5).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The mask, a .safetensors file."
)
@click.option("--threshold", type=click.FloatRange(min=0), help="The ratio above which a head gets a vote.")
@click.option(
    "--keep-heads",
    "keep",
    type=click.FloatRange(min=0),
    metavar="K",
    help="Instead: at most K heads a layer on average.",
)
@click.option(
    "--vote",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.4,
    show_default=True,
    help="A head needs more than this share of votes.",
)
@declares(*choice_options(GroupedOption))
@click.option(
    "--query-tokens",
    "queries",
    type=click.Choice(["all", "first"]),
    default="all",
    show_default=True,
    help="Whose attention counts: that of all tokens of the prompt, or of the first new one.",
)
@option_group("running", LocalOptions, local_options(GroupedOption, IMAGE_TEXT_MODEL))
@uses_prompt
def main(
    rows: Rows[Any],
    *,
    running: LocalOptions,
    asking: PromptOptions,
    out: Path,
    threshold: float | None,
    keep: float | None,
    vote: float,
    protect_layers: int,
    queries: Literal["all", "first"],
    group_heads: bool,
    files: tuple[str, ...],
    output: str | None,
    errors: str | None,
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Choose the heads of a model that are to see visual tokens.

    Reads prompts with images; writes a file with the mask, and a record of how many heads each layer keeps.
    """
    from toolroll.io.paths import check_apart, check_writable
    from toolroll.models.base import Sampling
    from toolroll.pruning.heads import HeadMask, about_text, active, check_mask_name, threshold_for, voted, write_mask
    from toolroll.pruning.measure import Meter, quantiles
    from toolroll.pruning.opening import one_by_one, open_model, reader_of

    if (threshold is None) == (keep is None):
        raise UsageError("give one of --threshold and --keep-heads", place="--threshold")
    check_mask_name(out)
    check_apart((out, output, errors), (*(files or ("-",)), *running.files))
    check_writable(out)
    loaded = open_model(
        running.model, running.device, running.dtype, notify=log.note, trust_remote_code=running.trust_remote_code
    )
    reader = reader_of(loaded, asking, running.images)
    samples: list[list[list[float]]] = []
    n_left_out = 0
    with Meter(loaded.model, queries=queries, grouped=group_heads) as meter:
        for row in rows:
            try:
                (found,) = one_by_one(lambda batch: [meter(one) for one in batch], [reader(row, Sampling())]) or (None,)
                if isinstance(found, RowError):
                    raise found
            except RowError as error:
                rows.refuse(row, error.why)
                continue
            if found is None:
                n_left_out += 1
            else:
                samples.append(found)
    if rows.cut:
        return
    if not samples:
        raise ToolrollError("no prompt with an image, so that nothing can be said of any head")
    try:
        scores = [voted([sample[layer] for sample in samples], vote) for layer in range(len(samples[0]))]
        limit = threshold_for(scores, keep, protect_layers) if keep is not None else threshold
    except ToolrollError as error:
        raise UsageError(error.why, place="--keep-heads" if error.place == "keep" else f"--{error.place}") from error
    assert limit is not None
    heads = active(scores, limit, protect_layers)
    finite = limit if limit > float("-inf") else None
    about: dict[str, Any] = {
        "model": loaded.name,
        "n_samples": len(samples),
        "n_left_out": n_left_out,
        "queries": queries,
        "threshold": finite,
        "vote": vote,
        "protect_layers": protect_layers,
        "group_heads": group_heads,
    }
    log.info(f"{sum(map(sum, heads))} of {sum(map(len, heads))} heads are active", str(out))
    write_mask(out, HeadMask(heads, about_text({**about, "weights_id": loaded.weights_id})), scores)
    kept = [sum(layer) for layer in heads]
    yield {
        **about,
        "kept_heads": kept,
        "mean_kept": sum(kept) / len(kept),
        "ratio_quantiles": quantiles(scores),
    }
