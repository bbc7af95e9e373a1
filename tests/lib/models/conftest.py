"""Tiny random models of several families, each with a twin that transformers runs its own way."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import torch
    import transformers

from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.scripted import ByteCodec

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 256,
    "pad_token_id": 0,
    "initializer_range": 0.15,  # far from uniform predictions, so that the best token is clear
}


def _configs() -> dict[str, Any]:
    return {
        "llama": transformers.LlamaConfig(**SIZES, num_key_value_heads=4),
        "llama-gqa": transformers.LlamaConfig(**SIZES, num_key_value_heads=1),
        "qwen2": transformers.Qwen2Config(**SIZES, num_key_value_heads=2),
        "qwen2-mixed": transformers.Qwen2Config(
            **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=9, max_window_layers=1
        ),
        "mistral": transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=11),
        "gemma3": transformers.Gemma3TextConfig(
            **SIZES,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=10,
            layer_types=["sliding_attention", "full_attention"],
        ),
    }


FAMILIES = ("llama", "llama-gqa", "qwen2", "qwen2-mixed", "mistral", "gemma3")


@dataclass
class Tiny:
    """`loaded` for the engine, `plain` the same weights under transformers' own attention."""

    loaded: Loaded
    plain: Any

    def continuation(self, ids, count):
        """Greedy ids and log-probs by reading the whole text anew for every token."""
        ids, logprobs = list(ids), []
        begin = len(ids)
        with torch.inference_mode():
            for _ in range(count):
                scores = self.plain(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
                ids.append(int(scores.argmax()))
                logprobs.append(float(scores[ids[-1]]))
        return tuple(ids[begin:]), logprobs

    def logprobs(self, ids, begin, temperature=1.0):
        """Log-prob of each token from `begin` on, from one pass over the whole text."""
        with torch.inference_mode():
            scores = (self.plain(torch.tensor([list(ids)]), use_cache=False).logits[0] / temperature).log_softmax(-1)
        return [float(scores[i - 1, ids[i]]) for i in range(begin, len(ids))]


class SilentCodec(ByteCodec):
    """Bytes, and no end of text: a random model's output has the length asked for."""

    eos_ids = frozenset()


def make_tiny(family="llama-gqa", seed=0, codec=None):
    torch.manual_seed(seed)
    plain = transformers.AutoModelForCausalLM.from_config(_configs()[family], attn_implementation="eager").eval()
    device = Device("cpu", "float32", torch.get_num_threads(), "cpu")
    loaded = Loaded(copy.deepcopy(plain), codec or SilentCodec(), "tiny", "0" * 16, device)
    return Tiny(loaded, plain)


@pytest.fixture
def tiny():
    """Make a tiny model: `tiny("llama-gqa")`."""
    return make_tiny


@pytest.fixture(params=FAMILIES)
def family(request):
    """A tiny model of each family."""
    return make_tiny(request.param)
