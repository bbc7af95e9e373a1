"""Pictures of a trained scene: the cameras, what is drawn, and the film of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import write_atomically
from toolroll.records.nvs import NvsCamera
from toolroll.splat.frame import Frame, frame_of
from toolroll.splat.gaussians import Gaussians, Manner
from toolroll.splat.options import COLOURS
from toolroll.splat.paths import WAYS
from toolroll.splat.ply import is_antialiased, read_comments, read_ply
from toolroll.splat.poses import rigid
from toolroll.splat.rasterizer import Rasterizer, depth_of, draw
from toolroll.splat.scene import Lens
from toolroll.splat.training import ABOUT, CLOUD, png_name, write_picture

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of a picture called `name`; pose: [4, 4], world to camera."""

    name: str
    pose: Any
    lens: Lens
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Cloud:
    """Gaussians of a file, and what the folder of nvs-train says of it, if it is in one."""

    path: Path
    gaussians: Gaussians
    antialiased: bool
    about: Row | None = None


def open_cloud(model: Path) -> Cloud:
    """The Gaussians of a folder of nvs-train, or of a PLY. ToolrollError for what is neither."""
    path, about = model, None
    if model.is_dir():
        path = model / CLOUD
        if (model / "ibrnet.json").exists():
            raise UsageError("is a network, no Gaussians; its pictures are in renders/", place=str(model))
        if not path.exists():
            raise ToolrollError(
                f"has no {CLOUD}: is no folder of nvs-train, or nothing was saved yet", place=str(model)
            )
        if (model / ABOUT).exists():
            about = read_about(model / ABOUT)
    try:
        return Cloud(path, read_ply(path), is_antialiased(read_comments(path)), about)
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error


