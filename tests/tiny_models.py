"""Tiny random models of many families, saved in a number format, for tests of how they are computed.

The image-text ones come with processors of their own classes, whose images are at most a few tiles of 16 x 16 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tiny_pairs

SIZES = {
    "vocab_size": 262,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}


def text_models():
    """Names of families, and their configurations."""
    from transformers import (
        Gemma3TextConfig,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        MixtralConfig,
        OPTConfig,
        Phi3Config,
        Qwen2Config,
        Qwen3Config,
    )

    gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    ends = {name: SIZES[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "llama": LlamaConfig(**GROUPED),
        "llama-tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
        "qwen2": Qwen2Config(**GROUPED),  # has biases
        "qwen3": Qwen3Config(**GROUPED, head_dim=8),
        "phi3": Phi3Config(**GROUPED),  # fused projections
        "gemma3": Gemma3TextConfig(
            **GROUPED, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        ),  # scales its embeddings, some layers have windows
        "gpt2": GPT2Config(**ends, **gpt2, initializer_range=0.2),  # Conv1D, learned positions
        "gpt-neox": GPTNeoXConfig(**SIZES),
        "opt": OPTConfig(
            **ends,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            word_embed_proj_dim=32,
            init_std=0.2,
        ),
        "mixtral": MixtralConfig(**GROUPED, num_local_experts=4),  # experts are no linear layers
    }


def write_text(folder, family, dtype, seed=0):
    """Save a random model of `family` in `dtype` ("bfloat16", ...), with the tokenizer of `tiny_pairs`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(text_models()[family])
    for parameter in model.parameters():  # biases and norms begin as 0 and 1, which any format holds
        parameter.data += torch.randn_like(parameter) * 0.02
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tiny_pairs.tokenizer().save_pretrained(folder)
    return str(folder)


