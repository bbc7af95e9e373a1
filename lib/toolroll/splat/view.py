"""A page that shows 3D Gaussians: one HTML file that loads nothing, with what draws them and their numbers in it.

They are drawn by the PlayCanvas engine, parts of which stand in `data/viewer`. The world keeps its axes; the first view
is that of a camera which looks along +z, x right, y down. What may run in the page is named in its policy by its hash,
and nothing may be fetched.

The numbers are packed in columns, one for each property of the PLY: means as float32, all others as float16 (`ply`), or
as bytes and without harmonics above degree 0 (`splat`; scales stay float16). A column of w bytes is w planes, the
lowest bytes of all Gaussians first; all planes, one behind the other, are compressed by gzip and written in base64.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll.errors import UsageError
from toolroll.run.page import safe
from toolroll.splat.gaussians import SH0, Gaussians
from toolroll.splat.ply import CLOUD, property_names, table_of

Doubles = NDArray[np.float64]
Format = Literal["ply", "splat"]
FORMATS: tuple[Format, ...] = ("ply", "splat")

FOV = 50.0  #: degrees, of a view that nothing is said of
RAISED = math.radians(20)  #: how far above the horizon such a view begins
SIDES = 24  #: from which it may
LEAST = 1e-30  #: weight of a splat in what is said of all, so that they have one together
AXES = {"x": "1 0 0", "-x": "-1 0 0", "y": "0 1 0", "-y": "0 -1 0", "z": "0 0 1", "-z": "0 0 -1"}
RANGES = {  #: of bytes: what 0 stands for, and the step
    "f_dc": (-0.5 / SH0, 1 / (255 * SH0)),
    "opacity": (-7.0, 14 / 255),
    "rot": (-1.0, 1 / 128),
}
LINE = 1 << 16  #: of base64
ASSETS = Path(__file__).resolve().parents[1] / "data/viewer"


# --- what is shown


def drawable(gaussians: Gaussians) -> torch.Tensor:
    """Which can be drawn, bool [N]: finite, with a rotation, and of a size that is finite."""
    sizes = gaussians.scales.float().exp()
    return gaussians.finite() & sizes.isfinite().all(1) & (gaussians.quats != 0).any(1)


def most_visible(gaussians: Gaussians, most: int) -> torch.Tensor:
    """The `most` with the largest opacity times area, that of the two longest axes: indices, in their order."""
    area = gaussians.scales.double().sort(1, descending=True).values[:, :2].sum(1)
    worth = torch.nn.functional.logsigmoid(gaussians.logits.double()) + area
    return worth.argsort(descending=True, stable=True)[:most].sort().values


# --- from where


@dataclass(frozen=True, slots=True)
class Camera:
    """Where to look from. pose: [4, 4], world to camera, which looks along +z, x right, y down. fov: from the upper to
    the lower edge, in degrees.
    """

    pose: Doubles
    fov: float = FOV


@dataclass(frozen=True, slots=True)
class View:
    """How a page begins. up: [3], what dragging sideways turns around. radius: how large the scene is, about.
    distance: from the camera to what it turns around. given: whether the camera is the user's.
    """

    camera: Camera
    up: Doubles
    radius: float
    distance: float
    given: bool


def read_camera(path: str | Path) -> Camera:
    """A camera of a JSON file, {"pose": 4 x 4, "fov": degrees}; without fov, 50. UsageError for what is none."""
    try:
        given = json.loads(Path(path).read_bytes())
        pose = np.array(given["pose"], dtype=np.float64)
        fov = float(given.get("fov", FOV))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError('not a camera: {"pose": 4 x 4 numbers, "fov": degrees}', place=str(path)) from error
    turn = pose[:3, :3]
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or not np.array_equal(pose[3], [0, 0, 0, 1]):
        raise UsageError("its pose is not 4 x 4 numbers with 0 0 0 1 last", place=str(path))
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise UsageError("its pose is not a rotation and a translation", place=str(path))
    if not 1 <= fov <= 170:
        raise UsageError(f"its fov is {fov:g} degrees, not 1 to 170", place=str(path))
    return Camera(pose, fov)


def read_direction(text: str) -> Doubles:
    """A direction as x, -y, z or as three numbers, made of length 1. UsageError for what is none.

    >>> read_direction("-y").tolist(), read_direction("0, 0, 2").tolist()
    ([0.0, -1.0, 0.0], [0.0, 0.0, 1.0])
    """
    try:
        words = AXES.get(text.strip().lower(), text).replace(",", " ").split()
        direction: Doubles = np.array([float(word) for word in words])
    except ValueError:
        direction = np.zeros(0)
    length = float(np.linalg.norm(direction))
    if direction.shape != (3,) or not 0 < length < math.inf:
        raise UsageError(f"{text!r} is no axis and no three numbers", place="--up")
    direction /= length
    return direction


def trained_camera(folder: Path) -> Camera | None:
    """The first camera of the photos that nvs-train tested, or else trained on; None where the folder is not its."""
    from toolroll.splat.rendering import Trained, cameras_of, read_about
    from toolroll.train.resumable import ABOUT

    if not (folder / ABOUT).is_file() or not (folder / CLOUD).is_file():
        return None
    known = read_about(folder / ABOUT, Trained).cameras
    cameras = cameras_of(known, folder, None, "all", lambda _: None)
    first = next((camera for camera in cameras if camera.part == "test"), cameras[0])
    return Camera(first.pose, math.degrees(2 * math.atan(first.lens.height / 2 / first.lens.fy)))


def up_of(comments: tuple[str, ...]) -> Doubles | None:
    """The direction that a PLY's comments call up, `Vertical axis: z` or three numbers. With y some mean -y: None."""
    for comment in comments:
        name, _, text = comment.partition(":")
        if name.strip().lower() == "vertical axis" and text.strip().lower() != "y":
            try:
                return read_direction(text)
            except UsageError:
                return None
    return None