def read_about(path: Path) -> Row:
    """The train.json of a folder of nvs-train. ToolrollError for another."""
    try:
        made = json.loads(path.read_bytes())
        if not isinstance(made["cameras"], list) or not isinstance(made["recipe"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise ToolrollError("is no train.json of nvs-train", place=str(path)) from error
    found: Row = made
    return found


def cameras_of(cloud: Cloud, given: Path | None, part: str, warn: Callable[[str], None]) -> list[Camera]:
    """The cameras of a scene or of JSON lines, or those of the model's photos of a part."""
    if given is None:
        if cloud.about is None:
            raise UsageError("a PLY has no cameras: say --cameras", place=str(cloud.path))
        found = [_camera(row, f"{cloud.path.parent / ABOUT}") for row in cloud.about["cameras"]]
        found = [camera for camera in found if part in ("all", camera.part)]
        if not found:
            raise UsageError(f"the model has no {part} photos: say --part", place=str(cloud.path.parent))
        return found
    if given.is_dir() or given.suffix == ".json":
        return _of_scene(given, warn)
    lines = _lines(given)
    return [_camera(row, f"{given}:{number}") for number, row in enumerate(lines, 1)]


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(error.strerror or str(error), place=str(path)) from error
    except ValueError as error:
        raise ToolrollError("is no JSON lines", place=str(path)) from error


def _camera(row: Any, place: str) -> Camera:
    try:
        seen = msgspec.convert(row, NvsCamera)
    except msgspec.ValidationError as error:
        raise ToolrollError(f"is no camera: {error}", place=place) from error
    pose = rigid(seen.world_to_camera)
    if pose is None:
        raise ToolrollError(f"{seen.image}: world_to_camera is no pose", place=place)
    lens = Lens("PINHOLE", seen.width, seen.height, seen.fx, seen.fy, seen.cx, seen.cy)
    return Camera(seen.image, pose, lens, seen.part)


def _of_scene(path: Path, warn: Callable[[str], None]) -> list[Camera]:
    from toolroll.splat.finding import open_scene
    from toolroll.splat.lenses import straightened

    scene = open_scene(path)
    for warning in scene.warnings:
        warn(warning)
    return [Camera(shot.name, shot.pose, straightened(shot.lens), shot.part) for shot in scene.shots]


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
    if not (wide.isdigit() and high.isdigit()) or not all(0 < int(one) <= 1 << 14 for one in (wide, high)):
        raise UsageError("want WIDTHxHEIGHT in pixels, each up to 16384", place="--size")
    lens, width, height = camera.lens, int(wide), int(high)
    factor = width / lens.width
    cy = lens.cy * factor + (height - lens.height * factor) / 2
    made = replace(
        lens, width=width, height=height, fx=lens.fx * factor, fy=lens.fy * factor, cx=lens.cx * factor, cy=cy
    )
    return replace(camera, lens=made)


def pictures(
    cloud: Cloud, cameras: Sequence[Camera], rasterizer: Rasterizer, out: Path, *,
    sh_degree: int, background: str | None, depth: bool,
) -> Iterator[Row]:  # fmt: skip
    """Draw and write the picture of each camera; a row of `NvsRender` for it."""
    frame = _frame(cloud, cameras)
    gaussians = frame.inward_gaussians(cloud.gaussians).to(rasterizer.device)
    manner = Manner(degree=sh_degree, antialiased=cloud.antialiased)
    trained = None if cloud.about is None else cloud.about["recipe"].get("background")
    colour = COLOURS[background] if background else tuple(trained or COLOURS["black"])
    ground = torch.tensor(colour, dtype=torch.float32, device=rasterizer.device)
    for camera in cameras:
        started = time.monotonic()
        with torch.no_grad():
            picture = draw(rasterizer, gaussians, frame.eye(camera.pose, camera.lens), manner, ground)
        name = png_name(camera.name)
        write_picture(out / name, picture.image.cpu().numpy())
        row: Row = {
            "image": camera.name, "render": str(name), "part": camera.part, "world_to_camera": camera.pose.tolist(),
            **{one: getattr(camera.lens, one) for one in ("width", "height", "fx", "fy", "cx", "cy")},
            "coverage": float(picture.alpha.mean()),
        }  # fmt: skip
        if depth:
            row["depth"] = str(name.with_suffix(".depth.npy"))
            found = depth_of(rasterizer, picture.flat, camera.lens.width, camera.lens.height) / frame.scale
            _write_array(out / row["depth"], found.cpu().numpy())
        row["ms"] = round(1000 * (time.monotonic() - started), 1)
        yield row


def _frame(cloud: Cloud, cameras: Sequence[Camera]) -> Frame:
    """The frame that the model was trained in, or, as for training, that of the cameras."""
    if cloud.about is not None:
        return Frame(**{**cloud.about["frame"], "centre": tuple(cloud.about["frame"]["centre"])})
    return frame_of([camera.pose for camera in cameras])


def _write_array(path: Path, array: Any) -> None:
    import io

    held = io.BytesIO()
    np.save(held, array.astype(np.float32), allow_pickle=False)
    write_atomically(path, held.getvalue())


def ready_to_film(path: Path) -> None:
    """UsageError where there is no ffmpeg, or no folder for the film."""
    if shutil.which("ffmpeg") is None:
        raise UsageError("wants ffmpeg, which is not installed", place="--video")
    if not path.resolve().parent.is_dir():
        raise UsageError("its folder does not exist", place=str(path))


def film(pictures_made: Sequence[Path], path: Path, fps: float) -> None:
    """Pictures one after the other as a film, by ffmpeg; H.264 where the file's name does not say otherwise."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, picture in enumerate(pictures_made):
            (Path(scratch) / f"{number:06d}.png").symlink_to(picture.resolve())
        part = path.with_name(f".part-{path.name}")
        even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # as most players want it
        argv = ["ffmpeg", "-v", "error", "-y", "-framerate", str(fps), "-i", f"{scratch}/%06d.png"]
        argv += ["-vf", even, "-pix_fmt", "yuv420p", str(part)]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            part.unlink(missing_ok=True)
            why = next(iter(done.stderr.splitlines()[::-1]), "it says nothing of why")
            raise ToolrollError(f"ffmpeg failed: {why}", place=str(path))
        part.replace(path)
