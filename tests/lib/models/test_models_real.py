"""The embedded model: loads from its GGUF file, talks sense, and our engine says what transformers says."""

import re

import pytest
import torch

from toolroll.models.base import Generate, Sampling
from toolroll.models.constraint import Grammar
from toolroll.models.device import Device
from toolroll.models.load import EMBEDDED, load_causal_lm
from toolroll.models.text import HFEngine

pytestmark = pytest.mark.model

QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Who wrote Hamlet?",
    "Name three red fruits and say why you like them.",
)


@pytest.fixture(scope="module")
def loaded():
    return load_causal_lm("embedded", Device("cpu", "float32", 2, "cpu"))


def run(engine, requests):
    for key, request in requests.items():
        engine.submit(key, request)
    done = {}
    while len(done) < len(requests):
        done |= dict(engine.poll())
    return done


def test_it_answers(loaded):
    engine = HFEngine(loaded)
    assert engine.name == f"hf:{EMBEDDED}"
    (answer,) = engine.chat([([{"role": "user", "content": QUESTIONS[0]}], Sampling(temperature=0.0, max_tokens=20))])
    assert "Paris" in answer.text
    assert answer.finish == "eos"


def test_greedy_text_equals_generate_and_hardly_depends_on_the_batch(loaded):
    model, codec = loaded.model, loaded.codec
    prompts = [codec.encode(codec.chat([{"role": "user", "content": question}])) for question in QUESTIONS]
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        ids = torch.tensor([prompts[1]])
        wanted = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    sampling = Sampling(temperature=0.0, max_tokens=24)
    requests = {i: Generate("", ids, sampling) for i, ids in enumerate(prompts)}
    together = run(HFEngine(loaded), requests)
    assert together[1].ids == tuple(wanted[0, len(prompts[1]) :].tolist())
    for key, request in requests.items():
        (alone,) = run(HFEngine(loaded), {key: request}).values()
        assert alone.ids == together[key].ids
        assert alone.logprobs == pytest.approx(together[key].logprobs, abs=1e-3)


def test_constrained_text_is_well_formed(loaded):
    engine = HFEngine(loaded)
    prefill = "\n<think>\n<step>\n    <reasoning>"
    prompt = engine.codec.chat([{"role": "user", "content": "Answer in steps: who wrote Hamlet?"}]) + prefill
    grammar = Grammar(engine.codec)
    constraints = {i: grammar.start(searches=0, max_steps=1, field_tokens=8) for i in range(2)}
    sampling = {i: Sampling(temperature=float(i), max_tokens=120, stop=("</answer>",)) for i in constraints}
    done = run(engine, {i: Generate(prompt, None, sampling[i], constraints[i]) for i in constraints})
    field = r"[^<]*[^<\s][^<]*"
    form = rf"{field}</reasoning>\n    <conclusion>{field}</conclusion>\n</step>\n</think>\n<answer>{field}</answer>"
    for completion in done.values():
        assert re.fullmatch(form, completion.text), completion.text
        assert completion.stop == "</answer>"
