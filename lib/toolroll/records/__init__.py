"""Every record that commands exchange, and every field, described once.

From here come the check at run time, `CMD --schema` and toolroll-records(5). A command declares the
fields it reads with `view(Record, "field", ...)`; other fields of a row are never looked at. A name
means the same in all records. Units stand in the name (`_s`, `_ms`, `_tokens`, `_bytes`).

The records of each system are in a module of their own, so that a command loads those it needs.
"""

from functools import cache
from importlib import import_module
from typing import Any

from toolroll.records.base import IMAGE_FIELDS, Arm, Count, Id, Positive, Record, Safe, field_types, view

__all__ = [
    "IMAGE_FIELDS",
    "Arm",
    "Count",
    "Id",
    "Positive",
    "Record",
    "Safe",
    "all_records",
    "field_names",
    "field_types",
    "schema_text",
    "view",
]

#: The modules with records, in the order of toolroll-records(5).
MODULES = (
    *("rollouts", "checking", "rag", "training", "curriculum", "abduction", "numerics", "world", "spygame"),
    *("preference", "pruning", "kvcache", "segment", "nvs", "machine"),
)


def all_records() -> list[type[Record]]:
    """Every record: module by module, in the order in which each has them."""
    modules = [import_module(f"toolroll.records.{name}") for name in MODULES]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__
    ]


@cache
def field_names() -> frozenset[str]:
    """The names of all fields of all records, plus `error`."""
    return frozenset({"error"}.union(*(record.__struct_fields__ for record in all_records())))


def schema_text(reads: type | None, adds: dict[str, Any]) -> str:
    """The JSON Schema of the rows a command reads; the fields it adds are under `x-adds`."""
    import msgspec
    import orjson

    schema = msgspec.json.schema(reads) if reads is not None else {}
    schema["x-adds"] = {name: msgspec.json.schema(kind) for name, kind in adds.items()}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
