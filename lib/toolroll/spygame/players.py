"""Who sits at the table: models, and players who follow simple rules. Both answer many turns of many games at once."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

from toolroll.errors import RowError
from toolroll.models.base import Message, Sampling
from toolroll.models.picture_rollouts import answer_fields
from toolroll.models.pictures import ImageTextEngine, Request
from toolroll.spygame.game import Ask, Rules
from toolroll.spygame.pictures import Picture
from toolroll.spygame.prompts import Templates
from toolroll.world.constants import COLORS, SHAPES

RULES = "rules"  #: the name of the players who follow rules
Sight = Literal["auto", "images", "words"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn to answer: what is asked, by what rules, and what the player's picture is."""

    ask: Ask
    rules: Rules
    picture: Picture
    domain: str
    kind: str


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: the text, and `fields` of the turn's record (`records.spygame.SpyTurn`)."""

    text: str
    fields: dict[str, Any]


class Player(Protocol):
    """Somebody who answers turns."""

    name: str  #: for records

    def begin(self) -> None:
        """Games begin: nothing of earlier ones may be left, as it would change the last bits of what it says."""

    def look(self, picture: Picture) -> None:
        """RowError where it cannot play with this picture."""

    def answer(self, turns: Sequence[Turn]) -> list[Said | Exception]:
        """Answers to all turns, in order; a RowError in the place of one that cannot be answered."""

    def close(self) -> None:
        """Free what it holds."""


class ModelPlayer:
    """A model. `sight`: whether it gets pictures as images or in words; auto asks the model which it can take.

    `sampling` says how its texts are drawn, but for the seed, which is each turn's own. `system` goes before each
    prompt.
    """

    def __init__(
        self,
        engine: ImageTextEngine,
        templates: Templates,
        sampling: Sampling,
        *,
        sight: Sight = "auto",
        system: str | None = None,
    ) -> None:
        self.engine = engine
        self.name = engine.name
        self._templates = templates
        self._sampling = sampling
        self._sees = engine.takes_images if sight == "auto" else sight == "images"
        self._system = system

    @property
    def identity(self) -> str:
        """Back end, model and, where they are known, weights."""
        return f"{self.name}@{self.engine.weights_id}" if self.engine.weights_id else self.name

    def begin(self) -> None:
        """Let the model forget what it has read of pictures."""
        forget = getattr(self.engine, "forget", None)
        if forget is not None:
            forget()

    def look(self, picture: Picture) -> None:
        """RowError where there is no image, or there are no words for it."""
        if self._sees:
            picture.seen()
        else:
            picture.told()

    def answer(self, turns: Sequence[Turn]) -> list[Said | Exception]:
        """Answers to all turns, all of them in one batch."""
        requests: dict[int, Request] = {}
        found: dict[int, Said | Exception] = {}
        for place, turn in enumerate(turns):
            try:
                requests[place] = self._request(turn)
            except RowError as error:
                found[place] = error
        for (place, request), written in zip(
            requests.items(), self.engine.answer(requests.values()) if requests else [], strict=True
        ):
            if isinstance(written, Exception):
                found[place] = written
                continue
            fields = {
                "messages": list(request.messages),
                **({"images": [turns[place].picture.name]} if request.images else {}),
                **answer_fields(self.engine, request, written),
            }
            found[place] = Said(written.text, fields)
        return [found[place] for place in range(len(turns))]

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

    def _request(self, turn: Turn) -> Request:
        text = self._templates.prompt(turn.ask, turn.rules, turn.domain, kind=turn.kind)
        images = (turn.picture.seen(),) if self._sees else ()
        if not self._sees:
            text = f"{turn.picture.told()}\n\n{text}"
        messages: list[Message] = [{"role": "user", "content": text}]
        if self._system is not None:
            messages.insert(0, {"role": "system", "content": self._system})
        return Request(messages, replace(self._sampling, seed=turn.ask.seed), images)


class RulePlayer:
    """Plays by the scene itself, without a model, for tests and to try things out.

    A civilian names one of its objects by colour and shape, one that nobody has named if there is one. The spy names
    any of its own, or makes one up where its scene is empty; with the probability `copy` it repeats a clue of another
    instead, if there is one. A voter counts the clues of each player that name what its own scene has not, and votes
    for the player with most of them, or N/A where there is none or not only one.
    """

    name = RULES

    def __init__(self, *, copy: float = 0.0) -> None:
        self._copy = copy
        self._seen: tuple[Picture | None, list[tuple[str, str]]] = (None, [])  # many turns in a row have one picture

    def begin(self) -> None:
        """Nothing to forget."""

    def look(self, picture: Picture) -> None:
        """RowError where nothing says what the scene is."""
        if picture.things is None:
            raise RowError(
                "players by rules need `original_scene` and `modified_scene`, as pair-make scenes writes them"
            )

    def answer(self, turns: Sequence[Turn]) -> list[Said | Exception]:
        """Answers to all turns."""
        found: list[Said | Exception] = []
        for turn in turns:
            try:
                text = self._text(turn)
            except RowError as error:
                found.append(error)
            else:
                found.append(Said(text, {"response": text}))
        return found

    def close(self) -> None:
        """Nothing to free."""

    def _text(self, turn: Turn) -> str:
        self.look(turn.picture)
        if turn.picture is not self._seen[0]:
            self._seen = (turn.picture, _kinds(turn.picture))
        own = self._seen[1]
        return self._clue(turn.ask, own) if turn.ask.stage == "clue" else self._vote(turn.ask, own)

    def _clue(self, ask: Ask, own: list[tuple[str, str]]) -> str:
        draws = random.Random(ask.seed)
        heard = [remark.clue for remark in ask.heard if remark.player != ask.player and remark.clue]
        if ask.role == "spy" and heard and draws.random() < self._copy:
            return f"I say what another said. \\boxed{{{draws.choice(heard)}}}"
        things = own or [(draws.choice(tuple(COLORS)), draws.choice(SHAPES))]
        if ask.role == "civilian":
            said = {thing for remark in ask.heard if remark.clue for thing in named(remark.clue)}
            things = [thing for thing in things if thing not in said] or things
        color, shape = draws.choice(things)
        return f"I say what I have. \\boxed{{There is a {color} {shape}.}}"

    def _vote(self, ask: Ask, own: list[tuple[str, str]]) -> str:
        wrong: dict[int, int] = {}
        for remark in ask.heard:
            if remark.player != ask.player and any(thing not in own for thing in named(remark.clue or "")):
                wrong[remark.player] = wrong.get(remark.player, 0) + 1
        most = [player for player, count in wrong.items() if count == max(wrong.values())]
        if len(most) == 1:
            return f"Its clues do not fit my picture. \\boxed{{{most[0]}}}"
        return r"The clues do not tell. \boxed{N/A}"


def _kinds(picture: Picture) -> list[tuple[str, str]]:
    """The colours and shapes of its objects, each pair of them once."""
    return list(dict.fromkeys((str(thing.get("color")), str(thing.get("shape"))) for thing in picture.things or ()))


_THING = re.compile(rf"\b({'|'.join(COLORS)})(?: \w+)? ({'|'.join(SHAPES)})")


@lru_cache(maxsize=4096)
def named(clue: str) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) of the objects that a clue names.

    >>> named("There is a red metal cube behind a blue sphere.")
    (('red', 'cube'), ('blue', 'sphere'))
    """
    return tuple((found[1], found[2]) for found in _THING.finditer(clue))
