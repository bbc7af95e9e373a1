"""Rows by the values of some of their fields: what --by asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from toolroll.errors import RowError, UsageError

T = TypeVar("T")


def read_names(text: str | None, taken: Collection[str] = ()) -> tuple[str, ...]:
    """The names in `text`, the value of --by. UsageError for what are none, and for those of fields that are `taken`.

    >>> read_names("model, step"), read_names(None)
    (('model', 'step'), ())
    """
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if not all(names) or len(set(names)) < len(names):
        raise UsageError("expected names, each once, with commas between them", place="--by")
    if both := next((name for name in names if name in taken), None):
        raise UsageError(f"the result has a field `{both}` of its own", place="--by")
    return names


def values_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    """The values of these fields, None for one that is missing. RowError for a list or an object."""
    values = tuple(fields.get(name) for name in names)
    for name, value in zip(names, values, strict=True):
        if isinstance(value, list | dict):
            raise RowError(f"`{name}` is no single value")
    return values


class Groups(Generic[T]):
    """What is made of each group of rows, in the order in which groups begin.

    Values are told apart as JSON tells them: 1, 1.0, true and "1" are four.

    >>> groups = Groups(list)
    >>> for value in (1, True, 1.0, 1):
    ...     groups.of((value,)).append(value)
    >>> list(groups)
    [((1,), [1, 1]), ((True,), [True]), ((1.0,), [1.0])]
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._groups: dict[tuple[Any, ...], tuple[tuple[Any, ...], T]] = {}

    def of(self, values: tuple[Any, ...]) -> T:
        """What is made of the rows with these values."""
        key = tuple((type(value), value) for value in values)
        if key not in self._groups:
            self._groups[key] = (values, self._make())
        return self._groups[key][1]

    def __iter__(self) -> Iterator[tuple[tuple[Any, ...], T]]:
        """The values of each group, and what was made of it."""
        return iter(self._groups.values())
