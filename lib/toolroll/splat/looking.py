"""The photos and masks that a scene's files name, looked for on a disk, and what is wrong with them."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from pathlib import Path

from toolroll.errors import ToolrollError
from toolroll.splat.entries import SUFFIXES, Entry, is_sized, name_of, shown, tidy
from toolroll.splat.photos import mask_size, photo_size
from toolroll.splat.scene import Shot

SHAPE = 0.05  #: how far the shape of a photo may be from that of its lens, beside a pixel
LISTED = 3  #: names that a warning has


def photo_folders(root: Path) -> list[str]:
    """The folders of photos: images, then the others, the largest pictures first."""
    found = [one.name for one in _within(root) if is_sized(one.name) and one.is_dir()]
    return sorted(found, key=lambda name: int(name.partition("_")[2] or 0))


def is_file(path: Path) -> bool:
    """Whether there is a file. There is none of a name that is too long, or in a folder that may not be looked into."""
    try:
        return path.is_file()
    except OSError:
        return False


def _within(folder: Path) -> list[Path]:
    """What is in a folder; nothing in one that is not there."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return []
        raise


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one shape, as nearly as their pixels let them be."""
    return abs(math.log(size[0] * other[1] / (size[1] * other[0]))) <= SHAPE + 1 / min(size)


class Finder:
    """Looks for the photos that frames name, in one folder of photos; `inside`: names are relative to that folder."""

    def __init__(self, root: Path, images: str | None, *, inside: bool = False) -> None:
        self.root, self.inside, self.images = root, inside, images
        self.warnings: list[str] = []
        self._wrong: dict[str, list[str]] = {}
        self._there: dict[Path, dict[str, list[Path]]] = {}
        folders = photo_folders(root)
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
        taken: set[Path] = set()
        for frame in frames:
            shot = self._shot(frame)
            if shot is not None and (shot.name in found or shot.path in taken):
                self._note("frames of a photo that another has", frame.file)
            elif shot is not None:
                found[shot.name] = shot
                taken.add(shot.path)
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
        return None if found is None else str(found.absolute())

    def _note(self, what: str, name: str, why: str = "") -> None:
        self._wrong.setdefault(what, []).append(shown(name) + (why and f" ({why})"))

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
            self._note("photos that cannot be read", frame.file, error.why)
            return None
        if frame.size is not None and not _alike((width, height), frame.size):
            said = f"{width} x {height}, not {frame.size[0]} x {frame.size[1]}"
            self._note("photos of another shape than their lens", frame.file, said)
            return None
        name = name if Path(name).suffix.lower() in SUFFIXES else name + path.suffix
        return Shot(name, path, frame.pose, frame.lens(width, height), self._mask(frame), frame.part)

    def _photo(self, file: str, name: str) -> Path | None:
        as_said = self.root / file.replace("\\", "/")
        if self.images is None and not self.inside:
            found = as_said if is_file(as_said) else self._look(as_said.parent, as_said.name)
            if found is not None:
                return found
        return self._look(self.folder, name) or self._look(self.folder, Path(name).name)

    def _mask(self, frame: Entry) -> Path | None:
        if frame.mask is None:
            return None
        as_said = Path(frame.mask) if self.inside else self.root / frame.mask.replace("\\", "/")
        found = None
        if self.masks is not None and not self.inside:
            found = self._look(self.masks, name_of(frame.mask, "masks"))
        if found is None and is_file(as_said):
            found = as_said
        if found is None:
            self._note("masks missing", frame.mask)
            return None
        try:
            mask_size(found)
        except ToolrollError as error:
            self._note("masks that cannot be read", frame.mask, error.why)
            return None
        return found

    def _look(self, folder: Path, name: str) -> Path | None:
        """The file of a name, or else one that differs from it in its suffix, or has one where the name has none."""
        exact = folder / name
        if is_file(exact):
            return exact
        listing = self._listing(exact.parent)
        stem = exact.stem if exact.suffix.lower() in SUFFIXES else exact.name
        return next(iter(listing.get(stem, ())), None)

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        """The photos of a folder by their names without suffixes."""
        if folder not in self._there:
            found: dict[str, list[Path]] = {}
            for file in sorted(
                _within(folder), key=lambda file: SUFFIXES.index(s) if (s := file.suffix.lower()) in SUFFIXES else 99
            ):
                if file.suffix.lower() in SUFFIXES:
                    found.setdefault(file.stem, []).append(file)
            self._there[folder] = found
        return self._there[folder]
