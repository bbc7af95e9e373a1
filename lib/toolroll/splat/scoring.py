"""Scores of pictures: how far each is from its photo, by PSNR, SSIM and LPIPS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.splat import metrics
from toolroll.splat.labels import scene_name
from toolroll.splat.pairing import Picture, Pictures, folders_of, open_pictures
from toolroll.splat.photos import Photo
from toolroll.splat.score_options import ScoreOptions

if TYPE_CHECKING:
    from toolroll.splat.lpips import Lpips

Row = dict[str, Any]


class Judge:
    """How pictures are scored."""

    def __init__(self, options: ScoreOptions) -> None:
        self.border, self.eight_bit = options.ssim_border, options.eight_bit
        self.nets = _nets(options)

    def scores(self, picture: Picture, photo: Photo) -> Row:
        """The scores of a picture. PSNR is None where it is infinite, others where the picture is too small for them.

        SSIM is so, too, where a mask leaves none of its windows. RowError for a picture of another size than the photo,
        or a mask that leaves nothing.
        """
        if picture.shape != photo.pixels.shape:
            sizes = [f"{one.shape[1]} x {one.shape[0]}" for one in (picture, photo.pixels)]
            raise RowError(f"the picture has {sizes[0]} pixels, the photo {sizes[1]}")
        pair = (picture, photo.pixels)
        one, other = map(metrics.in_bytes, pair) if self.eight_bit else pair
        mask = photo.mask
        psnr, (height, width) = metrics.psnr(one, other, mask), picture.shape[:2]
        row: Row = {"psnr_db": psnr if math.isfinite(psnr) else None, "ssim": None}
        if metrics.has_window(height, width, self.border, mask):
            row["ssim"] = metrics.ssim(one, other, self.border, mask)
        for net in self.nets:
            row[net.kind.replace("-", "_")] = net(one, other, mask) if min(height, width) >= net.net.least else None
        row |= {"width": width, "height": height}
        if mask is not None:
            row["masked_frac"] = 1 - float(mask.mean())
        return row


def _nets(options: ScoreOptions) -> list[Lpips]:
    if not options.lpips_weights:
        return []
    from toolroll.models.device import choose_device
    from toolroll.splat.lpips import KINDS, Lpips, read_weights

    device = choose_device(options.device, "float32").name
    weights = {one.net.name: one for one in (read_weights(Path(path)) for path in options.lpips_weights)}
    wanted = list(dict.fromkeys(options.lpips_kind)) or [f"lpips-{name}" for name in weights]
    lacking = next((kind for kind in wanted if KINDS[kind].name not in weights), None)
    if lacking is not None:
        raise UsageError(f"{lacking} needs weights of {KINDS[lacking].name}", place="--lpips-weights")
    return [Lpips(weights[KINDS[kind].name], kind, device) for kind in wanted]


def rows_of(pictures: Pictures, judge: Judge) -> Iterator[Row]:
    """A row for each picture; one that could not be scored has an `error`, and what is known of it."""
    for pair in pictures.pairs:
        row: Row = {"image": pair.image}
        try:
            row |= judge.scores(*pair.read())
            if row["psnr_db"] is None:
                raise RowError("equals its photo in each pixel, so that PSNR is infinite")
        except UsageError:
            raise
        except ToolrollError as error:
            row["error"] = {"why": error.why, "where": error.place or str(pair.place)}
        row |= {"method": pictures.method, "scene": pictures.scene}
        row |= {"ssim_border": judge.border, "eight_bit": judge.eight_bit, "render_path": str(pair.place)}
        row["images_folder"] = None if pictures.images_folder is None else str(pictures.images_folder)
        yield row


def rows_of_folders(
    arguments: Sequence[str], judge: Judge, options: ScoreOptions, warn: Callable[[str, str], None]
) -> Iterator[Row]:
    """`rows_of` the pictures of METHOD=DIR, scene by scene; scenes are named as their folders are.

    A folder that cannot be read is a row with an `error`. UsageError for an argument without a method.
    """
    for argument in arguments:
        method, _, pattern = argument.partition("=")
        if not (method and pattern):
            raise UsageError("want METHOD=DIR", place=argument)
        for scene, folder in folders_of(pattern):
            try:
                pictures = open_pictures(folder, options.of(scene), lambda why, folder=folder: warn(why, str(folder)))  # type: ignore[misc]
            except UsageError:
                raise
            except ToolrollError as error:
                yield {"error": {"why": error.why, "where": error.place or str(folder)}}
                continue
            yield from rows_of(replace(pictures, method=method, scene=scene_name(scene)), judge)


def summary(rows: Sequence[Row]) -> Row | None:
    """The means of the rows of a scene, in dB for PSNR; None where none was scored. One is null where a part of it is.

    >>> rows = [{"scene": "a", "psnr_db": 20.0, "ssim": 0.5}, {"scene": "a", "psnr_db": 30.0, "ssim": None}]
    >>> summary([*rows, {"scene": "a", "error": {}}])
    {'scene': 'a', 'psnr_db': 25.0, 'ssim': None, 'n_images': 2, 'n_failed': 1}
    """
    scored = [row for row in rows if "error" not in row]
    if not scored:
        return None
    means: Row = {}
    for name in ("psnr_db", "ssim", "lpips_alex", "lpips_vgg", "lpips_vgg_3dgs"):
        values = [row[name] for row in scored if name in row]
        if values:
            means[name] = None if None in values else math.fsum(values) / len(values)
    kept: tuple[str, ...] = ("method", "scene", "ssim_border", "eight_bit", "images_folder", "frequency")
    about = {name: scored[0][name] for name in kept if name in scored[0]}
    order: Row = {name: about.pop(name) for name in ("method", "scene") if name in about}
    return {**order, **means, "n_images": len(scored), "n_failed": len(rows) - len(scored), **about}
