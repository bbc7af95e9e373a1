"""Image-text models of seven classes behind one interface: batches, draws, scores, and requests that fail alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import tiny_pairs
import torch

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Completion, Sampling
from toolroll.models.codec import HFCodec
from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.padded import Batches
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures

FAMILIES = ("llava", "llava-next", "qwen2-vl", "qwen2.5-vl", "idefics3", "smolvlm", "internvl")
CPU = Device("cpu", "float32", 1, "cpu")
IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


class EachRead(HFPictures):
    """Reads every prompt by itself, so that a pass has the rows of its batch."""

    _kind = Batches


def engine_of(model, processor, kind=HFPictures, **settings):
    words = processor.tokenizer if hasattr(processor, "tokenizer") else processor
    held = processor if hasattr(processor, "tokenizer") else None
    return kind(Loaded(model, HFCodec(words), "tiny", "0", CPU, held), **settings)


@pytest.fixture(scope="module")
def models():
    kept = {}

    def get(family):
        if family not in kept:
            kept[family] = tiny_models.image_model(family)
        return kept[family]

    return get


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    made = tiny_models.noise_pictures(folder)
    (folder / "not.png").write_bytes(b"not an image")
    return made


def ragged(files, **sampling):
    """Prompts of 0 to 3 images, with answers of different lengths and seeds."""
    square, wide, tall = files
    asked = [
        ([{"role": "user", "content": "no image"}], []),
        ([user(IMAGE, text("what?"))], [square]),
        ([{"role": "system", "content": "Be brief."}, user(text("a"), IMAGE, text(" or "), IMAGE)], [wide, square]),
        ([user(IMAGE, IMAGE, IMAGE)], [tall, wide, tall]),
        ([user(IMAGE), {"role": "assistant", "content": "yes"}, user(text("sure, and this"), IMAGE)], [tall, wide]),
    ]
    return [
        Request(messages, Sampling(max_tokens=4 + 2 * (i % 3), seed=i, **sampling), images)
        for i, (messages, images) in enumerate(asked)
    ]


def as_transformers_does(model, processor, request):
    """The inputs that transformers makes of the request by itself."""
    from PIL import Image

    images = iter(request.images)
    messages = [
        {
            **message,
            "content": [
                {"type": "image", "image": Image.open(next(images))} if part["type"] == "image" else part
                for part in ([text(message["content"])] if isinstance(message["content"], str) else message["content"])
            ],
        }
        for message in request.messages
    ]
    return processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ragged_batch_is_each_request_alone_and_what_transformers_says(models, files, family):
    model, processor = models(family)
    engine = engine_of(model, processor)
    requests = ragged(files, temperature=0)
    together = engine.answer(requests)
    for answer, request in zip(together, requests, strict=True):
        (alone,) = engine.answer([request])
        assert alone.ids == answer.ids
        assert alone.logprobs == pytest.approx(answer.logprobs, abs=5e-5)
        inputs = as_transformers_does(model, processor, request)
        made = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=request.sampling.max_tokens,
            eos_token_id=1,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert list(answer.ids) == made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        expected = [row[0].log_softmax(-1)[i].item() for row, i in zip(made.logits, answer.ids, strict=True)]
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
        assert answer.text == engine.codec.decode(answer.ids[:-1] if answer.finish == "eos" else answer.ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_depend_on_the_seed_alone_and_scores_are_their_logprobs(models, files, family):
    engine = engine_of(*models(family))
    requests = ragged(files, temperature=0.8, top_p=0.9)
    drawn = engine.answer(requests)
    backwards = engine_of(*models(family), batch=2).answer(requests[::-1])[::-1]
    assert [one.ids for one in drawn] == [one.ids for one in backwards]
    others = engine.answer([replace(one, sampling=replace(one.sampling, seed=99)) for one in requests])
    assert [one.ids for one in drawn] != [one.ids for one in others]

    scored = engine.score([(request, one.ids) for request, one in zip(requests, drawn, strict=True)])
    for one, found in zip(drawn, scored, strict=True):
        assert found.ids == one.ids
        assert found.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    (alone,) = engine.score([(requests[2], drawn[2].ids)])
    assert alone.logprobs == pytest.approx(scored[2].logprobs, abs=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_their_order_count(models, files, family):
    engine = engine_of(*models(family))
    messages, greedy = [user(IMAGE, text("and"), IMAGE)], Sampling(temperature=0)
    square, wide, tall = files
    pairs = [[wide, tall], [tall, wide], [wide, square]]
    scored = engine.score([(Request(messages, greedy, images), "yes") for images in pairs])
    assert len({round(sum(one.logprobs), 3) for one in scored}) == 3


def test_image_tokens_in_an_answer_stand_for_no_image(models, files):
    model, processor = models("llava")
    engine = engine_of(model, processor)
    request = Request([user(IMAGE, text("what?"))], Sampling(), [files[0]])
    answer = [100, processor.image_token_id, 101, processor.image_token_id, 102]
    (found,) = engine.score([(request, answer)])
    assert len(found.logprobs) == 5
    (part,) = engine.score([(request, answer[:1])])
    assert found.logprobs[0] == pytest.approx(part.logprobs[0], abs=5e-5)


def test_long_answers_are_scored_in_stretches(models, files, monkeypatch):
    from toolroll.models import padded

    engine = engine_of(*models("qwen2-vl"))
    pairs = [(request, "a rather long answer"[: 20 - 4 * i]) for i, request in enumerate(ragged(files))]
    whole = engine.score(pairs)
    monkeypatch.setattr(padded, "_LOGITS", 5 * 300 * 3)
    parts = engine.score(pairs)
    for one, other in zip(whole, parts, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)


def test_texts_name_no_places_so_images_go_first(models, files):
    engine = engine_of(*models("llava"))
    greedy = Sampling(temperature=0, max_tokens=4)
    system = {"role": "system", "content": "Be brief."}
    plain = Request([system, {"role": "user", "content": "what?"}], greedy, files[:2])
    listed = Request([system, user(IMAGE, IMAGE, text("what?"))], greedy, files[:2])
    assert engine.answer([plain]) == engine.answer([listed])


def test_bad_requests_fail_alone(models, files):
    engine = engine_of(*models("llava"), max_context=100)
    sampling = Sampling(temperature=0, max_tokens=3)
    good = Request([user(IMAGE, text("what?"))], sampling, [files[0]])
    gone, broken = files[0].with_name("gone.png"), files[0].with_name("not.png")
    bad = [
        (replace(good, images=[gone]), r"gone\.png: No such file"),
        (replace(good, images=[broken]), r"not\.png: not an image"),
        (replace(good, images=[]), "0 images, and places for 1"),
        (replace(good, images=files), "3 images, and places for 1"),
        (replace(good, messages=[user(text("where?"))]), "1 images, and places for 0"),
        (replace(good, messages=[user(IMAGE, text("see <image>"))]), "stands for an image in this model's prompts"),
        (replace(good, messages=[user(IMAGE, {"type": "video"})]), "a part of a message is"),
        (replace(good, messages=[{"role": "user"}]), "a message needs a role"),
        (replace(good, messages=[]), "there are no messages"),
        (replace(good, messages=[user(IMAGE, text("long " * 20))]), "the prompt has 1[0-9]+ tokens, too many"),
    ]
    asked = [good, *(request for request, _ in bad), good]
    first, *failed, last = engine.answer(asked)
    assert isinstance(first, Completion)
    assert first.ids == last.ids
    first, *scored, last = engine.score([(request, "yes") for request in asked])
    assert first.logprobs == pytest.approx(last.logprobs, abs=5e-5)
    for (_, why), one, other in zip(bad, failed, scored, strict=True):
        assert isinstance(one, RowError)
        with pytest.raises(RowError, match=why):
            raise one
        assert str(one) == str(other).replace("and the answer have 122", "has 119")
        assert "\n" not in str(one)
    assert str(engine.score([(good, "")])[0]) == "the answer is empty"
    assert "a token id is outside" in str(engine.score([(good, [10_000])])[0])
    assert "and the answer have" in str(engine.score([(good, "much " * 20)])[0])
    assert engine.answer([]) == engine.score([]) == []


def test_what_the_model_does_not_take_fails_alone(models, files):
    """A batch that breaks is halved until the request that breaks it is alone."""
    model, processor = models("llava")
    engine = engine_of(model, processor)
    requests = ragged(files, temperature=0)
    expected = engine.answer(requests)
    refused = engine.codec.encode("no image")
    inner = model.forward

    def forward(input_ids, **inputs):
        if any(list(refused) == row[i : i + len(refused)] for row in input_ids.tolist() for i in range(len(row))):
            raise ValueError("no such words, please\nand more")
        return inner(input_ids=input_ids, **inputs)

    engine._batches.model = FakeModel(model, forward)
    found = engine.answer(requests)
    assert str(found[0]) == "the model does not take it: no such words, please"
    assert [one.ids for one in found[1:]] == [one.ids for one in expected[1:]]


class FakeModel:
    """A model with another forward pass."""

    def __init__(self, model, forward):
        self._model, self._forward = model, forward

    def __call__(self, **inputs):
        return self._forward(**inputs)

    def __getattr__(self, name):
        return getattr(self._model, name)


def test_out_of_memory_halves_the_batch(models, files):
    model, processor = models("llava")
    said = []
    engine = engine_of(model, processor, EachRead, notify=said.append)
    requests = ragged(files, temperature=0)
    expected = engine.answer(requests)
    lengths = [len(engine._read(0, request, None).asked.ids) for request in requests]
    worst = lengths.index(max(lengths))
    sizes = []

    def forward(input_ids, **inputs):
        sizes.append(input_ids.shape[0])
        if input_ids.shape[0] > 2 or input_ids.shape[1] == max(lengths):
            raise torch.OutOfMemoryError("tried to allocate")
        return model(input_ids=input_ids, **inputs)

    engine._batches.model = FakeModel(model, forward)
    found = engine.answer(requests)
    assert str(found.pop(worst)) == f"out of memory with this prompt alone ({max(lengths)} tokens)"
    del expected[worst]
    assert [one.ids for one in found] == [one.ids for one in expected]
    assert said[:2] == [
        "out of memory with 5 requests at once, going on with 3",
        "out of memory with 3 requests at once, going on with 2",
    ]
    assert 1 in sizes


def test_stop_strings_end_an_answer_with_the_token_that_completes_them(models, files):
    engine = engine_of(*models("internvl"))
    requests = ragged(files, temperature=1.0)
    requests = [replace(one, sampling=replace(one.sampling, max_tokens=40)) for one in requests]
    free = engine.answer(requests)
    stops = tuple(one.text[3:5] for one in free)
    stopped = engine.answer([replace(one, sampling=replace(one.sampling, stop=stops)) for one in requests])
    assert any(one.finish == "stop" for one in stopped)
    for one, whole in zip(stopped, free, strict=True):
        assert whole.ids[: len(one.ids)] == one.ids
        if one.finish == "stop":
            assert one.text.endswith(one.stop)
            assert not any(stop in engine.codec.decode(one.ids[:-1]) for stop in stops)


def test_batches_keep_to_their_size_and_order(models, files):
    model, processor = models("llava")
    engine = engine_of(model, processor, EachRead, batch=3)
    sizes = []

    def forward(input_ids, **inputs):
        if input_ids.shape[1] > 1:
            sizes.append(input_ids.shape[0])
        return model(input_ids=input_ids, **inputs)

    requests = ragged(files, temperature=0) * 3
    expected = engine.answer(requests)
    engine._batches.model = FakeModel(model, forward)
    assert engine.answer(iter(requests)) == expected
    assert sizes == [3, 3, 3, 3, 3]  # a window of 12, then the rest
    assert engine.usage.generated == 2 * sum(len(one.ids) for one in expected)
    engine._room, sizes[:] = 150, []  # tokens, so that only two of the longest go together
    assert [one.ids for one in engine.answer(requests)] == [one.ids for one in expected]
    assert sizes[0] == 2
    assert max(sizes) == 3


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A text model."""
    from transformers import AutoModelForCausalLM

    folder = tiny_pairs.write_text_model(tmp_path_factory.mktemp("text"))
    return AutoModelForCausalLM.from_pretrained(folder), tiny_pairs.tokenizer()


