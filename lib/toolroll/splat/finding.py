"""Scenes on a disk: which files a folder has, which photos they mean, and where the points are.

A scene is one of these, or has one in its folder `nerfstudio`, else `gaussian_splat`, as DL3DV's benchmark has them:

    transforms.json             nerfstudio (DL3DV, too), instant-ngp
    transforms_train.json       Blender; with _val and _test
    sparse/0, colmap/sparse/0, sparse, or cameras, images, points3D in the folder itself: COLMAP, text or binary

Files that say what is in a folder, such as DL3DV's .cache/filelist.bin, are pickles; they are not read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import reason
from toolroll.splat.colmap import Reconstruction, holds_model, read_model
from toolroll.splat.entries import Entry, name_of, shown
from toolroll.splat.lenses import scaled
from toolroll.splat.looking import Finder, is_file, photo_folders
from toolroll.splat.points import read_points, somewhere
from toolroll.splat.poses import FAR, leads, moved, step_between
from toolroll.splat.scene import Part, Points, Scene, Shot
from toolroll.splat.splitting import own_parts
from toolroll.splat.transforms import BLENDER, OLD, Transforms, read_transforms

CHILDREN = ("nerfstudio", "gaussian_splat")
MODELS = ("sparse/0", "colmap/sparse/0", "sparse", "colmap/sparse", "")


def open_scene(path: Path | str, *, images: str | None = None, strict: bool = False) -> Scene:
    """The scene in a folder, or of a transforms.json.

    `images` is the folder of photos, such as images_8; else the one the files name, else the largest there is. Lenses
    are for the sizes that photos have. Photos that are missing, and frames without a pose, are left out with a warning,
    or with `strict` end in a ToolrollError; so does a folder without a scene, and a scene without a photo.
    """
    try:
        scene = _scene(Path(path), images, strict)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(error.filename or path)) from error
    if scene is None:
        raise ToolrollError("no scene: neither transforms.json nor a model of COLMAP", place=str(path))
    return scene


def _scene(given: Path, images: str | None, strict: bool) -> Scene | None:
    if not given.exists():
        raise ToolrollError("No such file or directory", place=str(given))
    if given.is_file():
        if given.suffix != ".json":
            raise ToolrollError("not a folder; unpack an archive first", place=str(given))
        return _by_transforms(given.parent, [given], images, strict)
    roots = (given, *(given / child for child in CHILDREN), *_only_child(given))
    return next((scene for root in roots if (scene := _in_folder(root, images, strict)) is not None), None)


def _only_child(folder: Path) -> list[Path]:
    """The folder that an archive was unpacked into, if that is all there is."""
    found = [one for one in folder.iterdir() if not one.name.startswith(".")]
    return found if len(found) == 1 and found[0].is_dir() else []


def _in_folder(root: Path, images: str | None, strict: bool) -> Scene | None:
    if (root / "transforms.json").is_file():
        return _by_transforms(root, [root / "transforms.json"], images, strict)
    if (root / BLENDER[0]).is_file():
        return _by_transforms(root, [root / name for name in BLENDER if (root / name).is_file()], images, strict)
    for name in MODELS:
        if holds_model(root / name):
            return _by_colmap(root, root / name, images, strict)
    return None


# --- the kinds of files


def _by_transforms(root: Path, files: Sequence[Path], images: str | None, strict: bool) -> Scene:
    parts: dict[str, Part] = {BLENDER[0]: "train", BLENDER[1]: "val", BLENDER[2]: "test"}
    read = [read_transforms(file, parts.get(file.name)) for file in files]
    finder = Finder(root, images)
    if any(one.cropped for one in read):
        finder.warnings.append("fisheye_crop_radius is not looked at: what is beyond it counts, too")
    shots = finder.shots([frame for one in read for frame in one.frames])
    finder.end(files[0], shots, strict)
    points = _points_for(root, read[0], shots, finder.warnings)
    return Scene(root, read[0].source, shots, _sound(points, finder.warnings), tuple(finder.warnings))


def _by_colmap(root: Path, folder: Path, images: str | None, strict: bool) -> Scene:
    model = read_model(folder)
    if root == folder:  # the folder itself was named: photos are beside it, or above
        above = list(Path(os.path.realpath(root)).parents)[:3]
        root = next((one for one in (root, *above) if photo_folders(one)), root)
    finder = Finder(root, images, inside=True)
    parts = own_parts(root, folder, [image.name for image in model.images])
    frames = []
    for image in model.images:
        lens = model.cameras[image.camera]
        mask, size = finder.mask_of(image.name), (lens.width, lens.height)
        frames.append(Entry(image.name, image.pose, partial(scaled, lens), size, mask, parts.get(image.name)))
    shots = finder.shots(frames)
    finder.end(folder, shots, strict)
    return Scene(root, "colmap", shots, _sound(model.points, finder.warnings), tuple(finder.warnings))


def _sound(points: Points, warnings: list[str]) -> Points:
    """Points that are somewhere, with a warning of others."""
    found, lost = somewhere(points)
    if lost:
        warnings.append(f"points that are not finite, or beyond {FAR:g}: {lost}")
    if not len(found):
        warnings.append("no points")
    return found


def _points_for(root: Path, read: Transforms, shots: Sequence[Shot], warnings: list[str]) -> Points:
    """The points of a transforms.json: of its PLY file, else COLMAP's, brought into its world."""
    if read.points is not None:
        file = root / read.points.replace("\\", "/")
        if is_file(file):
            return read_points(file)
        warnings.append(f"{shown(read.points)}, the file of points, is missing")
    folder = next((root / name for name in MODELS if holds_model(root / name)), None)
    if folder is None:
        return Points.none()
    model = read_model(folder)
    step, warning = _step(model, read, shots)
    if warning:
        warnings.append(warning)
    if step is None:
        return Points.none()
    return Points(moved(model.points.places, step), model.points.colours)


def _step(model: Reconstruction, read: Transforms, shots: Sequence[Shot]) -> tuple[NDArray[np.float64] | None, str]:
    """From COLMAP's world to that of the frames, [3, 4], and a warning.

    What the file says is checked by the cameras that are in both. Where it says nothing, they tell; and where they
    cannot, nerfstudio's rule holds: the transform of older files.
    """
    poses = {name_of(image.name): image.pose for image in model.images if image.pose is not None}
    both = [(poses[shot.name], shot.pose) for shot in shots if shot.name in poses]
    old, new = [a for a, _ in both], [b for _, b in both]
    said = None if read.applied is None else read.applied * read.scale
    if said is not None and (not both or leads(said, old, new)):
        return said, ""
    found = step_between(old, new)
    if found is not None:
        why = "applied_transform does not lead from COLMAP's cameras to the frames: fitted to them instead"
        return found, "" if said is None else why
    if said is None and (len(both) < 2 or leads(OLD * read.scale, old, new)):
        return OLD * read.scale, "no applied_transform: took the one of nerfstudio's older files for the points"
    return None, "COLMAP's cameras are not those of the frames: its points are left out"
