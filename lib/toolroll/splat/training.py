"""A training in a folder: from a scene to Gaussians, with checkpoints, scores of the test photos and their pictures.

DIR/point_cloud.ply   the Gaussians, in the world of the scene
DIR/train.json        the scene, the cameras with their parts, and how it was trained
DIR/renders/          pictures of the test photos; DIR/compare/ the photo beside them
DIR/state/            what training goes on from
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll import __version__
from toolroll.errors import ToolrollError, UsageError
from toolroll.run.seeds import record_seed
from toolroll.splat import metrics
from toolroll.splat.elements import read_ply_elements
from toolroll.splat.fit import Fit, Recipe, Told, begun, thinned
from toolroll.splat.frame import Frame, frame_of
from toolroll.splat.gaussians import Gaussians, View
from toolroll.splat.paths import upwards
from toolroll.splat.photos import Photos
from toolroll.splat.pictures import camera_row, means_of, png_name, score_of, write_beside
from toolroll.splat.ply import CLOUD, ELEMENTS, gaussians_of, mode_comment, write_ply
from toolroll.splat.points import points_of
from toolroll.splat.rasterizer import Rasterizer, draw
from toolroll.splat.scene import Points, Scene, Shot
from toolroll.train.resumable import Resumable

RANDOM_POINTS, MOST_POINTS = 20_000, 100_000_000  #: where a scene has none, and as many as may be asked for
CUBE = 3.0  #: half the side of the cube of random points, in extents of the scene
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    """What training begins with. kind: points, random:N, or ply:FILE, points or Gaussians in the world of the scene."""

    kind: str = "points"
    opacity: float = 0.1
    size: float = 1.0
    most: int = 0  #: points at most, 0 is all


class PhotoViews:
    """The photos of shots, as training sees them."""

    def __init__(self, shots: Sequence[Shot], frame: Frame, memory_bytes: int) -> None:
        self.photos = Photos(shots, memory_bytes)
        self.eyes = [frame.eye(shot.pose, lens) for shot, lens in zip(shots, self.photos.lenses, strict=True)]

    def __len__(self) -> int:
        return len(self.eyes)

    def __getitem__(self, number: int) -> View:
        photo = self.photos[number]
        mask = None if photo.mask is None else torch.from_numpy(photo.mask)
        return View(self.photos.shots[number].name, self.eyes[number], torch.from_numpy(photo.pixels), mask)


class Training(Resumable[Fit]):
    """A scene under training, in a folder."""

    def __init__(
        self, scene: Scene, shots: Sequence[Shot], recipe: Recipe, start: Start, rasterizer: Rasterizer, folder: Path,
        *, seed: int, memory_bytes: int = 1 << 31, warn: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.scene, self.shots, self.recipe, self._warn, self._left_out = scene, shots, recipe, warn, 0
        train = [shot for shot in shots if shot.part == "train"]
        self.frame = frame_of([shot.pose for shot in train])
        self.test = PhotoViews([shot for shot in shots if shot.part == "test"], self.frame, memory_bytes // 8)
        self.seen = PhotoViews(train, self.frame, memory_bytes)
        made = self._begun(scene.points, start, torch.Generator().manual_seed(record_seed(seed, "start") % 2**63))
        super().__init__(Fit(made, self.frame.extent, self.seen, recipe, rasterizer, seed), recipe.steps, folder, CLOUD)

    def _begun(self, points: Points, start: Start, random: torch.Generator) -> Gaussians:
        kind, _, value = start.kind.partition(":")
        if kind == "ply" and value:
            found = read_start(Path(value))
            if isinstance(found, Gaussians):
                return thinned(self.frame.inward_gaussians(self._sound(found, value)), start.most, random)
            points = found
            if not len(points):
                raise ToolrollError("has no points to begin with", place=value)
        elif kind == "random" and value.isdecimal() and 0 < int(value) <= MOST_POINTS:
            points = Points.none()
        elif start.kind != "points":
            raise UsageError(f"want points, random:N (N up to {MOST_POINTS}) or ply:FILE", place="--start")
        if len(points):
            places, colours = self.frame.inward(points.places), torch.from_numpy(points.colours).float() / 255
        else:
            count = int(value) if kind == "random" else RANDOM_POINTS
            if kind != "random":
                self._warn(f"no points: training begins with {count} anywhere")
            places = (torch.rand(count, 3, generator=random) * 2 - 1) * CUBE * self.frame.extent
            colours = torch.rand(count, 3, generator=random)
        if start.most and len(places) > start.most:
            chosen = torch.randperm(len(places), generator=random)[: start.most].sort().values
            places, colours = places[chosen], colours[chosen]
        return begun(places, colours, opacity=start.opacity, size=start.size, degree=0, random=random)

    def _sound(self, found: Gaussians, place: str) -> Gaussians:
        """Those of a file that are finite. ToolrollError where none is."""
        kept = found.chosen(found.finite())
        if not len(kept):
            raise ToolrollError("has no Gaussians to begin with", place=place)
        if len(kept) < len(found):
            self._warn(f"{len(found) - len(kept)} of {len(found)} Gaussians of {place} are not finite and left out")
        return kept

    def write_model(self) -> None:
        """Write the Gaussians as they are; those that are not finite are left out, with a warning."""
        outer = self.frame.outward(self.fit.gaussians).to("cpu")
        left_out = write_ply(self.folder / CLOUD, outer, comments=self._comments())
        if left_out > self._left_out:
            self._warn(f"{left_out} of {len(outer)} Gaussians are not finite and left out of {CLOUD}")
        self._left_out = left_out

    def _comments(self) -> list[str]:
        """What viewers want to know of the PLY: how it is drawn, and what is up."""
        comments = [mode_comment(self.recipe.antialiased)]
        try:
            up = upwards([shot.pose for shot in self.shots])
        except UsageError:  # cameras that are held all ways
            return comments
        return [*comments, "Vertical axis: " + " ".join(f"{one:.4f}" for one in up)]

    def told(self) -> Row:
        """See `Resumable`."""
        rest = [shot for shot in self.shots if shot.part == "val"]
        photos = (self.seen.photos, self.test.photos, Photos(rest, 0))
        lenses = {id(shot): lens for one in photos for shot, lens in zip(one.shots, one.lenses, strict=True)}
        cameras = [
            camera_row(shot.name, shot.part, shot.pose, lenses[id(shot)]) for shot in self.shots if id(shot) in lenses
        ]
        return {
            "scene": str(self.scene.root.resolve()), "settings": self.settings, "recipe": asdict(self.recipe),
            "step": self.fit.step, "n_gaussians": len(self.fit.gaussians), "frame": asdict(self.frame),
            "back_end": self.fit.rasterizer.name, "toolroll": __version__, "cameras": cameras,
        }  # fmt: skip

    # --- rows and pictures

    def counted(self, told: Told) -> Row:
        """See `Resumable`."""
        return {"n_gaussians": told.gaussians, "sh_degree": told.degree}

    def scores(self) -> Row:
        """Mean PSNR and SSIM over the test photos; nothing where there are none."""
        found = [score_of(image, view) for view, image in self.pictures()]
        return means_of(found) if found else {}

    def pictures(self) -> Iterator[tuple[View, NDArray[np.float32]]]:
        """The test photos, and the pictures that the Gaussians have in their place, [H, W, 3], as 8 bits have it."""
        manner = replace(self.fit.manner(self.recipe.steps), degree=self.recipe.degree)
        background = torch.tensor(self.recipe.background or (0.0, 0.0, 0.0)).to(self.fit.rasterizer.device)
        gaussians = self.fit.gaussians
        for number in range(len(self.test)):
            view = self.test[number]
            with torch.no_grad():
                image = draw(self.fit.rasterizer, gaussians, view.eye, manner, background).image
            yield view, metrics.in_bytes(image.cpu().numpy()).astype(np.float32)

    def show(self) -> int:
        """Write the pictures of the test photos, alone and beside the photo; how many."""
        count = 0
        for view, image in self.pictures():
            write_beside(self.folder, png_name(view.name), view, image)
            count += 1
        return count


def read_start(path: Path) -> Gaussians | Points:
    """The Gaussians of a PLY, or its points where it has no more. ToolrollError where it has neither."""
    read = read_ply_elements(path, ELEMENTS)
    try:
        whole = {"scale_0", "packed_scale"} & read.elements.get("vertex", {}).keys()
        return gaussians_of(read.elements) if whole else points_of(read.elements)
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(path)) from error
