"""A scene written anew: as transforms.json or COLMAP's, photos linked, copied or straightened, with points and a split.

The world stays the one of the input's files. A scene's own file is written last, so that a folder with one is whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import reason
from toolroll.run.seeds import record_seed
from toolroll.splat.colmap import write_model
from toolroll.splat.labels import scene_name
from toolroll.splat.lenses import straighten, straightened
from toolroll.splat.photos import load_mask, load_photo
from toolroll.splat.points import read_points, write_points
from toolroll.splat.poses import inverse
from toolroll.splat.scene import Lens, Points, Scene, Shot
from toolroll.splat.splitting import write_lists
from toolroll.splat.transforms import mask_name, write_transforms
from toolroll.world.images import pillow

Form = Literal["transforms", "colmap-text", "colmap-binary"]
MODEL = "sparse/0"
QUALITY = 95  #: of JPEG
JPEG, PNG = (".jpg", ".jpeg"), ".png"
CUBE = 3.0  #: random points fill a cube of so many times the scene's size to each side
ROOM = 1.1  #: which is so many times the greatest distance of a camera from their middle


@dataclass(frozen=True, slots=True)
class Output:
    """How a scene is written."""

    form: Form
    undistort: bool = False
    copy: bool = False
    overwrite: bool = False


def prepare(scene: Scene, out: Path, output: Output) -> None:
    """Write a scene into a folder. UsageError for one that has something in it, but with `overwrite`; ToolrollError."""
    if out.is_dir() and not output.overwrite and any(out.iterdir()):
        raise UsageError("the folder is not empty: name another, or --overwrite", place=str(out))
    if out.exists() and out.resolve() in (scene.root.resolve(), *(shot.path.parent.resolve() for shot in scene.shots)):
        raise UsageError("is the folder of the scene itself", place=str(out))
    try:
        shots = [_put(shot, out, output) for shot in scene.shots]
        _put_files(replace(scene, shots=shots), out, output.form)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(error.filename or out)) from error


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


def _put(shot: Shot, out: Path, output: Output) -> Shot:
    """Bring a photo and its mask; the shot of what is in `out`."""
    straight = output.undistort and not shot.lens.straight
    suffix = shot.path.suffix
    if straight and suffix.lower() not in JPEG:
        suffix = PNG
    named = replace(shot, name=str(PurePosixPath(shot.name).with_suffix(suffix)))
    target = _free(out / "images" / named.name, shot.path)
    if straight:
        _straightened(shot).save(target, **({"quality": QUALITY, "subsampling": 0} if suffix.lower() in JPEG else {}))
    else:
        _bring(shot.path, target, copy=output.copy)
    lens = _pinhole(shot) if output.undistort else shot.lens
    if shot.mask is None:
        return replace(named, path=target, lens=lens)
    if straight:
        named = replace(named, mask=shot.mask.with_suffix(PNG))
    mask = _free(out / "masks" / mask_name(named), shot.mask)
    if straight:
        seen = straighten(load_mask(shot.mask, shot.lens.width, shot.lens.height), shot.lens, nearest=True)
        pillow().fromarray(seen.astype(np.uint8) * 255).save(mask)
    else:
        _bring(shot.mask, mask, copy=output.copy)
    return replace(named, path=target, lens=lens, mask=mask)


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
    """A place for a file, of which an earlier one is gone; never that of the source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        if target.samefile(source):
            raise UsageError("would be written over itself", place=str(source))
        target.unlink()
    return target


def _bring(source: Path, target: Path, *, copy: bool) -> None:
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


# --- points


def points_for(scene: Scene, wanted: str, seed: int) -> Points:
    """The points that are wanted: scene, random:N, ply:FILE or sift. UsageError for others.

    Random ones fill a cube around the cameras' middle evenly, in random colours. A PLY is in the world of the scene.
    """
    kind, _, value = wanted.partition(":")
    if wanted == "scene":
        return scene.points
    if kind == "random" and value.isdigit() and int(value) > 0:
        draws = np.random.default_rng(record_seed(seed, scene_name(scene.root), "points"))
        middle, spread = cloud(scene.shots)
        side = CUBE * ROOM * (spread or 1.0)
        colours = draws.integers(0, 256, (int(value), 3)).astype(np.uint8)
        return Points(middle + draws.uniform(-side, side, (int(value), 3)), colours)
    if kind == "ply" and value:
        return read_points(Path(value))
    if wanted == "sift":
        from toolroll.splat.sift import triangulated

        return triangulated(scene.shots)
    raise UsageError("is none of scene, random:N, ply:FILE, sift", place=wanted)


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
