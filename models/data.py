"""Pictures to learn from: rendered scenes and drawn charts, with what every patch of them shows.

Made by worker processes in parts, each written whole or not at all, so that a stopped run goes on where it was. What
is held out has seeds of its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sizes import GRID, MOST, OBJECTS, PATCH, PATCHES, RENDERED, SIDE

from toolroll.io.filesystem import write_atomically
from toolroll.world import charts, tables
from toolroll.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from toolroll.world.draws import Draws
from toolroll.world.place import drawn_scene
from toolroll.world.render import owners, render
from toolroll.world.scene import Scene
from toolroll.world.tables import Table
from toolroll.world.words import from_left

PART = 400  #: pictures of a part
SEEDS = {"train": 1_000_000, "held-out": 9_000_000}  #: the first seed of a split; charts begin half a million later
LOOKS = (tuple(SIZES), tuple(COLORS), MATERIALS, SHAPES)  #: values of an attribute, in the order of Solid.looks
COVER = 0.12  #: share of a patch from which an object is what the patch shows
LARGEST = 10  #: places of a chart that can be told apart

Array = np.ndarray[Any, Any]


@dataclass
class Pictures:
    """Many pictures. Objects are numbered from left to right.

    images: uint8 [n, SIDE, SIDE, 3]; looks: int8 [n, MOST, 4], indices into LOOKS, -1 for no object; places: float32
    [n, MOST, 2], the middle of each object in units of the picture; owners: int8 [n, PATCHES], the object a patch
    shows, -1 for none; anchors: int16 [n, MOST], the one patch that stands for an object, -1 for none; charts: int8
    [n, 3], kind of chart, categories and the largest, -1 for a scene or what cannot be told; about: Scene or Table.
    """

    images: Array
    looks: Array
    places: Array
    owners: Array
    anchors: Array
    charts: Array
    about: list[Scene | Table]

    def __len__(self) -> int:
        return len(self.about)


def squared(image: Array) -> Array:
    """A picture scaled to SIDE x SIDE as the shipped image processors do it (bicubic)."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def scene_parts(seed: int, size: tuple[int, int] | None = None, count: int | None = None) -> tuple[Any, ...]:
    """A scene of a seed as a row of `Pictures`; its size in pixels and its number of objects are drawn where not given.

    Its solids stand in the order from left to right.
    """
    draws = Draws(seed)
    width, height = size or draws.pick(RENDERED)
    number = draws.pick(OBJECTS) if count is None else count
    scene = drawn_scene(draws, number, width, height) if number else drawn_scene(draws, 1, width, height)
    scene = scene.with_solids([scene.solids[i] for i in from_left(scene)] if number else [])
    looks = np.full((MOST, 4), -1, np.int8)
    places = np.zeros((MOST, 2), np.float32)
    for i, solid in enumerate(scene.solids):
        looks[i] = [LOOKS[k].index(value) for k, value in enumerate(solid.looks)]
        x, y, _ = scene.camera.project(solid.center, width, height)
        places[i] = x / width, y / height
    shown, anchors = patches(owners(scene, SIDE, SIDE * 3 // 4).ids, len(scene.solids))
    return squared(render(scene, width, height)), looks, places, shown, anchors, np.full(3, -1, np.int8), scene


def patches(ids: Array, count: int) -> tuple[Array, Array]:
    """What each patch shows, and each object's own patch, from whose each pixel is: int [SIDE * 3 / 4, SIDE]."""
    tall = ids[np.arange(SIDE) * ids.shape[0] // SIDE]
    cells = tall.reshape(GRID, PATCH, GRID, PATCH).transpose(0, 2, 1, 3).reshape(PATCHES, PATCH * PATCH)
    share = np.stack([(cells == i).mean(1) for i in range(count)], 1) if count else np.zeros((PATCHES, 1))
    shown = np.where(share.max(1) >= COVER, share.argmax(1), -1).astype(np.int8)
    anchors = np.full(MOST, -1, np.int16)
    for i in range(count):
        rows, columns = np.nonzero(tall == i)
        own = np.flatnonzero(shown == i)
        if len(own):
            away = (own // GRID + 0.5 - rows.mean() / PATCH) ** 2 + (own % GRID + 0.5 - columns.mean() / PATCH) ** 2
            anchors[i] = own[away.argmin()]
    return shown, anchors


def chart_parts(seed: int) -> tuple[Any, ...]:
    """A chart of a seed as a row of `Pictures`."""
    draws = Draws(seed)
    table = tables.drawn_table(draws)
    image = charts.draw(table, charts.drawn_style(draws), *draws.pick(((128, 96), (160, 120), (240, 180), (320, 240))))
    told = np.full(3, -1, np.int8)
    told[:2] = tables.KINDS.index(table.kind), min(len(table.categories), LARGEST)
    if len(table.series) == 1:
        values = table.series[0][1]
        if values.count(max(values)) == 1 and values.index(max(values)) < LARGEST:
            told[2] = values.index(max(values))
    none = (np.full((MOST, 4), -1, np.int8), np.zeros((MOST, 2), np.float32))
    return squared(image), *none, np.full(PATCHES, -1, np.int8), np.full(MOST, -1, np.int16), told, table


def part(split: str, kind: str, first: int, count: int, path: Path) -> None:
    """Write pictures `first` .. `first + count` of a split."""
    start = SEEDS[split] + (500_000 if kind == "charts" else 0) + first
    make = chart_parts if kind == "charts" else scene_parts
    rows = [make(seed) for seed in range(start, start + count)]
    *arrays, about = zip(*rows, strict=True)
    write_atomically(path, pickle.dumps([np.stack(column) for column in arrays] + [list(about)]))


def made(cache: Path, split: str, scenes: int, charts_: int, workers: int) -> Pictures:
    """The pictures of a split, made where the cache does not have them: scenes first, then charts."""
    folder = cache / split
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (folder / f"{kind}-{first}-{min(PART, number - first)}.pickle", kind, first, min(PART, number - first))
        for kind, number in (("scenes", scenes), ("charts", charts_))
        for first in range(0, number, PART)
    ]
    missing = [one for one in wanted if not one[0].exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(part, split, kind, first, count, path) for path, kind, first, count in missing]
            for job in jobs:
                job.result()
    return joined([pickle.loads(path.read_bytes()) for path, *_ in wanted])


def joined(parts: Sequence[list[Any]]) -> Pictures:
    """Parts one after the other."""
    columns = [np.concatenate([one[k] for one in parts]) for k in range(6)]
    return Pictures(*columns, about=[row for one in parts for row in one[6]])
