"""A tokenizer of bytes with a chat template, for tests of pairs."""

from __future__ import annotations

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<eos>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<pad>", "<eos>", "<image>", "<|user|>", "<|assistant|>", "<|system|>")


def tokenizer(more=(), template=TEMPLATE):
    """One token a byte, behind the special ones and `more` of them: 262 in all without more."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [*SPECIAL, *more]
    words = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*special, *alphabet])}, []))
    words.add_special_tokens([AddedToken(token, special=True) for token in special])
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>")
    made.chat_template = template
    made.image_token = "<image>"
    made.image_token_id = made.convert_tokens_to_ids("<image>")
    return made


def write_text_model(folder, seed=0):
    """A tiny random Llama with that tokenizer."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer()
    LlamaForCausalLM(_llama(len(words))).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_image_model(folder, seed=0):
    """A tiny random LLaVA: a CLIP image encoder of 16 patches, the same Llama, and their processor."""
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(seed)
    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(len(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    pictures = CLIPImageProcessorPil(size=size, crop_size=size)
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=4,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _llama(vocabulary):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def picture(path, colour, size=(20, 16)):
    """A PNG of one colour."""
    from PIL import Image

    Image.new("RGB", size, colour).save(path)
    return path
