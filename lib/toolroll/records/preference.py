"""Preference pairs without a judge: captions compared with what there is, texts scored by their images, pairs."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from toolroll.records.base import Count, Id, Image, ImagePath, Images, Record, said
from toolroll.records.training import Pair

Share = Annotated[float, Meta(ge=0, le=1)]  # null where it is of nothing


class Captioned(Record, kw_only=True, frozen=True):
    """A text about an image, and what the image shows: what caption-eval reads."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    response: Annotated[Any, said("The text, or messages.")] = None
    text: Annotated[Any, said("Another name for `response`.")] = None
    caption: Annotated[Any, said("Another name for `response`.")] = None
    objects: Annotated[list[Any] | None, said("What there is: words, or the objects of a scene as CLEVR has them.")] = (
        None
    )
    scene: Annotated[dict[str, Any] | None, said("A scene as CLEVR's JSON; its `objects` are what there is.")] = None


class CaptionScores(Captioned, kw_only=True, frozen=True):
    """What a text names, compared with what there is: what caption-eval writes."""

    mentions: Annotated[list[str], said("The things the text names, in its order, as often as it does.")]
    hallucinated: Annotated[list[str], said("The distinct ones of these that there are not.")]
    missed: Annotated[list[str], said("What there is and the text does not name.")]
    precision: Annotated[Share | None, said("Share of the distinct things named that there are.")]
    recall: Annotated[Share | None, said("Share of the distinct things there are that are named.")]
    f1: Annotated[Share | None, said("Harmonic mean of `precision` and `recall`; null where one of them is.")]
    chair_i: Annotated[Share | None, said("Share of all mentions that are of what there is not.")]
    chair_i_unique: Annotated[Share | None, said("Share of the distinct things named that there are not.")]


class CaptionSummary(Record, kw_only=True, frozen=True):
    """Many texts together: what caption-eval --summary writes, a row a group."""

    n_texts: Annotated[Count, said("Texts.")]
    n_mentions: Annotated[Count, said("Mentions in all of them.")]
    n_unique: Annotated[Count, said("The distinct things named, text by text.")]
    n_objects: Annotated[Count, said("The distinct things there are, text by text.")]
    precision: Annotated[Share | None, said("Share of `n_unique` that there are.")]
    recall: Annotated[Share | None, said("Share of `n_objects` that are named.")]
    f1: Annotated[Share | None, said("Harmonic mean of the two.")]
    chair_i: Annotated[Share | None, said("Share of `n_mentions` that are of what there is not.")]
    chair_i_unique: Annotated[Share | None, said("Share of `n_unique` that there are not.")]
    chair_s: Annotated[Share | None, said("Share of the texts that name something that there is not.")]
    chair_s_refined: Annotated[Share | None, said("The same of the texts that name anything.")]


class SentenceScored(Record, kw_only=True, frozen=True):
    """A sentence of a text and how well it fits the image."""

    text: Annotated[str, said("The sentence.")]
    score: Annotated[
        float, said("Its score, 100 times the cosine with the image unless another measure was asked for.")
    ]
    windows: Annotated[Count, said("In how many windows of tokens the encoder read it.")]
    logprob: Annotated[
        float | None, said("Mean log-probability of its tokens under the model, in nats (--scorer-preset csr).")
    ] = None


