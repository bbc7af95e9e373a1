"""Pictures by a network of nvs-train: which scene they are of, and the photos of it that they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import torch

from toolroll.errors import ToolrollError, UsageError
from toolroll.records.nvs import NvsCamera
from toolroll.splat.finding import open_scene
from toolroll.splat.frame import Frame
from toolroll.splat.gaussians import Eye
from toolroll.splat.ibrnet_scenes import IbrScene
from toolroll.splat.ibrnet_training import IbrOpened, cameras_of_scene, open_ibrnet
from toolroll.splat.rendering import Camera, Painted, read_about
from toolroll.splat.scene import Shot
from toolroll.splat.splitting import part_shots
from toolroll.train.resumable import ABOUT

SAME = 1e-6  #: how far poses may be apart that are one, in the rotation and in parts of the distance to the origin
Depth = Annotated[float, msgspec.Meta(gt=0)]


class Known(msgspec.Struct):
    """A scene of the training, as train.json has it."""

    name: str
    scene: str
    near: Depth
    far: Depth
    cameras: list[NvsCamera]


class Settings(msgspec.Struct):
    """What of the settings says where photos are."""

    images: str | None = None


class Several(msgspec.Struct):
    """train.json of a training on several scenes."""

    scenes: list[Known]
    settings: Settings


class One(Known):
    """train.json of a training on one scene."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and the scene that it draws."""

    opened: IbrOpened
    scene: IbrScene
    cameras: Sequence[NvsCamera]

    @property
    def photos(self) -> list[Path]:
        """The photos that pictures are drawn from."""
        return [shot.path for shot in self.scene.train.shots]

    def paint(self, camera: Camera) -> Painted:
        """Draw a picture from the photos near a camera, but not from one that this very camera took."""
        eye = Frame().eye(camera.pose, camera.lens)
        own = next((number for number, one in enumerate(self.scene.train.eyes) if _are_one(eye, one)), None)
        made = self.opened.rendered(self.scene, eye, leave_out=own)
        return Painted(made.image, made.alpha, lambda: made.depth)


def open_network(
    folder: Path, *, scene: str | None, images: str | None, split: str | None, device: str, warn: Callable[[str], None]
) -> Network:
    """The network of a folder of nvs-train with a scene: one of its training by name, or any folder.

    Photos are what they were in training, those of another scene by `split`. UsageError where it is not clear which
    scene is meant, ToolrollError where it, or too much of it, is gone.
    """
    opened = open_ibrnet(folder, device)
    known, settings = _known(folder / ABOUT)
    one, root = _chosen(known, scene, folder)
    if not root.exists():
        why = f"its scene, {root}, is not there (--scene says where it is)"
        raise ToolrollError(why, place=str(folder / ABOUT))
    found = open_scene(root, images=images or (settings.images if one is not None else None))
    for warning in found.warnings:
        if one is None or warning != "no points":  # depths are known
            warn(warning)
    shots = _parted(found.shots, split or "auto", warn) if one is None or split else _as_trained(found.shots, one, warn)
    made = IbrScene(found, shots, side=opened.about.side)
    if one is not None:
        made.near, made.far = one.near, one.far
        cameras = one.cameras
    if one is None or split:
        cameras = [msgspec.convert(row, NvsCamera) for row in cameras_of_scene(made)]
    return Network(opened, made, cameras)


def _known(path: Path) -> tuple[list[Known], Settings]:
    """The scenes that train.json tells of."""
    if not path.exists():
        raise ToolrollError(f"has no {ABOUT}: nothing says what it was trained on", place=str(path.parent))
    try:
        several = read_about(path, Several)
    except ToolrollError:
        one = read_about(path, One)
        return [one], one.settings
    return several.scenes, several.settings


def _chosen(known: Sequence[Known], wanted: str | None, folder: Path) -> tuple[Known | None, Path]:
    """The scene that is meant and where it is; None for one that the training does not know."""
    names = ", ".join(one.name for one in known)
    if wanted is None:
        if len(known) != 1:
            raise UsageError(f"was trained on several scenes: say --scene ({names}, or another)", place=str(folder))
        return known[0], Path(known[0].scene)
    path = Path(wanted)
    if path.exists():
        root = open_scene(path).root.resolve()
        moved = (one for one in known if Path(one.scene).name == root.name and not Path(one.scene).exists())
        return next((one for one in known if Path(one.scene).resolve() == root), next(moved, None)), path
    named = next((one for one in known if one.name == wanted), None)
    if named is None:
        raise UsageError(f"{wanted} is neither there nor a scene of the training ({names})", place="--scene")
    return named, Path(named.scene)


def _as_trained(shots: Sequence[Shot], known: Known, warn: Callable[[str], None]) -> list[Shot]:
    parts = {camera.image: camera.part for camera in known.cameras}
    names = {shot.name for shot in shots}
    gone = sorted(name for name, part in parts.items() if part == "train" and name not in names)
    if gone:
        warn(f"photos that it was trained on are missing: {len(gone)} ({', '.join(gone[:3])})")
    return [replace(shot, part=parts[shot.name]) for shot in shots if shot.name in parts]  # type: ignore[arg-type]


def _parted(shots: Sequence[Shot], rule: str, warn: Callable[[str], None]) -> list[Shot]:
    parted, warnings = part_shots(shots, rule)
    for warning in warnings:
        warn(warning)
    return parted


def _are_one(eye: Eye, other: Eye) -> bool:
    away = SAME * (1 + float(torch.linalg.vector_norm(other.place)))
    turned = float((eye.pose[:3, :3] - other.pose[:3, :3]).abs().max())
    return turned < SAME and float(torch.linalg.vector_norm(eye.place - other.place)) < away
