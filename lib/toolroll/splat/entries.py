"""An entry: what a scene's files say of a photo, before the photo is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from toolroll.splat.scene import Lens, Part

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  #: of photos, in the order they are looked for


@dataclass(frozen=True, slots=True)
class Entry:
    """A photo by its name in the files. lens: what the lens is by the photo's real width and height.

    pose: world to camera, [4, 4], or None for a pose that is none. size: width and height the lens was told for, or
    None. mask: a name, or None.
    """

    file: str
    pose: NDArray[np.float64] | None
    lens: Callable[[int, int], Lens]
    size: tuple[int, int] | None = None
    mask: str | None = None
    part: Part | None = None


def tidy(file: str) -> PurePosixPath:
    r"""A name without a drive, a root and steps up, with slashes.

    >>> str(tidy("./images/a.png")), str(tidy("..\\images\\a.png")), str(tidy("/data/a.png"))
    ('images/a.png', 'images/a.png', 'data/a.png')
    """
    parts = [part for part in file.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if parts and parts[0].endswith(":"):
        parts = parts[1:]
    return PurePosixPath(*parts)


def name_of(file: str, folder: str = "images") -> str:
    """A photo's name without the folder of photos, `folder` or one of its sizes, `folder`_N.

    >>> name_of("./images_4/left/1.png"), name_of("train/r_0"), name_of("masks/1.png", "masks")
    ('left/1.png', 'train/r_0', '1.png')
    """
    path = tidy(file)
    if len(path.parts) > 1 and is_sized(path.parts[0], folder):
        return str(PurePosixPath(*path.parts[1:]))
    return str(path)


def is_sized(name: str, folder: str = "images") -> bool:
    """Whether a folder has photos of some size.

    >>> is_sized("images"), is_sized("images_8"), is_sized("imagery")
    (True, True, False)
    """
    head, _, size = name.partition("_")
    return name == folder or (head == folder and size.isdigit())
