"""Photos as arrays: read as their pixels lie in the file, masks, and a cache with a limit for those of a scene.

The EXIF orientation is never applied: poses and lenses are for the pixels as they lie in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.errors import ToolrollError
from toolroll.models.images import MOST_PIXELS
from toolroll.splat.lenses import straighten, straightened
from toolroll.splat.scene import Lens, Shot
from toolroll.world.images import pillow

Colour = tuple[float, float, float]
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  #: of files that are whole
TAIL = 4096  #: bytes in which they are looked for


@dataclass(frozen=True, slots=True)
class Photo:
    """pixels: float32 [H, W, 3], 0 to 1; mask: bool [H, W], false where the photo does not count, or None."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height as the pixels lie in the file. ToolrollError for what is no photo, or has an unknown range.

    It is decoded only where it does not end as its kind does, so that one that is cut short is found out, too.
    """
    with _opened(path) as image:
        _is_sixteen(image, path)
        return _size(image, path)


def mask_size(path: Path) -> tuple[int, int]:
    """The same of a mask, which may have any range."""
    with _opened(path) as image:
        return _size(image, path)


def _size(image: Any, path: Path) -> tuple[int, int]:
    end = ENDS.get(image.format)
    if end is not None and end not in _tail(path):
        image.load()
    return int(image.width), int(image.height)


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()


def _is_sixteen(image: Any, path: Path) -> bool:
    """Whether an image has grey values of 16 bits. ToolrollError for such of 32 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return True
    if image.mode in ("I", "F"):
        raise ToolrollError("grey values of 32 bits, whose range is not known", place=str(path))
    return False


def load_photo(
    path: Path, *, background: Colour | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The pixels of a photo, float32 [H, W, 3], 0 to 1, and its alpha, [H, W], or None for a photo without.

    With a `background`, 0 to 1, what is transparent lets it through, and alpha is None. 16-bit grey keeps its 16 bits;
    of 16-bit colours Pillow gives the upper 8. ToolrollError for what is no photo.
    """
    with _opened(path) as image:
        if _is_sixteen(image, path):
            grey = np.asarray(image).astype(np.float32) / np.float32(65535)
            return np.repeat(grey[..., None], 3, axis=2), None
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB"), np.float32) / np.float32(255), None
        four = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
    pixels, alpha = four[..., :3], four[..., 3]
    if background is None:
        return np.ascontiguousarray(pixels), np.ascontiguousarray(alpha)
    return pixels * alpha[..., None] + np.array(background, np.float32) * (1 - alpha[..., None]), None


def load_mask(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """A mask, bool [H, W]: true where a picture is not black. One of another size is brought to this one.

    A picture with a transparent part counts where it is not transparent. ToolrollError for what is no picture.
    """
    seen: NDArray[np.bool_]
    with _opened(path) as image:
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            seen = np.asarray(image.convert("RGBA").getchannel("A")) > 0
        elif image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;"):
            seen = np.asarray(image) > 0
        else:
            seen = np.asarray(image.convert("RGB")).max(-1) > 0
    if seen.shape != (height, width):
        rows = ((np.arange(height) + 0.5) * seen.shape[0] / height).astype(np.intp)
        columns = ((np.arange(width) + 0.5) * seen.shape[1] / width).astype(np.intp)
        seen = seen[rows[:, None], columns]
    return seen


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A picture of Pillow, not decoded; what is wrong with it, then or later, as a ToolrollError in one line."""
    module = pillow()
    try:
        with module.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ToolrollError(f"more than {MOST_PIXELS} pixels", place=str(path))
            yield image
    except ToolrollError:
        raise
    except module.UnidentifiedImageError as error:
        why = "not an image" if path.stat().st_size else "the file is empty"
        raise ToolrollError(why, place=str(path)) from error
    except module.DecompressionBombError as error:
        raise ToolrollError(f"more than {MOST_PIXELS} pixels", place=str(path)) from error
    except OSError as error:
        raise ToolrollError(error.strerror or " ".join(str(error).split()), place=str(path)) from error
    except Exception as error:  # Pillow's readers raise SyntaxError, struct.error and what not on a damaged file
        why = " ".join(str(error).split()) or type(error).__name__
        raise ToolrollError(f"damaged ({why})", place=str(path)) from error


class Photos:
    """The photos of shots, straightened, with their masks; kept in memory as 8 bits as far as there is room.

    What does not fit is read anew each time, so that results depend on nothing but the files. A mask is where both the
    shot's mask and the photo's alpha, if it has any, are: half of alpha or more. With a `background` alpha is blended
    instead.
    """

    def __init__(self, shots: Sequence[Shot], memory_bytes: int = 1 << 30, *, background: Colour | None = None) -> None:
        self.shots = shots
        self.lenses = _straight(shots)  #: the pinholes the photos seem to be taken with
        self._room = memory_bytes
        self._background = background
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_] | None]] = {}

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def kept(self) -> int:
        """How many are in memory."""
        return len(self._kept)

    def __getitem__(self, number: int) -> Photo:
        """A photo. ToolrollError where its file is no photo, or of another size than its lens is for."""
        found = self._kept.get(number)
        if found is None:
            found = self._read(self.shots[number])
            size = found[0].nbytes + (0 if found[1] is None else found[1].nbytes)
            if size <= self._room:
                self._room -= size
                self._kept[number] = found
        pixels, mask = found
        return Photo(pixels.astype(np.float32) / np.float32(255), mask)

    def _read(self, shot: Shot) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        pixels, alpha = load_photo(shot.path, background=self._background)
        lens = shot.lens
        if pixels.shape[:2] != (lens.height, lens.width):
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise ToolrollError(f"{size} pixels, not {lens.width} x {lens.height}", place=str(shot.path))
        mask = None if shot.mask is None else load_mask(shot.mask, lens.width, lens.height)
        if alpha is not None and alpha.min() < 0.5:
            mask = alpha >= 0.5 if mask is None else mask & (alpha >= 0.5)
        seen = None if mask is None else straighten(mask, lens, nearest=True)
        return straighten(np.rint(pixels * 255).astype(np.uint8), lens), seen


def _straight(shots: Sequence[Shot]) -> list[Lens]:
    made: dict[Lens, Lens] = {}
    for shot in shots:
        if shot.lens not in made:
            try:
                made[shot.lens] = straightened(shot.lens)
            except ToolrollError as error:
                raise ToolrollError(error.why, place=str(shot.path)) from error
    return [made[shot.lens] for shot in shots]
