"""Pictures that were made of scenes, and which photo each should be.

Pictures come as folders: of nvs-train, with the photos its train.json names; of any other program, with a folder of
photos or a scene; or with photo and picture side by side in one file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from glob import escape, glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.filesystem import reason
from toolroll.splat.entries import SUFFIXES, bare, is_name, is_sized, shown
from toolroll.splat.finding import open_scene
from toolroll.splat.labels import scene_name
from toolroll.splat.options import COLOURS
from toolroll.splat.photos import Photo, Photos, load_photo
from toolroll.splat.pictures import RENDERS
from toolroll.splat.scene import Lens, Shot
from toolroll.splat.score_options import SCENE, ScoreOptions
from toolroll.splat.splitting import part_shots
from toolroll.train.resumable import ABOUT

Picture = NDArray[np.float32]
OURS, OTHERS = "3dgs", "renders"  #: methods without a name
FLOATS = ".npy"  #: arrays [H, W, 3] in [0, 1]
HIGHEST = 4.0  #: what values of arrays may overshoot to; far more is another unit than [0, 1]
_INNER = re.compile(r"renders?|(gt[-_])?rgb|gt|test|val|eval|ours_\d+")  #: folders that have no scene's name


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and the photo it should be; both are read when they are asked for, or RowError says what is missing."""

    image: str
    place: Path
    read: Callable[[], tuple[Picture, Photo]]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that a method made of a scene. images_folder: where the photos are, if they are files."""

    method: str
    scene: str
    pairs: Sequence[Pair]
    images_folder: Path | None = None


# --- what to compare


def open_pictures(folder: Path, options: ScoreOptions, warn: Callable[[str], None] = lambda _: None) -> Pictures:
    """The pictures in a folder, each with its photo. ToolrollError for a folder without any, or a scene that is none.

    A photo without a picture is a pair that cannot be read; so is a picture without a photo.
    """
    try:
        return _opened(folder, options, warn)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(error.filename or folder)) from error


def _opened(folder: Path, options: ScoreOptions, warn: Callable[[str], None]) -> Pictures:
    if not folder.is_dir():
        raise ToolrollError("Not a directory" if folder.exists() else "No such file or directory", place=str(folder))
    trained = (folder / ABOUT).is_file()
    if options.truth is not None:
        made = folder / RENDERS if trained else folder
        return _beside(made, Path(options.truth), OURS if trained else OTHERS, options)
    if trained:
        return _trained(folder, options, warn)
    if options.side_by_side:
        return _halves(folder, options)
    if options.scene is None:
        raise UsageError("is no folder of nvs-train: needs --truth, --scene or --side-by-side", place=str(folder))
    shots = _shots(options.scene, options.images, options.as_taken, warn)
    try:
        shots, _ = part_shots(shots, options.split)
    except ToolrollError as error:
        raise type(error)(error.why, place=error.place or options.scene) from error
    tested = [shot for shot in shots if shot.part == "test"]
    return _of_shots(folder, tested, [shot.name for shot in tested], options, OTHERS, options.scene)


def folders_of(pattern: str) -> Iterator[tuple[str, Path]]:
    """The scenes of DIR, which has a folder for each or is one of nvs-train, or of a pattern with {scene} and *.

    Names and folders. ToolrollError where there is none, or a scene has two.
    """
    if SCENE not in pattern and (Path(pattern) / ABOUT).exists():
        yield Path(pattern).resolve().name, Path(pattern)
        return
    if SCENE not in pattern:
        pattern = str(Path(pattern) / SCENE)
    head, *rest = (re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split(SCENE))
    fits = re.compile(head + "(?P<scene>[^/]+)" + "(?P=scene)".join(rest))
    found: dict[str, str] = {}
    wild = re.split(f"({re.escape(SCENE)}|\\*)", pattern)
    wild = [part if number % 2 == 0 else "*" for number, part in enumerate(map(escape, wild))]
    for path in sorted(glob("".join(wild))):  # noqa: PTH207 - it may be absolute
        scene = fits.fullmatch(path)
        if scene is None or not Path(path).is_dir():
            continue
        if scene["scene"] in found:
            raise ToolrollError(f"two folders of {scene['scene']}: {found[scene['scene']]} and {path}", place=pattern)
        found[scene["scene"]] = path
    if not found:
        raise ToolrollError("no folder of a scene", place=pattern)
    yield from ((scene, Path(path)) for scene, path in found.items())


def _trained(folder: Path, options: ScoreOptions, warn: Callable[[str], None]) -> Pictures:
    """Those of a folder of nvs-train."""
    place = folder / ABOUT
    try:
        about = json.loads(place.read_bytes())
        settings = about.get("settings", {})
        names = [camera["image"] for camera in about["cameras"] if camera["part"] == "test"]
        root, images = options.scene or about["scene"], options.images or settings.get("images")
        method = settings.get("method") or OURS
        if not all(map(is_name, (root, "images" if images is None else images, method, *names))):
            raise TypeError
    except OSError as error:
        raise ToolrollError(reason(error), place=str(place)) from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ToolrollError("is not as nvs-train writes it", place=str(place)) from error
    if not Path(root).exists():
        raise ToolrollError(f"its scene, {shown(root)}, is not there (--scene says where it is)", place=str(place))
    return _of_shots(
        folder / RENDERS, _shots(root, images, options.as_taken, warn), sorted(set(names)), options, method, root
    )


def _shots(root: str, images: str | None, as_taken: bool, warn: Callable[[str], None]) -> Sequence[Shot]:
    scene = open_scene(root, images=images)
    for warning in scene.warnings:
        if warning != "no points":
            warn(warning)
    return [replace(shot, lens=_pinhole(shot.lens)) for shot in scene.shots] if as_taken else scene.shots


def _pinhole(lens: Lens) -> Lens:
    """The lens without its distortion, so that photos stay as they are."""
    return Lens("PINHOLE", lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy)


def _of_shots(
    folder: Path, shots: Sequence[Shot], names: Sequence[str], options: ScoreOptions, method: str, root: str
) -> Pictures:
    """Pictures of those photos of a scene that are named."""
    if not names:
        raise ToolrollError("no photo is tested", place=root)
    photos = Photos(shots, 0, background=_background(options))
    truths = {shot.name: partial(photos.__getitem__, number) for number, shot in enumerate(shots)}
    found = _listed(folder, options.only)
    if not found:
        raise ToolrollError("has no pictures", place=str(folder))
    if options.by_order:
        if len(found) != len(names):
            raise ToolrollError(f"{len(found)} pictures of {len(names)} photos, for --by-order", place=str(folder))
        places: Sequence[Path | None] = list(found.values())
    else:
        places = [_look(found, name) for name in names]
    pairs = []
    for name, place in zip(names, places, strict=True):
        read = partial(_both, place, truths.get(name), options, f"no such photo in {root}")
        pairs.append(Pair(name, place or folder / name, read))
    return Pictures(method, scene_name(Path(root).resolve()), pairs, shots[0].path.parent)


def _beside(folder: Path, truth: Path, method: str, options: ScoreOptions) -> Pictures:
    """Pictures and photos of the same names in two folders; photos without a picture do not count."""
    if not truth.is_dir():
        raise ToolrollError("Not a directory" if truth.exists() else "No such file or directory", place=str(truth))
    found, photos = _listed(folder, options.only), _listed(truth, None)
    if not found:
        raise ToolrollError("has no pictures", place=str(folder))
    if options.by_order and len(found) != len(photos):
        raise ToolrollError(f"{len(found)} pictures of {len(photos)} photos, for --by-order", place=str(folder))
    order = list(photos.values())
    pairs = []
    for number, (name, place) in enumerate(found.items()):
        photo = order[number] if options.by_order else _look(photos, name)
        look = None if photo is None else partial(_photo, photo, options)
        read = partial(_both, place, look, options, f"no such photo in {truth}")
        pairs.append(Pair(_name(photo, truth) if photo else name, place, read))
    above = truth.resolve().parent if is_sized(truth.name) else truth.resolve()
    return Pictures(method, scene_name(_named(above)), pairs, order[0].parent if order else None)


def _halves(folder: Path, options: ScoreOptions) -> Pictures:
    """Photo and picture in one file, the photo on the left."""
    found = _listed(folder, options.only)
    if not found:
        raise ToolrollError("has no pictures", place=str(folder))
    pairs = [Pair(_name(place, folder), place, partial(_split, place, options)) for place in found.values()]
    return Pictures(OTHERS, scene_name(_named(folder.resolve())), pairs)


def _named(folder: Path) -> Path:
    """The folder itself, or the one around it that may have a scene's name."""
    while _INNER.fullmatch(folder.name) and folder.parent != folder:
        folder = folder.parent
    return folder


