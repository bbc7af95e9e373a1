"""Scenes as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolroll.segment.masks import encode
from toolroll.segment.prompts import Prompts
from toolroll.segment.scenes import Scene


def rows_of(scene: Scene, classes: Prompts, path: str, ask: str) -> Iterator[dict[str, Any]]:
    """The row of a scene; with `ask` "each" one for every class it has, with "present" one that asks for these."""
    here = {segment.name for segment in scene.segments}
    present = tuple(words for words in classes if words[0] in here)
    row: dict[str, Any] = {"id": scene.id, "image": path, "prompts": plain(classes if ask == "all" else present)}
    truth = [{"prompt": segment.name, "rle": encode(segment.mask)} for segment in scene.segments]
    rest: dict[str, Any] = {"truth": truth}
    if scene.ignore is not None and scene.ignore.any():
        rest["ignore"] = encode(scene.ignore)
    if ask != "each":
        yield {**row, **rest}
        return
    for words in present:
        yield {**row, "id": f"{scene.id}/{words[0]}", "prompts": plain((words,)), **rest}


def plain(prompts: Prompts) -> list[Any]:
    """Prompts as a record has them: a name, or a list of a name and its synonyms.

    >>> plain((("sky",), ("road", "street")))
    ['sky', ['road', 'street']]
    """
    return [words[0] if len(words) == 1 else list(words) for words in prompts]
