"""CLEVR's world in numbers: what objects can be, where camera and lights stand, how far objects keep apart.

Lengths are in CLEVR's units; the ground is z = 0. Sources: facebookresearch/clevr-dataset-gen (render_images.py,
data/properties.json) for the names, colours, sizes and rules of placing; the default camera is where Blender puts its
own and looks at the origin, which the depths in CLEVR v1.0's scene files confirm to eight digits; the lights are those
of CLEVR's base scene as google-research/kubric (assets/utils.py) gives them.
"""

from __future__ import annotations

from typing import Final

SHAPES: Final = ("cube", "sphere", "cylinder")
MATERIALS: Final = ("rubber", "metal")
SIZES: Final = {"large": 0.7, "small": 0.35}  #: radius of a sphere, and of the circle around a cube's base
COLORS: Final = {  #: red, green, blue, 0 .. 255
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}

CAMERA: Final = (7.48113, -6.50764, 5.34367)  #: looks at the origin
CAMERA_JITTER: Final = 0.5  #: most that each coordinate is moved, either way
FOCAL: Final = 35 / 32  #: focal length over the longer side of the image: a 35 mm lens, a 32 mm sensor

LIGHTS: Final = {
    "key": (6.44671, -2.90517, 4.2584),
    "fill": (-4.67112, -4.0136, 3.01122),
    "back": (-1.1685, 2.64602, 5.81574),
}
LIGHT_JITTER: Final = 1.0

REACH: Final = 3.0  #: objects are placed at -REACH .. REACH in x and y
MIN_DIST: Final = 0.25  #: between the circles around two bases
MARGIN: Final = 0.4  #: between centres along left, right, front and behind
RETRIES: Final = 50  #: places tried for an object until all objects are placed anew
RELATION_EPS: Final = 0.2  #: how far an object must be along a direction to be "left of" another

FRAME: Final = (320, 240)  #: width and height for which the next number is meant
MIN_PIXELS: Final = 200  #: that must be seen of every object


def least_pixels(width: int, height: int) -> int:
    """`MIN_PIXELS` for an image of another size: the same share of it, and never less than 4.

    >>> least_pixels(320, 240), least_pixels(96, 72)
    (200, 18)
    """
    return max(4, round(MIN_PIXELS * width * height / (FRAME[0] * FRAME[1])))
