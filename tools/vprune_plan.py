"""vprune-plan: search what to prune of a model for a budget of FLOPs, and say what each step costs in quality.

The search: toolroll.pruning.planning. Paper: arXiv:2410.06169.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_prompt
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.options import IMAGE_TEXT_MODEL, LocalOptions, PromptOptions, local_options
from toolroll.models.single_options import length_option
from toolroll.pruning.options import PlanOptions, choice_options, window_options
from toolroll.records import IMAGE_FIELDS, view
from toolroll.records.pruning import VisualPrompt

if TYPE_CHECKING:
    from toolroll.pruning.planning import Sample, Step
    from toolroll.pruning.shape import Shape
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  How much quality each step costs, for half of the visual FLOPs of the embedded model:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 -o samples.jsonl
    vprune-plan samples.jsonl --budget 0.5 --windows 3 --ffns '' --head-shares '' --cuts 0.5 --out plan.json |
      jq -c '.steps[] | [.step, .changed, .visual_ratio, .cost]'
  A plan that leaves a quarter, by prompts with good answers, and answers with it:
    vprune-plan SAMPLES.jsonl --model NAME --budget 0.25 --out PLAN.json
    vprune QUESTIONS.jsonl --model NAME --plan PLAN.json
  Without a window, and no fewer than half of the layers:
    vprune-plan SAMPLES.jsonl --model NAME --budget 0.3 --windows '' --cuts 0.75,0.5 --out PLAN.json
"""

NOTES = """
Rows have `prompt` or `messages`, and `images`; `response` is an answer that the model should find probable. Where a row
has none, the dense model's own greedy answer (--response-tokens) takes its place: the plan is then the one that changes
the model least. A plan's quality is the mean negative log-likelihood of the answers' tokens, in nats; `cost` is how
much it is above the dense model's. It is measured with the plan at work, not masked.

The search starts from the dense model. Each step prunes one thing more, to the next rung of its ladder: the window
(--windows), the heads (--head-shares, shares of all heads, chosen by the ratio of vprune-calibrate on the same
prompts), the neurons (--ffns), the cut (--cuts, shares of the layers). All that can be next are tried, and the one that
costs least for each FLOP it saves is taken, until at most --budget of the visual FLOPs is left: those of
vprune-flops(1), --pairs full, with the text of the prompts. What goes below the budget is not counted as saved. Heads
and neurons go no further than the budget asks, to between two rungs, and at the end what was pruned more than that is
given back, a head or a neuron at a time: where either is pruned, one more would exceed the budget. Windows and cuts are
those listed. -v tells of each step when it is made. The last one's plan is in the record, with all steps, and in --out.
Such a search is greedy: it does not try what two steps would do together.

Prompts without an image say nothing, and are counted.

A window is one that looks back, and tiles do not see each other, unless --no-window-causal and --cross-tile say
otherwise. Models and what they cannot do: see vprune(1).
Not run on a GPU here: CUDA.
"""


_LADDERS = {"windows": (int, 1.0), "head_shares": (float, 0.0), "ffns": (float, 1.0), "cuts": (float, 0.0)}


def _ladder(name: str, text: str) -> tuple[Any, ...]:
    """The numbers of a list. UsageError for what is none."""
    kind, least = _LADDERS[name]
    most = 1.0 if least == 0 else 1e6
    place = f"--{name.replace('_', '-')}"
    try:
        values = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of numbers", place=place) from error
    if not all(least <= value <= most for value in values):
        raise UsageError(f"numbers have to be in {least:g}..{most:g}", place=place)
    return values


@command(
    "vprune-plan",
    system="YOPO",
    reads=view(VisualPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "response", "draw"),
    reducer=True,
    epilog="See vprune(1), vprune-calibrate(1), vprune-flops(1), toolroll-records(5).",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, 1, min_open=True),
    required=True,
    metavar="SHARE",
    help="How much of the visual tokens' FLOPs may be left.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan here, for vprune --plan.")
