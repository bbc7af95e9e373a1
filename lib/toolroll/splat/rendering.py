"""Pictures of a trained scene: the cameras, and what is drawn."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from toolroll.errors import ToolrollError, UsageError, first_line
from toolroll.io.filesystem import put, reason
from toolroll.records.nvs import NvsCamera
from toolroll.splat.frame import Frame, frame_of
from toolroll.splat.gaussians import Gaussians, Manner
from toolroll.splat.options import COLOURS
from toolroll.splat.paths import WAYS
from toolroll.splat.pictures import camera_row, png_name, write_picture
from toolroll.splat.ply import is_antialiased, open_splats, splats_file
from toolroll.splat.poses import rigid
from toolroll.splat.rasterizer import Rasterizer, depth_of, draw
from toolroll.splat.scene import Lens
from toolroll.train.resumable import ABOUT

LARGEST = 1 << 14  #: a side of a picture in pixels
FOCAL = 1e6  #: no lens has a focal length of more pixels, nor one of less than 1 / FOCAL
Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of a picture called `name`; pose: [4, 4], world to camera. photo: what it took, if that is a file."""

    name: str
    pose: Any
    lens: Lens
    part: str | None = None
    photo: Path | None = None


@dataclass(frozen=True, slots=True)
class Painted:
    """A picture: image [H, W, 3]; alpha [H, W], how much of the background is covered; depth(): [H, W]."""

    image: Tensor
    alpha: Tensor
    depth: Callable[[], Tensor]


Painter = Callable[[Camera], Painted]


class Trained(msgspec.Struct):
    """What train.json says of Gaussians."""

    cameras: list[NvsCamera]
    frame: SavedFrame
    recipe: SavedRecipe


class SavedFrame(msgspec.Struct):
    """The frame that a scene was trained in."""

    centre: tuple[float, float, float]
    scale: Annotated[float, msgspec.Meta(gt=0)]
    extent: float


class SavedRecipe(msgspec.Struct):
    """What of the recipe matters to pictures."""

    background: tuple[float, float, float] | None = None


def read_about(path: Path, kind: type[T]) -> T:
    """The train.json of a folder of nvs-train. ToolrollError for another."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ToolrollError(f"is no train.json of nvs-train: {first_line(error)}", place=str(path)) from error


# --- Gaussians


@dataclass(frozen=True, slots=True)
class Cloud:
    """Gaussians of a file, and what the folder of nvs-train says of it, if it is in one."""

    path: Path
    gaussians: Gaussians
    antialiased: bool
    about: Trained | None = None

    def painter(
        self, cameras: Sequence[Camera], rasterizer: Rasterizer, *, sh_degree: int, background: str | None
    ) -> Painter:
        """What draws it, in the frame that it was trained in or, as for training, that of the cameras."""
        if self.about is None:
            frame = frame_of([camera.pose for camera in cameras])
        else:
            frame = Frame(*(getattr(self.about.frame, name) for name in ("centre", "scale", "extent")))
        gaussians = frame.inward_gaussians(self.gaussians).to(rasterizer.device)
        manner = Manner(degree=sh_degree, antialiased=self.antialiased)
        trained = None if self.about is None else self.about.recipe.background
        colour = COLOURS[background] if background else trained or COLOURS["black"]
        ground = torch.tensor(colour, dtype=torch.float32, device=rasterizer.device)

        def paint(camera: Camera) -> Painted:
            with torch.no_grad():
                made = draw(rasterizer, gaussians, frame.eye(camera.pose, camera.lens), manner, ground)
            size = camera.lens.width, camera.lens.height
            return Painted(made.image, made.alpha, lambda: depth_of(rasterizer, made.flat, *size) / frame.scale)

        return paint


def open_cloud(model: Path) -> Cloud:
    """The Gaussians of a file or a folder, see `open_splats`; what is known of them besides if nvs-train wrote it."""
    path = splats_file(model)
    about = read_about(model / ABOUT, Trained) if (model / ABOUT).exists() else None
    gaussians, comments = open_splats(path)
    return Cloud(path, gaussians, is_antialiased(comments), about)


# --- cameras


def cameras_of(
    known: Sequence[NvsCamera] | None, model: Path, given: Path | None, part: str, warn: Callable[[str], None]
) -> list[Camera]:
    """The cameras of a scene or of JSON lines, or those `known` of the model's photos of a part."""
    if given is None:
        if known is None:
            raise UsageError("a PLY has no cameras: say --cameras", place=str(model))
        chosen = sorted((row for row in known if part in ("all", row.part)), key=lambda row: row.image)
        found = [seen_by(row, str(model)) for row in chosen]
        if not found:
            raise UsageError(f"the model has no {part} photos: say --part", place=str(model))
        return found
    listed = _listed(given) if given.suffix == ".json" else None
    if listed is not None:
        found = listed
    elif given.is_dir() or given.suffix == ".json":
        found = _of_scene(given, warn)
    else:
        found = [seen_by(row, f"{given}:{number}") for number, row in enumerate(_lines(given), 1)]
    if not found:
        raise ToolrollError("has no camera", place=str(given))
    return found


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(error.strerror or str(error), place=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ToolrollError("is no JSON lines", place=str(path)) from error


def seen_by(row: Any, place: str) -> Camera:
    """The camera of a row of `NvsCamera`. ToolrollError for what is none."""
    try:
        seen = msgspec.convert(row, NvsCamera, from_attributes=True)
    except msgspec.ValidationError as error:
        raise ToolrollError(f"is no camera: {error}", place=place) from error
    pose = rigid(seen.world_to_camera)
    if pose is None:
        raise ToolrollError(f"{seen.image}: world_to_camera is no pose", place=place)
    if max(seen.width, seen.height) > LARGEST:
        raise ToolrollError(f"{seen.image}: {seen.width} x {seen.height}, more than {LARGEST} pixels", place=place)
    lens = Lens("PINHOLE", seen.width, seen.height, seen.fx, seen.fy, seen.cx, seen.cy)
    if min(lens.fx, lens.fy) < 1 / FOCAL or max(lens.fx, lens.fy, abs(lens.cx), abs(lens.cy)) > FOCAL:
        raise ToolrollError(f"{seen.image}: fx, fy, cx or cy is of no lens", place=place)
    return Camera(seen.image, pose, lens, seen.part)


class ListedCamera(msgspec.Struct):
    """A camera of cameras.json, which the original code of 3D Gaussian splatting writes: from the camera to the world.

    Its axis meets the middle of the picture.
    """

    img_name: str
    width: int
    height: int
    position: list[float]
    rotation: list[list[float]]
    fx: float
    fy: float


def _listed(path: Path) -> list[Camera] | None:
    """The cameras of a cameras.json; None for another file."""
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[ListedCamera])
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    made = []
    for row in rows:
        try:
            pose = np.eye(4)
            pose[:3, :3] = np.array(row.rotation, float).T
            pose[:3, 3] = -pose[:3, :3] @ np.array(row.position, float)
        except ValueError as error:
            raise ToolrollError(f"{row.img_name}: is no camera", place=str(path)) from error
        lens = {"width": row.width, "height": row.height, "fx": row.fx, "fy": row.fy}
        about = {"image": row.img_name, "world_to_camera": pose.tolist(), "cx": row.width / 2, "cy": row.height / 2}
        made.append(seen_by(about | lens, str(path)))
    return made


