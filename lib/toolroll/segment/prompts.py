"""What is looked for in an image: classes, each with its synonyms, and the sentences they are put into.

A class is a tuple of phrases, its name first. In one line of text a semicolon ends a class and a comma a synonym, as in
"sky; road, street; car". Prompts decide what a model proposes, so two of them that are the same are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from toolroll.errors import RowError, ToolrollError, UsageError

_NUMBER = re.compile(r"^\s*\d+\s*:(?!\d)")  # "3:sky", not "10:30 clock"
Prompts = tuple[tuple[str, ...], ...]

#: The 14 sentences of ViLD that FC-CLIP, SAN and OVSeg use.
VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)


def read_prompts(text: str) -> Prompts:
    """The classes of a line of text. RowError for none, an empty one, or one that is there twice.

    >>> read_prompts("sky; road, street; car")
    (('sky',), ('road', 'street'), ('car',))
    """
    if not text.strip():
        raise RowError("no prompts")
    parts = text.split(";")
    if len(parts) > 1 and not parts[-1].strip():  # a semicolon at the end
        parts.pop()
    return checked(part.split(",") for part in parts)


def given_prompts(value: Any) -> Prompts:
    """The classes of a record's field: a line of text, or a list of names and of lists of synonyms.

    >>> given_prompts(["sky", ["road", "street"]])
    (('sky',), ('road', 'street'))
    """
    if isinstance(value, str):
        return read_prompts(value)
    if not isinstance(value, list):
        raise RowError("`prompts` is neither a text nor a list")
    return checked([one] if isinstance(one, str) else one for one in value)


def shortened(text: str) -> str:
    """A text as messages have it.

    >>> len(shortened("sky" * 1000))
    60
    """
    return text if len(text) <= 60 else f"{text[:57]}..."


def checked(classes: Iterable[Any]) -> Prompts:
    """Classes with their spaces set right, if they are sound."""
    made: list[tuple[str, ...]] = []
    owner: dict[str, str] = {}
    for given in classes:
        if not isinstance(given, Sequence) or not all(isinstance(word, str) for word in given):
            raise RowError("a prompt is neither a text nor a list of texts")
        words = tuple(" ".join(word.split()) for word in given)
        if not words or not all(words):
            raise RowError("a prompt is empty" if made or words else "no prompts")
        for word in words:
            key = word.casefold()
            if key in owner:
                raise RowError(f"the prompt {shortened(word)!r} is there twice")
            owner[key] = words[0]
        made.append(words)
    if not made:
        raise RowError("no prompts")
    return tuple(made)


def read_prompts_file(path: Path) -> Prompts:
    """The classes of a file: one a line, `name,synonym,...`, with `id:` in front or not; blank lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(why or str(error), place=str(path)) from error
    bare = [_NUMBER.sub("", line) for line in lines if line.strip()]
    try:
        return checked(line.rstrip().rstrip(";").split(",") for line in bare)
    except RowError as error:
        raise UsageError(error.why, place=str(path)) from error


def read_templates(name: str) -> tuple[str, ...]:
    """The sentences named `vild` or `none`, or those of a file, a line each, with {} where the phrase goes."""
    if name in ("vild", "none"):
        return VILD if name == "vild" else ("{}",)
    try:
        lines = tuple(line.strip() for line in Path(name).read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("neither vild nor none nor a file of templates", place=f"--templates {name}") from error
    for line in lines:
        if line.count("{}") != 1:
            raise UsageError(f"no {{}}, or more than one, in {line!r}", place=name)
    if not lines:
        raise UsageError("no template", place=name)
    return lines


def seen_in(prompts: Prompts, trained: Iterable[str]) -> list[bool]:
    """Whether each class was trained: one of its phrases is one of `trained`.

    >>> seen_in((("road", "street"), ("cow",)), ["street"])
    [True, False]
    """
    known = {word.casefold() for word in trained}
    return [any(word.casefold() in known for word in words) for words in prompts]


def with_background(prompts: Prompts, name: str) -> Prompts:
    """The classes and one more for what is none of them; a class of that name is left as it is. "void" adds none."""
    if name == "void" or any(name.casefold() == word.casefold() for words in prompts for word in words):
        return prompts
    if not name.strip():
        raise ToolrollError("the background has no name", place="--background-class")
    return (*prompts, (name,))
