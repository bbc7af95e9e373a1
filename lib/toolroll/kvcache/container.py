"""Files of keys and values: as they are, and packed.

A KV file is a safetensors file with `layers.{l}.k` and `layers.{l}.v` [B, H, T, D] in fp32, fp16 or bf16, and perhaps
    span        int [n, 3]: item, start, end of visual tokens ([n, 2]: start, end, for all items)
    mask        bool [B, T]: the same, token by token
    layers.{l}.q  [B, Hq, N, D]: queries, and q_at int [B, N], where in the sequence they are
Without span and mask all tokens are packed.

A packed file has, for each layer and each of k and v,
    codes       uint8 (msb8) or int32 (kivi32) [B, H, rows, bytes or words]
    lo, scale   fp16 or fp32 [B, H, ...], one for each group
    dense       [B, H, T - Tv, D], the other tokens, as they were
and `span`. Items with fewer visual tokens are filled up with zeros. The header says how each layer is packed, and has a
digest of all tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.kvcache.block import Backend, Block, dequantize, quantize
from toolroll.kvcache.ranges import F32
from toolroll.kvcache.scheme import Part, Scheme, scheme_of
from toolroll.kvcache.spans import Mask, masks_of, rows_of
from toolroll.kvcache.tensors import FLOATS, Array, TensorFile, TensorWriter, as_floats, as_stored

PARTS: tuple[Part, ...] = get_args(Part)
KEPT = ("model", "query_heads", "scaling")  #: what a KV file's header says, and a packed one's too
FORMAT, VERSION = "toolroll-kv", "1"
Look = Callable[[int, Part, int, int, F32, F32, F32, F32], None]  #: layer, part, item, head, x, x^, lo, scale
Choose = Callable[[int, Part], Scheme]


class KVFile:
    """Keys and values as they are. `layers` are their numbers in order; `items`, `tokens` are B, T of all of them."""

    def __init__(self, path: Path) -> None:
        self.file = file = TensorFile(path)
        found = [re.fullmatch(r"layers\.(\d+)\.([kv])", name) for name in file.shapes]
        self.layers = sorted({int(match[1]) for match in found if match})
        if not self.layers:
            packed = file.about.get("format") == FORMAT
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
        "format": FORMAT,
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


def _tensors(
    source: KVFile, masks: Mask, schemes: Mapping[int, Mapping[Part, Scheme]]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """Names, types and shapes of what a packed file has, in order."""
    tensors: list[tuple[str, str, tuple[int, ...]]] = [("span", "I64", rows_of(masks).shape)]
    for layer in source.layers:
        for part in PARTS:
            _, heads, _, size = source.shape(layer, part)
            kind = source.kind(layer, part)
            tensors += _packed_tensors(f"layers.{layer}.{part}", schemes[layer][part], masks, (heads, size), kind)
    return tensors


def _packed_tensors(
    name: str, scheme: Scheme, masks: Mask, head: tuple[int, int], kind: str
) -> list[tuple[str, str, tuple[int, ...]]]:
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


class PackedFile:
    """A packed file, checked. `layers`, `items`, `tokens` as for a KV file; `masks` [B, T]; `schemes` of each layer."""

    def __init__(self, path: Path) -> None:
        self.file = file = TensorFile(path)
        if file.about.get("format") != FORMAT:
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
        for one, wanted, size in _packed_tensors(name, scheme, self.masks, (shape[1], shape[3]), kind):
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
    tensors: list[tuple[str, str, tuple[int, ...]]] = [("span", "I64", rows_of(packed.masks).shape)]
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
