"""The caches that kv-eval compares, by name: dense, packed by a rule, as KIVI does it, and those of transformers.

dense                     transformers' own
RULE[:FIELD=VALUE,...]    packed: minmax, calibquant, quantile, lloyd1, mse; fields bits, bits_k, bits_v, layer_bits
                          (0-1=4/4+31=8), alpha, shrink, group, along_k, along_v, layout, ranges, tau
kivi[:...]                2 bits, groups of 32, keys by channel and values by token; fields bits, group, residual
hqq[:...] quanto[:...]    QuantizedCache; fields bits, group, residual, axis_key, axis_value
fp8                       QuantizedCache, a scale for each tensor
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, QuantizedCache

from toolroll.errors import ToolrollError, UsageError
from toolroll.kvcache.cache import PackedCache, PackedLayer
from toolroll.kvcache.options import SchemeOptions
from toolroll.kvcache.scheme import RULES
from toolroll.kvcache.spans import Mask
from toolroll.records.kvcache import KvTau

Make = Callable[[Mask, Mask], Any]
_FIELDS = {
    "packed": (
        "bits",
        "bits_k",
        "bits_v",
        "layer_bits",
        "alpha",
        "shrink",
        "group",
        "along_k",
        "along_v",
        "layout",
        "ranges",
        "tau",
    ),
    "kivi": ("bits", "group", "residual"),
    "theirs": ("bits", "group", "residual", "axis_key", "axis_value"),
    "none": (),
}
_ALLOWED = {"bits": "1248", "bits_k": "1248", "bits_v": "1248"}


@dataclass(frozen=True, slots=True)
class Compared:
    """A cache by its `name`; `make` makes it for a batch with these tokens [B, T] to pack, and these that there are.

    One of transformers is `foreign`: what goes wrong in it is told as its own.
    """

    name: str
    make: Make
    foreign: bool = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """ToolrollError, with the cache as its place, where a foreign cache fails."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            if not self.foreign:
                raise
            why = f"transformers' cache: {' '.join(str(error).split())}"
            hint = "; axis_key=0,axis_value=0 takes any length" if self.name.startswith("hqq") else ""
            raise ToolrollError(why + hint, place=self.name) from error


def compared(text: str, config: Any) -> Compared:
    """The cache that `text` names, of a model with this configuration. UsageError for what is none."""
    kind, _, rest = text.partition(":")
    fields = _read(text, kind, rest)
    if kind == "dense":
        return Compared(text, lambda _, __: DynamicCache(config=config))
    if kind in RULES:
        choose, taus = _chooser(text, kind, fields, config), _taus(text, fields.get("tau"), config)
        return Compared(text, lambda masks, _: PackedCache(config, masks, choose, taus=taus))
    if kind == "kivi":
        given = {"bits": "2", "group": "32", "along_v": "channels", **fields}
        residual = _number(text, given.pop("residual", "128"))
        choose = _chooser(text, "minmax", given, config)
        return Compared(text, lambda _, real: PackedCache(config, real, choose, residual=residual))
    return Compared(text, _theirs(text, kind, fields, config), foreign=True)


def _read(text: str, kind: str, rest: str) -> dict[str, str]:
    names = {"dense": "none", "fp8": "none", "kivi": "kivi", "hqq": "theirs", "quanto": "theirs"}
    group = "packed" if kind in RULES else names.get(kind)
    if group is None:
        known = ", ".join([*names, *RULES])
        raise UsageError(f"no cache {kind!r}: one of {known} is", place="--cache")
    fields = {}
    for part in filter(None, rest.split(",")):
        name, sign, value = part.partition("=")
        if not sign or name not in _FIELDS[group]:
            of = f": one of {', '.join(_FIELDS[group])} is" if _FIELDS[group] else ""
            raise UsageError(f"{text}: no field {name!r}{of}", place="--cache")
        if name in _ALLOWED and value not in _ALLOWED[name] and group != "theirs":
            raise UsageError(f"{text}: {value} bits: one of 1, 2, 4, 8 is possible", place="--cache")
        fields[name] = value
    return fields