def test_a_text_model_answers_text_and_refuses_images(words, files):
    model, tokenizer = words
    engine = engine_of(model, tokenizer)
    assert not engine.takes_images
    requests = ragged(files, temperature=0)
    listed = Request([user(text("no "), text("image"))], requests[0].sampling)
    first, *refused, last = engine.answer([*requests, listed])
    assert first == last
    assert all("the model takes none" in str(one) for one in refused)
    prompt = torch.tensor([tokenizer.encode("<|user|>no image<eos><|assistant|>")])
    made = model.generate(prompt, do_sample=False, max_new_tokens=4, eos_token_id=1, pad_token_id=0)
    assert list(first.ids) == made[0, prompt.shape[1] :].tolist()
    (scored,) = engine.score([(listed, first.ids)])
    assert scored.logprobs == pytest.approx(first.logprobs, abs=1e-4)


def test_models_that_cannot_be_run_are_refused(words):
    model, tokenizer = words
    config = model.config
    model.config = replace_config(config, cross_attention_layers=[1])
    try:
        with pytest.raises(ToolrollError, match="cross-attention"):
            engine_of(model, tokenizer)
    finally:
        model.config = config
    closed = engine_of(model, tokenizer)
    closed.close()
    with pytest.raises(ToolrollError, match="closed"):
        closed.answer([Request([{"role": "user", "content": "a"}], Sampling())])


