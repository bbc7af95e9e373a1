"""Image-text models: padding, shrinking and LayerCast with images in the prompt."""

from __future__ import annotations

import pytest
import tiny_pairs
import torch

from toolroll.models.base import Sampling
from toolroll.models.device import Device
from toolroll.models.padded import Asked, Batches
from toolroll.models.vision import processed
from toolroll.numerics import modules
from toolroll.numerics.load import Precision, load

CPU = Device("cpu", "float32", 2, "cpu")
LENGTHS = (3, 9, 6)


def run(model, asked, at_a_time=3):
    batches = Batches(model, frozenset([1]), most=256)
    return [one for i in range(0, len(asked), at_a_time) for one in batches.write(asked[i : i + at_a_time])]


def sampling(tokens):
    return Sampling(temperature=0, max_tokens=tokens)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_pairs.write_image_model(folder)
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def questions(llava, tmp_path):
    ready = load(str(llava), CPU, Precision("fp32"))
    texts = ["<|user|><image>what?<eos><|assistant|>", "<|user|>a<image> and <image>: which one?<eos>", "<|user|>none"]
    images = [["red"], ["blue", "green"], []]
    made = []
    for i, (text, colours) in enumerate(zip(texts, images, strict=True)):
        paths = [tiny_pairs.picture(tmp_path / f"{i}{colour}.png", colour) for colour in colours]
        if paths:
            ids, features = processed(ready.loaded.processor, text, paths)
        else:
            ids, features = ready.loaded.codec.encode(text), {}
        made.append(Asked(ids, sampling(LENGTHS[i]), features))
    return made


def test_a_batch_with_images_is_each_prompt_alone(llava, questions):
    model = load(str(llava), CPU, Precision("fp32")).loaded.model
    together, alone = run(model, questions), run(model, questions, at_a_time=1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)


def test_images_change_the_answer(llava, questions):
    model = load(str(llava), CPU, Precision("fp32")).loaded.model
    first = questions[0]
    other = {name: torch.zeros_like(value) for name, value in first.features.items()}
    seen, blank = run(model, [first]), run(model, [Asked(first.ids, first.sampling, other)])
    assert seen[0].logprobs != blank[0].logprobs


def test_layercast_converts_the_image_tower_too(llava, questions):
    cast = load(str(llava), CPU, Precision("layercast", how="naive"))
    full = load(str(llava), CPU, Precision("fp32"))
    assert [(one.ids, one.logprobs) for one in run(cast.loaded.model, questions)] == [
        (one.ids, one.logprobs) for one in run(full.loaded.model, questions)
    ]
    names = [name for name, one in cast.loaded.model.named_modules() if isinstance(one, modules.UpcastLinear)]
    assert any("vision_tower" in name for name in names)
    assert any("projector" in name for name in names)
    assert cast.takes_images


@pytest.fixture(scope="module")
def qwen():
    """A tiny random Qwen2-VL, whose positions have three dimensions."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "initializer_range": 0.2,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_channels": 3,
        },
        image_token_id=290,
        video_token_id=291,
        vision_start_token_id=292,
        vision_end_token_id=293,
    )
    return Qwen2VLForConditionalGeneration(config).eval().requires_grad_(False)


def picture_prompt(height, width, words, tokens, seed):
    """A prompt with an image of height x width patches, four of which become a token."""
    places = height * width // 4
    ids = [5, 292, *[290] * places, 293, *words]
    kinds = [0, 0, *[1] * places, 0, *[0] * len(words)]
    pixels = torch.randn(height * width, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(seed))
    features = {
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, height, width]]),
        "mm_token_type_ids": torch.tensor([kinds]),
    }
    return Asked(ids, sampling(tokens), features)


def test_positions_in_three_dimensions_survive_padding_and_shrinking(qwen):
    asked = [
        picture_prompt(4, 4, [7, 8], 3, 1),
        picture_prompt(4, 8, [9, 10, 11, 12, 13], 9, 2),
        picture_prompt(6, 4, [14], 6, 3),
    ]
    together, alone = run(qwen, asked), run(qwen, asked, at_a_time=1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)
    for one, prompt in zip(alone, asked, strict=True):
        made = qwen.generate(
            torch.tensor([prompt.ids]),
            attention_mask=torch.ones(1, len(prompt.ids)).long(),
            do_sample=False,
            max_new_tokens=prompt.sampling.max_tokens,
            eos_token_id=1,
            pad_token_id=0,
            **prompt.features,
        )
        assert one.ids == made[0, len(prompt.ids) :].tolist()