class ImageTexts(Record, kw_only=True, frozen=True):
    """Texts about images: what clip-score reads and writes."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    images: Images = None
    image: Image = None
    image_path: ImagePath = None
    response: Annotated[Any, said("The text, or messages, or a list of texts.")] = None
    text: Annotated[Any, said("Another name for `response`.")] = None
    caption: Annotated[Any, said("Another name for `response`.")] = None
    clip_score: Annotated[
        float | list[float | None] | None,
        said("The score of the text, or of each; null for one without a sentence."),
    ] = None
    sentences: Annotated[
        list[SentenceScored | list[SentenceScored]] | None, said("The sentences of the text, or of each.")
    ] = None


class TextScored(Record, kw_only=True, frozen=True):
    """A text and how well it fits the image."""

    score: Annotated[float | None, said("The score of the text; null for one without a sentence.")] = None
    sentences: Annotated[list[SentenceScored] | None, said("Its sentences.")] = None


class PairScores(Record, kw_only=True, frozen=True):
    """How well the answers of a pair fit its image."""

    chosen: Annotated[TextScored | None, said("The scores of `chosen`.")] = None
    rejected: Annotated[TextScored | None, said("The scores of `rejected`.")] = None
    model: Annotated[str | None, said("The encoder.")] = None
    preset: Annotated[str | None, said("Whose way of scoring it is, where not that of clip-score.")] = None


class MadeAnswer(Record, kw_only=True, frozen=True):
    """How an answer was written."""

    h: Annotated[float | None, said("The weight of the branch that does not see the image.")] = None
    seed: Annotated[int | None, said("The answer's own seed.")] = None
    tokens: Annotated[Count | None, said("Its tokens, the end included; null where the back end does not say.")] = None
    finish: Annotated[Literal["eos", "stop", "length"] | None, said("How it ended; `length` at the limit.")] = None


class MadePair(Record, kw_only=True, frozen=True):
    """How a pair was written."""

    chosen: Annotated[MadeAnswer | None, said("How `chosen` was; null where it was given.")] = None
    rejected: Annotated[MadeAnswer | None, said("How `rejected` was.")] = None
    mix: Annotated[str | None, said("How the branches were mixed.")] = None
    uncond: Annotated[str | None, said("What the branch got that did not see the image.")] = None
    model: Annotated[str | None, said("What runs the model, and its name.")] = None
    prompt_tokens: Annotated[Count | None, said("Tokens of the prompt, those of its images included.")] = None
    round: Annotated[Count | None, said("The round of training it was made in, by --round.")] = None


class JudgefreePair(Pair, kw_only=True, frozen=True):
    """Two answers about an image, scored by an encoder and put in order: what judgefree-pairs writes."""

    sample: Annotated[Count | None, said("Number of the pair among those of a row.")] = None
    images_sha256: Annotated[list[str | None] | None, said("SHA-256 of the files of `images`.")] = None
    made: Annotated[MadePair | None, said("How the answers were written.")] = None
    clip: Annotated[PairScores | None, said("How well the answers fit the image.")] = None
    action: Annotated[Literal["keep", "reverse", "drop"] | None, said("What became of the pair.")] = None
    reason: Annotated[str | None, said("Why it was dropped; null where it was not.")] = None
    delta: Annotated[float | None, said("Score of `chosen` minus that of `rejected`, as they are now.")] = None
    reversed: Annotated[bool, said("Whether the answers have changed places.")] = False


class PairStats(Record, kw_only=True, frozen=True):
    """Many pairs together: what judgefree-stats writes. A gap is of a pair as it was made, before any reversal."""

    n_pairs: Annotated[Count, said("Pairs.")]
    n_kept: Annotated[Count, said("Pairs that were kept as they are.")]
    n_reversed: Annotated[Count, said("Pairs whose answers changed places.")]
    n_dropped: Annotated[Count, said("Pairs that were dropped, where they were written.")]
    dropped: Annotated[dict[str, Count], said("How many of these for each reason.")]
    n_scored: Annotated[Count, said("Pairs with two scores.")]
    mean_gap: Annotated[float | None, said("Mean of the gaps: score of the chosen answer minus that of the other.")]
    median_gap: Annotated[float | None, said("Their median.")]
    negative_share: Annotated[Share | None, said("Share of gaps below 0 among those that are not 0.")]
    n_untied: Annotated[Count, said("Gaps that are not 0.")]
    mean_chosen_words: Annotated[float | None, said("Mean words of the chosen answers of pairs not dropped.")]
    mean_rejected_words: Annotated[float | None, said("The same of the rejected ones.")]
    length_gap: Annotated[float | None, said("(rejected - chosen) / rejected of these two means.")]
    longer_share: Annotated[Share | None, said("Share of pairs not dropped whose chosen answer has more words.")]
    cut_share: Annotated[Share | None, said("Share of pairs with an answer that was cut at its limit.")]
    h_gap_correlation: Annotated[
        float | None, said("Spearman's correlation of the gap with the h of the one answer minus that of the other.")
    ]
    n_h_gap: Annotated[Count, said("Pairs it is of.")]
    h_score_correlation: Annotated[float | None, said("Spearman's correlation of score and h, over all answers.")]
    n_h_score: Annotated[Count, said("Answers it is of.")]
    warnings: Annotated[list[str], said("What looks wrong, in words.")]


class GapBin(Record, kw_only=True, frozen=True):
    """A bin of the histogram of gaps: what judgefree-stats --histogram writes."""

    low: Annotated[float, said("The smallest gap of the bin.")]
    high: Annotated[float, said("Gaps of the bin are below this.")]
    n: Annotated[Count, said("Pairs in the bin.")]
    bar: Annotated[str, said("The same as a bar, the longest of 40.")]
