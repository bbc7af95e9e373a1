"""Files of 3D Gaussians: PLY as the original code of 3D Gaussian splatting lays it out, and the smaller `.splat`.

A PLY has a vertex for each Gaussian, with properties

    x y z                mean                         opacity    logit
    f_dc_0..2            harmonics of degree 0        scale_0..2 natural logarithms
    f_rest_0..3(K-1)-1   the others, K = 4, 9, 16     rot_0..3   quaternion, w x y z

where f_rest has all coefficients of red, then those of green, then of blue. They are taken by name: their order and
others among them, as normals, do not matter. Comments say what numbers cannot: the mode that a model was trained for
is written as Brush does, `SplatRenderMode: mip` for antialiased ones, and read as Postshot's `antialiased 1` too.

A `.splat` has no header and 32 bytes a Gaussian: means and scales (not logarithms) as float32, red, green, blue and
opacity as bytes, and w x y z of the unit quaternion as bytes 128 + 128 q. It has no other harmonics than degree 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import write_atomically
from toolroll.splat.gaussians import SH0, Gaussians

Floats = NDArray[np.float32]

HARMONICS = {0: 1, 9: 4, 24: 9, 45: 16}  #: how many f_rest there are: K
LONGEST_LINE, MOST_LINES = 1024, 4096  #: of a header
_KINDS = "i1 char int8  u1 uchar uint8  i2 short int16  u2 ushort uint16"
_KINDS += "  i4 int int32  u4 uint uint32  f4 float float32  f8 double float64"
TYPES = {name: code for code, *names in map(str.split, _KINDS.split("  ")) for name in names}
ORDERS = {b"ascii": "", b"binary_little_endian": "<", b"binary_big_endian": ">"}
RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rot", "u1", 4)])


# --- PLY


@dataclass(slots=True)
class Element:
    """An element of a PLY: its name, how many there are, and the types of its properties; None for a list."""

    name: str
    count: int
    types: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Header:
    """What a PLY says of itself. order: '<', '>', or '' for text. start: where its data begin, in bytes."""

    order: str
    elements: Sequence[Element]
    comments: tuple[str, ...]
    start: int


def read_ply(path: str | Path) -> Gaussians:
    """The Gaussians of a PLY, float32, in the order of the file; what is not finite in it stays so.

    Texts and binaries of either order of bytes, with numbers of any type. ToolrollError for what is no such file, lacks
    a property or data, or has a number of f_rest that no degree of harmonics has.
    """
    with open(path, "rb") as file:
        try:
            columns = _columns(file, _header(file))
            return _from_columns(columns)
        except ToolrollError as error:
            raise ToolrollError(error.why, place=str(path)) from error


def read_comments(path: str | Path) -> tuple[str, ...]:
    """The comments of a PLY. ToolrollError for what is none."""
    with open(path, "rb") as file:
        try:
            return _header(file).comments
        except ToolrollError as error:
            raise ToolrollError(error.why, place=str(path)) from error


def mode_comment(antialiased: bool) -> str:
    """The comment that says how a model is to be drawn."""
    return f"SplatRenderMode: {'mip' if antialiased else 'default'}"


def is_antialiased(comments: Iterable[str]) -> bool:
    """Whether comments say that a model is antialiased; the last that says anything of it counts.

    >>> is_antialiased(["SplatRenderMode: mip"]), is_antialiased(["antialiased 1", "SplatRenderMode: default"])
    (True, False)
    """
    found = False
    for comment in comments:
        words = comment.replace(":", " ").split()
        if words[:1] == ["SplatRenderMode"]:
            found = words[1:] == ["mip"]
        elif words[:1] == ["antialiased"]:
            found = words[1:] == ["1"]
    return found


def write_ply(path: str | Path, gaussians: Gaussians, *, comments: Iterable[str] = ()) -> int:
    """Write a binary PLY of little-endian float32; how many Gaussians were left out because they are not finite.

    The file appears when it is complete. A comment of several lines becomes several comments.
    """
    whole = gaussians.chosen(gaussians.finite())
    lines = [line for comment in comments for line in comment.splitlines()]
    head = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in lines)]
    head += [f"element vertex {len(whole)}", *(f"property float {name}" for name in property_names(whole.sh.shape[1]))]
    _write(Path(path), "\n".join([*head, "end_header", ""]).encode(), table_of(whole))
    return len(gaussians) - len(whole)


def property_names(bases: int) -> list[str]:
    """The properties of Gaussians with `bases` harmonics, in the usual order."""
    rest = [f"f_rest_{i}" for i in range(3 * (bases - 1))]
    scales, quats = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", *(f"f_dc_{i}" for i in range(3)), *rest, "opacity", *scales, *quats]


def table_of(gaussians: Gaussians) -> Floats:
    """The properties of Gaussians as little-endian float32, a row for each and a column for each of property_names."""
    rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)
    parts = (gaussians.means, gaussians.sh[:, 0], rest, gaussians.logits[:, None], gaussians.scales, gaussians.quats)
    table: Floats = torch.cat([part.detach().float() for part in parts], 1).cpu().numpy().astype("<f4", copy=False)
    return table


def _write(path: Path, head: bytes, table: NDArray[Any]) -> None:
    write_atomically(path, head + table.tobytes())


def _header(file: IO[bytes]) -> Header:
    if file.readline(LONGEST_LINE).strip() != b"ply":
        raise ToolrollError("not a PLY file")
    order: str | None = None
    elements: list[Element] = []
    comments: list[str] = []
    for _ in range(MOST_LINES):
        line = file.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            break
        words = line.split()
        match words:
            case [b"end_header"]:
                if order is None:
                    raise ToolrollError("its header has no format")
                return Header(order, elements, tuple(comments), file.tell())
            case [b"format", name, _] if name in ORDERS:
                order = ORDERS[name]
            case [b"comment" | b"obj_info", *_]:
                comments.append(line.strip().partition(b" ")[2].decode(errors="replace").strip())
            case []:
                continue
            case _:
                _add(words, elements)
    raise ToolrollError("its header does not end")


def _add(words: list[bytes], elements: list[Element]) -> None:
    """An element, or a property of the last one."""
    match [word.decode(errors="replace") for word in words]:
        case ["element", name, count] if count.isascii() and count.isdigit() and len(count) < 19:
            elements.append(Element(name, int(count), {}))
        case ["property", kind, name] if kind in TYPES and elements and name not in elements[-1].types:
            elements[-1].types[name] = TYPES[kind]
        case ["property", "list", _, _, name] if elements:
            elements[-1].types[name] = None
        case text:
            raise ToolrollError(f"its header has a line that cannot be: {' '.join(text)[:60]!r}")


def _columns(file: IO[bytes], header: Header) -> dict[str, Floats]:
    """The properties of the vertices by name, float32, each of one number a vertex."""
    names = [element.name for element in header.elements]
    if "vertex" not in names:
        raise ToolrollError("no vertices")
    if "packed_position" in header.elements[names.index("vertex")].types:
        raise ToolrollError("a compressed PLY: only plain ones can be read")
    before, vertex = header.elements[: names.index("vertex")], header.elements[names.index("vertex")]
    if any(kind is None for element in [*before, vertex] for kind in element.types.values()):
        raise ToolrollError("has lists before its vertices, or in them")
    if not vertex.types:
        raise ToolrollError("its vertices have no properties")
    left = os.fstat(file.fileno()).st_size - header.start
    if header.order == "":
        return _from_text(file, before, vertex, left)
    kinds = [np.dtype([(name, header.order + str(kind)) for name, kind in e.types.items()]) for e in [*before, vertex]]
    skipped = sum(element.count * kind.itemsize for element, kind in zip(before, kinds, strict=False))
    if skipped + vertex.count * kinds[-1].itemsize > left:
        raise ToolrollError(f"cut short: no room for {vertex.count} vertices")
    file.seek(header.start + skipped)
    table = np.frombuffer(file.read(vertex.count * kinds[-1].itemsize), kinds[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: table[name].astype(np.float32) for name in vertex.types}


def _from_text(file: IO[bytes], before: Sequence[Element], vertex: Element, left: int) -> dict[str, Floats]:
    skipped = sum(element.count * len(element.types) for element in before)
    wide = len(vertex.types)
    if 2 * (skipped + vertex.count * wide) > left + 1:  # a digit and a space each
        raise ToolrollError(f"cut short: no room for {vertex.count} vertices")
    words = file.read().split()[skipped : skipped + vertex.count * wide]
    if len(words) < vertex.count * wide:
        raise ToolrollError(f"cut short: no room for {vertex.count} vertices")
    try:
        with np.errstate(over="ignore"):
            table = np.array([float(word) for word in words]).astype(np.float32).reshape(-1, wide)
    except ValueError as error:
        raise ToolrollError("has vertices that are not numbers") from error
    return {name: table[:, i] for i, name in enumerate(vertex.types)}


def _from_columns(columns: dict[str, Floats]) -> Gaussians:
    lacking = next((name for name in property_names(1) if name not in columns), None)
    if lacking is not None:
        some = "points without" if "scale_0" not in columns else "no"
        raise ToolrollError(f"not 3D Gaussians: {some} {lacking}")
    rest = sum(name.startswith("f_rest_") for name in columns)
    names = [f"f_rest_{i}" for i in range(rest)]
    if rest not in HARMONICS or not all(name in columns for name in names):
        raise ToolrollError(f"{rest} properties f_rest, where 0, 9, 24 or 45 in a row can be")

    def stack(*wanted: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in wanted], 1))

    sh = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:
        sh = torch.cat([sh, stack(*names).reshape(-1, 3, rest // 3).transpose(1, 2)], 1)
    quats, scales = stack("rot_0", "rot_1", "rot_2", "rot_3"), stack("scale_0", "scale_1", "scale_2")
    return Gaussians(stack("x", "y", "z"), quats, scales, torch.from_numpy(columns["opacity"]), sh.contiguous())


# --- .splat


def read_splat(path: str | Path) -> Gaussians:
    """The Gaussians of a `.splat`, degree 0. ToolrollError if its size is not a multiple of 32 bytes.

    Opacities of 0 and 255 become logits of -6.9 and 6.9, which are written as these bytes again.
    """
    data = Path(path).read_bytes()
    if len(data) % RECORD.itemsize:
        raise ToolrollError(f"not a .splat file: {len(data)} bytes are no multiple of 32", place=str(path))
    table = np.frombuffer(data, RECORD)
    alpha = np.clip(table["rgba"][:, 3] / np.float32(255), 0.001, 0.999)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.log(np.where(table["scale"] == 0, np.finfo(np.float32).tiny, table["scale"]))
    return Gaussians(
        torch.from_numpy(table["mean"].astype(np.float32)),
        torch.from_numpy((table["rot"].astype(np.float32) - 128) / 128),
        torch.from_numpy(scales.astype(np.float32)),
        torch.from_numpy(np.log(alpha / (1 - alpha)).astype(np.float32)),
        torch.from_numpy(((table["rgba"][:, None, :3] / np.float32(255) - 0.5) / SH0).astype(np.float32)),
    )


def write_splat(path: str | Path, gaussians: Gaussians) -> int:
    """Write a `.splat`; how many Gaussians were left out because they, or their scales, are not finite.

    Harmonics above degree 0 are lost, and colours and opacities are rounded to bytes.
    """
    table = splat_table(gaussians)
    _write(Path(path), b"", table)
    return len(gaussians) - len(table)


def splat_table(gaussians: Gaussians) -> NDArray[np.void]:
    """Gaussians as the records of a `.splat`, without those that are not finite."""
    kept = gaussians.finite() & gaussians.scales.float().exp().isfinite().all(1)
    whole = gaussians.to("cpu").chosen(kept.cpu())
    quats = torch.nn.functional.normalize(whole.quats.float(), dim=1)
    colours = torch.cat([0.5 + SH0 * whole.sh[:, 0].float(), whole.logits.float().sigmoid()[:, None]], 1)
    table = np.zeros(len(whole), RECORD)
    table["mean"] = whole.means.detach().numpy()
    table["scale"] = whole.scales.detach().float().exp().numpy()
    table["rgba"] = (255 * colours.detach()).round().clamp(0, 255).numpy()
    table["rot"] = (128 + 128 * quats.detach()).round().clamp(0, 255).numpy()
    return table
