"""What a text names, compared with what there is: precision, recall, F1, CHAIR.

With M the distinct things a text names, G those there are, and F the ones of M that there are:

    precision = |F| / |M|    recall = |found of G| / |G|    F1 = 2 P R / (P + R)
    CHAIR_i = mentions of what there is not / all mentions    CHAIR_s = share of texts with such a mention

CHAIR_i counts a thing as often as it is named; of distinct things it is 1 - precision. Source of CHAIR: Rohrbach et al.
2018, arXiv:1809.02156. A share of nothing is None.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from toolroll.errors import RowError, ToolrollError
from toolroll.preference.answers import CJK
from toolroll.world.words import ATTRIBUTES, VALUES, Mention, mentions

Thing = Hashable
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’][^\W_{CJK}]+)?")
_IN_CJK = re.compile(rf"(?<=[{CJK}]) (?=[{CJK}])")  # a space that no text has


class Reader(Protocol):
    """How texts and lists of objects are read."""

    def named(self, text: str) -> list[Any]:
        """The things a text names, in its order, as often as it does."""

    def there(self, objects: Sequence[Any]) -> list[Any]:
        """The distinct things of a list of objects. RowError for one that is none."""

    def fits(self, named: Any, there: Any) -> bool:
        """Whether something named may be something that is there."""

    def said(self, thing: Any) -> str:
        """A thing in words."""


class Scenes:
    """Objects of CLEVR's world by size, colour, material and shape.

    What one of the two does not say is not held against it: a red cube may be a small red rubber cube.

    >>> Scenes().named("A shiny red ball and two balls")
    [Mention(size=None, color='red', material='metal', shape='sphere'), Mention(size=None, color=None, material=None, \
shape='sphere')]
    """

    def named(self, text: str) -> list[Mention]:
        """The objects a text names."""
        return mentions(text)

    def there(self, objects: Sequence[Any]) -> list[Mention]:
        """The distinct objects of a list of words or of a scene's JSON."""
        return list(dict.fromkeys(_solid(one) for one in objects))

    def fits(self, named: Mention, there: Mention) -> bool:
        """Whether no attribute that both have differs."""
        return all(
            None in (one := (getattr(named, name), getattr(there, name))) or one[0] == one[1] for name in ATTRIBUTES
        )

    def said(self, thing: Mention) -> str:
        """An object in words."""
        words = [value for name in ATTRIBUTES if (value := getattr(thing, name)) is not None]
        return " ".join(words if thing.shape else [*words, "object"])


class Synonyms:
    """Things by the words for them: a table of names, each with further words. The longest words are taken first.

    Plurals of -s, -es, -ies and -ves are found. `other` are words that name nothing of the table. An object of a list
    that is not in the table is looked for by its own words. In Chinese, Japanese and Korean, which do not part words as
    others do, every character is one.

    >>> table = Synonyms({"dog": ["puppy"], "hot dog": []})
    >>> table.named("Two puppies and a hot dog.")
    ['dog', 'hot dog']
    """

    def __init__(self, table: Mapping[str, Sequence[str]], other: Sequence[str] = ()) -> None:
        self._names: dict[tuple[str, ...], str | None] = {_words(word): None for word in other}
        for name, more in table.items():
            for word in (name, *more):
                if not (key := _words(word)):
                    raise ValueError(f"{word!r} has no letters")
                if self._names.setdefault(key, name) != name:
                    raise ValueError(f"{word!r} names both {self._names[key]} and {name}")
        self._own = dict(self._names)
        self._longest = max(map(len, self._names), default=0)

    def named(self, text: str) -> list[str]:
        """The things a text names."""
        return self._all(_words(text))

    def there(self, objects: Sequence[Any]) -> list[str]:
        """The distinct things of a list of words; until the next list, texts are searched for these words too."""
        self._names = dict(self._own)
        self._longest = max(map(len, self._names), default=0)
        found = []
        for one in objects:
            if not isinstance(one, str) or not (key := _words(one)):
                raise RowError(f"an object that is no word: {one!r}")
            known = self._all(key)
            name = known[0] if len(known) == 1 else _IN_CJK.sub("", " ".join(key))
            if not known:
                self._names[key] = name
                self._longest = max(self._longest, len(key))
            found.append(name)
        return list(dict.fromkeys(found))

    def fits(self, named: str, there: str) -> bool:
        """Whether they are the same."""
        return named == there

    def said(self, thing: str) -> str:
        """The name."""
        return thing

    def _all(self, words: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        at = 0
        while at < len(words):
            lengths = range(min(self._longest, len(words) - at), 0, -1)
            key = next((key for length in lengths if (key := self._known(words[at : at + length]))), None)
            name = self._names[key] if key else None
            if name is not None:
                found.append(name)
            at += len(key or (1,))
        return found

    def _known(self, words: tuple[str, ...]) -> tuple[str, ...] | None:
        *head, last = words
        return next((key for form in _singular(last) if (key := (*head, form)) in self._names), None)


@dataclass(frozen=True, slots=True)
class Compared:
    """A text and what there is. `named` as often as it is; `wrong` of these; `missed` is there and not named."""

    named: list[str]
    distinct: list[str]
    wrong: list[str]
    n_wrong: int
    missed: list[str]
    n_there: int

    def scores(self) -> dict[str, float | None]:
        """The shares of one text."""
        found = self.n_there - len(self.missed)
        return shares(len(self.named), self.n_wrong, len(self.distinct), len(self.wrong), self.n_there, found)


def compared(reader: Reader, text: str, objects: Sequence[Any]) -> Compared:
    """Compare a text with a list of objects.

    Each distinct thing that is named stands for one that is there, so that vague words do not cover all.

    >>> found = compared(Scenes(), "A red cube, a blue sphere, a yellow sphere; the red cube again.",
    ...     ["red cube", "blue sphere", "green cylinder"])
    >>> found.wrong, found.missed, found.scores()["chair_i"]
    (['yellow sphere'], ['green cylinder'], 0.25)
    """
    there = reader.there(objects)
    named = reader.named(text)
    distinct = list(dict.fromkeys(named))
    right = {thing for thing in distinct if any(reader.fits(thing, one) for one in there)}
    found = _matched([[at for at, one in enumerate(there) if reader.fits(thing, one)] for thing in distinct])
    return Compared(
        named=[reader.said(thing) for thing in named],
        distinct=[reader.said(thing) for thing in distinct],
        wrong=[reader.said(thing) for thing in distinct if thing not in right],
        n_wrong=sum(thing not in right for thing in named),
        missed=[reader.said(one) for at, one in enumerate(there) if at not in found],
        n_there=len(there),
    )


def shares(named: int, wrong: int, distinct: int, distinct_wrong: int, there: int, found: int) -> dict[str, Any]:
    """The shares by counts: of all mentions, of distinct ones, of what is there.

    >>> shares(4, 1, 3, 1, 3, 2)["f1"]
    0.6666666666666666
    """
    precision = _share(distinct - distinct_wrong, distinct)
    recall = _share(found, there)
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "chair_i": _share(wrong, named),
        "chair_i_unique": _share(distinct_wrong, distinct),
    }


