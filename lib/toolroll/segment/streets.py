"""Scenes of made-up streets: sky, buildings, trees, road, pavement, cars, people, seen from the road.

They are drawn with plain shapes and noise, from back to front, into an image and a map of classes at once. Colours,
light and blur vary widely, so that what is learned of them is where things are and how they lie to each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.run.seeds import record_seed
from toolroll.segment.prompts import Prompts
from toolroll.segment.scenes import Scene, Segment

#: Every class with the words that its prompts use in training.
CLASSES: Prompts = (
    ("sky",),
    ("building", "house"),
    ("pole",),
    ("road", "street"),
    ("pavement", "sidewalk"),
    ("tree", "bush"),
    ("sign",),
    ("fence",),
    ("car", "vehicle"),
    ("person", "pedestrian"),
    ("cyclist", "bicycle"),
    ("grass", "lawn"),
)
NUMBERS = {words[0]: number for number, words in enumerate(CLASSES)}
LEAST = 6  #: pixels of a class that are to be seen
FINE = 2  #: scenes are drawn this much larger


class Streets:
    """Scenes without end, `width` x `height`."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        self.seed, self.width, self.height = seed, width, height
        self.classes = CLASSES
        self.size: int | None = None

    def path(self, number: int) -> str:
        """What a file of the image may be called."""
        return f"streets-{self.seed}-{number:06d}.png"

    def scene(self, number: int) -> Scene:
        """The scene of this number: the same for the same seed and size."""
        draws = np.random.default_rng(record_seed(self.seed, "streets", number))
        canvas = Canvas(draws, self.width * FINE, self.height * FINE)
        draw_street(canvas)
        image, labels = canvas.finished(self.width, self.height)
        segments = [
            Segment(words[0], mask) for one, words in enumerate(CLASSES) if (mask := labels == one).sum() >= LEAST
        ]
        return Scene(f"streets-{self.seed}-{number:06d}", image, tuple(segments))


