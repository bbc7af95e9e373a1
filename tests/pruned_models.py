"""Tiny image-text models for pruning: prompts as tensors, and a plan carried out by masks, with nothing skipped."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache

import tiny_models
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from toolroll.models.vision import chat_text, processed
from toolroll.pruning.plan import Plan
from toolroll.pruning.spans import marked
from toolroll.pruning.support import parts_of

FAMILIES = ("llava", "llava-next", "qwen2-vl", "qwen2.5-vl", "idefics3", "smolvlm", "internvl")
MASK = ((True, False, True, True), (False, False, True, False))  # two layers of four heads, two to a key head
WHOLE = ((False, False, True, True), (False, False, False, False))  # whole groups, and none at all
PLANS = {
    "cut": Plan(cut=1),
    "cut-0": Plan(cut=0),
    "ffn": Plan(ffn=2),
    "heads": Plan(heads=MASK),
    "whole-heads": Plan(heads=WHOLE),
    "window": Plan(window=3),
    "both-ways": Plan(window=3, window_causal=False),
    "self": Plan(window=1),
    "cross-tile": Plan(window=3, cross_tile=True),
    "all": Plan(window=3, heads=MASK, ffn=2, cut=1),
    "all-both-ways": Plan(window=3, window_causal=False, cross_tile=True, heads=WHOLE, ffn=3),
}


@cache
def pictures():
    """Noise, so that no two are alike: square, wide, tall."""
    from PIL import Image

    noise = torch.Generator().manual_seed(0)
    sizes = [(16, 16), (40, 16), (16, 40)]
    return [
        Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=noise, dtype=torch.uint8).numpy())
        for width, height in sizes
    ]


@cache
def model_of(family, dtype=torch.float64):
    """A tiny model and its processor."""
    model, processor = tiny_models.image_model(family)
    return model.to(dtype), processor


def prompt(processor, *parts, dtype=torch.float64):
    """Token ids [1, T] of texts and pictures (their numbers), and the tensors of these."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
    text = chat_text(processor, [{"role": "user", "content": content}])
    images = [pictures()[part] for part in parts if not isinstance(part, str)]
    if not images:
        return torch.tensor([processor.tokenizer(text, add_special_tokens=False)["input_ids"]]), {}
    ids, features = processed(processor, text, images)
    return torch.tensor([ids]), {k: v.to(dtype) if v.is_floating_point() else v for k, v in features.items()}


def longer(ids, features, more):
    """A prompt with more text [1, K] behind."""
    made = dict(features)
    if "mm_token_type_ids" in made:
        made["mm_token_type_ids"] = torch.cat([made["mm_token_type_ids"], torch.zeros_like(more)], 1)
    return torch.cat([ids, more], 1), made


@contextmanager
def masked(model, plan, ids, features, attention_mask=None):
    """The model with a plan carried out by masks: eager, over all heads, tokens and layers, without a cache."""
    parts = parts_of(model, plan)
    marks = marked(model.config, ids, attention_mask, features)
    shape = parts.shape
    pairs = {on: allowed(plan, marks, on) for on in (False, True)}

    def attend(module, query, key, value, mask, scaling=None, dropout=0.0, **others):
        layer = module.layer_idx
        k, v = (one.repeat_interleave(shape.group, dim=1) for one in (key, value))
        active = [one and layer < plan.end(shape) for one in plan.active(layer, shape)]
        seen = torch.stack([pairs[one] for one in active], 1)
        weights = (query @ k.transpose(2, 3)) * scaling
        out = weights.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        gone = marks.visual[:, None, :, None] & ~torch.tensor(active)[None, :, None, None]
        return out.masked_fill(gone, 0).transpose(1, 2).contiguous(), None

    AttentionInterface.register("vprune-masked", attend)
    AttentionMaskInterface.register("vprune-masked", sdpa_mask)
    model.set_attn_implementation({parts.text_key: "vprune-masked"})
    for layer in parts.layers:
        layer.mlp.forward = _net(layer.mlp, marks.visual, plan.neurons(shape))
    try:
        yield
    finally:
        model.set_attn_implementation({parts.text_key: "sdpa"})
        for layer in parts.layers:
            del layer.mlp.forward


def allowed(plan, marks, on):
    """Bool [B, T, T], one pair of tokens after the other; `on` is whether text sees visual tokens."""
    parts = (marks.visual, marks.valid, marks.tile, marks.row, marks.column)
    made = []
    for b in range(len(marks.visual)):
        tokens = list(zip(*(part[b].tolist() for part in parts), strict=True))
        rows = [[_sees(plan, on, i, j, *tokens) for j in range(len(tokens))] for i in range(len(tokens))]
        made.append([one if any(one) else [True] * len(one) for one in rows])  # padding
    return torch.tensor(made)


def _sees(plan, on, i, j, *tokens):
    visual, _, tile, row, column = tokens[i]
    other, valid, its_tile, its_row, its_column = tokens[j]
    earlier = valid and j <= i
    if visual and other and plan.window is not None:
        if tile != its_tile:
            return earlier and plan.cross_tile
        near = max(abs(row - its_row), abs(column - its_column)) <= plan.reach
        return valid and near and (j <= i or not plan.window_causal)
    return earlier and (on or visual or not other)


def _net(net, visual, neurons):
    def forward(x):
        inner = net.act_fn(net.gate_proj(x)) * net.up_proj(x)
        gone = visual[:, :, None] & (torch.arange(inner.shape[-1]) >= neurons)
        return net.down_proj(inner.masked_fill(gone, 0))

    return forward
