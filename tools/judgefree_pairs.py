"""judgefree-pairs: make preference pairs about images, and check them with a contrastive encoder.

Two branches: toolroll.preference.mixing, branches, unseeing. Strength: toolroll.preference.strength. Decision:
toolroll.preference.decision. Paper: arXiv:2411.17760.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec

from toolroll.cli import GroupedOption, command, option_group, uses_images, uses_model, uses_sampling, uses_seed
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.images import Names
from toolroll.models.options import ModelOptions, SamplingOptions
from toolroll.preference.deciding import Decider, RuleOptions, rule_options, sides
from toolroll.preference.foreign import Form, in_form
from toolroll.preference.options import GenerationOptions, generation_options
from toolroll.preference.scoring import ScoringOptions, image_paths, scored, scoring_options
from toolroll.preference.work import Work
from toolroll.records import field_types, view
from toolroll.records.base import said
from toolroll.records.preference import JudgefreePair
from toolroll.run.blocks import in_blocks, to_do

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.preference.generating import Generator
    from toolroll.preference.scores import Job, Scorer, TextScore
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows

STAGES = ("generate", "score", "decide")
Step = Callable[[list[Work]], list[Work]]  #: what is done to records that are worked on together

EXAMPLES = """
  Pairs about rendered scenes, by the embedded model and encoder:
    pair-make scenes -n 2 --size 96x72 --out pictures -o scenes.jsonl
    jq -c '{id, images: [.original]}' scenes.jsonl | judgefree-pairs --response-tokens 12 > pairs.jsonl
  Pairs about photos, checked, and training on them:
    judgefree-pairs IMAGES.jsonl --model NAME --clip NAME > checked.jsonl
    dpo-train --policy POLICY --model NAME checked.jsonl
  Somebody else's pairs, those that the encoder does not agree with turned around, those it is not sure of left out:
    judgefree-pairs --stage score RLAIF-V.jsonl --images PHOTOS --clip NAME > scored.jsonl
    judgefree-pairs --stage decide --keep-margin 1 --reverse-margin 1 SCORED.jsonl > sure.jsonl
  The ablations: no check, check that only filters, another image instead of none:
    judgefree-pairs --stage decide --on-negative keep SCORED.jsonl > unchecked.jsonl
    judgefree-pairs --stage decide --on-negative drop SCORED.jsonl > filtered.jsonl
    judgefree-pairs --stage generate IMAGES.jsonl --model NAME --h 1 --uncond shuffle:IMAGES.jsonl > random.jsonl
"""

NOTES = """
The values of the paper were not available, nor its code: every default here is ours. That answers mix conditional and
unconditional decoding, that an encoder reverses or discards pairs, and that something is drawn from a Gaussian is
known; which distribution is mixed, which quantity is drawn, the margins, and how the encoder is used are not. Each is
an option.

generate. The chosen answer has h = --h-chosen, the rejected one what --h draws. Both branches read the same answer,
each with its own prompt and cache; tokens are drawn from

    logit                 softmax(((1 - h) c + h u) / T), c and u the logits with and without the image
    prob                  (1 - h) softmax(c / T) + h softmax(u / T)
    switch, -word,        u with probability h, else c; one toss for each token, each word (from its first token on),
    -sentence             each sentence

at --temperature T, with --top-k and --top-p behind. With --mix logit, h below 0 is contrastive decoding, where
--plausibility leaves out tokens whose c is below log(cut) + max c; h = 1 - g is transformers' classifier-free guidance
with scale g. h must be within -10 .. 1, and 0 .. 1 with the other mixes. Mixing needs the logits of both branches, so
it runs in process (--backend hf); where all h are 0, any back end serves. A row that has `chosen` gets only a rejected
answer, one that has both only the later stages. Where --model names none, sprite writes, the embedded model, which
knows rendered scenes and charts; --clip glance (or what TOOLROLL_CLIP names) is the encoder for such. `made` says how
answers were written, and with --round in which round of training. Log-probabilities under a reference are not noted:
pair-logps makes them, of the tokens that are trained on.

Seeds come from --seed, the row's id and the number of the pair, so order, batches and shards change no draw. Scores
move in their last bits with what shares a batch: a run that is resumed makes what was in hand anew, together as before,
so that of the same files, with the same --batch-size and --clip-batch, the output has the same bytes. One that is asked
to stop finishes what is in hand, up to twice --batch-size answers; a smaller one makes that shorter.

