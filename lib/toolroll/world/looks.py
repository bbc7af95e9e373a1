"""How bright lights are and how matt or shiny materials, so that objects look about as CLEVR's do.

Colours are red, green, blue in linear light, 0 .. 1. What is the same for every scene is in `toolroll.world.kernel`.
"""

from __future__ import annotations

from typing import Final

#: of each light: red, green, blue; the radius of its disc in units, which makes the edge of its shadows soft
LAMPS: Final = {
    "key": (0.95, 0.91, 0.86, 0.55),
    "fill": (0.22, 0.23, 0.26, 0.8),
    "back": (0.4, 0.4, 0.4, 0.4),
}

#: of each material: diffuse, highlight, exponent of the highlight, mirror
FINISH: Final = {"rubber": (0.95, 0.05, 10.0, 0.0), "metal": (0.12, 0.0, 1.0, 0.85)}


def linear(value: int) -> float:
    """Light of an sRGB value of 0 .. 255.

    >>> linear(0), linear(255), round(linear(128), 4)
    (0.0, 1.0, 0.2159)
    """
    part = value / 255
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
