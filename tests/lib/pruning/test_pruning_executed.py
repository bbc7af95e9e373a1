"""The products that torch runs are those that the plan leaves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from pruned_models import FAMILIES, PLANS, model_of, prompt
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.pruning.executed import executed
from toolroll.pruning.flops import Tokens, dense_terms, pruned_terms, sum_over, text_flops
from toolroll.pruning.plan import Plan
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.spans import marked


def counted(model, text, **inputs):
    """FLOPs of the language model `text` in a pass, by torch."""
    counter = FlopCounterMode(display=False)
    name = next(name for name, module in model.named_modules() if module is text)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(**inputs)
    found = counter.get_flop_counts()
    return sum(next(counts for key, counts in found.items() if key.endswith(name)).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_flops_are_those_torch_counts(family):
    """All pairs of visual tokens, those of text, and of both either way round: a masked pair is multiplied too."""
    model, processor = model_of(family, torch.float32)
    ids, features = prompt(processor, "look at ", 1, " and ", 2, "what?", dtype=torch.float32)
    n = int(marked(model.config, ids, None, features).visual.sum())
    with Pruner(model, Plan()) as pruner:
        shape = pruner.parts.shape
        found = counted(model, pruner.parts.text, input_ids=ids, **features)
    t = ids.shape[1] - n
    terms = dense_terms(shape, Tokens(((1, n),), t), "full")
    either_way = terms["attention_text"]
    assert found == sum_over(terms) + either_way + text_flops(shape, t, "full")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_skipped_is_not_multiplied(family, plan):
    model, processor = model_of(family, torch.float32)
    ids, features = prompt(processor, "look at ", 1, " and ", 2, "what?", dtype=torch.float32)
    marks = marked(model.config, ids, None, features)
    n = int(marks.visual.sum())
    with Pruner(model, plan) as pruner:
        found = counted(model, pruner.parts.text, input_ids=ids, **features)
        shape, said = pruner.parts.shape, executed(pruner)
        assert found == sum_over(said)
    tokens = Tokens(((1, n),), ids.shape[1] - n)
    formula = pruned_terms(shape, tokens, plan, "full")
    text = text_flops(shape, tokens.text, "full")
    for name in ("proj_qo", "proj_kv", "ffn"):
        own = text_parts(shape, tokens.text)[name]
        assert said[name] == formula[name] + own
    dense = sum_over(dense_terms(shape, tokens, "full"))
    with Pruner(model, Plan()) as pruner:
        whole = counted(model, pruner.parts.text, input_ids=ids, **features)
    saved = dense - sum_over(formula)
    assert whole - found > 0
    if plan.window is None:
        assert whole - found >= saved
    assert found >= sum_over(formula) + text - 4 * shape.head_dim * shape.heads * shape.layers * tokens.text * n


def text_parts(shape, text):
    side = 4 * text * shape.hidden * shape.head_dim * shape.layers
    return {
        "proj_qo": side * shape.heads,
        "proj_kv": side * shape.kv_heads,
        "ffn": 6 * text * shape.hidden * shape.ffn * shape.layers,
    }


@pytest.mark.parametrize("name", ["heads", "whole-heads", "cut", "all"])
def test_a_written_token_skips_keys(name):
    """As the formula says: inactive heads and layers from the cut on do not multiply with visual keys."""
    model, processor = model_of("llava", torch.float32)
    ids, features = prompt(processor, "look at ", 1, "what?", dtype=torch.float32)
    n = int(marked(model.config, ids, None, features).visual.sum())
    plan = PLANS[name]
    more = torch.tensor([[41]])
    with Pruner(model, Plan()) as pruner, torch.no_grad():
        shape, text = pruner.parts.shape, pruner.parts.text
        whole = counted(model, text, input_ids=more, cache=model(input_ids=ids, **features).cache)
    with Pruner(model, plan), torch.no_grad():
        found = counted(model, text, input_ids=more, cache=model(input_ids=ids, **features).cache)
    kept = sum(sum(plan.active(layer, shape)) for layer in range(plan.end(shape)))
    assert whole - found == 4 * shape.head_dim * (shape.layers * shape.heads - kept) * n


def test_the_cost_grows_linearly_in_visual_tokens():
    """Four, eight and sixteen tiles of a model whose image is one run of tiles: the same for each further tile."""
    model, processor = model_of("internvl", torch.float32)
    plan = Plan(window=3, ffn=2, cut=1)
    costs = {True: [], False: []}
    for images in (2, 4, 6, 8):
        for pruned in costs:
            ids, features = prompt(processor, *[0] * images, "what?", dtype=torch.float32)
            with Pruner(model, plan if pruned else Plan()) as pruner:
                counted(model, pruner.parts.text, input_ids=ids, **features)
                said = executed(pruner)
            formula = pruned_terms(pruner.parts.shape, Tokens(((2, 2),) * images, 10), pruner.plan, "full")
            costs[pruned].append((sum_over(formula), sum_over(said)))
    steps = {
        key: [[b - a for a, b in pairwise(row)] for row in zip(*found, strict=True)] for key, found in costs.items()
    }
    assert len(set(steps[True][0])) == 1
    assert len(set(steps[False][0])) == 3
    assert steps[True][1][-1] < steps[False][1][-1] / 2
