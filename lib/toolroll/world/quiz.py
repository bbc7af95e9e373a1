"""Questions about the images of pairs whose answers can be checked: what pair-quiz writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolroll.errors import RowError
from toolroll.run.seeds import record_seed
from toolroll.world.clevr import scene_of
from toolroll.world.draws import Draws
from toolroll.world.questions import QUESTIONS, Asked, chart_questions
from toolroll.world.scene import Scene
from toolroll.world.tables import table_of

Which = Literal["original", "modified"]
KINDS = {  #: questions with one right answer; descriptions have many
    "scenes": tuple(kind for kind in QUESTIONS if kind not in ("caption", "list")),
    "charts": ("chart-kind", "chart-count", "chart-largest", "chart-compare"),
}


@dataclass(frozen=True, slots=True)
class Quiz:
    """`count` questions about the `which` image of each pair, each of another of `kinds` as long as there are any.

    The seed and the pair's id determine them.
    """

    count: int
    kinds: Sequence[str]
    which: Which
    seed: int

    def about(self, pair: Any) -> Iterator[dict[str, Any]]:
        """Rows (`records.world.QuizItem`). RowError where nothing says what the image shows."""
        draws = Draws(record_seed(self.seed, pair.id, self.which))
        name = getattr(pair, self.which)
        if name is None:
            raise RowError(f"no path of the image (`{self.which}`)")
        kind, asked = self._asked(pair, draws)
        shown = "" if self.which == "original" else "modified/"
        for number, one in enumerate(asked):
            again = sum(other.kind == one.kind for other in asked[:number])
            yield {
                "id": f"{pair.id}/{shown}{one.kind}{f'-{again + 1}' if again else ''}",
                "pair": pair.id,
                "kind": kind,
                "distribution": one.kind,
                "prompt": one.question,
                "images": [name],
                "answer": one.answer,
            }

    def _asked(self, pair: Any, draws: Draws) -> tuple[str, list[Asked]]:
        """What the image shows, and the questions; fewer than `count` where it allows no more."""
        scene, table = getattr(pair, f"{self.which}_scene"), getattr(pair, f"{self.which}_table")
        if scene is not None:
            return "scenes", self._of_scene(scene_of(scene), draws)
        if table is not None:
            asked = [
                Asked(one.kind.replace(" ", "-"), one.question, one.answer)
                for one in chart_questions(table_of(table), draws)
            ]
            return "charts", draws.shuffled([one for one in asked if one.kind in self.kinds])[: self.count]
        raise RowError(f"nothing says what the image shows (no `{self.which}_scene`, no `{self.which}_table`)")

    def _of_scene(self, scene: Scene, draws: Draws) -> list[Asked]:
        """One question of each kind, then another of each, until there are enough or nothing new comes."""
        found: dict[str, Asked] = {}
        kinds = [kind for kind in KINDS["scenes"] if kind in self.kinds]
        before = -1
        while before < len(found) < self.count:
            before = len(found)
            for kind in draws.shuffled(kinds):
                asked = QUESTIONS[kind](scene, draws)
                if asked is not None:
                    found.setdefault(asked.question, asked)
        return list(found.values())[: self.count]