class Canvas:
    """An image and a map of classes that are painted at once. Places are shares of width and height."""

    def __init__(self, draws: np.random.Generator, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.draws, self.width, self.height = draws, width, height
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height), 0)
        self._pens = (ImageDraw.Draw(self.image), ImageDraw.Draw(self.labels))

    def colour(self, *base: float, spread: float = 25) -> tuple[int, int, int]:
        """A colour near `base`: lighter or darker as a whole, and a little off."""
        made = np.array(base) * self.draws.uniform(0.75, 1.2) + self.draws.normal(0, spread / 3, 3)
        red, green, blue = (int(one) for one in np.clip(made, 0, 255))
        return red, green, blue

    def grey(self, low: float, high: float) -> tuple[int, int, int]:
        """A grey, a little off."""
        return self.colour(*[self.draws.uniform(low, high)] * 3, spread=12)

    def paint(self, name: str | None, kind: str, places: Any, colour: tuple[int, int, int]) -> None:
        """Paint a `polygon`, `ellipse` or `rectangle`; a name of None leaves the class as it is."""
        scaled = [(x * self.width, y * self.height) for x, y in places]
        if kind != "polygon":
            (left, top), (right, bottom) = scaled
            if right < left + 1 or bottom < top + 1:
                return
        getattr(self._pens[0], kind)(scaled, fill=colour)
        if name is not None:
            getattr(self._pens[1], kind)(scaled, fill=NUMBERS[name])

    def box(
        self, name: str | None, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]
    ) -> None:
        """Paint an upright rectangle."""
        self.paint(name, "rectangle", [(left, top), (right, bottom)], colour)

    def finished(self, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The image with texture, light and noise, and the classes, both at their size."""
        from PIL import Image, ImageFilter

        draws = self.draws
        labels = np.asarray(self.labels)
        rough = _cloud(draws, self.width, self.height, 48) * 10
        fine = (
            draws.normal(0, 1, (self.height, self.width)) * np.array([3, 8, 6, 7, 9, 22, 6, 16, 8, 10, 12, 18])[labels]
        )
        pixels = np.asarray(self.image, float) + (rough + fine)[..., None]
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image = image.filter(ImageFilter.GaussianBlur(draws.uniform(0.3, 1.8))).resize((width, height), 1)
        pixels = np.asarray(image, float) / 255
        shade = 1 - 0.5 * draws.random() * (_cloud(draws, width, height, 24) > draws.uniform(0.6, 2)) * (
            np.asarray(self.labels.resize((width, height), 0)) > 0
        )
        pixels = np.clip(pixels * shade[..., None], 0, 1) ** draws.uniform(0.6, 1.7)
        pixels = pixels * draws.uniform(0.6, 1.15) * draws.uniform(0.9, 1.1, 3) + draws.uniform(-0.05, 0.08)
        grey = pixels.mean(2, keepdims=True)
        pixels = grey + (pixels - grey) * draws.uniform(0.2, 1.2)
        pixels += draws.normal(0, draws.uniform(0.005, 0.03), pixels.shape)
        small = np.asarray(self.labels.resize((width, height), 0), np.uint8)
        made = (np.clip(pixels, 0, 1) * 255).astype(np.uint8)
        return (made[:, ::-1].copy(), small[:, ::-1].copy()) if draws.random() < 0.5 else (made, small)


def _cloud(draws: np.random.Generator, width: int, height: int, cell: int) -> NDArray[np.float64]:
    """Smooth noise [H, W] of about unit variance."""
    from PIL import Image

    few = draws.normal(0, 1.3, (max(2, height // cell + 2), max(2, width // cell + 2))).astype(np.float32)
    return np.asarray(Image.fromarray(few).resize((width, height), 3), float)


def draw_street(canvas: Canvas) -> None:
    """A street, from back to front."""
    draws = canvas.draws
    horizon, middle = draws.uniform(0.3, 0.58), draws.uniform(0.25, 0.75)
    draw_sky(canvas, horizon)
    draw_ground(canvas, horizon, middle)
    sides = [
        (left, draws.choice(["houses", "trees", "mixed", "open"], p=[0.45, 0.2, 0.25, 0.1])) for left in (True, False)
    ]
    if draws.random() < 0.7:
        far = "building" if draws.random() < 0.5 else "tree"
        base = (110, 100, 95) if far == "building" else (60, 85, 50)
        top = horizon - draws.uniform(0.02, 0.14)
        canvas.box(far, 0, top, 1, horizon + 0.01, canvas.colour(*base))
    for depth in np.linspace(0.12, 1, int(draws.integers(4, 7))):
        for left, kind in sides:
            draw_beside(canvas, horizon, middle, left, str(kind), float(depth))
    for depth in np.sort(draws.uniform(0.08, 0.85, int(draws.integers(1, 8)))):
        draw_thing(canvas, horizon, middle, float(depth))


def draw_sky(canvas: Canvas, horizon: float) -> None:
    """A sky that is blue, grey, white or of the evening, lighter below, with clouds or without."""
    draws = canvas.draws
    kinds = [(110, 160, 225), (150, 190, 230), (190, 195, 200), (235, 238, 242), (225, 190, 160), (90, 105, 130)]
    top = np.array(canvas.colour(*kinds[int(draws.integers(len(kinds)))]))
    bottom = top + (np.array([235, 235, 235]) - top) * draws.uniform(0, 0.8)
    steps = 24
    for step in range(steps):
        mixed = top + (bottom - top) * step / steps
        red, green, blue = (int(one) for one in np.clip(mixed, 0, 255))
        canvas.box("sky", 0, step / steps * horizon, 1, (step + 1) / steps * horizon + 0.01, (red, green, blue))
    for _ in range(int(draws.integers(0, 7))):
        x, y = draws.uniform(-0.2, 1), draws.uniform(-0.05, horizon)
        wide, high = draws.uniform(0.1, 0.5), draws.uniform(0.02, 0.1)
        canvas.paint("sky", "ellipse", [(x, y), (x + wide, y + high)], canvas.grey(200, 250))


def edge(canvas_middle: float, depth: float, left: bool, width: float) -> float:
    """Where a line along the road, `width` from its middle, is at a depth (0 at the horizon, 1 in front)."""
    return canvas_middle + (0.5 - canvas_middle + (-width if left else width)) * depth


def draw_ground(canvas: Canvas, horizon: float, middle: float) -> None:
    """Pavement or grass on both sides, the road, its marks."""
    draws = canvas.draws
    half = draws.uniform(0.4, 0.9)

    def wedge(name: str | None, inner: float, outer: float, left: bool, colour: Any, far: float = 0.0) -> None:
        points = [(edge(middle, depth, left, one), horizon + (1 - horizon) * depth)
                  for one, depth in ((inner, far), (inner, 1), (outer, 1), (outer, far))]  # fmt: skip
        canvas.paint(name, "polygon", points, colour)

    for left in (True, False):
        x = (0, middle) if left else (middle, 1)
        side = "grass" if draws.random() < 0.35 else "pavement"
        base = (95, 125, 60) if side == "grass" else (150, 145, 140)
        canvas.box(side, x[0], horizon, x[1], 1, canvas.colour(*base))
        if side == "grass" and draws.random() < 0.7:
            wedge("pavement", half, half + draws.uniform(0.1, 0.6), left, canvas.grey(125, 190))
    tar = canvas.grey(55, 135)
    points = [(middle - 0.01, horizon), (middle + 0.01, horizon), (0.5 + half, 1), (0.5 - half, 1)]
    canvas.paint("road", "polygon", points, tar)
    white = canvas.grey(190, 245)
    if draws.random() < 0.7:
        for depth in np.arange(draws.uniform(0, 0.15), 1, 0.16):
            y0, y1 = (horizon + (1 - horizon) * one for one in (depth, min(1, depth + 0.07)))
            x0, x1 = (middle + (0.5 - middle) * one for one in (depth, depth + 0.07))
            wide = 0.012 * (depth + 0.05)
            canvas.paint(None, "polygon", [(x0 - wide, y0), (x0 + wide, y0), (x1 + wide, y1), (x1 - wide, y1)], white)
    if draws.random() < 0.5:
        for left in (True, False):
            wedge(None, half - 0.05, half - 0.02, left, white)


def draw_beside(canvas: Canvas, horizon: float, middle: float, left: bool, kind: str, depth: float) -> None:
    """A house, a tree, a fence, a pole or a sign beside the road."""
    draws = canvas.draws
    if kind == "open" and draws.random() < 0.6:
        return
    ground = horizon + (1 - horizon) * depth * draws.uniform(0.3, 0.5)
    near = edge(middle, depth, left, draws.uniform(0.55, 1.0))
    if kind == "houses" or (kind == "mixed" and draws.random() < 0.5):
        wide, high = draws.uniform(0.25, 0.6) * (0.3 + depth), draws.uniform(0.25, 0.9) * (0.25 + depth)
        a, b = (near - wide, near) if left else (near, near + wide)
        draw_house(canvas, a, ground - high, b, ground)
    else:
        draw_tree(canvas, near + draws.uniform(-0.1, 0.1), ground, draws.uniform(0.25, 0.7) * (0.2 + depth))
    if draws.random() < 0.25:
        a, b = (near - 0.4 * depth, near) if left else (near, near + 0.4 * depth)
        high = 0.09 * (0.2 + depth)
        colour = canvas.colour(*[(120, 95, 70), (190, 190, 185), (70, 80, 70)][int(draws.integers(3))])
        for x in np.arange(a, b, 0.018):
            canvas.box("fence", float(x), ground - high, float(x) + 0.012, ground, colour)
    if draws.random() < 0.45:
        x = near + draws.uniform(-0.05, 0.05)
        tall, wide = draws.uniform(0.25, 0.6) * (0.2 + depth), 0.008 + 0.012 * depth
        canvas.box("pole", x, ground - tall, x + wide, ground, canvas.grey(60, 170))
        if draws.random() < 0.6:
            size = 0.05 * (0.3 + depth)
            bright = [(200, 40, 40), (40, 80, 190), (230, 200, 60), (230, 230, 230)]
            shape = "ellipse" if draws.random() < 0.5 else "rectangle"
            at = [(x - size + wide / 2, ground - tall - size), (x + size + wide / 2, ground - tall + 1.6 * size)]
            canvas.paint("sign", shape, at, canvas.colour(*bright[int(draws.integers(4))]))


def draw_house(canvas: Canvas, left: float, top: float, right: float, bottom: float) -> None:
    """A front with windows, maybe with a roof."""
    draws = canvas.draws
    kinds = [(165, 120, 95), (190, 175, 150), (140, 140, 140), (120, 85, 75), (210, 205, 195), (100, 105, 115)]
    wall = canvas.colour(*kinds[int(draws.integers(len(kinds)))])
    canvas.box("building", left, top, right, bottom, wall)
    if draws.random() < 0.35:
        tip = top - draws.uniform(0.05, 0.15)
        inset = (right - left) * draws.uniform(0, 0.5)
        corners = [(left, top), (left + inset, tip), (right - inset, tip), (right, top)]
        canvas.paint("building", "polygon", corners, canvas.colour(105, 70, 60))
    glass = canvas.colour(70, 80, 95) if draws.random() < 0.7 else canvas.colour(200, 205, 210)
    across, down = draws.uniform(0.04, 0.1), draws.uniform(0.06, 0.14)
    for x in np.arange(left + across / 2, right - across * 0.7, across):
        for y in np.arange(top + down / 3, bottom - down * 0.6, down):
            canvas.box(None, float(x), float(y), float(x) + across * 0.5, float(y) + down * 0.55, glass)


def draw_tree(canvas: Canvas, x: float, ground: float, tall: float) -> None:
    """A trunk and a crown of many blots."""
    draws = canvas.draws
    canvas.box("tree", x - 0.03 * tall, ground - tall * 0.6, x + 0.03 * tall, ground, canvas.colour(85, 65, 50))
    kinds = [(60, 95, 45), (85, 120, 55), (50, 70, 45), (130, 110, 60)]
    leaf = kinds[int(draws.integers(len(kinds)))]
    for _ in range(int(draws.integers(10, 22))):
        away, high = draws.normal(0, 0.22 * tall), draws.uniform(0.3, 1.0) * tall
        size = draws.uniform(0.08, 0.2) * tall
        at = [(x + away - size, ground - high - size), (x + away + size, ground - high + size)]
        canvas.paint("tree", "ellipse", at, canvas.colour(*leaf, spread=30))


def draw_thing(canvas: Canvas, horizon: float, middle: float, depth: float) -> None:
    """A car on the road, a person or a cyclist beside it."""
    draws = canvas.draws
    ground = horizon + (1 - horizon) * depth
    if draws.random() < 0.6:
        x = edge(middle, depth, bool(draws.random() < 0.5), draws.uniform(0.05, 0.55))
        draw_car(canvas, x, ground, draws.uniform(0.28, 0.42) * (depth + 0.08))
        return
    x = edge(middle, depth, bool(draws.random() < 0.5), draws.uniform(0.2, 0.8))
    draw_person(canvas, x, ground, draws.uniform(0.42, 0.6) * (depth + 0.08), riding=bool(draws.random() < 0.4))


def draw_car(canvas: Canvas, x: float, ground: float, size: float) -> None:
    """A car from behind or from the side: shadow, body, cabin with windows, wheels, lights."""
    draws = canvas.draws
    kinds = [
        (200, 30, 30),
        (40, 60, 130),
        (225, 225, 225),
        (30, 30, 32),
        (130, 135, 140),
        (200, 190, 150),
        (40, 90, 60),
    ]
    body = canvas.colour(*kinds[int(draws.integers(len(kinds)))])
    glass, dark = canvas.colour(60, 70, 80), canvas.grey(15, 45)
    side = draws.random() < 0.4
    half, high = size * (1.0 if side else 0.6), size * 0.75
    canvas.paint(None, "ellipse", [(x - half * 1.1, ground - 0.12 * high), (x + half * 1.1, ground + 0.1 * high)], dark)
    canvas.box("car", x - half, ground - 0.62 * high, x + half, ground - 0.12 * high, body)
    lean = 0.7 if side else 0.85
    cabin = [(x - half * lean, ground - 0.6 * high), (x - half * lean * 0.75, ground - 1.1 * high),
             (x + half * lean * 0.75, ground - 1.1 * high), (x + half * lean, ground - 0.6 * high)]  # fmt: skip
    canvas.paint("car", "polygon", cabin, body)
    pane = [(x + (px - x) * 0.8, ground - 0.62 * high + (py - ground + 0.62 * high) * 0.85) for px, py in cabin]
    canvas.paint("car", "polygon", pane, glass)
    wheel = 0.2 * high
    for at in (x - half * 0.65, x + half * 0.65):
        canvas.paint("car", "ellipse", [(at - wheel * 0.8, ground - 2 * wheel), (at + wheel * 0.8, ground)], dark)
    if not side:
        for at in (x - half * 0.95, x + half * 0.7):
            lamp = canvas.colour(220, 40, 30)
            canvas.box("car", at, ground - 0.5 * high, at + half * 0.25, ground - 0.36 * high, lamp)


def draw_person(canvas: Canvas, x: float, ground: float, tall: float, *, riding: bool) -> None:
    """Somebody who stands, or rides a bicycle."""
    draws = canvas.draws
    name = "cyclist" if riding else "person"
    cloth = [(40, 45, 60), (150, 40, 45), (60, 90, 60), (170, 160, 140), (30, 30, 30), (90, 110, 170)]
    coat, trousers = (canvas.colour(*cloth[int(draws.integers(len(cloth)))]) for _ in range(2))
    skin = canvas.colour(200, 150, 120)
    wide = 0.13 * tall
    if riding:
        dark = canvas.grey(20, 50)
        for at in (x - 0.25 * tall, x + 0.25 * tall):
            ring = [(at - 0.16 * tall, ground - 0.4 * tall), (at + 0.16 * tall, ground)]
            canvas.paint(name, "ellipse", ring, dark)
        canvas.box(name, x - 0.25 * tall, ground - 0.42 * tall, x + 0.25 * tall, ground - 0.36 * tall, dark)
    foot = ground - (0.1 if riding else 0) * tall
    for at in (x - wide * 0.55, x + wide * 0.55):
        canvas.box(name, at - wide * 0.35, ground - 0.5 * tall, at + wide * 0.35, foot, trousers)
    canvas.box(name, x - wide, ground - 0.85 * tall, x + wide, ground - 0.45 * tall, coat)
    canvas.paint(
        name, "ellipse", [(x - wide * 0.6, ground - 1.02 * tall), (x + wide * 0.6, ground - 0.84 * tall)], skin
    )
