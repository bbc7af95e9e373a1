"""Scenes in files: folders of images and label images, as CamVid has them, and rows with `image` and `truth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from toolroll.errors import RowError, ToolrollError
from toolroll.io.decoding import read_error
from toolroll.io.inputs import Reader
from toolroll.models.images import open_image, pillow
from toolroll.run.signals import StopFlag
from toolroll.segment.masks import decode, read_segmentation
from toolroll.segment.prompts import Prompts, given_prompts, read_prompts_file
from toolroll.segment.scenes import Scene, Segment

#: CamVid's 11 classes as SegNet's authors number them; 11 is unlabelled.
CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian"),
    "bicyclist",
)
SUFFIXES = (".png", ".jpg", ".jpeg")


class Camvid:
    """DIR/SPLIT has images, DIR/SPLITannot 8-bit images of labels with the same stems.

    Labels count the classes of DIR/classes.txt, a line each, if it is there, else CamVid's 11, from 0; the number
    behind the last, and 255, are unlabelled.
    """

    def __init__(self, folder: str, split: str) -> None:
        self.place = Path(folder)
        names = self.place / "classes.txt"
        self.classes: Prompts = read_prompts_file(names) if names.is_file() else tuple((name,) for name in CAMVID)
        images, labels = self.place / split, self.place / f"{split}annot"
        for part in (images, labels):
            if not part.is_dir():
                raise ToolrollError("no such folder", place=str(part))
        self._files = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self._files:
            raise ToolrollError("no images", place=str(images))
        self._labels = labels
        self.size: int | None = len(self._files)

    def path(self, number: int) -> str:
        """The file of an image."""
        return str(self._files[number])

    def scene(self, number: int) -> Scene:
        """An image with a segment for each class it has."""
        path = self._files[number]
        labels = self._read_labels(path)
        image = np.asarray(open_image(path), np.uint8)
        if labels.shape != image.shape[:2]:
            raise ToolrollError(f"labels are {labels.shape[1]} x {labels.shape[0]}, the image is not", place=str(path))
        known = len(self.classes)
        if (strange := sorted(int(one) for one in np.unique(labels) if one > known and one != 255)) != []:
            raise ToolrollError(f"label {strange[0]} is none of the {known} classes", place=str(path))
        segments = [Segment(words[0], mask) for one, words in enumerate(self.classes) if (mask := labels == one).any()]
        return Scene(path.stem, image, tuple(segments), labels >= known)

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        file = self._labels / f"{path.stem}.png"
        try:
            with pillow().open(file) as image:
                if image.mode not in ("L", "P"):
                    raise ToolrollError(f"labels are an image of 8 bits, this is of mode {image.mode}", place=str(file))
                return np.asarray(image, np.uint8)
        except pillow().UnidentifiedImageError as error:
            raise ToolrollError("not an image", place=str(file)) from error
        except (OSError, SyntaxError) as error:
            raise ToolrollError(getattr(error, "strerror", None) or str(error), place=str(file)) from error


class RowScenes:
    """Rows as pmp-data writes them: `image`, `truth` and maybe `ignore` and `prompts`."""

    def __init__(self, file: str, images: Path | None = None) -> None:
        self._folder = images or Path(file).parent
        self._rows: list[dict[str, Any]] = []
        self._places: list[str] = []
        reader = Reader((file,), stop=StopFlag(), before_wait=lambda: None)
        try:
            for name, number, line in reader.lines():
                if line.strip():
                    self._rows.append(_object(line, f"{name}:{number}"))
                    self._places.append(f"{name}:{number}")
        finally:
            reader.close()
        if not self._rows:
            raise ToolrollError("no rows", place=file)
        self.classes = self._classes()
        self.size: int | None = len(self._rows)

    def _classes(self) -> Prompts:
        """The prompts of all rows, each once, in the order they come."""
        found: dict[str, tuple[str, ...]] = {}
        for place, row in zip(self._places, self._rows, strict=True):
            try:
                given = row.get("prompts") or sorted({one["prompt"] for one in row.get("truth", [])})
                for words in given_prompts(given) if given else ():
                    found.setdefault(words[0], words)
            except (RowError, KeyError, TypeError) as error:
                raise ToolrollError(getattr(error, "why", "`truth` is not sound"), place=place) from error
        if not found:
            raise ToolrollError("no row has a prompt", place=self._places[0].rpartition(":")[0])
        return tuple(found.values())

    def path(self, number: int) -> str:
        """The file of an image."""
        return str(self._folder / str(self._rows[number].get("image")))

    def scene(self, number: int) -> Scene:
        """The image of a row with its segments."""
        row = self._rows[number]
        try:
            path = self._folder / str(row["image"])
            image = np.asarray(open_image(path), np.uint8)
            segments, ignore = read_truth(row.get("truth", []), row.get("ignore"), *image.shape[:2])
        except (RowError, KeyError) as error:
            why = getattr(error, "why", None) or f"no {error}"
            raise ToolrollError(why, place=self._places[number]) from error
        return Scene(str(row.get("id", number)), image, tuple(segments), ignore)


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ToolrollError(read_error(line, error), place=place) from error
    if not isinstance(row, dict):
        raise ToolrollError("a row that is no object", place=place)
    return row


def read_truth(truth: Any, ignore: Any, height: int, width: int) -> tuple[list[Segment], NDArray[np.bool_] | None]:
    """The segments of a row's `truth`, and the mask of its `ignore`. RowError where they are not sound."""
    if not isinstance(truth, list):
        raise RowError("`truth` is no list of segments")
    segments = []
    for one in truth:
        if not isinstance(one, dict) or not isinstance(one.get("prompt"), str):
            raise RowError("a segment of `truth` has no `prompt`")
        mask = read_segmentation(one.get("rle"), height, width)
        if mask.any():
            segments.append(Segment(one["prompt"], mask))
    unknown = None
    if ignore is not None:
        unknown = decode(ignore) if isinstance(ignore, dict) else None
        if unknown is None or unknown.shape != (height, width):
            raise RowError("`ignore` is no mask of the image's size")
    return segments, unknown
