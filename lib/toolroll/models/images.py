"""Images in files: opened, turned upright, in red, green and blue; their names in rows, their places in messages."""

from __future__ import annotations

import base64
import io
import os
import stat
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from toolroll.errors import RowError, ToolrollError

MOST_PIXELS = 89_478_485  #: a quarter of a GiB in RGB; a larger file is taken for one made to fill the memory
MOST_BYTES = 8 * MOST_PIXELS  #: the same in four channels of 16 bits, uncompressed
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/")  # names of what the shell has opened for us
_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png"}  # what every server reads


def pillow() -> Any:
    """The module PIL.Image, which says nothing on stderr. ToolrollError, with how to install it, where it is not there.

    What is wrong with a file its readers raise; what they warn of, or log besides, is no line of ours.
    """
    import logging  # which no command needs to start

    try:
        from PIL import Image
    except ImportError as error:
        raise ToolrollError("images need Pillow: pip install pillow") from error
    warnings.filterwarnings("ignore", module=r"PIL\.")
    log = logging.getLogger("PIL")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return Image


def check_bytes(path: Path) -> None:
    """RowError for a file larger than an image can be, since some readers take it into memory before they look."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise RowError(f"{path}: {size} bytes, more than {MOST_BYTES}")


def open_image(path: Path) -> Any:
    """The image in a file as it is to be looked at, a PIL image in mode RGB. RowError, with the file's name, for none.

    It is turned as its EXIF data say. What is transparent lets white through. 16-bit grey keeps its upper 8 bits.
    Palettes, CMYK and the like are converted by Pillow, without colour profiles. Of an animation it is the first
    picture.
    """
    return _opened(path)[0]


def data_url(path: Path) -> str:
    """What `open_image` sees, as a data: URL. A JPEG or PNG file that needs no conversion is sent as it is."""
    image, kind = _opened(path)
    if kind is None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        kind, content = "image/png", buffer.getvalue()
    else:
        content = path.read_bytes()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _opened(path: Path) -> tuple[Any, str | None]:
    """The image, and the media type of the file where it holds just that."""
    module = pillow()
    from PIL import ExifTags, ImageOps

    try:
        check_bytes(path)
        with module.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise RowError(f"{path}: {image.width} x {image.height} pixels, more than {MOST_PIXELS}")
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            as_it_is = image.mode == "RGB" and not turned and not image.has_transparency_data
            kind = _AS_THEY_ARE.get(image.format or "") if as_it_is else None
            sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
            return _in_rgb(ImageOps.exif_transpose(image) if turned else image, sixteen, path), kind
    except module.UnidentifiedImageError as error:
        raise RowError(f"{path}: {'not an image' if path.stat().st_size else 'the file is empty'}") from error
    except module.DecompressionBombError as error:
        raise RowError(f"{path}: more than {MOST_PIXELS} pixels") from error
    except ToolrollError:
        raise
    except OSError as error:
        raise RowError(f"{path}: {error.strerror or _line(error)}") from error
    except Exception as error:  # Pillow's readers raise SyntaxError, struct.error and what not on a damaged file
        raise RowError(f"{path}: damaged ({_line(error)})") from error


def _in_rgb(image: Any, sixteen: bool, path: Path) -> Any:
    from PIL import Image

    if sixteen:
        return image.point(lambda value: value * (1 / 257)).convert("L").convert("RGB")  # convert alone cuts at 255
    if image.mode in ("I", "F"):
        raise RowError(f"{path}: grey values of 32 bits, whose range is not known")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return image.convert("RGB")


def with_places(messages: Sequence[Any], images: int | None) -> list[Any]:
    """Messages whose contents are lists of parts, with a place for each of `images` images.

    Where there is none, the first message of the user gets them at its head. RowError when there is another number;
    None does not count.

    >>> with_places([{"role": "user", "content": "What?"}], 1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'What?'}]}]
    """
    made = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        made.append({**message, "content": parts})
    found = places(made)
    if found == 0 and images:
        first = next((message for message in made if message["role"] == "user"), made[0])
        first["content"] = [*({"type": "image"} for _ in range(images)), *first["content"]]
    elif images is not None and found != images:
        raise RowError(f"{images} images, and places for {found} in the messages")
    return made


def places(messages: Iterable[Mapping[str, Any]]) -> int:
    """How many images messages have places for."""
    contents = [message.get("content") for message in messages]
    return sum(part.get("type") == "image" for parts in contents if isinstance(parts, list) for part in parts)


class Names:
    """A record's fields with the names of image files, as attributes."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.images, self.image = fields.get("images"), fields.get("image")
        self.image_path = fields.get("image_path")


def image_names(view: Any) -> list[str]:
    """The names of a row's image files, by any of the names that data sets have for them. RowError for what is none.

    >>> image_names(Names({"images": ["a.png", "b.png"]})), image_names(Names({"image": {"path": "a.png"}}))
    (['a.png', 'b.png'], ['a.png'])
    """
    given = view.images or (view.image if view.image is not None else view.image_path)
    names = [] if given is None else given if isinstance(given, list) else [given]
    found = [name.get("path") if isinstance(name, dict) else name for name in names]
    sound = [name for name in found if isinstance(name, str) and name]
    if len(sound) < len(found):
        raise RowError("an image is neither a path nor an object with its `path`")
    return sound


def image_files(view: Any, place: str, folder: Path | None) -> list[Path]:
    """The files of a row's images, in `folder` or that of the row's file. RowError for what is none."""
    return [(folder or folder_of(place)) / name for name in image_names(view)]


def folder_of(place: str) -> Path:
    """The folder that paths in a row are relative to: that of the row's file ("file:line"); of stdin and pipes, this.

    >>> folder_of("data/pairs.jsonl:12"), folder_of("stdin:1"), folder_of("/dev/fd/63:1")
    (PosixPath('data'), PosixPath('.'), PosixPath('.'))
    """
    return _folder(place.rpartition(":")[0])


@lru_cache(maxsize=64)
def _folder(name: str) -> Path:
    if name.startswith(_DESCRIPTORS):
        return Path()
    try:
        piped = not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        piped = False
    return Path() if piped else Path(name).parent


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
