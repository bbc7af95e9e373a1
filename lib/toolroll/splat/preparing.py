"""A scene written anew: as transforms.json or COLMAP's, photos linked, copied or straightened, with points and a split.

The world stays the one of the input's files. A scene's own file is written last, so that a folder with one is whole.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import reason
from toolroll.run.seeds import record_seed
from toolroll.splat.colmap import check_names, write_model
from toolroll.splat.entries import bare, shown
from toolroll.splat.labels import scene_name
from toolroll.splat.lenses import straighten, straightened
from toolroll.splat.photos import load_mask, load_photo
from toolroll.splat.points import read_points, somewhere, write_points
from toolroll.splat.poses import FAR, inverse
from toolroll.splat.scene import Lens, Points, Scene, Shot
from toolroll.splat.splitting import write_lists
from toolroll.splat.transforms import BLENDER, mask_names, write_transforms
from toolroll.world.images import pillow

Form = Literal["transforms", "colmap-text", "colmap-binary"]
MODEL = "sparse/0"
MODEL_FILES = ("cameras", "images", "points3D", "rigs", "frames")  #: of COLMAP; the last two of newer versions
#: What a scene that was written has, beside photos and masks.
OWN = (
    "transforms.json",
    "points.ply",
    "split.json",
    f"{MODEL}/test.txt",
    *(f"{MODEL}/{name}{end}" for name in MODEL_FILES for end in (".bin", ".txt")),
)
QUALITY = 95  #: of JPEG
JPEG, PNG = (".jpg", ".jpeg"), ".png"
CUBE = 3.0  #: random points fill a cube of so many times the scene's size to each side
MOST_POINTS = 10_000_000  #: that are drawn at random
ROOM = 1.1  #: which is so many times the greatest distance of a camera from their middle


@dataclass(frozen=True, slots=True)
class Output:
    """How a scene is written."""

    form: Form
    undistort: bool = False
    copy: bool = False
    overwrite: bool = False


def prepare(scene: Scene, out: Path, output: Output, *, given: Path | None = None) -> None:
    """Write a scene into a folder. `given` is the folder that the user calls the scene's.

    UsageError for a folder that has something in it, but with `overwrite`, and for one of the scene's own;
    ToolrollError where writing fails. What another scene had in the folder is gone first, so that none is half of it.
    """
    try:
        _check_folder(scene, out, output, given)
        names = _names(scene.shots, output)
        if output.form != "transforms":
            check_names(names, text=output.form == "colmap-text")
            _check_masks(scene, names, out)
        for name in OWN:
            (out / name).unlink(missing_ok=True)
        shots = [_put(shot, name, out, output) for shot, name in zip(scene.shots, names, strict=True)]
        masks = mask_names(shots)
        shots = [_put_mask(*one, out, output) for one in zip(scene.shots, shots, masks, strict=True)]
        _put_files(replace(scene, shots=shots), out, output.form)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(error.filename or out)) from error


def _check_folder(scene: Scene, out: Path, output: Output, given: Path | None) -> None:
    if out.is_dir() and not output.overwrite and any(out.iterdir()):
        raise UsageError("the folder is not empty: name another, or --overwrite", place=str(out))
    masks = [shot.mask.parent for shot in scene.shots if shot.mask is not None]
    own = {scene.root, *([] if given is None else [given]), *(shot.path.parent for shot in scene.shots), *masks}
    places = {os.path.realpath(folder) for folder in own}
    if not places.isdisjoint(os.path.realpath(folder) for folder in (out, out / "images", out / "masks")):
        raise UsageError("is the folder of the scene itself, or has its photos", place=str(out))
    other = next((name for name in BLENDER if (out / name).exists()), None)
    if other is not None:
        raise UsageError(f"has a scene of another form, {other}", place=str(out))


def _check_masks(scene: Scene, names: Sequence[str], out: Path) -> None:
    """Masks go with the images of COLMAP's by their names alone, so that none may be there before."""
    folder = out / "masks"
    there = {bare(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if not file.is_dir()}
    for shot, name in zip(scene.shots, names, strict=True):
        if shot.mask is None and not there.isdisjoint((name, bare(name))):
            raise UsageError(f"has a mask of {shown(name)}, which the scene has not", place=str(folder))


def _names(shots: Sequence[Shot], output: Output) -> list[str]:
    """Names of photos as they are written: with the suffix of what is written, behind their own where that is taken."""
    wanted = []
    for shot in shots:
        suffix = shot.path.suffix
        if output.undistort and not shot.lens.straight and suffix.lower() not in JPEG:
            suffix = PNG
        wanted.append(bare(shot.name) + suffix)
    count = Counter(wanted)
    names = [
        f"{shot.name}{PNG}" if count[name] > 1 and name != shot.name else name
        for shot, name in zip(shots, wanted, strict=True)
    ]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ToolrollError(f"two photos would be written as {shown(twice)}")
    return names


def _put_files(scene: Scene, out: Path, form: Form) -> None:
    if form == "transforms":
        points = "points.ply" if len(scene.points) else None
        if points is not None:
            write_points(out / points, scene.points)
        write_transforms(out / "transforms.json", scene.shots, points=points)
        return
    if any(shot.part is not None for shot in scene.shots):
        write_lists(out / "split.json", scene.shots)
        tested = [shot.name for shot in scene.shots if shot.part == "test"]
        (out / MODEL).mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}\n" for name in tested)  # as the original code of 3D Gaussian splatting reads it
        (out / MODEL / "test.txt").write_text(text, "utf-8", "surrogateescape")
    images = [(shot.name, shot.pose, shot.lens) for shot in scene.shots]
    write_model(out / MODEL, images, scene.points, text=form == "colmap-text")


