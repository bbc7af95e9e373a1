"""From what is asked for to pairs: the numbered sequence of pair-make, each pair from its own seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.run.seeds import record_seed
from toolroll.world.draws import Draws
from toolroll.world.edits import KINDS as SCENE_EDITS
from toolroll.world.edits import CannotEdit, edit_named

if TYPE_CHECKING:
    from toolroll.world.pairs import ImagePair
    from toolroll.world.photos import Photo
    from toolroll.world.scene import Scene
    from toolroll.world.tables import Table

SCENES_TRIED = 15  #: scenes drawn for a pair until its edit counts as impossible
EDITS = {
    "scenes": (*SCENE_EDITS, "count"),
    "charts": ("swap",),
    "photos": ("remove", "recolor", "insert"),
}
DEFAULT_EDITS = {"scenes": "replace2", "charts": "swap", "photos": "remove,recolor,insert"}
HARDEST = {"scenes": 0.15, "charts": 0.15, "photos": 0.06}  #: share of changed pixels at which difficulty is 0

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What pairs are asked for; `None` for what has no part in this kind of them."""

    kind: str
    edits: tuple[str, ...]
    width: int
    height: int
    objects: tuple[int, int]
    share: tuple[float, float]
    camera_jitter: float
    light_jitter: float
    charts: tuple[str, ...]
    font: str
    longest: int
    blank: tuple[int, int, int]
    seed: int


def read_edits(kind: str, text: str | None) -> tuple[str, ...]:
    """The kinds of edits in a list with commas. Raises UsageError for one that this kind of pairs does not have.

    >>> read_edits("scenes", "add,count:2,same")
    ('add', 'count:2', 'same')
    """
    names = tuple(part.strip() for part in (text or DEFAULT_EDITS[kind]).split(","))
    for name in names:
        if name in ("same", "blank"):
            continue
        if name.partition(":")[0] not in EDITS[kind]:
            known = ", ".join(["count:K" if known == "count" else known for known in EDITS[kind]])
            raise UsageError(f"{kind} have the edits {known}, same and blank, not {name!r}", place="--edit")
        if kind == "scenes":
            edit_named(name)
    return names


def read_range(text: str, place: str, kind: type[int | float], least: float, most: float) -> tuple[Any, Any]:
    """Two numbers with a dash or comma between, or one that stands for both.

    >>> read_range("4-6", "--objects", int, 1, 10), read_range("5", "--objects", int, 1, 10)
    ((4, 6), (5, 5))
    """
    parts = re.split(r"[,-]", text) if kind is int else text.split(",")
    try:
        numbers = [kind(part) for part in parts]
    except ValueError:
        numbers = []
    if not (len(numbers) in (1, 2) and least <= numbers[0] <= numbers[-1] <= most):
        raise UsageError(f"want one or two numbers from {least:g} to {most:g}, not {text!r}", place=place)
    return numbers[0], numbers[-1]


def read_size(text: str, place: str = "--size") -> tuple[int, int]:
    """Width and height out of 320x240. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text, re.ASCII)
    if match is None or not (32 <= int(match[1]) <= 2048 and 32 <= int(match[2]) <= 2048):
        raise UsageError(f"want WIDTHxHEIGHT, each from 32 to 2048, not {text!r}", place=place)
    return int(match[1]), int(match[2])


def read_color(text: str, place: str = "--blank-color") -> tuple[int, int, int]:
    """A colour out of its name or #rrggbb. Raises UsageError."""
    from toolroll.world.images import pillow

    pillow()
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UsageError(f"no such colour: {text!r}", place=place) from error
    return red, green, blue


