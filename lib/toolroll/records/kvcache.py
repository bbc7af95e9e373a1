"""CalibQuant: what quantized keys and values are like."""

from typing import Annotated, Literal

from toolroll.records.base import Count, Positive, Record, said
from toolroll.records.rollouts import ImagePrompt


class KvPrompt(ImagePrompt, kw_only=True, frozen=True):
    """Something for a model to read, part of which is to be packed: what kv-dump and kv-eval read."""

    packed_text: Annotated[str | None, said("A part of the prompt; its tokens are packed with --pack text.")] = None
    packed_spans: Annotated[
        list[list[int]] | None,
        said("The tokens of the prompt to pack, as pairs of a first one and one behind the last; goes before --pack."),
    ] = None
    reference: Annotated[str | None, said("A text behind the prompt whose perplexity is measured.")] = None


class KvQuality(Record, kw_only=True, frozen=True):
    """The keys or the values of a head, quantized, against what they were: what kv-quant writes."""

    layer: Annotated[Count, said("The layer, from 0.")]
    item: Annotated[Count, said("The sequence of the batch, from 0.")]
    head: Annotated[Count, said("The key and value head, from 0.")]
    part: Annotated[Literal["k", "v"], said("Keys or values.")]
    tokens: Annotated[Count, said("Tokens that are packed.")]
    rule: Annotated[str, said("The rule that gives the range.")]
    bits: Annotated[Count, said("Bits of a code.")]
    effective_bits: Annotated[float, said("Bits an element, with its share of lo and scale.")]
    nmse: Annotated[
        float | None, said("Squared error over variance, the mean over the channels that vary; null without any.")
    ]
    mse: Annotated[Positive, said("Squared error, the mean over all elements.")]
    snr_db: Annotated[float | None, said("-10 log10(nmse).")]
    cosine: Annotated[float | None, said("Cosine of what it was and what it is, all elements as one vector.")]
    max_error: Annotated[Positive, said("The largest error of an element.")]
    clip_frac: Annotated[float, said("Share of elements that were outside the range.", ge=0, le=1)]
    ones_frac: Annotated[float | None, said("Share of elements with code 1, of 1 bit.")]
    constant_channels: Annotated[Count, said("Channels all of whose values are equal.")]
    score_rmse: Annotated[
        float | None, said("Keys: error of the scores, without the mean of each query, over all tokens it sees.")
    ]
    kl: Annotated[float | None, said("Keys: KL of attention by the keys as they were to that as they are, in nats.")]
    top1_frac: Annotated[float | None, said("Keys: share of queries that look most at the same token.")]
    top8_frac: Annotated[float | None, said("Keys: share of the 8 tokens looked at most that are the same.")]
    mass_shift: Annotated[float | None, said("Keys: how much more attention the packed tokens get.")]
    output_error: Annotated[
        float | None, said("Values: relative error of what attention gives, keys and values both quantized.")
    ]


class KvTau(Record, kw_only=True, frozen=True):
    """A map of visual scores: what kv-calibrate writes and kv-eval reads."""

    layer: Annotated[Count | None, said("The layer, from 0; null: all.")]
    head: Annotated[Count | None, said("The key and value head, from 0; null: all of the layer.")]
    t1: Annotated[float, said("How much lower the least visual score becomes.")]
    t2: Annotated[float, said("How much lower the largest visual score becomes.")]
    error: Annotated[float | None, said("Relative error of attention's output, or KL, with this map.")] = None
    error_without: Annotated[float | None, said("The same without any map.")] = None


class KvDump(Record, kw_only=True, frozen=True):
    """A prompt whose keys and values are in a file: what kv-dump writes."""

    kv: Annotated[str, said("The file in the folder --out.")]
    kv_tokens: Annotated[Count, said("Tokens of the prompt.")]
    kv_visual_tokens: Annotated[Count, said("Those that are marked as visual.")]
    kv_bytes: Annotated[Count, said("Bytes of the file.")]


class KvAnswer(Record, kw_only=True, frozen=True):
    """An answer with one cache, compared with a dense one: what kv-eval writes."""

    cache: Annotated[str, said("The cache, as --cache has it.")]
    response: Annotated[str, said("What the model answers with it.")]
    n_tokens: Annotated[Count, said("Tokens of the answer.")]
    kl: Annotated[
        float | None, said("KL of the next token's probabilities by a dense cache to those by this one, in nats.")
    ]
    top1_frac: Annotated[float | None, said("Share of tokens at which both have the same most probable one.")]
    nll: Annotated[float | None, said("Mean negative log-probability of the tokens compared, in nats.")]
    perplexity: Annotated[float | None, said("exp(nll).")]
    nll_dense: Annotated[float | None, said("nll with a dense cache.")]
    kv_tokens: Annotated[Count, said("Tokens of the prompt.")]
    kv_visual_tokens: Annotated[Count, said("Those that are marked to be packed.")]
    kv_bytes: Annotated[Count, said("Bytes of the cache behind the prompt: of its batch, padding included, a share.")]
    kv_ratio: Annotated[float, said("kv_bytes over those of a dense cache.")]
    ms_per_token: Annotated[Positive | None, said("Time of the answer's batch over its tokens (--timings).")] = None