score. As clip-score does; `clip` has the scores of both answers, sentence by sentence. --scorer-preset csr is 100 times
1 - mean((1 - a) m + a e), where m and e are the ranks of a sentence among those in its place, divided by their number,
by the model's mean log-probability and by the encoder, and a is --csr-weight; CSR's encoder is CLIP ViT-L/14 at 336
pixels. CSR ranks the branches of a search; of finished answers, sentences count up to where the shorter one ends.

decide. With D = score of chosen - score of rejected: keep where D > --keep-margin, reverse where D <
-(--reverse-margin), else drop (margin). With both 0 only ties are dropped. Scores of other encoders than CLIP want
other margins. Reversal swaps the answers, their scores, how they were made, and their token counts and reference
log-probabilities. Also dropped: an empty answer or one without a sentence (empty), two answers that are the same but
for white space (identical), and what --drop, --script, --max-total-tokens (tokens) and --max-gap (length) name; length
is looked at in the order in which a pair is written. Token counts are those of pair-logps, else of what was written.
--margins clipdpo takes CLIP-DPO's 2 to be of 100 times the cosine. Dropped pairs are not written, but counted (-v, and
in the manifest); with --with-dropped they are, and have `action` drop: filter those before training. judgefree-stats
tells what came out.

Pairs of RLAIF-V (`question`, `image` or `image_path`), POVID (`conversations`, `rejected_conversations`) and TRL,
explicit or with the prompt in the answers, are read, and written in the --format; `image` becomes `images`, and
conversations become `prompt`, `chosen` and `rejected`; other fields stay. A row that has these three is taken for such
a pair, whatever else it has. A prompt that is text without a mark for its image becomes a message, as do its answers;
in messages, <image> in the text gives way to a place. TRL's trainer wants images, not paths: cast the column to
datasets.List(datasets.Image()). dpo-train reads paths.
"""

_READS = msgspec.defstruct(
    "JudgefreePair",
    [("images", Annotated[list[Any] | None, said("Paths of images, or objects with their `path`.")], None)],
    bases=(view(JudgefreePair, "id", "sample", "image", "image_path"),),
    kw_only=True,
    frozen=True,
    gc=False,
)


@command(
    "judgefree-pairs",
    system="Judge-free",
    reads=_READS,
    adds=field_types(
        JudgefreePair,
        *("sample", "prompt", "chosen", "rejected", "images", "images_sha256", "made", "clip"),
        *("action", "reason", "delta", "reversed"),
    ),
    slow=True,
    expands=True,
    epilog="See judgefree-stats(1), clip-score(1), caption-eval(1), dpo-train(1), toolroll-records(5).",
)
@click.option(
    "--stage",
    default="all",
    show_default=True,
    metavar="NAME,...",
    help="generate, score, decide; several with commas between them, or all.",
)
@uses_images
@click.option(
    "--format",
    "form",
    type=click.Choice(["trl", "rlaifv", "llava"]),
    default="trl",
    show_default=True,
    help="The form that pairs are written in: TRL's, which dpo-train reads; RLAIF-V's; LLaVA's conversations, with "
    "rejected_conversations as POVID has them.",
)
@option_group("generation", GenerationOptions, generation_options(GroupedOption))
@option_group("scoring", ScoringOptions, scoring_options(GroupedOption))
@click.option(
    "--scorer-preset",
    type=click.Choice(["csr"]),
    cls=GroupedOption,
    section="Scores",
    help="Score the answers of a pair beside each other as CSR does: by ranks of their sentences, in the encoder's "
    "scores and in the log-probabilities that --model gives them.",
)
@click.option(
    "--csr-weight",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    cls=GroupedOption,
    section="Scores",
    help="What the encoder's ranks weigh with --scorer-preset csr; with 1 no model is asked.",
)
@option_group("rules", RuleOptions, rule_options(GroupedOption))
@uses_seed
@uses_sampling
@uses_model
def main(
    rows: Rows[Any],
    *,
    stage: str,
    images: Path | None,
    form: Form,
    scorer_preset: str | None,
    csr_weight: float,
    generation: GenerationOptions,
    scoring: ScoringOptions,
    rules: RuleOptions,
    model: ModelOptions,
    sampling: SamplingOptions,
    seed: int,
    log: Log,
    manifest: Manifest | None,
) -> Iterator[Row[Any]]:
    """Make preference pairs about images, and check them with a contrastive encoder.

    Reads rows with the path of an image, and perhaps a prompt; a model describes the image, once seeing it, once
    hallucinating as much as it is told to. An encoder then scores both answers, and pairs are kept, reversed or
    dropped. Or reads pairs that exist.
    """
    stages = _stages(stage)
    if click.get_current_context().params["resume"] and (rules.max_gap == "auto" or "duplicate" in rules.drop):
        raise UsageError("--max-gap auto and --drop duplicate need all pairs at once", place="--resume")
    generator: Generator | None = None
    steps: list[Step] = []
    if "generate" in stages:
        from toolroll.preference.generating import Generator

        generator = Generator(generation, model, sampling.sampling(seed=0), seed=seed, folder=images, log=log)
        blocks = generator(rows)
    else:
        blocks = _read(rows, scoring.clip_batch if "score" in stages else 1)
    if "score" in stages:
        steps.append(partial(_scored, cache(lambda: scoring.open(log)), images))
        if scorer_preset == "csr":
            from toolroll.preference.ranked import Ranker

            engine = generator.engine if generator else partial(model.open_image_text, log.note)
            steps.append(Ranker(csr_weight, engine, min_chars=scoring.min_chars, folder=images))
    works = _through(blocks, steps)
    decider = Decider(rules)
    if "decide" in stages:
        works = decider(works)
    try:
        for work in works:
            yield work.result(form)
    finally:
        if generator is not None:
            generator.close()
    if "decide" in stages:
        _tell(decider, log, manifest)


def _stages(text: str) -> tuple[str, ...]:
    found = STAGES if text == "all" else tuple(part.strip() for part in text.split(","))
    if not set(found) <= set(STAGES) or list(found) != [name for name in STAGES if name in found]:
        raise UsageError(f"{text!r} is not all, and not generate, score and decide in this order", place="--stage")
    return found


def _read(rows: Rows[Any], size: int) -> Iterator[list[Work]]:
    """Pairs that exist, as many at a time as are scored together."""
    resumed = click.get_current_context().params["resume"]

    def one(row: Row[Any]) -> Work:
        if resumed and row.view.id is None:
            raise ToolrollError("no `id` to resume by", place=row.place)
        work = Work(row, {})
        try:
            work = Work.of(row)
            work.set(**in_form(work.fields))
        except RowError as error:
            work.fail(error.why)
        work.written = rows.written(row)
        return work

    for block in in_blocks(map(one, rows), lambda: size, rows.ready):
        yield to_do(block, lambda work: work.written, more=rows.more_written())


def _through(blocks: Iterable[list[Work]], steps: Sequence[Step]) -> Iterator[Work]:
    """The records behind all steps, without those that are written already."""
    for block in blocks:
        for step in steps:
            block = step(block)
        yield from (work for work in block if not work.written)


def _scored(scorer: Callable[[], Scorer], images: Path | None, works: list[Work]) -> list[Work]:
    def job_of(work: Work) -> Job | None:
        from toolroll.preference.scores import Job

        if work.error is not None:
            return None
        texts = [side.text for side in sides(work.fields)]
        return Job(image_paths(Names(work.fields), work.row.place, images), texts)

    def add(work: Work, found: list[TextScore]) -> Work:
        chosen, rejected = (one.record() for one in found)
        return work.set(clip={"chosen": chosen, "rejected": rejected, "model": scorer().encoder.name})

    return scored(works, scorer, job_of, add, Work.fail)


def _tell(decider: Decider, log: Log, manifest: Manifest | None) -> None:
    counts = dict(sorted(decider.counts.items()))
    if manifest is not None:
        manifest.notes["decided"] = counts
        if decider.options.max_gap == "auto":
            manifest.notes["max_gap"] = decider.max_gap
    log.info("pairs: " + (", ".join(f"{count} {what}" for what, count in counts.items()) or "none"))
    if decider.options.max_gap == "auto":
        log.note(f"--max-gap auto is {decider.max_gap}")
