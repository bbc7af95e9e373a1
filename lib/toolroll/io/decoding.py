"""From a line to the checked view of its record, or to the reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from toolroll.io.rows import Shape

V = TypeVar("V")

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode
_LONE_SURROGATE = re.compile(
    rb"(?i:\\u(?:d[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})|(?<!\\ud[89ab][0-9a-f]{2}\\u)d[c-f][0-9a-f]{2}))"
)


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
