"""In which number formats a checkpoint holds its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError
from toolroll.models.adapters import is_adapter

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
BITS = {"bfloat16": 8, "float16": 11, "float32": 24}  #: significant bits, the hidden one included
_SIXTEEN = ("bfloat16", "float16")


def own_types(place: str, config: Any) -> set[str]:
    """The floating-point types of the weights in the folder `place`, by torch's names.

    They are read from the headers of its safetensors files; where there are none (a hub id, .bin files), the type is
    the one that `config` names, float32 if it names none. A LoRA adapter's weights are those of its base with something
    added, which no 16-bit type holds: float32. ToolrollError for a quantized checkpoint.
    """
    if getattr(config, "quantization_config", None) is not None:
        kind = config.quantization_config
        method = kind.get("quant_method", "") if isinstance(kind, dict) else getattr(kind, "quant_method", "")
        raise ToolrollError(f"its weights are quantized already ({method or 'by an unknown method'})", place=place)
    if is_adapter(place):
        return {"float32"}
    found = {name for file in sorted(Path(place).glob("*.safetensors")) for name in _types_in(file)}
    named = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return found or {named}


def sixteen_bit(types: set[str]) -> str | None:
    """The 16-bit type that holds every weight of a checkpoint with these `types`, None when there is none."""
    return next((name for name in _SIXTEEN if types == {name}), None)


def what_is_lost(types: set[str], kept: str) -> str | None:
    """What rounding weights of `types` to the type `kept` costs, in words; None when it costs nothing.

    >>> what_is_lost({"float16"}, "bfloat16")
    'a float16 checkpoint kept as bfloat16 loses 3 bits of precision'
    >>> what_is_lost({"bfloat16"}, "float16")
    'a bfloat16 checkpoint kept as float16 loses range: beyond 65504, and bits below 6e-5'
    """
    worst = max(types, key=lambda name: BITS.get(name, 0))
    if worst == kept or worst not in BITS:
        return None
    lost = BITS[worst] - BITS[kept]
    if lost > 0:
        return f"a {worst} checkpoint kept as {kept} loses {lost} bits of precision"
    if kept == "float16":
        return f"a {worst} checkpoint kept as {kept} loses range: beyond 65504, and bits below 6e-5"
    return None


def _types_in(file: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ToolrollError(f"cannot be read as safetensors: {error}", place=str(file)) from error
    return {NAMES[kind] for kind in kinds if kind in NAMES}
