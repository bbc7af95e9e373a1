"""Token dropping as FastV and PyramidDrop do it, carried out by the same plug-in; and heads measured without maps."""

from __future__ import annotations

import pytest
import torch
from pruned_models import FAMILIES, longer, model_of, prompt
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.padded import Asked
from toolroll.pruning.cached import held_bytes
from toolroll.pruning.choosing import fastv, pyramid
from toolroll.pruning.executed import executed
from toolroll.pruning.flops import Tokens, kv_bytes, pruned_terms, sum_over
from toolroll.pruning.heads import ratios
from toolroll.pruning.measure import Meter
from toolroll.pruning.plan import Drop, Plan
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.shape import Shape
from toolroll.pruning.spans import marked

TWO = ("look at ", 1, " and ", 2, "what?")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_the_plans_of_other_methods():
    assert fastv(2, 0.75) == Plan(drops=(Drop(2, 0.25),))
    assert pyramid(32) == Plan(drops=(Drop(8, 0.5), Drop(16, 0.25), Drop(24, 0.125)))
    for plan in (Plan(drops=(Drop(1, 0.5),), window=3), Plan(drops=(Drop(1, 0.5),), softmax="authors")):
        with pytest.raises(ToolrollError, match="neither a window nor heads"):
            plan.checked(Shape(32, 48, 2, 4, 2, 8))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_that_the_last_one_looks_at_go_on(family):
    model, processor = model_of(family)
    ids, features = prompt(processor, *TWO)
    marks = marked(model.config, ids, None, features)
    model.set_attn_implementation({"text_config": "eager"})
    weights = model(input_ids=ids, **features, output_attentions=True, use_cache=False).attentions[0]
    model.set_attn_implementation({"text_config": "sdpa"})
    looked = weights[0, :, -1].mean(0)
    with Pruner(model, fastv(1, 0.5)) as pruner:
        out = model(input_ids=ids, **features)
        kept = pruner.now.views[1].stage.index[0]
    chosen = set(kept.tolist())
    assert set((~marks.visual[0]).nonzero().flatten().tolist()) <= chosen
    for tile, (rows, columns) in enumerate(marks.grids[0]):
        own = (marks.visual[0] & (marks.tile[0] == tile)).nonzero().flatten().tolist()
        best = sorted(own, key=lambda i: -looked[i].item())[: round(rows * columns / 2)]
        assert set(own) & chosen == set(best)
    with masked_after(model, 1, kept):
        expected = model(input_ids=ids, **features, use_cache=False).logits
    torch.testing.assert_close(out.logits[0, kept], expected[0, kept], rtol=1e-9, atol=1e-9)


class masked_after:
    """From a layer on, nobody sees tokens that are not kept."""

    def __init__(self, model, layer, kept):
        self.model, self.layer, self.kept = model, layer, kept

    def __enter__(self):
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import sdpa_mask

        def attend(module, query, key, value, mask, **settings):
            if module.layer_idx >= self.layer:
                tokens = query.shape[2]
                seen = torch.zeros(tokens, tokens, dtype=torch.bool)
                seen[:, self.kept] = True
                mask = ((seen.tril()) | torch.eye(tokens, dtype=torch.bool))[None, None]
            return sdpa_attention_forward(module, query, key, value, mask, **settings)

        AttentionInterface.register("vprune-after", attend)
        AttentionMaskInterface.register("vprune-after", sdpa_mask)
        self.model.set_attn_implementation({"text_config": "vprune-after"})

    def __exit__(self, *error):
        self.model.set_attn_implementation({"text_config": "sdpa"})


@pytest.mark.parametrize("family", ["llava", "qwen2-vl", "idefics3"])
def test_dropping_is_cached_and_saves_what_it_says(family):
    model, processor = model_of(family, torch.float32)
    ids, features = prompt(processor, *TWO, dtype=torch.float32)
    text = model.model.text_model if family == "idefics3" else model.model.language_model
    name = next(name for name, module in model.named_modules() if module is text)
    found = {}
    for keep in (1.0, 0.5, 0.25, 0.0):
        counter = FlopCounterMode(display=False)
        with Pruner(model, Plan(drops=(Drop(1, keep),))) as pruner:
            with sdpa_kernel(SDPBackend.MATH), counter:
                cache = model(input_ids=ids, **features).cache
            counts = next(one for key, one in counter.get_flop_counts().items() if key.endswith(name))
            found[keep] = sum(counts.values())
            shape, tokens = pruner.parts.shape, ids.shape[1]
            ranking = 2 * shape.heads * shape.head_dim * tokens
            assert found[keep] == sum_over(executed(pruner)) + ranking  # the product that ranks tokens
            marks = marked(model.config, ids, None, features)
            there = Tokens(marks.grids[0], tokens - int(marks.visual.sum()))
            formula, said = pruned_terms(shape, there, pruner.plan, "full"), executed(pruner)
            text = {"ffn": 6 * shape.ffn, "proj_kv": 4 * shape.head_dim * shape.kv_heads}
            for part, each in text.items():
                assert said[part] == formula[part] + each * shape.hidden * shape.layers * there.text
            assert held_bytes(cache) == kv_bytes(shape, there, pruner.plan, 4)
            lengths = [layer.keys.shape[2] for layer in cache.layers]
        assert lengths[0] == tokens
        assert lengths[1] <= lengths[0]
    assert found[1.0] > found[0.5] > found[0.25] > found[0.0]
    cut = found[0.0]
    with Pruner(model, Plan(cut=1)) as pruner:
        model(input_ids=ids, **features)
        assert sum_over(executed(pruner)) + ranking == cut
    with Pruner(model, fastv(1, 0.5)):
        cache = model(input_ids=ids, **features).cache
        more = torch.tensor([[41, 52]])
        steps = torch.cat([model(input_ids=more[:, i : i + 1], cache=cache).logits for i in range(2)], 1)
    assert steps.isfinite().all()
    assert longer(ids, features, more)[0].shape[1] == ids.shape[1] + 2


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_measured_as_maps_would_say(family, grouped):
    model, processor = model_of(family)
    ids, features = prompt(processor, *TWO)
    visual = marked(model.config, ids, None, features).visual[0].nonzero().flatten().tolist()
    model.set_attn_implementation({"text_config": "eager"})
    maps = model(input_ids=ids, **features, output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation({"text_config": "sdpa"})
    with Meter(model, grouped=grouped) as meter:
        found = meter(Asked(ids[0].tolist(), Sampling(), features))
        assert meter(Asked([5, 6, 7], Sampling())) is None
    for layer, own in enumerate(found):
        weights = maps[layer][0]
        if grouped:
            weights = weights.view(2, 2, *weights.shape[1:]).mean(1).repeat_interleave(2, 0)
        assert own == pytest.approx(ratios(weights.tolist(), visual), rel=1e-5)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, **features).logits, model(input_ids=ids, **features).logits)


def test_the_first_new_token_alone():
    model, processor = model_of("llava")
    ids, features = prompt(processor, *TWO)
    visual = marked(model.config, ids, None, features).visual[0].nonzero().flatten().tolist()
    with Meter(model, queries="first") as meter:
        found = meter(Asked(ids[0].tolist(), Sampling(), features))
    token = model(input_ids=ids, **features).logits[:, -1:].argmax(-1)
    model.set_attn_implementation({"text_config": "eager"})
    maps = model(input_ids=torch.cat([ids, token], 1), **features, output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation({"text_config": "sdpa"})
    for layer, own in enumerate(found):
        assert own == pytest.approx(ratios(maps[layer][0, :, -1:].tolist(), visual), rel=1e-5)
