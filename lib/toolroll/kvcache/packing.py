"""Packing the keys and values of a file, and how many bytes that makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolroll.errors import ToolrollError
from toolroll.kvcache.block import Backend, Block, quantize
from toolroll.kvcache.kvfile import PACKED, PARTS, KVFile
from toolroll.kvcache.packed import KEPT, VERSION, Described, tensors_of
from toolroll.kvcache.ranges import F32
from toolroll.kvcache.scheme import Part, Scheme
from toolroll.kvcache.spans import Mask, rows_of
from toolroll.kvcache.tensors import Array, TensorWriter, as_floats

Look = Callable[[int, Part, int, int, F32, F32, F32, F32], None]  #: layer, part, item, head, x, x^, lo, scale
Choose = Callable[[int, Part], Scheme]


@dataclass(slots=True)
class Size:
    """Bytes and elements of what was packed, of padding nothing."""

    code_bytes: int = 0
    range_bytes: int = 0
    dense_bytes: int = 0
    packed: int = 0  # elements
    dense: int = 0
    before_bytes: int = 0

    @property
    def nominal(self) -> float | None:
        """Bits of a code."""
        return 8 * self.code_bytes / self.packed if self.packed else None

    @property
    def effective(self) -> float | None:
        """Bits of an element that is packed, with its share of lo and scale."""
        return 8 * (self.code_bytes + self.range_bytes) / self.packed if self.packed else None

    @property
    def whole(self) -> float:
        """Bits of an element of the whole sequence."""
        return 8 * self.bytes / (self.packed + self.dense)

    @property
    def bytes(self) -> int:
        """All bytes."""
        return self.code_bytes + self.range_bytes + self.dense_bytes

    def add(self, scheme: Scheme, shape: tuple[int, int, int, int], tokens: int, width: int) -> None:
        """Count an item of which `tokens` are packed, of [_, H, T, D] with `width` bytes an element."""
        _, heads, length, size = shape
        self.code_bytes += heads * scheme.code_bytes(tokens, size)
        self.range_bytes += heads * scheme.range_bytes(tokens, size)
        self.dense_bytes += heads * (length - tokens) * size * width
        self.packed += heads * tokens * size
        self.dense += heads * (length - tokens) * size
        self.before_bytes += heads * length * size * width


def blocks_of(
    source: KVFile, layer: int, part: Part, masks: Mask, scheme: Scheme, *, backend: Backend, look: Look | None
) -> Iterator[Block]:
    """The visual tokens of each item of a layer, packed."""
    _, heads, _, size = source.shape(layer, part)
    raw, kind = source.raw(layer, part), source.kind(layer, part)
    for item, mask in enumerate(masks):
        kept: dict[str, Any] = {}
        if look is not None:
            kept["keep"] = lambda h, *found, item=item: look(layer, part, item, h, *found)

        def head(h: int, item: int = item, mask: Mask = mask) -> F32:
            return as_floats(raw[item, h] if mask.all() else raw[item, h][mask], kind)

        place = f"{source.file.path}: layer {layer} {part}" + (f" item {item}" if len(masks) > 1 else "")
        yield quantize(head, (heads, int(mask.sum()), size), scheme, backend=backend, place=place, **kept)


def measure(source: KVFile, masks: Mask, choose: Choose) -> Size:
    """What packing will make of a file."""
    size = Size()
    for layer in source.layers:
        for part in PARTS:
            scheme = choose(layer, part)
            width = source.raw(layer, part).dtype.itemsize
            for mask in masks:
                size.add(scheme, source.shape(layer, part), int(mask.sum()), width)
    return size


def packing(
    source: KVFile,
    path: Path | None,
    masks: Mask,
    choose: Choose,
    *,
    backend: Backend = "auto",
    look: Look | None = None,
    about: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Pack a KV file layer by layer; gives the number of each when it is done. `look` may see every head.

    The packed file appears when the last layer is done. Without a path nothing is written.
    """
    schemes = {layer: {part: choose(layer, part) for part in PARTS} for layer in source.layers}
    for layer, part in ((layer, part) for layer in source.layers for part in PARTS):
        try:
            schemes[layer][part].check_channels(source.shape(layer, part)[3])
        except ToolrollError as error:
            raise source.file.wrong(f"layer {layer} {part}: {error.why}") from error
    tensors = _tensors(source, masks, schemes)
    header = {
        "format": PACKED,
        "version": VERSION,
        "tokens": str(source.tokens),
        "schemes": json.dumps(
            {str(n): {part: one.as_dict() for part, one in two.items()} for n, two in schemes.items()}
        ),
        **{name: source.file.about[name] for name in KEPT if name in source.file.about},
        **(about or {}),
    }
    shapes = {name: shape for name, _, shape in tensors}
    with TensorWriter(path, tensors, header) if path is not None else nullcontext() as writer:
        if writer is not None:
            writer.write(rows_of(masks))
        for layer in source.layers:
            for part in PARTS:
                scheme = schemes[layer][part]
                blocks = list(blocks_of(source, layer, part, masks, scheme, backend=backend, look=look))
                if writer is not None:
                    _write_part(writer, blocks, source, layer, part, masks, shapes)
            if layer != source.layers[-1]:
                yield layer
    yield source.layers[-1]


def _tensors(source: KVFile, masks: Mask, schemes: Mapping[int, Mapping[Part, Scheme]]) -> Described:
    """Names, types and shapes of what a packed file has, in order."""
    tensors: Described = [("span", "I64", rows_of(masks).shape)]
    for layer in source.layers:
        for part in PARTS:
            _, heads, _, size = source.shape(layer, part)
            kind = source.kind(layer, part)
            tensors += tensors_of(f"layers.{layer}.{part}", schemes[layer][part], masks, (heads, size), kind)
    return tensors


def _write_part(
    writer: TensorWriter,
    blocks: list[Block],
    source: KVFile,
    layer: int,
    part: Part,
    masks: Mask,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    name = f"layers.{layer}.{part}"
    meta = np.float16 if blocks and blocks[0].scheme.meta == "fp16" else np.float32
    for field in ("codes", "lo", "scale"):
        wanted = shapes[f"{name}.{field}"][1:]
        for block in blocks:
            found: Array = getattr(block, field)
            if field == "codes" and block.scheme.layout == "kivi32":
                found = found.view("<i4")
            elif field != "codes":
                found = found.astype(meta)
            writer.write(_filled(found, wanted))
    raw = source.raw(layer, part)
    for item, mask in enumerate(masks):
        rest = raw[item] if not mask.any() else raw[item][:, ~mask]
        writer.write(_filled(rest, shapes[f"{name}.dense"][1:]))


def _filled(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape == shape:
        return array
    made = np.zeros(shape, array.dtype)
    made[tuple(slice(min(n, size)) for n, size in zip(array.shape, shape, strict=True))] = array[
        tuple(slice(size) for size in shape)
    ]
    return made
