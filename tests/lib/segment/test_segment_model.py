"""What a model may depend on and what not: prompts, their order, padding; gates; folders."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_models
import torch

from toolroll.errors import ToolrollError, UsageError
from toolroll.segment.mask2former import Prompted
from toolroll.segment.model import About, Segmenter, Shape, build, open_model, read_about, save
from toolroll.segment.prompts import read_prompts
from toolroll.segment.text import Reader, open_text

SMALL = Shape(width=32, queries=5, layers=3, heads=2, inner=32, stages=(8, 8, 16, 16))


@pytest.fixture(scope="module")
def reader():
    return Reader(open_text("lexicon"))


def small(**changes):
    torch.manual_seed(0)
    return Segmenter(replace(SMALL, **changes)).eval()


IMAGES = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def said(model, reader, *lines):
    images = IMAGES.expand(len(lines), -1, -1, -1)
    return model(images, reader.read([read_prompts(line) for line in lines]))


@pytest.mark.parametrize("place", ["first", "after-cross", "last"])
def test_the_order_of_prompts_changes_nothing_but_the_order(reader, place):
    model = small(text_pos=place)
    one, other = said(model, reader, "sky; road, street; car"), said(model, reader, "car; street, road; sky")
    assert torch.allclose(one.masks, other.masks, atol=1e-5)
    assert torch.allclose(one.classes[..., [2, 1, 0, 3]], other.classes, atol=1e-4)


def test_padding_changes_nothing(reader):
    model = small()
    alone = said(model, reader, "sky; car")
    padded = said(model, reader, "sky; car", "road; tree, bush; person; dog; grass; fence")
    assert torch.allclose(alone.masks[0, 0], padded.masks[0, 0], atol=1e-5)
    assert torch.allclose(alone.classes[0, 0, :, :2], padded.classes[0, 0, :, :2], atol=1e-4)
    assert torch.isneginf(padded.classes[0, 0, :, 2:-1]).all()
    assert torch.allclose(alone.classes[0, 0, :, -1], padded.classes[0, 0, :, -1], atol=1e-4)


@pytest.mark.parametrize("place", ["first", "after-cross", "last"])
def test_masks_change_with_prompts_when_the_block_is_on(reader, place):
    model = small(text_pos=place)
    one, other = said(model, reader, "sky; road"), said(model, reader, "zebra; piano")
    assert float((one.masks - other.masks).abs().max()) > 1e-3


def test_masks_do_not_change_with_prompts_when_it_is_off(reader):
    model = small(pmp=False)
    one, other = said(model, reader, "sky; road"), said(model, reader, "zebra; piano; dog")
    assert torch.equal(one.masks, other.masks)
    assert one.classes.shape[-1] + 1 == other.classes.shape[-1]


def test_of_synonyms_the_best_counts(reader):
    model = small(pmp=False)
    alone, both = said(model, reader, "road; street"), said(model, reader, "road, street")
    assert torch.allclose(alone.classes[..., :2].amax(-1), both.classes[..., 0], atol=1e-4)


def test_three_hundred_prompts(reader):
    from toolroll.segment.shapes import NAMES

    kinds = ("big", "small", "old", "new", "wet", "dry", "hot", "cold", "far", "near", "low", "high", "dark")
    words = [f"{kind} {name}" for kind in kinds for name in NAMES]
    outputs = said(small(), reader, ";".join(words[:300]))
    assert outputs.classes.shape[-1] == 301
    assert torch.isfinite(outputs.masks).all()


def test_every_layer_speaks_in_training(reader):
    model = small().train()
    outputs = model(IMAGES, reader.read([read_prompts("sky")]))
    assert outputs.masks.shape == (4, 1, 5, 16, 24)
    assert outputs.classes.shape == (4, 1, 5, 2)
    outputs.masks.sum().backward()
    assert model.decoder.layers[0].text.attention.value.weight.grad.abs().sum() > 0


def test_a_folder_has_all(reader, tmp_path):
    model, about = small(), About(shape=SMALL, side=96, trained=("sky",), templates=("a {}",))
    save(tmp_path / "m", model, about)
    opened = open_model(str(tmp_path / "m"))
    assert opened.about == about
    one, other = said(model, reader, "sky; car"), said(opened.model, reader, "sky; car")
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.classes, other.classes)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "segmenter.json").unlink(), "no segmenter.json"),
        (lambda folder: (folder / "segmenter.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 9), "cannot be loaded"),
        (lambda folder: (folder / "segmenter.json").write_text('{"shape": {"width": 64}}'), "cannot be loaded"),
    ],
)
def test_folders_that_are_no_model(tmp_path, spoil, why):
    save(tmp_path, small(), About(shape=SMALL))
    spoil(tmp_path)
    with pytest.raises(ToolrollError, match=why):
        open_model(str(tmp_path))
    with pytest.raises(ToolrollError, match="no such folder"):
        open_model(str(tmp_path / "nowhere"))


def test_what_a_file_does_not_say_is_as_by_default():
    assert read_about("{}") == About()


@pytest.fixture(scope="module")
def base():
    return tiny_models.mask2former(4, num_labels=3)


@pytest.mark.parametrize("place", ["first", "after-cross", "last"])
def test_gates_of_nought_are_the_base_to_the_bit(base, reader, place):
    model = Prompted(base, 96, text_pos=place).eval()
    text = reader.read([read_prompts("sky; road")])
    with torch.no_grad():
        plain, wrapped = base(IMAGES), model.plain(IMAGES, text)
        assert torch.equal(plain.masks_queries_logits, wrapped.masks_queries_logits)
        assert torch.equal(plain.class_queries_logits, wrapped.class_queries_logits)
        assert torch.equal(model(IMAGES, text).masks[0], plain.masks_queries_logits)
        for block in model.blocks:
            block.gate.fill_(0.5)
        opened = model.plain(IMAGES, text)
        assert float((plain.masks_queries_logits - opened.masks_queries_logits).abs().max()) > 1e-4
        other = model.plain(IMAGES, reader.read([read_prompts("zebra")]))
        assert not torch.equal(opened.masks_queries_logits, other.masks_queries_logits)
        again = base(IMAGES)
    assert torch.equal(plain.masks_queries_logits, again.masks_queries_logits)  # nothing of it is left in the base


def test_a_wrapped_model_comes_back_from_its_folder(base, reader, tmp_path):
    base.save_pretrained(tmp_path / "base-alone")
    shape = Shape(base=str(tmp_path / "base-alone"), text_width=96)
    model = build(shape).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.gate.fill_(0.3)
    save(tmp_path / "m", model, About(shape=shape))
    opened = open_model(str(tmp_path / "m"))
    one, other = said(model, reader, "sky; car"), said(opened.model, reader, "sky; car")
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.classes, other.classes)
    with pytest.raises(ToolrollError, match="Mask2Former"):
        build(Shape(base=str(tmp_path / "nowhere" / "at" / "all")))


def test_norms_in_front_have_no_place_behind_the_attention(base):
    base.config.pre_norm = True
    try:
        with pytest.raises(UsageError, match="first or last"):
            Prompted(base, 96, text_pos="after-cross")
    finally:
        base.config.pre_norm = False
