"""An entry: what a scene's files say of a photo, before the photo is looked for; and the names of photos."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from toolroll.splat.scene import Lens, Part

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  #: of photos, in the order they are looked for
LONGEST = 80  #: letters of a name that a message has


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


def bare(name: str) -> str:
    """A name without its suffix.

    >>> bare("left/a.b.png"), bare("left/a"), bare(".png"), bare(".")
    ('left/a.b', 'left/a', '.png', '.')
    """
    return posixpath.splitext(name)[0]


def is_name(value: Any) -> TypeGuard[str]:
    r"""Whether it is a text that can name a file.

    >>> is_name("a.png"), is_name("\udcff"), is_name(""), is_name("a\0"), is_name("\ud800"), is_name(5)
    (True, True, False, False, False, False)
    """
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    r"""A name as messages have it: of a length that can be read, and without what would act on a terminal.

    >>> shown("café 1.png"), shown("a\x1b[2J\udcff"), len(shown("x" * 5000))
    ('café 1.png', 'a\\x1b[2J\\udcff', 80)
    """
    ends = name if len(name) <= 2 * LONGEST else name[:LONGEST] + name[-LONGEST:]
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in ends)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST // 2 - 3]}...{plain[-LONGEST // 2 :]}"


def sayable(value: Any) -> Any:
    r"""A row, or what is in one, as JSON can hold it: bytes of names that are not UTF-8 are spelled out.

    >>> sayable({"id": "a\udcff", "n": 3, "warnings": ["é"]})
    {'id': 'a\\udcff', 'n': 3, 'warnings': ['é']}
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {sayable(key): sayable(one) for key, one in value.items()}
    return [sayable(one) for one in value] if isinstance(value, list | tuple) else value
