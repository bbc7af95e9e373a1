"""What LayerCast is for: half the resident memory of fp32."""

from __future__ import annotations

import json
import sys

import frame
import pytest
import tiny_models
import tiny_pairs
import torch

from toolroll.numerics.upcast import SCRATCH

HELD = """
import json, sys
import torch
from toolroll.models.base import Sampling
from toolroll.models.device import Device
from toolroll.models.padded import Asked, Batches
from toolroll.numerics.load import Precision, load
from toolroll.numerics.runner import forget_peak, peak

torch.set_num_threads(1)
device = Device("cpu", "float32", 1, "cpu")
small, big, precision, how = sys.argv[1:]
held = []
for model in (small, big):
    ready = load(model, device, Precision(precision, how=how))
    batches = Batches(ready.loaded.model, frozenset([1]), most=256)
    batches.write([Asked([5 + i] * 20, Sampling(temperature=0, max_tokens=4)) for i in range(6)])
    forget_peak(device)
    held.append(peak(device))
print(json.dumps([held[1] - held[0], ready.weight_bytes]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model with hardly any weights, and one of 48M, almost all in linear layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {**tiny_models.GROUPED, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 3}
    LlamaForCausalLM(LlamaConfig(**sizes)).to(torch.bfloat16).save_pretrained(folder / "big")
    tiny_pairs.tokenizer().save_pretrained(folder / "big")
    return tiny_models.write_text(folder / "small", "llama", "bfloat16"), str(folder / "big")


def held(models, precision, how="blocked"):
    """Resident bytes that the weights of the big model take once it has answered, and its bytes by count."""
    result = frame.run([sys.executable, "-W", "ignore", "-c", HELD, *models, precision, how])
    assert result.rc == 0, result.err
    return json.loads(result.out)


@pytest.mark.parametrize("how", ["blocked", "fused"])
def test_half_the_resident_memory_of_fp32(models, how):
    full, full_bytes = held(models, "fp32")
    assert full == pytest.approx(full_bytes, rel=0.05)  # so what is measured is the weights
    cast, cast_bytes = held(models, "layercast", how)
    assert cast_bytes <= 0.501 * full_bytes
    assert cast <= 0.51 * full + (SCRATCH if how == "blocked" else 0)
