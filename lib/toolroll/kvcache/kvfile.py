"""Files of keys and values as they are.

A KV file is a safetensors file with `layers.{l}.k` and `layers.{l}.v` [B, H, T, D] in fp32, fp16 or bf16, and perhaps
    span        int [n, 3]: item, start, end of visual tokens ([n, 2]: start, end, for all items)
    mask        bool [B, T]: the same, token by token
    layers.{l}.q  [B, Hq, N, D]: queries, and q_at int [B, N], where in the sequence they are
Without span and mask all tokens are to be packed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.kvcache.ranges import F32
from toolroll.kvcache.scheme import Part
from toolroll.kvcache.spans import Mask, masks_of
from toolroll.kvcache.tensors import FLOATS, Array, TensorFile, as_floats

PARTS: tuple[Part, ...] = get_args(Part)
PACKED = "toolroll-kv"  #: the format that the header of a packed file names, and no KV file's


class KVFile:
    """Keys and values as they are. `layers` are their numbers in order; `items`, `tokens` are B, T of all of them."""

    def __init__(self, path: Path) -> None:
        self.file = file = TensorFile(path)
        found = [re.fullmatch(r"layers\.(\d+)\.([kv])", name) for name in file.shapes]
        self.layers = sorted({int(match[1]) for match in found if match})
        if not self.layers:
            packed = file.about.get("format") == PACKED
            raise file.wrong("is packed already: --dequantize it" if packed else "has no layers.0.k: it is no KV file")
        self.items, _, self.tokens, _ = self.shape(self.layers[0], "k")
        for layer in self.layers:
            for part in PARTS:
                shape = self.shape(layer, part)
                if shape[0] != self.items or shape[2] != self.tokens or shape[1] != self.shape(layer, "k")[1]:
                    raise file.wrong(f"layers.{layer}.{part} is {list(shape)}, which does not go with other layers")
                if not (shape[0] and shape[1] and shape[3]):
                    raise file.wrong(f"layers.{layer}.{part} is {list(shape)}, which has no values")
        if not self.tokens:
            raise file.wrong("its sequences have no tokens")
        if "digest" in file.about:
            file.check_digest()

    def shape(self, layer: int, part: Part) -> tuple[int, int, int, int]:
        """B, H, T, D."""
        name = f"layers.{layer}.{part}"
        if name not in self.file:
            raise self.file.wrong(f"has no {name}")
        shape = self.file.shapes[name]
        if len(shape) != 4 or self.file.kinds[name] not in FLOATS:
            raise self.file.wrong(f"{name} has to be [B, H, T, D] in fp32, fp16 or bf16")
        return shape[0], shape[1], shape[2], shape[3]

    def kind(self, layer: int, part: Part) -> str:
        """The type of its values."""
        return self.file.kinds[f"layers.{layer}.{part}"]

    def raw(self, layer: int, part: Part) -> Array:
        """The tensor [B, H, T, D] as it is stored."""
        return self.file.array(f"layers.{layer}.{part}")

    def head(self, layer: int, part: Part, item: int, head: int) -> F32:
        """The values [T, D] of a head."""
        return as_floats(self.raw(layer, part)[item, head], self.kind(layer, part))

    def masks(self) -> Mask:
        """Which tokens [B, T] are to be packed, as the file has it."""
        try:
            if "span" in self.file:
                return masks_of(self._whole_numbers("span"), self.items, self.tokens)
            if "mask" in self.file:
                mask = self.file.array("mask").astype(np.bool_)
                if mask.shape != (self.items, self.tokens):
                    raise ToolrollError(f"mask is {list(mask.shape)}, not [{self.items}, {self.tokens}]")
                return mask
        except ToolrollError as error:
            raise self.file.wrong(error.why) from error
        return np.ones((self.items, self.tokens), np.bool_)

    def _whole_numbers(self, name: str) -> NDArray[np.int64]:
        found = self.file.array(name)
        if found.dtype.kind not in "iu" or self.file.kinds[name] == "BF16":
            raise self.file.wrong(f"{name} is of type {self.file.kinds[name]}, and has to be whole numbers")
        return found.astype(np.int64)

    def queries(self, layer: int) -> tuple[F32, Array] | None:
        """Queries [B, Hq, N, D] of a layer and their places [B, N], if the file has any."""
        name = f"layers.{layer}.q"
        if name not in self.file:
            return None
        found = as_floats(self.file.array(name), self.file.kinds[name])
        items, heads, _, size = self.shape(layer, "k")
        if found.ndim != 4 or found.shape[0] != items or found.shape[1] % heads or found.shape[3] != size:
            raise self.file.wrong(f"{name} is {list(found.shape)}, which does not go with its keys")
        if not np.isfinite(found).all():
            raise self.file.wrong(f"{name} has a value that is NaN or infinite")
        if "q_at" not in self.file:
            return found, np.full((items, found.shape[2]), self.tokens - 1)
        places = self._whole_numbers("q_at")
        if places.shape != (items, found.shape[2]):
            raise self.file.wrong(f"q_at is {list(places.shape)}, not {[items, found.shape[2]]}")
        if places.size and not 0 <= places.min() <= places.max() < self.tokens:
            raise self.file.wrong(f"q_at has a place that is not in the sequence of {self.tokens} tokens")
        return found, places