def _put(shot: Shot, name: str, out: Path, output: Output) -> Shot:
    """Bring a photo, by its new name; the shot of what is in `out`, with a mask of the form that it will have."""
    target = _free(out / "images" / name, shot.path)
    if not (output.undistort and not shot.lens.straight):
        _bring(shot.path, target, copy=output.copy)
        return replace(shot, name=name, path=target, lens=_pinhole(shot) if output.undistort else shot.lens)
    jpeg = target.suffix.lower() in JPEG
    _straightened(shot).save(target, **({"quality": QUALITY, "subsampling": 0} if jpeg else {}))
    mask = None if shot.mask is None else shot.mask.with_suffix(PNG)
    return replace(shot, name=name, path=target, lens=_pinhole(shot), mask=mask)


def _put_mask(before: Shot, shot: Shot, name: str, out: Path, output: Output) -> Shot:
    """Bring the mask of a shot, if it has one, by its name."""
    if before.mask is None:
        return shot
    target = _free(out / "masks" / name, before.mask)
    if output.undistort and not before.lens.straight:
        seen = straighten(load_mask(before.mask, before.lens.width, before.lens.height), before.lens, nearest=True)
        pillow().fromarray(seen.astype(np.uint8) * 255).save(target)
    else:
        _bring(before.mask, target, copy=output.copy)
    return replace(shot, mask=target)


def _pinhole(shot: Shot) -> Lens:
    try:
        return straightened(shot.lens)
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(shot.path)) from error


def _straightened(shot: Shot) -> Any:
    """The photo as the pinhole would have taken it, a PIL image; alpha stays alpha."""
    pixels, alpha = load_photo(shot.path)
    if alpha is not None and shot.path.suffix.lower() not in JPEG:
        pixels = np.concatenate([pixels, alpha[..., None]], -1)
    return pillow().fromarray(straighten(np.rint(pixels * 255).astype(np.uint8), shot.lens))


def _free(target: Path, source: Path) -> Path:
    """A place for a file, of which an earlier one is gone; never in the folder of the source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent.samefile(source.parent):
        raise UsageError("would be written over itself", place=str(source))
    target.unlink(missing_ok=True)
    return target


def _bring(source: Path, target: Path, *, copy: bool) -> None:
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(os.path.realpath(source))


# --- points


def points_for(scene: Scene, wanted: str, seed: int, warn: Callable[[str], None]) -> Points:
    """The points that are wanted: scene, random:N, ply:FILE or sift. UsageError for others.

    Random ones fill a cube around the cameras' middle evenly, in random colours. A PLY is in the world of the scene.
    """
    kind, _, value = wanted.partition(":")
    if wanted == "scene":
        return scene.points
    if kind == "random" and value.isdecimal() and 0 < int(value) <= MOST_POINTS:
        draws = np.random.default_rng(record_seed(seed, scene_name(scene.root), "points"))
        middle, spread = cloud(scene.shots)
        side = CUBE * ROOM * (spread or 1.0)
        colours = draws.integers(0, 256, (int(value), 3)).astype(np.uint8)
        return Points(middle + draws.uniform(-side, side, (int(value), 3)), colours)
    if kind == "ply" and value:
        points, lost = somewhere(read_points(Path(value)))
        if lost:
            warn(f"points of {value} that are not finite, or beyond {FAR:g}: {lost}")
        return points
    if wanted == "sift":
        from toolroll.splat.sift import triangulated

        return triangulated(scene.shots)
    raise UsageError(f"is none of scene, random:N (N to {MOST_POINTS}), ply:FILE, sift", place=wanted)


def cloud(shots: Sequence[Shot]) -> tuple[Any, float]:
    """The middle of the cameras, [3], and how far the farthest is from it."""
    places = np.stack([inverse(shot.pose)[:3, 3] for shot in shots])
    middle = places.mean(0)
    return middle, float(np.linalg.norm(places - middle, axis=1).max())


# --- what a scene is like


def about(scene: Scene) -> dict[str, Any]:
    """Counts and sizes of a scene, as fields of `records.nvs.NvsScene`."""
    sizes = Counter((shot.lens.width, shot.lens.height) for shot in scene.shots)
    (width, height), count = sizes.most_common(1)[0]
    warnings = list(scene.warnings)
    if len(sizes) > 1:
        warnings.append(f"photos of another size than {width} x {height}: {len(scene.shots) - count}")
    lens = next(shot.lens for shot in scene.shots if (shot.lens.width, shot.lens.height) == (width, height))
    return {
        "layout": scene.source,
        "images_folder": str(scene.shots[0].path.parent),
        "n_images": len(scene.shots),
        "width": width,
        "height": height,
        "n_lenses": len({shot.lens for shot in scene.shots}),
        "lens": {
            "camera_model": lens.model,
            "focal_px": [lens.fx, lens.fy],
            "centre_px": [lens.cx, lens.cy],
            "distortion": list(lens.distortion),
        },
        "n_masks": sum(shot.mask is not None for shot in scene.shots),
        "n_points": len(scene.points),
        "spread": cloud(scene.shots)[1],
        "warnings": warnings,
    }
