"""Pictures of photos: where they are written, and how good those of test photos are."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import RowError, ToolrollError
from toolroll.io.filesystem import put
from toolroll.splat import metrics
from toolroll.splat.entries import SUFFIXES
from toolroll.world.images import pillow

if TYPE_CHECKING:
    from toolroll.splat.gaussians import View

RENDERS, COMPARE = "renders", "compare"
LENS = ("width", "height", "fx", "fy", "cx", "cy")
Row = dict[str, Any]
Score = tuple[float, float | None]


def png_name(name: str) -> Path:
    """The PNG for a photo of this name, in some folder. ToolrollError for a name that leads out of it.

    >>> png_name("left/0001.jpg").as_posix(), png_name("shot.0001").as_posix()
    ('left/0001.png', 'shot.0001.png')
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name:
        raise ToolrollError("leads out of the folder of the pictures", place=name)
    return path.with_suffix(".png") if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.png")


def write_picture(path: Path, image: NDArray[Any]) -> None:
    """Write [H, W, 3] in [0, 1] as a PNG of 8 bits."""
    held = io.BytesIO()
    pillow().fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(held, "PNG")
    put(path, held.getvalue(), make_folder=True)


def write_beside(folder: Path, name: Path, view: View, image: NDArray[Any]) -> None:
    """Write the picture of a test photo into `renders` in a folder, and beside the photo into `compare`."""
    write_picture(folder / RENDERS / name, image)
    write_picture(folder / COMPARE / name, np.concatenate([view.image.numpy(), image], 1))


def camera_row(name: str, part: str | None, pose: NDArray[np.float64], lens: Any) -> Row:
    """A camera as rows and train.json have it; `lens` has width, height, fx, fy, cx and cy."""
    about = {"image": name, "part": part, "world_to_camera": pose.tolist()}
    return about | {one: getattr(lens, one) for one in LENS}


def score_of(image: NDArray[np.float32], view: View) -> Score:
    """PSNR in dB and SSIM of a picture.

    PSNR is infinite for equal pictures, and NaN where the mask leaves nothing of the photo; SSIM is None where the mask
    or the size leaves no window.
    """
    mask = None if view.mask is None else view.mask.numpy()
    truth = view.image.numpy()
    psnr = _tried(lambda: metrics.psnr(image, truth, mask))
    return math.nan if psnr is None else psnr, _tried(lambda: metrics.ssim(image, truth, mask=mask))


def _tried(score: Callable[[], float]) -> float | None:
    try:
        return score()
    except RowError:
        return None


def means_of(scores: Sequence[Score]) -> Row:
    """Their means, without those that are not finite; None where none is left.

    >>> means_of([(20.0, 0.5), (30.0, None), (float("inf"), 1.0)])
    {'psnr_db': 25.0, 'ssim': 0.75}
    """
    return {"psnr_db": _mean(psnr for psnr, _ in scores), "ssim": _mean(ssim for _, ssim in scores)}


def _mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(finite)) if finite else None
