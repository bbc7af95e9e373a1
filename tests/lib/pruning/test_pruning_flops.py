"""What visual tokens cost: the paper's numbers, and those worked out by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import ToolrollError
from toolroll.pruning import account
from toolroll.pruning.flops import (
    Tokens,
    decode_flops,
    dense_pairs,
    dense_terms,
    fastv_flops,
    kv_bytes,
    neighbours,
    pruned_pairs,
    pruned_terms,
    read_grids,
    read_text,
    shares,
    sum_over,
    text_flops,
    window_pairs,
)
from toolroll.pruning.plan import Drop, Plan, same_heads
from toolroll.pruning.shape import Shape, read_shape, shape_of

LLAVA_7B = Shape(4096, 11008, 32, 32, 32, 128)
LLAVA_13B = Shape(5120, 13824, 40, 40, 40, 128)
QWEN2_VL_7B = Shape(3584, 18944, 28, 28, 4, 128)
INTERNLM_7B = Shape(4096, 14336, 32, 32, 8, 128)
SMOL_135M = Shape(576, 1536, 30, 9, 3, 64)
SMOL_360M = Shape(960, 2560, 32, 15, 5, 64)
ONE = Tokens(((24, 24),), 0)
MASK_7B_16 = "32 32 9 5 10 4 5 15 18 13 15 20 23 24 27 23 27 17 14 18 18 16 15 8 14 10 15 5 7 11 5 24"
YOPO = Plan(window=5, ffn=2, cut=16)


def mask(counts, heads=32):
    return tuple(tuple(head < count for head in range(heads)) for count in counts)


HEADS_7B_16 = mask(map(int, MASK_7B_16.split()))


def cost(shape, plan, tokens=ONE, pairs="full"):
    return sum_over(pruned_terms(shape, tokens, plan, pairs))


def dense(shape, tokens=ONE, pairs="full"):
    return sum_over(dense_terms(shape, tokens, pairs))


@pytest.mark.parametrize(
    ("side", "window", "both", "causal"),
    [
        (24, 1, 576, 576),
        (24, 3, 4900, 2738),
        (24, 5, 12996, 6786),
        (24, 7, 24336, 12456),
        (24, 9, 38416, 19496),
        (8, 3, 484, 274),
        (8, 5, 1156, 610),
        (8, 7, 1936, 1000),
        (16, 3, 2116, None),
        (16, 5, 5476, None),
        (16, 7, 10000, None),
    ],
)
def test_pairs_in_a_window(side, window, both, causal):
    assert window_pairs((side, side), window) == both
    if causal is not None:
        assert window_pairs((side, side), window, causal=True) == causal


def test_neighbours_of_a_small_grid():
    found = neighbours((3, 3), 3)
    assert found[0] == [0, 1, 3, 4]
    assert found[4] == list(range(9))


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 17))
def test_pairs_are_the_neighbours_counted(rows, columns, window):
    found = neighbours((rows, columns), window)
    assert window_pairs((rows, columns), window) == sum(map(len, found))
    earlier = sum(j <= i for i, row in enumerate(found) for j in row)
    assert window_pairs((rows, columns), window, causal=True) == earlier
    assert window_pairs((rows, columns), window + 1 - window % 2 * 2 + 1) >= earlier
    if window >= 2 * max(rows, columns):
        assert window_pairs((rows, columns), window) == (rows * columns) ** 2


def test_an_even_window_is_one_smaller():
    assert window_pairs((24, 24), 6) == window_pairs((24, 24), 5)
    assert Plan(window=6).reach == Plan(window=5).reach == 2


@pytest.mark.parametrize(
    ("shape", "full", "causal"),
    [
        (LLAVA_7B, 7.6343, 7.5475),
        (LLAVA_13B, 14.8881, 14.7524),
        (QWEN2_VL_7B, 7.6503, 7.5838),
        (INTERNLM_7B, 8.2141, 8.1273),
        (SMOL_135M, 0.1452, 0.1338),
        (SMOL_360M, 0.4032, 0.3828),
    ],
)
def test_dense_cost_of_known_models(shape, full, causal):
    assert dense(shape) / 1e12 == pytest.approx(full, abs=5e-5)
    assert dense(shape, pairs="causal") / 1e12 == pytest.approx(causal, abs=5e-5)


def test_shares_of_the_parts():
    names = ("proj", "attention", "ffn")
    llava, qwen = shares(dense_terms(LLAVA_7B, ONE, "full")), shares(dense_terms(QWEN2_VL_7B, ONE, "full"))
    assert [llava[name] for name in names] == pytest.approx([0.3241, 0.0228, 0.6532], abs=5e-5)
    assert [qwen[name] for name in names] == pytest.approx([0.1238, 0.0174, 0.8588], abs=5e-5)


@pytest.mark.parametrize(("ratio", "tera", "part"), [(2, 1.913, 0.2506), (10, 0.915, 0.1199)])
def test_the_paper_s_two_settings_of_llava_7b(ratio, tera, part):
    plan = Plan(window=5, ffn=ratio, cut=16, heads=HEADS_7B_16)
    assert sum(map(sum, HEADS_7B_16)) == 499
    assert cost(LLAVA_7B, plan) / 1e12 == pytest.approx(tera, abs=5e-4)
    assert cost(LLAVA_7B, plan) / dense(LLAVA_7B) == pytest.approx(part, abs=5e-5)


@pytest.mark.parametrize(
    ("shape", "by_ratio"),
    [
        (LLAVA_7B, {2: 0.2045, 4: 0.1229}),
        (LLAVA_7B, {2: 0.2506, 4: 0.1689}),
        (LLAVA_7B, {2: 0.2969, 4: 0.2152}),
    ],
)
def test_other_masks_fit_one_number_of_heads(shape, by_ratio):
    """The shares that masks of 8, 16 and 24 heads leave: one number of heads below the cut gives both of each."""
    fits = []
    for total in range(16 * 32 + 1):
        counts = [total // 16 + (i < total % 16) for i in range(16)] + [0] * 16
        found = [
            cost(shape, Plan(window=5, ffn=ratio, cut=16, heads=mask(counts))) / dense(shape) for ratio in by_ratio
        ]
        if found == pytest.approx(list(by_ratio.values()), abs=6e-5):
            fits.append(total)
    assert len(fits) == 1


@pytest.mark.parametrize(("kept", "share"), [(798, 0.2615), (1197, 0.3005)])
def test_masks_of_llava_13b_fit_a_number_of_heads(kept, share):
    """Of the heads a mask keeps (with all of the first two layers), so many below the cut give its share."""
    fits = [
        total
        for total in range(80, min(kept, 20 * 40) + 1)
        if cost(LLAVA_13B, Plan(window=5, ffn=2, cut=20, heads=mask(_spread(total, 20, 40), 40))) / dense(LLAVA_13B)
        == pytest.approx(share, abs=6e-5)
    ]
    assert fits


def _spread(total, below, layers):
    return [total // below + (i < total % below) for i in range(below)] + [0] * (layers - below)


def test_the_cost_grows_linearly():
    plan = Plan(window=5, ffn=2, cut=16, heads=HEADS_7B_16)
    sides = {144: 0.478, 576: 1.913, 2304: 7.652, 9216: 30.608}
    tokens = {n: Tokens(((round(n**0.5),) * 2,), 0) for n in sides}
    for n, tera in sides.items():
        assert cost(LLAVA_7B, plan, tokens[n]) / 1e12 == pytest.approx(tera, abs=5e-4)
        assert cost(LLAVA_7B, plan, tokens[n]) / n / 1e9 == pytest.approx(3.321, abs=1.5e-3)
    per_token = [dense(LLAVA_7B, tokens[n]) / n / 1e9 for n in sides]
    assert per_token == pytest.approx([13.03, 13.25, 14.16, 17.78], abs=5e-3)


def test_bytes_of_keys_and_values():
    plan = Plan(cut=16, heads=HEADS_7B_16)
    assert kv_bytes(LLAVA_7B, ONE, None, 2) == 301_989_888
    assert kv_bytes(LLAVA_7B, ONE, plan, 2) == 81_100_800
    assert kv_bytes(LLAVA_7B, ONE, plan, 2) * 1024 == kv_bytes(LLAVA_7B, ONE, None, 2) * 275
    text = kv_bytes(LLAVA_7B, Tokens((), 65), None, 2)
    assert kv_bytes(LLAVA_7B, Tokens(((24, 24),), 65), plan, 2) == 81_100_800 + text


def test_other_papers_formulas():
    assert fastv_flops(LLAVA_7B, ONE) / 1e12 == pytest.approx(2.99, abs=5e-3)
    row = account.flops_row(LLAVA_7B, ONE, Plan(), pairs="full", kv_dtype="float16", element_bytes=2)
    assert row["macs_dense"] / 1e12 == pytest.approx(3.82, abs=5e-3)
    assert row["flops_dense"] / 1e12 == pytest.approx(7.63, abs=5e-3)
    assert row["visual_ratio"] == row["total_ratio"] == 1


def test_a_plan_that_prunes_nothing_costs_what_the_model_costs():
    for pairs in ("full", "causal"):
        for plan in (Plan(), Plan(cut=32), Plan(heads=same_heads(32, LLAVA_7B)), Plan(window=47)):
            tokens = Tokens(((24, 24),), 65)
            assert pruned_terms(LLAVA_7B, tokens, plan, pairs) == dense_terms(LLAVA_7B, tokens, pairs)
            assert decode_flops(LLAVA_7B, tokens, plan) == decode_flops(LLAVA_7B, tokens, None)


def test_parts_of_a_small_model_by_hand():
    shape = Shape(hidden=8, ffn=12, layers=2, heads=4, kv_heads=2, head_dim=2, vocabulary=10)
    tokens = Tokens(((2, 3),), 5)
    assert dense_terms(shape, tokens, "full") == {
        "proj_qo": 2 * 4 * 6 * 8 * 2 * 4,
        "proj_kv": 2 * 4 * 6 * 8 * 2 * 2,
        "attention_visual": 2 * 4 * 2 * 4 * 36,
        "attention_text": 2 * 4 * 2 * 4 * 30,
        "ffn": 2 * 6 * 6 * 8 * 12,
    }
    heads = ((True, False, False, False), (False,) * 4)
    plan = Plan(window=3, ffn=5, heads=heads)
    assert pruned_terms(shape, tokens, plan, "causal") == {
        "proj_qo": 4 * 6 * 8 * 2 * 1,
        "proj_kv": 4 * 6 * 8 * 2 * 1,
        "attention_visual": 4 * 2 * ((4 * 7 + 6) // 2),
        "attention_text": 4 * 2 * 30,
        "ffn": 2 * 6 * 6 * 8 * 2,
    }
    assert text_flops(shape, 5, "causal") == 2 * (4 * 5 * 8 * 2 * 6 + 4 * 2 * 4 * 15 + 6 * 5 * 8 * 12)
    own = 2 * (4 * 8 * 2 * 6 + 4 * 2 * 4 + 6 * 8 * 12) + 2 * 8 * 10
    assert decode_flops(shape, tokens, None) == own + 2 * 4 * 2 * 4 * 11
    assert decode_flops(shape, tokens, plan) == own + 4 * 2 * (8 * 5 + 1 * 6)
    assert kv_bytes(shape, tokens, plan, 4) == 2 * 2 * 4 * (2 * 2 * 5 + 6 * 1)


def test_the_authors_softmax_saves_neurons_only():
    plan = Plan(window=5, ffn=2, cut=16, heads=HEADS_7B_16, softmax="authors")
    found, whole = pruned_terms(LLAVA_7B, ONE, plan, "full"), dense_terms(LLAVA_7B, ONE, "full")
    assert found["ffn"] * 2 == whole["ffn"]
    assert {name: found[name] for name in found if name != "ffn"} == {n: whole[n] for n in whole if n != "ffn"}
    assert kv_bytes(LLAVA_7B, ONE, plan, 2) == kv_bytes(LLAVA_7B, ONE, None, 2)
    assert decode_flops(LLAVA_7B, ONE, plan) == decode_flops(LLAVA_7B, ONE, None)


def test_tiles_do_not_see_each_other_unless_asked():
    tokens = Tokens(((8, 8), (8, 8), (4, 4)), 30)
    apart, across = Plan(window=3), Plan(window=3, cross_tile=True)
    assert pruned_pairs(tokens, apart, "full") == 2 * 484 + window_pairs((4, 4), 3)
    assert pruned_pairs(tokens, across, "full") - pruned_pairs(tokens, apart, "full") == 64 * 64 + 16 * 128
    assert pruned_pairs(tokens, Plan(), "full") == 144**2 == dense_pairs(tokens, "full")
    everything = Plan(window=99, cross_tile=True)
    assert pruned_pairs(tokens, everything, "causal") == dense_pairs(tokens, "causal")


def test_later_neighbours_count_where_they_are_seen():
    seen = Plan(window=5, window_causal=False)
    assert pruned_pairs(ONE, seen, "causal") == pruned_pairs(ONE, seen, "full") == 12996
    assert pruned_pairs(ONE, Plan(window=5), "causal") == 6786


def test_no_image_costs_nothing():
    row = account.flops_row(LLAVA_7B, Tokens((), 40), YOPO, pairs="full", kv_dtype="float16", element_bytes=2)
    assert row["flops_dense"] == row["flops_pruned"] == 0
    assert row["visual_ratio"] == 1
    assert row["kv_bytes_dense"] == row["kv_bytes_pruned"] > 0


def test_plans_that_do_not_fit():
    for plan, why in (
        (Plan(heads=mask([1, 2], 4)), "mask of another model: it has 2 layers of 4 heads, the model 32 of 32"),
        (Plan(cut=33), r"33 is not in 0\.\.32"),
        (Plan(ffn=20000), "leaves none of the 11008 neurons"),
        (Plan(drops=(Drop(0, 0.5),)), r"layer 0 is not in 1\.\.31"),
    ):
        with pytest.raises(ToolrollError, match=why):
            plan.checked(LLAVA_7B)
    assert YOPO.checked(LLAVA_7B) is YOPO


def test_tokens_that_are_dropped():
    """FastV's formula: K layers with all tokens, then with a part; its README has 57 % for K = 3, R = 50 % in 7B."""
    half, few = Plan(drops=(Drop(3, 0.5),)), Plan(drops=(Drop(8, 0.5), Drop(16, 0.25), Drop(24, 0.125)))
    small = Tokens(((12, 24),), 0)
    assert cost(LLAVA_7B, half) == (3 * dense(LLAVA_7B) + 29 * dense(LLAVA_7B, small)) // 32
    assert cost(LLAVA_7B, half) / dense(LLAVA_7B) == pytest.approx(0.54, abs=0.01)  # of visual tokens alone
    assert cost(LLAVA_7B, few) / dense(LLAVA_7B) == pytest.approx((1 + 0.5 + 0.25 + 0.125) / 4, abs=0.01)
    whole = kv_bytes(LLAVA_7B, ONE, None, 2)
    assert kv_bytes(LLAVA_7B, ONE, few, 2) * 32 == whole * 15
    assert decode_flops(LLAVA_7B, ONE, few) < decode_flops(LLAVA_7B, ONE, half) < decode_flops(LLAVA_7B, ONE, None)
    assert cost(LLAVA_7B, Plan(drops=(Drop(16, 0.0),))) == cost(LLAVA_7B, Plan(cut=16))