class Maker:
    """Makes the pairs of a run; each depends on `seed` and its id, never on those before it."""

    def __init__(self, asked: Asked, notify: Notify = lambda _: None) -> None:
        self.asked = asked
        self._notify = notify
        self._photo: tuple[Any, Photo] | None = None
        if asked.kind == "charts":
            from toolroll.world.charts import check_font

            check_font(asked.font)

    def seed_of(self, name: str) -> int:
        """The seed of the pair with this id."""
        return record_seed(self.asked.seed, name)

    def pair(self, name: str, data: Any = None) -> ImagePair:
        """The pair with this id, from `data` or drawn.

        Raises RowError where data is given and no pair can be made of it, ToolrollError where what is drawn does not
        allow the edit.
        """
        draws = Draws(self.seed_of(name))
        edit = draws.pick(self.asked.edits)
        make = {"scenes": self._scenes, "charts": self._charts, "photos": self._photos}[self.asked.kind]
        try:
            return make(edit, draws, data)
        except CannotEdit as error:
            if data is not None:
                raise RowError(f"cannot be edited ({edit}): {error}") from error
            raise ToolrollError(f"{edit}: {error}", place=name) from error

    def difficulty(self, pair: ImagePair) -> float:
        """How hard its change is to find, 0 .. 1."""
        from toolroll.world.pairs import difficulty

        return difficulty(pair.share, HARDEST[self.asked.kind])

    def _scenes(self, edit: str, draws: Draws, data: Any) -> ImagePair:
        from toolroll.world.clevr import scene_json, scene_of
        from toolroll.world.pairs import SceneRules, made_pair, scene_pair, unchanged_pair
        from toolroll.world.place import drawn_scene
        from toolroll.world.render import owners, render

        asked = self.asked
        rules = SceneRules(asked.width, asked.height, asked.share)

        def drawn(draws: Draws) -> Scene:
            jitter = {"camera_jitter": asked.camera_jitter, "light_jitter": asked.light_jitter}
            return drawn_scene(draws, draws.whole(*asked.objects), asked.width, asked.height, **jitter)

        scene = None if data is None else scene_of(data, self._notify)
        if scene is not None:
            for number in (owners(scene, asked.width, asked.height).seen == 0).nonzero()[0]:
                self._notify(f"object {number} is not seen: outside the image or hidden")
        if edit in ("same", "blank"):
            scene = scene or drawn(draws)
            told = scene_json(scene, asked.width, asked.height)
            about = {"original_scene": told, "modified_scene": told if edit == "same" else None}
            return unchanged_pair(render(scene, asked.width, asked.height), edit, asked.blank, **about)
        if scene is not None:
            return scene_pair(scene, edit, edit_named(edit), draws, rules)
        return made_pair(drawn, edit, edit_named(edit), draws, rules, scenes=SCENES_TRIED)

    def _charts(self, edit: str, draws: Draws, data: Table | None) -> ImagePair:
        from toolroll.world.charts import chart_pair, draw, drawn_style
        from toolroll.world.pairs import unchanged_pair
        from toolroll.world.tables import drawn_table

        asked = self.asked
        while True:
            table = data or drawn_table(draws, asked.charts)
            style = drawn_style(draws, asked.font)
            if edit in ("same", "blank"):
                about = {
                    "original_table": table.as_json(),
                    "modified_table": table.as_json() if edit == "same" else None,
                }
                return unchanged_pair(draw(table, style, asked.width, asked.height), edit, asked.blank, **about)
            try:
                return chart_pair(table, style, draws, asked.width, asked.height)
            except CannotEdit:
                if data is not None:
                    raise

    def _photos(self, edit: str, draws: Draws, data: Any) -> ImagePair:
        from toolroll.world.images import read_photo
        from toolroll.world.pairs import unchanged_pair
        from toolroll.world.photos import photo_of, photo_pair

        asked = self.asked
        if edit in ("same", "blank"):
            return unchanged_pair(read_photo(data["image"], asked.longest), edit, asked.blank)
        if self._photo is None or self._photo[0] != data:  # of one photo several pairs may be made
            path = data["image"]
            seed = record_seed(asked.seed, path)
            photo = photo_of(path, data.get("mask"), data.get("bbox"), longest=asked.longest, seed=seed)
            self._photo = (data, photo)
        return photo_pair(self._photo[1], edit, draws)


def row_of(pair: ImagePair, **about: Any) -> dict[str, Any]:
    """The row of a pair; `about` are the fields that come from elsewhere, `id` and `seed` among them."""
    height, width = pair.original.shape[:2]
    first = ("id", "kind")
    told = {name: value for name, value in pair.about.items() if value is not None}
    return {
        **{name: about[name] for name in first},
        "edit": pair.edit,
        "original": about["original"],
        "modified": about["modified"],
        "width": width,
        "height": height,
        "changes": pair.changes,
        "boxes": {name: [list(box) for box in boxes] for name, boxes in pair.boxes.items()},
        "share": round(pair.share, 6),
        "difficulty": about["difficulty"],
        "seed": about["seed"],
        **({"source": about["source"]} if about.get("source") else {}),
        **told,
    }


def numbers(first: int, count: int, takes: Callable[[int], bool]) -> Iterator[int]:
    """The numbers from `first` on that are ours."""
    return (number for number in range(first, first + count) if takes(number))


def refuse_strangers(kind: str, given: Sequence[str], owners: dict[str, tuple[str, ...]]) -> None:
    """Raises UsageError for an option that was given and has no part in this kind of pairs."""
    for name in given:
        if name in owners and kind not in owners[name]:
            raise UsageError(
                f"is about {' and '.join(owners[name])}, not about {kind}", place=f"--{name.replace('_', '-')}"
            )
