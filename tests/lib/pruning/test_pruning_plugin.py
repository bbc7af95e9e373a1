"""The plug-in on tiny models of seven classes: it changes what the plan says, and skips what it leaves out."""

from __future__ import annotations

from contextlib import contextmanager

import pruned_models
import pytest
import torch
from pruned_models import FAMILIES, MASK, PLANS, longer, masked, model_of, prompt
from transformers import DynamicCache

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import ToolrollError
from toolroll.pruning.cached import held_bytes
from toolroll.pruning.flops import Tokens, kv_bytes
from toolroll.pruning.plan import Plan, same_heads
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.spans import marked
from toolroll.pruning.support import parts_of

TWO = ("look at ", 1, " and ", 2, "what?")
EXACT = {"rtol": 1e-9, "atol": 1e-9}  # in float64


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def text_places(model, ids, features):
    return ~marked(model.config, ids, None, features).visual


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_pruned_changes_nothing(family):
    model, processor = model_of(family, torch.float32)
    shape = (2, 4)
    for parts in (TWO, ("no image",), (0, "first"), ("last ", 0)):
        ids, features = prompt(processor, *parts, dtype=torch.float32)
        dense = model(input_ids=ids, **features).logits
        whole = ((True,) * shape[1],) * shape[0]
        for plan in (Plan(), Plan(cut=shape[0], heads=whole, ffn=1.0)):
            with Pruner(model, plan):
                assert torch.equal(model(input_ids=ids, **features).logits, dense)
                if parts == ("no image",):
                    continue
                made = model.generate(input_ids=ids, **features, max_new_tokens=4, do_sample=False, pad_token_id=0)
            plain = model.generate(input_ids=ids, **features, max_new_tokens=4, do_sample=False, pad_token_id=0)
            assert torch.equal(made, plain)
        for plan in PLANS.values():
            if parts == ("no image",):
                with Pruner(model, plan):
                    assert torch.allclose(model(input_ids=ids).logits, dense, atol=2e-6)
        assert torch.equal(model(input_ids=ids, **features).logits, dense)  # it took itself out


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_skipping_is_masking(family, plan):
    model, processor = model_of(family)
    for parts in (TWO, (0, "first"), ("last ", 2)):
        ids, features = prompt(processor, *parts)
        with Pruner(model, plan):
            skipped = model(input_ids=ids, **features).logits
        with masked(model, plan, ids, features):
            reference = model(input_ids=ids, **features, use_cache=False).logits
        there = text_places(model, ids, features)
        assert there[0, -1]
        torch.testing.assert_close(skipped[there], reference[there], **EXACT)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_gives_what_computing_anew_gives(family, plan):
    model, processor = model_of(family)
    ids, features = prompt(processor, *TWO)
    more = torch.tensor([[41, 52, 63]])
    whole, whole_features = longer(ids, features, more)
    with Pruner(model, plan):
        out = model(input_ids=ids, **features)
        steps = [model(input_ids=more[:, i : i + 1], cache=out.cache).logits for i in range(3)]
        anew = model(input_ids=whole, **whole_features, use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, 1), anew[:, -3:], **EXACT)


def test_inactive_heads_act_at_every_token():
    """Were they left out when tokens are written, logits would move by far more than rounding."""
    model, processor = model_of("llava")
    ids, features = prompt(processor, *TWO)
    more = torch.tensor([[41]])
    with Pruner(model, Plan(heads=MASK)):
        cache = model(input_ids=ids, **features).cache
        right = model(input_ids=more, cache=cache).logits
    with Pruner(model, Plan()):
        cache = model(input_ids=ids, **features).cache
        dense = model(input_ids=more, cache=cache).logits
    assert (right - dense).abs().max() > 0.03


