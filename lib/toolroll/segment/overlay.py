"""Pictures of segments: colours over the image, and a legend of what they mean."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.segment.proposals import Found

SHADE = 0.55  #: how much of a colour lies over the image
LINE, SWATCH, MARGIN = 16, 12, 6  #: pixels of a line of the legend, of its field of colour, around both


def colours(number: int) -> list[tuple[int, int, int]]:
    """Colours that differ as far as they can: steps of the golden angle around the circle of hues, in three lights.

    >>> len(set(colours(300)))
    300
    """
    made = []
    for place in range(number):
        hue = (place * 0.61803398875) % 1
        light, strength = (0.5, 0.75, 0.35)[place % 3], (0.95, 0.75, 0.8)[place // 3 % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, light, strength)
        made.append((round(255 * red), round(255 * green), round(255 * blue)))
    return made


def label_image(found: Sequence[Found], height: int, width: int) -> NDArray[np.int64]:
    """For each pixel the number of its class from 1, 0 where there is none [H, W]; the best segment is on top."""
    labels = np.zeros((height, width), np.int64)
    for one in reversed(found):
        labels[one.mask] = one.number + 1
    return labels


def drawn(image: Any, found: Sequence[Found], names: Sequence[str]) -> NDArray[np.uint8]:
    """A PIL image with its segments, their edges, and a legend below it, [H', W', 3] in 8 bits."""
    from PIL import Image, ImageDraw

    labels = label_image(found, image.height, image.width)
    palette = np.array([(0, 0, 0), *colours(len(names))], float)
    pixels = np.asarray(image, float)
    over = palette[labels]
    shown = np.where((labels > 0)[..., None], pixels * (1 - SHADE) + over * SHADE, pixels)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    shown[edge] = np.where((labels > 0)[edge][:, None], over[edge] * 0.6, 255)
    lines = [(number, names[number - 1], float((labels == number).mean())) for number in np.unique(labels) if number]
    lines.sort(key=lambda line: -line[2])
    width = max(image.width, 160)
    legend = MARGIN * 2 + LINE * max(1, len(lines))
    page = Image.new("RGB", (width, image.height + legend), "white")
    page.paste(Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)), (0, 0))
    pen = ImageDraw.Draw(page)
    top = image.height + MARGIN
    if not lines:
        pen.text((MARGIN, top), "no segment", fill="black")
    for number, name, share in lines:
        red, green, blue = (int(one) for one in palette[number])
        pen.rectangle([MARGIN, top + 2, MARGIN + SWATCH, top + SWATCH], fill=(red, green, blue))
        text = f"{name}  {share:.0%}"
        pen.text((MARGIN * 2 + SWATCH, top), text.encode("latin-1", "replace").decode("latin-1"), fill="black")
        top += LINE
    return np.asarray(page, np.uint8)