def test_plans_are_what_was_written():
    plan = Plan(window=5, cut=3, ffn=2.0, heads=mask([1, 0], 3), drops=(Drop(2, 0.5),), window_causal=False)
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    assert plan.as_dict()["heads"] == ["100", "000"]
    assert plan.hash != Plan(window=5, cut=3).hash
    assert Plan.from_dict({}) == Plan()
    for bad in (
        *({"heads": [[1, 1, 1]]}, {"heads": [True]}, {"heads": ["1x1"]}, {"heads": "111"}, {"more": 1}, {"cut": True}),
        *({"window_causal": "no"}, {"cross_tile": 0}, {"ffn": float("inf")}, {"drops": [{"layer": 1, "keep": -7}]}),
        *({"drops": [{"layer": 1.5, "keep": 0.5}]}, {"drops": [{"layer": 1, "keep": 0.5, "x": 1}]}),
    ):
        with pytest.raises(ToolrollError, match="no plan"):
            Plan.from_dict(bad)
    for bad in ({"window": 0}, {"window": "5"}, {"heads": 3}, {"ffn": 0.5}, {"softmax": "soft"}, {"drops": [1]}, []):
        with pytest.raises(ToolrollError, match="no plan"):
            Plan.from_dict(bad)


def test_shapes_of_configurations(tmp_path):
    flat = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    assert shape_of(flat) == Shape(64, 96, 3, 4, 4, 16)
    assert shape_of({"text_config": {**flat, "num_key_value_heads": 2, "head_dim": 8}}) == Shape(64, 96, 3, 4, 2, 8)
    assert not shape_of({**flat, "model_type": "gpt_neox"}).gated
    llava = {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}}
    assert shape_of(llava) == Shape(4096, 11008, 32, 32, 32, 128, vocabulary=32064)
    for bad, why in (
        ({}, "has no hidden_size"),
        ({**flat, "num_key_value_heads": 3}, "do not share 3"),
        ({**flat, "num_hidden_layers": 0}, r"num_hidden_layers is not in 1\.\."),
        ({**flat, "hidden_size": True}, "hidden_size is no whole number"),
        ({**flat, "num_key_value_heads": "x"}, "num_key_value_heads is no whole number"),
        ({**flat, "num_key_value_heads": [2]}, "num_key_value_heads is no whole number"),
        ({**flat, "vocab_size": float("nan")}, "vocab_size is no whole number"),
        ({**flat, "intermediate_size": 10**12}, "intermediate_size is not in 1"),
        ({**flat, "num_experts": 8}, "mixtures of experts"),
        ({"model_type": "qwen3_moe"}, "mixtures of experts"),
        ({"model_type": "no-such"}, "no configuration of a known model"),
    ):
        with pytest.raises(ToolrollError, match=why):
            shape_of(bad)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "text.json").write_text("model")
    for name, why in (("list", "not a JSON object"), ("text", "not JSON"), ("none", "No such file")):
        with pytest.raises(ToolrollError, match=why):
            read_shape(tmp_path / f"{name}.json")


