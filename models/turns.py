"""What is said about a picture while sprite learns: questions and their answers, captions, and turns of the game."""

from __future__ import annotations

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
OFTEN = (  #: kinds of questions that fill up a row, each as often as it stands here
    *ATTRIBUTES * 2,
    *["existence"] * 5,
    *["lists"] * 3,
    *["count"] * 3,
    *["position"] * 3,
    "place",
)


def turns_of(about: Scene | Table, draws: Draws, count: int) -> list[Asked]:
    """About `count` turns on a picture: a caption, often a list, a clue and a vote, the rest questions."""
    if isinstance(about, Table):
        return chart_questions(about, draws)
    told = [description(about) if draws.below(3) else enumeration(about)]
    if draws.below(3):
        told.append(clue_turn(about, draws))
    if about.solids and draws.below(2):
        told.append(vote_turn(about, draws))
    while len(told) < count:
        kind = draws.pick(OFTEN)
        asked = attribute_question(about, kind, draws) if kind in ATTRIBUTES else QUESTIONS[kind](about, draws)
        if asked is not None:
            told.append(asked)
        elif not about.solids:
            kind = draws.pick(("existence", "count", "lists"))
            told += [one for one in [QUESTIONS[kind](about, draws)] if one is not None]
    return told