def view_of(gaussians: Gaussians, *, camera: Camera | None = None, up: Doubles | None = None) -> View:
    """How to begin. Without `up`, it is that of the camera, or else -y, as in the worlds of COLMAP.

    Without a camera the view is of the middle of what is opaque, from a little above, from the side where least stands
    in front of it and, a little, along which the scene is short.
    """
    means, weights = gaussians.means.double().numpy(), gaussians.logits.double().sigmoid().clamp(min=LEAST).numpy()
    sizes = gaussians.scales.double().exp().sort(1, descending=True).values[:, :2].numpy()
    centre = np.array([_quantile(means[:, axis], weights, 0.5) for axis in range(3)])
    far = np.linalg.norm(means - centre, axis=1)
    radius = max(_quantile(far, weights, 0.6), 2 * float(np.median(sizes[:, 0])), 1e-6)
    if camera is not None:
        upright = -camera.pose[1, :3] if up is None else up
        return View(camera, upright, radius, _depth(means, weights, camera, centre, radius), given=True)
    upright = np.array([0.0, -1.0, 0.0]) if up is None else up
    distance = radius / math.sin(math.radians(FOV / 2))
    near = far <= radius
    best: tuple[float, Camera] | None = None
    for ahead in _level(upright):
        forward = math.cos(RAISED) * ahead - math.sin(RAISED) * upright
        found = Camera(_pose(centre - distance * forward, forward, upright))
        depth = math.sqrt(np.average(((means[near] - centre) @ ahead) ** 2, weights=weights[near])) / radius
        cost = _covered(means, sizes, weights, found, 0.6 * distance) + 0.1 * depth
        if best is None or cost < best[0]:
            best = cost, found
    assert best is not None
    return View(best[1], upright, radius, distance, given=False)


def _level(up: Doubles) -> Iterator[Doubles]:
    """Directions all around."""
    side = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    side /= np.linalg.norm(side)
    for angle in np.arange(SIDES) * 2 * math.pi / SIDES:
        yield math.cos(angle) * side + math.sin(angle) * np.cross(up, side)


def _covered(means: Doubles, sizes: Doubles, weights: Doubles, camera: Camera, most: float) -> float:
    """How much of a view is covered by splats nearer than `most`, in views; `sizes` are [N, 2], their longest axes."""
    seen = means @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    edge = math.tan(math.radians(camera.fov / 2))
    front = (seen[:, 2] > most / 100) & (seen[:, 2] < most)
    front &= (np.abs(seen[:, :2]) < edge * seen[:, 2:] + sizes[:, :1]).all(1)
    areas = 2 * math.pi * sizes[front].prod(1) / (2 * edge * seen[front, 2]) ** 2
    return float((weights[front] * np.minimum(areas, 1)).sum())


