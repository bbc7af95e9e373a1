"""One line of JSON and what a command sees and changes of it.

The line is the truth. A command reads a few fields of it through a *view*, a `msgspec.Struct` that
names and types just those; all other fields are skipped over, never looked at, and written back as
the very bytes they came in, so an unknown field, a 70-bit integer or a float's spelling is never lost.
Fields that a command adds are spliced in at the end of the line; a field that exists already is
replaced where it stands.

What is refused on input: anything that is not UTF-8 or not JSON, NaN and Infinity among it, lone
surrogates, and nesting beyond about 1,000 levels.
"""

from __future__ import annotations

import math
import os
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import orjson

from toolroll.errors import RowError

V = TypeVar("V")
Fields = dict[str, msgspec.Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.encode


class Shape(NamedTuple):
    """What is known of all rows of a run: `present`, added fields that a row may have already; `exact`,
    added fields whose type holds no float, so that no NaN need be looked for.
    """

    present: frozenset[str] = frozenset()
    exact: frozenset[str] = frozenset()


class Row(Generic[V]):
    """One record on its way through a command.

    `view` holds the checked fields the command declared. `place` is "file:line". `index` counts the
    records of the input from 0 and stays with everything made from this row, so that output keeps
    the order of the input. A row that is `failed` failed before this command saw it and has no view; only commands
    that asked for them get such rows, and give them back as they are. One that is `dropped` is not written.
    """

    __slots__ = ("_added", "_line", "_shape", "_source", "dropped", "error", "failed", "index", "raw", "view")

    def __init__(
        self, raw: bytes, view: V, index: int = 0, source: str = "", line: int = 0, shape: Shape | None = None
    ) -> None:
        self.raw = raw
        self.view = view
        self.index = index
        self._source = source
        self._line = line
        self._shape = shape
        self._added: dict[str, Any] | None = None
        self.error: dict[str, str] | None = None
        self.failed = False
        self.dropped = False

    @property
    def place(self) -> str:
        """Where the row was read: "file:line"."""
        return f"{self._source}:{self._line}" if self._source else f"line {self._line}"

    def add(self, **fields: Any) -> Row[V]:
        """A row with these fields set; a field that exists is replaced in place, new ones go last.

        Values are what orjson encodes: dicts, lists, strings, numbers, bools, None, msgspec structs
        turned into builtins. Raises RowError for NaN and Infinity, which are not JSON.
        """
        exact = self._shape.exact if self._shape is not None else ()
        for name, value in fields.items():
            if name not in exact and not finite(value):
                raise RowError(f"{name} has a value that is not finite (NaN or Infinity)", place=self.place)
        row = self._copy()
        row._added = {**self._added, **fields} if self._added else fields
        return row

    def fail(self, why: str, **fields: Any) -> Row[V]:
        """This row as an error row: `why` it could not be processed, plus whatever was made so far."""
        row = self.add(**fields) if fields else self._copy()
        row.error = {"why": clean(why), "where": clean(self.place)}
        return row

    def bare(self) -> Row[V]:
        """This row as it was read, without anything added."""
        return Row(self.raw, self.view, self.index, self._source, self._line, self._shape)

    def fields(self) -> dict[str, Any]:
        """The whole record as a dict, decoded anew on each call."""
        data: dict[str, Any] = msgspec.json.decode(self.raw)
        return data

    def encode(self) -> bytes:
        """The record as one line of JSON without the newline."""
        added = self._added
        if self.error is not None:
            added = {**(added or {}), "error": self.error}
        if not added:
            return self.raw
        try:
            tail = orjson.dumps(added)
        except (TypeError, ValueError) as error:
            raise RowError(str(error), place=self.place) from error
        shape = self._shape
        if (shape is None or not shape.present.isdisjoint(added)) and any(n in added for n in _decode_fields(self.raw)):
            return self._replace(added)
        head = self.raw[:-1].rstrip()
        return head + tail[1:] if head == b"{" else head + b"," + tail[1:]

    def _replace(self, added: dict[str, Any]) -> bytes:
        fields = _decode_fields(self.raw)
        for name, value in added.items():
            fields[name] = msgspec.Raw(orjson.dumps(value))
        return _encode(fields)

    def _copy(self) -> Row[V]:
        row = Row(self.raw, self.view, self.index, self._source, self._line, self._shape)
        row._added = self._added
        row.error = self.error
        return row


class BadRow:
    """A line that could not be read as the record the command wants."""

    __slots__ = ("index", "place", "raw", "why")

    def __init__(self, raw: bytes, why: str, place: str, index: int) -> None:
        self.raw = raw
        self.why = why
        self.place = place
        self.index = index

    def encode(self) -> bytes:
        """The error record that stands for the line: the row itself where it is an object, else its text in `raw`."""
        error = {"why": self.why, "where": clean(self.place)}
        try:
            fields = _decode_fields(self.raw)
            self.raw.decode()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return orjson.dumps({"error": error, "raw": self.raw.decode(errors="backslashreplace")})
        fields["error"] = msgspec.Raw(orjson.dumps(error))
        return _encode(fields)


class PassedRow:
    """An error row made by an earlier command: passed on as it is, and counted."""

    __slots__ = ("index", "raw")

    def __init__(self, raw: bytes, index: int) -> None:
        self.raw = raw
        self.index = index

    def encode(self) -> bytes:
        """The line as it came."""
        return self.raw


def finite(value: Any) -> bool:
    """Whether a JSON-like value holds no NaN and no Infinity, however deep.

    >>> finite({"a": [1, 2.5]}), finite({"a": [float("nan")]})
    (True, False)
    """
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(map(finite, value.values()))
    if kind is list or kind is tuple:
        return all(map(finite, value))
    return True


def clean(text: str) -> str:
    """Text as it may stand in a record: one line, no lone surrogates."""
    return " ".join(text.encode(errors="replace").decode().split())


def plain(value: Any) -> Any:
    """`value` with lists and texts that JSON can hold: bytes of file names that are not UTF-8 become backslash escapes.

    What is no container, text or path stays as it is, so that what JSON has no form for is still an error.
    """
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, str | os.PathLike):
        return os.fspath(value).encode(errors="backslashreplace").decode()
    return value
