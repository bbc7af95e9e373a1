"""Sample spaces: inputs that nobody knows the output of, on which hypotheses are compared.

The spaces of the paper's data sets are made here as its released code makes them, number for number: lists of each
length, all of them where they are few, else so many different ones, drawn without repeating an element; and for grids
the different inputs of a whole data set. A space for other problems is described by a `Spec`.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from toolroll.errors import ToolrollError

__all__ = ["ACRE", "LIST_FUNCTION", "SEED", "Spec", "made", "paper_space", "read_spec", "sequences", "spec_file"]

PER_LENGTH = 1000  #: of the paper
SEED = 2025
COLOURS = ("blue", "brown", "cyan", "gray", "green", "purple", "red", "yellow")
MATERIALS = ("metal", "rubber")
SHAPES = ("cube", "cylinder", "sphere")
MOST = 1_000_000  #: values of which all are made; a larger number needs a `count`

Size = Annotated[int, Meta(ge=0)]
Range = Annotated[list[Size], Meta(min_length=2, max_length=2)]


class _Kind(msgspec.Struct, tag_field="kind", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A part of a spec: a set of values, all different."""


class Values(_Kind, tag="values", kw_only=True, frozen=True):
    """These values."""

    values: Annotated[list[Any], Meta(min_length=1)]


class Numbers(_Kind, tag="numbers", kw_only=True, frozen=True):
    """The whole numbers from `first` to `last`, both included."""

    first: int
    last: int


class Words(_Kind, tag="words", kw_only=True, frozen=True):
    """Texts of one word from each list, with a space between them."""

    words: Annotated[list[list[str]], Meta(min_length=1)]


class Lists(_Kind, tag="lists", kw_only=True, frozen=True):
    """Lists of `of`, of each length from the first to the last in `lengths`.

    Of each length all of them, if they are not more than `count`, and otherwise `count` different ones, in which no
    element comes twice unless `repeats`. counts: other numbers for some lengths.
    """

    of: Spec
    lengths: Range
    count: Size = PER_LENGTH
    counts: dict[str, Size] = {}
    repeats: bool | None = None


class Strings(_Kind, tag="strings", kw_only=True, frozen=True):
    """Strings over an alphabet, counted as Lists are. A letter may come again."""

    alphabet: Annotated[str, Meta(min_length=1)]
    lengths: Range
    count: Size = PER_LENGTH
    counts: dict[str, Size] = {}


class Grids(_Kind, tag="grids", kw_only=True, frozen=True):
    """Grids of `of`, lists of rows, of each height and width in `rows` and `columns`; `count` of each shape."""

    of: Spec
    rows: Range
    columns: Range
    count: Size = PER_LENGTH


class Records(_Kind, tag="records", kw_only=True, frozen=True):
    """Objects with these fields: all of them, if they are not more than `count`, and otherwise `count` drawn ones."""

    fields: Annotated[dict[str, Spec], Meta(min_length=1)]
    count: Size = PER_LENGTH


Spec = Values | Numbers | Words | Lists | Strings | Grids | Records

LIST_FUNCTION = Lists(of=Numbers(first=0, last=99), lengths=[0, 16])
ACRE = Lists(of=Words(words=[[*COLOURS], [*MATERIALS], [*SHAPES]]), lengths=[0, 8])


def paper_space(kind: str, per_length: int = PER_LENGTH) -> Spec:
    """The spec of one of the paper's spaces, list-function or acre, with so many lists of each length."""
    return msgspec.structs.replace({"list-function": LIST_FUNCTION, "acre": ACRE}[kind], count=per_length)


def spec_file(path: str) -> Spec:
    """The spec in a file: TOML if its name ends so, else JSON. Raises ToolrollError for one that is none."""
    try:
        return read_spec(Path(path).read_bytes(), toml=path.lower().endswith(".toml"))
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=path) from error
    except ToolrollError as error:
        raise ToolrollError(error.why, place=path) from error


def read_spec(data: bytes, *, toml: bool) -> Spec:
    """A spec in TOML or JSON. Raises ToolrollError for one that is none."""
    try:
        spec: Spec = (msgspec.toml if toml else msgspec.json).decode(data, type=Spec)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ToolrollError(f"no spec: {error}") from error
    return spec


