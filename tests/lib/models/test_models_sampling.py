"""Draws follow the distribution they claim, stay put under noise and cuts, and stop strings are seen across tokens."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.models.base import Sampling
from toolroll.models.sampling import BLOCK, StopWatch, gumbel, sample
from toolroll.models.scripted import ByteCodec


def draws(logits, count, mask=None, **how):
    """`count` independent draws from one row of logits: seeds 0..count-1."""
    rows = torch.as_tensor(logits, dtype=torch.float32).expand(count, -1)
    return sample(rows, [Sampling(seed=i, **how) for i in range(count)], [0] * count, [mask] * count)


def test_draws_follow_the_softmax_across_blocks():
    size, count = 2 * BLOCK + 40, 40_000
    logits = torch.full((size,), -30.0)
    places = [0, 3, BLOCK - 1, BLOCK, BLOCK + 100, 2 * BLOCK + 39]
    shares = torch.tensor([0.3, 0.05, 0.2, 0.15, 0.25, 0.05])
    logits[places] = shares.log()
    tokens, logprobs = draws(logits, count)
    seen = np.bincount(tokens, minlength=size)[places] / count
    error = np.sqrt(shares.numpy() * (1 - shares.numpy()) / count)
    assert np.all(np.abs(seen - shares.numpy()) < 4.5 * error)
    assert logprobs[:50] == pytest.approx([math.log(shares[places.index(token)]) for token in tokens[:50]], abs=1e-5)


def test_temperature_sharpens():
    tokens, logprobs = draws([0.0, 1.0], 20_000, temperature=0.5)
    share = 1 / (1 + math.exp(-2))
    assert np.mean(tokens) == pytest.approx(share, abs=0.01)
    assert logprobs[tokens.index(1)] == pytest.approx(math.log(share), abs=1e-6)


def test_greedy_takes_the_best_and_its_logprob_is_at_temperature_one():
    tokens, logprobs = draws([0.0, 2.0, 1.0], 1, temperature=0.0, top_k=3, top_p=0.1)
    assert tokens == [1]
    assert logprobs == pytest.approx([2 - math.log(1 + math.e + math.e**2)], abs=1e-6)


@pytest.mark.parametrize(
    ("how", "support"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.5}, {2}),
        ({"top_p": 0.75}, {1, 2}),
        ({"top_p": 0.95}, {0, 1, 2}),
        ({"top_k": 2, "top_p": 0.75}, {1, 2}),  # of what top-k left: .625, .375
        ({"top_k": 2, "top_p": 0.6}, {2}),
        ({"top_k": 99}, {0, 1, 2, 3}),
    ],
)
def test_cuts(how, support):
    tokens, logprobs = draws(torch.tensor([0.15, 0.3, 0.5, 0.05]).log(), 2000, **how)
    assert set(tokens) == support
    assert logprobs[tokens.index(2)] == pytest.approx(math.log(0.5), abs=1e-6)  # as if nothing were cut


def test_top_p_looks_beyond_the_first_thousand_when_it_must():
    flat = torch.zeros(5000)
    tokens, _ = draws(flat, 3000, top_p=0.9)
    assert max(tokens) > 2000
    assert len(set(tokens)) > 1024


def test_mask_comes_first_and_logprobs_ignore_it():
    mask = torch.tensor([True, False, False, True])
    logits = torch.tensor([0.15, 0.3, 0.5, 0.05]).log()
    tokens, logprobs = draws(logits, 4000, mask=mask)
    assert set(tokens) == {0, 3}
    assert np.mean(np.array(tokens) == 0) == pytest.approx(0.75, abs=0.03)
    assert logprobs[tokens.index(3)] == pytest.approx(math.log(0.05), abs=1e-5)
    assert draws(logits, 1, mask=mask, temperature=0.0)[0] == [0]
    assert set(draws(logits, 200, mask=mask, top_k=1)[0]) == {0}


def test_rows_do_not_touch_each_other():
    torch.manual_seed(0)
    logits = torch.randn(6, 700)
    how = [
        Sampling(seed=1),
        Sampling(seed=2, temperature=0.0),
        Sampling(seed=3, top_p=0.5),
        Sampling(seed=4, top_k=5, temperature=0.3),
        Sampling(seed=5, temperature=2.0),
        Sampling(seed=6),
    ]
    masks = [None, None, None, None, None, torch.arange(700) % 2 == 0]
    tokens, logprobs = sample(logits, how, list(range(6)), masks)
    for i in range(6):
        alone = sample(logits[i : i + 1], [how[i]], [i], [masks[i]])
        assert alone[0] == [tokens[i]]
        assert alone[1] == pytest.approx([logprobs[i]], abs=1e-6)


def test_noise_of_the_size_of_rounding_hardly_ever_changes_a_draw():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3000)  # a long tail: most of the mass is in tokens of about 1/3000
    how = [Sampling(seed=i) for i in range(4000)]
    before, _ = sample(logits, how, [0] * 4000, [None] * 4000)
    after, _ = sample(logits + 1e-5 * torch.randn_like(logits), how, [0] * 4000, [None] * 4000)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2


def test_noise_is_fixed_for_good():
    assert gumbel(7, 0, 3) == pytest.approx([1.988638803753489, -0.198475466695067, 0.142407207104374], abs=1e-12)
    assert gumbel(7, 0, 300)[:3].tolist() == gumbel(7, 0, 3).tolist()
    assert gumbel(7, 1, 3).tolist() != gumbel(7, 0, 3).tolist() != gumbel(8, 0, 3).tolist()
    assert np.isfinite(gumbel(2**70, 5, 10_000)).all()
    assert np.mean(gumbel(1, 2, 200_000)) == pytest.approx(0.5772, abs=0.01)


def watch(tokens, stops):
    seen = StopWatch(ByteCodec(), stops)
    for count, token in enumerate(tokens, 1):
        if (stop := seen.push(token)) is not None:
            return count, stop
    return None


@settings(deadline=None)
@given(st.text("ab<é€", max_size=30), st.lists(st.text("ab<é€", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_are_seen_at_the_byte_that_completes_them(text, stops):
    ends = [(len(text[: at + len(stop)].encode()), -len(stop), stop) for stop in stops if (at := text.find(stop)) >= 0]
    found = watch(text.encode(), stops)
    if not ends:
        assert found is None
    else:
        assert found is not None
        assert found[0] == min(ends)[0]
        assert text.encode()[: found[0]].decode().endswith(found[1])


def test_bytes_that_are_no_text_do_not_hide_a_stop_string():
    assert watch([0xFF, 0xE2, 0x82, *b"ab</s>c"], ["</s>"]) == (9, "</s>")


def test_no_stop_strings():
    assert watch(b"anything", []) is None


class WordCodec(ByteCodec):
    """Ids are whole words, some of which hold more than one stop string."""

    words = ("</", "search", ">", "x</search></answer>y", "</se", "arch>\n")

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


@pytest.mark.parametrize(
    ("ids", "end"),
    [([0, 1, 2], (3, "</search>")), ([4, 5], (2, "</search>")), ([0, 3], (2, "</search>")), ([0, 1], None)],
)
def test_tokens_that_span_a_stop_string(ids, end):
    seen = StopWatch(WordCodec(), ["</answer>", "</search>"])
    found = None
    for count, token in enumerate(ids, 1):
        stop = seen.push(token)
        found = found or (stop and (count, stop))
    assert found == end
