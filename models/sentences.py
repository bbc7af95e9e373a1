"""Sentences about scenes, true and false, as glance learns them and is measured by."""

from __future__ import annotations

from typing import Any

import numpy as np
from data import LOOKS

from toolroll.world.draws import Draws
from toolroll.world.edits import another
from toolroll.world.questions import VALUES, absent, told_falsely, told_truly
from toolroll.world.scene import Scene, Solid
from toolroll.world.words import ATTRIBUTES, caption, listed, mentions, object_list, phrase, with_article

KINDS = ("color", "shape", "object")  #: how a sentence is made false
MENTIONS = 10  #: objects that a sentence names, at most


def there_is(words: str) -> str:
    """A sentence about one object."""
    return f"There is {with_article(words)}."


def made_false(scene: Scene, solid: Solid, kind: str, draws: Draws) -> Solid | None:
    """`solid` with another colour or shape (or size, material), or any object, so that no object of the scene fits it.

    None where there is none among 20 tries.
    """
    looks = {one.looks for one in scene.solids}
    for _ in range(20):
        changed: dict[str, Any] = {} if kind == "object" else {kind: another(VALUES[kind], getattr(solid, kind), draws)}
        other = absent(scene, draws) if kind == "object" else solid.but(**changed)
        if other.looks not in looks:
            return other
    return None


def pair(scene: Scene, kind: str, draws: Draws) -> tuple[str, str] | None:
    """A true sentence about one object of a scene and the same made false."""
    solid = draws.pick(scene.solids)
    other = made_false(scene, solid, kind, draws)
    return None if other is None else (there_is(phrase(solid)), there_is(phrase(other)))


def caption_pair(scene: Scene, draws: Draws) -> tuple[str, str] | None:
    """A scene's caption, and the caption with one object made false."""
    number = draws.below(len(scene.solids))
    other = made_false(scene, scene.solids[number], draws.pick((*ATTRIBUTES, "object")), draws)
    if other is None:
        return None
    return caption(scene), caption(scene.with_solids([*scene.solids[:number], other, *scene.solids[number + 1 :]]))


def short_pair(scene: Scene, draws: Draws) -> tuple[str, str]:
    """Some of the attributes of an object, true and false; or a few objects, all of them there or all but one."""
    if draws.below(2):
        return there_is(told_truly(scene, draws)), there_is(told_falsely(scene, draws))
    named = draws.shuffled(object_list(scene))[: draws.whole(1, 3)]
    wrong = [phrase(absent(scene, draws)), *named[1:]]
    form = draws.pick(("{}", "There is {}.", "I see {}.", "The picture shows {}."))
    return tuple(form.format(listed([with_article(one) for one in which])) for which in (named, wrong))  # type: ignore[return-value]


def pairs(scene: Scene, draws: Draws) -> list[tuple[str, str]]:
    """The pairs of one training row: about one object twice, a short one, the caption."""
    kinds = (draws.pick(ATTRIBUTES), draws.pick((*ATTRIBUTES, "object", "object")))
    found = [pair(scene, kind, draws) for kind in kinds]
    found += [short_pair(scene, draws), caption_pair(scene, draws)]
    return [one for one in found if one is not None]


def codes(text: str) -> np.ndarray[Any, Any]:
    """What a sentence names: int8 [MENTIONS, 4], indices into LOOKS, -1 for what is not said, -2 for no mention."""
    table = np.full((MENTIONS, 4), -2, np.int8)
    for row, one in zip(table, mentions(text), strict=False):
        row[:] = [
            -1 if (said := getattr(one, name)) is None else LOOKS[k].index(said) for k, name in enumerate(ATTRIBUTES)
        ]
    return table


def fitting(named: np.ndarray[Any, Any], looks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether all that a sentence names is in a scene: bool [scenes, sentences].

    named: [sentences, MENTIONS, 4] of `codes`; looks: [scenes, objects, 4] with -1 for no object.
    """
    says = named[None, :, :, None]
    equal = (says == looks[:, None, None]) | (says == -1)
    fits = (equal.all(-1) & (looks[:, None, None, :, 0] >= 0)).any(-1)
    found: np.ndarray[Any, Any] = (fits | (named[None, :, :, 0] == -2)).all(-1)
    return found
