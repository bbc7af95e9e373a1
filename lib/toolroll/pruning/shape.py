"""The sizes of a language model that its cost depends on, from a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, first_line

_NOT_GATED = frozenset(
    ["gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2", "mpt", "codegen", "persimmon"]
)
_NEEDED = {
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of `layers` layers of width `hidden`.

    Each has `heads` query heads and `kv_heads` key and value heads of `head_dim` numbers, and a feed-forward net of
    `ffn` neurons, `gated` (three matrices) or not (two). `vocabulary` tokens, 0 where not known.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool = True
    vocabulary: int = 0

    @property
    def group(self) -> int:
        """Query heads that share a key and value head."""
        return self.heads // self.kv_heads


def shape_of(config: Mapping[str, Any], *, place: str = "config") -> Shape:
    """The shape that a configuration describes, of the language model in it where it has several parts.

    What a Hugging Face configuration leaves out has the default of its class. ToolrollError for one without sizes.

    >>> sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    >>> shape_of({"text_config": sizes}).head_dim
    16
    """
    text = _text_part(config)
    if not all(isinstance(text.get(name), int) for name in _NEEDED.values()) and isinstance(
        config.get("model_type"), str
    ):
        text = _completed(config, place)
    missing = [name for name in _NEEDED.values() if not isinstance(text.get(name), int)]
    if missing:
        raise ToolrollError(f"has no {missing[0]}", place=place)
    sizes = {name: int(text[given]) for name, given in _NEEDED.items()}
    heads = sizes["heads"]
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_dim = int(text.get("head_dim") or (sizes["hidden"] // heads if heads else 0))
    if min(*sizes.values(), kv_heads, head_dim) < 1:
        raise ToolrollError("has a size below 1", place=place)
    if heads % kv_heads:
        raise ToolrollError(f"{heads} heads do not share {kv_heads} key and value heads evenly", place=place)
    return Shape(
        **sizes,
        kv_heads=kv_heads,
        head_dim=head_dim,
        gated=text.get("model_type") not in _NOT_GATED,
        vocabulary=int(text.get("vocab_size") or 0),
    )


def read_shape(path: Path) -> Shape:
    """The shape in a file with a configuration: a model's config.json."""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ToolrollError("is not JSON", place=str(path)) from error
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    if not isinstance(config, dict):
        raise ToolrollError("is not a JSON object", place=str(path))
    return shape_of(config, place=str(path))


def shape_of_model(name: str, notify: Callable[[str], None] = lambda _: None) -> Shape:
    """The shape of a model by its name: a Hugging Face folder or hub id."""
    from transformers import AutoConfig

    from toolroll.models.load import find_model

    place = find_model(name, notify)
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:
        why = first_line(error)
        raise ToolrollError(f"has no configuration that can be read: {why}", place=name) from error
    return shape_of(config.to_dict(), place=name)


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(name), dict):
            part: Mapping[str, Any] = config[name]
            return part
    return config


def _completed(config: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The language model's part with the defaults of its class."""
    from transformers import AutoConfig

    try:
        whole = AutoConfig.for_model(**config)
        found: Mapping[str, Any] = whole.get_text_config().to_dict()
    except Exception as error:  # each class checks its values in its own way
        why = first_line(error)
        raise ToolrollError(f"is no configuration of a known model: {why}", place=place) from error
    return found
