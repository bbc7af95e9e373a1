"""vprune: answer prompts about images with a model that skips most of the computation on visual tokens.

The plug-in: toolroll.pruning.plugin. Paper: arXiv:2410.06169.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_prompt, uses_seed
from toolroll.errors import RowError
from toolroll.models.options import (
    IMAGE_TEXT_MODEL,
    LocalOptions,
    PromptOptions,
    SamplingOptions,
    local_options,
    sampling_options,
)
from toolroll.models.single_options import length_option
from toolroll.pruning.options import PlanOptions, pairs_option, plan_options
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.pruning import PrunedAnswer, VisualPrompt

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.models.padded import Asked
    from toolroll.pruning.session import Session
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  The embedded model with a window, half of the neurons, and a cut, beside itself whole:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o questions.jsonl
    vprune questions.jsonl --window 5 --ffn 2 --cut 2 --response-tokens 8 --compare -o answers.jsonl
    jq -c '[.id, .response, .dense_response, .visual_ratio]' answers.jsonl
  A plan that vprune-plan chose, and what it saves:
    vprune QUESTIONS.jsonl --model NAME --plan PLAN.json --compare --timings |
      jq -c '[.id, .response, .dense_response, .ttft_ms / .dense_ttft_ms]'
  A checkpoint of the authors, with their mask:
    vprune QUESTIONS.jsonl --model NAME --heads MASK.npy --window 5 --no-window-causal --ffn 2 --cut 16
"""

NOTES = """
Rows have `prompt` or `messages`, and `images`, files. Every visual token stays; what is left out is computation on it:

    --window W   a visual token attends to its neighbours in its own image and to the text before it; W is the side of
                 the square of neighbours, an even W is W-1
    --heads      inactive heads do not see visual tokens, neither when the prompt is read nor when the answer is
                 written, and are not computed on them
    --ffn R      visual tokens use the first m/R neurons of each feed-forward net
    --cut L      from layer L on, visual tokens are not in the model

What is pruned is not computed, and not in the cache. With --softmax authors it is masked as in the authors' released
code instead, behind the softmax, which keeps visual keys in its sum, so that nothing but --ffn is saved; answers are
then those of their code, and differ from what is skipped. In their code a token sees later neighbours too
(--no-window-causal), which is right for their checkpoints; a model that was not trained for it has only seen earlier
ones. Without training, prune less: heads and the cut first. See vprune-plan(1).

With several images or tiles, a window keeps visual tokens of one from seeing those of another; text sees all of them.
--cross-tile lets them see all of earlier ones. The last token of a prompt is computed like text even if it is visual.

Models: LLaVA, LLaVA-NeXT, Qwen2-VL, Qwen2.5-VL, Idefics3, SmolVLM and InternVL of transformers are tested, from small
random ones. Any other with a decoder of plain layers is accepted; for --window it has to be one of those, whose grids
of visual tokens are known: LLaVA-OneVision, for one, has no window. Videos are not read. Refused, with the reason:
projections that are fused (with --heads, also quantized ones or adapters), image tokens that attend in both directions
(Gemma 3, PaliGemma), sliding windows in some layers, cross-attention. Where all layers have the same sliding window
(some of Mistral's), prompts and answers together may have at most so many tokens.

ttft_ms is the time to the first token, image encoder and all; decode_ms that of a further token. Both are of the whole
batch, and differ from run to run, so --timings asks for them. The first prompt of a run is slower than the rest.
flops_dense and flops_pruned are the formulas of vprune-flops(1) for the visual tokens of the prompt; flops_executed is
what the language model multiplied to read it, with text and all (not with --softmax authors). kv_bytes_held is what the
cache held at the first token. Both are null with a --batch-size above 1. Gains are in reading a prompt and in memory; a
written token is only a little faster.

Not run on a GPU here: CUDA.
"""


@command(
    "vprune",
    system="YOPO",
    reads=view(VisualPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "draw"),
    adds=field_types(PrunedAnswer, *PrunedAnswer.__struct_fields__),
    key=("id",),
    slow=True,
    epilog="See vprune-plan(1), vprune-calibrate(1), vprune-flops(1), toolroll-records(5).",
)
@option_group("running", LocalOptions, local_options(GroupedOption, IMAGE_TEXT_MODEL))
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Prompts at a time.")
@declares(length_option(GroupedOption, 256))
@declares(pairs_option(GroupedOption))
@click.option("--compare", is_flag=True, help="Let the dense model answer, too.")
@click.option("--timings", is_flag=True, help="Write times, which differ from run to run.")
@option_group("pruning", PlanOptions, plan_options(GroupedOption))
@uses_prompt
@uses_seed
@option_group("sampling", SamplingOptions, sampling_options(GroupedOption, temperature=0.0))
def main(
    rows: Rows[Any],
    *,
    running: LocalOptions,
    pruning: PlanOptions,
    asking: PromptOptions,
    sampling: SamplingOptions,
    batch_size: int,
    response_tokens: int,
    pairs: Any,
    compare: bool,
    timings: bool,
    seed: int,
    output: str | None,
    errors: str | None,
    log: Log,
    stop: StopFlag,
) -> Iterator[Row[Any]]:
    """Answer prompts about images with a model that skips most of the computation on visual tokens.

    Reads rows with `prompt` or `messages`, and `images`; adds the answer, how long it took and what it cost, dense and
    pruned.
    """
    from toolroll.io.paths import check_apart
    from toolroll.pruning.session import Session

    pruning.check()
    check_apart((output, errors), (*pruning.files, *running.files))
    told = {"pairs": pairs, "compare": compare, "timings": timings, "alone": batch_size == 1}
    session: Session | None = None
    held: list[tuple[Row[Any], Asked | None]] = []
    for row in rows:
        if session is None:
            session = Session.opened(running, pruning, asking, log, lambda: bool(stop))
        try:
            held.append((row, session.read(row, sampling.sampling(seed=seed, max_tokens=response_tokens))))
        except RowError as error:
            held.append((row.fail(error.why), None))
        if len(held) >= batch_size or not rows.ready():
            made = session.answered(held, **told)
            if made is None:
                return
            yield from made
            held = []
    if session is not None and held:
        yield from session.answered(held, **told) or ()