def replace_config(config, **values):
    from copy import deepcopy

    made = deepcopy(config)
    for name, value in values.items():
        setattr(made, name, value)
    return made


CHILD = """
import json, resource, sys
import torch, tiny_models, tiny_pairs
from pathlib import Path
from toolroll.models.base import Sampling
from toolroll.models.codec import HFCodec
from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures

torch.set_num_threads(1)
model, processor = tiny_models.image_model("llava")
said = []
engine = HFPictures(
    Loaded(model, HFCodec(processor.tokenizer), "tiny", "0", Device("cpu", "float32", 1, "cpu"), processor),
    batch=64, notify=said.append,
)
pictures = [Path(tiny_pairs.picture(Path(sys.argv[1]) / f"{i}.png", "red")) for i in range(64)]  # none is shared
places = [{"type": "image"}] * 24
requests = [
    Request([{"role": "user", "content": [*places, {"type": "text", "text": str(i)}]}],
            Sampling(temperature=0, max_tokens=2), [pictures[i]] * 24)
    for i in range(64)
]
few = engine.answer(requests[:2])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), -1))
found = engine.answer(requests)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(json.dumps({"said": said, "failed": [str(one) for one in found if isinstance(one, Exception)],
                  "same": [one.ids for one in found[:2]] == [one.ids for one in few]}))
"""


def test_memory_that_really_runs_out(tmp_path):
    tests = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{tests.parent / 'lib'}:{tests}", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["said"][0].startswith("out of memory with 64 requests at once")
    assert found["failed"] == []
    assert found["same"]