def _chooser(text: str, rule: str, fields: dict[str, str], config: Any) -> Any:
    given: dict[str, Any] = {
        name: value for name, value in fields.items() if name not in ("tau", "group", "alpha", "shrink")
    }
    given["layer_bits"] = fields.get("layer_bits", "").replace("+", ",") or None
    try:
        given |= {name: float(fields[name]) for name in ("alpha", "shrink") if name in fields}
        given["group_size"] = int(fields.get("group", "0"))
        layers = list(range(config.get_text_config().num_hidden_layers))
        return SchemeOptions(rule=rule, **given).chooser(layers)
    except ValueError as error:
        raise UsageError(f"{text}: not a number", place="--cache") from error
    except UsageError as error:
        raise UsageError(f"{text}: {error.why}", place="--cache") from error


def _taus(text: str, given: str | None, config: Any) -> Callable[[int], Tensor | None]:
    """The map of each layer: of a file of kv-calibrate, or t1/t2 for all."""
    if given is None:
        return lambda _: None
    heads = (
        getattr(config.get_text_config(), "num_key_value_heads", None) or config.get_text_config().num_attention_heads
    )
    first, slash, second = given.partition("/")
    rows: list[KvTau]
    try:
        rows = [KvTau(layer=None, head=None, t1=float(first), t2=float(second))] if slash else []
    except ValueError:
        rows = []
    if not rows:
        rows = _rows(text, Path(given))
    layers = config.get_text_config().num_hidden_layers
    for row in rows:
        if not (math.isfinite(row.t1) and math.isfinite(row.t2)):
            raise UsageError(f"{text}: a map has to be of numbers", place="--cache")
        if (row.layer or 0) >= layers or (row.head or 0) >= heads:
            where = f"layer {row.layer} head {row.head}" if row.head is not None else f"layer {row.layer}"
            why = f"{given} has a map of {where}, and the model has {layers} layers of {heads} key heads"
            raise UsageError(f"{text}: {why}", place="--cache")

    def of(layer: int) -> Tensor | None:
        made = torch.zeros(heads, 2)
        for row in rows:
            if row.layer in (None, layer):
                made[slice(None) if row.head is None else row.head] = torch.tensor([row.t1, row.t2])
        return made if made.any() else None

    return of


def _rows(text: str, path: Path) -> list[KvTau]:
    try:
        return [msgspec.json.decode(line, type=KvTau) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{text}: {path}: {error.strerror}", place="--cache") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{text}: {path} has no maps of kv-calibrate: {error}", place="--cache") from error


def _theirs(text: str, kind: str, fields: dict[str, str], config: Any) -> Make:
    names = {"bits": "nbits", "group": "q_group_size", "residual": "residual_length"}
    settings = {names.get(name, name): _number(text, value) for name, value in fields.items()}
    if kind == "hqq":
        settings = {"axis_key": 1, "axis_value": 1, **settings}

    def make(_: Mask, __: Mask) -> Any:
        return QuantizedCache(backend=kind, config=config, **settings)

    try:
        make(*np.zeros((2, 1, 0), np.bool_))
    except (ImportError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"{text}: {why}", place="--cache") from error
    return make


def _number(text: str, value: str) -> int:
    try:
        found = int(value)
    except ValueError as error:
        raise UsageError(f"{text}: {value!r} is no number", place="--cache") from error
    if found < 0:
        raise UsageError(f"{text}: {value} is less than 0", place="--cache")
    return found


def held_bytes(cache: Any) -> int:
    """Bytes of all tensors in a cache, ours or one of transformers; what sequences share counts once."""
    total = 0
    for layer in cache.layers:
        own: int = layer.held_bytes() if isinstance(layer, PackedLayer) else _bytes(list(vars(layer).values()))
        total += own
    return total


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        inner = getattr(value, "__tensor_flatten__", None)
        if inner is not None and type(value) is not Tensor:
            return sum(_bytes(getattr(value, name)) for name in inner()[0])
        return int(value.numel() * value.element_size())
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return 0
