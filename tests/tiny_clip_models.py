"""Tiny random CLIP and SigLIP models with tokenizers of bytes, for tests of scores."""

from __future__ import annotations

import tiny_pairs

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(kind, length):
    """One token a byte; CLIP's begins and ends a text, SigLIP's ends it. The end token fills up."""
    from tokenizers.processors import TemplateProcessing

    words = tiny_pairs.tokenizer(("<bos>",))
    begin, end = words.convert_tokens_to_ids(["<bos>", "<eos>"])
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>" if kind == "clip" else "$A <eos>",
        special_tokens=[("<bos>", begin), ("<eos>", end)],
    )
    words.pad_token = "<eos>"
    words.model_max_length = length
    words.model_input_names = ["input_ids", "attention_mask"] if kind == "clip" else ["input_ids"]
    words.chat_template = None
    return words


def write(folder, kind="clip", length=77, seed=0, **sizes):
    """Save a random model of one of the two kinds, with its tokenizer and image processor; the folder's name."""
    import torch
    from transformers import (
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
    )

    torch.manual_seed(seed)
    words = tokenizer(kind, length)
    end = words.convert_tokens_to_ids("<eos>")
    sizes = {**SIZES, **sizes}
    text = {**sizes, "vocab_size": len(words), "max_position_embeddings": length, "eos_token_id": end}
    text |= {"bos_token_id": words.convert_tokens_to_ids("<bos>"), "pad_token_id": end}
    vision = {**sizes, "image_size": 16, "patch_size": 4}
    size = {"height": 16, "width": 16}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes["hidden_size"]))
        pictures = CLIPImageProcessorPil(size=size, crop_size=size)
    else:
        model = SiglipModel(
            SiglipConfig(text_config={**text, "projection_size": sizes["hidden_size"]}, vision_config=vision)
        )
        pictures = SiglipImageProcessorPil(size=size)
    for parameter in model.parameters():  # so that texts and images differ
        parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    pictures.save_pretrained(folder)
    return str(folder)
