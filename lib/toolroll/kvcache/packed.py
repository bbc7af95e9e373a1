"""Packed files of keys and values: what they have, reading them, and making KV files of them again.

A packed file is a safetensors file that has, for each layer and each of k and v,
    codes       uint8 (msb8) or int32 (kivi32) [B, H, rows, bytes or words]
    lo, scale   fp16 or fp32 [B, H, ...], one for each group
    dense       [B, H, T - Tv, D], the other tokens, as they were
and `span`. Items with fewer visual tokens are filled up with zeros. The header says how each layer is packed, and has a
digest of all tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from toolroll.errors import ToolrollError
from toolroll.kvcache.block import Backend, Block, dequantize
from toolroll.kvcache.kvfile import PACKED, PARTS
from toolroll.kvcache.scheme import Part, Scheme, scheme_of
from toolroll.kvcache.spans import Mask, masks_of, rows_of
from toolroll.kvcache.tensors import FLOATS, Array, TensorFile, TensorWriter, as_stored

VERSION = "1"
KEPT = ("model", "query_heads", "scaling")  #: what a KV file's header says, and a packed one's too
Described = list[tuple[str, str, tuple[int, ...]]]  #: names, types and shapes of tensors, in order


class PackedFile:
    """A packed file, checked. `layers`, `items`, `tokens` as for a KV file; `masks` [B, T]; `schemes` of each layer."""

    def __init__(self, path: Path) -> None:
        self.file = file = TensorFile(path)
        if file.about.get("format") != PACKED:
            raise file.wrong("is no packed KV file")
        if file.about.get("version") != VERSION:
            raise file.wrong(f"is of version {file.about.get('version')}, and {VERSION} can be read")
        file.check_digest()
        try:
            said = json.loads(file.about["schemes"])
            self.schemes = {int(n): {part: scheme_of(part, two[part]) for part in PARTS} for n, two in said.items()}
            self.layers = sorted(self.schemes)
            self.tokens = int(file.about["tokens"])
            self.items = file.shapes[f"layers.{self.layers[0]}.k.dense"][0]
            if not 0 < self.tokens <= 8 * file.size or file.kinds["span"] != "I64":
                raise ValueError
            self.masks = masks_of(file.array("span"), self.items, self.tokens)
        except ToolrollError as error:
            raise file.wrong(error.why) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise file.wrong("its header does not say how it is packed") from error
        for layer in self.layers:
            for part in PARTS:
                self._check(f"layers.{layer}.{part}", self.schemes[layer][part])

    def _check(self, name: str, scheme: Scheme) -> None:
        """ToolrollError where a tensor of a layer is not there, or not what its scheme and the spans make."""
        file = self.file
        shape, kind = file.shapes.get(f"{name}.dense", ()), file.kinds.get(f"{name}.dense")
        if len(shape) != 4 or kind not in FLOATS:
            raise file.wrong(f"{name}.dense has to be [B, H, T, D] in fp32, fp16 or bf16")
        try:
            scheme.check_channels(shape[3])
        except ToolrollError as error:
            raise file.wrong(f"{name}: {error.why}") from error
        for one, wanted, size in tensors_of(name, scheme, self.masks, (shape[1], shape[3]), kind):
            if one not in file:
                raise file.wrong(f"has no {one}")
            if (file.kinds[one], file.shapes[one]) != (wanted, size):
                found = f"{list(file.shapes[one])} of {file.kinds[one]}"
                raise file.wrong(f"{one} is {found}, and the header and the spans make it {list(size)} of {wanted}")

    def block(self, layer: int, part: Part, item: int) -> Block:
        """The visual tokens of an item."""
        name, scheme = f"layers.{layer}.{part}", self.schemes[layer][part]
        tokens, channels = int(self.masks[item].sum()), self.file.shapes[f"{name}.dense"][-1]
        codes = self.file.array(f"{name}.codes")[item]
        codes = np.ascontiguousarray(codes).view(np.uint8)
        lo, scale = (self.file.array(f"{name}.{one}")[item].astype(np.float32) for one in ("lo", "scale"))
        (rows, width), groups = scheme.packed(tokens, channels), scheme.groups(tokens, channels)
        codes = codes[:, :rows, :width]
        lo, scale = (one[:, : groups[0], : groups[1]] for one in (lo, scale))
        return Block(scheme, tokens, channels, np.ascontiguousarray(codes), lo, scale)

    def dense(self, layer: int, part: Part, item: int) -> Array:
        """The other tokens [H, T - Tv, D] of an item, as they are stored."""
        rest = int((~self.masks[item]).sum())
        return self.file.array(f"layers.{layer}.{part}.dense")[item, :, :rest]

    def whole(self, layer: int, part: Part, item: int, *, backend: Backend = "auto") -> Array:
        """All tokens [H, T, D] of an item, in the type they had."""
        dense, mask = self.dense(layer, part, item), self.masks[item]
        made = np.empty((len(dense), self.tokens, dense.shape[2]), dense.dtype)
        made[:, ~mask] = dense
        if mask.any():
            kind = self.file.kinds[f"layers.{layer}.{part}.dense"]
            made[:, mask] = as_stored(dequantize(self.block(layer, part, item), backend=backend), kind)
        return made


def write_whole(packed: PackedFile, path: Path, *, backend: Backend = "auto") -> None:
    """A KV file again: what was packed comes back as it was rounded, the rest bit by bit."""
    kinds = packed.file.kinds
    tensors: Described = [("span", "I64", rows_of(packed.masks).shape)]
    for layer in packed.layers:
        for part in PARTS:
            items, heads, _, size = packed.file.shapes[f"layers.{layer}.{part}.dense"]
            name = f"layers.{layer}.{part}"
            tensors.append((name, kinds[f"{name}.dense"], (items, heads, packed.tokens, size)))
    about = {name: text for name, text in packed.file.about.items() if name in KEPT}
    with TensorWriter(path, tensors, about) as writer:
        writer.write(rows_of(packed.masks))
        for layer in packed.layers:
            for part in PARTS:
                for item in range(packed.items):
                    writer.write(packed.whole(layer, part, item, backend=backend))


def tensors_of(name: str, scheme: Scheme, masks: Mask, head: tuple[int, int], kind: str) -> Described:
    """What a packed file has of the keys or values of a layer; `head` is how many heads there are, of what size."""
    most, rest = int(masks.sum(1).max(initial=0)), int((~masks).sum(1).max(initial=0))
    (heads, size), items = head, len(masks)
    rows, row_bytes = scheme.packed(most, size)
    codes, width = ("I32", row_bytes // 4) if scheme.layout == "kivi32" else ("U8", row_bytes)
    meta, groups = scheme.meta.upper().replace("FP", "F"), scheme.groups(most, size)
    return [
        (f"{name}.codes", codes, (items, heads, rows, width)),
        (f"{name}.lo", meta, (items, heads, *groups)),
        (f"{name}.scale", meta, (items, heads, *groups)),
        (f"{name}.dense", kind, (items, heads, rest, size)),
    ]
