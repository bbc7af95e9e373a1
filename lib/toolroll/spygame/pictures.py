"""What each seat of a game sees: an image, and for players without eyes the same in words."""

from __future__ import annotations

from dataclasses import dataclass
from filecmp import cmp
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

from toolroll.errors import RowError
from toolroll.models.images import folder_of
from toolroll.world.words import listed, with_article

SpyImage = Literal["modified", "blank", "same"]
KINDS = ("scenes", "charts", "photos")
EMPTY = "Your picture is empty: an area of one colour, and nothing else."


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: `name`, its path as the row has it, the `file`, and what it shows as far as that is known.

    `things` are the objects of a scene; an empty picture has none. `words` is what to tell a model that sees nothing.
    """

    name: str | None
    file: Path | None
    things: list[dict[str, Any]] | None = None
    table: dict[str, Any] | None = None
    words: str | None = None

    def told(self) -> str:
        """The picture in words. RowError where nothing is known of what it shows."""
        if self.words is not None:
            return self.words
        if self.things is not None:
            return scene_in_words(self.things)
        if self.table is not None:
            return table_in_words(self.table)
        raise RowError("nothing says in words what the picture shows, and the model takes no images")

    def seen(self) -> Path:
        """The file. RowError where there is none."""
        if self.file is None:
            raise RowError("no image: the row has no path of it")
        if not self.file.is_file():
            raise RowError(f"{self.file}: no such file")
        return self.file


@dataclass(frozen=True, slots=True)
class Pair:
    """The civilians' picture and the spy's, what kind of pictures they are, and how they differ (see `prompts`)."""

    civilian: Picture
    spy: Picture
    kind: str
    domain: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes the pairs of rows (`records.spygame.SpyPair`).

    Images are looked for in `folder`, else in that of the row's file. Empty ones are put into `blanks`, else beside the
    first image of the row.
    """

    spy_image: SpyImage
    folder: Path | None = None
    blanks: Path | None = None

    def pair(self, row: Any, place: str) -> Pair:
        """The pictures of a row that was read at `place`. RowError where it has not what it takes."""
        kind = row.kind or ("scenes" if row.original_scene else "charts" if row.original_table else "photos")
        if kind not in KINDS:
            raise RowError(f"`kind` is {kind!r}, not one of {', '.join(KINDS)}")
        folder = self.folder or folder_of(place)
        civilian = _picture(row, "original", folder)
        if self.spy_image == "same":
            return Pair(civilian, civilian, kind, kind)
        if self.spy_image == "blank":
            return Pair(civilian, self._blank(civilian, folder), kind, "blank")
        spy = _picture(row, "modified", folder)
        if row.edit == "blank":
            return Pair(civilian, Picture(spy.name, spy.file, things=[], words=EMPTY), kind, "blank")
        if row.edit != "same" and _equal(civilian, spy):
            raise RowError("the two images are equal; --spy-image same plays with one")
        return Pair(civilian, spy, kind, kind)

    def _blank(self, like: Picture, folder: Path) -> Picture:
        """A white picture of the size of another; without an image of that, one that only words can tell.

        Its name is relative to `folder`, as those of the row are. Who looks at the latter is told what is missing.
        """
        if like.name is None or like.file is None or not like.file.is_file():
            return Picture(None, like.file, things=[], words=EMPTY)
        import numpy as np

        from toolroll.models.images import open_image
        from toolroll.world.images import Folder

        width, height = open_image(like.file).size
        name = f"blank_{width}x{height}.png"
        place = self.blanks if self.blanks is not None else like.file.parent
        if not (place / name).exists():
            Folder(str(place)).put(name, np.full((height, width, 3), 255, np.uint8))
        return Picture(relpath(place / name, folder), place / name, things=[], words=EMPTY)


def _picture(row: Any, which: str, folder: Path) -> Picture:
    name = getattr(row, which)
    scene = getattr(row, f"{which}_scene")
    things = scene.get("objects") if scene is not None else None
    if scene is not None and not (isinstance(things, list) and all(isinstance(thing, dict) for thing in things)):
        raise RowError(f"`{which}_scene` has no list of objects")
    return Picture(
        name,
        folder / name if name is not None else None,
        things,
        getattr(row, f"{which}_table"),
        getattr(row, f"{which}_text"),
    )


def _equal(one: Picture, other: Picture) -> bool:
    """Whether two pictures are surely the same one: by their files, or, where there are none, by what they show."""
    if one.file is not None and other.file is not None:
        try:
            return one.file == other.file or cmp(one.file, other.file, shallow=False)
        except OSError:  # whoever looks at them tells of it
            pass
    shown = (one.things, one.table, one.words)
    return any(part is not None for part in shown) and shown == (other.things, other.table, other.words)


def scene_in_words(things: list[dict[str, Any]]) -> str:
    """A scene's objects from left to right, as far as it says where they are.

    >>> cube = {"size": "small", "color": "red", "material": "rubber", "shape": "cube", "pixel_coords": [90, 80, 11]}
    >>> scene_in_words([cube, {**cube, "color": "blue", "pixel_coords": [20, 90, 10]}])
    'Your picture shows, from left to right, a small blue rubber cube and a small red rubber cube.'
    """
    if not things:
        return EMPTY
    places = [thing.get("pixel_coords") for thing in things]
    placed = all(isinstance(place, list) and place and isinstance(place[0], int | float) for place in places)
    if placed:
        things = sorted(things, key=lambda thing: float(thing["pixel_coords"][0]))
    names = [
        with_article(" ".join(str(thing[name]) for name in ("size", "color", "material", "shape") if name in thing))
        for thing in things
    ]
    return f"Your picture shows{', from left to right,' if placed else ''} {listed(names)}."


def table_in_words(table: dict[str, Any]) -> str:
    """A chart's values.

    >>> table_in_words({"kind": "bar", "title": "Rain", "categories": ["May", "June"], "series": {"mm": [60, 45.5]}})
    'Your picture is a bar chart, "Rain". mm: May 60, June 45.5.'
    """
    categories, series = table.get("categories"), table.get("series")
    if not isinstance(categories, list) or not isinstance(series, dict):
        raise RowError("the table has no categories and series")
    title = f', "{table["title"]}"' if table.get("title") else ""
    lines = [
        f"{name}: {', '.join(f'{one} {value}' for one, value in zip(categories, values, strict=False))}."
        for name, values in series.items()
        if isinstance(values, list)
    ]
    return f"Your picture is a {table.get('kind', 'bar')} chart{title}. {' '.join(lines)}"