@click.option(
    "--windows", default="9,7,5,3", show_default=True, metavar="W,...", help="Windows W to try; see vprune --window."
)
@click.option(
    "--head-shares",
    default="0.75,0.5,0.25",
    show_default=True,
    metavar="SHARE,...",
    help="Shares of heads that stay active, on average.",
)
@click.option(
    "--ffns",
    default="2,4,8",
    show_default=True,
    metavar="R,...",
    help="Ratios R to try; see vprune --ffn.",
)
@click.option(
    "--cuts",
    default="0.875,0.75,0.625,0.5,0.375",
    show_default=True,
    metavar="SHARE,...",
    help="Shares of the layers that visual tokens enter.",
)
@declares(*choice_options(GroupedOption))
@option_group("pruning", PlanOptions, window_options(GroupedOption))
@click.option("--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Prompts at a time.")
@declares(length_option(GroupedOption, 32, ", of the dense model, for rows without one"))
@option_group("running", LocalOptions, local_options(GroupedOption, IMAGE_TEXT_MODEL))
@uses_prompt
def main(
    rows: Rows[Any],
    *,
    running: LocalOptions,
    asking: PromptOptions,
    budget: float,
    out: Path | None,
    protect_layers: int,
    group_heads: bool,
    pruning: PlanOptions,
    batch_size: int,
    response_tokens: int,
    files: tuple[str, ...],
    output: str | None,
    errors: str | None,
    log: Log,
    stop: StopFlag,
    **lists: Any,
) -> Iterator[dict[str, Any]]:
    """Search what to prune of a model for a budget of FLOPs, and say what each step costs in quality.

    Reads prompts with images, and with answers or without; writes the plan with the steps that led to it, and the plan
    to a file.
    """
    from toolroll.io.paths import check_apart, check_writable
    from toolroll.pruning.measure import Meter
    from toolroll.pruning.opening import open_model
    from toolroll.pruning.plan import Plan, write_plan
    from toolroll.pruning.planning import Search, ladders
    from toolroll.pruning.support import parts_of

    check_apart((out, output, errors), (*(files or ("-",)), *running.files))
    if out is not None:
        check_writable(out)
    rungs = {name: _ladder(name, text) for name, text in lists.items()}
    loaded = open_model(
        running.model, running.device, running.dtype, notify=log.note, trust_remote_code=running.trust_remote_code
    )
    shape = parts_of(loaded.model, Plan(window=1 if rungs["windows"] else None, ffn=2.0 if rungs["ffns"] else 1)).shape
    samples, n_left_out = _samples(rows, loaded, asking, running, response_tokens, batch_size, lambda: bool(stop))
    if rows.cut or stop:
        return
    if not samples:
        raise ToolrollError("no prompt with an image to judge plans by")
    with Meter(loaded.model, grouped=group_heads) as meter:
        measured = [found for sample in samples if (found := meter(sample.asked)) is not None]
    rungs_of = ladders(
        shape,
        windows=rungs["windows"],
        shares=rungs["head_shares"],
        ratios=rungs["ffns"],
        cuts=rungs["cuts"],
        scores=_scores(measured),
        protect=protect_layers,
    )
    search = Search(loaded, shape, samples, batch=batch_size, stopped=lambda: bool(stop))
    base = Plan(window_causal=pruning.window_causal is not False, cross_tile=bool(pruning.cross_tile))
    steps: list[dict[str, Any]] = []
    last: Step | None = None
    for step in search.steps(rungs_of, base, budget):
        steps.append(_step(len(steps), step, last, steps[0]["nll"] if steps else step.nll, shape))
        last = step
        log.info(f"{step.changed or 'dense'}: {step.visual_ratio:.3f} of the FLOPs, cost {steps[-1]['cost']:.4f} nats")
    if last is None or last.visual_ratio > budget:
        return
    if out is not None:
        write_plan(out, last.plan)
    yield {
        "model": loaded.name,
        "budget": budget,
        "visual_ratio": last.visual_ratio,
        "kv_ratio": last.kv_ratio,
        "cost": steps[-1]["cost"],
        "n_samples": len(samples),
        "n_left_out": n_left_out,
        "n_answer_tokens": search.n_tokens,
        "steps": steps,
        "plan": last.plan.as_dict(),
        "plan_hash": last.plan.hash,
    }


def _samples(
    rows: Rows[Any], loaded: Any, asking: PromptOptions, running: LocalOptions, tokens: int, batch: int, stopped: Any
) -> tuple[list[Sample], int]:
    """What plans are judged by, and how many prompts had no image."""
    from dataclasses import replace

    from toolroll.models.base import Sampling
    from toolroll.pruning.opening import batches_of, longest, reader_of
    from toolroll.pruning.planning import sample_of

    reader = reader_of(loaded, asking, running.images)
    most = longest(loaded)
    found: list[Sample] = []
    n_left_out = 0
    for row in rows:
        try:
            asked = reader(row, Sampling(temperature=0, max_tokens=tokens))
            sample = sample_of(loaded, asked, row.view.response, most)
            if sample is None:
                n_left_out += 1
            else:
                found.append(sample)
        except RowError as error:
            rows.refuse(row, error.why)
    unanswered = [place for place, sample in enumerate(found) if not sample.answer]
    writer = batches_of(loaded, stopped)
    for start in range(0, len(unanswered), batch):
        some = unanswered[start : start + batch]
        written = writer.write([found[place].asked for place in some])
        if written is None:
            return [], n_left_out
        for place, one in zip(some, written, strict=True):
            found[place] = replace(found[place], answer=tuple(one.ids))
    return found, n_left_out


def _scores(measured: list[list[list[float]]]) -> list[list[float]]:
    from toolroll.pruning.heads import voted

    return [voted([sample[layer] for sample in measured], 0.4) for layer in range(len(measured[0]))]


def _step(number: int, step: Step, before: Step | None, first_nll: float, shape: Shape) -> dict[str, Any]:
    plan = step.plan
    return {
        "step": number,
        "changed": step.changed,
        "window": plan.window,
        "kept_heads": sum(sum(plan.active(layer, shape)) for layer in range(shape.layers)) / shape.layers,
        "ffn": plan.ffn,
        "cut": plan.cut,
        "visual_ratio": step.visual_ratio,
        "kv_ratio": step.kv_ratio,
        "nll": step.nll,
        "cost": step.nll - first_nll,
        "step_cost": 0.0 if before is None else step.nll - before.nll,
        "n_tried": step.n_tried,
        "plan_hash": plan.hash,
    }