def _of_scene(path: Path, warn: Callable[[str], None]) -> list[Camera]:
    from toolroll.splat.finding import open_scene
    from toolroll.splat.lenses import straightened

    scene = open_scene(path)
    for warning in scene.warnings:
        warn(warning)
    return [Camera(shot.name, shot.pose, straightened(shot.lens), shot.part, shot.path) for shot in scene.shots]


def way_through(cameras: Sequence[Camera], way: str, count: int) -> list[Camera]:
    """So many cameras along a way of `paths.WAYS`; with the first one's lens, numbered."""
    poses = WAYS[way]([camera.pose for camera in cameras], count)
    width = len(str(count - 1))
    return [Camera(f"{number:0{width}d}.png", pose, cameras[0].lens) for number, pose in enumerate(poses)]


def sized(camera: Camera, size: str) -> Camera:
    """The camera with pictures of another size: as much to see across, the rest by the shape.

    >>> sized(Camera("a", None, Lens("PINHOLE", 40, 20, 30, 30, 20, 10)), "80x50").lens
    Lens(model='PINHOLE', width=80, height=50, fx=60.0, fy=60.0, cx=40.0, cy=25.0, distortion=())
    """
    wide, _, high = size.partition("x")
    if not (wide.isdecimal() and high.isdecimal()) or not all(0 < int(one) <= LARGEST for one in (wide, high)):
        raise UsageError(f"want WIDTHxHEIGHT in pixels, each up to {LARGEST}", place="--size")
    lens, width, height = camera.lens, int(wide), int(high)
    factor = width / lens.width
    cy = lens.cy * factor + (height - lens.height * factor) / 2
    made = replace(
        lens, width=width, height=height, fx=lens.fx * factor, fy=lens.fy * factor, cx=lens.cx * factor, cy=cy
    )
    return replace(camera, lens=made)


# --- pictures


def pictures(paint: Painter, cameras: Sequence[Camera], out: Path, *, depth: bool) -> Iterator[Row]:
    """Draw and write the picture of each camera; a row of `NvsRender` for it."""
    for camera in cameras:
        started = time.monotonic()
        made = paint(camera)
        name = png_name(camera.name)
        write_picture(out / name, made.image.cpu().numpy())
        row: Row = {
            "image": camera.name, "render": str(name),
            **camera_row(camera.name, camera.part, camera.pose, camera.lens), "coverage": float(made.alpha.mean()),
        }  # fmt: skip
        if depth:
            row["depth"] = str(name.with_suffix(".depth.npy"))
            _write_array(out / row["depth"], made.depth().cpu().numpy())
        row["ms"] = round(1000 * (time.monotonic() - started), 1)
        yield row


def _write_array(path: Path, array: Any) -> None:
    import io

    held = io.BytesIO()
    np.save(held, array.astype(np.float32), allow_pickle=False)
    put(path, held.getvalue(), make_folder=True)


def check_places(cameras: Sequence[Camera], out: Path, photos: Iterable[Path] = ()) -> None:
    """UsageError where two pictures would be one file, or one would be written among the photos."""
    names = [png_name(camera.name) for camera in cameras]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UsageError("two cameras have a picture of this name", place=str(twice))
    taken = {path.parent.resolve() for path in (*photos, *(one.photo for one in cameras if one.photo is not None))}
    if any(folder.resolve() in taken for folder in {(out / name).parent for name in names}):
        raise UsageError("pictures would be among the photos of the scene", place="--out")
