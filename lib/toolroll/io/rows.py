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
import re
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import orjson

from toolroll.errors import RowError

V = TypeVar("V")
Fields = dict[str, msgspec.Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.encode
MOST_BYTES = 256 << 20  #: of a line
_BOM = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile(
    rb"(?i:\\u(?:d[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})|(?<!\\ud[89ab][0-9a-f]{2}\\u)d[c-f][0-9a-f]{2}))"
)


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


def row_decoder(
    view: type[V], adds: Iterable[str] = (), exact: frozenset[str] = frozenset()
) -> Callable[[bytes], tuple[V, bool, Shape]]:
    """A function from a line to (checked view, is an error row, what is known of its shape).

    `adds` are the fields a command adds, `exact` those that hold no float. Everything is decoded in one
    pass. Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for a line that is not such
    a record.
    """
    own = {field.encode_name for field in msgspec.structs.fields(view)}  # type: ignore[arg-type]
    names = dict.fromkeys(["error", *adds])
    marks = {f"mark_{position}": name for position, name in enumerate(names) if name not in own}
    optional = (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    marked = msgspec.defstruct(
        view.__name__,
        [(mark, *optional) for mark in marks],
        bases=(view,),
        rename=marks,
        kw_only=True,
        frozen=True,
        gc=False,
    )
    decode = msgspec.json.Decoder(marked).decode
    shape = Shape(frozenset(own.intersection(adds)), exact)
    unset = msgspec.UNSET
    marked_fields = attrgetter(*marks)
    none_seen = (unset,) * len(marks) if len(marks) > 1 else unset

    def read(line: bytes) -> tuple[V, bool, Shape]:
        if not line.isascii():
            line.decode()
        row: Any = decode(line)
        if marked_fields(row) == none_seen:
            return row, False, shape
        seen = [name for mark, name in marks.items() if getattr(row, mark) is not unset]
        return row, "error" in seen and bytes(row.mark_0) != b"null", Shape(shape.present.union(seen), exact)

    return read


def block_decoder(view: type, names: Iterable[str]) -> Callable[[list[bytes]], list[Any] | None]:
    """A function from lines to these fields of the view of their records; None when one of them is no sound record.

    Blank lines give nothing. An error row of an earlier command is not sound.
    """
    fields = {field.name: field for field in msgspec.structs.fields(view)}
    mark_type = msgspec.Raw | msgspec.UnsetType
    marked = msgspec.defstruct(
        view.__name__,
        [("mark_0", mark_type, msgspec.UNSET), *((name, fields[name].type, fields[name].default) for name in names)],
        rename={"mark_0": "error"},
        kw_only=True,
        frozen=True,
        gc=False,
    )
    decode: Any = msgspec.json.Decoder(marked).decode_lines
    mark = attrgetter("mark_0")

    def read(lines: list[bytes]) -> list[Any] | None:
        block = b"\n".join(lines)
        try:
            if not block.isascii():
                block.decode()
            views: list[Any] = decode(block)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return views if set(map(type, map(mark, views))) <= {msgspec.UnsetType} else None

    return read


def holds_floats(kind: Any) -> bool:
    """Whether values of a type may hold floats, however deep.

    >>> holds_floats(list[int] | None), holds_floats(dict[str, list[float]])
    (False, True)
    """
    from msgspec import inspect

    todo, done = [inspect.type_info(kind)], set()
    while todo:
        info: Any = todo.pop()
        if isinstance(info, inspect.FloatType | inspect.AnyType | inspect.RawType | inspect.CustomType):
            return True
        if isinstance(info, inspect.StructType) and info.cls not in done:
            done.add(info.cls)
            todo += [field.type for field in info.fields]
        todo += [getattr(info, part) for part in ("item_type", "key_type", "value_type", "type") if hasattr(info, part)]
        todo += [*getattr(info, "types", ()), *getattr(info, "item_types", ())]
    return False


class _Mark(msgspec.Struct):
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_mark = msgspec.json.Decoder(_Mark).decode


def is_error_row(line: bytes) -> bool:
    """Whether a line is a record that an earlier command marked as failed."""
    try:
        error = _decode_mark(line).error
        line.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(error, msgspec.Raw) and bytes(error) != b"null"


def read_error(line: bytes, error: Exception) -> str:
    """Why a line was refused, in words a user can act on."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        if line.startswith(b"["):
            return "an array, not an object; is the file one JSON array or pretty-printed? try: jq -c '.[]'"
        return str(error).replace("Object missing", "missing")
    why = str(error).removeprefix("JSON is malformed: ")
    if why.startswith("invalid character"):
        at = int(why.rpartition(" ")[2].rstrip(")"))
        for word in (b"NaN", b"Infinity"):
            if line.startswith(word, at):
                return f"{word.decode()} is not JSON (byte {at})"
    if _LONE_SURROGATE.search(line.replace(b"\\\\", b"")):
        return "lone surrogate in a string"
    if line in (b"{", b"["):
        return "only the start of a record; is the file pretty-printed? try: jq -c ."
    return f"not JSON: {why[:1].lower() + why[1:]}"


def unknown_field(line: bytes, known: frozenset[str]) -> str | None:
    """For `--strict`: a complaint about the first top-level field that no record of toolroll has."""
    for name in _decode_fields(line):
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            return f"unknown field `{name}`" + (f" (did you mean `{near[0]}`?)" if near else "")
    return None


def key_reader(names: tuple[str, ...]) -> Callable[[bytes], tuple[bytes, ...]]:
    r"""A function from a line to the JSON of the fields `names`, as a key; absent ones are empty.

    A string has the same key however it is escaped.

    >>> key_reader(("id", "sample"))(b'{"id": "\\u00e9", "x": 1}')
    (b'"\xc3\xa9"', b'')
    """

    def read(line: bytes) -> tuple[bytes, ...]:
        fields = _decode_fields(line)
        return tuple(_canonical(bytes(fields[name])) if name in fields else b"" for name in names)

    return read


def _canonical(value: bytes) -> bytes:
    return _encode(msgspec.json.decode(value)) if b"\\" in value else value


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


def strip_bom(chunk: bytes) -> bytes:
    """The first bytes of a file without the byte-order mark that some editors write."""
    return chunk.removeprefix(_BOM)


def split_lines(chunks: Iterable[bytes], most: int = MOST_BYTES) -> Iterator[list[bytes]]:
    r"""Lines without their newline out of chunks of bytes, as many at a time as a chunk completes.

    Takes time linear in the length of a line, however many chunks it spans. OverflowError for one that is still going
    on after `most` bytes: a small compressed file may hold a line that no memory does.

    >>> list(split_lines([b"a\nb", b"c", b"\n", b"d"]))
    [[b'a'], [b'bc'], [b'd']]
    """
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        lines = chunk.split(b"\n")
        rest.append(lines[0])
        size += len(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(rest)
            rest = [lines.pop()]
            size = len(rest[0])
            yield lines
        elif size > most:
            raise OverflowError(f"a line of more than {most >> 20} MiB")
    last = b"".join(rest)
    if last:
        yield [last]
