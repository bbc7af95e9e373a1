"""Scenes on a disk: which files a folder has, which photos they mean, and where the points are.

A scene is one of these, or has one in its folder `nerfstudio`, else `gaussian_splat`, as DL3DV's benchmark has them:

    transforms.json             nerfstudio (DL3DV, too), instant-ngp
    transforms_train.json       Blender; with _val and _test
    sparse/0, colmap/sparse/0, sparse, or cameras, images, points3D in the folder itself: COLMAP, text or binary

Files that say what is in a folder, such as DL3DV's .cache/filelist.bin, are pickles; they are not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.splat.colmap import Reconstruction, holds_model, read_model
from toolroll.splat.entries import SUFFIXES, Entry, is_sized, name_of, tidy
from toolroll.splat.lenses import scaled
from toolroll.splat.photos import photo_size
from toolroll.splat.points import read_points
from toolroll.splat.poses import leads, moved, step_between
from toolroll.splat.scene import Part, Points, Scene, Shot
from toolroll.splat.splitting import own_parts
from toolroll.splat.transforms import BLENDER, OLD, Transforms, read_transforms

CHILDREN = ("nerfstudio", "gaussian_splat")
MODELS = ("sparse/0", "colmap/sparse/0", "sparse", "colmap/sparse", "")
SHAPE = 0.05  #: how far the shape of a photo may be from that of its lens, beside a pixel
LISTED = 3  #: names that a warning has


def open_scene(path: Path | str, *, images: str | None = None, strict: bool = False) -> Scene:
    """The scene in a folder, or of a transforms.json.

    `images` is the folder of photos, such as images_8; else the one the files name, else the largest there is. Lenses
    are for the sizes that photos have. Photos that are missing, and frames without a pose, are left out with a warning,
    or with `strict` end in a ToolrollError; so does a folder without a scene, and a scene without a photo.
    """
    given = Path(path)
    if not given.exists():
        raise ToolrollError("No such file or directory", place=str(path))
    if given.is_file():
        if given.suffix != ".json":
            raise ToolrollError("not a folder; unpack an archive first", place=str(path))
        return _by_transforms(given.parent, [given], images, strict)
    for root in (given, *(given / child for child in CHILDREN), *_only_child(given)):
        scene = _in_folder(root, images, strict)
        if scene is not None:
            return scene
    raise ToolrollError("no scene: neither transforms.json nor a model of COLMAP", place=str(path))


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
    finder = _Finder(root, images)
    shots = finder.shots([frame for one in read for frame in one.frames])
    finder.end(files[0], shots, strict)
    points = _points_for(root, read[0], shots, finder.warnings)
    return Scene(root, read[0].source, shots, _sound(points, finder.warnings), tuple(finder.warnings))


def _by_colmap(root: Path, folder: Path, images: str | None, strict: bool) -> Scene:
    model = read_model(folder)
    if root == folder:  # the folder itself was named: photos are beside it, or above
        root = next((one for one in (root, *list(root.resolve().parents)[:3]) if _photo_folders(one)), root)
    finder = _Finder(root, images, inside=True)
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
    """Points that are finite."""
    sound = np.isfinite(points.places).all(1)
    if not sound.all():
        warnings.append(f"points that are not finite: {int((~sound).sum())}")
    if not sound.any():
        warnings.append("no points")
    return points if sound.all() else Points(points.places[sound], points.colours[sound])


def _points_for(root: Path, read: Transforms, shots: Sequence[Shot], warnings: list[str]) -> Points:
    """The points of a transforms.json: of its PLY file, else COLMAP's, brought into its world."""
    if read.points is not None:
        file = root / read.points.replace("\\", "/")
        if file.is_file():
            return read_points(file)
        warnings.append(f"{read.points}, the file of points, is missing")
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


# --- photos


