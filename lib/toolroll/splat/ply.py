"""Files of 3D Gaussians: PLY as the original code of 3D Gaussian splatting lays it out, and the smaller `.splat`.

A PLY has a vertex for each Gaussian, with properties

    x y z                mean                         opacity    logit
    f_dc_0..2            harmonics of degree 0        scale_0..2 natural logarithms
    f_rest_0..3(K-1)-1   the others, K = 4, 9, 16     rot_0..3   quaternion, w x y z

where f_rest has all coefficients of red, then those of green, then of blue. They are taken by name: their order and
others among them, as normals, do not matter; red, green and blue do for f_dc where there is none. Comments say what
numbers cannot: the mode that a model was trained for is written as Brush does, `SplatRenderMode: mip` for antialiased
ones, and read as Postshot's `antialiased 1` too.

A compressed PLY, as PlayCanvas and gsplat write it, has four words of 32 bits for a vertex, packed_position,
packed_scale (11, 10 and 11 bits from the highest down), packed_rotation (2 that say which part of w x y z is largest
and left out, 10 for each other one) and packed_color (4 times 8, red to opacity); an element `chunk` with bounds for
each 256 of them; and maybe one `sh`, with f_rest as bytes.

A `.splat` has no header and 32 bytes a Gaussian: means and scales (not logarithms) as float32, red, green, blue and
opacity as bytes, and w x y z of the unit quaternion as bytes 128 + 128 q. It has no other harmonics than degree 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import put, reason
from toolroll.splat.elements import Columns, read_ply_elements
from toolroll.splat.gaussians import SH0, Gaussians
from toolroll.splat.options import NETWORK
from toolroll.splat.points import colours_of

Floats = NDArray[np.float32]

CLOUD = "point_cloud.ply"  #: what folders of trained scenes call it
HARMONICS = {0: 1, 9: 4, 24: 9, 45: 16}  #: how many f_rest there are: K
CHUNK = 256  #: Gaussians of a compressed PLY that share bounds
ELEMENTS = ("chunk", "vertex", "sh")
RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rot", "u1", 4)])


def open_splats(path: str | Path) -> tuple[Gaussians, tuple[str, ...]]:
    """The Gaussians of a PLY, a `.splat`, or a folder that has one, and the comments that are with them.

    A folder has point_cloud.ply in it, or in point_cloud/iteration_N, of which the highest counts. ToolrollError for
    what is neither.
    """
    path = splats_file(Path(path))
    if path.suffix == ".splat":
        return read_splat(path), ()
    return open_ply(path)


def splats_file(path: Path) -> Path:
    """The file that has the splats of a path. ToolrollError for a folder without one."""
    if not path.is_dir():
        return path
    folder = path
    iterations = [one for one in folder.glob("point_cloud/iteration_*") if one.name[10:].isdecimal()]
    latest = sorted(iterations, key=lambda one: int(one.name[10:]))[-1:]
    found = [one / CLOUD for one in (folder, *latest) if (one / CLOUD).is_file()]
    if not found:
        why = "is a network, no Gaussians" if (folder / NETWORK).exists() else f"has no {CLOUD}"
        raise ToolrollError(why, place=str(folder))
    return found[0]


# --- PLY


def read_ply(path: str | Path) -> Gaussians:
    """The Gaussians of a PLY; see `open_ply`."""
    return open_ply(path)[0]


def open_ply(path: str | Path) -> tuple[Gaussians, tuple[str, ...]]:
    """The Gaussians of a PLY, float32, in the order of the file, and its comments.

    Texts and binaries of either order of bytes, with numbers of any type, and compressed ones; what is not finite stays
    so. ToolrollError for what is no such file, lacks a property or data, or has a number of f_rest that no degree of
    harmonics has.
    """
    read = read_ply_elements(path, ELEMENTS)
    try:
        return gaussians_of(read.elements), read.comments
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
    put(Path(path), "\n".join([*head, "end_header", ""]).encode() + table_of(whole).tobytes(), make_folder=True)
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


def gaussians_of(elements: dict[str, Columns]) -> Gaussians:
    """The Gaussians of what was read of a PLY. ToolrollError for what are none."""
    if "vertex" not in elements:
        raise ToolrollError("no vertices")
    columns = elements["vertex"]
    if "packed_position" in columns:
        columns = _unpacked(elements)
    if not columns:
        raise ToolrollError("its vertices have no properties")
    with np.errstate(over="ignore", invalid="ignore"):
        floats = {name: values.astype(np.float32) for name, values in columns.items() if name in _USED}
    if "f_dc_0" not in floats and "scale_0" in floats and {"red", "green", "blue"} <= columns.keys():
        dc = np.asarray((colours_of(columns, len(columns["red"])) / 255 - 0.5) / SH0, np.float32)
        floats |= {f"f_dc_{i}": dc[:, i] for i in range(3)}
    lacking = next((name for name in property_names(1) if name not in floats), None)
    if lacking is not None:
        some = "points without" if "scale_0" not in floats else "no"
        raise ToolrollError(f"not 3D Gaussians: {some} {lacking}")
    rest = sum(name.startswith("f_rest_") for name in columns)
    names = [f"f_rest_{i}" for i in range(rest)]
    if rest not in HARMONICS or not all(name in floats for name in names):
        raise ToolrollError(f"{rest} properties f_rest, where 0, 9, 24 or 45 in a row can be")

    def stack(*wanted: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([floats[name] for name in wanted], 1))

    sh = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:
        sh = torch.cat([sh, stack(*names).reshape(-1, 3, rest // 3).transpose(1, 2)], 1)
    quats, scales = stack("rot_0", "rot_1", "rot_2", "rot_3"), stack("scale_0", "scale_1", "scale_2")
    return Gaussians(stack("x", "y", "z"), quats, scales, torch.from_numpy(floats["opacity"]), sh.contiguous())


_USED = frozenset(property_names(16))


def _unpacked(elements: dict[str, Columns]) -> Columns:
    """The plain properties of a compressed PLY."""
    chunk, vertex, sh = (elements.get(name, {}) for name in ELEMENTS)
    words = {kind: vertex.get(f"packed_{kind}") for kind in ("position", "rotation", "scale", "color")}
    odd = next((kind for kind, found in words.items() if found is None or found.dtype != np.uint32), None)
    if odd is not None:
        raise ToolrollError(f"a compressed PLY, whose packed_{odd} is no uint")
    position, rotation, scale, color = (np.asarray(found) for found in words.values())
    count = len(position)
    if len(chunk.get("min_x", ())) * CHUNK < count:
        raise ToolrollError(f"a compressed PLY without bounds for its {count} vertices")

    def between(values: Floats, name: str) -> Floats:
        if f"min_{name}" not in chunk or f"max_{name}" not in chunk:
            raise ToolrollError(f"a compressed PLY without bounds of {name}")
        low, high = (np.repeat(chunk[f"{end}_{name}"], CHUNK)[:count] for end in ("min", "max"))
        made: Floats = (low + values * (high - low)).astype(np.float32)
        return made

    made: Columns = {}
    for number, (axis, bits) in enumerate(zip("xyz", ((21, 11), (11, 10), (0, 11)), strict=True)):
        made[axis] = between(_share(position, *bits), axis)
        made[f"scale_{number}"] = between(_share(scale, *bits), f"scale_{axis}")
    for number, name in enumerate("rgb"):
        shade = _share(color, 24 - 8 * number, 8)
        shade = between(shade, name) if "min_r" in chunk else shade
        made[f"f_dc_{number}"] = (shade - np.float32(0.5)) / np.float32(SH0)
    made["opacity"] = _logits(_share(color, 0, 8))
    made |= {f"rot_{number}": part for number, part in enumerate(_turned(rotation))}
    if any(len(values) != count for values in sh.values()):
        raise ToolrollError(f"a compressed PLY with harmonics of other than its {count} vertices")
    return made | {name: _harmonics(values) for name, values in sh.items()}


def _share(words: NDArray[np.uint32], at: int, bits: int) -> Floats:
    """The number in some bits, as a share of the largest that they hold."""
    most = (1 << bits) - 1
    return ((words >> np.uint32(at)) & np.uint32(most)).astype(np.float32) / np.float32(most)


def _turned(words: NDArray[np.uint32]) -> Floats:
    """w, x, y and z of packed rotations, [4, N]."""
    others = np.stack([(_share(words, at, 10) - np.float32(0.5)) * np.float32(2**0.5) for at in (20, 10, 0)])
    largest = np.sqrt(np.maximum(1 - (others**2).sum(0), 0))
    which = words >> np.uint32(30)
    made = np.zeros((4, len(words)), np.float32)
    for number in range(4):
        own = which == number
        made[:, own] = np.insert(others[:, own], number, largest[own], axis=0)
    return made


def _harmonics(values: NDArray[Any]) -> Floats:
    """Harmonics of bytes: -4 to 4, in the middles of 256 parts but at the ends."""
    shares = np.where(values == 0, 0, np.where(values == 255, 1, (values.astype(np.float32) + 0.5) / 256))
    return ((shares - 0.5) * 8).astype(np.float32)


def _logits(opacities: Floats) -> Floats:
    """Logits of opacities; 0 and 1 become -6.9 and 6.9."""
    alpha = np.clip(opacities, 0.001, 0.999)
    made: Floats = np.log(alpha / (1 - alpha)).astype(np.float32)
    return made


# --- .splat


def read_splat(path: str | Path) -> Gaussians:
    """The Gaussians of a `.splat`, degree 0. ToolrollError if its size is not a multiple of 32 bytes.

    Opacities of 0 and 255 become logits of -6.9 and 6.9, which are written as these bytes again.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    if len(data) % RECORD.itemsize:
        raise ToolrollError(f"not a .splat file: {len(data)} bytes are no multiple of 32", place=str(path))
    table = np.frombuffer(data, RECORD)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.log(np.where(table["scale"] == 0, np.finfo(np.float32).tiny, table["scale"]))
    return Gaussians(
        torch.from_numpy(table["mean"].astype(np.float32)),
        torch.from_numpy((table["rot"].astype(np.float32) - 128) / 128),
        torch.from_numpy(scales.astype(np.float32)),
        torch.from_numpy(_logits((table["rgba"][:, 3] / 255).astype(np.float32))),
        torch.from_numpy(((table["rgba"][:, None, :3] / np.float32(255) - 0.5) / SH0).astype(np.float32)),
    )


def write_splat(path: str | Path, gaussians: Gaussians) -> int:
    """Write a `.splat`; how many Gaussians were left out because they, or their scales, are not finite.

    Harmonics above degree 0 are lost, and colours and opacities are rounded to bytes.
    """
    table = splat_table(gaussians)
    put(Path(path), table.tobytes(), make_folder=True)
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
