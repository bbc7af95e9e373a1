"""Images in files: photos of any kind read as RGB, masks, and PNGs written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.errors import RowError, ToolrollError
from toolroll.io.filesystem import reason, write_atomically
from toolroll.models.images import check_bytes
from toolroll.models.images import pillow as pillow

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")  #: of files that are taken as photos


def read_photo(path: str, longest: int) -> Array:
    """A photo as RGB, uint8 (height, width, 3), made smaller so that its longer side has at most `longest` pixels.

    Turned as its camera says; transparency is laid on white; palettes, grey, 16-bit grey and CMYK are converted (CMYK
    without its colour profile). Of an animation the first image is taken. Raises RowError where it is no image.
    """
    image = _opened(path)
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image, dtype=float)
        top = 65535.0 if wide.max() > 255 else 255.0
        image = pillow().fromarray(np.clip(wide * (255 / top), 0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        image = pillow().alpha_composite(pillow().new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if max(image.size) > longest:
        image = ImageOps.contain(image, (longest, longest), pillow().Resampling.LANCZOS)
    return np.array(image)


def photo_size(path: str) -> tuple[int, int]:
    """Width and height of a photo as it stands in its file, turned as its camera says."""
    from PIL import ImageOps

    width, height = ImageOps.exif_transpose(_opened(path)).size
    return int(width), int(height)


def read_mask(path: str, photo: tuple[int, int], width: int, height: int) -> Array:
    """A mask, boolean (height, width): set where it is not black. `photo` is the size it must have, that of the file.

    Raises RowError for a mask of another size, and for one that is empty or full.
    """
    image = _opened(path)
    if "A" in image.mode and image.getextrema()[-1][0] < 255:
        image = image.getchannel("A")  # a cut-out
    elif image.mode == "P":
        image = image.convert("RGB")
    if tuple(image.size) != photo:
        raise RowError(f"the mask {path} is {image.size[0]}x{image.size[1]}, the photo {photo[0]}x{photo[1]}")
    if image.mode not in ("1", "L"):
        image = image.convert("L")
    if (width, height) != photo:
        image = image.convert("L").resize((width, height), pillow().Resampling.NEAREST)
    mask: Array = np.asarray(image.convert("L")) > 0
    if not mask.any() or mask.all():
        raise RowError(f"the mask {path} is {'full' if mask.any() else 'empty'}")
    return mask


def _opened(path: str) -> Any:
    image_module = pillow()
    try:
        check_bytes(Path(path))
        data = Path(path).read_bytes()
    except OSError as error:
        raise RowError(f"{reason(error)}: {path}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            image = image_module.open(io.BytesIO(data))
            image.load()
    except image_module.UnidentifiedImageError as error:
        raise RowError(f"not an image: {path}") from error
    except (image_module.DecompressionBombWarning, image_module.DecompressionBombError) as error:
        raise RowError(f"more pixels than are safe to read: {path}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise for damaged files
        raise RowError(f"a damaged image: {path}") from error
    return image


def png(image: Array) -> bytes:
    """An image as PNG, the same bytes for the same pixels."""
    data = io.BytesIO()
    pillow().fromarray(image).save(data, "PNG", compress_level=6)
    return data.getvalue()


class Folder:
    """A folder for the images of a run; made if it is not there. `instead` is what else the user can do."""

    def __init__(
        self, path: str, *, overwrite: bool = False, instead: str = "another folder or --name, or --overwrite"
    ) -> None:
        self.path = path
        self._overwrite, self._instead = overwrite, instead
        self._written: dict[str, bytes] = {}  # names, and digests of what they have
        pillow()
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolrollError(reason(error), place=path) from error

    def put(self, name: str, image: Array) -> str:
        """Write an image; its path. An image that is there already stays, and must be the same, or else ToolrollError.

        So a run that is done again, or goes on, finds its own images, and never replaces those of another. Shares of a
        run may write the same image at the same time. RowError where this run has written another one of this name.
        """
        path, data = Path(self.path, name), png(image)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if self._written.setdefault(name, digest) != digest:
            raise RowError(f"another row's image has this name: {path}")
        try:
            if path.exists() and not self._overwrite:
                if path.read_bytes() != data:
                    raise ToolrollError(f"another image of this name is there: use {self._instead}", place=str(path))
            else:
                own = path.with_name(f"{name}.{token_hex(4)}")
                write_atomically(own, data)
                own.replace(path)
        except OSError as error:
            raise ToolrollError(reason(error), place=str(path)) from error
        return str(path)