def test_grids_and_texts_that_are_none():
    assert read_grids("24x24, 2x3x4") == ((24, 24), (3, 4), (3, 4))
    assert read_text("35+30+0") == 65
    for bad in ("24", "0x4", "x", "1x-2", "", "2x2,", "1x2x3x4", "99999999999x9"):
        with pytest.raises(ToolrollError):
            read_grids(bad)
    for bad in ("", "a", "1+", "-1"):
        with pytest.raises(ToolrollError):
            read_text(bad)


def test_what_a_configuration_leaves_out_is_that_of_its_class():
    sizes = {"hidden_size": 1024, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 16}
    mistral = shape_of({"model_type": "llava", "text_config": {"model_type": "mistral", **sizes}})
    assert (mistral.kv_heads, mistral.head_dim, mistral.vocabulary) == (8, 64, 32000)
    assert shape_of({"model_type": "qwen3", **sizes, "num_key_value_heads": 8}).head_dim == 128
    assert not shape_of({"model_type": "nemotron", **sizes}).gated
    unknown = shape_of({"model_type": "no-such", **sizes})
    assert (unknown.kv_heads, unknown.head_dim, unknown.vocabulary) == (16, 64, 0)


def test_a_prompt_that_ends_with_an_image():
    """The last token counts as text: the window of each other token is what it was, without it."""
    ends = Tokens(((2, 2), (4, 4)), 5, 1)
    assert ends.visual == 19
    assert ends.sizes == [4, 15]
    both = [[j for j in near if j != 15] for i, near in enumerate(neighbours((4, 4), 3)) if i != 15]
    plan = Plan(window=3)
    assert pruned_pairs(ends, plan, "full") == 16 + sum(map(len, both))
    earlier = sum(sum(j <= i for j in near) for i, near in enumerate(both))
    assert pruned_pairs(ends, plan, "causal") == 10 + earlier
    assert pruned_pairs(ends, Plan(window=3, cross_tile=True), "full") == pruned_pairs(ends, plan, "full") + 4 * 15
    tiny = Shape(32, 48, 2, 4, 2, 8)
    # n = 15 of a 4 x 4 grid, t = 5: 2 (4 n d D (Hq + Hkv) + 4 D Hq (93 + n t) + 6 n d m)
    by_hand = 2 * (4 * 15 * 32 * 8 * 6 + 4 * 8 * 4 * (93 + 75) + 6 * 15 * 32 * 48)
    assert sum_over(pruned_terms(tiny, Tokens(((4, 4),), 5, 1), plan, "full")) == by_hand == 503_808


def test_numbers_that_no_row_holds():
    for grid in ("99999x999999", "9" * 30 + "x1"):
        with pytest.raises(ToolrollError, match=r"more than 100000000 tokens|is not ROWSxCOLUMNS"):
            read_grids(grid)
    with pytest.raises(ToolrollError, match="more than 100000000 tokens"):
        read_text("9" * 30)
    with pytest.raises(ToolrollError, match="more than 63 bits"):
        account.flops_row(
            LLAVA_7B, Tokens(((10000, 10000),), 0), Plan(), pairs="full", kv_dtype="float16", element_bytes=2
        )
