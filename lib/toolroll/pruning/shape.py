"""The sizes of a language model that its cost depends on, from a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, first_line

_NOT_GATED = frozenset(
    [
        *("apertus", "arcee", "biogpt", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
        *("gpt_neox_japanese", "gptj", "jais2", "mpt", "nanochat", "nemotron", "opt", "persimmon", "phi"),
        *("starcoder2", "xglm"),
    ]
)
_NEEDED = {
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}
_OPTIONAL = ("num_key_value_heads", "head_dim", "vocab_size")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_MOST = 10**7  #: of any size


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
    kind = text.get("model_type") or config.get("model_type")
    if isinstance(kind, str) and any(text.get(name) is None for name in (*_NEEDED.values(), *_OPTIONAL)):
        text = _completed(config, text, place)
    if missing := [name for name in _NEEDED.values() if text.get(name) is None]:
        raise ToolrollError(f"has no {missing[0]}", place=place)
    if mixed := [name for name in _EXPERTS if text.get(name) not in (None, 0, 1)]:
        raise ToolrollError(f"its nets are mixtures of experts ({mixed[0]}), which are not counted", place=place)
    sizes = {name: _size(text, given, place) for name, given in _NEEDED.items()}
    heads = sizes["heads"]
    kv_heads = _size(text, "num_key_value_heads", place, heads)
    if heads % kv_heads:
        raise ToolrollError(f"{heads} heads do not share {kv_heads} key and value heads evenly", place=place)
    return Shape(
        **sizes,
        kv_heads=kv_heads,
        head_dim=_size(text, "head_dim", place, sizes["hidden"] // heads),
        gated=text.get("model_type") not in _NOT_GATED,
        vocabulary=_size(text, "vocab_size", place, 0) if text.get("vocab_size") else 0,
    )


def _size(config: Mapping[str, Any], name: str, place: str, default: int = 0) -> int:
    """A size, which is a whole number from 1 on; `default` where there is none."""
    given = config.get(name)
    found = default if given is None or given == 0 else given
    if isinstance(found, bool) or not isinstance(found, int):
        raise ToolrollError(f"{name} is no whole number", place=place)
    if not 1 <= found <= _MOST:
        raise ToolrollError(f"{name} is not in 1..{_MOST}", place=place)
    return found


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

    from toolroll.models.load import find_model, quiet

    place = find_model(name, notify)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
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


def _completed(config: Mapping[str, Any], text: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The language model's part with the defaults of its class; as it is where it has all sizes and no known class."""
    from transformers import AutoConfig

    try:
        whole = AutoConfig.for_model(**config)
        found: Mapping[str, Any] = whole.get_text_config().to_dict()
    except Exception as error:  # each class checks its values in its own way
        if all(text.get(name) is not None for name in _NEEDED.values()):
            return text
        why = first_line(error)
        raise ToolrollError(f"is no configuration of a known model: {why}", place=place) from error
    return found
