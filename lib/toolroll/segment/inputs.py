"""What pmp-seg is asked: images in files or rows, and the prompts for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolroll.errors import RowError, UsageError
from toolroll.segment.prompts import Prompts, given_prompts, read_prompts, read_prompts_file, with_background

if TYPE_CHECKING:
    from toolroll.io.rows import Row


def image_lines(path: str, _chunks: Iterator[bytes], _paths: tuple[str, ...]) -> list[bytes]:
    """The row that stands for an image file: its path, and its name in its folder."""
    import orjson

    return [orjson.dumps({"id": path, "image": Path(path).name})]


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompts for all images, if there are such; the class for what is none of them; where images are."""

    prompts: Prompts | None
    background: str
    images: Path | None

    @classmethod
    def of(cls, line: str | None, file: Path | None, background: str, images: Path | None) -> Asked:
        """What the command line asks. UsageError for prompts that cannot be."""
        if line is not None and file is not None:
            raise UsageError("give one of --prompts and --prompts-file", place="--prompts")
        if not background.strip():
            raise UsageError("the background has no name", place="--background-class")
        try:
            prompts = read_prompts(line) if line is not None else None if file is None else read_prompts_file(file)
        except RowError as error:
            raise UsageError(error.why, place="--prompts") from error
        return cls(prompts, background, images)

    def read(self, row: Row[Any]) -> tuple[Path, Any, Prompts]:
        """The file of a row's image, the image as a PIL image in RGB, and its prompts. RowError where there is none."""
        from toolroll.models.images import folder_of, open_image

        seen = row.view
        if not seen.image:
            raise RowError("no `image`")
        if self.prompts is None and seen.prompts is None:
            raise RowError("no `prompts` (or --prompts)")
        prompts = self.prompts or given_prompts(seen.prompts)
        path = (self.images or folder_of(row.place)) / seen.image
        return path, open_image(path), with_background(prompts, self.background)
