"""Loading a model for one numerical configuration: plain bf16, fp16 or fp32, or LayerCast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolroll.errors import ToolrollError, first_line
from toolroll.models.adapters import base_of, is_adapter
from toolroll.models.device import Device
from toolroll.models.load import Loaded, find_model, load_causal_lm, quiet
from toolroll.models.vision import load_image_text, takes_images
from toolroll.numerics.checkpoint import own_types, sixteen_bit, what_is_lost
from toolroll.numerics.elementwise import steady
from toolroll.numerics.modules import SHORT, convert, shard, weight_bytes

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
PRECISIONS = (*DTYPES, "layercast")


@dataclass(frozen=True, slots=True)
class Precision:
    """How the numbers of a model are held and computed.

    `precision`: bf16, fp16, fp32 (weights and arithmetic), or layercast (weights of linear layers in 16 bit, arithmetic
    in fp32). `keep`: under layercast the type of those weights (bf16, fp16, fp32), None for the checkpoint's own 16-bit
    type, or bf16 where it has none. `how`: layercast's linear layer (naive, blocked, fused). `tp`: devices that tensor
    parallelism is simulated for. `attention`: sdpa, eager, or alone (`numerics.alone`).
    """

    precision: str = "layercast"
    keep: str | None = None
    how: str = "blocked"
    tp: int = 1
    attention: str = "sdpa"


@dataclass(frozen=True, slots=True)
class Ready:
    """A model ready to run in a configuration, the bytes of its weights, and the type they are held in.

    `extra` is what its batches have to tell it, see `models.padded.Batches`.
    """

    loaded: Loaded
    weight_bytes: int
    kept: str
    takes_images: bool
    extra: Callable[[Tensor], dict[str, Any]]


def load(
    name: str,
    device: Device,
    asked: Precision,
    *,
    trust_remote_code: bool = False,
    notify: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Ready:
    """Load the model `name` as `asked`. `warn` hears what precision its weights lose. Raises ToolrollError."""
    place = find_model(name, notify)
    visual = takes_images(name, notify)
    types = own_types(place, _config(place, trust_remote_code))
    exact = sixteen_bit(types)
    casting = asked.precision == "layercast"
    kept = _kept(asked, exact)
    if lost := what_is_lost(types, kept):
        advice = "; --keep fp32 would lose none" if casting else ""
        warn(f"{name}: {lost}{advice}")
    # A checkpoint whose types are mixed is read in fp32, where all of them are exact.
    dtype = (exact or "float32") if casting else kept
    chosen = replace(device, dtype=dtype)
    loaded = (
        load_image_text(name, chosen, notify=notify)
        if visual
        else load_causal_lm(name, chosen, trust_remote_code=trust_remote_code, notify=notify)
    )
    model = loaded.model
    if model.config.is_encoder_decoder:
        raise ToolrollError("only models without an encoder of text can be run", place=name)
    model.requires_grad_(False)  # torch chooses the kernel of a product by this, too
    _choose_attention(model, asked.attention, name)
    if casting:
        if dtype != "float32":
            _renew_buffers(model)
        done = convert(model, getattr(torch, kept), asked.how, tables=exact == kept)
        model.config.dtype = torch.float32
        size = done.bytes
        if done.left:
            warn(f"{name}: {len(done.left)} layers stay in fp32 ({', '.join(sorted(set(done.left)))})")
    else:
        size = weight_bytes(model)
        if kept == "float16" and any(bool(p.isinf().any()) for p in model.parameters()):
            raise ToolrollError("some of its weights are beyond the range of float16", place=name)
    if asked.attention == "alone":
        steady(model)
    if asked.tp > 1:
        shard(model, asked.tp, place=name)
    extra = _begins if asked.attention == "alone" else _nothing
    return Ready(loaded, size, SHORT[getattr(torch, kept)], visual, extra)


def _kept(asked: Precision, exact: str | None) -> str:
    if asked.precision != "layercast":
        return DTYPES[asked.precision]
    return DTYPES[asked.keep] if asked.keep else exact or "bfloat16"


def _config(place: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    base = find_model(base_of(Path(place)), lambda _: None) if is_adapter(place) else place
    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        why = first_line(error)
        raise ToolrollError(f"has no configuration that can be read: {why}", place=place) from error


def _choose_attention(model: Any, attention: str, name: str) -> None:
    chosen: str | dict[str, str] = attention
    if attention == "alone":
        from toolroll.numerics.alone import ATTENTION

        if not getattr(model, "_supports_attention_backend", False):
            raise ToolrollError("transformers does not let the attention of this model be replaced", place=name)
        text = "text_config" if model.config.get_text_config() is not model.config else ""
        chosen = {"": "sdpa", text: ATTENTION}  # images are encoded one by one as it is
    try:
        model.set_attn_implementation(chosen)
    except (ValueError, ImportError) as error:
        raise ToolrollError(f"its attention cannot be {attention}: {error}", place=name) from error


def _begins(mask: Tensor) -> dict[str, Any]:
    from toolroll.numerics.alone import Begins

    return {"begins": Begins.of(mask)}


def _nothing(_mask: Tensor) -> dict[str, Any]:
    return {}


def _renew_buffers(model: Any) -> None:
    """Put fp32 values into the buffers that no checkpoint holds (frequencies, scales): loading rounded some of them.

    They are taken from the same model built in fp32 without its weights.
    """
    from accelerate import init_empty_weights

    config = type(model.config).from_dict(model.config.to_dict())
    config.dtype = torch.float32
    with quiet(), init_empty_weights(include_buffers=False):
        twin = type(model)._from_config(config, dtype=torch.float32)
    saved = set(model.state_dict())
    for name, buffer in twin.named_buffers():
        if name not in saved and buffer.is_floating_point():
            parent, _, own = name.rpartition(".")
            held = model.get_submodule(parent)
            setattr(held, own, buffer.to(getattr(held, own).device))
