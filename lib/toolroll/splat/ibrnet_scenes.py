"""Scenes as a network that blends photos sees them: photos of a size it can bear, cameras, and how far to look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.splat.gaussians import Eye, View
from toolroll.splat.ibrnet import SMALLEST
from toolroll.splat.ibrnet_rays import Sampling, Sources, by_nearness, depth_range
from toolroll.splat.lenses import scaled
from toolroll.splat.photos import Photos
from toolroll.splat.scene import Scene, Shot
from toolroll.world.images import pillow

LEAST = 3  #: photos: one that is drawn, two that are looked at


class SmallPhotos:
    """Straightened photos whose longer side has `side` pixels at most (0: any number), with lenses that fit.

    They are made smaller by means over areas, and kept as 8 bits as far as there is room; others are read anew.
    """

    def __init__(self, shots: Sequence[Shot], side: int, memory_bytes: int) -> None:
        self.shots = shots
        self._photos = Photos(shots, 0)
        self._room = memory_bytes
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_] | None]] = {}
        self.eyes: list[Eye] = []
        for shot, lens in zip(shots, self._photos.lenses, strict=True):
            width, height = small_size(lens.width, lens.height, side)
            if min(width, height) < SMALLEST:
                why = f"{width} x {height} pixels; a side has {SMALLEST} at least"
                raise ToolrollError(why, place=str(shot.path))
            lens = scaled(lens, width, height)
            self.eyes.append(Eye(torch.from_numpy(shot.pose), lens.fx, lens.fy, lens.cx, lens.cy, width, height))

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, number: int) -> View:
        """A photo. ToolrollError where its file is none."""
        found = self._kept.get(number)
        if found is None:
            found = self._read(number)
            size = found[0].nbytes + (0 if found[1] is None else found[1].nbytes)
            if size <= self._room:
                self._room -= size
                self._kept[number] = found
        pixels, mask = found
        image = torch.from_numpy(pixels.astype(np.float32) / np.float32(255))
        return View(self.shots[number].name, self.eyes[number], image, None if mask is None else torch.from_numpy(mask))

    def _read(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        photo, eye = self._photos[number], self.eyes[number]
        size = eye.width, eye.height
        if photo.pixels.shape[:2] == size[::-1]:
            return np.rint(photo.pixels * 255).astype(np.uint8), photo.mask
        small = np.stack([_smaller(plane, size) for plane in photo.pixels.transpose(2, 0, 1)], -1)
        mask = None if photo.mask is None else _smaller(photo.mask.astype(np.float32), size) > 0.5
        return np.rint(small * 255).astype(np.uint8), mask


def _smaller(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """[H, W] as means over areas, of width and height."""
    image = pillow()
    return np.asarray(image.fromarray(np.ascontiguousarray(plane)).resize(size, image.Resampling.BOX))


def small_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with a longer side of `side` at most; 0 leaves them.

    >>> small_size(960, 540, 96), small_size(60, 80, 96), small_size(504, 378, 0)
    ((96, 54), (60, 80), (504, 378))
    """
    longer = max(width, height)
    if not side or longer <= side:
        return width, height
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


class IbrScene:
    """A scene: photos to look at and to learn from, `train`, and those to be measured on, `test`.

    name: of its folder. near, far: depths at which things are, in units of the scene. ToolrollError with fewer than
    three photos to train on.
    """

    def __init__(self, scene: Scene, shots: Sequence[Shot], *, side: int = 0, memory_bytes: int = 1 << 30) -> None:
        self.root = scene.root.resolve()
        self.name = self.root.name or "scene"
        train = [shot for shot in shots if shot.part == "train"]
        if len(train) < LEAST:
            why = f"{len(train)} photos to train on: a network that blends photos wants {LEAST} at least"
            raise ToolrollError(why, place=str(scene.root))
        self.train = SmallPhotos(train, side, memory_bytes)
        self.test = SmallPhotos([shot for shot in shots if shot.part == "test"], side, memory_bytes // 8)
        self.near, self.far = depth_range(self.train.eyes, scene.points.places)

    def sampling(self, coarse: int, fine: int) -> Sampling:
        """How rays are looked along in it."""
        return Sampling(self.near, self.far, coarse, fine)

    def nearest(self, eye: Eye, count: int, leave_out: int | None = None) -> list[int]:
        """The numbers of the photos to train on that show most nearly what `eye` sees; without one of them."""
        order = by_nearness(eye, self.train.eyes)
        return [number for number in order if number != leave_out][:count]

    def sources(self, numbers: Sequence[int]) -> Sources:
        """Photos to train on, as what a picture is drawn from."""
        looks = [self.train[number] for number in numbers]
        images = [look.image.permute(2, 0, 1).contiguous() for look in looks]
        return Sources([look.eye for look in looks], images, [look.mask for look in looks])


def named_apart(scenes: Sequence[IbrScene]) -> list[str]:
    """A name for each scene: of its folder, with the number of those of that name before it."""
    made: list[str] = []
    for scene in scenes:
        name, number = scene.name, 1
        while name in made:
            number += 1
            name = f"{scene.name}_{number}"
        made.append(name)
    return made
