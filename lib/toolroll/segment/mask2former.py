"""Any Mask2Former of transformers with a gated block of attention to text in each layer of its decoder.

Nothing of the model is replaced: hooks on its layers put the block in. With gates of 0 everything that the model gives
is what it gave before, to the bit. Classes of prompts come from a head of our own beside the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.errors import UsageError
from toolroll.models.hub import seek_hub
from toolroll.models.load import loading, quiet, whole
from toolroll.segment.attention import TextAttention
from toolroll.segment.decoder import ClassHead, Outputs
from toolroll.segment.text import Text

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  #: mean and std of colours that Mask2Former wants


def open_base(name: str) -> Any:
    """The Mask2Former in a folder or of the hub. ToolrollError for what is none."""
    from transformers import Mask2FormerForUniversalSegmentation

    if not Path(name).is_dir():
        seek_hub()
    with loading("a Mask2Former", name), quiet():
        return whole(
            Mask2FormerForUniversalSegmentation.from_pretrained(name, output_loading_info=True, dtype=torch.float32)
        )


def wrap(base: Any, shape: Any) -> Prompted:
    """A base with the block of `shape` (toolroll.segment.model.Shape)."""
    return Prompted(base, shape.text_width, text_pos=shape.text_pos, pmp=shape.pmp)


class Prompted(nn.Module):  # type: ignore[misc]
    """A Mask2Former whose queries attend to prompts, where `pmp`; and a head for classes named by text."""

    def __init__(self, base: Any, text_width: int, *, text_pos: str = "first", pmp: bool = True) -> None:
        super().__init__()
        config = base.config
        if text_pos == "after-cross" and config.pre_norm:
            raise UsageError("a model with norms in front has no such place: take first or last", place="--text-pos")
        width, heads = config.hidden_dim, config.num_attention_heads
        self.base = base
        layers = base.model.transformer_module.decoder.layers
        self.text_project = nn.Linear(text_width, width) if pmp else None
        self.blocks = nn.ModuleList(TextAttention(width, heads, gated=True) for _ in layers) if pmp else None
        self.class_head = ClassHead(width, text_width, config.mask_feature_size)
        self._text_pos = text_pos

    def plain(self, images: Tensor, text: Text, **settings: Any) -> Any:
        """What the base says of images [B, 3, H, W] with the block in place, as transformers gives it."""
        with self._listening(text):
            return self.base(images, **settings)

    def forward(self, images: Tensor, text: Text) -> Outputs:
        """Masks, and the classes of the prompts."""
        with self._listening(text):
            said = self.base.model(images, output_hidden_states=True, return_dict=True)
        features = said.pixel_decoder_last_hidden_state
        states, masks = said.transformer_decoder_intermediate_states, said.masks_queries_logits
        pairs = list(zip(states, masks, strict=True))
        if not self.training:
            pairs = pairs[-1:]
        classes = [self.class_head(state.transpose(0, 1), mask, features, text) for state, mask in pairs]
        return Outputs(torch.stack(classes), torch.stack([mask for _, mask in pairs]))

    @contextmanager
    def _listening(self, text: Text) -> Iterator[None]:
        """The hooks in place, with these prompts."""
        if self.blocks is None or self.text_project is None:
            yield
            return
        tokens = self.text_project(text.tokens)
        module = self.base.model.transformer_module
        positions = module.queries_embedder.weight.unsqueeze(0)
        handles = []

        def heard(block: nn.Module, state: Tensor) -> Tensor:  # the base has [Q, B, D]
            made: Tensor = block(state.transpose(0, 1), positions, tokens, text.real).transpose(0, 1)
            return made

        for layer, block in zip(module.decoder.layers, self.blocks, strict=True):

            def before(_: nn.Module, given: tuple[Any, ...], block: nn.Module = block) -> tuple[Any, ...]:
                return (heard(block, given[0]), *given[1:])

            def behind(_: nn.Module, _given: Any, made: Any, block: nn.Module = block) -> Any:
                return heard(block, made) if isinstance(made, Tensor) else (heard(block, made[0]), *made[1:])

            if self._text_pos == "first":
                handles.append(layer.register_forward_pre_hook(before))
            else:  # the norm behind the attention to the image ends that part of a layer
                place = layer if self._text_pos == "last" else layer.cross_attn_layer_norm
                handles.append(place.register_forward_hook(behind))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
