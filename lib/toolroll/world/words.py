"""Scenes in words, and words about scenes: objects, counts, relations, captions, and what a text mentions.

Training data and evaluations take their words from here. An object is told as "size colour material shape"; the
synonyms are those of CLEVR's questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from toolroll.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from toolroll.world.scene import Scene, Solid

ATTRIBUTES = ("size", "color", "material", "shape")  #: in the order in which they are said
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
RELATION_WORDS = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
SYNONYMS = {  #: of an attribute's value, besides itself
    "large": ("big",),
    "small": ("tiny", "little"),
    "gray": ("grey",),
    "rubber": ("matte",),
    "metal": ("metallic", "shiny"),
    "cube": ("block",),
    "sphere": ("ball",),
    "cylinder": (),
}
NOUNS = ("thing", "object", "item", "one")  #: for a shape that is not named
VALUES = {"size": tuple(SIZES), "color": tuple(COLORS), "material": MATERIALS, "shape": SHAPES}
_MEANING = {
    word: (attribute, value)
    for attribute, values in VALUES.items()
    for value in values
    for word in (value, *SYNONYMS.get(value, ()))
}


def phrase(solid: Solid, attributes: Sequence[str] = ATTRIBUTES) -> str:
    """An object by these of its attributes, without article.

    >>> from toolroll.world.scene import Solid
    >>> cube = Solid("cube", "small", "red", "rubber", 0, 0, 0, 0.2475)
    >>> phrase(cube), phrase(cube, ("size", "color"))
    ('small red rubber cube', 'small red object')
    """
    words = [str(getattr(solid, name)) for name in ATTRIBUTES if name in attributes]
    return " ".join(words if "shape" in attributes else [*words, "object"])


def with_article(words: str) -> str:
    """`words` behind "a" or "an".

    >>> with_article("orange"), with_article("small cube")
    ('an orange', 'a small cube')
    """
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def described(solid: Solid) -> str:
    """An object in words: "a small red rubber cube"."""
    return with_article(phrase(solid))


def counted(number: int, words: str) -> str:
    """So many of an object.

    >>> counted(0, "red cube"), counted(1, "red cube"), counted(2, "red cube"), counted(12, "object")
    ('no red cubes', 'one red cube', 'two red cubes', '12 objects')
    """
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{word} {words}{'' if number == 1 else 's'}"


def name_of(scene: Scene, number: int) -> str | None:
    """The shortest words that fit this object of a scene and no other; None where its like is there twice.

    Of words that are equally short those with the shape are taken, then those with the colour.
    """
    solid = scene.solids[number]
    others = [other for i, other in enumerate(scene.solids) if i != number]
    for length in range(1, len(ATTRIBUTES) + 1):
        choices = combinations(ATTRIBUTES, length)
        for names in sorted(choices, key=lambda names: ("shape" not in names, "color" not in names)):
            if not any(all(getattr(other, name) == getattr(solid, name) for name in names) for other in others):
                return f"the {phrase(solid, names)}"
    return None


def counts(scene: Scene) -> Counter[tuple[str, str]]:
    """How many objects have each (attribute, value)."""
    return Counter((name, str(getattr(solid, name))) for solid in scene.solids for name in ATTRIBUTES)


def from_left(scene: Scene) -> list[int]:
    """The numbers of the objects, from left to right as the camera sees them."""
    width, height = 320, 240  # the order is the same for every size
    return sorted(
        range(len(scene.solids)), key=lambda i: scene.camera.project(scene.solids[i].center, width, height)[0]
    )


def listed(parts: Sequence[str]) -> str:
    """Parts with commas and "and".

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last


def object_list(scene: Scene) -> list[str]:
    """Every object of a scene in words, from left to right; its like may come twice."""
    return [phrase(scene.solids[number]) for number in from_left(scene)]


def caption(scene: Scene) -> str:
    """All objects of a scene in a sentence or two, from left to right; those that look the same are counted."""
    kinds = Counter(object_list(scene))
    parts = [with_article(words) if number == 1 else counted(number, words) for words, number in kinds.items()]
    total = len(scene.solids)
    if total == 1:
        return f"There is {parts[0]}."
    return f"There are {counted(total, 'object')}: {listed(parts)}."


def relations(scene: Scene) -> Iterator[tuple[int, str, int, str]]:
    """(object, relation, other object, sentence) for all that stand so and have names of their own."""
    names = [name_of(scene, number) for number in range(len(scene.solids))]
    for relation, rows in scene.relationships().items():
        for other, row in enumerate(rows):
            for one in row:
                if names[one] and names[other]:
                    yield one, relation, other, f"{names[one]} is {RELATION_WORDS[relation]} {names[other]}"


@dataclass(frozen=True, slots=True)
class Mention:
    """An object that a text names; None for what it does not say."""

    size: str | None = None
    color: str | None = None
    material: str | None = None
    shape: str | None = None

    def fits(self, solid: Solid) -> bool:
        """Whether an object has all that is said."""
        return all(getattr(self, name) in (None, getattr(solid, name)) for name in ATTRIBUTES)


def mentions(text: str) -> list[Mention]:
    """The objects a text names, in its order: a noun and what stands right before it.

    >>> mentions("Two shiny red balls, and a tiny thing of rubber")
    [Mention(size=None, color='red', material='metal', shape='sphere'), Mention(size='small', color=None, \
material=None, shape=None)]
    """
    return [mention for mention, _ in placed_mentions(text)]


def placed_mentions(text: str) -> Iterator[tuple[Mention, int]]:
    """The objects a text names, each with where its noun ends."""
    said: dict[str, str] = {}
    for found in re.finditer(r"[a-z]+|[^\sa-z]", text.lower()):
        word = found[0]
        base = word if word in _MEANING or word in NOUNS else word.removesuffix("s")
        attribute, value = _MEANING.get(base, ("", ""))
        if attribute == "shape" or base in NOUNS:
            # "one" is also a number, and "things" without any attribute names nothing
            if attribute == "shape" or said:
                yield Mention(**said, **({"shape": value} if attribute else {})), found.end()
            said = {}
        elif attribute:
            said[attribute] = value
        else:
            said = {}
