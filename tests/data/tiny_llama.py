"""Makes tiny-llama: a Llama of 4,272 random weights with 64 tokens (bytes 32 to 94 and an end), for tests of training.

python tests/data/tiny_llama.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).with_name("tiny-llama")
LETTERS = [chr(code) for code in range(33, 96)]


def main() -> None:
    """Write the folder."""
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*LETTERS, "<eos>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=63,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(FOLDER)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
