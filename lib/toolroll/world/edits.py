"""Changes of a scene: what is changed, and a log that says exactly that.

An edit takes a scene, the numbers of the objects it may touch and a stream of random choices; it gives another scene
and its changes, or raises CannotEdit. Whatever a change does not name stays as it was: other objects and attributes,
camera, lights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolroll.errors import UsageError
from toolroll.world.constants import COLORS, SHAPES, SIZES
from toolroll.world.draws import Draws
from toolroll.world.place import drawn_solid, fits, free_place
from toolroll.world.scene import Scene, Solid
from toolroll.world.words import counted, described, phrase

MOST = 10  #: objects in a scene, as in CLEVR
LEAST_MOVE = 1.0  #: units that an object is moved at least


class CannotEdit(Exception):
    """This scene cannot be changed so; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object: `before` is its number in the first scene, `after` in the second, None if absent.

    `was` and `now` have what changed of it, under CLEVR's names; all of it where it is removed or added.
    """

    op: str
    before: int | None
    after: int | None
    was: dict[str, Any]
    now: dict[str, Any]
    said: str

    def as_json(self) -> dict[str, Any]:
        """The change as a row of the log."""
        return {name: getattr(self, name) for name in ("op", "before", "after", "was", "now", "said")}


Edited = tuple[Scene, list[Change]]
Edit = Callable[[Scene, Sequence[int], Draws], Edited]


def attributes(solid: Solid) -> dict[str, Any]:
    """An object under CLEVR's names, without what follows from the camera."""
    names = ("shape", "size", "color", "material", "rotation")
    return {**{name: getattr(solid, name) for name in names}, "3d_coords": list(solid.center)}


def altered(op: str, number: int, old: Solid, new: Solid) -> Change:
    """The change from one state of an object to another."""
    was, now = attributes(old), attributes(new)
    names = [name for name in was if was[name] != now[name]]
    if old.looks == new.looks:
        said = f"the {phrase(old)} was moved"
    else:
        said = f"the {phrase(old)} is now {described(new)}"
    return Change(op, number, number, {n: was[n] for n in names}, {n: now[n] for n in names}, said)


def replaced(scene: Scene, changed: dict[int, Solid], op: str) -> Edited:
    """A scene with some of its objects in another state."""
    changes = [altered(op, number, scene.solids[number], solid) for number, solid in sorted(changed.items())]
    return scene.with_solids([changed.get(i, solid) for i, solid in enumerate(scene.solids)]), changes


def another(of: Sequence[str], than: str, draws: Draws) -> str:
    """One of these that is another one."""
    return draws.pick([value for value in of if value != than])


def touched(allowed: Sequence[int], count: int, draws: Draws) -> list[int]:
    """`count` of the objects that may be touched."""
    if len(allowed) < count:
        seen = counted(len(allowed), "object")
        raise CannotEdit(
            f"it takes {count} that are seen well enough; there {'is' if len(allowed) == 1 else 'are'} {seen}"
        )
    return draws.shuffled(allowed)[:count]


def replace2(scene: Scene, allowed: Sequence[int], draws: Draws) -> Edited:
    """Vision-Zero's edit: two objects get another colour and another shape, and keep all else."""
    changed = {}
    for number in touched(allowed, 2, draws):
        old = scene.solids[number]
        color, shape = another(tuple(COLORS), old.color, draws), another(SHAPES, old.shape, draws)
        changed[number] = old.but(cube_ratio=scene.cube_ratio, color=color, shape=shape)
    return replaced(scene, changed, "replace")


def recolor(scene: Scene, allowed: Sequence[int], draws: Draws) -> Edited:
    """One object gets another colour."""
    (number,) = touched(allowed, 1, draws)
    old = scene.solids[number]
    color = another(tuple(COLORS), old.color, draws)
    return replaced(scene, {number: old.but(cube_ratio=scene.cube_ratio, color=color)}, "recolor")


