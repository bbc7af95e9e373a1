"""Scenes of a COCO file of instances: polygons, run lengths and their text, mixed as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from toolroll.errors import RowError, ToolrollError
from toolroll.models.images import open_image
from toolroll.segment.masks import read_segmentation
from toolroll.segment.prompts import Prompts, checked
from toolroll.segment.scenes import Scene, Segment

PLACES = (".", "images", "train2017", "val2017")


def key_of(value: Any) -> str:
    """An id as it is compared: numbers by their value, so that 1, 1.0 and "1" are one. TypeError for what is none.

    >>> key_of(1), key_of(1.0), key_of("1"), key_of("cat")
    ('1', '1', '1', 'cat')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise TypeError(f"{value!r} is no id")
    return str(int(value))


def is_crowd(value: Any) -> bool:
    """Whether an annotation is of a crowd: 1, or text of it. RowError for what says neither."""
    if value in (None, 0, "0", ""):
        return False
    if value not in (1, "1"):
        raise RowError(f"`iscrowd` is {value!r}, neither 0 nor 1")
    return True


class Coco:
    """Images, annotations and categories of FILE. Images are in `images`, or beside the file or its folder.

    A crowd is no segment: its pixels are ones of which nothing is known. An empty mask is left out.
    """

    def __init__(self, file: str, images: Path | None = None) -> None:
        self.place = file
        try:
            data = json.loads(Path(file).read_bytes())
            categories = {key_of(one["id"]): str(one["name"]) for one in data["categories"]}
            self._images = [
                (key_of(one["id"]), str(one["file_name"]), int(one["width"]), int(one["height"]))
                for one in data["images"]
            ]
            annotations = data["annotations"]
            owners = [key_of(one["image_id"]) for one in annotations]
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=file) from error
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ToolrollError(f"not COCO's instances: {type(error).__name__} {error}", place=file) from error
        if not self._images:
            raise ToolrollError("no images", place=file)
        known = {image[0] for image in self._images}
        for kind, ids in (("category", data["categories"]), ("image", data["images"])):
            if len(ids) > len(categories if kind == "category" else known):
                raise ToolrollError(f"two {kind} ids are the same", place=file)
        if owners and known.isdisjoint(owners):
            raise ToolrollError(f"none of its {len(owners)} annotations is of one of its images", place=file)
        try:
            self.classes: Prompts = checked([[name] for name in categories.values()])
        except RowError as error:
            raise ToolrollError(error.why, place=file) from error
        self._categories = categories
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        for owner, one in zip(owners, annotations, strict=True):
            self._annotations.setdefault(owner, []).append(one)
        self._folders = [images] if images else self._near(Path(file))
        self.size: int | None = len(self._images)

    def _near(self, file: Path) -> list[Path]:
        roots = (file.parent, file.parent.parent)
        own = file.stem.replace("instances_", "")
        return [root / name for root in roots for name in (*PLACES, own, f"images/{own}")]

    def path(self, number: int) -> str:
        """The file of an image."""
        name = self._images[number][1]
        found = next((folder / name for folder in self._folders if (folder / name).is_file()), None)
        if found is None:
            raise ToolrollError("no such image near the file: name its folder with --images", place=name)
        return str(found)

    def scene(self, number: int) -> Scene:
        """An image with its segments."""
        name, _, width, height = self._images[number]
        path = Path(self.path(number))
        try:
            image = np.asarray(open_image(path), np.uint8)
        except RowError as error:
            raise ToolrollError(error.why) from error
        if image.shape[:2] != (height, width):
            why = f"the file says {width} x {height} pixels, the image has {image.shape[1]} x {image.shape[0]}"
            raise ToolrollError(why, place=str(path))
        segments: list[Segment] = []
        unknown = np.zeros((height, width), bool)
        for one in self._annotations.get(name, []):
            try:
                mask = read_segmentation(one.get("segmentation"), height, width)
                category = self._categories.get(key_of(one.get("category_id")))
                crowd = is_crowd(one.get("iscrowd"))
            except (RowError, TypeError) as error:
                why = error.why if isinstance(error, RowError) else str(error)
                raise ToolrollError(why, place=f"{self.place}: annotation {one.get('id')}") from error
            if category is None:
                why = f"category {one.get('category_id')} is not in the list"
                raise ToolrollError(why, place=f"{self.place}: annotation {one.get('id')}")
            if crowd:
                unknown |= mask
            elif mask.any():
                segments.append(Segment(category, mask))
        return Scene(name, image, tuple(segments), unknown if unknown.any() else None)
