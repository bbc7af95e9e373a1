"""pair-logps: what a reference model says of pairs of answers, for dpo-train and TRL.

One row in, one row out, in order; --batch-rows are held at a time. Pairs to tokens: toolroll.train.pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, uses_device, uses_images
from toolroll.errors import RowError
from toolroll.models.single_options import dtype_option
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.training import Pair
from toolroll.train.options import length_options

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.train.pairs import Encoded, PairScorer

EXAMPLES = """
  Once, for many runs of dpo-train, and how many tokens the answers have:
    echo '{"id": "sum", "prompt": "What is 2 + 2?", "chosen": "4", "rejected": "five, or so"}' > pairs.jsonl
    pair-logps pairs.jsonl --model sprite -o ready.jsonl
    jq -c '[.chosen_tokens, .rejected_tokens]' ready.jsonl
  Pairs with images, those that are too long left out:
    pair-logps PAIRS.jsonl --model NAME --images PHOTOS --max-tokens 2048 --on-long skip > ready.jsonl
"""

NOTES = """
Log-probabilities are sums over the answer's tokens, in nats, at temperature 1, its end included: the end-of-text token
behind an answer that is text, what the chat template closes a message with. They are those TRL computes. A pair that is
trained on with other --max-tokens than here, and cut by it, needs them anew.

Results do not depend on --batch-rows and --micro-tokens but for rounding.
"""


@command(
    "pair-logps",
    system="Training",
    reads=view(Pair, "id", "prompt", "chosen", "rejected", *IMAGE_FIELDS, "weight"),
    adds=field_types(
        Pair, "ref_chosen_logps", "ref_rejected_logps", "prompt_tokens", "chosen_tokens", "rejected_tokens"
    ),
    key=("id",),
    slow=True,
    epilog="See dpo-train(1), toolroll-records(5).",
)
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    help="The reference: a Hugging Face folder or hub id, a .gguf file, or `embedded`; an image-text model for pairs "
    "with images.",
)
@uses_images
@declares(*length_options(GroupedOption))
@click.option(
    "--batch-rows", type=click.IntRange(min=1), metavar="N", default=32, show_default=True, help="Rows held at a time."
)
@click.option(
    "--micro-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    default=8192,
    show_default=True,
    help="Tokens computed at a time, padding included: memory, not results.",
)
@uses_device
@declares(dtype_option(GroupedOption))
def main(
    rows: Rows[Any],
    *,
    model: str,
    images: Path | None,
    max_tokens: int,
    on_long: Any,
    batch_rows: int,
    micro_tokens: int,
    device: str,
    dtype: str,
    log: Log,
) -> Iterator[Row[Any]]:
    """Add to pairs what a reference model says of their answers.

    Reads pairs of a better and a worse answer to one prompt, with images or without. Adds the log-probabilities of
    both, `ref_chosen_logps` and `ref_rejected_logps`, and the numbers of tokens.
    """
    from toolroll.train.pairs import PairScorer, TooLong, encode_row

    scorer: PairScorer | None = None
    n_long = 0
    held: list[tuple[Row[Any], Encoded | None]] = []
    for row in rows:
        if scorer is None:
            scorer = PairScorer.load(model, device, dtype, max_tokens=max_tokens, on_long=on_long, notify=log.info)
        try:
            held.append((row, encode_row(scorer.encoder, row, images)))
        except RowError as error:
            row = row.fail(error.why)
            if on_long != "fail" and isinstance(error, TooLong):
                row.dropped = True
                n_long += 1
            held.append((row, None))
        if len(held) == batch_rows or not rows.ready():
            yield from _scored(scorer, held, micro_tokens)
            held = []
    if scorer is not None:
        yield from _scored(scorer, held, micro_tokens)
    if n_long:
        log.warn(f"{n_long} pairs were left out: longer than --max-tokens {max_tokens}")


def _scored(scorer: PairScorer, held: list[tuple[Row[Any], Encoded | None]], micro_tokens: int) -> Iterator[Row[Any]]:
    pairs = [pair for _, pair in held if pair is not None]
    found = iter(scorer(pairs, micro_tokens))
    for row, pair in held:
        if pair is None:
            yield row
            continue
        chosen, rejected = next(found)
        yield row.add(
            ref_chosen_logps=chosen,
            ref_rejected_logps=rejected,
            prompt_tokens=len(pair.prompt),
            chosen_tokens=len(pair.chosen),
            rejected_tokens=len(pair.rejected),
        )
