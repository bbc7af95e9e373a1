"""A training in a folder: from a scene to Gaussians, with checkpoints, scores of the test photos and their pictures.

DIR/point_cloud.ply   the Gaussians, in the world of the scene
DIR/train.json        the scene, the cameras with their parts, and how it was trained
DIR/renders/          pictures of the test photos; DIR/compare/ the photo beside them
DIR/state/            what training goes on from
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from toolroll import __version__
from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import write_atomically
from toolroll.run.seeds import record_seed
from toolroll.splat import metrics
from toolroll.splat.fit import Fit, Recipe, View, begun, thinned
from toolroll.splat.frame import Frame, frame_of
from toolroll.splat.gaussians import Gaussians
from toolroll.splat.paths import upwards
from toolroll.splat.photos import Photos
from toolroll.splat.ply import mode_comment, read_ply, write_ply
from toolroll.splat.points import read_points
from toolroll.splat.rasterizer import Rasterizer, draw
from toolroll.splat.scene import Points, Scene, Shot
from toolroll.train import checkpoint
from toolroll.train.checkpoint import Checkpoint

STATE, CLOUD, ABOUT, RENDERS, COMPARE = "state", "point_cloud.ply", "train.json", "renders", "compare"
RANDOM_POINTS = 20_000  #: where a scene has none
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


class Training:
    """A scene under training, in a folder."""

    def __init__(
        self, scene: Scene, shots: Sequence[Shot], recipe: Recipe, start: Start, rasterizer: Rasterizer, folder: Path,
        *, seed: int, memory_bytes: int = 1 << 31, warn: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.scene, self.shots, self.recipe, self.folder = scene, shots, recipe, folder
        train = [shot for shot in shots if shot.part == "train"]
        self.frame = frame_of([shot.pose for shot in train])
        self.test = PhotoViews([shot for shot in shots if shot.part == "test"], self.frame, memory_bytes // 8)
        views = PhotoViews(train, self.frame, memory_bytes)
        made = self._begun(scene.points, start, torch.Generator().manual_seed(record_seed(seed, "start") % 2**63), warn)
        self.fit = Fit(made, self.frame.extent, views, recipe, rasterizer, seed)
        self._saved = 0
        self.settings: Row = {}

    def _begun(self, points: Points, start: Start, random: torch.Generator, warn: Callable[[str], None]) -> Gaussians:
        kind, _, value = start.kind.partition(":")
        if kind == "ply" and value:
            gaussians = _gaussians_of(Path(value))
            if gaussians is not None:
                return thinned(self.frame.inward_gaussians(gaussians), start.most, random)
            points = read_points(Path(value))
        elif kind == "random" and value.isdigit() and int(value) > 0:
            points = Points.none()
        elif start.kind != "points":
            raise UsageError("want points, random:N or ply:FILE", place="--start")
        if len(points):
            places, colours = self.frame.inward(points.places), torch.from_numpy(points.colours).float() / 255
        else:
            count = int(value) if kind == "random" else RANDOM_POINTS
            if kind != "random":
                warn(f"no points: training begins with {count} anywhere")
            places = (torch.rand(count, 3, generator=random) * 2 - 1) * CUBE * self.frame.extent
            colours = torch.rand(count, 3, generator=random)
        if start.most and len(places) > start.most:
            chosen = torch.randperm(len(places), generator=random)[: start.most].sort().values
            places, colours = places[chosen], colours[chosen]
        return begun(places, colours, opacity=start.opacity, size=start.size, degree=0, random=random)

    @property
    def step(self) -> int:
        """The steps that were made."""
        return self.fit.step

    # --- stops

    def resume(self, settings: Row, firm: frozenset[str], warn: Callable[[str], None]) -> None:
        """Go on from the folder's checkpoint, if there is one. ToolrollError for one of another training."""
        self.settings = settings
        saved = checkpoint.load(self.folder / STATE)
        if saved is None:
            if (self.folder / CLOUD).exists():
                raise ToolrollError("has a model, and no state to go on from", place=str(self.folder))
            return
        for difference in checkpoint.compare(saved.settings, settings, firm):
            warn(difference)
        self.fit.restore(saved.tensors, saved.step)
        self._saved = saved.step

    def save(self) -> int:
        """Write a checkpoint and the Gaussians as they are; how many were left out as not finite."""
        fit = self.fit
        (self.folder / STATE).mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu() for name, tensor in fit.tensors().items()}
        checkpoint.save(self.folder / STATE, Checkpoint(fit.step, tensors, self.settings))
        self._saved = fit.step
        outer = self.frame.outward(fit.gaussians).to("cpu")
        left_out = write_ply(self.folder / CLOUD, outer, comments=self._comments())
        write_atomically(self.folder / ABOUT, json.dumps(self._about(), indent=1).encode() + b"\n")
        return left_out

    def _comments(self) -> list[str]:
        """What viewers want to know of the PLY: how it is drawn, and what is up."""
        comments = [mode_comment(self.recipe.antialiased)]
        try:
            up = upwards([shot.pose for shot in self.shots])
        except UsageError:  # cameras that are held all ways
            return comments
        return [*comments, "Vertical axis: " + " ".join(f"{one:.4f}" for one in up)]

    def _about(self) -> Row:
        lenses = {id(shot): lens for views in (self.fit.views, self.test) for shot, lens in _lenses(views)}
        cameras = [
            {
                "image": shot.name, "part": shot.part, "world_to_camera": shot.pose.tolist(),
                **{name: getattr(lenses[id(shot)], name) for name in ("width", "height", "fx", "fy", "cx", "cy")},
            }
            for shot in self.shots
            if id(shot) in lenses
        ]  # fmt: skip
        return {
            "scene": str(self.scene.root.resolve()), "settings": self.settings, "recipe": asdict(self.recipe),
            "step": self.fit.step, "n_gaussians": len(self.fit.gaussians), "frame": asdict(self.frame),
            "back_end": self.fit.rasterizer.name, "toolroll": __version__, "cameras": cameras,
        }  # fmt: skip

    # --- steps and scores

    def rows(
        self, stopped: Callable[[], bool], *, report_every: int, eval_every: int, save_every: int, last: int
    ) -> Iterator[Row]:
        """Train to step `last` at most; a row each `report_every` steps, with scores each `eval_every` (0: never)."""
        fit, losses = self.fit, []
        end = min(self.recipe.steps, last)
        steps = fit.steps()
        while fit.step < end and not stopped():
            told = next(steps)
            losses.append(told.loss)
            done = told.step == self.recipe.steps
            scored = bool(eval_every) and told.step % eval_every == 0
            if done or scored or told.step % report_every == 0:
                row: Row = {
                    "step": told.step, "loss": sum(losses) / len(losses), "n_gaussians": told.gaussians,
                    "sh_degree": told.degree,
                }  # fmt: skip
                losses = []
                if done or scored:
                    row |= self.scores()
                if done or told.step % save_every == 0:
                    self.save()
                yield row
            elif told.step % save_every == 0:
                self.save()
        if fit.step != self._saved:
            self.save()

    def scores(self) -> Row:
        """Mean PSNR and SSIM over the test photos; nothing where there are none."""
        found = [_scores(image, view) for view, image in self.pictures()]
        if not found:
            return {}
        alike = [ssim for _, ssim in found if ssim is not None]
        return {
            "psnr_db": float(np.mean([psnr for psnr, _ in found])),
            "ssim": float(np.mean(alike)) if alike else None,
        }

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
            name = png_name(view.name)
            write_picture(self.folder / RENDERS / name, image)
            write_picture(self.folder / COMPARE / name, np.concatenate([view.image.numpy(), image], 1))
            count += 1
        return count


