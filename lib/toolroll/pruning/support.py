"""The parts of a transformers model that the plug-in needs, and why a model cannot have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from toolroll.errors import ToolrollError
from toolroll.pruning.plan import Plan
from toolroll.pruning.shape import Shape, shape_of
from toolroll.pruning.spans import image_token, knows_grids

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
NEURONS = ("gate_proj", "up_proj", "down_proj")
_BOTH_WAYS = ("gemma3", "paligemma", "gemma3n", "gemma4")


@dataclass(frozen=True, slots=True)
class Parts:
    """`inner` reads prompts with images, `text` is the language model in it, `layers` are its decoder layers."""

    model: Any
    inner: Any
    text: Any
    layers: Any
    shape: Shape
    text_key: str


def parts_of(model: Any, plan: Plan) -> Parts:
    """The parts of an image-text model that a plan can be carried out on. ToolrollError with the reason if none."""
    config = model.config
    name = type(model).__name__
    inner = getattr(model, "model", model)
    text = next((getattr(inner, one) for one in ("language_model", "text_model") if hasattr(inner, one)), None)
    if getattr(config, "is_encoder_decoder", False):
        raise _cannot(name, "it has an encoder and a decoder")
    if getattr(config.get_text_config(), "cross_attention_layers", None):
        raise _cannot(name, "it reads images by cross-attention, so that no token of its text is visual")
    if image_token(config) is None:
        raise _cannot(name, "it is no image-text model with image tokens in its prompts")
    if text is None or not hasattr(text, "layers") or not hasattr(text, "norm"):
        raise _cannot(name, "its language model is not a stack of decoder layers with a norm behind it")
    if str(config.model_type).startswith(_BOTH_WAYS):
        raise _cannot(name, "its image tokens attend to each other in both directions")
    layers = text.layers
    _check_attention(name, text, layers)
    _check_layers(name, layers, plan)
    if plan.window is not None and not knows_grids(config):
        raise _cannot(name, f"the grid of visual tokens of {config.model_type} is not known, as --window needs")
    deep = len(getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or ())
    first = min([plan.end(Shape(1, 1, len(layers), 1, 1, 1)), *(drop.layer for drop in plan.drops)])
    if deep > first:
        raise _cannot(name, f"its first {deep} layers add to visual tokens, and visual tokens end at layer {first}")
    shape = shape_of(config.to_dict(), place=name)
    key = next((one for one in config.sub_configs if getattr(config, one, None) is text.config), "text_config")
    return Parts(model, inner, text, layers, shape, key)


def window_of(config: Any) -> int | None:
    """How many tokens back the layers of a language model see, where that is the same in all; None where they see all.

    Within so many tokens such a model is one without a window, and can be pruned like that.
    """
    window = getattr(config, "sliding_window", None)
    return window if isinstance(window, int) and not getattr(config, "layer_types", None) else None


def _check_attention(name: str, text: Any, layers: Any) -> None:
    if not getattr(text, "_supports_attention_backend", False):
        raise _cannot(name, "its attention cannot be replaced")
    kinds = set(getattr(text.config, "layer_types", None) or ())
    if kinds - {"full_attention"} or any(getattr(layer.self_attn, "sliding_window", None) for layer in layers):
        raise _cannot(name, "some of its layers have an attention of another kind (a sliding window, say)")
    if getattr(text.config, "attn_logit_softcapping", None) or hasattr(layers[0].self_attn, "sinks"):
        raise _cannot(name, "its attention has a soft cap or sinks")


def _check_layers(name: str, layers: Any, plan: Plan) -> None:
    for number, layer in enumerate(layers):
        attention, net = layer.self_attn, layer.mlp
        missing = [one for one in PROJECTIONS if not hasattr(attention, one)]
        if missing:
            raise _cannot(name, f"its projections are fused: layer {number} has no {missing[0]}")
        if plan.ffn != 1:
            missing = [one for one in (*NEURONS, "act_fn") if not hasattr(net, one)]
            if missing:
                raise _cannot(name, f"the feed-forward net of layer {number} has no {missing[0]}, as --ffn needs")
            _plain(name, number, [(one, getattr(net, one)) for one in NEURONS])
        if plan.heads is not None and plan.softmax == "renorm":
            _plain(name, number, [(one, getattr(attention, one)) for one in PROJECTIONS])


def _plain(name: str, number: int, found: list[tuple[str, Any]]) -> None:
    for one, module in found:
        if type(module) is not nn.Linear:
            kind = type(module).__name__
            raise _cannot(name, f"{one} of layer {number} is a {kind}, not a plain linear layer of which to take rows")


def _cannot(name: str, why: str) -> ToolrollError:
    return ToolrollError(f"cannot be pruned: {why}", place=name)