@dataclass(slots=True)
class Sums:
    """The counts of many texts, and the shares of all together: each mention weighs alike, whichever text it is in."""

    texts: int = 0
    with_mentions: int = 0
    with_wrong: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * 6)

    def add(self, one: Compared) -> None:
        """Count a text."""
        self.texts += 1
        self.with_mentions += bool(one.named)
        self.with_wrong += one.n_wrong > 0
        own = (len(one.named), one.n_wrong, len(one.distinct), len(one.wrong), one.n_there)
        for place, number in enumerate((*own, one.n_there - len(one.missed))):
            self.counts[place] += number

    def report(self) -> dict[str, Any]:
        """The shares, and what they are of."""
        return {
            "n_texts": self.texts,
            "n_mentions": self.counts[0],
            "n_unique": self.counts[2],
            "n_objects": self.counts[4],
            **shares(*self.counts),
            "chair_s": _share(self.with_wrong, self.texts),
            "chair_s_refined": _share(self.with_wrong, self.with_mentions),
        }


def for_people(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A report as a row of a table."""

    def told(name: str, whole: str) -> str:
        return "-" if record[name] is None else f"{record[name]:.3f} (n={record[whole]})"

    return {
        **{name: record[name] for name in names},
        "texts": record["n_texts"],
        "precision": told("precision", "n_unique"),
        "recall": told("recall", "n_objects"),
        "F1": record["f1"],
        "CHAIR_i": told("chair_i", "n_mentions"),
        "unique": record["chair_i_unique"],
        "CHAIR_s": record["chair_s"],
        "refined": record["chair_s_refined"],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _matched(edges: Sequence[Sequence[int]]) -> dict[int, int]:
    """As many of the things that are there as possible, each with the one named thing that stands for it."""
    taken: dict[int, int] = {}

    def place(one: int, seen: set[int]) -> bool:
        for at in edges[one]:
            if at not in seen:
                seen.add(at)
                if at not in taken or place(taken[at], seen):
                    taken[at] = one
                    return True
        return False

    for one in range(len(edges)):
        place(one, set())
    return taken


def _solid(one: Any) -> Mention:
    if isinstance(one, str):
        found = mentions(one)
        if len(found) != 1:
            raise RowError(f"{one!r} is no object of CLEVR's world (for other words: --synonyms)")
        return found[0]
    if not isinstance(one, Mapping):
        raise RowError(f"an object that is neither words nor an object of a scene: {one!r}")
    given = {name: one.get(name) for name in ATTRIBUTES}
    for name, value in given.items():
        if value is not None and value not in VALUES[name]:
            raise RowError(f"the scene has an object whose {name} is {value!r}")
    if not any(given.values()):
        raise RowError("the scene has an object without size, color, material and shape")
    return Mention(**given)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower().replace("’s ", "'s ")))


def _singular(word: str) -> list[str]:
    forms = [word]
    for end, instead in (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("'s", "")):
        if word.endswith(end) and len(word) > len(end) + 1:
            forms.append(word.removesuffix(end) + instead)
    return forms


def read_synonyms(path: Path) -> Synonyms:
    """A table of words: a file with one JSON object {name: [word, ...]}. ToolrollError for what is none."""
    try:
        table = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    except orjson.JSONDecodeError as error:
        raise ToolrollError(f"not JSON: {error}", place=str(path)) from error
    lists = isinstance(table, dict) and all(isinstance(words, list) for words in table.values())
    if not lists or not all(isinstance(word, str) for words in table.values() for word in words):
        raise ToolrollError("expected one object of names, each with a list of words", place=str(path))
    try:
        return Synonyms(table)
    except (ValueError, RecursionError) as error:
        raise ToolrollError(str(error), place=str(path)) from error