@pytest.mark.parametrize("plan", [PLANS["all"], PLANS["window"], PLANS["whole-heads"], PLANS["cut"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_is_each_prompt_alone(family, plan):
    model, processor = model_of(family)
    asked = [prompt(processor, *parts) for parts in (TWO, (0, "first"), ("no image at all",), ("x", 1, 1))]
    batch = batched(asked)
    with Pruner(model, plan):
        alone = []
        for ids, features in asked:
            if "qwen" in family:
                model.model.rope_deltas = None  # of an earlier prompt, which transformers takes for one without images
            out = model(input_ids=ids, **features)
            alone.append((out.logits[0, -1], model(input_ids=torch.tensor([[41]]), cache=out.cache).logits[0, -1]))
        ids, features, mask = batch
        given = {} if "qwen" not in family else {"position_ids": positions(model, ids, features, mask)}
        out = model(input_ids=ids, attention_mask=mask, **features, **(given or numbered(mask)))
        last = out.logits[:, -1]
        wider = torch.cat([mask, torch.ones(len(mask), 1, dtype=mask.dtype)], 1)
        then = numbered(wider)["position_ids"][:, -1:]
        if "qwen" in family:
            then = given["position_ids"].amax(0)[:, -1:] + 1
            then = then.expand(3, -1, -1)
        next_one = model(
            input_ids=torch.full((4, 1), 41), attention_mask=wider, cache=out.cache, position_ids=then
        ).logits[:, -1]
    for b, (first, second) in enumerate(alone):
        torch.testing.assert_close(last[b], first, **EXACT)
        torch.testing.assert_close(next_one[b], second, **EXACT)


def numbered(mask):
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


def positions(model, ids, features, mask):
    kept = {name: features[name] for name in ("image_grid_thw", "mm_token_type_ids")}
    return model.model.get_rope_index(input_ids=ids, attention_mask=mask, **kept)[0]


def batched(asked):
    from toolroll.models.base import Sampling
    from toolroll.models.padded import Asked, _features

    longest = max(ids.shape[1] for ids, _ in asked)
    ids = torch.cat([torch.nn.functional.pad(one, (longest - one.shape[1], 0)) for one, _ in asked])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(one), (longest - one.shape[1], 0)) for one, _ in asked])
    features = _features([Asked(one[0].tolist(), Sampling(), given) for one, given in asked], longest)
    return ids, features, mask


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("family", ["llava", "idefics3", "internvl"])
def test_a_second_prompt_on_a_kept_cache(family, plan):
    model, processor = model_of(family)
    first, its = prompt(processor, "look at ", 1, " now")
    second, more = prompt(processor, "and ", 0, " then?")
    third, _ = prompt(processor, "so?")
    from toolroll.models.vision import side_by_side

    whole = torch.cat([first, second, third], 1)
    with Pruner(model, plan):
        cache = DynamicCache(config=model.config)
        model(input_ids=first, **its, cache=cache)
        two = model(input_ids=second, **more, cache=cache).logits
        three = model(input_ids=third, cache=cache).logits
        anew = model(input_ids=whole, **side_by_side([its, more], 0), use_cache=False).logits
    there = text_places(model, second, more)
    start = first.shape[1]
    torch.testing.assert_close(two[there], anew[:, start : start + second.shape[1]][there], **EXACT)
    torch.testing.assert_close(three, anew[:, -third.shape[1] :], **EXACT)


