"""A contact sheet: many pairs side by side, what changed framed in red."""

from __future__ import annotations

import math
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.io.filesystem import put
from toolroll.world.images import pillow, png
from toolroll.world.pairs import ImagePair

if TYPE_CHECKING:
    from pathlib import Path

    Array = np.ndarray[Any, Any]

GAP = 8  #: pixels between pairs
LINE = 13  #: pixels of a line of text
RED = (220, 30, 30)
SMALLEST = 192  #: pixels of width below which images are shown larger


class Contact:
    """Takes the first pairs of a run and draws them; images of several sizes get cells of the largest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._cells: list[Any] = []

    @property
    def full(self) -> bool:
        """Whether further pairs are not taken."""
        return len(self._cells) >= self.most

    def take(self, name: str, pair: ImagePair) -> None:
        """Draw a pair: its name and edit above, what was changed below."""
        from PIL import ImageDraw, ImageFont

        image_module = pillow()
        height, width = pair.original.shape[:2]
        scale = max(1, math.ceil(SMALLEST / width))
        wide, high = width * scale, height * scale
        cell = image_module.new("RGB", (2 * wide + 2, high + 3 * LINE), "white")
        draw = ImageDraw.Draw(cell)
        font = ImageFont.load_default()
        for left, image, boxes in ((0, pair.original, "original"), (wide + 2, pair.modified, "modified")):
            shown = image_module.fromarray(image).resize((wide, high), image_module.Resampling.NEAREST)
            cell.paste(shown, (left, LINE))
            for x0, y0, x1, y1 in pair.boxes[boxes]:
                frame = (x0 * scale - 2, y0 * scale - 2, x1 * scale + 1, y1 * scale + 1)
                x0, y0, x1, y1 = (
                    min(max(at, 0), most - 1) for at, most in zip(frame, (wide, high, wide, high), strict=True)
                )
                draw.rectangle((left + x0, LINE + y0, left + x1, LINE + y1), outline=RED)
        draw.text((2, 0), _ascii(f"{name}  {pair.edit}  {pair.share:.1%}"), fill="black", font=font)
        room = max(8, (2 * wide) // 6)
        words = _ascii("; ".join(change["said"] for change in pair.changes))
        for line, text in enumerate(wrap(words, room, max_lines=2, placeholder=" ...")):
            draw.text((2, high + (line + 1) * LINE), text, fill="black", font=font)
        self._cells.append(cell)

    def write(self, path: Path) -> None:
        """Write what was taken as a PNG, in a shape near that of a screen."""
        if not self._cells:
            return
        wide = max(cell.width for cell in self._cells) + GAP
        high = max(cell.height for cell in self._cells) + GAP
        columns = max(1, min(len(self._cells), round(math.sqrt(len(self._cells) * 1.4 * high / wide))))
        rows = math.ceil(len(self._cells) / columns)
        sheet = pillow().new("RGB", (columns * wide + GAP, rows * high + GAP), "#9a9a9a")
        for number, cell in enumerate(self._cells):
            sheet.paste(cell, (GAP + number % columns * wide, GAP + number // columns * high))
        put(path, png(np.asarray(sheet)))


def _ascii(text: str) -> str:
    """Text in the letters that Pillow's own font surely has."""
    return text.encode("ascii", errors="replace").decode()