def made(spec: Spec, rng: random.Random, *, repeats: bool = False) -> list[Any]:
    """The values a spec describes, each once, in the order in which they are made.

    rng: a spec takes its numbers from it in order. repeats: of Lists that do not say themselves.

    >>> made(read_spec(b'{"kind":"lists","of":{"kind":"numbers","first":0,"last":1},"lengths":[0,2]}', toml=False),
    ...      random.Random(0))
    [[], [0], [1], [0, 0], [0, 1], [1, 0], [1, 1]]
    """
    match spec:
        case Values():
            return _different(spec.values)
        case Numbers():
            _check_number(max(0, spec.last - spec.first + 1))
            return list(range(spec.first, spec.last + 1))
        case Words():
            return _different(" ".join(words) for words in itertools.product(*spec.words))
        case Lists():
            again = repeats if spec.repeats is None else spec.repeats
            elements = made(spec.of, rng, repeats=repeats)
            return [list(value) for value in sequences(elements, _lengths(spec), rng, repeats=again)]
        case Strings():
            return ["".join(value) for value in sequences(_different(spec.alphabet), _lengths(spec), rng, repeats=True)]
        case Grids():
            return list(_grids(spec, made(spec.of, rng, repeats=repeats), rng))
        case Records():
            return list(_records(spec, rng, repeats))


def sequences(
    elements: Sequence[Any], lengths: Mapping[int, int], rng: random.Random, *, repeats: bool = False
) -> Iterator[tuple[Any, ...]]:
    """Sequences of different elements, `lengths[L]` of each length L.

    If there are not more than that, |elements|^L, all of them are made, with repeated elements. Otherwise they are
    drawn until so many different ones are there, without repeated elements, as the released code does it, or with
    `repeats`. Where fewer exist without repeated elements, those are made.

    >>> list(sequences("ab", {0: 9, 1: 9, 2: 2}, random.Random(1)))
    [(), ('a',), ('b',), ('a', 'b'), ('b', 'a')]
    """
    size = len(elements)
    for length, count in lengths.items():
        if _power(size, length, count) <= count:
            yield from itertools.product(elements, repeat=length)
        elif not repeats and length <= size and math.perm(size, length) <= count:
            yield from itertools.permutations(elements, length)
        elif not repeats and length > size:
            raise ToolrollError(f"no list of length {length} without repeats can be made of {size} elements")
        else:
            yield from _drawn(elements, length, count, rng, repeats=repeats)


def _drawn(
    elements: Sequence[Any], length: int, count: int, rng: random.Random, *, repeats: bool
) -> Iterable[tuple[Any, ...]]:
    """`count` different sequences; by the elements' places, which are hashable where they are not."""
    places = range(len(elements))
    seen: dict[tuple[int, ...], None] = {}
    while len(seen) < count:
        drawn = rng.choices(places, k=length) if repeats else rng.sample(places, k=length)
        seen[tuple(drawn)] = None
    return (tuple(elements[place] for place in drawn) for drawn in seen)


def _power(base: int, exponent: int, bound: int) -> int:
    """Base ** exponent, or something above `bound`."""
    if base > 1 and exponent > 64:
        return bound + 1
    return int(base**exponent)


def _lengths(spec: Lists | Strings) -> dict[int, int]:
    first, last = spec.lengths
    unknown = [name for name in spec.counts if not name.isdigit() or not first <= int(name) <= last]
    if unknown:
        raise ToolrollError(f"counts names {unknown[0]!r}, which is no length from {first} to {last}")
    return {length: spec.counts.get(str(length), spec.count) for length in range(first, last + 1)}


def _grids(spec: Grids, cells: Sequence[Any], rng: random.Random) -> Iterator[Any]:
    for height in range(spec.rows[0], spec.rows[1] + 1):
        for width in range(spec.columns[0], spec.columns[1] + 1):
            for flat in sequences(cells, {height * width: spec.count}, rng, repeats=True):
                yield [list(flat[row * width : (row + 1) * width]) for row in range(height)]


def _records(spec: Records, rng: random.Random, repeats: bool) -> Iterator[Any]:
    columns = {name: made(part, rng, repeats=repeats) for name, part in spec.fields.items()}
    number = math.prod(map(len, columns.values()))
    if number <= spec.count:
        choices: Iterable[Sequence[Any]] = itertools.product(*columns.values())
    else:
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < spec.count:
            drawn[tuple(rng.randrange(len(column)) for column in columns.values())] = None
        choices = ([column[place] for column, place in zip(columns.values(), places, strict=True)] for places in drawn)
    for values in choices:
        yield dict(zip(columns, values, strict=True))


def _different(values: Iterable[Any]) -> list[Any]:
    """Each value once, compared as JSON."""
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _check_number(number: int) -> None:
    if number > MOST:
        raise ToolrollError(f"a set of {number} values is too large; at most {MOST}")
