"""Attention by packed codes, and the cache of transformers that holds them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from toolroll.errors import ToolrollError
from toolroll.kvcache.block import dequantize, quantize
from toolroll.kvcache.cache import Item, PackedCache, attend_item, cache_name, forked, packed_attention
from toolroll.kvcache.caches import held_bytes
from toolroll.kvcache.postscale import codes_of, outputs, scores
from toolroll.kvcache.scheme import Scheme
from toolroll.kvcache.score_map import calibrated

CPU = torch.device("cpu")
K = np.float32([[0.1, -2, 5], [0.4, -1, 6], [-0.5, 2, 5.5], [0.9, 0, 4]])
TINY = Path(__file__).resolve().parents[2] / "data" / "tiny-llama"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(x, scheme):
    return quantize(lambda h: x[h].numpy(), tuple(x.shape), scheme)


SCHEMES = [
    Scheme(part, bits, rule, group=group, along=along, layout=layout, meta=meta)
    for part in ("k", "v")
    for bits, rule in ((1, "lloyd1"), (2, "quantile"), (4, "minmax"), (8, "minmax"))
    for group, along in ((0, "tokens"), (32, "tokens"), (32, "channels"))
    for layout, meta in (("msb8", "fp16"), ("kivi32", "fp32"))
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_sums_over_codes_are_those_over_values(scheme):
    """Last groups that are smaller, several queries a head."""
    x = normal(2, 105, 64) + torch.arange(64) / 16
    block = packed(x, scheme)
    codes, values = codes_of(block, CPU), torch.from_numpy(dequantize(block))
    q, p = normal(2, 3, 64, seed=1), normal(2, 3, 105, seed=2).softmax(-1)
    torch.testing.assert_close(scores(codes, q), q @ values.transpose(1, 2), rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(outputs(codes, p), p @ values, rtol=1e-4, atol=1e-4)


def test_the_scores_of_the_specification():
    """Three channels, filled up to four with ones that are 0."""
    x = torch.from_numpy(np.pad(K, ((0, 0), (0, 1))))[None]
    q = torch.tensor([[[1, -0.5, 0.25, 0]]])
    block = packed(x, Scheme("k", 2, "minmax", meta="fp32"))
    wanted = torch.tensor([1.3279058, 1.3086606, -0.0962250, 0.9045154])
    both = scores(codes_of(block, CPU), q)[0, 0], (q @ torch.from_numpy(dequantize(block)).transpose(1, 2))[0, 0]
    for found in both:
        torch.testing.assert_close(found / 3**0.5, wanted, rtol=0, atol=2e-7)
    exact = torch.tensor([1.3567731, 1.3856407, -0.0721688, 1.0969656])
    torch.testing.assert_close((q @ x.transpose(1, 2))[0, 0] / 3**0.5, exact, rtol=0, atol=2e-7)


def test_the_map_of_visual_scores():
    given = [-4.0, 0, 2, 6]
    for kind in (np.array, torch.tensor):
        found = calibrated(kind(given), (0, 3))
        assert found.tolist() == pytest.approx([-4, -1.2, 0.2, 3], abs=1e-6)
    shares = torch.tensor(given).double().softmax(-1).tolist()
    assert shares == pytest.approx([0.000044, 0.002428, 0.017942, 0.979586], abs=1e-6)
    assert torch.tensor(found.tolist()).double().softmax(-1).tolist() == pytest.approx(
        [0.000847, 0.013927, 0.056477, 0.928749], abs=1e-6
    )
    assert calibrated(np.array([0.0, 1, 2]), (0, 3), guarded=False).tolist() == pytest.approx([0, -0.5, -1])
    assert calibrated(np.array([0.0, 1, 2]), (0, 3)).tolist() == pytest.approx([0, 0, 0])
    assert calibrated(np.array([0.0, 1, 2]), (1, 1)).tolist() == pytest.approx([-1, 0, 1], abs=1e-6)


def test_heads_share_keys_and_tokens_their_order():
    """Four query heads for two key heads; visual tokens in two spans; two new tokens at once; a map of scores."""
    keys, values, q = normal(2, 40, 16), normal(2, 40, 16, seed=1), normal(4, 2, 16, seed=2)
    chosen = torch.zeros(40, dtype=torch.bool)
    chosen[3:10] = chosen[20:33] = True
    scheme = Scheme("k", 8, "minmax", meta="fp32")
    blocks = [tuple(codes_of(packed(one[:, chosen], scheme), CPU) for one in (keys, values))]
    places = torch.cat([chosen.nonzero().flatten(), (~chosen).nonzero().flatten()])
    item = Item(blocks, places, keys[:, ~chosen], values[:, ~chosen])
    found = attend_item(q, item, 0.25, None, None)
    made = [one.repeat_interleave(2, 0) for one in (keys, values)]
    sees = torch.ones(2, 40).tril(38).bool()
    exact = torch.nn.functional.scaled_dot_product_attention(q, *made, attn_mask=sees, scale=0.25)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)
    mapped = attend_item(q[:, -1:], item, 0.25, None, torch.tensor([[0.0, 1], [1, 0]]))
    raw = (q[:, -1:] @ made[0].transpose(1, 2)) * 0.25
    raw[:2, :, chosen] = calibrated(raw[:2, :, chosen], (0, 1))
    raw[2:, :, chosen] = calibrated(raw[2:, :, chosen], (1, 0))
    torch.testing.assert_close(mapped, raw.softmax(-1) @ made[1], rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()


def choose(bits=8, rule="minmax", **more):
    return lambda _, part: Scheme(part, bits, rule, meta="fp32", **more)


IDS = torch.randint(3, 60, (2, 40), generator=torch.Generator().manual_seed(4))


def masked(*spans, items=2, tokens=40):
    mask = np.zeros((items, tokens), np.bool_)
    for item, first, last in spans:
        mask[item, first:last] = True
    return mask


def generated(model, cache, **more):
    with torch.inference_mode(), packed_attention(model):
        return model.generate(
            input_ids=more.pop("ids", IDS),
            attention_mask=more.pop("mask", torch.ones_like(IDS)),
            **{cache_name(model): cache},
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
            eos_token_id=None,
            **more,
        )


def alike(found, dense):
    """The same logits, until tokens differ that were as good as equally probable; at least three of them."""
    for b in range(2):
        same = (found.sequences[b, 40:] == dense.sequences[b, 40:]).long().cumprod(0).sum()
        assert same >= 3
        for one, other in zip(found.logits[: same + 1], dense.logits, strict=False):
            torch.testing.assert_close(one[b], other[b], rtol=0, atol=0.05)


def test_eight_bits_write_what_full_precision_writes(model):
    """Spans of each item differ; the second prompt is padded on the left."""
    mask = torch.ones_like(IDS)
    mask[1, :6] = 0
    cache = PackedCache(model.config, masked((0, 2, 30), (1, 10, 17), (1, 20, 25)), choose())
    dense = generated(model, None, mask=mask)
    found = generated(model, cache, mask=mask)
    assert cache.get_seq_length() == 47
    alike(found, dense)
    assert any((one != other).any() for one, other in zip(found.logits[1:], dense.logits[1:], strict=True))
    assert (found.logits[0] == dense.logits[0]).all()  # the prompt is read exactly


def test_without_visual_tokens_nothing_changes(model):
    found = generated(model, PackedCache(model.config, masked(), choose(1, "lloyd1")))
    dense = generated(model, None)
    assert all((one == other).all() for one, other in zip(found.logits, dense.logits, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompt_without_visual_tokens_beside_others(model, dtype):
    """In a batch, padded: to the bit what it is with a dense cache."""
    mask = torch.ones_like(IDS)
    mask[1, :6] = 0
    model = copy.deepcopy(model).to(dtype)
    found = generated(model, PackedCache(model.config, masked((0, 2, 30)), choose(1, "lloyd1")), mask=mask)
    dense = generated(model, None, mask=mask)
    assert all((one[1] == other[1]).all() for one, other in zip(found.logits, dense.logits, strict=True))
    assert (found.logits[1][0] != dense.logits[1][0]).any()


def test_beams_share_the_codes_of_their_prompt(model):
    cache = PackedCache(model.config, masked((0, 2, 30), (1, 5, 31)), choose())
    found = generated(model, cache, num_beams=3)
    assert (found.sequences == generated(model, None, num_beams=3).sequences).all()
    dense = generated(model, None, num_beams=3).past_key_values
    assert held_bytes(cache) < held_bytes(dense) * 0.75


@pytest.mark.parametrize("kind", ["packed", "nothing to pack", "kivi", "dense"])
def test_a_forked_cache_goes_on_alone(model, kind):
    """From one reading, two continuations: each as if the prompt had been read for it, codes held once."""
    make = {
        "packed": lambda: PackedCache(model.config, masked((0, 2, 30), (1, 10, 25)), choose(2)),
        "nothing to pack": lambda: PackedCache(model.config, masked(), choose(2)),
        "kivi": lambda: PackedCache(model.config, masked((0, 0, 40), (1, 0, 40)), choose(2, group=4), residual=4),
        "dense": lambda: DynamicCache(config=model.config),
    }[kind]

    def read(cache, ids):
        return model(input_ids=ids, **{cache_name(model): cache}).logits[:, -ids.shape[1] :]

    with torch.inference_mode(), packed_attention(model):
        cache = make()
        read(cache, IDS)
        held = held_bytes(cache)
        other = forked(cache)
        ways = [torch.full((2, 1), token) for token in (7, 9)]
        for _ in range(9):  # in turn
            found = [read(one, ids) for one, ids in zip((cache, other), ways, strict=True)]
        for ids, logits in zip(ways, found, strict=True):
            alone = make()
            read(alone, IDS)
            assert held_bytes(alone) == held
            for _ in range(9):
                expected = read(alone, ids)
            assert (logits == expected).all()
        assert (found[0] != found[1]).any()
        if kind == "packed":
            for one, two in zip(cache.layers[0].items, other.layers[0].items, strict=True):
                assert one.blocks[0][0] is two.blocks[0][0]


def test_fewer_bits_take_less(model):
    sizes = {}
    for bits in (1, 2, 4, 8):
        cache = PackedCache(model.config, masked((0, 0, 40), (1, 0, 40)), choose(bits))
        generated(model, cache)
        sizes[bits] = held_bytes(cache)
    dense = held_bytes(generated(model, None).past_key_values)
    layers, heads, size = 1, model.config.num_key_value_heads, model.config.head_dim
    assert len(cache.layers) == layers
    each = 2 * layers * 2 * heads * size  # numbers of a token of both items
    assert dense == 47 * each * 4
    for bits, found in sizes.items():
        assert found == 40 * each * bits // 8 + 2 * each * 4 + 7 * each * 4


def test_as_kivi_does_it(model):
    """From 4 to 7 tokens stay as they are, while more come."""
    kivi = choose(8)
    cache = PackedCache(model.config, masked((0, 0, 40), (1, 0, 40)), kivi, residual=4)
    found = generated(model, cache)
    dense = generated(model, None)
    assert [sum(one.tokens for one, _ in item.blocks) for item in cache.layers[0].items] == [40, 40]
    assert cache.layers[0].items[0].keys.shape[1] == 7
    alike(found, dense)


def test_without_a_residual_whole_groups_are_packed(model):
    """32 of 40 tokens in groups of 16, and 16 more when there are as many."""
    cache = PackedCache(model.config, masked((0, 0, 40), (1, 0, 40)), choose(group=16), residual=0)
    found = generated(model, cache)
    item = cache.layers[0].items[1]
    assert ([one.tokens for one, _ in item.blocks], item.keys.shape[1]) == ([32], 15)
    alike(found, generated(model, None))
    again = PackedCache(model.config, masked((0, 0, 40), (1, 0, 40)), choose(group=4), residual=0)
    generated(model, again)
    assert [one.tokens for one, _ in again.layers[0].items[1].blocks] == [40, 4]


def test_what_cannot_be(model):
    cache = PackedCache(model.config, masked((0, 0, 40), items=3), choose())
    with pytest.raises(ToolrollError, match="masks for 3 sequences, and gets 2"):
        generated(model, cache)
    before = model.config._attn_implementation
    model.config.attn_logit_softcapping = 30.0
    try:
        with pytest.raises(ToolrollError, match="soft cap"), packed_attention(model):
            pass
    finally:
        del model.config.attn_logit_softcapping
    assert model.config._attn_implementation == before