# --- files


def _listed(folder: Path, only: str | None) -> dict[str, Path]:
    """The pictures in a folder and those in it, by their names without suffixes, sorted."""
    if not folder.is_dir():
        raise ToolrollError("No such file or directory", place=str(folder))
    rank = {suffix: number for number, suffix in enumerate((FLOATS, *SUFFIXES))}
    files = [file for file in folder.rglob("*") if file.suffix.lower() in rank and file.is_file()]
    if only is not None:
        files = [file for file in files if fnmatch(file.name, only) or fnmatch(_name(file, folder), only)]
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: (_stem(_name(file, folder)), rank[file.suffix.lower()])):
        found.setdefault(_stem(_name(file, folder)), file)
    return found


def _look(found: Mapping[str, Path], name: str) -> Path | None:
    """The file of a name, with its folder or, where one file alone has it, without."""
    exact = found.get(_stem(name))
    if exact is not None:
        return exact
    alike = [file for stem, file in found.items() if Path(stem).name == Path(_stem(name)).name]
    return alike[0] if len(alike) == 1 else None


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _stem(name: str) -> str:
    path = Path(name)
    return bare(path.as_posix()) if path.suffix.lower() in (FLOATS, *SUFFIXES) else path.as_posix()


def photos_in(folder: Path) -> list[Path]:
    """The photos that are in a folder itself, by name; none where it is gone. ToolrollError where it cannot be read."""
    try:
        files = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ToolrollError(reason(error), place=str(folder)) from error
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def _background(options: ScoreOptions) -> tuple[float, float, float] | None:
    return None if options.background is None else COLOURS[options.background]


