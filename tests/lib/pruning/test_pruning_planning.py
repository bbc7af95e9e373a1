"""The search for a plan meets its budget: as closely as heads and neurons, one by one, allow."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import frame
import pytest
import torch

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.images import with_places
from toolroll.models.padded import Asked
from toolroll.models.vision import chat_text, processed
from toolroll.pruning.flops import Tokens, pruned_terms, sum_over
from toolroll.pruning.measure import Meter
from toolroll.pruning.opening import open_model
from toolroll.pruning.plan import Plan
from toolroll.pruning.planning import Sample, Search, kept_heads, ladders, ratio_of, sample_of
from toolroll.pruning.shape import Shape
from toolroll.pruning.support import parts_of
from toolroll.world.draws import Draws
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import questions_about
from toolroll.world.render import render

RUNGS = {"windows": (9, 5, 3), "shares": (0.75, 0.5, 0.25), "ratios": (2, 4, 8), "cuts": (0.75, 0.5)}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def searched(search, rungs, budget):
    """All steps to a budget, which are checked: the last meets it, and no head or neuron more would."""
    steps = list(search.steps(rungs, Plan(), budget))
    last = steps[-1].plan
    assert steps[-1].visual_ratio == search.visual_ratio(last) <= budget
    shape, scores, protect = search.shape, rungs.scores, rungs.protect
    if last.ffn != 1:
        more = replace(last, ffn=ratio_of(shape.ffn, last.neurons(shape) + 1))
        assert more.neurons(shape) == last.neurons(shape) + 1
        assert search.visual_ratio(more) > budget
    if last.heads is not None:
        off = [(layer, head) for layer in range(protect, shape.layers) for head in range(shape.heads)]
        off = [(layer, head) for layer, head in off if not last.heads[layer][head]]
        layer, head = max(off, key=lambda one: scores[one[0]][one[1]])
        rows = [list(row) for row in last.heads]
        rows[layer][head] = True
        more = replace(last, heads=tuple(map(tuple, rows)))
        assert kept_heads(more, shape) == kept_heads(last, shape) + 1
        assert search.visual_ratio(more) > budget or (last.cut is not None and layer >= last.cut)
    return steps


@pytest.fixture(scope="module")
def sprite(tmp_path_factory):
    """The embedded image-text model, with questions about two scenes."""
    loaded = open_model("sprite", "cpu", "float32", notify=print, trust_remote_code=False)
    samples = []
    for seed in (1, 2):
        scene = drawn_scene(Draws(seed), 4, 320, 240)
        path = tmp_path_factory.mktemp("scene") / "scene.png"
        path.write_bytes(png(render(scene, 320, 240)))
        for one in questions_about(scene, Draws(seed), ("color", "shape", "count")):
            text = chat_text(loaded.processor, with_places([{"role": "user", "content": one.question}], 1))
            ids, features = processed(loaded.processor, text, [path])
            samples.append(sample_of(loaded, Asked(ids, Sampling(), features), one.answer, None))
    shape = parts_of(loaded.model, Plan()).shape
    with Meter(loaded.model) as meter:
        scores = [
            [sum(of) for of in zip(*layers, strict=True)]
            for layers in zip(*(meter(one.asked) for one in samples), strict=True)
        ]
    search = Search(loaded, shape, samples, batch=6, stopped=lambda: False)
    return search, ladders(shape, **RUNGS, scores=scores, protect=1)


@pytest.mark.parametrize("budget", [0.25, 0.12, 0.5])
def test_sprite_is_pruned_to_its_budget(sprite, budget):
    search, rungs = sprite
    steps = searched(search, rungs, budget)
    # a neuron is a 512th of 60 % of a layer's FLOPs, a head a 6th of 40 %
    finest = 0.0012 if steps[-1].plan.ffn != 1 else 0.02
    assert steps[-1].visual_ratio > budget - finest


def test_the_llava_of_the_bench_is_pruned_to_a_quarter():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(frame.ROOT / "bench")
        bench = importlib.import_module("vprune")
    case = bench.CASES["llava"]
    model, prompt = bench.model_of(case), bench.prompt_of(case)
    shape = parts_of(model, Plan()).shape
    loaded = SimpleNamespace(model=model, codec=SimpleNamespace(eos_ids=frozenset()))  # it has no tokenizer
    ids = prompt.pop("input_ids")[0].tolist()
    asked = Asked(ids, Sampling(), prompt)
    search = Search(
        loaded, shape, [Sample(asked, (7, 8), Tokens(((24, 24),), len(ids) - 576))], batch=1, stopped=lambda: False
    )
    scores = torch.rand(4, 16, generator=torch.Generator().manual_seed(0)).tolist()
    rungs = ladders(shape, windows=(5,), shares=(0.5,), ratios=(2,), cuts=(0.5,), scores=scores, protect=0)
    steps = searched(search, rungs, 0.25)
    assert {step.changed for step in steps} >= {"ffn", "cut"}
    assert steps[-1].visual_ratio > 0.2495


def test_what_a_rung_saves_below_the_budget_does_not_count(sprite):
    """A rung far below the budget is gone down as far as needed; what was pruned before is given back."""
    search, _ = sprite
    scores = [[1.0] * 6] * 4
    only = ladders(search.shape, windows=(), shares=(), ratios=(8,), cuts=(), scores=scores, protect=1)
    steps = searched(search, only, 0.8)
    assert [step.changed for step in steps] == [None, "ffn"]
    assert 0.799 < steps[-1].visual_ratio <= 0.8
    both = ladders(search.shape, windows=(), shares=(), ratios=(8,), cuts=(0.5,), scores=scores, protect=1)
    steps = searched(search, both, 0.45)
    assert [step.changed for step in steps] in ([None, "ffn", "cut", "ffn"], [None, "cut", "ffn"])
    assert steps[-1].visual_ratio > 0.449
    with pytest.raises(ToolrollError, match=r"no plan of these rungs leaves 0\.2 "):
        list(search.steps(both, Plan(), 0.2))


@pytest.mark.parametrize("ffn", [7, 48, 512, 11008])
def test_every_number_of_neurons_has_a_ratio(ffn):
    shape = Shape(8, ffn, 1, 1, 1, 8)
    for neurons in range(1, ffn + 1):
        ratio = ratio_of(ffn, neurons)
        assert Plan(ffn=ratio).neurons(shape) == neurons
        assert Plan.from_dict(Plan(ffn=ratio).as_dict()).ffn == ratio


def test_more_neurons_cost_more():
    shape = Shape(16, 48, 2, 4, 2, 4)
    tokens = Tokens(((4, 4),), 6)
    costs = [sum_over(pruned_terms(shape, tokens, Plan(ffn=ratio_of(48, n)), "full")) for n in range(1, 49)]
    assert [b - a for a, b in pairwise(costs)] == [2 * 6 * 16 * 16] * 47
