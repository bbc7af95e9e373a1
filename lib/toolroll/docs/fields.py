"""Types and fields of records in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

_PLAIN: dict[type, str] = {
    inspect.AnyType: "any value",
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.DictType: "object",
    inspect.ListType: "list",
}
_LIMITS = (("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"))
_LENGTHS = (("min_length", "length at least {}"), ("max_length", "length at most {}"), ("pattern", "like {}"))


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record: its name, its type in words, whether it is needed or its default, what it means."""

    name: str
    type: str
    need: str
    description: str


def type_text(kind: Any) -> str:
    """A type in words.

    >>> type_text(list[str] | None), type_text(list[list[int]])
    ('list of strings, or null', 'list of lists of integers')
    """
    return _text(inspect.type_info(kind))


def description_of(kind: Any) -> str:
    """What a type's annotation says it means; "" without one."""
    return _description(inspect.type_info(kind))


def fields_of(struct: type[msgspec.Struct], *, own: bool = False) -> Iterator[Field]:
    """The fields of a struct, or only its `own`, those that no record it extends has."""
    bases = [base for base in struct.__bases__ if issubclass(base, msgspec.Struct) and base is not msgspec.Struct]
    inherited = {name for base in bases for name in base.__struct_fields__}
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        if not (own and field.name in inherited):
            yield Field(field.name, _text(field.type), _need(field), _description(field.type))


def _need(field: inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "optional"  # a field that may be unset
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "optional" if default is None else f"default {msgspec.json.encode(default).decode()}"


def _description(info: inspect.Type) -> str:
    """What Annotated says about a type; the outermost word counts."""
    if not isinstance(info, inspect.Metadata):
        return ""
    return str((info.extra_json_schema or {}).get("description", "")) or _description(info.type)


def _text(info: Any) -> str:
    compound = _COMPOUND.get(type(info))
    text = compound(info) if compound else _PLAIN[type(info)]
    limits = [
        words.format(value) for name, words in (*_LIMITS, *_LENGTHS) if (value := getattr(info, name, None)) is not None
    ]
    return ", ".join([text, *limits])


def _list(info: inspect.ListType) -> str:
    if isinstance(info.item_type, inspect.AnyType):
        return "list"
    kind = info.item_type.type if isinstance(info.item_type, inspect.Metadata) else info.item_type
    item = _text(kind)
    if noun := _PLAIN.get(type(kind)):
        item = f"{noun}s{item.removeprefix(noun)}"
    return f"list of ({item})" if isinstance(kind, inspect.UnionType) else f"list of {item}"


def _union(info: inspect.UnionType) -> str:
    parts = [_text(part) for part in info.types]
    return (", or " if any(" " in part for part in parts) else " or ").join(parts)


def _literal(info: inspect.LiteralType) -> str:
    values = [json.dumps(value) for value in info.values]
    return "one of " + ", ".join(values) if len(values) > 1 else values[0]


_COMPOUND: dict[type, Callable[[Any], str]] = {
    inspect.Metadata: lambda info: _text(info.type),
    inspect.UnionType: _union,
    inspect.StructType: lambda info: str(info.cls.__name__),
    inspect.ListType: _list,
    inspect.LiteralType: _literal,
}