def _both(
    place: Path | None, truth: Callable[[], Photo] | None, options: ScoreOptions, missing: str
) -> tuple[Picture, Photo]:
    if truth is None:
        raise RowError(missing)
    if place is None:
        raise RowError("no picture of this photo")
    return load_picture(place, _background(options)), truth()


def _photo(path: Path, options: ScoreOptions) -> Photo:
    pixels, alpha = load_photo(path, background=_background(options))
    return Photo(pixels, None if alpha is None or alpha.min() >= 0.5 else alpha >= 0.5)


def _split(place: Path, options: ScoreOptions) -> tuple[Picture, Photo]:
    both = load_picture(place, _background(options))
    if both.shape[1] % 2:
        raise RowError(f"{both.shape[1]} pixels wide, so that it has no two halves")
    half = both.shape[1] // 2
    return both[:, half:], Photo(both[:, :half])


def load_picture(path: Path, background: tuple[float, float, float] | None = None) -> Picture:
    """A picture that was made, float32 [H, W, 3]: of any format a photo may have, or .npy with floats in [0, 1].

    Transparency is laid on `background`, or ignored without one. RowError, or ToolrollError with the file, for others.
    """
    if path.suffix.lower() != FLOATS:
        return load_photo(path, background=background)[0]
    try:
        with np.errstate(over="ignore"):  # mapped: a header that promises more than there is takes no memory
            made = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ToolrollError(reason(error), place=str(path)) from error
    except Exception as error:  # numpy raises ValueError, EOFError and what not; pickles end here
        raise ToolrollError("is no array of numbers", place=str(path)) from error
    if not isinstance(made, np.ndarray):
        made.close()
        raise ToolrollError("is an archive, not one array of numbers", place=str(path))
    if made.ndim != 3 or made.shape[2] != 3 or not np.issubdtype(made.dtype, np.floating):
        raise ToolrollError(f"{made.dtype} {list(made.shape)}, not floats [height, width, 3]", place=str(path))
    if not np.isfinite(made).all():
        raise ToolrollError("has values that are not finite", place=str(path))
    if made.size and made.max() > HIGHEST:
        raise ToolrollError(f"has values up to {made.max():g}, which are not in [0, 1]", place=str(path))
    return np.array(made, np.float32)