@pytest.mark.parametrize("name", ["all", "heads", "whole-heads", "window", "cut", "cut-0", "ffn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_holds_what_the_formula_says(family, name):
    model, processor = model_of(family, torch.float32)
    plan = PLANS[name]
    ids, features = prompt(processor, *TWO, dtype=torch.float32)
    marks = marked(model.config, ids, None, features)
    with Pruner(model, plan) as pruner:
        cache = model(input_ids=ids, **features).cache
    n = int(marks.visual.sum())
    tokens = Tokens(((1, n),), ids.shape[1] - n)
    assert held_bytes(cache) == kv_bytes(pruner.parts.shape, tokens, plan, 4)
    assert cache.get_seq_length() == ids.shape[1]


def test_prompts_that_end_leave_the_batch():
    model, processor = model_of("llava")
    asked = [prompt(processor, *parts) for parts in (TWO, (0, "first"), ("x", 1))]
    ids, features, mask = batched(asked)
    for plan in (PLANS["all"], PLANS["whole-heads"]):
        with Pruner(model, plan):
            out = model(input_ids=ids, attention_mask=mask, **features, **numbered(mask))
            chosen = torch.tensor([2, 0])
            out.cache.reorder_cache(chosen)
            wider = torch.cat([mask, torch.ones(3, 1, dtype=mask.dtype)], 1)[chosen]
            then = numbered(wider)["position_ids"][:, -1:]
            made = model(
                input_ids=torch.tensor([[41], [42]]), attention_mask=wider, cache=out.cache, position_ids=then
            ).logits
            for row, (b, token) in enumerate(((2, 41), (0, 42))):
                alone = model(input_ids=asked[b][0], **asked[b][1])
                expected = model(input_ids=torch.tensor([[token]]), cache=alone.cache).logits
                torch.testing.assert_close(made[row], expected[0], **EXACT)


def test_beams_and_greedy_answers():
    model, processor = model_of("llava-next", torch.float32)
    ids, features = prompt(processor, *TWO, dtype=torch.float32)
    with Pruner(model, PLANS["all"]):
        beams = model.generate(
            input_ids=ids, **features, max_new_tokens=4, num_beams=2, do_sample=False, pad_token_id=0
        )
        alone = model.generate(input_ids=ids, **features, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert beams.shape[1] <= ids.shape[1] + 4
    assert alone.shape[1] <= ids.shape[1] + 4


def test_the_authors_softmax_keeps_visual_keys_in_the_sum():
    """Masked by hand behind the softmax, in layer after layer of the attention itself."""
    model, processor = model_of("llava")
    ids, features = prompt(processor, *TWO)
    for plan in (
        Plan(heads=MASK, softmax="authors"),
        Plan(window=3, window_causal=False, heads=MASK, ffn=2, cut=1, softmax="authors"),
        Plan(window=3, cross_tile=True, softmax="authors"),
    ):
        with Pruner(model, plan):
            found = model(input_ids=ids, **features, use_cache=False).logits
            out = model(input_ids=ids, **features)
            more = torch.tensor([[41, 52]])
            steps = [model(input_ids=more[:, i : i + 1], cache=out.cache).logits for i in range(2)]
            whole, given = longer(ids, features, more)
            anew = model(input_ids=whole, **given, use_cache=False).logits
        with behind(model, plan, ids, features):
            expected = model(input_ids=ids, **features, use_cache=False).logits
        torch.testing.assert_close(found, expected, **EXACT)
        torch.testing.assert_close(torch.cat(steps, 1), anew[:, -2:], **EXACT)
        with Pruner(model, Plan(**{**{n: getattr(plan, n) for n in plan.__slots__}, "softmax": "renorm"})):
            other = model(input_ids=ids, **features).logits
        if plan.heads is not None:
            assert (other[:, -1] - found[:, -1]).abs().max() > 1e-3


@contextmanager
def behind(model, plan, ids, features):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    marks = marked(model.config, ids, None, features)
    visual = marks.visual[0]
    tokens = len(visual)
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    if plan.window is not None:
        for i in visual.nonzero().flatten().tolist():
            for j in visual.nonzero().flatten().tolist():
                if marks.tile[0, i] == marks.tile[0, j]:
                    far = max(abs(marks.row[0, i] - marks.row[0, j]), abs(marks.column[0, i] - marks.column[0, j]))
                    seen[i, j] = far <= plan.reach and (j <= i or not plan.window_causal)
                else:
                    seen[i, j] = j < i and plan.cross_tile

    def attend(module, query, key, value, mask, scaling=None, dropout=0.0, **others):
        layer = module.layer_idx
        k, v = (one.repeat_interleave(2, dim=1) for one in (key, value))
        weights = ((query @ k.transpose(2, 3)) * scaling).masked_fill(~seen, -torch.inf).softmax(-1)
        on = torch.ones(4, dtype=query.dtype) if plan.heads is None else query.new_tensor(plan.heads[layer])
        if plan.cut is not None and layer >= plan.cut:
            on = on * 0
        for head in range(4):
            weights[:, head, :, visual] *= on[head]
        out = weights @ v
        for head in range(4):
            out[:, head, visual] *= on[head]
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("vprune-behind", attend)
    AttentionMaskInterface.register("vprune-behind", sdpa_mask)
    model.set_attn_implementation({"text_config": "vprune-behind"})
    for layer in model.model.language_model.layers:
        layer.mlp.forward = pruned_models._net(layer.mlp, marks.visual, int(48 / plan.ffn))
    yield
    model.set_attn_implementation({"text_config": "sdpa"})
    for layer in model.model.language_model.layers:
        del layer.mlp.forward


def test_training_goes_through():
    """Gradients are those of masking."""
    model, processor = model_of("llava")
    ids, features = prompt(processor, *TWO)
    there = text_places(model, ids, features)
    weight = model.model.language_model.layers[0].self_attn.q_proj.weight
    net = model.model.language_model.layers[0].mlp.down_proj.weight
    with torch.enable_grad():
        found = []
        for way in (Pruner, lambda model, plan: masked(model, plan, ids, features)):
            for one in (weight, net):
                one.requires_grad_(True)
                one.grad = None
            with way(model, PLANS["all"]):
                model(input_ids=ids, **features, use_cache=False).logits[there].logsumexp(-1).sum().backward()
            found.append((weight.grad.clone(), net.grad.clone()))
            for one in (weight, net):
                one.requires_grad_(False)
                one.grad = None
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, **EXACT)


def test_what_cannot_be_is_told(monkeypatch):
    model, processor = model_of("llava")
    ids, features = prompt(processor, *TWO)
    with Pruner(model, Plan(cut=1)):
        with pytest.raises(ToolrollError, match="pruned already"):
            Pruner(model, Plan())
        with pytest.raises(ToolrollError, match="needs input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, 32, dtype=torch.float64))
        cache = model(input_ids=ids, **features).cache
        with pytest.raises(ToolrollError, match="cannot be shortened"):
            cache.crop(-1)
    with Pruner(model, Plan(cut=0)):
        with pytest.raises(ToolrollError, match="under another plan"):
            model(input_ids=ids[:, -1:], cache=cache)
        plain = DynamicCache(config=model.config)
        plain.update(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), 0)
        with pytest.raises(ToolrollError, match="begun without the plan"):
            model(input_ids=ids[:, -1:], cache=plain)
    one_layer = same_heads(1, parts_of(model, Plan()).shape)[:1]
    with pytest.raises(ToolrollError, match="mask of another model"):
        Pruner(model, Plan(heads=one_layer))
    assert not hasattr(model.model.language_model.layers[0].self_attn, "vprune")
