"""Linear layers that compute for visual tokens only what is used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from toolroll.pruning.tokens import Stage


def split_output(x: Tensor, layer: Any, stage: Stage, columns: Tensor) -> Tensor:
    """`layer(x)`, x [B, T, d]; of visual tokens only the outputs `columns`, the others 0."""
    flat = x.reshape(-1, x.shape[-1])
    made = flat.new_zeros(flat.shape[0], layer.out_features)
    made[stage.text_rows] = layer_of(flat[stage.text_rows], layer.weight, layer.bias)
    if len(columns):
        bias = None if layer.bias is None else layer.bias[columns]
        made[stage.visual_rows[:, None], columns] = layer_of(flat[stage.visual_rows], layer.weight[columns], bias)
    return made.view(*x.shape[:-1], -1)


def split_input(x: Tensor, layer: Any, stage: Stage, columns: Tensor) -> Tensor:
    """`layer(x)`, x [B, T, d], whose visual tokens have only the inputs `columns`; the others are 0."""
    flat = x.reshape(-1, x.shape[-1])
    made = flat.new_empty(flat.shape[0], layer.out_features)
    made[stage.text_rows] = layer_of(flat[stage.text_rows], layer.weight, layer.bias)
    if len(columns):
        visual = layer_of(flat[stage.visual_rows[:, None], columns], layer.weight[:, columns], layer.bias)
    else:
        visual = made.new_zeros(len(stage.visual_rows), layer.out_features)
        visual = visual if layer.bias is None else visual + layer.bias
    made[stage.visual_rows] = visual
    return made.view(*x.shape[:-1], -1)


def sliced_net(x: Tensor, net: Any, stage: Stage, neurons: int) -> Tensor:
    """The gated net of a layer, x [B, T, d]; visual tokens use its first `neurons` neurons."""
    flat = x.reshape(-1, x.shape[-1])
    text, visual = flat[stage.text_rows], flat[stage.visual_rows]
    made = torch.empty_like(flat)
    made[stage.text_rows] = net.down_proj(net.act_fn(net.gate_proj(text)) * net.up_proj(text))

    def first(layer: Any) -> Tensor:
        bias = None if layer.bias is None else layer.bias[:neurons]
        return layer_of(visual, layer.weight[:neurons], bias)

    inner = net.act_fn(first(net.gate_proj)) * first(net.up_proj)
    made[stage.visual_rows] = layer_of(inner, net.down_proj.weight[:, :neurons], net.down_proj.bias)
    return made.view(x.shape)


def layer_of(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product x W^T + b."""
    made: Tensor = linear(x, weight, bias)
    return made