def reshape(scene: Scene, allowed: Sequence[int], draws: Draws) -> Edited:
    """One object gets another shape."""
    (number,) = touched(allowed, 1, draws)
    old = scene.solids[number]
    shape = another(SHAPES, old.shape, draws)
    return replaced(scene, {number: old.but(cube_ratio=scene.cube_ratio, shape=shape)}, "reshape")


def resize(scene: Scene, allowed: Sequence[int], draws: Draws) -> Edited:
    """One object gets the other size, if there is room."""
    for number in draws.shuffled(allowed):
        old = scene.solids[number]
        size = another(tuple(SIZES), old.size, draws)
        if size == "small" or fits(scene, old.x, old.y, size, but=number):
            return replaced(scene, {number: old.but(cube_ratio=scene.cube_ratio, size=size)}, "resize")
    raise CannotEdit("none of its objects has room to grow")


def move(scene: Scene, allowed: Sequence[int], draws: Draws) -> Edited:
    """One object stands somewhere else, at least `LEAST_MOVE` away."""
    for number in draws.shuffled(allowed):
        old = scene.solids[number]
        place = free_place(scene, old.size, draws, but=number)
        if place is not None and math.dist(place, (old.x, old.y)) >= LEAST_MOVE:
            return replaced(scene, {number: old.but(cube_ratio=scene.cube_ratio, x=place[0], y=place[1])}, "move")
    raise CannotEdit("found no other place for any of its objects")


def remove(scene: Scene, allowed: Sequence[int], draws: Draws, *, count: int = 1) -> Edited:
    """Some objects are gone; at least one stays."""
    if len(scene.solids) <= count:
        raise CannotEdit(f"of {counted(len(scene.solids), 'object')} none would be left")
    gone = sorted(touched(allowed, count, draws))
    changes = [
        Change("remove", i, None, attributes(scene.solids[i]), {}, f"the {phrase(scene.solids[i])} was removed")
        for i in gone
    ]
    return scene.with_solids([solid for i, solid in enumerate(scene.solids) if i not in gone]), changes


def add(scene: Scene, allowed: Sequence[int], draws: Draws, *, count: int = 1) -> Edited:  # noqa: ARG001
    """There are some objects more, `MOST` in all."""
    if len(scene.solids) + count > MOST:
        raise CannotEdit(f"{MOST} objects are the most")
    changes = []
    for _ in range(count):
        size = draws.pick(tuple(SIZES))
        place = free_place(scene, size, draws)
        if place is None:
            raise CannotEdit("found no room for another object")
        solid = drawn_solid(draws, size, *place, scene.cube_ratio)
        said = f"{described(solid)} was added"
        changes.append(Change("add", None, len(scene.solids), {}, attributes(solid), said))
        scene = scene.with_solids([*scene.solids, solid])
    return scene, changes


def count(scene: Scene, allowed: Sequence[int], draws: Draws, *, by: int) -> Edited:
    """There are `by` objects more or fewer."""
    ways = draws.shuffled([remove, add])
    for way in ways:
        try:
            return way(scene, allowed, draws, count=by)
        except CannotEdit as error:
            why = error
    raise why


KINDS: dict[str, Edit] = {
    "replace2": replace2,
    "recolor": recolor,
    "reshape": reshape,
    "remove": remove,
    "add": add,
    "move": move,
    "resize": resize,
}


def edit_named(name: str) -> Edit:
    """The edit of this name: one of `KINDS`, or count:K."""
    kind, colon, number = name.partition(":")
    if kind == "count":
        number = number if colon else "1"
        if not (number.isdecimal() and 1 <= int(number) < MOST):
            raise UsageError(f"want count:K with K from 1 to {MOST - 1}, not {name!r}", place="--edit")
        return partial(count, by=int(number))
    if name not in KINDS:
        raise UsageError(f"no such edit of a scene: {name!r}", place="--edit")
    return KINDS[name]
