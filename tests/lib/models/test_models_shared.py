"""Prompts that are the same are read once, and nothing else changes."""

from __future__ import annotations

import pytest
import tiny_models
import torch

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.models import shared
from toolroll.models.base import Sampling
from toolroll.models.codec import HFCodec
from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.padded import Batches
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures

CPU = Device("cpu", "float32", 1, "cpu")


class Plain(HFPictures):
    """Reads every prompt by itself, with caches of transformers."""

    _kind = Batches


@pytest.fixture(scope="module", params=["llava", "qwen2.5-vl"])
def loaded(request):
    model, processor = tiny_models.image_model(request.param)
    return Loaded(model, HFCodec(processor.tokenizer), "tiny", "0", CPU, processor)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures of noise."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    noise = torch.Generator().manual_seed(0)
    for name in "ab":
        pixels = torch.randint(0, 256, (16, 40, 3), generator=noise, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in "ab"]


def asked(files, **sampling):
    """Three prompts with a picture and one without, each three times with other seeds and lengths, in turn."""
    prompts = [("what?", files[0]), ("what?", files[1]), ("what is this, then?", files[0]), ("nothing", None)]
    return [
        Request(
            [{"role": "user", "content": words}],
            Sampling(max_tokens=3 + 4 * number, seed=number, **sampling),
            [] if file is None else [file],
        )
        for number in range(3)
        for words, file in prompts
    ]


def with_pictures(files, **sampling):
    """Those that have a picture; one asks of two."""
    pair = Request([{"role": "user", "content": "and these?"}], Sampling(max_tokens=5, seed=9, **sampling), files)
    return [*(one for one in asked(files, **sampling) if one.images), pair]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert (one.prompt_ids, one.finish) == (other.prompt_ids, other.finish)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_are_those_of_prompts_read_one_by_one(loaded, files, temperature):
    requests = asked(files, temperature=temperature)
    found = HFPictures(loaded).answer(requests)
    same(found, Plain(loaded).answer(requests))
    if temperature:
        assert len({one.ids for one in found}) > 4  # the seeds differ


def test_prompts_that_are_the_same_are_read_once(loaded, files, monkeypatch):
    engine = HFPictures(loaded)
    rows = []
    step = engine._batches._step
    monkeypatch.setattr(
        engine._batches, "_step", lambda ids, *more: (rows.append(tuple(ids.shape)), step(ids, *more))[1]
    )
    engine.answer(asked(files, temperature=0.8))
    assert rows[0][0] == 4
    assert rows[1] == (12, 1)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_pictures_are_read_once_for_all_batches(loaded, files, temperature, monkeypatch):
    requests = with_pictures(files, temperature=temperature)
    expected = Plain(loaded).answer(requests)
    engine = HFPictures(loaded)
    rows = []
    step = engine._batches._step
    monkeypatch.setattr(
        engine._batches, "_step", lambda ids, *more: (rows.append(tuple(ids.shape)), step(ids, *more))[1]
    )
    same(engine.answer(requests), expected)
    assert [count for count, _ in rows[:3]] == [3, 4, 10]  # one or two pictures, unlike prompts, all answers
    rows.clear()
    same(engine.answer(requests), expected)
    (count, length), (more, one) = rows[:2]
    assert (count, more, one) == (4, 10, 1)
    assert length < max(len(answer.prompt_ids) for answer in expected)  # of prompts only what is behind the pictures
    rows.clear()
    same(engine.answer(list(reversed(requests))), list(reversed(expected)))
    assert rows[0][0] == 4
    rows.clear()
    engine.forget()
    assert engine.answer(requests) == HFPictures(loaded).answer(requests)  # to the last bit
    assert [count for count, _ in rows[:3]] == [3, 4, 10]


def test_what_was_read_is_forgotten_when_weights_or_files_change(files, tmp_path):
    from shutil import copyfile

    model, processor = tiny_models.image_model("llava", seed=3)
    loaded = Loaded(model, HFCodec(processor.tokenizer), "tiny", "0", CPU, processor)
    file = tmp_path / "a.png"
    copyfile(files[0], file)
    request = [Request([{"role": "user", "content": "what?"}], Sampling(temperature=0, max_tokens=5), [file])]
    engine = HFPictures(loaded)
    before = engine.answer(request)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)
    after = engine.answer(request)
    same(after, Plain(loaded).answer(request))
    assert after[0].logprobs != pytest.approx(before[0].logprobs, abs=1e-4)
    copyfile(files[1], file)
    other = engine.answer(request)
    same(other, Plain(loaded).answer(request))
    assert other[0].logprobs != pytest.approx(after[0].logprobs, abs=1e-4)


def test_little_is_kept_where_there_is_little_room(loaded, files, monkeypatch):
    monkeypatch.setattr(shared, "_MOST", 1)
    requests = with_pictures(files, temperature=0.8)
    engine = HFPictures(loaded)
    for _ in range(2):
        same(engine.answer(requests), Plain(loaded).answer(requests))
    assert len(engine._batches._heads) == 1


def test_pictures_in_memory_are_never_taken_for_the_same(loaded, files):
    from PIL import Image

    def drawn():
        for shade in (0, 60, 120, 180, 240):
            picture = Image.new("RGB", (16, 16), (shade, shade, shade))
            yield Request([{"role": "user", "content": "what?"}], Sampling(temperature=0, max_tokens=4), [picture])

    found = HFPictures(loaded).answer(drawn())
    same(found, Plain(loaded).answer(drawn()))
    assert len({one.logprobs for one in found}) == 5


def test_caches_grow_when_their_room_is_used_up(loaded, files, monkeypatch):
    monkeypatch.setattr(shared, "_SPARE", 2)
    requests = asked(files, temperature=0.8)
    same(HFPictures(loaded).answer(requests), Plain(loaded).answer(requests))


@pytest.mark.parametrize(
    ("rows", "where"),
    [([0, 3, 2], "in place"), ([3, 1], "in place"), ([1, 0], "elsewhere"), ([0, 0, 2, 2, 1], "elsewhere")],
)
def test_rows_that_go_on_stay_where_they_are(rows, where):
    keys, values = torch.randn(2, 4, 2, 3, 5)
    more = torch.randn(2, len(rows), 2, 1, 5)
    layer = shared._Roomy()
    layer.update(keys, values)
    before = layer.keys.data_ptr(), layer.values.data_ptr()
    layer.reorder_cache(torch.tensor(rows))
    assert ((layer.keys.data_ptr(), layer.values.data_ptr()) == before) == (where == "in place")
    layer.update(*more)
    assert layer.keys.equal(torch.cat([keys[rows], more[0]], dim=2))
    assert layer.values.equal(torch.cat([values[rows], more[1]], dim=2))


def test_the_last_rows_take_the_places_of_those_that_ended(loaded):
    arranged = shared.SharedBatches(loaded.model, frozenset(), most=None)._arranged
    assert arranged([0, 2, 3, 5]) == [0, 5, 2, 3]
    assert arranged([4, 5]) == [4, 5]
    assert arranged([0, 1]) == [0, 1]
