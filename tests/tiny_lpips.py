"""Weights of the networks of LPIPS with very few channels."""

from __future__ import annotations

import math

import torch


def made_weights(net, seed=0):
    """Weights of a network with very few channels."""
    draws = torch.Generator().manual_seed(seed)
    tensors, channels, layer = {}, 3, 0
    for number, (size, _, _) in enumerate(net.convolutions):
        out = 2 + number % 3
        scale = 1.5 / math.sqrt(channels * size * size)
        tensors[f"conv{number}.weight"] = torch.randn(out, channels, size, size, generator=draws) * scale
        tensors[f"conv{number}.bias"] = torch.rand(out, generator=draws) * 0.2
        if number in net.seen:
            tensors[f"lin{layer}.weight"] = torch.rand(out, generator=draws)
            layer += 1
        channels = out
    return tensors