def write_byte_llama(folder, seed=0, most=256):
    """Save a random Llama whose tokens are bytes, for sequences of `most` tokens, with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, "<eos>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(alphabet) + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=most,
        eos_token_id=len(alphabet),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)


def mask2former(layers, **more):
    """A random Mask2Former on a small Swin, whose decoder has one layer less than `layers`."""
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_layers=1,
        encoder_feedforward_dim=32, dim_feedforward=32, decoder_layers=layers, num_attention_heads=2, num_queries=6,
        **more,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config).eval()


def noise_pictures(folder):
    """Pictures of noise, so that no two look alike: square, wide, tall."""
    import torch
    from PIL import Image

    noise = torch.Generator().manual_seed(0)
    made = []
    for i, (width, height) in enumerate([(16, 16), (40, 16), (16, 40)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=noise, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
        made.append(folder / f"{i}.png")
    return made


MARKS = ("<video>", "<start>", "<end>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
WITH_ENDS = tiny_pairs.TEMPLATE.replace("<image>", "<start><image><end>")
FROM_FOLDERS = ("llava", "llava-next", "idefics3")  # whose processors load without torchvision


@dataclass(frozen=True)
class ImageText:
    """An image-text model: its configuration, its tokenizer and what makes its processor of the tokenizer."""

    config: Any
    words: Any
    processor: Any


def image_models(families=None):
    """Names of families, and what their models are made of. `families` takes some of them."""
    makers = {
        "llava": _llava,
        "llava-next": _llava_next,
        "qwen2-vl": _qwen2_vl,
        "qwen2.5-vl": _qwen2_5_vl,
        "idefics3": _idefics3,
        "smolvlm": _smolvlm,
        "internvl": _internvl,
    }
    return {name: makers[name](_words()) for name in families or makers}


def image_model(family, seed=0, most=None):
    """A random model of an image-text family, for sequences of `most` tokens where that is given; and its processor."""
    import torch
    from transformers import AutoModelForImageTextToText

    made = image_models([family])[family]
    if most is not None:
        made.config.get_text_config().max_position_embeddings = most
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(made.config)
    for parameter in model.parameters():  # biases and norms begin as 0 and 1
        parameter.data += torch.randn_like(parameter) * 0.05
    return model.eval().requires_grad_(False), made.processor()


def write_image_text(folder, family, seed=0, most=None):
    """Save a random model of one of `FROM_FOLDERS` with its processor."""
    model, processor = image_model(family, seed, most)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _words():
    words = tiny_pairs.tokenizer((*MARKS, *TILES))
    words.video_token, words.video_token_id = "<video>", words.convert_tokens_to_ids("<video>")
    return words


def _text(words, **more):
    return {**GROUPED, "model_type": "llama", "vocab_size": len(words), "max_position_embeddings": 512, **more}


def _vision(**more):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "image_size": 16, "patch_size": 4, "initializer_range": 0.2, **more}


def _llava(words):
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaProcessor

    config = LlavaConfig(
        vision_config=_vision(model_type="clip_vision_model"),
        text_config=_text(words),
        image_token_index=words.image_token_id,
        image_seq_length=16,
    )
    size = {"height": 16, "width": 16}
    pictures = CLIPImageProcessorPil(size=size, crop_size=size)
    return ImageText(config, words, lambda: LlavaProcessor(pictures, words, **_PATCHES))


_PATCHES = {
    "patch_size": 4,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "chat_template": tiny_pairs.TEMPLATE,
}


def _llava_next(words):
    from transformers import LlavaNextConfig, LlavaNextImageProcessorPil, LlavaNextProcessor

    grid = [[16, 32], [32, 16], [32, 32]]
    config = LlavaNextConfig(
        vision_config=_vision(model_type="clip_vision_model"),
        text_config=_text(words),
        image_token_index=words.image_token_id,
        image_grid_pinpoints=grid,
    )
    crop = {"height": 16, "width": 16}
    pictures = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=crop, image_grid_pinpoints=grid)
    return ImageText(config, words, lambda: LlavaNextProcessor(pictures, words, **_PATCHES))


def _qwen_text(words):
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    sizes = {name: value for name, value in _text(words).items() if name != "model_type"}
    return {**sizes, "rope_parameters": rope}


def _qwen_marks(words):
    start, end = words.convert_tokens_to_ids(["<start>", "<end>"])
    return {
        "image_token_id": words.image_token_id,
        "video_token_id": words.video_token_id,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
    }


def _qwen_pictures():
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )


def _qwen2_vl(words):
    from transformers import Qwen2VLConfig, Qwen2VLProcessor

    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "in_channels": 3}
    config = Qwen2VLConfig(
        text_config=_qwen_text(words),
        vision_config={**vision, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2},
        **_qwen_marks(words),
    )
    return ImageText(config, words, lambda: _without_videos(Qwen2VLProcessor, _qwen_pictures(), words, WITH_ENDS))


def _qwen2_5_vl(words):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "in_channels": 3}
    config = Qwen2_5_VLConfig(
        text_config=_qwen_text(words),
        vision_config={
            **vision,
            "out_hidden_size": 32,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        **_qwen_marks(words),
    )
    return ImageText(config, words, lambda: _without_videos(Qwen2_5_VLProcessor, _qwen_pictures(), words, WITH_ENDS))


_SPLIT = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}


def _idefics3(words):
    from transformers import Idefics3Config, Idefics3ImageProcessorPil, Idefics3Processor

    config = Idefics3Config(
        vision_config=_vision(), text_config=_text(words), image_token_id=words.image_token_id, scale_factor=2
    )
    pictures = Idefics3ImageProcessorPil(**_SPLIT)
    template = tiny_pairs.TEMPLATE
    return ImageText(config, words, lambda: Idefics3Processor(pictures, words, image_seq_len=4, chat_template=template))


def _smolvlm(words):
    from transformers import SmolVLMConfig, SmolVLMImageProcessorPil, SmolVLMProcessor

    config = SmolVLMConfig(
        vision_config=_vision(), text_config=_text(words), image_token_id=words.image_token_id, scale_factor=2
    )
    pictures = SmolVLMImageProcessorPil(**_SPLIT)
    return ImageText(
        config, words, lambda: _without_videos(SmolVLMProcessor, pictures, words, tiny_pairs.TEMPLATE, image_seq_len=4)
    )


def _internvl(words):
    from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLProcessor

    config = InternVLConfig(
        vision_config=_vision(image_size=[16, 16], patch_size=[4, 4]),
        text_config=_text(words, model_type="qwen2"),
        image_token_id=words.image_token_id,
        image_seq_length=4,
    )
    words.start_image_token, words.end_image_token, words.context_image_token = "<start>", "<end>", "<image>"
    words.start_image_token_id, words.end_image_token_id = words.convert_tokens_to_ids(["<start>", "<end>"])
    words.context_image_token_id = words.image_token_id
    pictures = GotOcr2ImageProcessorPil(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return ImageText(
        config,
        words,
        lambda: _without_videos(InternVLProcessor, pictures, words, tiny_pairs.TEMPLATE, image_seq_length=4),
    )


def _without_videos(kind, pictures, words, template, **settings):
    """A processor of the class `kind`, which asks for one of videos, as these need torchvision."""
    import sys
    from types import SimpleNamespace

    module = sys.modules[kind.__module__]
    if getattr(module, "num2words", True) is None:  # a package that spells numbers out, for videos
        module.num2words = str
    made = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda self, name, given: object})
    videos = SimpleNamespace(num_frames=1, fps=1, video_sampling={}, size={})
    return made(pictures, words, video_processor=videos, chat_template=template, **settings)