def png_name(name: str) -> Path:
    """The PNG for a photo of this name, in some folder. ToolrollError for a name that leads out of it.

    >>> png_name("left/0001.jpg").as_posix()
    'left/0001.png'
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ToolrollError("leads out of the folder of the pictures", place=name)
    return path.with_suffix(".png")


def write_picture(path: Path, image: NDArray[Any]) -> None:
    """Write [H, W, 3] in [0, 1] as a PNG of 8 bits."""
    import io

    from toolroll.world.images import pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    pillow().fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(held, "PNG")
    write_atomically(path, held.getvalue())


def _scores(image: NDArray[np.float32], view: View) -> tuple[float, float | None]:
    mask = None if view.mask is None else view.mask.numpy()
    truth = view.image.numpy()
    small = min(truth.shape[:2]) < metrics.SIZE
    return metrics.psnr(image, truth, mask), None if small else metrics.ssim(image, truth, mask=mask)


def _lenses(views: Any) -> Iterator[tuple[Shot, Any]]:
    yield from zip(views.photos.shots, views.photos.lenses, strict=True)


def _gaussians_of(path: Path) -> Gaussians | None:
    """The Gaussians in a PLY; None where it has points only."""
    with open(path, "rb") as file:
        head = file.read(1 << 16).split(b"end_header")[0]
    return read_ply(path) if b"scale_0" in head else None
