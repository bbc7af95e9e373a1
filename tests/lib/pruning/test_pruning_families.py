"""Models from folders: processors without their half for videos, and language models that look back a while only."""

from __future__ import annotations

import json

import pytest
import tiny_models
import torch
from pruned_models import FAMILIES, model_of, prompt

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError
from toolroll.models.vision import load_processor
from toolroll.pruning.opening import longest, open_model
from toolroll.pruning.plan import Plan
from toolroll.pruning.plugin import Pruner

CLASSES = {
    "qwen2-vl": ("Qwen2VLProcessor", {}),
    "qwen2.5-vl": ("Qwen2_5_VLProcessor", {}),
    "smolvlm": ("SmolVLMProcessor", {"image_seq_len": 4}),
    "internvl": ("InternVLProcessor", {"image_seq_length": 4}),
}
SPECIAL = {
    "image_token": "<image>",
    "video_token": "<video>",
    "start_image_token": "<start>",
    "end_image_token": "<end>",
    "context_image_token": "<image>",
}


def write(folder, family):
    """A model's folder as it is on the hub: settings of images and videos in one file, or of images alone."""
    if family not in CLASSES:
        return tiny_models.write_image_text(folder, family)
    model, processor = tiny_models.image_model(family)
    kind, settings = CLASSES[family]
    for part in (model, processor.image_processor, processor.tokenizer):
        part.save_pretrained(folder)
    words = folder / "tokenizer_config.json"
    words.write_text(json.dumps({**json.loads(words.read_text()), "extra_special_tokens": SPECIAL}))
    pictures = folder / "preprocessor_config.json"
    pictures.write_text(json.dumps({**json.loads(pictures.read_text()), "processor_class": kind}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind, **settings}))
    (folder / "chat_template.jinja").write_text(processor.chat_template)
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_from_a_folder_and_reads_images(tmp_path, family):
    """Without torchvision and num2words, which are for videos alone."""
    from transformers.processing_utils import ProcessorMixin

    check = ProcessorMixin.check_argument_for_proper_class
    loaded = open_model(write(tmp_path / family, family), "cpu", "float32", notify=str, trust_remote_code=False)
    assert ProcessorMixin.check_argument_for_proper_class is check  # only while it loads
    ids, features = prompt(loaded.processor, "a ", 1, " and ", 2, dtype=torch.float32)
    expected, own = prompt(model_of(family)[1], "a ", 1, " and ", 2, dtype=torch.float32)
    assert torch.equal(ids, expected)
    assert features.keys() == own.keys()
    assert all(torch.equal(features[name], own[name]) for name in own)
    plain = loaded.model(input_ids=ids, **features).logits
    with Pruner(loaded.model, Plan()):
        assert torch.equal(loaded.model(input_ids=ids, **features).logits, plain)


def test_videos_are_not_read(tmp_path):
    processor = load_processor(write(tmp_path / "smolvlm", "smolvlm"))
    with pytest.raises(ValueError, match="videos need torchvision"):
        processor.video_processor([torch.zeros(3, 16, 16)])


def sliding(window, kind="mistral"):
    """LLaVA with a language model of which all layers look back `window` tokens."""
    from transformers import AutoModelForImageTextToText, LlavaConfig

    words = tiny_models._words()
    config = LlavaConfig(
        vision_config=tiny_models._vision(model_type="clip_vision_model"),
        text_config=tiny_models._text(words, model_type=kind, sliding_window=window),
        image_token_index=words.image_token_id,
        image_seq_length=16,
    )
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).double().eval()


@pytest.mark.parametrize("kind", ["mistral", "starcoder2"])
def test_a_model_that_looks_back_a_while_is_pruned_within_that(kind):
    from types import SimpleNamespace

    ids, features = prompt(model_of("llava")[1], "a ", 0, " b")
    tokens = ids.shape[1]
    plan = Plan(cut=1)
    models = {window: sliding(window, kind) for window in (None, tokens, tokens - 1)}
    with torch.no_grad():
        with Pruner(models[None], plan):
            free = models[None](input_ids=ids, **features).logits
        with Pruner(models[tokens], plan):
            assert torch.equal(models[tokens](input_ids=ids, **features).logits, free)
            with pytest.raises(RowError, match=f"{tokens + 1} tokens are more than the {tokens}"):
                models[tokens].generate(input_ids=ids, **features, max_new_tokens=3, do_sample=False)
        with Pruner(models[tokens - 1], plan), pytest.raises(RowError, match="that its layers look back"):
            models[tokens - 1](input_ids=ids, **features)
    assert longest(SimpleNamespace(model=models[tokens])) == tokens
    assert longest(SimpleNamespace(model=models[None])) == models[None].config.text_config.max_position_embeddings