def _photo_folders(root: Path) -> list[str]:
    """The folders of photos: images, then the others, the largest pictures first."""
    if not root.is_dir():
        return []
    found = [one.name for one in root.iterdir() if one.is_dir() and is_sized(one.name)]
    return sorted(found, key=lambda name: int(name.partition("_")[2] or 0))


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one shape, as nearly as their pixels let them be."""
    return abs(math.log(size[0] * other[1] / (size[1] * other[0]))) <= SHAPE + 1 / min(size)


class _Finder:
    """Looks for the photos that frames name, in one folder of photos; `inside`: names are relative to that folder."""

    def __init__(self, root: Path, images: str | None, *, inside: bool = False) -> None:
        self.root, self.inside, self.images = root, inside, images
        self.warnings: list[str] = []
        self._wrong: dict[str, list[str]] = {}
        self._there: dict[Path, dict[str, list[Path]]] = {}
        folders = _photo_folders(root)
        if images is not None:
            self.folder = root / images if (root / images).is_dir() else Path(images)
            if not self.folder.is_dir():
                has = ", ".join(folders) or "none named images or images_N"
                raise ToolrollError(f"no such folder in {root}; there are: {has}", place=images)
        else:
            self.folder = root / folders[0] if folders else root
        size = self.folder.name.removeprefix("images")
        self.masks = next((one for one in (root / f"masks{size}", root / "masks") if one.is_dir()), None)

    def shots(self, frames: Sequence[Entry]) -> list[Shot]:
        """The shots of frames whose photos are there, sorted by name."""
        found: dict[str, Shot] = {}
        for frame in frames:
            shot = self._shot(frame)
            if shot is not None and shot.name in found:
                self._note("frames of a photo that another has", frame.file)
            elif shot is not None:
                found[shot.name] = shot
        return [found[name] for name in sorted(found)]

    def end(self, place: Path, shots: Sequence[Shot], strict: bool) -> None:
        """Make warnings of what was wrong; ToolrollError where it was too much."""
        for what, names in self._wrong.items():
            more = ", ..." if len(names) > LISTED else ""
            warning = f"{what}: {len(names)} ({', '.join(names[:LISTED])}{more})"
            if strict:
                raise ToolrollError(warning, place=str(place))
            self.warnings.append(warning)
        if not shots:
            raise ToolrollError(
                f"no photo in {self.folder}: {'; '.join(self.warnings) or 'no frames'}", place=str(place)
            )

    def mask_of(self, name: str) -> str | None:
        """The mask of an image of COLMAP's: of the same name, or with .png behind it."""
        found = None if self.masks is None else self._look(self.masks, name) or self._look(self.masks, f"{name}.png")
        return None if found is None else str(found.resolve())

    def _note(self, what: str, name: str) -> None:
        self._wrong.setdefault(what, []).append(name)

    def _shot(self, frame: Entry) -> Shot | None:
        name = str(tidy(frame.file)) if self.inside else name_of(frame.file)
        path = self._photo(frame.file, name)
        if path is None:
            self._note("photos missing", frame.file)
            return None
        if frame.pose is None:
            self._note("poses that are none", frame.file)
            return None
        try:
            width, height = photo_size(path)
        except ToolrollError as error:
            self._note("photos that cannot be read", f"{frame.file} ({error.why})")
            return None
        if frame.size is not None and not _alike((width, height), frame.size):
            said = f"{width} x {height}, not {frame.size[0]} x {frame.size[1]}"
            self._note("photos of another shape than their lens", f"{frame.file} ({said})")
            return None
        name = name if Path(name).suffix.lower() in SUFFIXES else name + path.suffix
        return Shot(name, path, frame.pose, frame.lens(width, height), self._mask(frame), frame.part)

    def _photo(self, file: str, name: str) -> Path | None:
        as_said = self.root / file.replace("\\", "/")
        if self.images is None and not self.inside:
            found = as_said if as_said.is_file() else self._look(as_said.parent, as_said.name)
            if found is not None:
                return found
        return self._look(self.folder, name) or self._look(self.folder, Path(name).name)

    def _mask(self, frame: Entry) -> Path | None:
        if frame.mask is None:
            return None
        as_said = self.root / frame.mask.replace("\\", "/")
        found = None
        if self.masks is not None and not self.inside:
            found = self._look(self.masks, name_of(frame.mask, "masks"))
        if found is None and as_said.is_file():
            found = as_said
        if found is None:
            self._note("masks missing", frame.mask)
        return found

    def _look(self, folder: Path, name: str) -> Path | None:
        """The file of a name, or else one that differs from it in its suffix, or has one where the name has none."""
        exact = folder / name
        if exact.is_file():
            return exact
        listing = self._listing(exact.parent)
        stem = exact.stem if exact.suffix.lower() in SUFFIXES else exact.name
        return next(iter(listing.get(stem, ())), None)

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        """The photos of a folder by their names without suffixes."""
        if folder not in self._there:
            found: dict[str, list[Path]] = {}
            files = folder.iterdir() if folder.is_dir() else ()
            for file in sorted(
                files, key=lambda file: SUFFIXES.index(s) if (s := file.suffix.lower()) in SUFFIXES else 99
            ):
                if file.suffix.lower() in SUFFIXES:
                    found.setdefault(file.stem, []).append(file)
            self._there[folder] = found
        return self._there[folder]
