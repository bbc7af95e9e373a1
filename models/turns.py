"""What is said about a picture while sprite learns: questions and their answers, captions, and turns of the game."""

from __future__ import annotations

from dataclasses import dataclass

from toolroll.world.draws import Draws
from toolroll.world.game import clue_turn, vote_turn
from toolroll.world.questions import (
    QUESTIONS,
    Asked,
    attribute_question,
    chart_questions,
    description,
    enumeration,
)
from toolroll.world.scene import Scene
from toolroll.world.tables import Table

ATTRIBUTES = ("color", "shape", "material", "size")


@dataclass(frozen=True)
class Lesson:
    """What is asked: kinds of questions that fill up a row, each as often as it stands here; how much the end of an
    answer weighs beside its other tokens; every how many batches have long turns, too; and how many votes that have
    nobody to name are drawn again.
    """

    questions: tuple[str, ...]
    ending: float = 1.0
    talk_every: int = 1
    again: int = 0


TALK = Lesson(
    (*ATTRIBUTES * 2, *["existence"] * 5, *["lists"] * 3, *["count"] * 3, *["position"] * 3, "place"),
)
#: what is slow to learn comes more often, a colour above all
ANSWERS = Lesson(
    (
        *["color"] * 4,
        *["shape", "material"] * 2,
        "size",
        *["existence"] * 3,
        *["lists"] * 3,
        *["count"] * 3,
        *["position"] * 3,
        "place",
    ),
    ending=0.2,
    talk_every=5,
)
#: what compares many names with the picture, and votes that dare to name somebody
PRACTICE = Lesson(
    (
        *["color"] * 3,
        *["shape", "material"] * 2,
        "size",
        *["existence"] * 4,
        *["lists"] * 4,
        *["count"] * 4,
        *["position"] * 3,
        "place",
    ),
    ending=0.2,
    talk_every=4,
    again=2,
)


def vote_of(scene: Scene, draws: Draws, again: int) -> Asked:
    """A vote; one that abstains is drawn anew up to `again` times."""
    found = vote_turn(scene, draws)
    for _ in range(again):
        if "N/A" not in found.answer:
            break
        found = vote_turn(scene, draws)
    return found


def turns_of(
    about: Scene | Table, draws: Draws, count: int, lesson: Lesson = TALK, *, talk: bool = True
) -> list[Asked]:
    """About `count` turns on a picture: with `talk` a caption, often a clue and a vote, the rest questions."""
    if isinstance(about, Table):
        return chart_questions(about, draws)
    told = [description(about) if draws.below(3) else enumeration(about)] if talk else []
    if talk and draws.below(3):
        told.append(clue_turn(about, draws))
    if talk and about.solids and not draws.below(3):
        told.append(vote_of(about, draws, lesson.again))
    while len(told) < count:
        kind = draws.pick(lesson.questions)
        asked = attribute_question(about, kind, draws) if kind in ATTRIBUTES else QUESTIONS[kind](about, draws)
        if asked is not None:
            told.append(asked)
        elif not about.solids:
            kind = draws.pick(("existence", "count", "lists"))
            told += [one for one in [QUESTIONS[kind](about, draws)] if one is not None]
    return told
