"""Questions about scenes and charts, with their answers.

A question is drawn so that its answer follows from the scene alone: an object that is asked about is named by words
that fit no other. What is asked for is never in the name. Answers that have two sides come out even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from toolroll.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from toolroll.world.draws import Draws
from toolroll.world.edits import another
from toolroll.world.scene import Scene, Solid
from toolroll.world.tables import Table
from toolroll.world.words import ATTRIBUTES, caption, counted, from_left, object_list, phrase, with_article

VALUES = {"size": tuple(SIZES), "color": tuple(COLORS), "material": MATERIALS, "shape": SHAPES}
DESCRIBE = "Describe the picture."
LIST = "List the objects from left to right."
NOTHING = "There are no objects."  #: what is said of an empty picture
SIDES = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
ASKED_AS = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its answer, and the kind of question."""

    kind: str
    question: str
    answer: str


def names_without(scene: Scene, number: int, hidden: str) -> list[tuple[str, ...]]:
    """The sets of attributes, without `hidden`, that fit this object and no other; the shortest first."""
    solid = scene.solids[number]
    others = [other for i, other in enumerate(scene.solids) if i != number]
    told = [name for name in ATTRIBUTES if name != hidden]
    return [
        names
        for length in range(1, len(told) + 1)
        for names in combinations(told, length)
        if not any(all(getattr(other, name) == getattr(solid, name) for name in names) for other in others)
    ]


def attribute_question(scene: Scene, attribute: str, draws: Draws) -> Asked | None:
    """What colour (size, material, shape) something is; None if nothing has a name without it."""
    for number in draws.shuffled(range(len(scene.solids))):
        names = names_without(scene, number, attribute)
        if names:
            shortest = [one for one in names if len(one) <= len(names[0]) + 1]
            solid = scene.solids[number]
            told = phrase(solid, draws.pick(shortest))
            return Asked(attribute, f"What {attribute} is the {told}?", str(getattr(solid, attribute)))
    return None


def count_question(scene: Scene, draws: Draws) -> Asked:
    """How many there are of a kind that is there (three of four) or of any."""
    solid = draws.pick(scene.solids) if scene.solids and draws.below(4) else random_solid(draws)
    names = draws.pick([(), ("color",), ("shape",), ("size",), ("material",), ("color", "shape"), ("size", "shape")])
    number = sum(all(getattr(one, name) == getattr(solid, name) for name in names) for one in scene.solids)
    return Asked("count", f"How many {phrase(solid, names)}s are there?", str(number))


def random_solid(draws: Draws) -> Solid:
    """Any object, at the origin."""
    looks = {name: draws.pick(values) for name, values in VALUES.items()}
    return Solid(looks["shape"], looks["size"], looks["color"], looks["material"], 0.0, 0.0, 0.0, 0.0)


def absent(scene: Scene, draws: Draws) -> Solid:
    """An object that is not there: mostly one of the scene with one or two attributes changed."""
    while True:
        if scene.solids and draws.below(5):
            solid = draws.pick(scene.solids)
            for name in draws.shuffled(ATTRIBUTES)[: draws.whole(1, 2)]:
                changed: dict[str, Any] = {name: another(VALUES[name], getattr(solid, name), draws)}
                solid = solid.but(**changed)
        else:
            solid = random_solid(draws)
        if solid.looks not in {one.looks for one in scene.solids}:
            return solid


def told_falsely(scene: Scene, draws: Draws) -> str:
    """Words for an object that fit none of the scene."""
    solid = absent(scene, draws)
    choices = [
        names
        for length in range(1, len(ATTRIBUTES) + 1)
        for names in combinations(ATTRIBUTES, length)
        if not any(all(getattr(one, name) == getattr(solid, name) for name in names) for one in scene.solids)
    ]
    # a size or material alone is seldom absent, and a colour alone is easy: longer words come as often as they do
    return phrase(solid, draws.pick(choices))


def told_truly(scene: Scene, draws: Draws) -> str:
    """Words for an object of the scene: two to four of its attributes, seldom one."""
    names = draws.shuffled(ATTRIBUTES)[: draws.pick((1, 2, 2, 3, 3, 4, 4, 4))]
    return phrase(draws.pick(scene.solids), names)


def existence_question(scene: Scene, draws: Draws) -> Asked:
    """Whether there is such an object; yes as often as no where the scene has any."""
    if scene.solids and draws.below(2):
        return Asked("existence", f"Is there {with_article(told_truly(scene, draws))}?", "yes")
    return Asked("existence", f"Is there {with_article(told_falsely(scene, draws))}?", "no")