def _quantile(values: Doubles, weights: Doubles, share: float) -> float:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order[min(int(np.searchsorted(below, share * below[-1])), len(order) - 1)]])


def _pose(place: Doubles, forward: Doubles, up: Doubles) -> Doubles:
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = [right, np.cross(forward, right), forward]
    pose[:3, 3] = -pose[:3, :3] @ place
    return pose


def _depth(means: Doubles, weights: Doubles, camera: Camera, centre: Doubles, radius: float) -> float:
    """How far what stands in the middle of a view is away."""
    seen = means @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    edge = math.tan(math.radians(camera.fov / 2)) / 3
    middle = (seen[:, 2] > 0) & (np.abs(seen[:, :2]) <= edge * seen[:, 2:]).all(1)
    if middle.any():
        return max(_quantile(seen[middle, 2], weights[middle], 0.5), radius / 100)
    depth = float(camera.pose[2, :3] @ centre + camera.pose[2, 3])
    return depth if depth > radius / 100 else radius


# --- the page


def page(
    gaussians: Gaussians,
    view: View,
    *,
    title: str,
    numbers: Format = "ply",
    antialiased: bool = False,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> str:
    """The page. Gaussians must be `drawable`; `background` is red, green, blue in 0 to 1."""
    columns, data = packed(gaussians, numbers)
    out_of = np.linalg.inv(view.camera.pose) @ np.diag([1.0, -1.0, -1.0, 1.0])  # camera to world; it looks along -z
    scene = {
        "count": len(gaussians),
        "columns": columns,
        "antialiased": antialiased,
        "background": background,
        "matrix": out_of.T.ravel().tolist(),
        "fov": view.camera.fov,
        "up": view.up.tolist(),
        "distance": view.distance,
        "radius": view.radius,
        "given": view.given,
    }
    style, engine, viewer = (_asset(name) for name in ("viewer.css", "playcanvas.js.gz", "viewer.js"))
    text = base64.b64encode(data).decode()
    return Template(_asset("page.html")).substitute(
        title=safe(title),
        count="1 splat" if len(gaussians) == 1 else f"{len(gaussians):,} splats",
        policy=f"style-src {_named(style)}; script-src {_named(engine)} {_named(viewer)}",
        scene=json.dumps(scene, allow_nan=False).replace("<", "\\u003c"),
        data="\n".join(text[start : start + LINE] for start in range(0, len(text), LINE)),
        style=style,
        engine=engine,
        viewer=viewer,
    )


def packed(gaussians: Gaussians, numbers: Format) -> tuple[list[dict[str, Any]], bytes]:
    """The columns, as the page is told of them, and their compressed planes."""
    rounded = numbers == "splat"
    sh = gaussians.sh[:, :1] if rounded else gaussians.sh
    whole = replace(gaussians, sh=sh, quats=torch.nn.functional.normalize(gaussians.quats.float(), dim=1))
    columns, planes = [], []
    for name, values in zip(property_names(sh.shape[1]), table_of(whole).T, strict=True):
        column, bits = _column(name, values, rounded=rounded)
        columns.append(column)
        planes += [(bits >> 8 * plane).astype(np.uint8).tobytes() for plane in range(column["bytes"])]
    return columns, gzip.compress(b"".join(planes), 6, mtime=0)


def _column(name: str, values: NDArray[np.float32], *, rounded: bool) -> tuple[dict[str, Any], NDArray[Any]]:
    """How a property is packed, and its bits."""
    kind = name.rpartition("_")[0] or name
    if kind in ("x", "y", "z"):
        return {"name": name, "bytes": 4}, np.ascontiguousarray(values).view(np.uint32)
    if not rounded or kind not in RANGES:
        most = np.finfo(np.float16).max
        return {"name": name, "bytes": 2}, np.clip(values, -most, most).astype(np.float16).view(np.uint16)
    low, step = RANGES[kind]
    steps = np.clip(np.rint((values.astype(np.float64) - low) / step), 0, 255)
    return {"name": name, "bytes": 1, "low": low, "step": step}, steps.astype(np.uint8)


def _named(part: str) -> str:
    """What stands in a page, as its policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    data = (ASSETS / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode()