def position_question(scene: Scene, draws: Draws) -> Asked | None:
    """On which side of another object something stands; None where no two have names and stand apart."""
    named = [(number, names[0]) for number in range(len(scene.solids)) if (names := names_without(scene, number, ""))]
    if len(named) < 2:
        return None
    (one, first), (other, second) = draws.shuffled(named)[:2]
    stands = scene.relationships()
    for side in draws.shuffled(("left", "front")):
        for said in (side, SIDES[side]):
            if one in stands[said][other]:
                choice = f"{ASKED_AS[side]} or {ASKED_AS[SIDES[side]]}"
                told = phrase(scene.solids[one], first), phrase(scene.solids[other], second)
                return Asked("position", f"Is the {told[0]} {choice} the {told[1]}?", ASKED_AS[said])
    return None


def place_question(scene: Scene, draws: Draws) -> Asked | None:
    """Which object stands at the far left or right."""
    if not scene.solids:
        return None
    order = from_left(scene)
    side = draws.pick(("leftmost", "rightmost"))
    return Asked("place", f"What is the {side} object?", phrase(scene.solids[order[0 if side == "leftmost" else -1]]))


def lists_question(scene: Scene, draws: Draws) -> Asked:
    """Which of two lists of clues fit: a list fits if all its clues do; both, A, B and neither come as often."""
    fits = [bool(draws.below(2)) and bool(scene.solids) for _ in range(2)]
    told = []
    for good in fits:
        parts = [told_truly(scene, draws) for _ in range(2)] if scene.solids else []
        if not good:
            parts = [*parts[:1], told_falsely(scene, draws)]
        told.append(", ".join(draws.shuffled([with_article(part) for part in parts])))
    answer = {(True, True): "both", (True, False): "A", (False, True): "B"}.get((fits[0], fits[1]), "neither")
    return Asked("lists", f"List A: {told[0]}. List B: {told[1]}. Which fit the picture?", answer)


def description(scene: Scene) -> Asked:
    """All objects in a sentence."""
    return Asked("caption", DESCRIBE, caption(scene) if scene.solids else NOTHING)


def enumeration(scene: Scene) -> Asked:
    """All objects in a list."""
    return Asked("list", LIST, "; ".join(object_list(scene)) if scene.solids else "nothing")


QUESTIONS: dict[str, Callable[[Scene, Draws], Asked | None]] = {
    "color": lambda scene, draws: attribute_question(scene, "color", draws),
    "shape": lambda scene, draws: attribute_question(scene, "shape", draws),
    "size": lambda scene, draws: attribute_question(scene, "size", draws),
    "material": lambda scene, draws: attribute_question(scene, "material", draws),
    "position": position_question,
    "place": place_question,
    "count": count_question,
    "existence": existence_question,
    "lists": lists_question,
    "caption": lambda scene, _: description(scene),
    "list": lambda scene, _: enumeration(scene),
}


def questions_about(scene: Scene, draws: Draws, kinds: Iterable[str] = QUESTIONS) -> list[Asked]:
    """A question of each of these kinds, without those that the scene does not allow."""
    return [asked for kind in kinds if (asked := QUESTIONS[kind](scene, draws)) is not None]


CHARTS = {  #: how a kind of chart is called, and what it counts
    "bar": ("bar chart", "bar"),
    "barh": ("horizontal bar chart", "bar"),
    "grouped": ("grouped bar chart", "group"),
    "line": ("line chart", "point"),
    "pie": ("pie chart", "slice"),
}
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def chart_questions(table: Table, draws: Draws) -> list[Asked]:
    """Questions about a chart: its kind, how much it shows, what is largest; and a description.

    Things are counted from the left, from the top in a horizontal bar chart, clockwise in a pie.
    """
    name, part = CHARTS[table.kind]
    count = len(table.categories)
    words = f"{with_article(name)} with {counted(count, part)}"
    asked = [
        Asked("chart kind", "What kind of chart is this?", name),
        Asked("chart count", f"How many {part}s does the chart have?", str(count)),
    ]
    if len(table.series) == 1 and count <= len(ORDER):
        ((_, values),) = table.series
        largest = values.index(max(values))
        if values.count(values[largest]) == 1:
            asked.append(Asked("chart largest", f"Which {part} is the largest?", ORDER[largest]))
            words += f"; the {ORDER[largest]} is the largest"
        one, other = draws.shuffled(range(count))[:2]
        if values[one] != values[other]:
            larger = one if values[one] > values[other] else other
            question = f"Which {part} is larger, the {ORDER[one]} or the {ORDER[other]}?"
            asked.append(Asked("chart compare", question, ORDER[larger]))
    elif len(table.series) > 1:
        words += f" of {counted(len(table.series), 'series').removesuffix('s')}"
    asked.append(Asked("chart caption", DESCRIBE, f"This is {words}."))
    return asked
